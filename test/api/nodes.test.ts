/** Moving, renaming, deleting, getting back and listing whole trees, against the embedded server. @module */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { getFileKey } from '../../src/api/file-keys.ts'
import {
  createFolder,
  deleteNodes,
  getNode,
  listChildren,
  moveNodes,
  searchTree,
  updateFile,
  updateFolder,
} from '../../src/api/nodes.ts'
import { listDeleted, listDeletedVersions, restoreDeleted } from '../../src/api/recycle-bin.ts'
import type { RemoteNode } from '../../src/api/wire.ts'
import type { Client } from '../../src/client.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import { createWorld, makeRoom, makeTree, snapshot, type World } from '../support/cli.ts'
import { dialer, errorOf, httpServer, json } from '../support/servers.ts'

let world: World
let anna: Client
beforeAll(async () => {
  world = await createWorld()
  anna = await world.client()
})
afterAll(() => world.close())

const read = async <T>(items: AsyncIterable<T>): Promise<T[]> => {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}
const at = async (path: string): Promise<RemoteNode> => (await requireRemote(anna.api, path)).node
const namesIn = async (path: string) =>
  (await read(listChildren(anna.api, (await at(path)).id))).map(({ name }) => name)

let count = 0
/** A room with files, by path and content. */
async function roomWith(files: Record<string, string>, encrypted = true): Promise<string> {
  const name = `r${++count}`
  await makeRoom(anna, name, encrypted)
  await put(name, files)
  return `/${name}`
}
async function put(room: string, files: Record<string, string>): Promise<void> {
  const local = world.path(`local-${room}`)
  makeTree(local, files)
  const done = await anna.upload([local], `/${room}`, { contents: true, checksum: true })
  expect(done).toMatchObject({ failed: [] })
}
async function contentOf(path: string): Promise<string> {
  const target = world.path(`out-${++count}`)
  expect(await anna.download([path], `${target}/`)).toMatchObject({ transferred: 1, failed: [] })
  return Object.values(snapshot(target)).at(-1)!
}

describe('moving and renaming', () => {
  test('keeps content, key, time and identity', async () => {
    const room = await roomWith({ 'a/f': 'content', 'a/g': 'other', 'b/': '' })
    const [before, target] = [await at(`${room}/a/f`), await at(`${room}/b`)]
    await moveNodes(
      anna.api,
      target.id,
      [{ id: before.id, name: 'moved' }, { id: (await at(`${room}/a/g`)).id }],
      'fail',
    )
    expect(await namesIn(`${room}/b`)).toEqual(['g', 'moved'])
    expect(await namesIn(`${room}/a`)).toEqual([])
    const { id, size, timestampModification, referenceId } = await at(`${room}/b/moved`)
    expect({ id, size, timestampModification, referenceId }).toEqual({
      id: before.id,
      size: before.size,
      timestampModification: before.timestampModification,
      referenceId: before.referenceId,
    })
    expect(await contentOf(`${room}/b/moved`)).toBe('content')
  })

  test('a taken name: fail moves nothing, overwrite puts the old one into the bin', async () => {
    const room = await roomWith({ 'a/f': 'new', 'a/g': 'g', 'b/f': 'old' })
    const [f, g, target] = [await at(`${room}/a/f`), await at(`${room}/a/g`), await at(`${room}/b`)]
    const items = [{ id: g.id }, { id: f.id }]
    expect(await errorOf(moveNodes(anna.api, target.id, items, 'fail'))).toMatchObject({ code: 'EXISTS' })
    expect(await namesIn(`${room}/a`)).toEqual(['f', 'g'])
    expect(await namesIn(`${room}/b`)).toEqual(['f'])
    await moveNodes(anna.api, target.id, items, 'overwrite')
    expect(await namesIn(`${room}/b`)).toEqual(['f', 'g'])
    expect(await contentOf(`${room}/b/f`)).toBe('new')
    expect(await read(listDeleted(anna.api, (await at(room)).id))).toMatchObject([
      { name: 'f', parentPath: `${room}/b/` },
    ])
  })

  test('what cannot be is named', async () => {
    const room = await roomWith({ 'a/b/f': 'x' })
    const plain = await roomWith({}, false)
    const [a, b, f] = [await at(`${room}/a`), await at(`${room}/a/b`), await at(`${room}/a/b/f`)]
    const move = (target: number, id: number) => errorOf(moveNodes(anna.api, target, [{ id }], 'fail'))
    expect(await move(b.id, a.id)).toMatchObject({ class: 'conflict', code: 'INTO_ITSELF' })
    expect(await move((await at(plain)).id, f.id)).toMatchObject({ class: 'conflict', code: 'ENCRYPTION_DIFFERS' })
    expect(await move(b.id, 999_999)).toMatchObject({ class: 'not_found' })
    expect(await move(999_999, f.id)).toMatchObject({ class: 'not_found' })
  })

  test('names and times of files and folders', async () => {
    const room = await roomWith({ 'd/f': 'x', 'd/g': 'y' })
    const [d, f] = [await at(`${room}/d`), await at(`${room}/d/f`)]
    const renamed = await updateFile(anna.api, f.id, { name: 'F' })
    expect(renamed).toMatchObject({ id: f.id, name: 'F', timestampModification: f.timestampModification })
    const time = Date.UTC(2001, 1, 3, 4, 5, 6, 789)
    expect(await updateFile(anna.api, f.id, { timestampModification: time })).toMatchObject({
      name: 'F',
      timestampModification: time,
    })
    expect(await errorOf(updateFile(anna.api, f.id, { name: 'g' }))).toMatchObject({ code: 'EXISTS' })
    expect(await updateFolder(anna.api, d.id, { name: 'e', timestampModification: time })).toMatchObject({
      id: d.id,
      name: 'e',
      timestampModification: time,
    })
    expect(await namesIn(`${room}/e`)).toEqual(['F', 'g'])
    // A time that RFC 3339 cannot write is the nearest one that it can.
    const early = await updateFile(anna.api, f.id, { timestampModification: -1e15 })
    expect(new Date(early.timestampModification!).getUTCFullYear()).toBe(1)
    expect(await errorOf(updateFile(anna.api, d.id, { name: 'x' }))).toMatchObject({ class: 'not_found' })
  })
})

describe('the recycle bin', () => {
  test('all versions of a name, and back with key, time and content', async () => {
    const room = await roomWith({ 'd/f': 'one', 'e/f': 'elsewhere' })
    const name = room.slice(1)
    const first = await at(`${room}/d/f`)
    await put(name, { 'd/f': 'second' })
    const second = await at(`${room}/d/f`)
    expect(second.id).not.toBe(first.id)
    expect(second.referenceId).toBe(first.referenceId)
    await put(name, { 'd/f': 'the third' })
    const third = await at(`${room}/d/f`)
    const { id: roomId } = await at(room)
    await deleteNodes(anna.api, [third.id])
    await deleteNodes(anna.api, [(await at(`${room}/e/f`)).id])
    const bin = await read(listDeleted(anna.api, roomId))
    expect(bin.map(({ parentPath, cntVersions }) => [parentPath, cntVersions]).sort()).toEqual([
      [`${room}/d/`, 3],
      [`${room}/e/`, 1],
    ])
    const all = await read(listDeletedVersions(anna.api, roomId, { name: 'f', type: 'file' }))
    expect(all).toHaveLength(4)
    expect(await read(listDeletedVersions(anna.api, roomId, { name: 'f', type: 'folder' }))).toEqual([])
    const here = { name: 'f', type: 'file', parentPath: `${room}/d/` } as const
    const versions = await read(listDeletedVersions(anna.api, roomId, here))
    expect(versions.map(({ id }) => id).sort((a, b) => a - b)).toEqual([first.id, second.id, third.id])
    expect(new Set(versions.map(({ referenceId }) => referenceId))).toEqual(new Set([first.id]))

    await restoreDeleted(anna.api, [first.id], { resolution: 'fail' })
    const back = await at(`${room}/d/f`)
    for (const field of ['id', 'size', 'timestampModification', 'createdAt', 'updatedAt', 'referenceId'] as const) {
      expect(back[field], field).toBe(first[field])
    }
    expect(await contentOf(`${room}/d/f`)).toBe('one')

    // The next one finds the name taken.
    expect(await errorOf(restoreDeleted(anna.api, [second.id], { resolution: 'fail' }))).toMatchObject({
      code: 'EXISTS',
    })
    await restoreDeleted(anna.api, [second.id], { resolution: 'overwrite' })
    expect(await contentOf(`${room}/d/f`)).toBe('second')
    expect((await getFileKey(anna.api, second.id)).version).toBe('RSA-4096/AES-256-GCM')
    expect((await read(listDeletedVersions(anna.api, roomId, here))).map(({ id }) => id).sort((a, b) => a - b)).toEqual(
      [first.id, third.id],
    )
    await restoreDeleted(anna.api, [third.id], { resolution: 'fail', parentId: roomId })
    expect(await contentOf(`${room}/f`)).toBe('the third')
    expect(await errorOf(restoreDeleted(anna.api, [third.id], { resolution: 'fail' }))).toMatchObject({
      class: 'not_found',
    })
  })

  test('restoring is all or nothing; folders bring their files back; other rooms are refused', async () => {
    const room = await roomWith({ 'd/f': 'in d', g: 'beside' })
    const other = await roomWith({})
    const [d, f, g] = [await at(`${room}/d`), await at(`${room}/d/f`), await at(`${room}/g`)]
    await deleteNodes(anna.api, [d.id, g.id])
    await createFolder(anna.api, (await at(room)).id, 'g')
    expect(await errorOf(restoreDeleted(anna.api, [d.id, g.id], { resolution: 'overwrite' }))).toMatchObject({
      class: 'conflict',
    })
    expect(await namesIn(room)).toEqual(['g'])
    const away = { resolution: 'fail', parentId: (await at(other)).id } as const
    expect(await errorOf(restoreDeleted(anna.api, [g.id], away))).toMatchObject({ code: 'OTHER_ROOM' })
    await restoreDeleted(anna.api, [d.id], { resolution: 'fail' })
    expect((await at(`${room}/d/f`)).id).toBe(f.id)
    expect(await contentOf(`${room}/d/f`)).toBe('in d')
  })

  test('a file whose folder is gone for good cannot go back there', async () => {
    const room = await roomWith({ 'd/f': 'x' })
    const [d, f, { id }] = [await at(`${room}/d`), await at(`${room}/d/f`), await at(room)]
    await deleteNodes(anna.api, [f.id])
    await deleteNodes(anna.api, [d.id])
    expect(await errorOf(restoreDeleted(anna.api, [f.id], { resolution: 'fail' }))).toMatchObject({
      class: 'not_found',
    })
    await restoreDeleted(anna.api, [f.id], { resolution: 'fail', parentId: id })
    expect(await contentOf(`${room}/f`)).toBe('x')
  })

  test('deleting takes nodes of one parent, all or none', async () => {
    const room = await roomWith({ 'd/f': 'x', g: 'y' })
    const [f, g] = [await at(`${room}/d/f`), await at(`${room}/g`)]
    expect(await errorOf(deleteNodes(anna.api, [g.id, 999_999]))).toMatchObject({ class: 'not_found' })
    expect(await errorOf(deleteNodes(anna.api, [f.id, g.id]))).toMatchObject({ status: 400 })
    expect(await namesIn(room)).toEqual(['d', 'g'])
  })
})

describe('a whole tree at once', () => {
  test('is what the folders list one by one, with the room above left out', async () => {
    const files = Object.fromEntries(
      Array.from({ length: 520 }, (_, i) => [`d${i % 7}/e${i % 3}/same name${i % 50 === 0 ? '' : i}`, '']),
    )
    const room = await roomWith({ ...files, top: '' }, false)
    const root = await at(room)
    const walk = async (id: number): Promise<RemoteNode[]> => {
      const children = await read(listChildren(anna.api, id))
      const below = await Promise.all(children.map((node) => (node.type === 'file' ? [] : walk(node.id))))
      return [...children.map(lean), ...below.flat()]
    }
    // Of files only what tells them apart is given.
    const lean = (node: RemoteNode): RemoteNode => {
      if (node.type !== 'file') return node
      const { id, type, name, parentId, size, isEncrypted, timestampModification } = node
      return { id, type, name, parentId, size, isEncrypted, timestampModification } as RemoteNode
    }
    const byId = (nodes: RemoteNode[]) => [...nodes].sort((a, b) => a.id - b.id)
    const tree = await read(searchTree(anna.api, root.id))
    expect(tree.length).toBeGreaterThan(520)
    expect(byId(tree)).toEqual(byId(await walk(root.id)))
    const folder = await at(`${room}/d3`)
    expect(byId(await read(searchTree(anna.api, folder.id)))).toEqual(byId(await walk(folder.id)))
    expect(await read(searchTree(anna.api, (await at(`${await roomWith({})}`)).id))).toEqual([])
    expect(await errorOf(read(searchTree(anna.api, 999_999)))).toMatchObject({ class: 'not_found' })
    expect((await getNode(anna.api, root.id)).branchVersion).toBe(root.branchVersion)
  })

  test('an entry that moves to another page between two requests is noticed', async () => {
    const node = (id: number) => ({ id, type: 'file', name: `n${id}` })
    const ids = Array.from({ length: 600 }, (_, i) => i + 10)
    let page = 0
    const server = await httpServer(({ path }, response) => {
      const query = new URL(path, 'http://x').searchParams
      const offset = Number(query.get('offset'))
      // What is new at the front pushes the rest along; a deletion behind keeps the total.
      const now = page++ === 0 ? ids : [1000, ...ids.slice(0, -1)]
      json(response, {
        range: { offset, limit: 500, total: 600 },
        items: now.slice(offset, offset + 500).map(node),
      })
    })
    const send = dialer()
    const api = { origin: server.origin, send, sendPlain: send }
    expect(await errorOf(read(searchTree(api, 5)))).toMatchObject({ class: 'changed', code: 'LIST_CHANGED' })
    expect(server.seen[0]!.path).toBe(
      '/api/v4/nodes/search?search_string=*&parent_id=5&depth_level=-1&sort=name%3Aasc&limit=500&offset=0',
    )
  })
})
