/**
 * Lists and trees without an end, as a hostile server sends them: rooms inside themselves, pages after pages, keys that are
 * missing for ever. Each ends in an error, after a number of requests that is bounded by what the server said at first and by a
 * limit of ours.
 */
import { expect, test } from 'vitest'
import type { Api } from '../../src/api/api.ts'
import { listChildren, listRoomUsers, searchTree } from '../../src/api/nodes.ts'
import { listDeleted, listDeletedVersions } from '../../src/api/recycle-bin.ts'
import type { RemoteNode } from '../../src/api/wire.ts'
import { resolveRemote } from '../../src/sync/remote-path.ts'
import { readRemoteTree, readWholeTree } from '../../src/sync/tree.ts'
import { distributeFileKeys } from '../../src/transfer/distribute.ts'
import { createKeyring } from '../../src/transfer/keyring.ts'
import { listMembers } from '../../src/transfer/members.ts'
import { dialer, errorOf, httpServer, json } from '../support/servers.ts'

interface Asked {
  readonly path: string
  readonly offset: number
  readonly parent: number
  /** Requests so far, from 1. */
  readonly count: number
}

/** A server that answers every list as it is told; everything else is not there. */
async function world(
  answer: (asked: Asked) => { total: number; items: object[] } | object | undefined,
  maxEntries?: number,
) {
  let count = 0
  const server = await httpServer(({ path }, response) => {
    if (path.endsWith('/account')) return json(response, { id: 1, userName: 'anna' })
    if (path.endsWith('/keypairs')) return json(response, [])
    const url = new URL(path, 'http://x')
    const [offset, parent] = [Number(url.searchParams.get('offset')), Number(url.searchParams.get('parent_id'))]
    const said = answer({ path: url.pathname, offset, parent, count: ++count })
    if (said === undefined) return json(response, { code: 404 }, 404)
    if (!('total' in said)) return json(response, said)
    const { total, items } = said as { total: number; items: object[] }
    return json(response, { range: { offset, limit: 500, total }, items, users: [], files: [] })
  })
  const send = dialer()
  const api: Api = { origin: server.origin, send, sendPlain: send, ...(maxEntries === undefined ? {} : { maxEntries }) }
  return { api, server }
}

/** Of an account without a key pair. */
const keyringOf = (api: Api) => createKeyring(api, async () => 'none')

const folder = (id: number, parentId = 5): object => ({
  id,
  type: 'folder',
  name: `d${id}`,
  parentId,
  isEncrypted: true,
})
const many = (count: number, first = 10) => Array.from({ length: count }, (_, at) => folder(first + at))
const ROOT = { id: 5, type: 'room', name: 'room', isEncrypted: true, branchVersion: 7 } as RemoteNode
async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = []
  for await (const item of items) found.push(item)
  return found
}

const KINDS: [string, (api: Api) => AsyncIterable<unknown>, (id: number) => object][] = [
  ['children', (api) => listChildren(api, 5), (id) => folder(id)],
  ['a whole tree', (api) => searchTree(api, 5), (id) => folder(id)],
  ['members', (api) => listRoomUsers(api, 5, true), (id) => ({ userInfo: { id }, isGranted: true })],
  [
    'the recycle bin',
    (api) => listDeleted(api, 5),
    (id) => ({
      ...folder(id),
      parentPath: '/',
      cntVersions: 1,
      firstDeletedAt: '2026-01-01T00:00:00Z',
      lastDeletedAt: '2026-01-01T00:00:00Z',
      lastDeletedNodeId: id,
    }),
  ],
  [
    'versions',
    (api) => listDeletedVersions(api, 5, { name: 'x', type: 'file' }),
    (id) => ({ ...folder(id), parentPath: '/' }),
  ],
]

test.each(KINDS)('%s: pages that go on for ever', async (_what, list, item) => {
  const page = (count: number, first: number) => Array.from({ length: count }, (_, at) => item(first + at))
  for (const [how, answer, code, most] of [
    [
      'a total that grows',
      ({ offset }: Asked) => ({ total: offset + 1_000, items: page(500, 10 + offset) }),
      'LIST_CHANGED',
      4,
    ],
    ['more than announced', () => ({ total: 1, items: page(2, 10) }), 'LIST_CHANGED', 1],
    ['more than is believed', () => ({ total: 2_001, items: page(500, 10) }), 'LIST_TOO_LONG', 1],
    ['the same page', () => ({ total: 2_000, items: page(500, 10) }), 'LIST_CHANGED', 2],
    ['drop by drop', ({ offset }: Asked) => ({ total: 2_000, items: page(1, 10 + offset) }), 'LIST_CUT', 20],
    ['nothing', () => ({ total: 2_000, items: [] }), 'LIST_CUT', 1],
  ] as const) {
    const { api, server } = await world(answer, 2_000)
    expect(await errorOf(all(list(api))), how).toMatchObject({ name: 'SyncError', code })
    expect(server.seen.length, how).toBeLessThanOrEqual(most)
  }
})

test('what is really there comes whole, also when it grows a little meanwhile', async () => {
  const { api } = await world(({ offset }) => ({
    total: offset === 0 ? 1_100 : 1_110,
    items: many(1_110).slice(offset, offset + 500),
  }))
  expect(await all(listChildren(api, 5))).toHaveLength(1_110)
})

test('a room or folder inside itself, at any depth', async () => {
  const cases: [string, (asked: Asked) => object[], code: string][] = [
    ['its own child', () => [folder(5)], 'TREE_CYCLE'],
    ['the child of its child', ({ parent }) => [parent === 5 ? folder(6) : folder(5, 6)], 'LIST_CHANGED'],
    ['twice the same', () => [folder(6), folder(6)], 'LIST_CHANGED'],
    ['in two places', ({ parent }) => (parent === 5 ? [folder(6), folder(7)] : [folder(8, parent)]), 'LIST_CHANGED'],
    ['the root of all', () => [folder(0)], 'ANSWER_INVALID'],
    ['deeper and deeper', ({ parent }) => [folder(parent + 1, parent)], 'TREE_TOO_DEEP'],
    ['wider and wider', ({ count }) => many(100, count * 1_000), 'LIST_TOO_LONG'],
  ]
  for (const [what, items, code] of cases) {
    const { api, server } = await world((asked) => {
      if (asked.path.endsWith('/nodes/5')) return ROOT
      if (asked.path.endsWith('/search')) return undefined
      const found = items(asked)
      return { total: found.length, items: found }
    }, 5_000)
    expect(await errorOf(readRemoteTree(api, ROOT, 5)), what).toMatchObject({ code })
    expect(server.seen.length, what).toBeLessThan(300)
  }
})

test('a flat list of a tree that is none', async () => {
  const cases: [string, object[], code: string][] = [
    ['a cycle of two', [folder(10, 11), folder(11, 10)], 'TREE_CYCLE'],
    ['the root below itself', [folder(5, 5)], 'TREE_CYCLE'],
    ['a folder below itself', [folder(11, 11)], 'TREE_CYCLE'],
    ['the same twice', [folder(10), folder(10)], 'TREE_CYCLE'],
  ]
  for (const [what, items, code] of cases) {
    const { api, server } = await world(({ path, parent }) => {
      if (path.endsWith('/nodes/5')) return ROOT
      return path.endsWith('/search') ? { total: items.length, items } : { total: 1, items: [folder(parent)] }
    })
    expect(await errorOf(readWholeTree(api, ROOT, 5)), what).toMatchObject({ code })
    expect(server.seen.length, what).toBeLessThan(12)
  }
})

test('a path that leads back to its beginning', async () => {
  const chain = new Map([
    [0, { ...ROOT, name: 'a' }],
    [5, { ...folder(6), name: 'b' }],
    [6, { ...folder(5, 6), name: 'a' }],
  ])
  const { api } = await world(({ parent }) => ({ total: 1, items: [chain.get(parent)!] }))
  expect(await errorOf(resolveRemote(api, '/a/b/a/b'))).toMatchObject({ code: 'TREE_CYCLE' })
  expect((await resolveRemote(api, '/a/b')).missing).toEqual([])
})

test('members of rooms inside themselves', async () => {
  const room = (id: number) => ({ ...ROOT, id, name: `r${id}`, cntRooms: 1 })
  for (const [what, items, code] of [
    ['its own child', () => [room(5)], 'TREE_CYCLE'],
    ['the child of its child', ({ parent }: Asked) => [room(parent === 5 ? 6 : 5)], 'LIST_CHANGED'],
    ['deeper and deeper', ({ parent }: Asked) => [room(parent + 1)], 'LIST_TOO_LONG'],
  ] as const) {
    const { api } = await world(
      (asked) => (asked.path.endsWith('/users') ? { total: 0, items: [] } : { total: 1, items: items(asked) }),
      200,
    )
    expect(await errorOf(listMembers(api, keyringOf(api))), what).toMatchObject({ code })
  }
})

test('file keys that are missing for ever', async () => {
  const page = (first: number, files = 100) =>
    Array.from({ length: 100 }, (_, at) => ({ userId: 7 + Math.floor(at / files), fileId: first + (at % files) }))
  for (const [what, items, code, most] of [
    ['always the same', () => page(1), 'KEYS_NOT_TAKEN', 5],
    ['always others', ({ offset }: Asked) => page(1 + offset), 'LIST_TOO_LONG', 60],
    [
      'for always others',
      ({ offset }: Asked) => page(1, 1).map(({ userId, fileId }) => ({ fileId, userId: userId + offset })),
      'LIST_TOO_LONG',
      110,
    ],
  ] as const) {
    const { api, server } = await world((asked) =>
      asked.path.endsWith('/search')
        ? { total: 3, items: [folder(10)] }
        : { total: asked.offset + 1_000, items: items(asked) },
    )
    expect(await errorOf(distributeFileKeys(api, keyringOf(api), { roomId: 5 })), what).toMatchObject({ code })
    expect(server.seen.length, what).toBeLessThan(most)
  }
})
