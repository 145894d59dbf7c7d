/**
 * The account's own key pairs: fetched once, unlocked once per version when first needed, used for many files. Also the one
 * place that turns members' public keys into something to wrap with.
 * @module
 */

import { createHash } from 'node:crypto'
import {
  type FileKey,
  importPublicKey,
  type KeyPairContainer,
  type KeyPairVersion,
  type Password,
  type PublicKey,
  parsePublicKeyContainer,
  SyncError,
  signStatement,
  type UserKeyPair,
  unlockKeyPair,
  unwrapFileKey,
  type WrappedFileKey,
  wrapFileKey,
} from '../../crypto/index.ts'
import { getAccount, getKeyPairs } from '../api/account.ts'
import type { Api } from '../api/api.ts'
import { systemClock } from '../environment.ts'
import { showFingerprint } from '../fingerprint.ts'
import { askOnce } from './ask-once.ts'
import type { FileKeyCache } from './file-key-cache.ts'
import { createPins, type OwnKey, type Pins } from './pins.ts'

/** The account’s key pairs, unlocked when they are needed, and file keys wrapped and unwrapped with them. */
export interface Keyring {
  /**
   * The private key is not here, and never asked for: what needs it throws `PRIVATE_KEY_ELSEWHERE` (class `key`). File keys are made and
   * wrapped for the public key that was brought here, and kept nowhere.
   */
  readonly isWriteOnly: boolean
  /** What is known of members' keys. */
  readonly pins: Pins
  /** Id of the account. */
  userId(signal?: AbortSignal): Promise<number>
  /** The locked key pairs as the server has them. */
  containers(signal?: AbortSignal): Promise<readonly KeyPairContainer[]>
  /**
   * The account's public key, the preferred one unless a version is given. The key pair is unlocked first, which proves that
   * the public key belongs to it: the server could have put another one there.
   */
  ownKey(signal?: AbortSignal, version?: KeyPairVersion): Promise<PublicKey>
  /**
   * The account's preferred public key, to wrap its own file keys for. Without unlocking where that was done on this machine
   * before: `pins` knows that this key belongs to the locked key pair that the server still has. Else as `ownKey`. Where one can only
   * write, it is the key that was brought here.
   *
   * @throws {SyncError} `OWN_KEY_CHANGED` (class `integrity`) when the server shows another one than was proven or brought, and no
   * private key says that it is right; `PUBLIC_KEY_NEEDED` where one can only write and none was brought.
   */
  wrappingKey(signal?: AbortSignal): Promise<PublicKey>
  /**
   * Does what comes before `wrappingKey`: fetches the key pair, and asks for the password if it has to be unlocked.
   *
   * @throws {SyncError} `NO_KEY_PAIR`, `PASSWORD_NEEDED`.
   */
  prepare(signal?: AbortSignal): Promise<void>
  /**
   * The account's key pair itself, unlocked: the preferred one unless a version is given. For what seals it; not to be wiped.
   *
   * @throws {SyncError} as `ownKey`.
   */
  unlocked(signal?: AbortSignal, version?: KeyPairVersion): Promise<UserKeyPair>
  /**
   * Says that the key pairs at the server have changed.
   *
   * @param next - The encryption password from now on; copied. Default: the one that was asked for before.
   */
  refresh(next?: Password): void
  /** Takes note that a locked key pair, as the server has it, was unlocked and belongs to this public key; see `wrappingKey`. */
  prove(container: KeyPairContainer, publicKey: PublicKey): Promise<void>
  /** Opens a file key with the key pair of its version. */
  unwrap(wrapped: WrappedFileKey, signal?: AbortSignal): Promise<FileKey>
  /**
   * The cached key of a node, without asking the server. Content never changes under a node, so one that does not match its tag
   * was damaged or exchanged.
   */
  recall(nodeId: number, signal?: AbortSignal): Promise<FileKey | undefined>
  /**
   * As `unwrap`, for content of a node; asks the cache first.
   *
   * @throws {SyncError} `CONTENT_SWAPPED` (class `integrity`) when the cache knows the node with another content: content never
   * changes under a node.
   */
  open(nodeId: number, wrapped: WrappedFileKey, signal?: AbortSignal): Promise<FileKey>
  /**
   * Says that content has matched the tag of a key from `open`; only then it is cached. A wrapped key proves nothing about its
   * IV and tag: one that the server made up would otherwise stay after the right one is back. Call it before wiping the key.
   */
  confirm(fileKey: FileKey): void
  /** Caches the key of content that was uploaded under it, for the preferred key pair, locked or not. Call it before wiping the key. */
  keep(nodeId: number, fileKey: FileKey): Promise<void>
  /**
   * Signs a statement with the private key of the preferred pair; see `signStatement`.
   *
   * @returns the signature, and the public key that it can be checked with.
   */
  sign(
    purpose: string,
    statement: (publicKey: PublicKey) => Uint8Array,
    signal?: AbortSignal,
  ): Promise<{ readonly publicKey: PublicKey; readonly signature: Uint8Array }>
  /** Wraps a file key for somebody. */
  wrap(fileKey: FileKey, publicKey: PublicKey): Promise<WrappedFileKey>
  /**
   * Reads a member's public key; the same container is parsed once.
   *
   * @throws {SyncError} `KEY_CONTAINER_INVALID`, `KEY_VERSION_UNKNOWN`, `PUBLIC_KEY_INVALID`.
   */
  importKey(container: unknown): Promise<PublicKey>
  /** Writes the cache and forgets the unlocked keys. */
  close(): Promise<void>
}

/** IV and tag stand for a content. */
export const isSameContent = (a: Pick<FileKey, 'iv' | 'tag'>, b: Pick<FileKey, 'iv' | 'tag'>): boolean =>
  Buffer.compare(a.iv, b.iv) === 0 && Buffer.compare(a.tag, b.tag) === 0

const exchanged = () =>
  new SyncError('integrity', 'CONTENT_SWAPPED', 'The server has other content under this file than was there before', {
    hint: 'Content never changes under a file’s id. Ask who runs the server. If you have looked: sync keys cache clear',
  })

const versionOf = (wrapped: WrappedFileKey): KeyPairVersion => (wrapped.version === 'A' ? 'A' : 'RSA-4096')

const keyChanged = (shown: string, cause?: unknown) =>
  new SyncError(
    'integrity',
    'OWN_KEY_CHANGED',
    `The server shows another public key for this account than the one that is known here: ${showFingerprint(shown)}`,
    {
      hint: 'Nothing was sent. Compare it with what sync keys status says where your private key is; if you have made a new key pair, see sync keys pin-public. Else ask the administrator of the server.',
      cause,
    },
  )

const notHere = () =>
  new SyncError(
    'key',
    'PRIVATE_KEY_ELSEWHERE',
    'This needs the private key, and here one can only write (--write-only)',
    {
      hint: 'Do it on the machine that has the encryption password.',
    },
  )

const notGiven = () =>
  new SyncError('key', 'PUBLIC_KEY_NEEDED', 'Nobody has brought the public key of this account here yet', {
    hint: 'Where the private key is: sync keys export-public FILE. Here: sync keys pin-public FILE',
  })

const noKeyPair = (version?: KeyPairVersion) =>
  new SyncError(
    'key',
    'NO_KEY_PAIR',
    version === undefined ? 'This account has no key pair' : `This account has no key pair of version ${version}`,
    { hint: 'Make one: sync keys create' },
  )

/**
 * @param password - Asked for at most once; a wrong one is reported, not asked for again.
 * @param pins - Default: in memory, and nobody is trusted yet.
 * @param login - Name of the login; default: made of the user's id, once something else has asked for that.
 * @param isWriteOnly - The private key is not to be used, whatever there is of passwords.
 */
export function createKeyring(
  api: Api,
  password: () => Promise<Password>,
  cache?: FileKeyCache,
  pins: Pins = createPins({ origin: api.origin, clock: systemClock }),
  login?: string,
  isWriteOnly = false,
): Keyring {
  /** Where the keys came from that are not in the cache. */
  const unconfirmed = new WeakMap<FileKey, { pair: UserKeyPair; nodeId: number }>()
  const unlocked = new Map<KeyPairVersion, Promise<UserKeyPair>>()
  /** Unlocked before the key pairs were changed. */
  const former: Promise<UserKeyPair>[] = []
  const imported = new Map<string, Promise<PublicKey>>()
  /** The first one may be made at any time. */
  const { get: containers, forget } = askOnce<readonly KeyPairContainer[]>(
    (signal) => getKeyPairs(api, signal),
    ({ length }) => length > 0,
  )
  let asked: Promise<Password> | undefined
  let account: Promise<number> | undefined
  let proven: Promise<PublicKey | undefined> | undefined

  async function unlock(version: KeyPairVersion, signal?: AbortSignal): Promise<UserKeyPair> {
    if (isWriteOnly) throw notHere()
    const container = (await containers(signal)).find((pair) => pair.privateKeyContainer.version === version)
    if (container === undefined) throw noKeyPair(version)
    asked ??= password()
    const opened = await unlockKeyPair(container, await asked)
    // What cannot be noted is proven again the next time.
    await ownKeyOf(container, opened.publicKey)
      .then((own) => own && pins.prove(own))
      .catch(() => {})
    return opened
  }

  /** As pins know it; `undefined` while nobody knows the name of the login. */
  async function ownKeyOf(
    { privateKeyContainer }: KeyPairContainer,
    { version, fingerprint }: PublicKey,
  ): Promise<OwnKey | undefined> {
    const name = login ?? (account && `${api.origin} ${await account}`)
    const lockedKey = createHash('sha256').update(privateKeyContainer.privateKey).digest('hex')
    return name === undefined ? undefined : { account: name, version, fingerprint, lockedKey }
  }

  /** The preferred public key, if it has been proven on this machine. */
  async function findProven(signal?: AbortSignal): Promise<PublicKey | undefined> {
    const version = await preferred(signal)
    const container = (await containers(signal)).find((pair) => pair.privateKeyContainer.version === version)
    // Whatever is wrong with it, unlocking says.
    if (container === undefined || container.publicKeyContainer.version !== version) return undefined
    const key = await importPublicKey(container.publicKeyContainer).catch(() => undefined)
    const own = key && (await ownKeyOf(container, key))
    return own !== undefined && (await pins.isProven(own)) ? key : undefined
  }

  /** The public key that was brought here, if the server still shows it for this account. */
  async function findGiven(signal?: AbortSignal): Promise<PublicKey> {
    const pin = await pins.given(await ring.userId(signal))
    if (pin === undefined) throw notGiven()
    const version = await preferred(signal)
    const container = (await containers(signal)).find((pair) => pair.publicKeyContainer.version === version)
    const key = container && (await importPublicKey(container.publicKeyContainer))
    if (key?.version !== pin.version || key.fingerprint !== pin.fingerprint) throw keyChanged(key?.fingerprint ?? '')
    return key
  }

  /** A key pair that does not open: the public key may be another one than was proven here before, which is what has to be told then. */
  async function explained(error: unknown, signal?: AbortSignal): Promise<unknown> {
    if (!(error instanceof SyncError) || error.class !== 'key' || error.code === 'NO_KEY_PAIR') return error
    const version = await preferred(signal)
    const container = (await containers(signal)).find((one) => one.publicKeyContainer.version === version)
    const key = container && (await importPublicKey(container.publicKeyContainer).catch(() => undefined))
    const own = container && key && (await ownKeyOf(container, key))
    if (own === undefined) return error
    const { own: known } = await pins.read()
    const before = known.find((pin) => pin.account === own.account && pin.version === version)
    const isOther = before !== undefined && before.fingerprint !== own.fingerprint
    return isOther ? keyChanged(own.fingerprint, error) : error
  }

  function provenKey(signal?: AbortSignal): Promise<PublicKey | undefined> {
    proven ??= (isWriteOnly ? findGiven(signal) : findProven(signal)).catch((error) => {
      proven = undefined
      throw error
    })
    return proven
  }

  function pair(version: KeyPairVersion, signal?: AbortSignal): Promise<UserKeyPair> {
    let opening = unlocked.get(version)
    if (opening === undefined) {
      opening = unlock(version, signal).catch((error) => {
        // A cut connection says nothing about the next time, and a key pair can be made.
        const isFinal = error instanceof SyncError && error.class === 'key' && error.code !== 'NO_KEY_PAIR'
        if (!isFinal) unlocked.delete(version)
        throw error
      })
      unlocked.set(version, opening)
    }
    return opening
  }

  async function preferred(signal?: AbortSignal): Promise<KeyPairVersion> {
    const versions = (await containers(signal)).map(({ privateKeyContainer }) => privateKeyContainer.version)
    if (versions.length === 0) throw noKeyPair()
    return versions.includes('RSA-4096') ? 'RSA-4096' : 'A'
  }

  const ring: Keyring = {
    isWriteOnly,
    pins,
    userId(signal) {
      account ??= getAccount(api, signal).then(
        ({ id }) => id,
        (error) => {
          account = undefined
          throw error
        },
      )
      return account
    },
    containers,
    ownKey: async (signal, version) => (await pair(version ?? (await preferred(signal)), signal)).publicKey,
    unlocked: async (signal, version) => pair(version ?? (await preferred(signal)), signal),
    async wrappingKey(signal) {
      const known = await provenKey(signal)
      if (known !== undefined) return known
      try {
        return (await pair(await preferred(signal), signal)).publicKey
      } catch (error) {
        throw await explained(error, signal)
      }
    },
    async prepare(signal) {
      if ((await provenKey(signal)) !== undefined) return
      asked ??= password()
      try {
        await asked
      } catch (error) {
        throw await explained(error, signal)
      }
    },
    refresh(next) {
      forget()
      proven = undefined
      if (next === undefined) return
      asked = Promise.resolve(typeof next === 'string' ? next : Uint8Array.from(next))
      // Whatever is at work with one goes on.
      former.push(...unlocked.values())
      unlocked.clear()
    },
    async prove(container, publicKey) {
      const own = await ownKeyOf(container, publicKey)
      if (own !== undefined) await pins.prove(own)
    },
    async recall(nodeId, signal) {
      return cache?.find(await pair(await preferred(signal), signal), nodeId)
    },
    unwrap: async (wrapped, signal) => unwrapFileKey(wrapped, await pair(versionOf(wrapped), signal)),
    async open(nodeId, wrapped, signal) {
      const opened = await pair(versionOf(wrapped), signal)
      const known = await cache?.find(opened, nodeId)
      if (known !== undefined) {
        if (isSameContent(known, wrapped)) return known
        known.wipe()
        throw exchanged()
      }
      const fileKey = await unwrapFileKey(wrapped, opened)
      unconfirmed.set(fileKey, { pair: opened, nodeId })
      return fileKey
    },
    confirm(fileKey) {
      const from = unconfirmed.get(fileKey)
      if (from === undefined) return
      unconfirmed.delete(fileKey)
      cache?.add(from.pair, from.nodeId, fileKey)
    },
    async keep(nodeId, fileKey) {
      if (cache === undefined || isWriteOnly) return
      const version = await preferred()
      const key = unlocked.has(version) ? undefined : await provenKey()
      if (key === undefined) cache.add(await pair(version), nodeId, fileKey)
      else cache.addLocked(key, nodeId, fileKey)
    },
    async sign(purpose, statement, signal) {
      const opened = await pair(await preferred(signal), signal)
      const { publicKey } = opened
      return { publicKey, signature: await signStatement(opened, purpose, statement(publicKey)) }
    },
    wrap: wrapFileKey,
    importKey(container) {
      const id = JSON.stringify(container)
      let key = imported.get(id)
      if (key === undefined) {
        key = (async () => importPublicKey(parsePublicKeyContainer(container)))()
        if (imported.size < 10_000) imported.set(id, key)
      }
      return key
    },
    async close() {
      await cache?.flush()
      for (const opening of [...former.splice(0), ...unlocked.values()]) {
        opening.then((opened) => opened.wipe()).catch(() => {})
      }
      unlocked.clear()
    },
  }
  return ring
}
