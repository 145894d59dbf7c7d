/**
 * Download shares: who makes and sees them, what visitors get, how downloads count, and what must not be learnt or done by a
 * link.
 * @module
 */
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { get } from 'node:http'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { checkStore } from '../../src/server/check.ts'
import { fakeClock } from '../support/clock.ts'
import { startOwn } from '../support/object-stores.ts'
import { putFile, share, shareKeys, visitor } from './shares.ts'
import {
  type Answer,
  addKeyPair,
  addMember,
  ask,
  fileKeyBody,
  freshDir,
  type Json,
  makeRoom,
  READ_ONLY,
  settled,
  signUp,
  startWorld,
  uploadDirect,
} from './support.ts'

const said = ({ status, json }: Answer): Json => [status, json?.errorCode]
/** All of an answer but when it was sent. */
const seen = ({ status, headers: { date: _date, ...headers }, body }: Answer): Json => ({
  status,
  headers,
  body: body.toString(),
})

test('a link to a plain file: made, seen, fetched by anybody, changed and revoked', async () => {
  const world = await startWorld()
  const [ann, bob] = [await signUp(world, 'ann'), await signUp(world, 'bob')]
  const room = await makeRoom(ann, 'Room')
  await addMember(ann, room, bob.id)
  const bytes = randomBytes(100_000)
  const file = await putFile(ann, room, "a 'file' (é).txt", bytes)
  const made = await share(ann, file, { notes: 'for you', internalNotes: 'for us', notifyCreator: true })
  expect(made).toMatchObject({
    name: "a 'file' (é).txt",
    nodeId: file,
    nodePath: "/Room/a 'file' (é).txt",
    nodeType: 'file',
    cntDownloads: 0,
    isProtected: false,
    isEncrypted: false,
    notifyCreator: true,
    notes: 'for you',
    internalNotes: 'for us',
    dataUrl: `${world.server.url}/public/download-shares/${made.accessKey}`,
    createdBy: { id: ann.id },
  })
  expect(made.accessKey).toMatch(/^[A-Za-z0-9]{32}$/)
  expect((await ann.call('GET', `/v4/nodes/${file}`)).json).toMatchObject({ cntDownloadShares: 1, cntUploadShares: 0 })
  expect((await bob.call('GET', `/v4/nodes?parent_id=${room}`)).json.items[0].cntDownloadShares).toBe(1)

  const anybody = visitor(world)
  const info = (await anybody.info(made.accessKey)).json
  expect(info).toEqual({
    isProtected: false,
    fileName: "a 'file' (é).txt",
    name: "a 'file' (é).txt",
    size: bytes.length,
    limitReached: false,
    creatorName: '',
    createdAt: made.createdAt,
    hasDownloadLimit: false,
    mediaType: 'application/octet-stream',
    isEncrypted: false,
    notes: 'for you',
  })
  const url = await anybody.url(made.accessKey)
  const head = await ask(`${url}?inline=true`, { method: 'HEAD' })
  expect(head.status).toBe(200)
  expect(head.headers).toMatchObject({
    'content-length': '100000',
    'content-type': 'application/octet-stream',
    'x-content-type-options': 'nosniff',
    'content-disposition': `attachment; filename="a 'file' (_).txt"; filename*=UTF-8''a%20%27file%27%20%28%C3%A9%29.txt`,
  })
  expect((await ann.call('GET', `/v4/shares/downloads/${made.id}`)).json.cntDownloads).toBe(0)
  expect((await ask(url)).body.equals(bytes)).toBe(true)
  const part = await ask(url, { headers: { range: 'bytes=10-19' } })
  expect([part.status, part.headers['content-range']]).toEqual([206, 'bytes 10-19/100000'])
  expect(part.body.equals(bytes.subarray(10, 20))).toBe(true)
  expect((await ask(url, { headers: { range: 'bytes=100000-' } })).status).toBe(416)
  // All of that was one download.
  expect((await ann.call('GET', `/v4/shares/downloads/${made.id}`)).json.cntDownloads).toBe(1)

  // Rights: members without the right see neither list nor share; strangers not even that there is one.
  const eve = await signUp(world, 'eve')
  const path = `/v4/shares/downloads/${made.id}`
  for (const method of ['GET', 'DELETE']) {
    expect(said(await bob.call(method, path))).toEqual([403, undefined])
    expect(said(await eve.call(method, path))).toEqual([404, -60000])
  }
  expect(said(await bob.call('PUT', path, { name: 'x' }))).toEqual([403, undefined])
  expect((await bob.call('GET', '/v4/shares/downloads')).json.items).toEqual([])
  expect(said(await bob.call('POST', '/v4/shares/downloads', { nodeId: file }))).toEqual([403, undefined])
  expect(said(await eve.call('POST', '/v4/shares/downloads', { nodeId: file }))).toEqual([404, -41000])
  expect((await ask(`${world.api}/v4/shares/downloads`)).status).toBe(401)

  const changed = await ann.call('PUT', path, {
    name: 'New name',
    notes: '',
    maxDownloads: 5,
    showCreatorName: true,
    expiration: { enableExpiration: true, expireAt: '2100-01-01T00:00:00Z' },
  })
  expect(changed.json).toMatchObject({ name: 'New name', maxDownloads: 5, expireAt: '2100-01-01T00:00:00.000Z' })
  expect(changed.json.notes).toBeUndefined()
  expect((await anybody.info(made.accessKey)).json).toMatchObject({
    name: 'New name',
    fileName: "a 'file' (é).txt",
    creatorName: 'ann',
    hasDownloadLimit: true,
    expireAt: '2100-01-01T00:00:00.000Z',
  })
  expect((await ann.call('PUT', path, { resetMaxDownloads: true })).json.maxDownloads).toBeUndefined()
  const events = (await ann.call('GET', `/v4/nodes/rooms/${room}/events`)).json.items
  expect(events.map((event: Json) => event.operationName)).toContain('downloadshare.create')
  expect((await ann.call('DELETE', path)).status).toBe(204)
  expect(said(await anybody.info(made.accessKey))).toEqual([404, -50000])
  expect(said(await ask(url))).toEqual([404, -50000])
  expect((await ann.call('GET', `/v4/nodes/${file}`)).json.cntDownloadShares).toBe(0)
})

test('lists of shares: filters, sorting, pages, many at once', async () => {
  const world = await startWorld()
  const [ann, bob] = [await signUp(world, 'ann'), await signUp(world, 'bob')]
  const [one, two] = [await makeRoom(ann, 'One'), await makeRoom(ann, 'Two')]
  const [a, b] = [await putFile(ann, one, 'a'), await putFile(ann, two, 'b')]
  await addMember(ann, two, bob.id, { ...READ_ONLY, manageDownloadShare: true })
  const ids: number[] = []
  for (const [node, name] of [
    [a, 'Zebra'],
    [a, 'apple'],
    [b, 'Mango'],
  ] as const) {
    ids.push((await share(ann, node, { name })).id)
  }
  const names = async (query = '', person = ann): Promise<string[]> => {
    const reply = await person.call('GET', `/v4/shares/downloads?${query}`)
    expect(reply.status, reply.body.toString()).toBe(200)
    return reply.json.items.map((item: Json) => item.name)
  }
  expect(await names()).toEqual(['apple', 'Mango', 'Zebra'])
  expect(await names('sort=name:desc')).toEqual(['Zebra', 'Mango', 'apple'])
  expect(await names('sort=createdBy:asc|createdAt:asc')).toEqual(['Zebra', 'apple', 'Mango'])
  expect(await names('offset=1&limit=1')).toEqual(['Mango'])
  expect((await ann.call('GET', '/v4/shares/downloads?offset=1&limit=1')).json.range).toEqual({
    offset: 1,
    limit: 1,
    total: 3,
  })
  expect(await names(`filter=nodeId:eq:${a}`)).toEqual(['apple', 'Zebra'])
  expect(await names('filter=name:cn:A')).toEqual(['apple', 'Mango', 'Zebra'])
  expect(await names(`filter=name:cn:n|createdById:eq:${ann.id}|createdAt:ge:2020-01-01`)).toEqual(['Mango'])
  expect(await names('filter=createdBy:eq:bob')).toEqual([])
  expect(await names('', bob)).toEqual(['Mango'])
  for (const bad of [
    'filter=what:eq:1',
    'filter=name:xx:1',
    'sort=what:asc',
    'filter=createdAt:ge:never',
    'limit=-1',
  ]) {
    expect((await ann.call('GET', `/v4/shares/downloads?${bad}`)).status).toBe(400)
  }
  const bulk = { objectIds: ids, maxDownloads: 3 }
  expect(said(await bob.call('PUT', '/v4/shares/downloads', bulk))).toEqual([404, -60000])
  // All or nothing.
  expect((await ann.call('GET', `/v4/shares/downloads/${ids[2]}`)).json.maxDownloads).toBeUndefined()
  expect((await ann.call('PUT', '/v4/shares/downloads', bulk)).status).toBe(200)
  expect((await ann.call('GET', `/v4/shares/downloads/${ids[2]}`)).json.maxDownloads).toBe(3)
  const many = Array.from({ length: 201 }, (_, index) => index + 1)
  expect(said(await ann.call('PUT', '/v4/shares/downloads', { objectIds: many }))).toEqual([400, -80063])
  expect(said(await ann.call('DELETE', '/v4/shares/downloads', { shareIds: [...ids, 999] }))).toEqual([404, -60000])
  expect(await names()).toHaveLength(3)
  expect((await ann.call('DELETE', '/v4/shares/downloads', { shareIds: ids })).status).toBe(204)
  expect(await names()).toEqual([])
})

test('bad input is refused before anything is made', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'Room')
  const file = await putFile(ann, room, 'f')
  const cases: [Json, number, number | undefined][] = [
    [{}, 400, -80000],
    [{ nodeId: 999 }, 404, -41000],
    [{ nodeId: -1 }, 400, -80001],
    [{ nodeId: 1.5 }, 400, -80002],
    [{ nodeId: file, maxDownloads: 0 }, 400, -80001],
    [{ nodeId: file, maxDownloads: -3 }, 400, -80001],
    [{ nodeId: file, maxDownloads: 1e300 }, 400, -80002],
    [{ nodeId: file, maxDownloads: 2 ** 31 }, 400, -80002],
    [{ nodeId: file, name: 'x'.repeat(151) }, 400, -80007],
    [{ nodeId: file, notes: 'x'.repeat(256) }, 400, -80007],
    [{ nodeId: file, password: '' }, 400, -10002],
    [{ nodeId: file, password: 'x'.repeat(1025) }, 400, -80007],
    [{ nodeId: file, password: "it's" }, 400, -80023],
    [{ nodeId: file, password: 7 }, 400, -80000],
    [{ nodeId: file, expiration: { enableExpiration: true, expireAt: '2001-01-01T00:00:00Z' } }, 400, -80006],
    [{ nodeId: file, expiration: { enableExpiration: true } }, 400, -80006],
    [{ nodeId: file, ...shareKeys() }, 400, -50007],
    [{ nodeId: file, textMessageRecipients: ['+491234'] }, 400, -80030],
    [{ nodeId: file, sendMail: true, mailRecipients: 'a@example.org' }, 403, undefined],
    [{ nodeId: file, showCreatorName: 'yes' }, 400, -80005],
  ]
  for (const [body, status, code] of cases) {
    expect(said(await ann.call('POST', '/v4/shares/downloads', body)), JSON.stringify(body)).toEqual([status, code])
  }
  expect((await ann.call('GET', '/v4/shares/downloads')).json.items).toEqual([])
  const made = await share(ann, file, { password: 'secret' })
  const mail = (body: Json) => ann.call('POST', `/v4/shares/downloads/${made.id}/email`, body)
  expect(said(await mail({ recipients: [], body: 'x' }))).toEqual([400, -80000])
  expect(said(await mail({ recipients: ['nobody'], body: 'x' }))).toEqual([400, -80009])
  const refused = await mail({ recipients: ['a@example.org'], body: 'x' })
  expect(refused.status).toBe(403)
  expect(refused.body.toString()).not.toContain('secret')
})

test('encrypted files: keys that fit, no password for the server, nothing without a link', async () => {
  const world = await startWorld()
  const [ann, bob] = [await signUp(world, 'ann'), await signUp(world, 'bob')]
  const room = await makeRoom(ann, 'Enc', true)
  const file = await putFile(ann, room, 'f', 'ciphertext', { fileKey: fileKeyBody() })
  const keys = shareKeys()
  const post = async (body: Json, person = ann): Promise<Json> =>
    said(await person.call('POST', '/v4/shares/downloads', { nodeId: file, ...body }))
  expect(await post({ ...keys, password: 'x' })).toEqual([400, -50003])
  expect(await post({ ...keys, nodeId: room })).toEqual([400, -50004])
  expect(await post({ keyPair: keys.keyPair })).toEqual([400, -50005])
  expect(await post({ fileKey: keys.fileKey })).toEqual([400, -50006])
  expect(await post({})).toEqual([400, -50006])
  expect(await post({ ...keys, fileKey: fileKeyBody('A') })).toEqual([400, -80062])
  expect(await post({ ...keys, fileKey: { ...keys.fileKey, key: 'short' } })).toEqual([400, -80062])
  const swapped = { ...keys.fileKey, tag: randomBytes(16).toString('base64') }
  expect(await post({ ...keys, fileKey: swapped })).toEqual([400, -80062])
  const open = structuredClone(keys.keyPair)
  open.privateKeyContainer.privateKey = open.privateKeyContainer.privateKey.replaceAll('ENCRYPTED ', '')
  expect(await post({ ...keys, keyPair: open })).toEqual([400, -70023])
  await addMember(ann, room, bob.id, { ...READ_ONLY, manageDownloadShare: true })
  expect(await post(keys, bob)).toEqual([403, -70020])
  await addKeyPair(bob)
  expect(await post(keys, bob)).toEqual([403, -40761])

  const made = await share(ann, file, { ...keys, maxDownloads: 1 })
  expect(made).toMatchObject({ isEncrypted: true, isProtected: false })
  const anybody = visitor(world)
  const info = (await anybody.info(made.accessKey)).json
  expect(info).toMatchObject({ isEncrypted: true, isProtected: false, fileKey: keys.fileKey })
  expect(info.privateKeyContainer).toMatchObject(keys.keyPair.privateKeyContainer)
  expect(said(await anybody.call('POST', `downloads/${made.accessKey}`, { password: 'x' }))).toEqual([400, -50008])
  expect(said(await ann.call('PUT', `/v4/shares/downloads/${made.id}`, { password: 'x' }))).toEqual([400, -50003])
  expect((await ask(await anybody.url(made.accessKey))).body.toString()).toBe('ciphertext')
  // Used up: the key material is not handed out any more.
  const after = (await anybody.info(made.accessKey)).json
  expect(after.limitReached).toBe(true)
  expect([after.fileKey, after.privateKeyContainer]).toEqual([undefined, undefined])
  expect(said(await anybody.call('POST', `downloads/${made.accessKey}`))).toEqual([404, -50002])
  // The share is nobody's member: its file key is not listed, and goes with it.
  expect((await ann.call('GET', '/v4/nodes/missingFileKeys')).json.items).toEqual([{ userId: bob.id, fileId: file }])
  expect((await ann.call('DELETE', `/v4/shares/downloads/${made.id}`)).status).toBe(204)
  await world.server.close()
  expect((await checkStore(world.dir)).problems).toEqual([])
})

test('downloads count once for each token, and never more than allowed, however many come at once', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'Room')
  const file = await putFile(ann, room, 'f', 'content')
  const made = await share(ann, file, { maxDownloads: 3 })
  const anybody = visitor(world)
  const urls = await Promise.all(Array.from({ length: 12 }, () => anybody.url(made.accessKey)))
  const replies = await Promise.all(urls.flatMap((url) => [ask(url), ask(url, { headers: { range: 'bytes=0-1' } })]))
  const used = urls.filter((_, index) => (replies[2 * index]?.status ?? 0) === 200)
  expect(used).toHaveLength(3)
  for (const [index, reply] of replies.entries()) {
    const isUsed = used.includes(urls[index >> 1] ?? '')
    expect(reply.status, reply.body.toString()).toBe(isUsed ? (index % 2 === 0 ? 200 : 206) : 404)
    if (!isUsed) expect(reply.json.errorCode).toBe(-50002)
  }
  expect((await ann.call('GET', `/v4/shares/downloads/${made.id}`)).json.cntDownloads).toBe(3)
  expect((await anybody.info(made.accessKey)).json.limitReached).toBe(true)
  expect(said(await anybody.call('POST', `downloads/${made.accessKey}`))).toEqual([404, -50002])
  // Who has begun may go on, also after a restart.
  const url = new URL(used[0] ?? '')
  await world.server.close()
  const again = await startWorld({ data: world.dir })
  const rest = await ask(`${again.server.url}${url.pathname}`, { headers: { range: 'bytes=3-' } })
  expect([rest.status, rest.body.toString()]).toEqual([206, 'tent'])
  const unused = new URL(urls.find((one) => !used.includes(one)) ?? '')
  expect(said(await ask(`${again.server.url}${unused.pathname}`))).toEqual([404, -50002])
})

test('tokens are for one share, one content and some time', async () => {
  const clock = fakeClock()
  const world = await startWorld({ clock, urlLifetimeS: 60 })
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'Room')
  const file = await putFile(ann, room, 'f', 'old')
  const [one, two] = [await share(ann, file), await share(ann, file)]
  const anybody = visitor(world)
  const url = await anybody.url(one.accessKey)
  const token = url.split('/').at(-1) ?? ''
  const fetchBy = (key: string, text: string) => anybody.call('GET', `downloads/${key}/${text}`)
  expect(said(await fetchBy(two.accessKey, token))).toEqual([404, -50001])
  for (const bad of ['x', `${token}0`, token.slice(0, -1), `${'0'.repeat(32)}${token.slice(32)}`, '--', 'a-b-c']) {
    expect(said(await fetchBy(one.accessKey, bad)), bad).toEqual([404, -50001])
  }
  // A new version with the links kept: a token for the old one ends, rather than giving pieces of both.
  await putFile(ann, room, 'f', 'new', { resolutionStrategy: 'overwrite', keepShareLinks: true })
  expect(said(await ask(url))).toEqual([404, -50001])
  const fresh = await anybody.url(one.accessKey)
  expect((await ask(fresh)).body.toString()).toBe('new')
  // So does a change of the password.
  await ann.call('PUT', `/v4/shares/downloads/${one.id}`, { password: 'pässword' })
  expect(said(await ask(fresh))).toEqual([404, -50001])
  const last = await anybody.url(one.accessKey, 'pässword')
  expect((await ask(last)).status).toBe(200)
  clock.advance(61_000)
  expect(said(await ask(last))).toEqual([404, -50001])
})

test('a link that has run out, was revoked, never was or cannot be: one answer', async () => {
  const clock = fakeClock()
  const world = await startWorld({ clock })
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'Room')
  const file = await putFile(ann, room, 'f')
  const soon = new Date(clock.now() + 60_000).toISOString()
  const expired = await share(ann, file, { expiration: { enableExpiration: true, expireAt: soon }, password: 'secret' })
  const anybody = visitor(world)
  const url = await anybody.url(expired.accessKey, 'secret')
  expect((await ask(url)).status).toBe(200)
  const revoked = await share(ann, file)
  await ann.call('DELETE', `/v4/shares/downloads/${revoked.id}`)
  const binned = await putFile(ann, room, 'binned')
  const gone = await share(ann, binned)
  await ann.call('DELETE', `/v4/nodes/${binned}`)
  const request = (await ann.call('POST', '/v4/shares/uploads', { targetId: room })).json
  clock.advance(61_000)
  const unknown = 'A'.repeat(32)
  const keys = [expired, revoked, gone, request].map(({ accessKey }) => accessKey)
  keys.push('x', '%00', '%F0%9F%98%80', 'a'.repeat(5000), unknown.toLowerCase(), `${expired.accessKey}x`)
  for (const [method, more, body] of [
    ['GET', '', undefined],
    ['HEAD', '', undefined],
    ['POST', '', undefined],
    ['POST', '', { password: 'secret' }],
    ['GET', '/token', undefined],
    ['GET', `/${url.split('/').at(-1)}`, undefined],
  ] as const) {
    const wanted = seen(await anybody.call(method, `downloads/${unknown}${more}`, body))
    expect(wanted.status).toBe(404)
    for (const key of keys)
      expect(seen(await anybody.call(method, `downloads/${key}${more}`, body)), key).toEqual(wanted)
  }
  // Its owners still see it, and may let it live again.
  const longer = { expiration: { enableExpiration: false } }
  expect((await ann.call('PUT', `/v4/shares/downloads/${expired.id}`, longer)).status).toBe(200)
  expect((await anybody.info(expired.accessKey)).status).toBe(200)
})

test('passwords: kept as a slow hash, tried a few times only, also all at once and with the right one among them', async () => {
  const clock = fakeClock()
  const world = await startWorld({ clock })
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'Room')
  const file = await putFile(ann, room, 'f', 'content')
  const made = await share(ann, file, { password: 'a very good one' })
  expect(made.isProtected).toBe(true)
  expect(JSON.stringify(made)).not.toContain('a very good one')
  const anybody = visitor(world)
  const attempt = (password?: string) =>
    anybody.call('POST', `downloads/${made.accessKey}`, password === undefined ? undefined : { password })
  expect(said(await attempt())).toEqual([401, -50009])
  expect(said(await attempt(''))).toEqual([401, -50009])
  const url = await anybody.url(made.accessKey, 'a very good one')
  expect((await ask(url)).body.toString()).toBe('content')
  const tries = await Promise.all(Array.from({ length: 20 }, (_, index) => attempt(`wrong ${index}`)))
  const codes = tries.map(({ json }) => json.errorCode)
  expect(codes.filter((code) => code === -50009)).toHaveLength(5)
  expect(codes.filter((code) => code === -51000)).toHaveLength(15)
  const locked = tries.find(({ status }) => status === 403)
  expect(Number(locked?.headers['retry-after'])).toBeGreaterThan(0)
  // Locked is locked: no fast way tells the right one.
  expect(said(await attempt('a very good one'))).toEqual([403, -51000])
  // Others are not: another share, and logins of the account.
  const other = await share(ann, file, { password: 'other' })
  await anybody.url(other.accessKey, 'other')
  // Who has a token goes on.
  expect((await ask(url)).status).toBe(200)
  clock.advance(60_001)
  await anybody.url(made.accessKey, 'a very good one')
  await ann.call('PUT', `/v4/shares/downloads/${made.id}`, { password: 'another' })
  expect(said(await attempt('a very good one'))).toEqual([401, -50009])
  await anybody.url(made.accessKey, 'another')
  expect((await ann.call('PUT', `/v4/shares/downloads/${made.id}`, { resetPassword: true })).json.isProtected).toBe(
    false,
  )
  await anybody.url(made.accessKey)
})

test('one address gets no further by trying many shares', async () => {
  const clock = fakeClock()
  const world = await startWorld({ clock })
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'Room')
  const file = await putFile(ann, room, 'f')
  const made = []
  for (let index = 0; index < 8; index++) made.push(await share(ann, file, { password: 'secret' }))
  const anybody = visitor(world)
  const codes: Json[] = []
  for (const { accessKey } of made) {
    for (let index = 0; index < 4; index++) {
      codes.push((await anybody.call('POST', `downloads/${accessKey}`, { password: 'x' })).json.errorCode)
    }
  }
  expect(codes.filter((code) => code === -50009)).toHaveLength(30)
})

/** Reads a body until `until` bytes are there; answers what came until it ended, and whether that was its end. */
function slowly(url: string, until: number, then: () => Promise<void>): Promise<{ size: number; complete: boolean }> {
  return new Promise((resolve, reject) => {
    const req = get(url, { agent: false }, (res) => {
      let size = 0
      let isReached = false
      res.on('data', (chunk: Buffer) => {
        size += chunk.length
        if (isReached || size < until) return
        isReached = true
        res.pause()
        then().then(() => res.resume(), reject)
      })
      res.on('close', () => resolve({ size, complete: res.complete }))
      res.on('error', () => undefined)
    })
    req.on('error', reject)
  })
}

test('what is revoked, run out or replaced in mid-download stops', async () => {
  const clock = fakeClock()
  const errors: unknown[] = []
  const world = await startWorld({ clock, onError: (error) => errors.push(error) })
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'Room')
  const size = 64 * 1024 * 1024
  const file = await putFile(ann, room, 'big', Buffer.alloc(size))
  const soon = { enableExpiration: true, expireAt: new Date(clock.now() + 60_000).toISOString() }
  const [revoked, expired, whole, replaced] = [
    await share(ann, file),
    await share(ann, file, { expiration: soon }),
    await share(ann, file),
    await share(ann, file),
  ]
  const anybody = visitor(world)
  const cut = async (key: string, then: () => Promise<unknown>) => {
    const seen = await slowly(await anybody.url(key), 100_000, async () => void (await then()))
    return seen.complete || seen.size >= size
  }
  expect(await cut(revoked.accessKey, () => ann.call('DELETE', `/v4/shares/downloads/${revoked.id}`))).toBe(false)
  expect(await cut(whole.accessKey, async () => undefined)).toBe(true)
  expect(await cut(expired.accessKey, async () => clock.advance(61_000))).toBe(false)
  const overwrite = { resolutionStrategy: 'overwrite', keepShareLinks: true }
  expect(await cut(replaced.accessKey, () => putFile(ann, room, 'big', 'small', overwrite))).toBe(false)
  expect(errors).toEqual([])
})

test('links follow a file when they should, and end with it when not', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const [room, other] = [await makeRoom(ann, 'Room'), await makeRoom(ann, 'Other')]
  const folder = (await ann.call('POST', '/v4/nodes/folders', { parentId: room, name: 'Folder' })).json.id
  const anybody = visitor(world)
  const text = async (key: string): Promise<string> => {
    const reply = await anybody.call('POST', `downloads/${key}`)
    return reply.status === 201 ? (await ask(reply.json.downloadUrl)).body.toString() : String(reply.json.errorCode)
  }
  const counts = async (id: number): Promise<number> =>
    (await ann.call('GET', `/v4/nodes/${id}`)).json.cntDownloadShares
  const overwrite = { resolutionStrategy: 'overwrite', keepShareLinks: true }

  // Moved with its folder into another room: still there.
  const moving = await putFile(ann, folder, 'moving', 'moved')
  const moved = await share(ann, moving)
  await ann.call('POST', `/v4/nodes/${other}/move_to`, { items: [{ id: folder }] })
  expect(await text(moved.accessKey)).toBe('moved')
  expect((await ann.call('GET', `/v4/shares/downloads/${moved.id}`)).json.nodePath).toBe('/Other/Folder/moving')

  // Overwritten: kept only if that is asked for, by each way of overwriting.
  const first = await putFile(ann, room, 'f', 'one')
  const kept = await share(ann, first)
  const second = await putFile(ann, room, 'f', 'two', overwrite)
  expect(await text(kept.accessKey)).toBe('two')
  expect(await counts(second)).toBe(1)
  const source = await putFile(ann, other, 'f', 'three')
  expect((await ann.call('POST', `/v4/nodes/${room}/copy_to`, { items: [{ id: source }], ...overwrite })).status).toBe(
    201,
  )
  expect(await text(kept.accessKey)).toBe('three')
  expect(await counts(source)).toBe(0)
  const own = await share(ann, source)
  expect((await ann.call('POST', `/v4/nodes/${room}/move_to`, { items: [{ id: source }], ...overwrite })).status).toBe(
    200,
  )
  expect([await text(kept.accessKey), await text(own.accessKey), await counts(source)]).toEqual(['three', 'three', 2])
  const restore = { deletedNodeIds: [first], ...overwrite }
  expect((await ann.call('POST', '/v4/nodes/deleted_nodes/actions/restore', restore)).status).toBe(204)
  expect([await text(kept.accessKey), await text(own.accessKey), await counts(first)]).toEqual(['one', 'one', 2])
  const without = { resolutionStrategy: 'overwrite', keepShareLinks: false }
  const last = await putFile(ann, room, 'f', 'four', without)
  expect([await text(kept.accessKey), await text(own.accessKey), await counts(last)]).toEqual(['-50000', '-50000', 0])
  // What comes back from the bin has no links.
  await ann.call('POST', '/v4/nodes/deleted_nodes/actions/restore', {
    deletedNodeIds: [first],
    resolutionStrategy: 'autorename',
  })
  expect([await text(kept.accessKey), await counts(first)]).toEqual(['-50000', 0])
  // A folder takes the links of what is in it along, and those alone.
  const beside = await share(ann, last)
  await ann.call('DELETE', `/v4/nodes/${folder}`)
  expect([await text(moved.accessKey), await text(beside.accessKey)]).toEqual(['-50000', 'four'])
  const copy = await ann.call('POST', `/v4/nodes/${other}/copy_to`, { items: [{ id: last }] })
  expect(copy.status).toBe(201)
  // So does a room.
  await ann.call('DELETE', `/v4/nodes/${room}`)
  expect(await text(beside.accessKey)).toBe('-50000')
  expect((await ann.call('GET', '/v4/shares/downloads')).json.items).toEqual([])
  await world.server.close()
  expect((await checkStore(world.dir)).problems).toEqual([])
})

test('rooms with shares cannot be encrypted', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'Room')
  await addKeyPair(ann)
  const made = await share(ann, room)
  expect(said(await ann.call('PUT', `/v4/nodes/rooms/${room}/encrypt`, { isEncrypted: true }))).toEqual([400, -40023])
  await ann.call('DELETE', `/v4/shares/downloads/${made.id}`)
  expect((await ann.call('PUT', `/v4/nodes/rooms/${room}/encrypt`, { isEncrypted: true })).status).toBe(200)
})

test('a kept link to an encrypted file gives nothing away until the new key is there', async () => {
  const world = await startWorld()
  const [ann, bob] = [await signUp(world, 'ann'), await signUp(world, 'bob')]
  const room = await makeRoom(ann, 'Enc', true)
  const keyOf = () => ({
    ...fileKeyBody(),
    iv: randomBytes(12).toString('base64'),
    tag: randomBytes(16).toString('base64'),
  })
  const oldKey = keyOf()
  const old = await putFile(ann, room, 'f', 'old', { fileKey: oldKey })
  const keys = shareKeys({ ...fileKeyBody(), iv: oldKey.iv, tag: oldKey.tag })
  const made = await share(ann, old, keys)
  const holder = 2 ** 51 + made.id
  const ask4 = (query: string, person = ann) =>
    person.call('GET', `/v4/nodes/missingFileKeys?${query}&user_id=${holder}`)
  // The public key is told to who asks for the share, and the share to nobody else.
  const before = (await ask4(`file_id=${old}`)).json
  expect(before.items).toEqual([])
  expect(before.users).toMatchObject([{ id: holder, publicKeyContainer: keys.keyPair.publicKeyContainer }])
  const newKey = keyOf()
  const overwrite = { resolutionStrategy: 'overwrite', keepShareLinks: true }
  const fresh = await putFile(ann, room, 'f', 'new', { fileKey: newKey, ...overwrite })
  const anybody = visitor(world)
  const info = (await anybody.info(made.accessKey)).json
  expect(info).toMatchObject({ isEncrypted: true, fileName: 'f', size: 3 })
  expect([info.fileKey, info.privateKeyContainer]).toEqual([undefined, undefined])
  expect(said(await anybody.call('POST', `downloads/${made.accessKey}`))).toEqual([404, -40761])
  expect((await ann.call('GET', '/v4/nodes/missingFileKeys')).json.items).toEqual([])
  const missing = (await ask4(`file_id=${fresh}`)).json
  expect(missing.items).toEqual([{ userId: holder, fileId: fresh }])
  expect(missing.files).toEqual([{ id: fresh, fileKeyContainer: newKey }])
  // Not by those who may not, and not with what does not fit.
  await addKeyPair(bob)
  await addMember(ann, room, bob.id)
  expect((await ask4('', bob)).status).toBe(403)
  const hand = async (fileKey: Json, fileId = fresh, person = ann): Promise<Json> =>
    said(await person.call('POST', '/v4/nodes/files/keys', { items: [{ userId: holder, fileId, fileKey }] }))
  expect(await hand(keyOf())).toEqual([400, -80062])
  const fitting = { ...fileKeyBody(), iv: newKey.iv, tag: newKey.tag }
  expect(await hand({ ...fitting, key: randomBytes(256).toString('base64'), version: 'A' })).toEqual([400, -80062])
  const elsewhere = await putFile(ann, room, 'other', 'other', { fileKey: newKey })
  expect(await hand(fitting, elsewhere)).toEqual([404, -70501])
  await ann.call('POST', '/v4/nodes/files/keys', { items: [{ userId: bob.id, fileId: fresh, fileKey: fitting }] })
  expect(await hand(fitting, fresh, bob)).toEqual([403, undefined])
  expect(await hand(fitting)).toEqual([204, undefined])
  expect((await anybody.info(made.accessKey)).json).toMatchObject({
    fileKey: fitting,
    privateKeyContainer: keys.keyPair.privateKeyContainer,
  })
  expect((await ask(await anybody.url(made.accessKey))).body.toString()).toBe('new')
  // With the key in the finishing request the link never stands without one.
  const third = keyOf()
  const forShare = { ...fileKeyBody(), iv: third.iv, tag: third.tag }
  const userFileKeyList = { items: [{ userId: holder, fileKey: forShare }] }
  await putFile(ann, room, 'f', 'third', { fileKey: third, ...overwrite, userFileKeyList })
  expect((await anybody.info(made.accessKey)).json.fileKey).toEqual(forShare)
  expect(said(await ask4('file_id=1'))).toEqual([200, undefined])
  // The old version comes back by way of the bin: its own key does, too, since it is the very same content.
  const restore = { deletedNodeIds: [old], ...overwrite }
  expect((await ann.call('POST', '/v4/nodes/deleted_nodes/actions/restore', restore)).status).toBe(204)
  expect((await anybody.info(made.accessKey)).json.fileKey).toEqual(keys.fileKey)
  // Other members' keys must belong to the content, too.
  const wrong = { userFileKeyList: { items: [{ userId: bob.id, fileKey: keyOf() }] } }
  await expect(putFile(ann, room, 'g', 'g', { fileKey: third, ...wrong })).rejects.toThrow('-80062')
  await world.server.close()
  expect((await checkStore(world.dir)).problems).toEqual([])
})

const hasUnzip = (() => {
  try {
    execFileSync('python3', ['-c', 'import zipfile'])
    return true
  } catch {
    return false
  }
})()

/** Names and contents in an archive, read by another implementation. */
function unzip(path: string): Record<string, string> {
  const script =
    'import json, sys, zipfile\nz = zipfile.ZipFile(sys.argv[1])\nassert z.testzip() is None\nprint(json.dumps({i.filename: z.read(i).decode("latin-1") for i in z.infolist()}))'
  return JSON.parse(execFileSync('python3', ['-c', script, path], { encoding: 'utf8', maxBuffer: 1e8 }))
}

test.skipIf(!hasUnzip)('folders and rooms come as an archive, without rooms in them', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'Räume')
  const make = async (parentId: number, name: string): Promise<number> =>
    (await ann.call('POST', '/v4/nodes/folders', { parentId, name })).json.id
  const folder = await make(room, 'Folder')
  await make(folder, 'empty')
  const deep = await make(folder, 'deep')
  const big = randomBytes(300_000)
  await putFile(ann, room, 'a.txt', 'first')
  await putFile(ann, deep, 'b ü.bin', big)
  await putFile(ann, folder, 'nothing', '')
  const inner = await ann.call('POST', '/v4/nodes/rooms', { name: 'Inner', parentId: room, adminIds: [ann.id] })
  await putFile(ann, inner.json.id, 'secret', 'secret')
  const made = await share(ann, room, { maxDownloads: 1 })
  const anybody = visitor(world)
  expect((await anybody.info(made.accessKey)).json).toMatchObject({
    fileName: 'Räume',
    mediaType: 'application/zip',
    isEncrypted: false,
  })
  const url = await anybody.url(made.accessKey)
  expect(said(await ask(url, { headers: { range: 'bytes=0-9' } }))).toEqual([400, -80022])
  const head = await ask(url, { method: 'HEAD' })
  expect(head.headers['content-disposition']).toBe(`attachment; filename="R_ume.zip"; filename*=UTF-8''R%C3%A4ume.zip`)
  const reply = await ask(url)
  expect([reply.status, reply.headers['content-type']]).toEqual([200, 'application/zip'])
  const path = join(await freshDir(), 'a.zip')
  writeFileSync(path, reply.body)
  expect(unzip(path)).toEqual({
    'Räume/a.txt': 'first',
    'Räume/Folder/': '',
    'Räume/Folder/deep/': '',
    'Räume/Folder/deep/b ü.bin': big.toString('latin1'),
    'Räume/Folder/empty/': '',
    'Räume/Folder/nothing': '',
  })
  // The same download once more is no other one.
  expect((await ask(url)).status).toBe(200)
  expect(said(await anybody.call('POST', `downloads/${made.accessKey}`))).toEqual([404, -50002])
})

test('what is taken out of an archive while it is made breaks it off, rather than leaving it out', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'Room')
  await putFile(ann, room, 'a', Buffer.alloc(16 * 1024 * 1024))
  const made = await share(ann, room)
  const url = await visitor(world).url(made.accessKey)
  const { complete } = await slowly(url, 100_000, async () => {
    await ann.call('DELETE', `/v4/shares/downloads/${made.id}`)
  })
  expect(complete).toBe(false)
})

test('pages of other origins may use links, and nothing else', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'Room')
  const made = await share(ann, await putFile(ann, room, 'f'))
  const headers = { origin: 'https://elsewhere.example' }
  const allowed = async (url: string, method = 'GET'): Promise<Json> =>
    (await ask(url, { method, headers })).headers['access-control-allow-origin']
  const base = `${world.api}/v4/public/shares`
  for (const url of [`${base}/downloads/${made.accessKey}`, `${base}/uploads/nothing`, `${world.server.url}/s3/x/1`]) {
    expect(await allowed(url)).toBe('*')
    const preflight = await ask(url, { method: 'OPTIONS', headers })
    expect(preflight.status).toBe(204)
    expect(preflight.headers['access-control-allow-methods']).toContain('PUT')
    expect(preflight.headers['access-control-allow-headers']).toContain('X-Sds-Share-Password')
    expect(preflight.headers['access-control-allow-credentials']).toBeUndefined()
  }
  const url = await visitor(world).url(made.accessKey)
  expect((await ask(url, { headers })).headers['access-control-expose-headers']).toContain('Content-Range')
  for (const path of ['/v4/nodes', '/v4/shares/downloads', '/v4/user/account']) {
    expect(await allowed(`${world.api}${path}`)).toBeUndefined()
    expect((await ask(`${world.api}${path}`, { method: 'OPTIONS', headers })).status).toBe(405)
  }
})

test('content in an object store comes through the server, which counts it and can end it', async () => {
  const store = await startOwn()
  onTestFinished(() => store.stop())
  const world = await startWorld({ s3: store.options })
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'Room')
  const bytes = randomBytes(70_000)
  const { reply, uploadId } = await uploadDirect(ann, room, 'f', [bytes])
  expect(reply.status).toBe(202)
  const { node } = await settled(ann, uploadId)
  const made = await share(ann, node.id, { maxDownloads: 1 })
  const anybody = visitor(world)
  const url = await anybody.url(made.accessKey)
  expect(url.startsWith(`${world.server.url}/api/`)).toBe(true)
  expect((await ask(url, { method: 'HEAD' })).headers['content-length']).toBe('70000')
  expect((await ask(url)).body.equals(bytes)).toBe(true)
  const part = await ask(url, { headers: { range: 'bytes=69990-' } })
  expect([part.status, part.body.equals(bytes.subarray(69_990))]).toEqual([206, true])
  expect(said(await anybody.call('POST', `downloads/${made.accessKey}`))).toEqual([404, -50002])
  // Visitors send to the store itself, and no other way.
  const box = (await ann.call('POST', '/v4/shares/uploads', { targetId: room })).json
  expect(said(await anybody.call('POST', `uploads/${box.accessKey}`, { name: 'x' }))).toEqual([400, -90033])
  const { uploadUrl } = await anybody.open(box.accessKey, 'sent', { size: 5, directS3Upload: true })
  const wanted = { size: 5, firstPartNumber: 1, lastPartNumber: 1 }
  const { url: partUrl } = (await ask(`${uploadUrl}/s3_urls`, { method: 'POST', json: wanted })).json.urls[0]
  expect(partUrl.startsWith(store.options.endpoint)).toBe(true)
  const sent = await ask(partUrl, { method: 'PUT', body: 'bytes' })
  const parts = [{ partNumber: 1, partEtag: String(sent.headers.etag).replaceAll('"', '') }]
  expect((await ask(`${uploadUrl}/s3`, { method: 'PUT', json: { parts } })).status).toBe(202)
  await expect.poll(async () => (await ask(uploadUrl)).json.status).toBe('done')
  await ann.call('DELETE', `/v4/shares/downloads/${made.id}`)
  expect(said(await ask(url))).toEqual([404, -50000])
})
