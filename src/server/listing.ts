/**
 * Listing and searching the tree: filters, sorting and paging. Sorted by name, a page of a large folder comes straight
 * from the index; anything else is collected once and remembered. Never writes.
 * @module
 */
import type { Access } from './access.ts'
import { READ } from './access.ts'
import { badRequest } from './errors.ts'
import { FILE, FOLDER, NODE_TYPES, type NodeRecord, ROOM } from './records.ts'
import type { Store } from './store.ts'
import { childByName, childrenOf } from './tree.ts'
import { type Page, parseTime } from './validate.ts'

export interface Listing {
  total: number
  nodes: NodeRecord[]
}

type Test = (node: NodeRecord) => boolean
interface Criteria {
  tests: Test[]
  /** Value of a `parentPath:eq` filter. */
  parentPath?: string
}

const FIELDS: Readonly<Record<string, (node: NodeRecord) => string | number | undefined>> = Object.freeze({
  name: (node) => node.name.toLowerCase(),
  size: (node) => node.size,
  createdAt: (node) => node.createdAt,
  updatedAt: (node) => node.updatedAt,
  createdBy: (node) => node.createdBy,
  updatedBy: (node) => node.updatedBy,
  createdById: (node) => node.createdBy,
  updatedById: (node) => node.updatedBy,
  classification: (node) => node.classification ?? 2,
  fileType: (node) => (node.type === FILE ? node.name.slice(node.name.lastIndexOf('.') + 1).toLowerCase() : ''),
  timestampCreation: (node) => node.timestampCreation ?? node.createdAt,
  timestampModification: (node) => node.timestampModification ?? node.updatedAt,
  branchVersion: (node) => node.version,
  expireAt: (node) => node.expireAt ?? 0,
  type: (node) => NODE_TYPES[node.type],
  cntDeletedVersions: () => 0,
  parentPath: () => '',
})
const TIME_FIELDS = new Set(['createdAt', 'updatedAt', 'timestampCreation', 'timestampModification', 'expireAt'])

/** Filters of one listing, alternatives of all of them, and wildcards of a search: each costs time per node. */
const MAX_FILTERS = 20
const MAX_ALTERNATIVES = 100
const MAX_WILDCARDS = 20
const MAX_SEARCH = 500

/** Splits `FIELD:OPERATOR:VALUE|...`. */
export function splitFilter(text: string | null): { field: string; operator: string; value: string }[] {
  if (text === null || text === '') return []
  const parts = text.split('|')
  if (parts.length > MAX_FILTERS) throw badRequest(undefined, 'Too many filters')
  return parts.map((part) => {
    const match = /^([A-Za-z]+):([a-z]+):(.*)$/s.exec(part)
    if (match === null) throw badRequest(undefined, 'Invalid filter')
    return { field: match[1] ?? '', operator: match[2] ?? '', value: match[3] ?? '' }
  })
}

function parseCriteria(access: Access, text: string | null): Criteria {
  const criteria: Criteria = { tests: [] }
  if ((text?.split(':').length ?? 0) > MAX_ALTERNATIVES + 2 * MAX_FILTERS) {
    throw badRequest(undefined, 'Too many alternatives in a filter')
  }
  for (const { field, operator, value } of splitFilter(text)) {
    if (field === 'parentPath' && operator === 'eq') criteria.parentPath = value
    else criteria.tests.push(testFor(access, field, operator, value))
  }
  return criteria
}

function testFor(access: Access, field: string, operator: string, value: string): Test {
  if (field === 'encrypted') return (node) => String(node.encrypted) === value
  if (field === 'isFavorite') return (node) => String(access.isFavorite(node.id)) === value
  if (field === 'perm' || field === 'childPerm') return () => true
  if (field === 'parentPath' && operator === 'cn') {
    const part = value.toLowerCase()
    return (node) => (access.pathOf(node.parentId) ?? '').toLowerCase().includes(part)
  }
  const read = Object.hasOwn(FIELDS, field) ? FIELDS[field] : undefined
  if (read === undefined) throw badRequest(undefined, `Unknown filter field ${field}`)
  const isTime = TIME_FIELDS.has(field)
  // Times contain colons; elsewhere a colon separates alternatives.
  const values = isTime ? [value] : value.split(':')
  const wanted = values.map((item) => {
    if (isTime) return parseTime(item) ?? (parseTime(`${item}T00:00:00Z`) as number | undefined) ?? Number.NaN
    return field === 'name' || field === 'fileType' ? item.toLowerCase().normalize('NFC') : item
  })
  const texts = wanted.map(String)
  const exact = new Set(texts)
  const numbers = wanted.map(Number)
  switch (operator) {
    case 'eq':
      return (node) => exact.has(String(read(node)))
    case 'neq':
      return (node) => !exact.has(String(read(node)))
    case 'cn':
      return (node) => {
        const text = String(read(node))
        return texts.some((item) => text.includes(item))
      }
    case 'ge': {
      const least = Math.min(...numbers.filter((item) => !Number.isNaN(item)))
      return (node) => Number(read(node)) >= least
    }
    case 'le': {
      const most = Math.max(...numbers.filter((item) => !Number.isNaN(item)))
      return (node) => Number(read(node)) <= most
    }
    default:
      throw badRequest(undefined, 'Unknown filter operator')
  }
}

function parseSort(text: string | null): { field: string; descending: boolean } {
  if (text === null || text === '') return { field: 'name', descending: false }
  const match = /^([A-Za-z]+):(asc|desc)$/.exec(text)
  if (match === null || !Object.hasOwn(FIELDS, match[1] ?? '')) throw badRequest(undefined, 'Invalid sort')
  return { field: match[1] ?? '', descending: match[2] === 'desc' }
}

/** Sorts by type first, then by the field, then by name. */
function sortNodes(nodes: NodeRecord[], access: Access, sort: { field: string; descending: boolean }): NodeRecord[] {
  const read =
    sort.field === 'parentPath'
      ? (node: NodeRecord) => access.pathOf(node.parentId) ?? ''
      : (FIELDS[sort.field] ?? ((node: NodeRecord) => node.id))
  const sign = sort.descending ? -1 : 1
  const keyed = nodes.map((node) => ({ node, key: read(node) ?? '', name: node.name.toLowerCase() }))
  keyed.sort((a, b) => {
    if (a.node.type !== b.node.type) return a.node.type - b.node.type
    if (a.key !== b.key) return a.key < b.key ? -sign : sign
    if (a.name !== b.name) return a.name < b.name ? -1 : 1
    return a.node.id - b.node.id
  })
  return keyed.map(({ node }) => node)
}

/** How long a listing that somebody is paging through stays as it was when it began. */
const PAGING_MS = 60_000

/** Remembers the ids of collected listings while no node has changed, or while somebody reads on in one. */
export class ListingCache {
  readonly #entries = new Map<string, { version: number; usedAt: number; ids: number[] }>()
  readonly #now: () => number

  constructor(now: () => number) {
    this.#now = now
  }

  /** @param offset - Later pages come from the listing that the first one came from: else each could cost a walk of its own. */
  get(key: string, version: number, offset: number, collect: () => NodeRecord[]): number[] {
    const now = this.#now()
    const known = this.#entries.get(key)
    const isPaging = known !== undefined && offset > 0 && Math.abs(now - known.usedAt) < PAGING_MS
    if (known !== undefined && (isPaging || known.version === version)) {
      known.usedAt = now
      return known.ids
    }
    const ids = collect().map((node) => node.id)
    this.#entries.delete(key)
    if (this.#entries.size >= 8) this.#entries.delete(this.#entries.keys().next().value ?? '')
    this.#entries.set(key, { version, usedAt: now, ids })
    return ids
  }
}

/** What has been deleted or may not be seen any more since the ids were collected is left out. */
function pageOfIds(access: Access, ids: readonly number[], page: Page): Listing {
  const nodes = ids
    .slice(page.offset, page.offset + page.limit)
    .map((id) => access.find(id))
    .filter((node) => node !== undefined)
  return { total: ids.length, nodes }
}

/**
 * One page of the children of a container (0 for the root).
 *
 * @param query - `filter` and `sort` are read from it.
 */
export function listChildren(
  store: Store,
  cache: ListingCache,
  access: Access,
  parentId: number,
  page: Page,
  query: URLSearchParams,
): Listing {
  const filter = query.get('filter')
  const sort = parseSort(query.get('sort'))
  const parent = parentId === 0 ? undefined : access.node(parentId)
  const bits = parent === undefined ? 0 : access.bits(parent.roomId)
  if ((filter === null || filter === '') && sort.field === 'name' && !sort.descending) {
    return indexedPage(store, access, parentId, parent, bits, page)
  }
  const criteria = parseCriteria(access, filter)
  const key = JSON.stringify(['list', access.userId, bits, parentId, filter, sort])
  const ids = cache.get(key, store.version(), page.offset, () => {
    const found = childrenOf(store, parentId).filter(
      (node) => access.sees(node) && criteria.tests.every((test) => test(node)),
    )
    return sortNodes(found, access, sort)
  })
  return pageOfIds(access, ids, page)
}

/** Rooms are few and filtered one by one; folders and files come from the index by position. */
function indexedPage(
  store: Store,
  access: Access,
  parentId: number,
  parent: NodeRecord | undefined,
  bits: number,
  page: Page,
): Listing {
  const rooms: NodeRecord[] = []
  if (parent === undefined || (parent.rooms ?? 0) > 0) {
    for (const { value } of store.children.getRange({
      start: [parentId, ROOM, '', 0],
      end: [parentId, FOLDER, '', 0],
    })) {
      const room = store.nodes.get(value)
      if (room !== undefined && access.sees(room)) rooms.push(room)
    }
  }
  const folders = bits !== 0 ? (parent?.folders ?? 0) : 0
  const files = (bits & READ) !== 0 ? (parent?.files ?? 0) : 0
  const nodes = rooms.slice(page.offset, page.offset + page.limit)
  const rest = page.limit - nodes.length
  if (rest > 0 && folders + files > 0) {
    const range = store.children.getRange({
      start: [parentId, FOLDER, '', 0],
      end: [parentId, files > 0 ? FILE + 1 : FILE, '', 0],
      offset: Math.max(page.offset - rooms.length, 0),
      limit: rest,
    })
    for (const { value } of range) {
      const node = store.nodes.get(value)
      if (node !== undefined) nodes.push(node)
    }
  }
  return { total: rooms.length + folders + files, nodes }
}

/** The container at a path like `/Room/Folder/`; 0 for `/`; undefined when there is none. */
function resolvePath(store: Store, path: string): number | undefined {
  if (!path.startsWith('/') || !path.endsWith('/')) return undefined
  let id = 0
  for (const name of path.split('/').slice(1, -1)) {
    const node = childByName(store, id, name.normalize('NFC'))
    if (node === undefined || node.type === FILE) return undefined
    id = node.id
  }
  return id
}

/** Number of steps from `parentId` down to `containerId`, or -1 if it is not below. */
function depthBelow(store: Store, parentId: number, containerId: number): number {
  let depth = 0
  for (let id = containerId; id !== parentId; depth++) {
    if (id === 0) return -1
    id = store.nodes.get(id)?.parentId ?? 0
  }
  return depth
}

function matcher(text: string): Test {
  const wanted = text.normalize('NFC').toLowerCase().replace(/\*+/g, '*')
  if (wanted.length > MAX_SEARCH) throw badRequest(undefined, 'Search text is too long')
  if (wanted === '*' || wanted === '') return () => true
  if (!wanted.includes('*')) return (node) => node.name.toLowerCase().includes(wanted)
  const pieces = wanted.split('*')
  if (pieces.length > MAX_WILDCARDS + 1) throw badRequest(undefined, 'Too many wildcards')
  return (node) => matchesPieces(node.name.toLowerCase(), pieces)
}

/** Wildcard match without a regular expression, so that no pattern can be slow. */
function matchesPieces(name: string, pieces: readonly string[]): boolean {
  const first = pieces[0] ?? ''
  const last = pieces.at(-1) ?? ''
  if (!name.startsWith(first) || !name.endsWith(last) || name.length < first.length + last.length) return false
  let at = first.length
  const end = name.length - last.length
  for (const piece of pieces.slice(1, -1)) {
    const found = name.indexOf(piece, at)
    if (found === -1 || found + piece.length > end) return false
    at = found + piece.length
  }
  return true
}

/** One page of a search below `parentId`; `depth` 0 is its direct children, -1 the whole tree. */
export function searchNodes(
  store: Store,
  cache: ListingCache,
  access: Access,
  parentId: number,
  depth: number,
  page: Page,
  query: URLSearchParams,
): Listing {
  const text = query.get('search_string') ?? '*'
  const filter = query.get('filter')
  const criteria = parseCriteria(access, filter)
  const passes: Test = (node) => access.sees(node) && criteria.tests.every((test) => test(node))
  if (parentId !== 0) access.node(parentId)
  if (criteria.parentPath !== undefined) {
    const containerId = resolvePath(store, criteria.parentPath)
    if (containerId === undefined) return { total: 0, nodes: [] }
    const below = depthBelow(store, parentId, containerId)
    if (below === -1 || (depth !== -1 && below > depth)) return { total: 0, nodes: [] }
    if (!text.includes('*')) {
      const node = childByName(store, containerId, text.normalize('NFC'))
      const found = node !== undefined && passes(node) ? [node] : []
      return { total: found.length, nodes: found.slice(page.offset, page.offset + page.limit) }
    }
    if (containerId !== 0 && access.find(containerId) === undefined) return { total: 0, nodes: [] }
    const matches = matcher(text)
    const found = childrenOf(store, containerId).filter((node) => matches(node) && passes(node))
    const sorted = sortNodes(found, access, parseSort(query.get('sort')))
    return { total: sorted.length, nodes: sorted.slice(page.offset, page.offset + page.limit) }
  }
  const sortText = query.get('sort')
  const key = JSON.stringify(['search', access.userId, parentId, depth, text, filter, sortText])
  const ids = cache.get(key, store.version(), page.offset, () => {
    const matches = matcher(text)
    const found = collect(store, access, parentId, depth, (node) => matches(node) && passes(node))
    const sorted = sortNodes(found, access, parseSort(sortText))
    const exact = text.normalize('NFC')
    return text.includes('*') ? sorted : [...sorted].sort((a, b) => rank(a, exact) - rank(b, exact))
  })
  return pageOfIds(access, ids, page)
}

const rank = (node: NodeRecord, exact: string): number => (node.name === exact ? 0 : 1)

function collect(store: Store, access: Access, parentId: number, depth: number, test: Test): NodeRecord[] {
  const found: NodeRecord[] = []
  let level = [parentId]
  for (let at = 0; level.length > 0 && (depth === -1 || at <= depth); at++) {
    const below: number[] = []
    for (const id of level) {
      for (const node of childrenOf(store, id)) {
        if (test(node)) found.push(node)
        if (node.type !== FILE && access.sees(node)) below.push(node.id)
      }
    }
    level = below
  }
  return found
}
