/** Rooms, folders and files as a tree, and who may use a room. @module */
import type { KeyPairContainer } from '../../crypto/containers.ts'
import { SyncError } from '../errors.ts'
import { type Api, call, callFor } from './api.ts'
import type { Resolution } from './uploads.ts'
import {
  formatTime,
  type LogEvent,
  PAGE,
  type Permissions,
  parseLogEvents,
  parseNode,
  parseNodePage,
  parseRoomGroups,
  parseRoomUsers,
  type RemoteNode,
  type RoomGroup,
  type RoomUser,
} from './wire.ts'

/** Most entries of a listing, or of a tree, that are believed where nothing else is said. */
export const MAX_ENTRIES = 2_000_000

/** Lists may grow by so much while they are read: by a share of what was announced at first, and by a page in any case. */
const GROWTH = 0.1
/** Entries that pages must have on average, after some that may have fewer. */
const FEW = 16

interface Page<T> {
  readonly range: { readonly total: number }
  readonly items: readonly T[]
}

const listChanged = () =>
  new SyncError('changed', 'LIST_CHANGED', 'The list changed while it was read', { hint: 'Run again.' })

export const listTooLong = (): SyncError =>
  new SyncError('limit', 'LIST_TOO_LONG', 'The server lists more entries than are believed', {
    hint: 'If there are so many, allow more with --max-entries.',
  })

const listCut = (message: string) => new SyncError('server', 'LIST_CUT', message)

/** For what is said to be inside itself. */
export const treeCycle = (): SyncError =>
  new SyncError('server', 'TREE_CYCLE', 'The server shows a room or folder inside itself', {
    hint: 'Ask its administrator.',
  })

/**
 * Counts what a listing brings, over all its requests: everything is there once, and there is no more than is believed.
 *
 * @throws {SyncError} `LIST_CHANGED` for what comes twice, which has pushed something else out; `LIST_TOO_LONG`.
 */
export function createCensus({ maxEntries = MAX_ENTRIES }: Api): (id: number) => void {
  const seen = new Set<number>()
  return (id) => {
    if (seen.has(id)) throw listChanged()
    seen.add(id)
    if (seen.size > maxEntries) throw listTooLong()
  }
}

/**
 * Reads a paged list to its end, which is where the server says that it is, from the first page on. A page that brings nothing
 * before the end is an error, never "no more".
 *
 * @param idOf - What an entry has to itself.
 */
export async function* pages<T>(
  api: Api,
  idOf: (item: T) => number,
  fetch: (offset: number) => Promise<Page<T>>,
): AsyncGenerator<T> {
  const { maxEntries = MAX_ENTRIES } = api
  const count = createCensus(api)
  let most = maxEntries
  for (let offset = 0, before = 0, requests = 1; ; requests++) {
    const { range, items } = await fetch(offset)
    if (range.total > maxEntries) throw listTooLong()
    if (requests === 1) most = range.total + Math.max(PAGE, range.total * GROWTH)
    offset += items.length
    // What has moved to an earlier page would be passed over in silence.
    if (range.total < before || range.total > most || offset > range.total) throw listChanged()
    before = range.total
    for (const item of items) {
      count(idOf(item))
      yield item
    }
    if (offset >= range.total) return
    if (items.length === 0) throw listCut('The server’s list ended before its end')
    if (requests > FEW + offset / FEW) throw listCut('The server’s list comes in pieces that are too small')
  }
}

/**
 * Parses a node and tells the guard of it.
 *
 * @param asked - How something was made: an answer may call it something else.
 */
const seeNode =
  (api: Api, asked?: { readonly parentId: number; readonly name: string }): typeof parseNode =>
  (value, path) => {
    const node = parseNode(value, path)
    api.places?.saw(asked === undefined ? node : { ...node, name: asked.name }, asked?.parentId)
    return node
  }

const seePage =
  (api: Api, parentId?: number): typeof parseNodePage =>
  (value, path) => {
    const page = parseNodePage(value, path)
    for (const node of page.items) api.places?.saw(node, parentId ?? node.parentId)
    // Something is where it was listed, whatever is said of it.
    return parentId === undefined ? page : { ...page, items: page.items.map((node) => ({ ...node, parentId })) }
  }

const idOf = ({ id }: RemoteNode) => id

/**
 * The children of a room or folder; 0 is the root, which holds rooms.
 *
 * @throws {SyncError} `LIST_CHANGED`, `LIST_CUT`, `LIST_TOO_LONG`; `TREE_CYCLE` for one that is its own child.
 */
export async function* listChildren(api: Api, parentId: number, signal?: AbortSignal): AsyncGenerator<RemoteNode> {
  await api.places?.enter(parentId)
  const query = { parent_id: parentId, limit: PAGE, sort: 'name:asc' }
  const children = pages(api, idOf, (offset) =>
    callFor(api, { method: 'GET', path: '/v4/nodes', query: { ...query, offset }, signal }, seePage(api, parentId)),
  )
  for await (const node of children) {
    if (node.id === parentId) throw treeCycle()
    yield node
  }
}

/**
 * Everything below a room or folder in one flat list, in no order that says anything about the tree: far fewer requests than a
 * listing of each folder. What changes meanwhile may be missing; compare the root's `branchVersion` before and after, where the
 * server tells it.
 *
 * Of files only what tells them apart is given, unless all is wanted: no creator, rights or versions, and no path.
 *
 * @param only - Only what has this `branchVersion` or a later one, if it is not more than so many.
 * @throws {SyncError} `LIST_CHANGED` when entries moved between the pages, `LIST_CUT`, `LIST_TOO_LONG`; `TREE_CYCLE`.
 */
export async function* searchTree(
  api: Api,
  parentId: number,
  signal?: AbortSignal,
  only?: { readonly since: number; readonly atMost: number },
  wantsAll = false,
): AsyncGenerator<RemoteNode> {
  await api.places?.enter(parentId)
  const filter = only && `branchVersion:ge:${only.since}`
  const query = { search_string: '*', parent_id: parentId, depth_level: -1, sort: 'name:asc', limit: PAGE, filter }
  const containers: number[] = []
  const found = pages(api, idOf, async (offset) => {
    const request = { method: 'GET', path: '/v4/nodes/search', query: { ...query, offset }, signal } as const
    const page = await callFor(api, request, seePage(api))
    if (only !== undefined && page.range.total > only.atMost) throw listTooLong()
    return page
  })
  for await (const node of found) {
    if (node.id === parentId || node.id === node.parentId) throw treeCycle()
    if (node.type !== 'file') containers.push(node.id)
    yield node.type === 'file' && !wantsAll ? leanFile(node) : node
  }
  // Only now the way to each of them is known.
  for (const id of containers) await api.places?.enter(id)
}

/** Of a file among a million: what it is compared by, and what it is fetched by. */
function leanFile(node: RemoteNode): RemoteNode {
  const { id, type, name, parentId, size, isEncrypted, timestampModification, updatedAt } = node
  const lean = { id, type, name, parentId, size, isEncrypted, timestampModification }
  return (timestampModification === undefined ? { ...lean, updatedAt } : lean) as RemoteNode
}

/** A path with these would be another filter, or another search. */
const UNSEARCHABLE = /[*|:%]/

/**
 * What a search finds directly below a path: in one question, whatever is above it. It may be less than there is, and of other places;
 * who asks compares. The guard of places is told; it has to be asked about each of them afterwards, as `searchTree` does.
 *
 * @param above - Names from the top room down.
 * @param name - Of what is looked for; absent: all.
 * @returns the first page; `undefined` when it cannot be asked so.
 */
export async function searchBelow(
  api: Api,
  above: readonly string[],
  name?: string,
  signal?: AbortSignal,
): Promise<{ readonly total: number; readonly items: readonly RemoteNode[] } | undefined> {
  if ([...above, name ?? ''].some((one) => UNSEARCHABLE.test(one))) return undefined
  await api.places?.enter(0)
  const filter = `parentPath:eq:/${above.map((one) => `${one}/`).join('')}`
  const query = {
    search_string: name ?? '*',
    parent_id: 0,
    depth_level: -1,
    filter,
    sort: 'name:asc',
    limit: PAGE,
    offset: 0,
  }
  const request = { method: 'GET', path: '/v4/nodes/search', query, signal } as const
  const { range, items } = await callFor(api, request, seePage(api))
  return { total: range.total, items }
}

/**
 * One file somewhere below a room or folder, by its place in a list that nobody sees; 0 is the root.
 *
 * @returns how many files there are, and that one, if it is there.
 */
export async function fileAt(
  api: Api,
  parentId: number,
  offset: number,
  signal?: AbortSignal,
): Promise<{ readonly total: number; readonly file: RemoteNode | undefined }> {
  const filter = 'type:eq:file'
  const query = { search_string: '*', parent_id: parentId, depth_level: -1, filter, sort: 'name:asc', limit: 1, offset }
  const request = { method: 'GET', path: '/v4/nodes/search', query, signal } as const
  const { range, items } = await callFor(api, request, seePage(api))
  return { total: range.total, file: items[0] }
}

/** How many rooms, folders and files the server says are below a room or folder; 0 is the root. */
export async function countTree(api: Api, parentId: number, signal?: AbortSignal): Promise<number> {
  const query = { search_string: '*', parent_id: parentId, depth_level: -1, limit: 1, offset: 0 }
  const request = { method: 'GET', path: '/v4/nodes/search', query, signal } as const
  return (await callFor(api, request, seePage(api))).range.total
}

export const getNode = (api: Api, id: number, signal?: AbortSignal): Promise<RemoteNode> =>
  callFor(api, { method: 'GET', path: `/v4/nodes/${id}`, signal }, seeNode(api))

/** @throws {SyncError} `EXISTS` when the name is taken. */
export async function createFolder(
  api: Api,
  parentId: number,
  name: string,
  signal?: AbortSignal,
): Promise<RemoteNode> {
  await api.places?.enter(parentId, [name])
  const json = { parentId, name }
  return callFor(api, { method: 'POST', path: '/v4/nodes/folders', json, signal }, seeNode(api, json))
}

/** A top room with this account as its only administrator. */
export const createRoom = (api: Api, name: string, adminId: number, signal?: AbortSignal): Promise<RemoteNode> =>
  callFor(
    api,
    {
      method: 'POST',
      path: '/v4/nodes/rooms',
      json: { name, adminIds: [adminId], inheritPermissions: false, recycleBinRetentionPeriod: 0 },
      signal,
    },
    seeNode(api, { parentId: 0, name }),
  )

/**
 * A room in a room, encrypted as that one is.
 *
 * @param adminId - Its only administrator; absent: it has the members of the room above.
 */
export async function createSubroom(
  api: Api,
  parentId: number,
  name: string,
  adminId: number | undefined,
  signal?: AbortSignal,
): Promise<RemoteNode> {
  await api.places?.enter(parentId, [name])
  const members =
    adminId === undefined ? { inheritPermissions: true } : { adminIds: [adminId], inheritPermissions: false }
  const json = { name, parentId, recycleBinRetentionPeriod: 0, ...members }
  return callFor(api, { method: 'POST', path: '/v4/nodes/rooms', json, signal }, seeNode(api, { parentId, name }))
}

/**
 * Renames a room, or sets how many bytes may be in it; 0: no limit of its own.
 *
 * @throws {SyncError} `EXISTS` when the name is taken.
 */
export const updateRoom = (
  api: Api,
  id: number,
  changes: { readonly name?: string; readonly quota?: number },
  signal?: AbortSignal,
): Promise<RemoteNode> =>
  callFor(api, { method: 'PUT', path: `/v4/nodes/rooms/${id}`, json: changes, signal, repeatable: true }, seeNode(api))

/**
 * Switches encryption on for an empty top room.
 *
 * @param rescue - A rescue key of the room, or that of the system. Default: none.
 */
export function encryptRoom(
  api: Api,
  roomId: number,
  signal?: AbortSignal,
  rescue?: 'system' | KeyPairContainer,
): Promise<RemoteNode> {
  const own = rescue === undefined || rescue === 'system' ? {} : { dataRoomRescueKey: rescue }
  const json = { isEncrypted: true, useDataSpaceRescueKey: rescue === 'system', ...own }
  return callFor(api, { method: 'PUT', path: `/v4/nodes/rooms/${roomId}/encrypt`, json, signal }, seeNode(api))
}

/** Files and folders go to the room's recycle bin. */
export async function deleteNode(api: Api, id: number, signal?: AbortSignal): Promise<void> {
  await call(api, { method: 'DELETE', path: `/v4/nodes/${id}`, signal })
}

/** Deletes files and folders of one parent at once; they go to the room's recycle bin. */
export async function deleteNodes(api: Api, ids: readonly number[], signal?: AbortSignal): Promise<void> {
  await call(api, { method: 'DELETE', path: '/v4/nodes', json: { nodeIds: ids }, signal })
}

export interface NodeChanges {
  readonly name?: string
  /** Milliseconds since the epoch. */
  readonly timestampModification?: number
}

const changesOf = ({ name, timestampModification: time }: NodeChanges) => ({
  ...(name === undefined ? {} : { name }),
  ...(time === undefined ? {} : { timestampModification: formatTime(time) }),
})

const update = (api: Api, path: string, changes: NodeChanges, signal: AbortSignal | undefined): Promise<RemoteNode> =>
  callFor(api, { method: 'PUT', path, json: changesOf(changes), signal, repeatable: true }, parseNode)

/**
 * Renames a file in its place, or sets its time.
 *
 * @throws {SyncError} `EXISTS` when the name is taken.
 */
export const updateFile = (api: Api, id: number, changes: NodeChanges, signal?: AbortSignal): Promise<RemoteNode> =>
  update(api, `/v4/nodes/files/${id}`, changes, signal)

/** As `updateFile`, for a folder. */
export const updateFolder = (api: Api, id: number, changes: NodeChanges, signal?: AbortSignal): Promise<RemoteNode> =>
  update(api, `/v4/nodes/folders/${id}`, changes, signal)

/** What is moved or copied, and how it is called there; by its own name where none is given. */
export type NodeItems = readonly { readonly id: number; readonly name?: string }[]

async function transferNodes(
  api: Api,
  action: 'move_to' | 'copy_to',
  targetId: number,
  items: NodeItems,
  resolution: Resolution,
  signal: AbortSignal | undefined,
  keepShareLinks: boolean,
): Promise<void> {
  await api.places?.enter(targetId)
  const json = {
    items: items.map(({ id, name }) => ({ id, ...(name === undefined ? {} : { name }) })),
    resolutionStrategy: resolution,
    keepShareLinks: keepShareLinks && resolution === 'overwrite',
  }
  await call(api, { method: 'POST', path: `/v4/nodes/${targetId}/${action}`, json, signal })
}

/**
 * Moves files and folders of one parent into another room or folder, or renames them on the way; all or none. Not repeated
 * after a lost answer: look where they are.
 *
 * @param keepShareLinks - Links of what makes way lead to what takes its place; else they end.
 * @throws {SyncError} `EXISTS` when a name is taken (`fail`) or is that of a room or folder.
 */
export const moveNodes = (
  api: Api,
  targetId: number,
  items: NodeItems,
  resolution: Resolution,
  signal?: AbortSignal,
  keepShareLinks = false,
): Promise<void> => transferNodes(api, 'move_to', targetId, items, resolution, signal, keepShareLinks)

/**
 * As `moveNodes`, and leaves them where they are, too. Encrypted files have their file keys there only for this account until
 * they are handed out.
 */
export const copyNodes = (
  api: Api,
  targetId: number,
  items: NodeItems,
  resolution: Resolution,
  signal?: AbortSignal,
  keepShareLinks = false,
): Promise<void> => transferNodes(api, 'copy_to', targetId, items, resolution, signal, keepShareLinks)

/** @param granted - Members only, or everybody who could become one. */
export const listRoomUsers = (
  api: Api,
  roomId: number,
  granted: boolean,
  signal?: AbortSignal,
): AsyncGenerator<RoomUser> =>
  pages(
    api,
    ({ userInfo }) => userInfo.id,
    (offset) =>
      callFor(
        api,
        {
          method: 'GET',
          path: `/v4/nodes/rooms/${roomId}/users`,
          query: { offset, limit: PAGE, filter: `isGranted:eq:${granted ? 'true' : 'any'}` },
          signal,
        },
        parseRoomUsers,
      ),
  )

/** Users and groups have the same calls. */
type MemberKind = 'users' | 'groups'

/** Makes members of users or groups, or gives them other permissions; all or none. */
export async function putRoomMembers(
  api: Api,
  roomId: number,
  kind: MemberKind,
  items: readonly { readonly id: number; readonly permissions: Permissions }[],
  signal?: AbortSignal,
): Promise<void> {
  const path = `/v4/nodes/rooms/${roomId}/${kind}`
  await call(api, { method: 'PUT', path, json: { items }, signal, repeatable: true })
}

/** Takes users or groups out of a room; all or none. */
export async function removeRoomMembers(
  api: Api,
  roomId: number,
  kind: MemberKind,
  ids: readonly number[],
  signal?: AbortSignal,
): Promise<void> {
  const path = `/v4/nodes/rooms/${roomId}/${kind}`
  await call(api, { method: 'DELETE', path, json: { ids }, signal, repeatable: true })
}

/** @param granted - Those that are in the room only, or all that could be. */
export const listRoomGroups = (
  api: Api,
  roomId: number,
  granted: boolean,
  signal?: AbortSignal,
): AsyncGenerator<RoomGroup> =>
  pages(
    api,
    ({ id }) => id,
    (offset) =>
      callFor(
        api,
        {
          method: 'GET',
          path: `/v4/nodes/rooms/${roomId}/groups`,
          query: { offset, limit: PAGE, filter: `isGranted:eq:${granted ? 'true' : 'any'}` },
          signal,
        },
        parseRoomGroups,
      ),
  )

/** What was done in a room, newest first. */
export const listRoomEvents = (
  api: Api,
  roomId: number,
  { since, until }: { readonly since?: number | undefined; readonly until?: number | undefined },
  signal?: AbortSignal,
): AsyncGenerator<LogEvent> =>
  pages(
    api,
    ({ id }) => id,
    (offset) =>
      callFor(
        api,
        {
          method: 'GET',
          path: `/v4/nodes/rooms/${roomId}/events`,
          query: {
            offset,
            limit: PAGE,
            sort: 'time:desc',
            date_start: since === undefined ? undefined : formatTime(since),
            date_end: until === undefined ? undefined : formatTime(until),
          },
          signal,
        },
        parseLogEvents,
      ),
  )
