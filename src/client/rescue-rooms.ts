/**
 * Rescue keys that the server has for rooms, and for the whole system: making that of a room, with its password on paper, and handing out
 * file keys with them. Whose of them are trusted is rescue.ts.
 * @module
 */
import { type Password, type UserKeyPair, unlockKeyPair } from '../../crypto/index.ts'
import { type RescueSecret, roomRescuePassword } from '../../crypto/rescue-text.ts'
import { getRoomRescueKey, getSystemRescueKey, setRoomRescueKey } from '../api/rescue-keys.ts'
import { SyncError } from '../errors.ts'
import { type DistributionResult, distributeFileKeys, type RefusedMember } from '../transfer/distribute.ts'
import type { KeyId } from '../transfer/pins.ts'
import type { Abortable, ClientContext } from './context.ts'
import { prepareRoomRescue, type RescuePaper, requireKind, type ShareCount } from './rescue-papers.ts'
import { requireRoom } from './rooms.ts'

/** How the rescue key of a room is made. */
export interface RoomRescueOptions extends Abortable {
  /** Splits the password, so that no single sheet opens anything. */
  readonly shares?: ShareCount | undefined
}

/** A rescue key that a room has got. */
export interface RoomRescueCreated extends KeyId {
  readonly room: string
  readonly server: string
  /** ISO 8601. */
  readonly createdAt: string
  readonly papers: readonly RescuePaper[]
  /** As other programs ask for it; absent where it is split. */
  password(): string | undefined
  /** File keys of the room that the rescue key has got. */
  readonly handedOut: number
}

/**
 * Gives an encrypted room a rescue key, which is trusted here from then on and gets the keys of all files that this account can open.
 *
 * @throws {SyncError} `ENCRYPTION_DIFFERS` for a plain room, `RESCUE_KEY_EXISTS`, `FORBIDDEN` for who is no administrator of it.
 */
export async function createForRoom(
  context: ClientContext,
  path: string,
  { shares, signal }: RoomRescueOptions,
): Promise<RoomRescueCreated> {
  const { api, keyring, clock } = context
  const room = await requireRoom(context, path, signal)
  if (room.isEncrypted !== true) {
    throw new SyncError('conflict', 'ENCRYPTION_DIFFERS', `${path} is not encrypted, and needs no rescue key`)
  }
  if ((await getRoomRescueKey(api, room.id, signal)) !== undefined) {
    throw new SyncError('conflict', 'RESCUE_KEY_EXISTS', `There is a rescue key for ${path} already`, {
      hint: 'See it with: sync keys rescue list',
    })
  }
  const { container, papers, password, ...key } = await prepareRoomRescue(shares)
  await setRoomRescueKey(api, room.id, container, signal)
  const there = await getRoomRescueKey(api, room.id, signal)
  const isThere =
    there?.privateKeyContainer.privateKey === container.privateKeyContainer.privateKey &&
    there.publicKeyContainer.publicKey === container.publicKeyContainer.publicKey
  if (!isThere) {
    throw new SyncError(
      'integrity',
      'RESCUE_CONTAINER_TAMPERED',
      `The server has another rescue key for ${path} than it was given`,
    )
  }
  await keyring.pins.trustRescueKey(key)
  const { handedOut } = await distributeFileKeys(api, keyring, { roomId: room.id, onEvent: context.onEvent, signal })
  const createdAt = new Date(clock.now()).toISOString()
  return { ...key, room: path, server: api.origin, createdAt, papers, password, handedOut }
}

/** Where the rescue key of the system is used. */
export interface ServerRescueOptions extends Abortable {
  /** Only in this room. Default: in all that use it. */
  readonly room?: string | undefined
}

const missing = (whose: string) =>
  new SyncError('not_found', 'RESCUE_KEY_MISSING', `The server has no rescue key for ${whose}`)

/** The rescue password: as it is on our papers, or as somebody has it. */
export type RescuePassword = { readonly secret: RescueSecret } | { readonly password: Password }

const passwordOf = (given: RescuePassword): Password =>
  'password' in given ? given.password : roomRescuePassword(requireKind(given.secret, 'room'))

/**
 * Opens the rescue key that covers a room.
 *
 * @returns the pair; wipe it.
 * @throws {SyncError} `RESCUE_KEY_MISSING`, `KEY_PASSWORD_WRONG`.
 */
export async function openRoomRescue(
  context: ClientContext,
  path: string,
  given: RescuePassword,
  signal: AbortSignal | undefined,
): Promise<{ readonly roomId: number; readonly pair: UserKeyPair }> {
  const password = passwordOf(given)
  const { id } = await requireRoom(context, path, signal)
  const container = await getRoomRescueKey(context.api, id, signal)
  if (container === undefined) throw missing(path)
  return { roomId: id, pair: await unlockKeyPair(container, password) }
}

/** What was handed out with a rescue key, and who was refused. */
export interface RescueHandOut extends DistributionResult {
  readonly refused: readonly RefusedMember[]
}

async function handOut(
  { api, keyring, onEvent }: ClientContext,
  holder: 'room-rescue' | 'system-rescue',
  pair: UserKeyPair,
  roomId: number | undefined,
  signal: AbortSignal | undefined,
): Promise<RescueHandOut> {
  const refused: RefusedMember[] = []
  try {
    const done = await distributeFileKeys(api, keyring, {
      ...(roomId === undefined ? {} : { roomId }),
      from: { holder, pair },
      onEvent,
      onRefused: (one) => refused.push(one),
      signal,
    })
    return { ...done, refused }
  } finally {
    pair.wipe()
  }
}

/**
 * Opens the file keys of a room with its rescue key, and hands them out to members who lack them: to this account, whose new key pair has
 * none, and to others whose keys are trusted.
 *
 * @throws {SyncError} as `openRoomRescue`; `NO_KEY_PAIR`, `FORBIDDEN` for who is no administrator of the room.
 */
export async function restoreRoom(
  context: ClientContext,
  path: string,
  given: RescuePassword,
  { signal }: Abortable,
): Promise<RescueHandOut> {
  const { roomId, pair } = await openRoomRescue(context, path, given, signal)
  return handOut(context, 'room-rescue', pair, roomId, signal)
}

/** As `restoreRoom`, with the rescue key of the system, in one room or in all that use it. */
export async function restoreSystem(
  context: ClientContext,
  password: Password,
  { room, signal }: ServerRescueOptions,
): Promise<RescueHandOut> {
  const container = await getSystemRescueKey(context.api, signal)
  if (container === undefined) throw missing('the system')
  const roomId = room === undefined ? undefined : (await requireRoom(context, room, signal)).id
  return handOut(context, 'system-rescue', await unlockKeyPair(container, password), roomId, signal)
}
