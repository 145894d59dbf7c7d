/**
 * Who can open what, as far as a client can know it. A server shows wrapped file keys to nobody but their owner. What it does tell is
 * which members lack the key of which file, for files whose key the caller has: of those, everybody else in the room has it. Of a
 * file whose key the caller lacks, nothing is known but that. Nothing is held but counts, and the files that somebody lacks.
 * @module
 */
import { importPublicKey, type KeyPairVersion, keyProtection } from '../../crypto/index.ts'
import { getKeyPairs } from '../api/account.ts'
import { listMissingFileKeys } from '../api/file-keys.ts'
import { listChildren, listRoomUsers, listTooLong, MAX_ENTRIES, searchTree } from '../api/nodes.ts'
import type { RemoteNode } from '../api/wire.ts'
import { SyncError } from '../errors.ts'
import { mapLimit } from '../session/map-limit.ts'
import { requireRemote } from '../sync/remote-path.ts'
import { ownFileKey } from '../transfer/move-file-keys.ts'
import type { KeyId, PinState } from '../transfer/pins.ts'
import type { Abortable, ClientContext } from './context.ts'
import type { KeyState } from './keys.ts'

/** Where is looked, and how closely. */
export interface KeyAuditOptions extends Abortable {
  /** Path of something in a room: that room, and those in it. Default: all encrypted rooms. */
  readonly room?: string | undefined
  /** Asks not for each file whether the caller has its key, and takes it that they do. Default false. */
  readonly quick?: boolean | undefined
}

/** Somebody in a room, and the keys that they have. */
export interface MemberAudit {
  readonly userId: number
  readonly name: string | undefined
  readonly isSelf: boolean
  /** Belongs to no member, and opens every file that it has the key of. */
  readonly isRescueKey: boolean
  /** `undefined`: without a key pair they can open nothing. */
  readonly version: KeyPairVersion | undefined
  readonly fingerprint: string | undefined
  /** What this machine thinks of their key. */
  readonly trust: KeyState | undefined
  /** Files of the room whose keys they have, and lack; of others, among those whose key the caller has. */
  readonly has: number
  readonly lacks: number
}

/** One encrypted room, without the rooms in it. */
export interface RoomAudit {
  readonly room: string
  readonly files: number
  /** False: the server does not say who the members are; those who lack keys are known all the same. */
  readonly membersKnown: boolean
  readonly members: readonly MemberAudit[]
  /** Files whose key nobody but the caller has. `undefined` where the members are not known. */
  readonly onlyMine: number | undefined
}

/**
 * `KEYS_LACKING`, `KEYS_LACKING_OWN`, `KEY_PAIR_NONE`: somebody cannot open what is there. `KEYS_SINGLE`: files that depend on one
 * person. `KEY_WEAK`: RSA-2048. `LOCK_WEAK`: the own key pair is locked with too few iterations. `KEY_DOUBTED`: another key than the
 * trusted one. `KEY_UNTRUSTED`: gets no file keys before somebody has trusted it.
 */
export type FindingCode =
  | 'KEYS_LACKING'
  | 'KEYS_LACKING_OWN'
  | 'KEYS_SINGLE'
  | 'KEY_PAIR_NONE'
  | 'KEY_WEAK'
  | 'LOCK_WEAK'
  | 'KEY_DOUBTED'
  | 'KEY_UNTRUSTED'

/** Something that somebody should look at. */
export interface AuditFinding {
  readonly code: FindingCode
  /** Absent: it is about the account, or the same in all rooms. */
  readonly room?: string | undefined
  readonly userId?: number | undefined
  readonly name?: string | undefined
  readonly isRescueKey?: boolean | undefined
  /** Files. */
  readonly count?: number | undefined
}

/** Who has keys, and what somebody should look at. */
export interface KeyAudit {
  readonly rooms: readonly RoomAudit[]
  readonly findings: readonly AuditFinding[]
}

interface RoomState {
  readonly id: number
  /** `/room/`, as it stands before the names of what is in it. */
  readonly path: string
  files: number
  /** Files whose key the caller lacks. */
  ownLacks: number
}

interface Person {
  readonly userId: number
  name: string | undefined
  isRescueKey: boolean
  mayRead: boolean
  container: unknown
  lacks: number
}

const AT_ONCE = 8
const PROGRESS_EVERY = 500

/** The encrypted rooms at and below a node, by their paths. */
async function findRooms(
  { api }: ClientContext,
  start: readonly RemoteNode[],
  signal?: AbortSignal,
): Promise<RoomState[]> {
  const found: RoomState[] = []
  const pending = start.map((node) => ({ node, path: `${node.parentPath ?? '/'}${node.name}/` }))
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const { node, path } = next
    if (node.isEncrypted === true) found.push({ id: node.id, path, files: 0, ownLacks: 0 })
    if (found.length > (api.maxEntries ?? MAX_ENTRIES)) throw listTooLong()
    if (node.cntRooms === 0) continue
    for await (const child of listChildren(api, node.id, signal)) {
      // Rooms come first.
      if (child.type !== 'room') break
      pending.push({ node: child, path: `${path}${child.name}/` })
    }
  }
  return found.sort((a, b) => (a.path < b.path ? -1 : 1))
}

async function startOf({ api }: ClientContext, path: string | undefined, signal?: AbortSignal): Promise<RemoteNode[]> {
  if (path !== undefined && path !== '/') {
    const { chain } = await chainTo(api, path, signal)
    return [chain]
  }
  const rooms: RemoteNode[] = []
  for await (const node of listChildren(api, 0, signal)) if (node.type === 'room') rooms.push(node)
  return rooms
}

/** The room that something is in. */
async function chainTo(api: ClientContext['api'], path: string, signal?: AbortSignal): Promise<{ chain: RemoteNode }> {
  const { node, roomId } = await requireRemote(api, path, signal)
  if (node.type === 'room') return { chain: node }
  const names = path.split('/').filter((name) => name !== '')
  for (let length = names.length - 1; length > 0; length--) {
    const above = await requireRemote(api, `/${names.slice(0, length).join('/')}`, signal)
    if (above.node.id === roomId) return { chain: above.node }
  }
  throw new SyncError('usage', 'NOT_A_ROOM', `Not in a room: ${path}`)
}

/** Counts the files of each room; unless it has to be quick, asks for the own key of each. */
async function countFiles(
  { api, onEvent }: ClientContext,
  start: readonly RemoteNode[],
  rooms: readonly RoomState[],
  quick: boolean,
  signal: AbortSignal | undefined,
): Promise<void> {
  const byPath = new Map(rooms.map((room) => [room.path, room]))
  const roomAt = (parentPath: string): RoomState | undefined => {
    for (let path = parentPath; path.length > 1; path = path.slice(0, path.lastIndexOf('/', path.length - 2) + 1)) {
      const room = byPath.get(path)
      if (room !== undefined) return room
    }
    return undefined
  }
  let seen = 0
  const look = async ({ id, type, parentPath = '/', isEncrypted }: RemoteNode) => {
    if (type !== 'file' || isEncrypted !== true) return
    const room = roomAt(parentPath)
    if (room === undefined) return
    if (!quick) {
      try {
        const key = (await ownFileKey(api, id, 'RSA-4096', signal)) ?? (await ownFileKey(api, id, 'A', signal))
        if (key === undefined) room.ownLacks++
      } catch (error) {
        if (!(error instanceof SyncError)) throw error
        if (error.class === 'not_found') return // gone meanwhile
        if (error.code !== 'NO_KEY_PAIR') throw error
        room.ownLacks++
      }
    }
    room.files++
    if (++seen % PROGRESS_EVERY === 0) onEvent?.({ type: 'phase', text: `Looking at file keys: ${seen}` })
  }
  for (const node of start) await mapLimit(searchTree(api, node.id, signal, undefined, true), AT_ONCE, look)
}

/** Everybody whom the server names as a member of a room; `undefined` where it does not. */
async function membersOf(
  { api }: ClientContext,
  room: RoomState,
  signal?: AbortSignal,
): Promise<Map<number, Person> | undefined> {
  const people = new Map<number, Person>()
  try {
    for await (const { userInfo, permissions, publicKeyContainer } of listRoomUsers(api, room.id, true, signal)) {
      const mayRead =
        permissions === undefined || permissions.read || permissions.manage || permissions.manageDownloadShare
      const { id: userId, userName: name } = userInfo
      people.set(userId, {
        userId,
        name,
        isRescueKey: false,
        mayRead,
        container: publicKeyContainer ?? undefined,
        lacks: 0,
      })
      if (people.size > (api.maxEntries ?? MAX_ENTRIES)) throw listTooLong()
    }
  } catch (error) {
    if (error instanceof SyncError && error.class === 'permission') return undefined
    throw error
  }
  return people
}

/** Adds who lacks what; returns, for each file that somebody lacks, how many do. */
async function countLacking(
  { api }: ClientContext,
  room: RoomState,
  people: Map<number, Person>,
  membersKnown: boolean,
  signal: AbortSignal | undefined,
): Promise<Map<number, number>> {
  const lackers = new Map<number, number>()
  const most = api.maxEntries ?? MAX_ENTRIES
  const seen = new Set<string>()
  for (let offset = 0; ; ) {
    const page = await listMissingFileKeys(api, { roomId: room.id, offset }, signal)
    if (page.items.length === 0) return lackers
    const last = `${page.items[0]!.userId} ${page.items[0]!.fileId}`
    if (seen.has(last) || offset > most) throw listTooLong()
    seen.add(last)
    for (const { id, publicKeyContainer } of page.users) {
      const known = people.get(id)
      if (known !== undefined) known.container ??= publicKeyContainer
      else {
        people.set(id, {
          userId: id,
          name: undefined,
          isRescueKey: membersKnown,
          mayRead: true,
          container: publicKeyContainer,
          lacks: 0,
        })
      }
    }
    for (const { userId, fileId } of page.items) {
      const person = people.get(userId)
      if (person !== undefined) person.lacks++
      lackers.set(fileId, (lackers.get(fileId) ?? 0) + 1)
    }
    offset += page.items.length
  }
}

/** What is thought of the key that a room shows for somebody; see `KeyState`. */
function trustOf(pins: PinState, userId: number, key: KeyId, isSelf: boolean): KeyState {
  const pinned = pins.keys.filter((pin) => pin.userId === userId)
  const pin = pinned.find((one) => one.version === key.version && one.fingerprint === key.fingerprint)
  if (isSelf)
    return pin !== undefined ? 'own' : pinned.some((one) => one.version === key.version) ? 'changed' : 'unchecked'
  if (pin === undefined)
    return pinned.length > 0 || pins.doubts.some((one) => one.userId === userId) ? 'changed' : 'new'
  if (pins.doubts.some((one) => one.userId === userId)) return 'doubted'
  return pin.isVerified ? 'verified' : 'trusted'
}

/** A key that is none counts as no key pair. */
async function keyOf(container: unknown, { keyring }: ClientContext) {
  if (container === undefined || container === null) return undefined
  return keyring.importKey(container).catch((error) => {
    if (error instanceof SyncError && error.class === 'key') return undefined
    throw error
  })
}

async function auditRoom(
  context: ClientContext,
  room: RoomState,
  pins: PinState,
  self: number,
  signal: AbortSignal | undefined,
): Promise<RoomAudit> {
  const named = await membersOf(context, room, signal)
  const people = named ?? new Map<number, Person>()
  const lackers = await countLacking(context, room, people, named !== undefined, signal)
  const mine = room.files - room.ownLacks
  const members: MemberAudit[] = []
  let others = 0
  for (const person of [...people.values()].sort((a, b) => a.userId - b.userId)) {
    const { userId, name, isRescueKey, mayRead, container } = person
    const isSelf = userId === self
    if (!mayRead && !isSelf) continue
    const key = await keyOf(container, context)
    const lacks = isSelf ? room.ownLacks : key === undefined ? mine : person.lacks
    if (!isSelf && key !== undefined) others++
    const { version, fingerprint } = key ?? {}
    const trust = key === undefined ? undefined : trustOf(pins, userId, key, isSelf)
    const has = isSelf ? mine : Math.max(0, mine - lacks)
    members.push({ userId, name, isSelf, isRescueKey, version, fingerprint, trust, has, lacks })
  }
  let onlyMine: number | undefined
  if (named !== undefined) {
    onlyMine = others === 0 ? mine : 0
    if (others > 0) for (const count of lackers.values()) if (count >= others) onlyMine++
  }
  return { room: room.path.slice(0, -1), files: room.files, membersKnown: named !== undefined, members, onlyMine }
}

function findingsOf(rooms: readonly RoomAudit[]): AuditFinding[] {
  const findings: AuditFinding[] = []
  /** What is the same in all rooms is said once. */
  const said = new Set<string>()
  const once = (finding: AuditFinding) => {
    const id = `${finding.code} ${finding.userId}`
    if (!said.has(id)) findings.push(finding)
    said.add(id)
  }
  for (const { room, members, onlyMine } of rooms) {
    for (const { userId, name, isSelf, isRescueKey, version, trust, lacks } of members) {
      const who = { userId, name, ...(isRescueKey ? { isRescueKey } : {}) }
      if (isSelf) {
        if (lacks > 0) findings.push({ code: 'KEYS_LACKING_OWN', room, count: lacks, ...who })
        continue
      }
      if (version === undefined) once({ code: 'KEY_PAIR_NONE', ...who })
      else if (lacks > 0) findings.push({ code: 'KEYS_LACKING', room, count: lacks, ...who })
      if (version === 'A') once({ code: 'KEY_WEAK', ...who })
      if (trust === 'changed' || trust === 'doubted') once({ code: 'KEY_DOUBTED', ...who })
      if (trust === 'new') once({ code: 'KEY_UNTRUSTED', ...who })
    }
    if (onlyMine !== undefined && onlyMine > 0) findings.push({ code: 'KEYS_SINGLE', room, count: onlyMine })
  }
  return findings
}

/** The own key pairs: their locks are seen by nobody else. */
async function ownFindings(
  { api, keyring }: ClientContext,
  pins: PinState,
  signal?: AbortSignal,
): Promise<AuditFinding[]> {
  const findings: AuditFinding[] = []
  const userId = await keyring.userId(signal)
  for (const pair of await getKeyPairs(api, signal)) {
    const key = await importPublicKey(pair.publicKeyContainer)
    const about = { userId, name: 'you' }
    if (key.version === 'A') findings.push({ code: 'KEY_WEAK', ...about })
    if (!keyProtection(pair).current) findings.push({ code: 'LOCK_WEAK', ...about })
    if (trustOf(pins, userId, key, true) === 'changed') findings.push({ code: 'KEY_DOUBTED', ...about })
  }
  return findings
}

/**
 * Counts, room by room, which members have the keys of how many files, and says what somebody should look at. No password is needed.
 *
 * @throws {SyncError} `REMOTE_MISSING`, `NOT_A_ROOM`.
 */
export async function audit(
  context: ClientContext,
  { room: path, quick = false, signal }: KeyAuditOptions,
): Promise<KeyAudit> {
  const start = await startOf(context, path, signal)
  const found = await findRooms(context, start, signal)
  await countFiles(context, start, found, quick, signal)
  const pins = await context.keyring.pins.read()
  const self = await context.keyring.userId(signal)
  const rooms: RoomAudit[] = []
  for (const room of found) rooms.push(await auditRoom(context, room, pins, self, signal))
  const own = await ownFindings(context, pins, signal)
  return { rooms, findings: [...own, ...findingsOf(rooms)] }
}
