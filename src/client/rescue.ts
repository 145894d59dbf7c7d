/**
 * Rescue keys on paper: making one, opening with it, and whose rescue keys of the server get file keys. Rooms' rescue keys are
 * rescue-rooms.ts, rehearsals are rescue-drill.ts; what is on the paper is crypto/rescue-text.ts.
 * @module
 */
import { existsSync, statSync } from 'node:fs'
import { readFile, unlink } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import type { KeyPairVersion, Password, UserKeyPair } from '../../crypto/index.ts'
import { generateRescueSeed, rescueKeyId, rescuePublicKey } from '../../crypto/rescue-key.ts'
import type { RescueSecret } from '../../crypto/rescue-text.ts'
import { getAccount } from '../api/account.ts'
import { localError, SyncError, toSyncError } from '../errors.ts'
import { parseFingerprint } from '../fingerprint.ts'
import { placeFile, syncDirectory } from '../local/atomic-file.ts'
import { parseRemotePath, requireContainer, resolveRemote } from '../sync/remote-path.ts'
import { listEncryptedRooms, listMembers } from '../transfer/members.ts'
import type { KeyId } from '../transfer/pins.ts'
import { listRescueKeys } from '../transfer/rescue-keys.ts'
import { get, put } from './content.ts'
import type { Abortable, ClientContext } from './context.ts'
import { pathOf, remove as removeEntries } from './entries.ts'
import {
  formatContainer,
  MAX_CONTAINER,
  openContainer,
  parseContainer,
  type RescueContainer,
  requireOwnContainer,
  sealContainer,
} from './rescue-container.ts'
import { changeRescueKeys, type KnownRescueKey, type RescuePlace, readRescueKeys } from './rescue-memory.ts'
import { type RescuePaper, requireKind, type ShareCount, writePapers } from './rescue-papers.ts'

export type { RescuePlace } from './rescue-memory.ts'

/** Where the container of a rescue key goes. At least one of them. */
export interface RescuePlaces {
  /** A file here, or a directory; on a medium that survives this machine. */
  readonly file?: string | undefined
  /** A file at the server, or a room or folder there that is not encrypted. */
  readonly store?: string | undefined
}

/** How a rescue key is made. */
export interface RescueCreateOptions extends Abortable, RescuePlaces {
  /** Splits the secret, so that no single sheet opens anything. */
  readonly shares?: ShareCount | undefined
}

/** A rescue key that was made. */
export interface RescueCreated {
  /** 16 hexadecimal digits; stands on paper and container, and says nothing about the key. */
  readonly keyId: string
  readonly server: string
  readonly userId: number
  readonly user: string
  /** ISO 8601. */
  readonly createdAt: string
  /** The key pairs that it opens. */
  readonly keyPairs: readonly KeyId[]
  readonly places: readonly RescuePlace[]
  readonly papers: readonly RescuePaper[]
}

const exists = (path: string) =>
  new SyncError('conflict', 'EXISTS', `It exists already: ${path}`, { hint: 'Name another place for the container.' })

const fileName = (keyId: string) => `sealsync-rescue-${keyId}.json`

/** Where the container goes, after looking that it can. */
async function choosePlaces(
  { api }: ClientContext,
  keyId: string,
  { file, store }: RescuePlaces,
  signal: AbortSignal | undefined,
): Promise<RescuePlace[]> {
  const places: RescuePlace[] = []
  if (file !== undefined) {
    const given = resolve(file)
    const path = existsSync(given) && statSync(given).isDirectory() ? join(given, fileName(keyId)) : given
    if (existsSync(path)) throw exists(path)
    places.push({ kind: 'file', path })
  }
  if (store !== undefined) {
    const { found, missing } = await resolveRemote(api, store, signal)
    const isFolder = missing.length === 0 && found.at(-1)?.type !== 'file'
    if (missing.length === 0 && !isFolder) throw exists(store)
    const path = isFolder ? pathOf([...parseRemotePath(store), fileName(keyId)]) : store
    const { container } = await requireContainer(api, pathOf(parseRemotePath(path).slice(0, -1)), signal)
    if (container.isEncrypted === true) throw storeEncrypted(store)
    places.push({ kind: 'server', path })
  }
  if (places.length > 0) return places
  throw new SyncError('usage', 'RESCUE_PLACE_NEEDED', 'Say where the rescue container goes', {
    hint: 'A file on another medium (--container FILE), a place at the server that is not encrypted (--store /PATH), or both.',
  })
}

const storeEncrypted = (path: string) =>
  new SyncError(
    'usage',
    'RESCUE_STORE_ENCRYPTED',
    `${path} is encrypted: who has lost the key could not read the container`,
    {
      hint: 'Name a place that is not encrypted; the container itself says nothing without the paper.',
    },
  )

async function readPlace(context: ClientContext, place: RescuePlace, signal?: AbortSignal): Promise<RescueContainer> {
  if (place.kind === 'file') {
    const bytes = await readFile(place.path).catch((error) => {
      throw localError(error, `read ${place.path}`)
    })
    return parseContainer(bytes, place.path)
  }
  const content = await get(context, place.path, { limit: MAX_CONTAINER, signal })
  return parseContainer(await content.bytes(), place.path)
}

async function writePlace(
  context: ClientContext,
  { kind, path }: RescuePlace,
  text: string,
  onConflict: 'fail' | 'overwrite',
  signal: AbortSignal | undefined,
): Promise<void> {
  if (kind === 'server') {
    // It is ciphertext.
    await put(context, path, Buffer.from(text), { onConflict, allowPlain: true, signal })
    return
  }
  const beforeRename = () => void (onConflict === 'fail' && requireFree(path))
  await placeFile(path, Buffer.from(text), { beforeRename })
  await syncDirectory(dirname(path))
}

function requireFree(path: string): void {
  if (existsSync(path)) throw exists(path)
}

async function removePlace(context: ClientContext, { kind, path }: RescuePlace, signal?: AbortSignal): Promise<void> {
  if (kind === 'server') await removeEntries(context, [path], { signal })
  else await unlink(path).catch((error) => Promise.reject(localError(error, `remove ${path}`)))
}

const idOf = ({ version, publicKey: { fingerprint } }: UserKeyPair): KeyId => ({ version, fingerprint })

/** What is there opens with what is on paper. */
async function prove(container: RescueContainer, seed: Uint8Array, pairs: readonly UserKeyPair[]): Promise<void> {
  const opened = await openContainer(container, seed)
  const fingerprints = (all: readonly UserKeyPair[]) => all.map((pair) => pair.publicKey.fingerprint).join()
  const isSame = fingerprints(opened) === fingerprints(pairs)
  for (const pair of opened) pair.wipe()
  if (!isSame) throw new SyncError('internal', 'INTERNAL', 'The rescue container does not hold what it was made of')
}

async function unlockAll({ keyring }: ClientContext, signal: AbortSignal | undefined): Promise<UserKeyPair[]> {
  const versions = (await keyring.containers(signal)).map(({ privateKeyContainer }) => privateKeyContainer.version)
  const order: readonly (KeyPairVersion | undefined)[] = versions.length === 0 ? [undefined] : versions
  const pairs: UserKeyPair[] = []
  for (const version of order) pairs.push(await keyring.unlocked(signal, version))
  return pairs
}

/**
 * Makes a rescue key, and seals the account's key pairs for it. Each copy of the container has been read back from its place and opened
 * with what is on the papers before this resolves. The public half is kept in the client's directory, for new key pairs.
 *
 * @returns what goes onto paper. Nothing keeps that: print it, and let go of it.
 * @throws {SyncError} `RESCUE_PLACE_NEEDED`, `RESCUE_STORE_ENCRYPTED`, `EXISTS`, `REMOTE_MISSING`, `RESCUE_SHARES_INVALID`,
 * `NO_KEY_PAIR`, `KEY_PASSWORD_WRONG`. Nothing is left behind then.
 */
export async function create(context: ClientContext, options: RescueCreateOptions): Promise<RescueCreated> {
  const { api, clock } = context
  const { shares, signal } = options
  const seed = generateRescueSeed()
  const made: RescuePlace[] = []
  try {
    const publicKey = await rescuePublicKey(seed)
    const keyId = rescueKeyId(publicKey)
    const places = await choosePlaces(context, keyId, options, signal)
    const papers = await writePapers({ kind: 'key', secret: seed }, shares)
    const pairs = await unlockAll(context, signal)
    const { id: userId, userName: user } = await getAccount(api, signal)
    const owner = { server: api.origin, userId, user, createdAt: new Date(clock.now()).toISOString() }
    const text = formatContainer(await sealContainer(pairs, publicKey, owner))
    for (const place of places) {
      await writePlace(context, place, text, 'fail', signal)
      made.push(place)
      await prove(await readPlace(context, place, signal), seed, pairs)
    }
    const known: KnownRescueKey = {
      keyId,
      publicKey: Buffer.from(publicKey).toString('hex'),
      createdAt: owner.createdAt,
      places,
    }
    await changeRescueKeys(context, (keys) => [...keys, known], signal)
    return { keyId, ...owner, keyPairs: pairs.map(idOf), places, papers }
  } catch (error) {
    for (const place of made) await removePlace(context, place).catch(() => {})
    throw error
  } finally {
    seed.fill(0)
  }
}

/** A container that was made anew, or why not. */
export interface RenewedContainer extends RescuePlace {
  readonly keyId: string
  readonly error?: SyncError | undefined
}

/**
 * Seals key pairs for all rescue keys of the account that this machine knows, in place of what is in their containers. No paper is needed.
 *
 * @param pairs - Unlocked; they stay so.
 * @returns one entry per container; none when there is no rescue key. What fails is in the entry.
 * @throws {SyncError} `RESCUE_KEYS_DAMAGED`.
 */
export async function renewRescueContainers(
  context: ClientContext,
  pairs: UserKeyPair | readonly UserKeyPair[],
  { signal }: Abortable,
): Promise<readonly RenewedContainer[]> {
  const renewed: RenewedContainer[] = []
  const { id: userId, userName: user } = await getAccount(context.api, signal)
  for (const { keyId, publicKey, places } of await readRescueKeys(context, signal)) {
    const createdAt = new Date(context.clock.now()).toISOString()
    const owner = { server: context.api.origin, userId, user, createdAt }
    const all = 'publicKey' in pairs ? [pairs] : pairs
    const text = formatContainer(await sealContainer(all, Buffer.from(publicKey, 'hex'), owner))
    for (const place of places) {
      try {
        await writePlace(context, place, text, 'overwrite', signal)
        if (formatContainer(await readPlace(context, place, signal)) !== text) {
          throw new SyncError(
            'integrity',
            'RESCUE_CONTAINER_TAMPERED',
            `Another container than was written is in ${place.path}`,
          )
        }
        renewed.push({ keyId, ...place })
      } catch (error) {
        if (signal?.aborted) throw error
        renewed.push({ keyId, ...place, error: toSyncError(error) })
      }
    }
  }
  return renewed
}

/** Where a container is looked for. Default: where this machine has put it. */
export interface OpenRescueOptions extends Abortable, RescuePlaces {}

/** The account's key pairs, opened by the rescue key alone. */
export interface OpenedRescue {
  readonly keyId: string
  readonly place: RescuePlace
  readonly container: RescueContainer
  /** Wipe them. */
  readonly pairs: readonly UserKeyPair[]
}

/**
 * Opens the account's key pairs with what is on paper.
 *
 * @throws {SyncError} `RESCUE_PLACE_NEEDED`; `RESCUE_KEY_OTHER`, `RESCUE_CONTAINER_OTHER` (class `key`); `RESCUE_CONTAINER_INVALID`,
 * `RESCUE_CONTAINER_TAMPERED`, `RESCUE_FINGERPRINT_DIFFERS` (class `integrity`).
 */
export async function openRescue(
  context: ClientContext,
  secret: RescueSecret,
  options: OpenRescueOptions,
): Promise<OpenedRescue> {
  const { file, store, signal } = options
  const seed = requireKind(secret, 'key')
  const keyId = rescueKeyId(await rescuePublicKey(seed))
  const given: RescuePlace[] = [
    ...(file === undefined ? [] : [{ kind: 'file' as const, path: resolve(file) }]),
    ...(store === undefined ? [] : [{ kind: 'server' as const, path: store }]),
  ]
  const known = (await readRescueKeys(context, signal)).find((one) => one.keyId === keyId)?.places ?? []
  let failure: unknown
  for (const place of given.length > 0 ? given : known) {
    try {
      const container = await readPlace(context, place, signal)
      const pairs = await openContainer(container, seed)
      try {
        await requireOwnContainer(context, container, signal)
        return { keyId, place, container, pairs }
      } catch (error) {
        for (const pair of pairs) pair.wipe()
        throw error
      }
    } catch (error) {
      if (signal?.aborted) throw error
      failure ??= error // another copy may do
    }
  }
  if (failure !== undefined) throw failure
  throw new SyncError('usage', 'RESCUE_PLACE_NEEDED', 'Say where the rescue container is: the paper has it', {
    hint: 'A file: --container FILE; at the server: --store /PATH',
  })
}

/** How key pairs are opened and locked again. */
export interface RescueRestoreOptions extends OpenRescueOptions {
  /** Called when the server has the new lock: for what keeps the encryption password elsewhere. */
  readonly onChanged?: ((password: Password) => Promise<void>) | undefined
}

/** What a rescue key has opened. */
export interface RescueRestored {
  readonly keyId: string
  readonly place: RescuePlace
  readonly keyPairs: readonly KeyId[]
}

/**
 * Opens the account's key pairs with a rescue key, and locks them with a new encryption password. Key pairs stay as they are, and so
 * does the rescue key.
 *
 * @param next - The new password, asked for when the container has opened.
 * @throws {SyncError} as `openRescue` and `keys.changePassword`.
 */
export async function restore(
  context: ClientContext,
  secret: RescueSecret,
  next: () => Promise<Password>,
  { onChanged, ...options }: RescueRestoreOptions,
): Promise<RescueRestored> {
  const { signal } = options
  const { keyId, place, pairs } = await openRescue(context, secret, options)
  try {
    const { relockKeyPairs } = await import('./key-password.ts')
    await relockKeyPairs(context, pairs, next, { onChanged, signal })
    return { keyId, place, keyPairs: pairs.map(idOf) }
  } finally {
    for (const pair of pairs) pair.wipe()
  }
}

/** A rescue key of the server, and whether somebody has compared it. */
export interface ServerRescueKey extends KeyId {
  /** `unnamed`: gets file keys offered, and the server does not say whose it is. */
  readonly of: 'room' | 'system' | 'unnamed'
  readonly room?: string | undefined
  readonly state: 'trusted' | 'new'
}

/** All rescue keys that this account has to do with. */
export interface RescueList {
  /** Own ones that this machine knows. */
  readonly own: readonly Omit<KnownRescueKey, 'publicKey'>[]
  /** Those that the server has for rooms and for the system. */
  readonly server: readonly ServerRescueKey[]
}

async function serverKeys({ api, keyring }: ClientContext, signal: AbortSignal | undefined) {
  const rooms = (await listEncryptedRooms(api, signal)).filter(({ parentId = 0 }) => parentId === 0)
  const named = await listRescueKeys(api, rooms, signal)
  const offered = (await listMembers(api, keyring, signal)).filter(({ isRescueKey }) => isRescueKey === true)
  return { named, offered }
}

/** Own rescue keys, and those of the server. */
export async function list(context: ClientContext, { signal }: Abortable): Promise<RescueList> {
  const pins = await context.keyring.pins.read()
  const { named, offered } = await serverKeys(context, signal)
  const stateOf = (fingerprint: string, userId?: number): ServerRescueKey['state'] => {
    const isPinned = pins.rescueKeys.some((pin) => pin.fingerprint === fingerprint)
    const isMember = pins.keys.some((pin) => pin.userId === userId && pin.fingerprint === fingerprint)
    return isPinned || isMember ? 'trusted' : 'new'
  }
  const idsOf = (fingerprint: string) =>
    offered.filter(({ keys }) => keys.some((key) => key.fingerprint === fingerprint)).map(({ userId }) => userId)
  const rows: ServerRescueKey[] = named.map(({ of, roomName, key: { version, fingerprint } }) => ({
    of,
    room: roomName,
    version,
    fingerprint,
    state: stateOf(fingerprint, idsOf(fingerprint)[0]),
  }))
  for (const { userId, keys } of offered) {
    for (const { version, fingerprint } of keys) {
      if (rows.some((row) => row.fingerprint === fingerprint)) continue
      rows.push({ of: 'unnamed', version, fingerprint, state: stateOf(fingerprint, userId) })
    }
  }
  const own = (await readRescueKeys(context, signal)).map(({ publicKey: _, ...shown }) => shown)
  return { own, server: rows }
}

/**
 * Trusts a rescue key of the server: it may get file keys from now on, and open all files with them.
 *
 * @param fingerprint - As somebody has compared it.
 * @throws {SyncError} `FINGERPRINT_INVALID`; `RESCUE_KEY_UNKNOWN` when the server shows no such rescue key.
 */
export async function trust(
  context: ClientContext,
  fingerprint: string,
  { signal }: Abortable,
): Promise<KeyId & { readonly of: ServerRescueKey['of']; readonly room?: string | undefined }> {
  const wanted = parseFingerprint(fingerprint)
  const { pins } = context.keyring
  const { named, offered } = await serverKeys(context, signal)
  const found = named.find(({ key }) => key.fingerprint === wanted)
  const shown = offered.filter(({ keys }) => keys.some((key) => key.fingerprint === wanted))
  const key = found?.key ?? shown.flatMap(({ keys }) => keys).find((one) => one.fingerprint === wanted)
  if (key === undefined) {
    throw new SyncError('not_found', 'RESCUE_KEY_UNKNOWN', 'The server shows no rescue key with this fingerprint', {
      hint: 'See those that there are: sync keys rescue list',
    })
  }
  await pins.trustRescueKey(key)
  // Ends a doubt about an id that had another key before.
  for (const { userId } of shown) await pins.trust(userId, [key], true)
  return { version: key.version, fingerprint: wanted, of: found?.of ?? 'unnamed', room: found?.roomName }
}

/** What does not count any more. */
export interface RescueRevoked {
  /** Copies of the container that were removed, or could not be. */
  readonly places: readonly (RescuePlace & { readonly error?: SyncError | undefined })[]
}

/**
 * Ends the trust in a rescue key of the server; or forgets an own rescue key, and removes its containers, so that its paper opens nothing
 * any more that is still there.
 *
 * @param id - Fingerprint (64 hexadecimal digits), or id of an own rescue key (16).
 * @throws {SyncError} `RESCUE_KEY_UNKNOWN`.
 */
export async function revoke(context: ClientContext, id: string, { signal }: Abortable): Promise<RescueRevoked> {
  const digits = id.replace(/[\s:-]/g, '').toLowerCase()
  const unknown = new SyncError('not_found', 'RESCUE_KEY_UNKNOWN', 'No rescue key with this id is known here', {
    hint: 'See those that there are: sync keys rescue list',
  })
  if (!/^[0-9a-f]{16}$/.test(digits)) {
    if ((await context.keyring.pins.forgetRescueKey(parseFingerprint(id))) === 0) throw unknown
    return { places: [] }
  }
  const known = (await readRescueKeys(context, signal)).find(({ keyId }) => keyId === digits)
  if (known === undefined) throw unknown
  const places: (RescuePlace & { error?: SyncError })[] = []
  for (const place of known.places) {
    try {
      await removePlace(context, place, signal)
      places.push(place)
    } catch (error) {
      if (signal?.aborted) throw error
      places.push({ ...place, error: toSyncError(error) })
    }
  }
  await changeRescueKeys(context, (keys) => keys.filter(({ keyId }) => keyId !== digits), signal)
  return { places }
}
