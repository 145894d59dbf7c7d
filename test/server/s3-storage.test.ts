/**
 * Content in an object store, with the command line as the client: our own small store everywhere, and OpenStack Swift where
 * it is installed.
 * @module
 */
import { createHash, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createDownload } from '../../src/api/downloads.ts'
import { listChildren } from '../../src/api/nodes.ts'
import { cancelUpload, createUpload, getPartUrls, putPart } from '../../src/api/uploads.ts'
import type { RemoteNode } from '../../src/api/wire.ts'
import { MemoryRecorder } from '../../src/server/index.ts'
import { createWorld, listFiles, makeTree, snapshot, type World } from '../support/cli.ts'
import { hasSwift, type ObjectStoreUnderTest, startOwn, startSwift, whileBusy } from '../support/object-stores.ts'
import { ask as askOnce } from './support.ts'

const MIB = 1024 * 1024
const CANARY = `canary of the object store ${randomBytes(8).toString('hex')}`
const ask = (...request: Parameters<typeof askOnce>) => whileBusy(() => askOnce(...request))
const md5 = (bytes: Uint8Array) => createHash('md5').update(bytes).digest('hex')

const FILES: Record<string, Buffer> = {
  empty: Buffer.alloc(0),
  one: Buffer.from('1'),
  small: Buffer.alloc(12_000, CANARY),
  part: Buffer.alloc(5 * MIB, CANARY),
  'part+1': randomBytes(5 * MIB + 1),
  large: randomBytes(20 * MIB),
}

const kinds = [
  { name: 'our own', start: startOwn, isThere: true },
  { name: 'Swift, with python3-swift, memcached and ../shared', start: startSwift, isThere: hasSwift },
]

for (const { name, start, isThere } of kinds) {
  describe.skipIf(!isThere)(`content in an object store: ${name}`, () => {
    let store: ObjectStoreUnderTest
    let world: World
    const recorder = new MemoryRecorder()
    beforeAll(async () => {
      store = await start()
      world = await createWorld({ s3: store.options, recorder })
    }, 400_000)
    afterAll(async () => {
      await world?.close()
      await store?.stop()
    })

    const nodesIn = async (path: string): Promise<Map<string, RemoteNode>> => {
      const { api } = await world.client()
      let nodes = new Map<string, RemoteNode>()
      for (const name of ['', ...path.split('/').filter(Boolean)]) {
        const parentId = name === '' ? 0 : nodes.get(name)!.id
        nodes = new Map()
        for await (const node of listChildren(api, parentId)) nodes.set(node.name, node)
      }
      return nodes
    }
    const call = async (method: string, path: string, json?: unknown) => {
      const { api } = await world.client()
      const response = await api.send({
        method: method as 'GET',
        url: `${world.server.url}/api${path}`,
        ...(json === undefined
          ? {}
          : { body: Buffer.from(JSON.stringify(json)), headers: { 'content-type': 'application/json' } }),
      })
      return {
        ...response,
        json: response.body.length === 0 ? undefined : JSON.parse(Buffer.from(response.body).toString()),
      }
    }

    test('files of 0 B to 20 MiB come back byte for byte; one object each, nothing half-way', async () => {
      makeTree(world.path('dir'), FILES)
      const up = await world.transfer(['upload', world.path('dir'), '/room', '--part-size', '5M'])
      expect(up.summary, up.stderr).toMatchObject({ exitCode: 0, transferred: 6, failed: [] })
      const down = await world.transfer(['download', '/room/dir', world.path('back')])
      expect(down.summary, down.stderr).toMatchObject({ exitCode: 0, transferred: 6, failed: [] })
      expect(snapshot(world.path('back', 'dir'))).toEqual(snapshot(world.path('dir')))
      await expect.poll(() => store.uploads()).toEqual([])
      // Nothing needs no object.
      expect(await store.keys()).toHaveLength(5)
      const again = await world.transfer(['upload', world.path('dir'), '/room', '--checksum'])
      expect(again.summary).toMatchObject({ exitCode: 0, transferred: 0, skipped: 6 })
    })

    test('neither store nor server ever holds plaintext, and no content went through the server', async () => {
      const keys = await store.keys()
      expect(keys.every((key) => /^sealsync\/[0-9a-f]{32}$/.test(key))).toBe(true)
      let stored = 0
      for (const key of keys) {
        const bytes = await store.read(key)
        expect(bytes.includes(CANARY)).toBe(false)
        stored += bytes.length
      }
      expect(stored).toBe(Object.values(FILES).reduce((sum, bytes) => sum + bytes.length, 0))
      const local = listFiles(world.path('server'))
      expect(local.filter((file) => file.startsWith('blobs/') && file !== 'blobs/.store')).toEqual([])
      for (const file of local) expect(readFileSync(world.path('server', file)).includes(CANARY), file).toBe(false)
      for (const request of recorder.requests) {
        expect(request.path).not.toMatch(/^\/s3\/|\/downloads\//)
        expect(recorder.bodyOf(request).length).toBeLessThan(10_000)
      }
    })

    test('hash and size of nodes; settings say that direct upload is mandatory', async () => {
      const nodes = await nodesIn('/room/dir')
      const raw = async (file: string) => (await call('GET', `/v4/nodes/${nodes.get(file)?.id}`)).json
      const single = await raw('one')
      const digests = await Promise.all((await store.keys()).map(async (key) => md5(await store.read(key))))
      expect(digests).toContain(single.hash)
      expect(single.size).toBe(1)
      expect(await raw('empty')).toMatchObject({ size: 0, hash: md5(Buffer.alloc(0)) })
      expect(await raw('large')).not.toHaveProperty('hash')
      expect((await call('GET', '/v4/config/info/infrastructure')).json).toMatchObject({ s3EnforceDirectUpload: true })
      expect((await call('GET', '/v4/public/system/info')).json).toMatchObject({
        useS3Storage: true,
        s3EnforceDirectUpload: true,
        s3Hosts: [new URL(store.options.endpoint).host],
      })
      const classic = await call('POST', '/v4/nodes/files/uploads', { parentId: single.parentId, name: 'x' })
      expect(classic.json).toMatchObject({ code: 400, errorCode: -90033 })
    })

    test('ranges, at the store and through the server', async () => {
      const node = (await nodesIn('/room/dir')).get('large')!
      const { api } = await world.client()
      const url = await createDownload(api, node.id)
      expect(url.startsWith(`${store.options.endpoint}/${store.options.bucket}/sealsync/`)).toBe(true)
      const { body: whole } = await ask(url)
      expect(whole.length).toBe(node.size)
      const { token } = (await call('POST', `/v4/nodes/files/${node.id}/downloads`)).json
      const through = `${world.server.url}/api/v4/downloads/${token}`
      for (const [range, from, to] of [
        ['bytes=0-0', 0, 1],
        [`bytes=${5 * MIB - 3}-${5 * MIB + 3}`, 5 * MIB - 3, 5 * MIB + 4],
        [`bytes=${20 * MIB - 7}-`, 20 * MIB - 7, 20 * MIB],
      ] as const) {
        for (const address of [url, through]) {
          const part = await ask(address, { headers: { range } })
          expect([part.status, part.headers['content-range']]).toEqual([206, `bytes ${from}-${to - 1}/${20 * MIB}`])
          expect(part.body.equals(whole.subarray(from, to))).toBe(true)
        }
      }
      expect((await ask(through)).body.equals(whole)).toBe(true)
      const head = await ask(through, { method: 'HEAD' })
      expect([head.status, head.headers['content-length']]).toEqual([200, String(20 * MIB)])
      expect((await ask(url.replace(/X-Amz-Expires=\d+/, 'X-Amz-Expires=86400'))).status).toBe(403)
      // What has no object is served here.
      const empty = await createDownload(api, (await nodesIn('/room/dir')).get('empty')!.id)
      expect(empty.startsWith(world.server.url)).toBe(true)
      expect((await ask(empty)).body.length).toBe(0)
    })

    test('overwriting keeps the old object for the bin; emptying the bin removes it; copies share one', async () => {
      const before = await store.keys()
      makeTree(world.path('dir'), { small: 'new content' })
      const up = await world.transfer(['upload', world.path('dir'), '/room'])
      expect(up.summary).toMatchObject({ exitCode: 0, transferred: 1 })
      expect(await store.keys()).toHaveLength(before.length + 1)
      const [room, nodes] = [(await nodesIn('/')).get('room')!, await nodesIn('/room/dir')]
      const small = nodes.get('small')!
      const folder = (await call('POST', '/v4/nodes/folders', { parentId: room.id, name: 'copies' })).json
      const copied = await call('POST', `/v4/nodes/${folder.id}/copy_to`, { items: [{ id: small.id }] })
      expect(copied.status).toBe(201)
      expect((await call('DELETE', `/v4/nodes/${room.id}/deleted_nodes`)).status).toBe(204)
      await expect.poll(async () => (await store.keys()).length).toBe(before.length)
      // The copy still uses it.
      expect((await call('DELETE', `/v4/nodes/${small.id}`)).status).toBe(204)
      expect((await call('DELETE', `/v4/nodes/${room.id}/deleted_nodes`)).status).toBe(204)
      expect(
        (await world.cli(['cat', '/room/copies/small', '--key-password-file', world.keyPasswordFile])).stdout,
      ).toBe('new content')
      expect((await call('DELETE', `/v4/nodes/${folder.id}`)).status).toBe(204)
      expect((await call('DELETE', `/v4/nodes/${room.id}/deleted_nodes`)).status).toBe(204)
      await expect.poll(async () => (await store.keys()).length).toBe(before.length - 1)
    })

    test('cancelling aborts the multipart upload and frees its parts', async () => {
      const files = store.filesOnDisk()
      const { api } = await world.client()
      const parentId = (await nodesIn('/')).get('room')!.id
      const open = () => createUpload(api, { parentId, name: 'given up', size: 6 * MIB, modifiedAt: 0 }, true)
      const { uploadId } = await open()
      const urlOf = async (part: number, size: number) =>
        (await getPartUrls(api, uploadId, { first: part, last: part, size })).get(part)!
      await putPart(api, await urlOf(1, 5 * MIB), randomBytes(5 * MIB))
      const url = await urlOf(2, MIB)
      expect(await store.uploads()).toHaveLength(1)
      await cancelUpload(api, uploadId)
      await expect.poll(() => store.uploads()).toEqual([])
      expect((await ask(url, { method: 'PUT', body: randomBytes(MIB) })).status).toBe(404)
      // A store may be done with files a little later than with what it lists.
      await expect.poll(() => store.filesOnDisk()).toBe(files)
    })

    test('deleting the room removes every object, and every file of the store', async () => {
      const room = (await nodesIn('/')).get('room')!
      expect((await call('DELETE', `/v4/nodes/${room.id}`)).status).toBe(204)
      await expect.poll(() => store.keys()).toEqual([])
      expect(await store.uploads()).toEqual([])
      // What the server writes about itself.
      await expect.poll(() => store.filesOnDisk() ?? 1).toBe(1)
    })
  })
}
