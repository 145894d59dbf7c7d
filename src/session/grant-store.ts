/**
 * Where grants live between runs: the operating system's keyring, a private file, or an encrypted one. Saving is durable before it returns,
 * because a renewed refresh token must never be used before it is stored.
 * @module
 */
import { createCipheriv, createDecipheriv, createHash, randomBytes, scrypt } from 'node:crypto'
import { unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { type Clock, systemClock } from '../environment.ts'
import { localError, SyncError, systemCode } from '../errors.ts'
import { readPrivateFile, writePrivateFile } from '../local/atomic-file.ts'
import { takeLock } from '../local/lock.ts'
import { openSystemKeyring } from '../local/system-keyring.ts'
import type { Grant } from './authorizer.ts'
import { parseGrant } from './grant.ts'

/** Where one grant is kept, for all processes that share it. */
export interface GrantStore {
  /** Shown to the user: where the login is kept. */
  readonly place: string
  load(): Promise<Grant | undefined>
  save(grant: Grant): Promise<void>
  clear(): Promise<void>
  /** Runs `work` while no other process renews. */
  exclusive<T>(work: () => Promise<T>): Promise<T>
}

/** For callers that keep the grant themselves, and for tests. */
export function memoryGrantStore(initial?: Grant): GrantStore {
  let grant = initial
  let turn: Promise<unknown> = Promise.resolve()
  return {
    place: 'memory',
    load: async () => grant,
    save: async (next) => {
      grant = next
    },
    clear: async () => {
      grant = undefined
    },
    exclusive(work) {
      const mine = turn.then(work)
      turn = mine.catch(() => {})
      return mine
    },
  }
}

/** The holder may be waiting out a `Retry-After`; who waits here has nothing better to do. */
const RENEWAL_WAIT_MS = 15 * 60_000

function locked(path: string, clock: Clock) {
  return async <T>(work: () => Promise<T>): Promise<T> => {
    const lock = await takeLock(`${path}.lock`, { clock, waitMs: RENEWAL_WAIT_MS })
    try {
      return await work()
    } finally {
      await lock.release()
    }
  }
}

/** A file of mode 0600. */
export function fileGrantStore(path: string, clock: Clock = systemClock): GrantStore {
  return {
    place: `the file ${path}`,
    async load() {
      const bytes = await readPrivateFile(path)
      return bytes === undefined ? undefined : parseGrant(Buffer.from(bytes).toString('utf8'))
    },
    save: (grant) => writePrivateFile(path, JSON.stringify(grant)),
    clear: () => removeFile(path),
    exclusive: locked(path, clock),
  }
}

const SEAL_MAGIC = 'sealsync-grant-1'
const SALT_BYTES = 16
const NONCE_BYTES = 12
const TAG_BYTES = 16
// RFC 7914: 32 MiB and about 0.1 s, once per process.
const SCRYPT = { N: 2 ** 15, r: 8, p: 1, maxmem: 64 * 1024 * 1024 } as const

const stretch = (secret: Uint8Array, salt: Uint8Array) =>
  new Promise<Buffer>((resolve, reject) => {
    scrypt(secret, salt, 32, SCRYPT, (error, key) => (error ? reject(error) : resolve(key)))
  })

/**
 * A file of mode 0600 that is encrypted besides: AES-256-GCM under a key that scrypt (RFC 7914) makes from a secret, say the
 * output of a command. Layout: magic (16 bytes), salt (16), nonce (12), ciphertext, tag (16).
 *
 * @param secret - Asked once per store; 1 byte or more, bytes of a random key or a passphrase.
 */
export function encryptedFileGrantStore(
  path: string,
  secret: () => Promise<Uint8Array>,
  clock: Clock = systemClock,
): GrantStore {
  const magic = Buffer.from(SEAL_MAGIC)
  let asked: Promise<Uint8Array> | undefined
  const keys = new Map<string, Promise<Buffer>>()
  const keyFor = async (salt: Buffer) => {
    asked ??= secret()
    const known = await asked.catch((error) => {
      asked = undefined // the command may work the next time
      throw error
    })
    if (known.length === 0) throw new SyncError('usage', 'STORE_KEY_EMPTY', 'The key of the encrypted login is empty')
    const id = salt.toString('hex')
    const key = keys.get(id) ?? stretch(known, salt)
    keys.set(id, key)
    return key
  }
  let salt: Buffer | undefined
  return {
    place: `the encrypted file ${path}`,
    async load() {
      const bytes = await readPrivateFile(path)
      if (bytes === undefined) return undefined
      const file = Buffer.from(bytes)
      const body = file.subarray(magic.length)
      if (!file.subarray(0, magic.length).equals(magic) || body.length < SALT_BYTES + NONCE_BYTES + TAG_BYTES) {
        throw new SyncError('usage', 'STORE_DAMAGED', `${path} is not an encrypted login`, { hint: 'Log in again.' })
      }
      salt = body.subarray(0, SALT_BYTES)
      const nonce = body.subarray(SALT_BYTES, SALT_BYTES + NONCE_BYTES)
      const opener = createDecipheriv('aes-256-gcm', await keyFor(salt), nonce, { authTagLength: TAG_BYTES })
      opener.setAAD(magic)
      opener.setAuthTag(body.subarray(-TAG_BYTES))
      try {
        const sealed = body.subarray(SALT_BYTES + NONCE_BYTES, -TAG_BYTES)
        return parseGrant(Buffer.concat([opener.update(sealed), opener.final()]).toString('utf8'))
      } catch {
        throw new SyncError('auth', 'STORE_KEY_WRONG', `${path} does not open with this key`, {
          hint: 'The key command gives another key than at the login, or the file was damaged. Else log in again.',
        })
      }
    },
    async save(grant) {
      salt ??= randomBytes(SALT_BYTES)
      const nonce = randomBytes(NONCE_BYTES)
      const sealer = createCipheriv('aes-256-gcm', await keyFor(salt), nonce, { authTagLength: TAG_BYTES })
      sealer.setAAD(magic)
      const sealed = Buffer.concat([sealer.update(JSON.stringify(grant), 'utf8'), sealer.final()])
      await writePrivateFile(path, Buffer.concat([magic, salt, nonce, sealed, sealer.getAuthTag()]))
    },
    clear: () => removeFile(path),
    exclusive: locked(path, clock),
  }
}

async function removeFile(path: string): Promise<void> {
  await unlink(path).catch((error) => {
    if (systemCode(error) !== 'ENOENT') throw localError(error, `remove ${path}`)
  })
}

/**
 * The operating system's keyring.
 *
 * @param options.probe - Try it first (default). Leave it out for a login that is known to be there.
 * @returns `undefined` when there is none that can be written and read back. Its functions reject with `KEYRING_MISSING` and
 * `KEYRING_REFUSED` when it cannot be used later.
 */
export async function keyringGrantStore(
  account: string,
  lockPath: string,
  clock: Clock = systemClock,
  options: { probe?: boolean } = {},
): Promise<GrantStore | undefined> {
  const keyring = await openSystemKeyring({ probe: options.probe ?? true })
  if (keyring === undefined) return undefined
  return {
    place: 'the keyring of the operating system',
    async load() {
      const text = await keyring.get(account).catch(unopened)
      return text === undefined ? undefined : parseGrant(text)
    },
    save: (grant) =>
      keyring.set(account, JSON.stringify(grant)).catch((cause) => {
        throw new SyncError('local_io', 'KEYRING_REFUSED', 'The keyring does not take the login', {
          hint: 'Unlock it, or keep the login elsewhere: --session-store file.',
          cause,
        })
      }),
    clear: () => keyring.remove(account).catch(unopened),
    exclusive: locked(lockPath, clock),
  }
}

function unopened(cause?: unknown): never {
  throw new SyncError('auth', 'KEYRING_MISSING', 'The keyring that holds the login cannot be opened', {
    hint: 'Unlock it, or log in again.',
    cause,
  })
}

/** The kind of store a login was saved in must be used for reading it, even where a keyring appeared since. */
export type StoreKind = 'keyring' | 'file' | 'encrypted'

/** Where and how a grant is stored. */
export interface StoreOptions {
  /** Directory for files and locks. */
  readonly directory: string
  /** Unique name of the login: origin, client and user. */
  readonly account: string
  readonly clock?: Clock
  /** Forces one kind. */
  readonly kind?: StoreKind
  /** For the encrypted kind, and chooses it where `kind` is not given. */
  readonly key?: () => Promise<Uint8Array>
}

// A digest: an account's name can be longer than file names may be, and its case must count everywhere.
const fileName = (account: string) => `grant-${createHash('sha256').update(account).digest('hex')}.json`

/** Opens the best store there is. */
export async function openGrantStore(options: StoreOptions): Promise<{ store: GrantStore; kind: StoreKind }> {
  const { clock = systemClock } = options
  const path = join(options.directory, fileName(options.account))
  if (options.kind === 'encrypted' || (options.kind === undefined && options.key !== undefined)) {
    const missing = async () => {
      throw new SyncError('auth', 'STORE_KEY_MISSING', 'The login is encrypted, and its key was not given', {
        hint: 'Give the command that prints it: --session-key-command.',
      })
    }
    const store = encryptedFileGrantStore(`${path}.enc`, options.key ?? missing, clock)
    return { store, kind: 'encrypted' }
  }
  if (options.kind !== 'file') {
    const store = await keyringGrantStore(options.account, path, clock, { probe: options.kind === undefined })
    if (store !== undefined) return { store, kind: 'keyring' }
    if (options.kind === 'keyring') unopened()
  }
  return { store: fileGrantStore(path, clock), kind: 'file' }
}
