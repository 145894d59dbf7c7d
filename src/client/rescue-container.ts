/** Rescue containers: an account's key pairs, sealed for a rescue key, as a small file that says nothing else. @module */
import { importPublicKey, type KeyPairVersion, SyncError, type UserKeyPair } from '../../crypto/index.ts'
import { openKeyPair, rescueKeyId, rescuePublicKey, sealKeyPair } from '../../crypto/rescue-key.ts'
import { getKeyPairs } from '../api/account.ts'
import type { ClientContext } from './context.ts'

/** One key pair in a container. */
export interface SealedKey {
  readonly version: KeyPairVersion
  /** SHA-256 of its public key, 64 lower-case hex digits. */
  readonly fingerprint: string
  readonly enc: Uint8Array
  readonly sealed: Uint8Array
}

/** What a container says. */
export interface RescueContainer {
  /** `https://HOST`. */
  readonly server: string
  readonly userId: number
  readonly user: string
  /** Of the rescue key that it is sealed for. */
  readonly keyId: string
  /** ISO 8601. */
  readonly createdAt: string
  readonly keys: readonly SealedKey[]
}

const FORMAT = 'sealsync-rescue'
const VERSION = 1
/** Two key pairs have less than 8 KiB. */
export const MAX_CONTAINER = 64 * 1024

/** What a sealed key pair belongs to: all that a container says of it. */
const contextOf = (container: Omit<RescueContainer, 'keys'>, { version, fingerprint }: SealedKeyName) => {
  const { server, userId, user, keyId, createdAt } = container
  return Buffer.from(JSON.stringify([FORMAT, VERSION, server, userId, user, keyId, createdAt, version, fingerprint]))
}
type SealedKeyName = Pick<SealedKey, 'version' | 'fingerprint'>

/** Makes a container for the public half of a rescue key. */
export async function sealContainer(
  pairs: readonly UserKeyPair[],
  publicKey: Uint8Array,
  owner: Pick<RescueContainer, 'server' | 'userId' | 'user' | 'createdAt'>,
): Promise<RescueContainer> {
  const head = { ...owner, keyId: rescueKeyId(publicKey) }
  const keys: SealedKey[] = []
  for (const pair of pairs) {
    const name = { version: pair.version, fingerprint: pair.publicKey.fingerprint }
    keys.push({ ...name, ...(await sealKeyPair(pair, publicKey, contextOf(head, name))) })
  }
  return { ...head, keys }
}

const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64')

/** The same text for the same container. */
export function formatContainer({ server, userId, user, keyId, createdAt, keys }: RescueContainer): string {
  const head = { server, userId, user, keyId, createdAt }
  const rows = keys.map(({ version, fingerprint, enc, sealed }) => ({
    version,
    fingerprint,
    enc: base64(enc),
    sealed: base64(sealed),
  }))
  const suite = 'DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM'
  return `${JSON.stringify({ format: FORMAT, version: VERSION, suite, ...head, keys: rows }, undefined, 1)}\n`
}

const isText = (value: unknown, pattern: RegExp) => typeof value === 'string' && pattern.test(value)

function parseKey(value: unknown): SealedKey | undefined {
  const { version, fingerprint, enc, sealed } = (value ?? {}) as Record<string, unknown>
  const isKey =
    (version === 'A' || version === 'RSA-4096') &&
    isText(fingerprint, /^[0-9a-f]{64}$/) &&
    isText(enc, /^[A-Za-z0-9+/]{43}=$/) &&
    isText(sealed, /^[A-Za-z0-9+/]{100,16000}={0,2}$/)
  if (!isKey) return undefined
  return {
    version,
    fingerprint: fingerprint as string,
    enc: new Uint8Array(Buffer.from(enc as string, 'base64')),
    sealed: new Uint8Array(Buffer.from(sealed as string, 'base64')),
  }
}

/**
 * Reads a container.
 *
 * @param where - For people.
 * @throws {SyncError} `RESCUE_CONTAINER_INVALID` (class `integrity`).
 */
export function parseContainer(bytes: Uint8Array, where: string): RescueContainer {
  const invalid = () =>
    new SyncError('integrity', 'RESCUE_CONTAINER_INVALID', `${where} is no rescue container, or it is damaged`, {
      hint: 'Take another copy of it: the paper says where it was put.',
    })
  let json: Record<string, unknown>
  try {
    if (bytes.length > MAX_CONTAINER) throw invalid()
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch {
    throw invalid()
  }
  const { format, version, server, userId, user, keyId, createdAt, keys } = json ?? {}
  const isHead =
    format === FORMAT &&
    version === VERSION &&
    isText(server, /^https?:\/\/[^\s/]{1,300}$/) &&
    Number.isSafeInteger(userId) &&
    isText(user, /^[^\p{Cc}]{1,300}$/u) &&
    isText(keyId, /^[0-9a-f]{16}$/) &&
    isText(createdAt, /^\d{4}-\d\d-\d\dT[\d:.]{8,12}Z$/) &&
    Array.isArray(keys) &&
    keys.length > 0 &&
    keys.length <= 2
  if (!isHead) throw invalid()
  const parsed = keys.map(parseKey)
  if (parsed.includes(undefined) || new Set(parsed.map((key) => key?.version)).size < parsed.length) throw invalid()
  return {
    server: server as string,
    userId: userId as number,
    user: user as string,
    keyId: keyId as string,
    createdAt: createdAt as string,
    keys: parsed as SealedKey[],
  }
}

/**
 * Opens a container.
 *
 * @param seed - Private half of the rescue key: 32 bytes.
 * @returns its key pairs, unlocked; wipe them.
 * @throws {SyncError} `RESCUE_KEY_OTHER` (class `key`) when it was made for another rescue key; `RESCUE_CONTAINER_TAMPERED` (class
 * `integrity`).
 */
export async function openContainer(container: RescueContainer, seed: Uint8Array): Promise<UserKeyPair[]> {
  const keyId = rescueKeyId(await rescuePublicKey(seed))
  if (keyId !== container.keyId) {
    throw new SyncError(
      'key',
      'RESCUE_KEY_OTHER',
      `The rescue container was made for another rescue key (${container.keyId}) than this one (${keyId})`,
      { hint: 'Take the paper that names this id, or the container that belongs to the paper.' },
    )
  }
  const opened: UserKeyPair[] = []
  try {
    for (const key of container.keys) {
      const pair = await openKeyPair(key, seed, contextOf(container, key), key.version)
      opened.push(pair)
      if (pair.publicKey.fingerprint !== key.fingerprint) {
        throw new SyncError(
          'integrity',
          'RESCUE_CONTAINER_TAMPERED',
          'The rescue container holds another key than it says',
        )
      }
    }
    return opened
  } catch (error) {
    for (const pair of opened) pair.wipe()
    throw error
  }
}

/**
 * Makes sure that a container belongs to the account that is logged in, and that the server still shows the key pairs in it.
 *
 * @throws {SyncError} `RESCUE_CONTAINER_OTHER` (class `key`), `RESCUE_FINGERPRINT_DIFFERS` (class `integrity`).
 */
export async function requireOwnContainer(
  { api, keyring }: ClientContext,
  { server, userId, user, keys }: RescueContainer,
  signal?: AbortSignal,
): Promise<void> {
  if (server !== api.origin || userId !== (await keyring.userId(signal))) {
    const whose = `user ${userId} at ${server}`
    throw new SyncError(
      'key',
      'RESCUE_CONTAINER_OTHER',
      `The rescue container belongs to ${whose}, not to this login`,
      {
        hint: `Log in as ${/^[\w.@ -]{1,80}$/.test(user) ? user : 'that user'} first.`,
      },
    )
  }
  for (const { publicKeyContainer } of await getKeyPairs(api, signal)) {
    const sealed = keys.find(({ version }) => version === publicKeyContainer.version)
    if (sealed === undefined) continue
    const { fingerprint } = await importPublicKey(publicKeyContainer)
    if (fingerprint === sealed.fingerprint) continue
    throw new SyncError(
      'integrity',
      'RESCUE_FINGERPRINT_DIFFERS',
      `The server shows another key pair for this account (${fingerprint}) than is in the container (${sealed.fingerprint})`,
      {
        hint: 'Was the key pair replaced after the container was made? Then take the newer container. Else ask who runs the server.',
      },
    )
  }
}
