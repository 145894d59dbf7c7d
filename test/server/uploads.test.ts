/**
 * Both ways to upload, with the habits of the existing clients, and downloads with ranges.
 * @module
 */
import { createHash, randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import {
  addMember,
  ask,
  blobsIn,
  download,
  fileKeyBody,
  finishDirect,
  type Json,
  makeRoom,
  openUpload,
  type Person,
  partUrl,
  READ_ONLY,
  settled,
  signUp,
  startWorld,
  uploadClassic,
  uploadDirect,
} from './support.ts'

const MIB = 1024 * 1024
const md5 = (bytes: Uint8Array): string => createHash('md5').update(bytes).digest('hex')

test('direct upload: last part first, re-sent parts, one node with all bytes', async () => {
  const world = await startWorld({ storage: 's3' })
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  const [first, last] = [randomBytes(5 * MIB), randomBytes(777)]
  const { uploadId } = await openUpload(ann, room, 'big.bin', {
    size: first.length + last.length,
    directS3Upload: true,
  })
  expect((await ann.call('GET', `/v4/nodes/files/uploads/${uploadId}`)).json).toEqual({ status: 'transfer' })
  const put = async (part: number, bytes: Uint8Array, headers = {}) =>
    ask(await partUrl(ann, uploadId, part, bytes.length), { method: 'PUT', body: bytes, headers })
  const tail = await put(2, last, { 'content-range': 'bytes 7-7/9', 'content-type': 'application/octet-stream' })
  expect(tail.headers.etag).toBe(`"${md5(last)}"`)
  await put(1, randomBytes(5 * MIB))
  const head = await put(1, first)
  const parts = [
    { partNumber: 1, partEtag: md5(first) },
    { partNumber: 2, partEtag: `"${md5(last)}"` },
  ]
  expect(head.status).toBe(200)
  const finish = await ann.call('PUT', `/v4/nodes/files/uploads/${uploadId}/s3`, { parts })
  expect(finish.status).toBe(202)
  expect(finish.body.length).toBe(0)
  const state = await settled(ann, uploadId)
  expect(state).toMatchObject({
    status: 'done',
    node: { name: 'big.bin', size: 5 * MIB + 777, parentPath: '/R/', isEncrypted: false },
  })
  const all = Buffer.concat([first, last])
  expect((await download(ann, state.node.id)).body.equals(all)).toBe(true)
  const across = await download(ann, state.node.id, { range: `bytes=${5 * MIB - 3}-${5 * MIB + 2}` })
  expect(across.status).toBe(206)
  expect(across.body.equals(all.subarray(5 * MIB - 3, 5 * MIB + 3))).toBe(true)
  const repeat = await ann.call('PUT', `/v4/nodes/files/uploads/${uploadId}/s3`, { parts })
  expect(repeat.json).toMatchObject({ code: 400, errorCode: -20503 })
  // The replaced first part is gone from disk.
  await expect.poll(async () => (await blobsIn(world.dir)).length).toBe(1)
})

test('direct upload: what is refused', async () => {
  let now = Date.UTC(2026, 0, 1)
  const world = await startWorld({ storage: 's3', clock: { now: () => now }, urlLifetimeS: 60 })
  const ann = await signUp(world, 'ann')
  const bob = await signUp(world, 'bob')
  const room = await makeRoom(ann, 'R')
  const { uploadId } = await openUpload(ann, room, 'f', { directS3Upload: true })
  const url = await partUrl(ann, uploadId, 1, 10)
  const ten = Buffer.alloc(10, 1)
  const xml = async (target: string, body: Uint8Array): Promise<[number, string]> => {
    const reply = await ask(target, { method: 'PUT', body })
    return [reply.status, /<Code>(.*)<\/Code>/.exec(reply.body.toString())?.[1] ?? '']
  }
  expect(await xml(url, Buffer.alloc(11))).toEqual([400, 'IncompleteBody'])
  expect(await xml(url.replace('/1?', '/2?'), ten)).toEqual([403, 'SignatureDoesNotMatch'])
  expect(await xml(url.replace('X-Amz-Size=10', 'X-Amz-Size=11'), Buffer.alloc(11))).toEqual([
    403,
    'SignatureDoesNotMatch',
  ])
  expect(await xml(url.replace('X-Amz-Expires=60', 'X-Amz-Expires=99'), ten)).toEqual([403, 'SignatureDoesNotMatch'])
  now += 61_000
  expect(await xml(url, ten)).toEqual([403, 'AccessDenied'])
  expect((await ask(await partUrl(ann, uploadId, 1, 10), { method: 'PUT', body: ten })).status).toBe(200)
  expect((await ask(await partUrl(ann, uploadId, 2, 10), { method: 'PUT', body: ten })).status).toBe(200)
  const finish = async (parts: Json) => (await finishDirect(ann, uploadId, { parts })).json
  expect(await finish([{ partNumber: 1, partEtag: md5(Buffer.alloc(9)) }])).toMatchObject({
    code: 400,
    errorCode: -80045,
  })
  expect(await finish([{ partNumber: 3, partEtag: md5(ten) }])).toMatchObject({ errorCode: -80045 })
  const both = [1, 2].map((partNumber) => ({ partNumber, partEtag: md5(ten) }))
  expect(await finish(both)).toMatchObject({ code: 400, errorCode: -80046 })
  expect((await bob.call('GET', `/v4/nodes/files/uploads/${uploadId}`)).json).toMatchObject({
    code: 404,
    errorCode: -20501,
  })
  for (const body of [
    { size: 1, firstPartNumber: 0, lastPartNumber: 1 },
    { size: 1, firstPartNumber: 1, lastPartNumber: 10_001 },
    { firstPartNumber: 1, lastPartNumber: 1 },
  ]) {
    expect((await ann.call('POST', `/v4/nodes/files/uploads/${uploadId}/s3_urls`, body)).status).toBe(400)
  }
  expect((await ann.call('DELETE', `/v4/nodes/files/uploads/${uploadId}`)).status).toBe(204)
  expect((await ann.call('GET', `/v4/nodes/files/uploads/${uploadId}`)).status).toBe(404)
  expect(await xml(await url, ten)).toEqual([403, 'AccessDenied'])
})

test('direct upload is refused when storage is classic', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const { uploadId } = await openUpload(ann, await makeRoom(ann, 'R'), 'f', { directS3Upload: true })
  const body = { size: 1, firstPartNumber: 1, lastPartNumber: 1 }
  const urls = await ann.call('POST', `/v4/nodes/files/uploads/${uploadId}/s3_urls`, body)
  expect(urls.json).toMatchObject({ code: 412, errorCode: -90030 })
  expect((await ann.call('PUT', `/v4/nodes/files/uploads/${uploadId}/s3`, { parts: [] })).json.errorCode).toBe(-90030)
})

test.each(['classic', 's3'] as const)('empty files, %s', async (storage) => {
  const world = await startWorld({ storage })
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  let node: Json
  if (storage === 's3') {
    const { uploadId } = await uploadDirect(ann, room, 'empty', [new Uint8Array(0)])
    node = (await settled(ann, uploadId)).node
  } else node = (await uploadClassic(ann, room, 'empty', new Uint8Array(0))).json
  expect(node).toMatchObject({ name: 'empty', size: 0, hash: md5(Buffer.alloc(0)) })
  const reply = await download(ann, node.id)
  expect([reply.status, reply.body.length, reply.headers['content-length']]).toEqual([200, 0, '0'])
  expect((await download(ann, node.id, { range: 'bytes=0-0' })).status).toBe(416)
})

/** Sends `chunks` with the given Content-Range headers to a new file and answers what was stored. */
async function sendChunks(
  ann: Person,
  room: number,
  chunks: readonly [Uint8Array, string | undefined][],
): Promise<{ body: Buffer; replies: Json[] }> {
  const { uploadUrl } = await openUpload(ann, room, 'f')
  const replies: Json[] = []
  for (const [bytes, range] of chunks) {
    const reply = await ask(uploadUrl, {
      method: 'POST',
      body: bytes,
      ...(range === undefined ? {} : { headers: { 'content-range': range } }),
    })
    expect(reply.status, reply.body.toString()).toBe(201)
    expect(reply.json).toEqual({ size: bytes.length, hash: md5(bytes) })
    replies.push(reply.json)
  }
  const done = await ask(uploadUrl, { method: 'PUT', json: {} })
  expect(done.status).toBe(201)
  const reply = await download(ann, done.json.id)
  expect(done.json.size).toBe(reply.body.length)
  return { body: reply.body, replies }
}

test.each(['small', 'large'] as const)('every dialect of Content-Range, %s chunks', async (kind) => {
  const n = kind === 'small' ? 10 : 40_000
  const [a, b, c] = [randomBytes(n), randomBytes(n), randomBytes(n - 3)]
  const whole = Buffer.concat([a, b, c])
  const t = whole.length
  const dialects: Record<string, [Uint8Array, string | undefined][]> = {
    none: [
      [a, undefined],
      [b, undefined],
      [c, undefined],
    ],
    'all zero': [
      [a, `bytes 0-0/${t}`],
      [b, `bytes 0-0/${t}`],
      [c, `bytes 0-0/${t}`],
    ],
    'start twice': [
      [a, `bytes 0-0/${t}`],
      [b, `bytes ${n}-${n}/${t}`],
      [c, `bytes ${2 * n}-${2 * n}/${t}`],
    ],
    inclusive: [
      [a, `bytes 0-${n - 1}/${t}`],
      [b, `bytes ${n}-${2 * n - 1}/${t}`],
      [c, `bytes ${2 * n}-${t - 1}/${t}`],
    ],
    exclusive: [
      [a, `bytes 0-${n}/${t}`],
      [b, `bytes ${n}-${2 * n}/${t}`],
      [c, `bytes ${2 * n}-${t}/${t}`],
    ],
    star: [
      [a, `bytes 0-${n}/*`],
      [b, `bytes ${n}-${2 * n}/*`],
      [c, `bytes ${2 * n}-${t}/*`],
    ],
    'start too far': [
      [a, `bytes 0-${n}/${t}`],
      [b, `bytes ${n}-${2 * n}/${t}`],
      [c, `bytes ${5 * n}-${6 * n}/${t}`],
    ],
    'resent chunk': [
      [a, `bytes 0-${n}/${t}`],
      [randomBytes(n), `bytes ${n}-${2 * n}/${t}`],
      [b, `bytes ${n}-${2 * n}/${t}`],
      [c, `bytes ${2 * n}-${t}/${t}`],
    ],
    'empty last': [
      [whole, `bytes 0-${t}/*`],
      [new Uint8Array(0), `bytes ${t}-${t}/${t}`],
    ],
  }
  const world = await startWorld({ storage: kind === 'large' ? 's3' : 'classic' })
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  for (const [name, chunks] of Object.entries(dialects)) {
    const { body } = await sendChunks(ann, room, chunks)
    expect(body.equals(whole), name).toBe(true)
  }
})

test('a chunk rewritten in the middle leaves the rest in place', async () => {
  const ann = await signUp(await startWorld(), 'ann')
  const { body } = await sendChunks(ann, await makeRoom(ann, 'R'), [
    [Buffer.alloc(30_000, 1), undefined],
    [Buffer.alloc(20_000, 2), 'bytes 5000-24999/30000'],
  ])
  expect(body.equals(Buffer.concat([Buffer.alloc(5000, 1), Buffer.alloc(20_000, 2), Buffer.alloc(5000, 1)]))).toBe(true)
})

test('bad Content-Range and unknown tokens', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const { uploadUrl } = await openUpload(ann, await makeRoom(ann, 'R'), 'f')
  const bad = await ask(uploadUrl, { method: 'POST', body: 'x', headers: { 'content-range': 'lines 1-2' } })
  expect(bad.json).toMatchObject({ code: 400, errorCode: -80021 })
  const forged = await ask(uploadUrl.slice(0, -1) + (uploadUrl.endsWith('0') ? '1' : '0'), {
    method: 'POST',
    body: 'x',
  })
  expect(forged.json).toMatchObject({ code: 404, errorCode: -20501 })
  expect((await ask(uploadUrl, { method: 'DELETE' })).status).toBe(204)
  expect((await ask(uploadUrl, { method: 'POST', body: 'x' })).json.errorCode).toBe(-20501)
})

test('the older route by upload id, and chunked transfer without any header', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  const { uploadId } = await openUpload(ann, room, 'f')
  const path = `/v4/nodes/files/uploads/${uploadId}`
  expect((await ask(`${world.api}${path}`, { method: 'POST', body: 'x' })).status).toBe(401)
  const pieces = [randomBytes(50_000), randomBytes(60_000)]
  const sent = await ask(`${world.api}${path}`, { method: 'POST', token: ann.token, chunks: pieces })
  expect(sent.json).toEqual({ size: 110_000, hash: md5(Buffer.concat(pieces)) })
  const done = await ann.call('PUT', path, { fileName: 'other.txt' })
  expect(done.json).toMatchObject({ name: 'other.txt', size: 110_000, hash: md5(Buffer.concat(pieces)) })
  expect((await ann.call('GET', path)).json).toMatchObject({ status: 'done', node: { id: done.json.id } })
  expect((await ann.call('PUT', path, {})).json.errorCode).toBe(-20503)
})

test.each([1, 7, 1000, 100_000])('multipart bodies cut into pieces of %i bytes', async (step) => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const { uploadUrl } = await openUpload(ann, await makeRoom(ann, 'R'), 'f')
  const boundary = 'xYz"'.slice(0, 3)
  const near = Buffer.from(`\r\n--${boundary.slice(0, 2)}\r\n--`)
  const bytes = Buffer.concat([near, randomBytes(step === 1 ? 300 : 70_000), near])
  const body = Buffer.concat([
    Buffer.from(`--${boundary}\r\nContent-Disposition: form-data; name="note"\r\n\r\nskip me\r\n--${boundary}\r\n`),
    Buffer.from(
      'Content-Disposition: form-data; name="file"; filename="upload"\r\nContent-Type: application/octet-stream\r\n\r\n',
    ),
    bytes,
    Buffer.from(`\r\n--${boundary}--\r\n`),
  ])
  const chunks: Buffer[] = []
  for (let at = 0; at < body.length; at += step) chunks.push(body.subarray(at, at + step))
  const headers = { 'content-type': `multipart/form-data; boundary=${boundary}` }
  const sent = await ask(uploadUrl, { method: 'POST', chunks, headers })
  expect(sent.json, sent.body.toString()).toEqual({ size: bytes.length, hash: md5(bytes) })
  const cut = await ask(uploadUrl, { method: 'POST', chunks: [body.subarray(0, body.length - 20)], headers })
  expect(cut.status).toBe(400)
  const done = await ask(uploadUrl, { method: 'PUT', json: {} })
  expect((await download(ann, done.json.id)).body.equals(bytes)).toBe(true)
})

test('encrypted targets need a sound file key and a key pair', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const bob = await signUp(world, 'bob')
  const room = await makeRoom(ann, 'Enc', true)
  await addMember(ann, room, bob.id, { ...READ_ONLY, create: true })
  const noPair = await bob.call('POST', '/v4/nodes/files/uploads', { parentId: room, name: 'x' })
  expect(noPair.json).toMatchObject({ code: 403, errorCode: -70020 })
  const tooLong = await ann.call('POST', '/v4/nodes/files/uploads', { parentId: room, name: 'x', size: 2 ** 36 - 31 })
  expect(tooLong.json).toMatchObject({ code: 400, errorCode: -80037 })
  expect(
    (await ann.call('POST', '/v4/nodes/files/uploads', { parentId: room, name: 'x', size: 2 ** 36 - 32 })).status,
  ).toBe(201)
  const good = fileKeyBody()
  const { tag: _tag, ...untagged } = good
  const b64 = (n: number): string => randomBytes(n).toString('base64')
  const bad: [Json, number][] = [
    [undefined, -40763],
    [untagged, -80062],
    [{ ...good, tag: '' }, -80062],
    [{ ...good, iv: b64(16) }, -80062],
    [{ ...good, key: b64(511) }, -80062],
    [{ ...good, key: `${good.key.slice(0, -4)}\n===` }, -80062],
    [{ ...good, iv: `${good.iv.slice(0, -1)}*` }, -80062],
    [{ ...good, version: 'B' }, -80062],
    [fileKeyBody('A'), -80062],
  ]
  for (const [fileKey, code] of bad) {
    const reply = await uploadClassic(ann, room, 'f', Buffer.from('x'), { fileKey })
    expect(reply.json, JSON.stringify(fileKey)).toMatchObject({ code: 400, errorCode: code })
  }
  expect((await ann.call('GET', `/v4/nodes?parent_id=${room}`)).json.range.total).toBe(0)
  const done = await uploadClassic(ann, room, 'f', Buffer.from('x'), { fileKey: good })
  expect(done.status).toBe(201)
  expect((await ann.call('GET', `/v4/nodes/files/${done.json.id}/user_file_key`)).json).toEqual(good)
  expect((await bob.call('GET', `/v4/nodes/files/${done.json.id}/user_file_key`)).json).toMatchObject({
    code: 403,
    errorCode: -70020,
  })
})

test('name conflicts: autorename, fail, overwrite, and containers', async () => {
  const world = await startWorld({ storage: 's3' })
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  const first = (await uploadClassic(ann, room, 'a.txt', Buffer.from('1'))).json
  expect((await uploadClassic(ann, room, 'a.txt', Buffer.from('2'))).json.name).toBe('a (1).txt')
  expect(
    (await uploadClassic(ann, room, 'a.txt', Buffer.from('3'), { resolutionStrategy: 'autorename' })).json.name,
  ).toBe('a (2).txt')
  const fail = { resolutionStrategy: 'fail' }
  expect((await uploadClassic(ann, room, 'a.txt', Buffer.from('4'), fail)).json).toMatchObject({
    code: 409,
    errorCode: -41001,
  })
  const direct = await uploadDirect(ann, room, 'a.txt', [Buffer.from('5')], fail)
  expect(direct.reply.json).toMatchObject({ code: 409, errorCode: -41001 })
  const over = await uploadClassic(ann, room, 'a.txt', Buffer.from('66'), {
    resolutionStrategy: 'overwrite',
    keepShareLinks: true,
  })
  expect(over.json).toMatchObject({ name: 'a.txt', size: 2 })
  expect(over.json.id).not.toBe(first.id)
  expect((await ann.call('GET', `/v4/nodes/${first.id}`)).json).toMatchObject({ code: 404, errorCode: -41000 })
  expect((await uploadClassic(ann, room, 'b', Buffer.from('1'), { keepShareLinks: true })).json.errorCode).toBe(-80034)
  await ann.call('POST', '/v4/nodes/folders', { parentId: room, name: 'dir' })
  expect(
    (await uploadClassic(ann, room, 'dir', Buffer.from('1'), { resolutionStrategy: 'overwrite' })).json,
  ).toMatchObject({ code: 409, errorCode: -40010 })
  // A refused upload can still be finished another way.
  const again = await finishDirect(ann, direct.uploadId, {
    parts: [{ partNumber: 1, partEtag: md5(Buffer.from('5')) }],
  })
  expect(again.status).toBe(202)
  expect((await settled(ann, direct.uploadId)).node.name).toBe('a (3).txt')
  const listing = (await ann.call('GET', `/v4/nodes?parent_id=${room}`)).json
  expect(listing.items.map((node: Json) => node.name)).toEqual(['dir', 'a (1).txt', 'a (2).txt', 'a (3).txt', 'a.txt'])
  expect(listing.range.total).toBe(5)
})

test('downloads: ranges, HEAD, reuse, expiry, no login, bad tokens', async () => {
  let now = Date.UTC(2026, 0, 1)
  const world = await startWorld({ clock: { now: () => now } })
  const ann = await signUp(world, 'ann')
  const bytes = randomBytes(300_000)
  const { json: node } = await uploadClassic(ann, await makeRoom(ann, 'R'), 'f', bytes)
  const { downloadUrl } = (await ann.call('POST', `/v4/nodes/files/${node.id}/downloads`)).json
  expect(downloadUrl.startsWith(`${world.server.url}/api/v4/downloads/`)).toBe(true)
  const get = (range?: string) => ask(downloadUrl, range === undefined ? {} : { headers: { range } })
  const head = await ask(`${downloadUrl}?generic_mimetype=true`, { method: 'HEAD' })
  expect([head.status, head.headers['content-length'], head.body.length]).toEqual([200, '300000', 0])
  const cases: [string, number, number][] = [
    ['bytes=0-0', 0, 1],
    ['bytes=10-99', 10, 100],
    ['bytes=299990-', 299_990, 300_000],
    ['bytes=-5', 299_995, 300_000],
    ['bytes=262143-262145', 262_143, 262_146],
    ['bytes=100-999999999', 100, 300_000],
  ]
  for (const [range, start, end] of cases) {
    const reply = await get(range)
    expect(reply.status, range).toBe(206)
    expect(reply.headers['content-range']).toBe(`bytes ${start}-${end - 1}/300000`)
    expect(reply.headers['content-length']).toBe(String(end - start))
    expect(reply.body.equals(bytes.subarray(start, end)), range).toBe(true)
  }
  const beyond = await get('bytes=300000-')
  expect([beyond.status, beyond.headers['content-range']]).toEqual([416, 'bytes */300000'])
  expect((await get('bytes=5-1')).status).toBe(200)
  expect((await ask(`${downloadUrl}0`)).json).toMatchObject({ code: 404, errorCode: -20502 })
  now += 3_601_000
  expect((await get()).json).toMatchObject({ errorCode: -20502 })
})

test('times keep their milliseconds in every accepted form', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  const forms: [string, string][] = [
    ['2024-05-01T10:00:00.123Z', '2024-05-01T10:00:00.123Z'],
    ['2024-05-01T10:00:00.123456789Z', '2024-05-01T10:00:00.123Z'],
    ['2024-05-01T12:00:00.5+02:00', '2024-05-01T10:00:00.500Z'],
    ['2024-05-01T10:00:00', '2024-05-01T10:00:00.000Z'],
    ['1969-12-31T23:59:59.999Z', '1969-12-31T23:59:59.999Z'],
  ]
  for (const [index, [given, stored]] of forms.entries()) {
    const times = { timestampModification: given, timestampCreation: given }
    const { json } = await uploadClassic(ann, room, `f${index}`, Buffer.from('x'), {}, times)
    expect([json.timestampModification, json.timestampCreation]).toEqual([stored, stored])
    const node = (await ann.call('GET', `/v4/nodes/${json.id}`)).json
    expect(node.timestampModification).toBe(stored)
  }
  const bad = await ann.call('POST', '/v4/nodes/files/uploads', {
    parentId: room,
    name: 'x',
    timestampModification: 'yesterday',
  })
  expect(bad.status).toBe(400)
  const id = (await ann.call('GET', `/v4/nodes?parent_id=${room}`)).json.items[0].id
  const changed = await ann.call('PUT', `/v4/nodes/files/${id}`, { timestampModification: '2020-01-01T00:00:00.001Z' })
  expect(changed.json).toMatchObject({
    timestampModification: '2020-01-01T00:00:00.001Z',
    timestampCreation: '2024-05-01T10:00:00.123Z',
  })
})
