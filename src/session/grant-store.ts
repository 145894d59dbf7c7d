/**
 * Where grants live between runs: the operating system's keyring, else a private file. Saving is durable before it returns,
 * because a renewed refresh token must never be used before it is stored.
 * @module
 */
import { createHash } from 'node:crypto'
import { unlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../environment.ts'
import { localError, SyncError, systemCode } from '../errors.ts'
import { readPrivateFile, writePrivateFile } from '../local/atomic-file.ts'
import { takeLock } from '../local/lock.ts'
import { openSystemKeyring } from '../local/system-keyring.ts'
import type { Grant } from './authorizer.ts'

export interface GrantStore {
  /** Shown to the user: where the login is kept. */
  readonly place: string
  load(): Promise<Grant | undefined>
  save(grant: Grant): Promise<void>
  clear(): Promise<void>
  /** Runs `work` while no other process renews. */
  exclusive<T>(work: () => Promise<T>): Promise<T>
}

function parseGrant(text: string): Grant | undefined {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value !== 'object' || value === null) return undefined
    const { v, accessToken, refreshToken, expiresAt, lifetimeMs, scope } = value as Record<string, unknown>
    if (v !== 1 || typeof accessToken !== 'string') return undefined
    if (typeof expiresAt !== 'number' || typeof lifetimeMs !== 'number') return undefined
    return {
      v,
      accessToken,
      expiresAt,
      lifetimeMs,
      ...(typeof refreshToken === 'string' ? { refreshToken } : {}),
      ...(typeof scope === 'string' ? { scope } : {}),
    }
  } catch {
    return undefined
  }
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

const RENEWAL_WAIT_MS = 60_000

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
export function fileGrantStore(path: string, clock: Clock): GrantStore {
  return {
    place: `the file ${path}`,
    async load() {
      const bytes = await readPrivateFile(path)
      return bytes === undefined ? undefined : parseGrant(Buffer.from(bytes).toString('utf8'))
    },
    save: (grant) => writePrivateFile(path, JSON.stringify(grant)),
    async clear() {
      await unlink(path).catch((error) => {
        if (systemCode(error) !== 'ENOENT') throw localError(error, `remove ${path}`)
      })
    },
    exclusive: locked(path, clock),
  }
}

/**
 * The operating system's keyring.
 *
 * @param options.probe - Try it first (default). Leave it out for a login that is known to be there.
 * @returns `undefined` when there is none that can be written and read back.
 */
export async function keyringGrantStore(
  account: string,
  lockPath: string,
  clock: Clock,
  options: { probe?: boolean } = {},
): Promise<GrantStore | undefined> {
  const keyring = await openSystemKeyring({ probe: options.probe ?? true })
  if (keyring === undefined) return undefined
  return {
    place: 'the keyring of the operating system',
    async load() {
      const text = await keyring.get(account)
      return text === undefined ? undefined : parseGrant(text)
    },
    save: (grant) => keyring.set(account, JSON.stringify(grant)),
    clear: () => keyring.remove(account),
    exclusive: locked(lockPath, clock),
  }
}

/** The kind of store a login was saved in must be used for reading it, even where a keyring appeared since. */
export type StoreKind = 'keyring' | 'file'

export interface StoreOptions {
  /** Directory for files and locks. */
  readonly directory: string
  /** Unique name of the login: origin, client and user. */
  readonly account: string
  readonly clock: Clock
  /** Forces one kind. */
  readonly kind?: StoreKind
}

// A digest: an account's name can be longer than file names may be, and its case must count everywhere.
const fileName = (account: string) => `grant-${createHash('sha256').update(account).digest('hex')}.json`

/** Opens the best store there is. */
export async function openGrantStore(options: StoreOptions): Promise<{ store: GrantStore; kind: StoreKind }> {
  const path = join(options.directory, fileName(options.account))
  if (options.kind !== 'file') {
    const store = await keyringGrantStore(options.account, path, options.clock, { probe: options.kind === undefined })
    if (store !== undefined) return { store, kind: 'keyring' }
    if (options.kind === 'keyring') {
      throw new SyncError('auth', 'KEYRING_MISSING', 'The keyring that holds the login cannot be opened', {
        hint: 'Unlock it, or log in again.',
      })
    }
  }
  return { store: fileGrantStore(path, options.clock), kind: 'file' }
}
