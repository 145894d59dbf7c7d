import { createDecipheriv } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { request } from 'node:http'
import { text } from 'node:stream/consumers'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { keyForPattern, pattern } from '../../bench/server/content.ts'
import { listen } from '../../bench/server/http.ts'
import { createRooms } from '../../bench/server/room.ts'
import {
  createFileDecryptor,
  parseFileKey,
  parseKeyPairContainer,
  unlockKeyPair,
  unwrapFileKey,
} from '../../crypto/index.ts'

let server: Awaited<ReturnType<typeof listen>>
let url = ''
beforeAll(async () => {
  server = await listen(createRooms({ storage: 's3' }), pattern)
  url = `http://127.0.0.1:${server.port}`
})
afterAll(() => server.close())

const json = (body: unknown) => ({ headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })
const post = async (path: string, body: unknown = {}) => fetch(url + path, { method: 'POST', ...json(body) })
const uploads = '/api/v4/nodes/files/uploads'

async function openUpload(name: string, size: number) {
  const { id: parentId } = await (await post(`/bench/rooms/room-${name}`)).json()
  const { uploadId } = await (await post(uploads, { parentId, name, size })).json()
  const finish = (body = {}) =>
    fetch(`${url}${uploads}/${uploadId}/s3`, { method: 'PUT', ...json({ resolutionStrategy: 'fail', ...body }) })
  return { parentId, uploadId, finish }
}

test('an upload counts its parts, and only what was announced becomes a node', async () => {
  const { parentId, uploadId, finish } = await openUpload('file', 12)
  const { urls } = await (
    await post(`${uploads}/${uploadId}/s3_urls`, { size: 6, firstPartNumber: 1, lastPartNumber: 2 })
  ).json()
  const put = async (index: number) => fetch(urls[index].url, { method: 'PUT', body: 'sealed' })
  expect((await put(0)).headers.get('etag')).toMatch(/^".+"$/)
  await put(0) // again: counts once
  expect((await finish()).status).toBe(400)
  await put(1)
  expect((await finish({ fileKey: { key: 'k' } })).status).toBe(202)
  const done = await (await fetch(`${url}${uploads}/${uploadId}`)).json()
  expect(done).toMatchObject({ status: 'done', node: { name: 'file', size: 12, type: 'file' } })
  const listed = await (await fetch(`${url}/api/v4/nodes?parent_id=${parentId}&limit=500`)).json()
  expect(listed).toMatchObject({ range: { total: 1 }, items: [{ id: done.node.id }] })
  expect(await (await fetch(`${url}/api/v4/nodes/files/${done.node.id}/user_file_key`)).json()).toEqual({ key: 'k' })
})

test('names are taken once, unless overwritten', async () => {
  const { parentId, finish } = await openUpload('same', 0)
  expect((await finish()).status).toBe(202)
  const { token } = await (await post(uploads, { parentId, name: 'same', size: 0 })).json()
  const again = (resolutionStrategy: string) =>
    fetch(`${url}/api/v4/uploads/${token}`, { method: 'PUT', ...json({ resolutionStrategy }) })
  expect((await again('fail')).status).toBe(409)
  expect((await again('overwrite')).status).toBe(201)
  const { range } = await (await fetch(`${url}/api/v4/nodes?parent_id=${parentId}`)).json()
  expect(range.total).toBe(1)
})

/** Sends a body in pieces of its own, with chunked encoding. */
async function putInPieces(path: string, pieces: readonly Buffer[]): Promise<unknown> {
  const sent = request(url + path, { method: 'PUT' })
  for (const piece of pieces) {
    sent.write(piece)
    await new Promise(setImmediate)
  }
  const response = await new Promise<NodeJS.ReadableStream>((resolve, reject) => {
    sent.once('response', resolve).once('error', reject).end()
  })
  return JSON.parse(await text(response))
}

test('chunked bodies are followed to their end, whatever their pieces hold', async () => {
  const pieces = [Buffer.from('\r\n0\r\n\r\n'), Buffer.alloc(300_000, 13), Buffer.alloc(1), Buffer.alloc(70_001, 10)]
  const bytes = pieces.reduce((sum, piece) => sum + piece.length, 0)
  expect(await putInPieces('/plain/x', pieces)).toEqual({ bytes })
  // The connection is still in step.
  expect(await putInPieces('/plain/x', [Buffer.alloc(5)])).toEqual({ bytes: 5 })
})

test('plain content has any length, and ranges of it are the same bytes', async () => {
  const size = pattern.length * 2 + 1234
  const whole = Buffer.from(await (await fetch(`${url}/plain/${size}`)).arrayBuffer())
  expect(whole.length).toBe(size)
  expect(whole.subarray(pattern.length, pattern.length * 2).equals(pattern)).toBe(true)
  for (const [start, end] of [
    [0, 0],
    [pattern.length - 5, pattern.length + 5],
    [1, size - 1],
  ] as const) {
    const answer = await fetch(`${url}/plain/${size}`, { headers: { range: `bytes=${start}-${end}` } })
    expect(answer.status).toBe(206)
    expect(answer.headers.get('content-range')).toBe(`bytes ${start}-${end}/${size}`)
    expect(Buffer.from(await answer.arrayBuffer()).equals(whole.subarray(start, end + 1))).toBe(true)
  }
})

test('the pattern is a ciphertext that its key opens, of any length', () => {
  for (const size of [0, 1, 4096, pattern.length, pattern.length + 17]) {
    const { key, iv, tag } = keyForPattern(size, size)
    const decipher = createDecipheriv('aes-256-gcm', key, iv).setAuthTag(tag)
    for (let at = 0; at < size; at += pattern.length) decipher.update(pattern.subarray(0, size - at))
    expect(() => decipher.final(), String(size)).not.toThrow()
  }
})

test('seeded files can be listed in pages, and opened with the key pair of the account', async () => {
  const { items } = JSON.parse(readFileSync(new URL('../../fixtures/keys/key-pairs.json', import.meta.url), 'utf8'))
  const { keyPair: locked, password } = items.find(({ name }: { name: string }) => name === 'RSA-4096 current')
  const pair = await unlockKeyPair(parseKeyPairContainer(locked), password)
  expect((await post('/api/v4/user/account/keypair', locked)).status).toBe(204)
  const seed = { room: 'seeded', count: 5, size: 100, perFolder: 2, modified: 1e12, withKeys: true }
  const { id } = await (await post('/bench/files', seed)).json()
  const page = async (parent: number, offset: number) =>
    (await fetch(`${url}/api/v4/nodes?parent_id=${parent}&offset=${offset}&limit=2`)).json()
  const first = await page(id, 0)
  expect(first.range.total).toBe(3)
  expect((await page(id, 2)).items).toHaveLength(1)
  const { items: files } = await page(first.items[0].id, 0)
  const wrapped = parseFileKey(await (await fetch(`${url}/api/v4/nodes/files/${files[1].id}/user_file_key`)).json())
  const decryptor = createFileDecryptor(await unwrapFileKey(wrapped, pair))
  const { downloadUrl } = await (await post(`/api/v4/nodes/files/${files[1].id}/downloads`)).json()
  decryptor.updateEach(new Uint8Array(await (await fetch(downloadUrl)).arrayBuffer()), () => {})
  expect(() => decryptor.final()).not.toThrow()
  pair.wipe()
})
