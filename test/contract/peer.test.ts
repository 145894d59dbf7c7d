/**
 * The embedded server and the built command line against a second, independent implementation of the protocol:
 * `peer_client.py`. Its habits are those of clients in the wild, and it notes every answer that would trip one of them.
 * @module
 */
import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { type Args, clean, cliOf, content, expectSame, type Json, passwordOf, test, title, world } from './peer.ts'

const MIB = 1024 * 1024
const KEY_PASSWORD = 'correct horse battery staple'

test(title('login sequence, ping, refresh with form credentials and an old bearer header, revoke'), async () => {
  const place = await world({ storage: 's3' })
  const ann = await place.enter('ann')
  expect((await ann.call('requests')).sort()).toEqual([
    'GET /api/v4/config/info/defaults',
    'GET /api/v4/config/info/general',
    'GET /api/v4/config/info/infrastructure',
    'GET /api/v4/public/system/info',
    'GET /api/v4/public/system/info/auth/ad',
    'GET /api/v4/public/system/info/auth/openid',
    'GET /api/v4/user/account',
    'POST /oauth/token',
  ])
  const login = { base: place.server.url, user: 'ann', password: passwordOf('ann') }
  const info = await ann.call('login', { ...login, basic: 'urlsafe' })
  expect(info.tokens).toMatchObject({
    access_token: expect.any(String),
    refresh_token: expect.any(String),
    token_type: expect.stringMatching(/^bearer$/i),
    scope: 'all',
    expires_in: expect.any(Number),
    expires_in_inactive: expect.any(Number),
  })
  expect(info.tokens.expires_in).toBeLessThan(86_400)
  expect(info.account).toMatchObject({
    id: ann.id,
    userName: 'ann',
    firstName: expect.any(String),
    lastName: expect.any(String),
    isLocked: false,
    hasManageableRooms: expect.any(Boolean),
    userRoles: { items: expect.any(Array) },
    language: expect.any(String),
    authData: { method: expect.any(String) },
    isEncryptionEnabled: false,
  })
  for (const role of info.account.userRoles.items) {
    expect(role).toMatchObject({ id: expect.any(Number), name: expect.any(String), description: expect.any(String) })
  }
  expect(info.system).toMatchObject({
    languageDefault: expect.any(String),
    hideLoginInputFields: expect.any(Boolean),
    s3Hosts: expect.any(Array),
    s3EnforceDirectUpload: expect.any(Boolean),
    useS3Storage: true,
  })
  expect(info.openid).toEqual({ items: [] })
  expect(info.ad).toEqual({ items: [] })
  expect(info.defaults).toEqual(expect.any(Object))
  expect(info.infrastructure).toEqual(expect.any(Object))
  for (const name of [
    'sharePasswordSmsEnabled',
    'cryptoEnabled',
    'emailNotificationButtonEnabled',
    'eulaEnabled',
    'weakPasswordEnabled',
    'useS3Storage',
    's3TagsEnabled',
    'homeRoomsActive',
  ]) {
    expect(info.general[name], name).toEqual(expect.any(Boolean))
  }
  expect((await ann.call('ping')).status).toBe(200)

  // Four redemptions of one refresh token in a row, and all access tokens stay good for a while.
  const { refresh_token } = info.tokens
  const tokens = [info.tokens.access_token]
  for (let n = 0; n < 4; n++) {
    const form = new URLSearchParams({
      grant_type: 'refresh_token',
      refresh_token,
      client_id: 'dracoon_legacy_scripting',
      client_secret: '',
    })
    const reply = await ann.raw('POST', '/oauth/token', {
      body: form.toString(),
      headers: { 'Content-Type': 'application/x-www-form-urlencoded' },
    })
    expect(reply.status, reply.text).toBe(200)
    tokens.push(reply.json.access_token)
  }
  for (const token of tokens) {
    const reply = await ann.raw('GET', '/v4/user/ping', { headers: { Authorization: `Bearer ${token}` } })
    expect(reply.status).toBe(200)
  }
  const { before, after } = await ann.call('refresh')
  expect(after.access_token).not.toBe(before.access_token)
  expect((await ann.call('ping')).status).toBe(200)
  expect(await ann.call('logout')).toEqual([200, 200])
  const late = await ann.call('ping')
  expect(late.status).toBe(401)
  const wrong = await ann.fail('login', { ...login, password: 'wrong' })
  expect(wrong).toMatchObject({ status: 400, json: { error: 'invalid_grant', error_description: expect.any(String) } })
  await clean(ann)
})

test(title('authorization code: page, redirect, callback, exchange by both kinds of credentials'), async () => {
  const place = await world()
  const ann = await place.enter('ann')
  const callback = `${place.server.url}/oauth/callback`
  // The redirect URI is not encoded, as a scripting client sends it.
  const query = `branding=full&response_type=code&client_id=dracoon_legacy_scripting&redirect_uri=${callback}&scope=all&state=s1`
  const code = async (): Promise<string> => {
    const page = await ann.raw('GET', `/oauth/authorize?${query}`, { authorised: false })
    expect(page.status, page.text).toBe(200)
    const fields = [...page.text.matchAll(/type="hidden" name="([^"]+)" value="([^"]*)"/g)].map(([, name, value]) => [
      name,
      value.replaceAll(/&#(\d+);/g, (_: string, code: string) => String.fromCharCode(Number(code))),
    ])
    const sent = await ann.raw('POST', '/oauth/authorize', {
      authorised: false,
      headers: { 'Content-Type': 'application/x-www-form-urlencoded' },
      body: new URLSearchParams([...fields, ['username', 'ann'], ['password', passwordOf('ann')]]).toString(),
    })
    expect([302, 303], sent.text).toContain(sent.status)
    const target = new URL(sent.headers.location)
    expect(target.origin + target.pathname).toBe(callback)
    expect(target.searchParams.get('state')).toBe('s1')
    const found = target.searchParams.get('code') ?? ''
    const shown = await ann.raw('GET', target.pathname + target.search, { authorised: false })
    expect(shown.status).toBe(200)
    expect(shown.text).toContain(found)
    return found
  }
  const exchange = (fields: Record<string, string>, headers: Record<string, string> = {}) =>
    ann.raw('POST', '/oauth/token', {
      authorised: false,
      headers: { 'Content-Type': 'application/x-www-form-urlencoded', ...headers },
      body: new URLSearchParams({ grant_type: 'authorization_code', ...fields }).toString(),
    })
  const inForm = { client_id: 'dracoon_legacy_scripting', client_secret: '' }
  const first = await code()
  const byForm = await exchange({ code: first, redirect_uri: callback, ...inForm })
  expect(byForm.status, byForm.text).toBe(200)
  expect(byForm.json).toMatchObject({ refresh_token: expect.any(String), expires_in: expect.any(Number) })
  const basic = { Authorization: `Basic ${Buffer.from('dracoon_legacy_scripting:').toString('base64')}` }
  const byBasic = await exchange({ code: await code() }, basic)
  expect(byBasic.status, byBasic.text).toBe(200)
  const again = await exchange({ code: first, redirect_uri: callback, ...inForm })
  expect(again).toMatchObject({ status: 400, json: { error: 'invalid_grant' } })
  await ann.call('findings') // the redirect after the form is meant to be one
})

for (const storage of ['s3', 'classic'] as const) {
  test(title(`uploads of 0 B, 12 kB and 70 MB, plain and encrypted, ${storage}; ranged downloads`), async () => {
    const place = await world({ storage })
    const ann = await place.enter('ann')
    expect((await ann.fail('get_key_pair', {})).json).toMatchObject({ code: 404, errorCode: -70020 })
    await ann.call('create_key_pair', { password: KEY_PASSWORD, label: 'one' })
    const plain = await ann.call('create_room', { name: 'Plain' })
    const sealed = await ann.call('create_room', { name: 'Sealed' })
    expect(sealed).toMatchObject({ type: 'room', name: 'Sealed', parentPath: '/', isEncrypted: false })
    expect(await ann.call('encrypt_room', { room_id: sealed.id })).toMatchObject({ id: sealed.id, isEncrypted: true })
    for (const room of [plain, sealed]) {
      expect(await ann.call('create_folder', { parent_id: room.id, name: 'Sub' })).toMatchObject({
        type: 'folder',
        parentId: room.id,
        parentPath: `/${room.name}/`,
        isEncrypted: room === sealed,
      })
    }
    expect(await ann.call('unlock', { password: KEY_PASSWORD })).toBe('RSA-4096')
    if (storage === 's3') {
      // Leaves a Content-Range header on the session that sends the parts.
      const source = place.file('leak', content(3 * MIB))
      const node = await ann.call('upload', { source, target: '/Plain', via: 'classic', part_size: MIB })
      expect(node.size).toBe(3 * MIB)
    }
    for (const size of [0, 12_000, 70_000_000]) {
      const wanted = content(size)
      const source = place.file(`size-${size}`, wanted)
      for (const room of ['Plain', 'Sealed']) {
        const target = place.path('fetched')
        const node = await ann.call('upload', { source, target: `/${room}/Sub` })
        expect(node).toMatchObject({ type: 'file', name: `size-${size}`, size, isEncrypted: room === 'Sealed' })
        expect(await ann.call('download', { path: `/${room}/Sub/size-${size}`, target })).toMatchObject({ id: node.id })
        expectSame(target, wanted)
      }
    }
    // In ranges, with one URL for all or a new one for each.
    const large = ['/Sealed/Sub/size-70000000', 70_000_000] as const
    const small = ['/Plain/leak', 3 * MIB] as const
    for (const [[path, size], chunk, fresh_url] of [
      [small, 2 * MIB, false],
      [large, 5 * MIB, false],
      [large, 32 * MIB, true],
    ] as const) {
      if (storage === 'classic') break // nothing differs there
      const target = place.path('ranged')
      await ann.call('download', { path, target, chunk, fresh_url })
      expectSame(target, content(size))
    }
    await ann.call('delete_key_pair', { version: 'RSA-4096' })
    expect((await ann.fail('get_key_pair', {})).json).toMatchObject({ errorCode: -70020 })
    // Files that nobody can open any more are gone.
    expect((await ann.fail('node_at', { path: '/Sealed/Sub/size-0' })).message).toMatch(/not found/)
    expect(await ann.call('node_at', { path: '/Plain/Sub/size-0' })).toMatchObject({ size: 0 })
    await clean(ann)
  })
}

test(title('the peer uploads and hands out, the command line downloads; and the other way round'), async () => {
  const place = await world({ storage: 's3' })
  const ann = await place.enter('ann')
  const bobPeer = await place.enter('bob') // only to know the account
  await ann.call('create_key_pair', { password: KEY_PASSWORD, label: 'one' })
  const room = await ann.call('create_room', { name: 'Team' })
  await ann.call('encrypt_room', { room_id: room.id })
  await ann.call('create_folder', { parent_id: room.id, name: 'Sub' })
  const sizes = [0, 1, 12_000, 12 * MIB + 7]
  const put = async (size: number, target: string) => {
    const name = `f-${size}`
    await ann.call('upload', { source: place.file(name, content(size)), target, part_size: 5 * MIB })
  }
  for (const size of sizes) await put(size, '/Team/Sub')

  const bob = await cliOf(place, 'bob')
  const keyFile = place.file('bob-key', Buffer.from('Bob’s encryption pässword\n'))
  await bob('keys', 'create', '--key-password-file', keyFile)
  await ann.call('add_member', { room_id: room.id, user_id: bobPeer.id })
  expect(await ann.call('distribute', { room_id: room.id })).toEqual([sizes.length])
  expect(await ann.call('distribute')).toEqual([])
  await put(4711, '/Team/Sub') // hands out to both at once
  await bob('download', '/Team/Sub', place.path('got'), '--key-password-file', keyFile)
  for (const size of [...sizes, 4711]) expectSame(place.path(`got/Sub/f-${size}`), content(size))

  // What the command line makes, openssl and the peer can open.
  const { privateKeyContainer, publicKeyContainer } = await bobPeer.call('get_key_pair')
  expect(privateKeyContainer.version).toBe('RSA-4096')
  const opened = await bobPeer.call('open_with_openssl', {
    private_key: privateKeyContainer.privateKey,
    password_file: keyFile,
  })
  expect(opened.public.trim()).toBe(publicKeyContainer.publicKey.trim())
  expect(opened.text).toMatch(/PBKDF2/)
  expect(opened.text).toMatch(/aes-256-cbc/)
  expect(opened.text).toMatch(/INTEGER\s+:13D620/) // 1,300,000
  expect(opened.text).not.toMatch(/hmac/i)
  const password = 'Bob’s encryption pässword'
  expect(await bobPeer.call('unlock', { password, encoding: 'utf-8' })).toBe('RSA-4096')
  await bobPeer.call('download', { path: '/Team/Sub/f-12000', target: place.path('by-peer') })
  expectSame(place.path('by-peer'), content(12_000))

  // The other way round.
  await bob('room', 'create', '/Back')
  const tree = place.path('tree')
  mkdirSync(join(tree, 'deep'), { recursive: true })
  for (const size of sizes) writeFileSync(join(tree, 'deep', `g-${size}`), content(size))
  await bob('upload', tree, '/Back', '--key-password-file', keyFile, '--part-size', '5M')
  await bob('room', 'members', '/Back', '--add', 'ann')
  const early = await ann.fail('download', { path: '/Back/tree/deep/g-1', target: place.path('early') })
  expect(early.json).toMatchObject({ code: 404, errorCode: -40761 })
  const done = await bob('keys', 'distribute', '--trust-new-members', '--key-password-file', keyFile)
  expect(done.json.at(-1)).toMatchObject({ handedOut: sizes.length, skipped: 0 })
  await ann.call('unlock', { password: KEY_PASSWORD })
  for (const size of sizes) {
    await ann.call('download', { path: `/Back/tree/deep/g-${size}`, target: place.path('back') })
    expectSame(place.path('back'), content(size))
  }
  await clean(ann, bobPeer)
})

test(title('key pairs of all sorts are unlocked by the command line'), async () => {
  const place = await world()
  const ann = await place.enter('ann')
  const cli = await cliOf(place, 'ann')
  await ann.call('create_key_pair', { password: 'x', label: 'one' })
  const room = await ann.call('create_room', { name: 'R' })
  await ann.call('encrypt_room', { room_id: room.id })
  await ann.call('delete_key_pair', { version: 'RSA-4096' })
  const umlauts = '§ neue Schlüssel 🔑'
  const kinds = [
    { profile: 'library', password: KEY_PASSWORD, shown: { prf: expect.stringMatching(/256/), iterations: 2048 } },
    { profile: 'openssl', password: KEY_PASSWORD },
    { profile: 'openssl-sha1', password: KEY_PASSWORD },
    { profile: 'legacy', password: 'alte Schlüssel', encoding: 'latin-1', shown: { iterations: 10_000 } },
    { profile: 'explicit', password: umlauts, encoding: 'utf-8', shown: { iterations: 1_300_000 } },
    { profile: 'library', password: KEY_PASSWORD, version: 'A' },
  ]
  for (const [index, { shown, ...kind }] of kinds.entries()) {
    const { profile, version = 'RSA-4096' } = kind
    await ann.call('create_key_pair', { ...kind, version, label: 'one' })
    if (shown !== undefined) {
      const { json } = await cli('keys', 'status')
      expect(json[0]?.keyPairs).toMatchObject([{ version, ...shown }])
    }
    const wanted = content(1000 + index)
    await ann.call('upload', { source: place.file(`k${index}`, wanted), target: '/R' })
    const keyFile = place.file(`p${index}`, Buffer.from(`${kind.password}\n`))
    await cli('download', `/R/k${index}`, `${place.path(`d${index}`)}/`, '--key-password-file', keyFile)
    expectSame(place.path(`d${index}/k${index}`), wanted)
    if (profile === 'library') {
      // And back, wrapped for this very key.
      await cli('upload', place.file(`u${index}`, wanted), '/R', '--key-password-file', keyFile)
      await ann.call('download', { path: `/R/u${index}`, target: place.path('own') })
      expectSame(place.path('own'), wanted)
    }
    await ann.call('delete_key_pair', version === 'A' ? {} : { version })
  }
  await clean(ann)
})

test(title('a user with both versions of key pairs, one with the old, one with the new'), async () => {
  const place = await world()
  const [ann, bob, eve] = [await place.enter('ann'), await place.enter('bob'), await place.enter('eve')]
  await ann.call('create_key_pair', { password: 'x', version: 'A' })
  const room = await ann.call('create_room', { name: 'R' })
  await ann.call('encrypt_room', { room_id: room.id })
  await ann.call('upload', { source: place.file('old', content(333)), target: '/R' })
  await ann.call('create_key_pair', { password: 'x', label: 'one' })
  await ann.call('upload', { source: place.file('new', content(444)), target: '/R' })
  await bob.call('create_key_pair', { password: 'y', version: 'A' })
  await eve.call('create_key_pair', { password: 'z', label: 'one' })
  for (const user of [bob, eve]) await ann.call('add_member', { room_id: room.id, user_id: user.id })
  expect(await ann.call('distribute')).toEqual([2]) // what was made for the new pair
  const before = await bob.fail('download', { path: '/R/old', target: place.path('got') })
  expect(before.json).toMatchObject({ code: 404, errorCode: -40761 })
  const old = await ann.call('distribute', { use_key: 'previous_user_key' })
  expect(old[0]).toBeGreaterThanOrEqual(2) // may renew one's own as well
  for (const user of [ann, bob, eve]) {
    for (const [name, size] of [
      ['old', 333],
      ['new', 444],
    ] as const) {
      await user.call('download', { path: `/R/${name}`, target: place.path('got') })
      expectSame(place.path('got'), content(size))
    }
  }
  expect(await ann.call('distribute')).toEqual([])
  await clean(ann, bob, eve)
})

test(title('conflicts, autorename, overwriting, wrong ETags, missing file keys'), async () => {
  for (const via of ['s3', 'classic']) {
    const place = await world({ storage: 's3' })
    const ann = await place.enter('ann')
    await ann.call('create_key_pair', { password: 'x', version: 'A' })
    const plain = await ann.call('create_room', { name: 'Plain' })
    const sealed = await ann.call('create_room', { name: 'Sealed' })
    await ann.call('encrypt_room', { room_id: sealed.id })
    await ann.call('create_folder', { parent_id: plain.id, name: 'taken' })
    const up = (name: string, size: number, more: Args = {}) =>
      ann.call('upload', { source: place.file('source', content(size)), target: '/Plain', name, via, ...more })
    const first = await up('a.txt', 10)
    expect(await up('a.txt', 20, { strategy: 'fail' })).toBeNull()
    const second = await up('a.txt', 30)
    expect(second.name).toMatch(/^a.*\d+.*\.txt$/)
    expect(second.id).not.toBe(first.id)
    const third = await up('a.txt', 40, { strategy: 'overwrite' })
    expect(third).toMatchObject({ name: 'a.txt', size: 40 })
    const bin = await ann.raw('GET', `/v4/nodes/${plain.id}/deleted_nodes`)
    expect(bin.json).toMatchObject({ range: { total: 1 }, items: [{ name: 'a.txt', type: 'file', cntVersions: 1 }] })
    const versions = await ann.raw('GET', `/v4/nodes/${plain.id}/deleted_nodes/versions?name=a.txt&type=file`)
    expect(versions.json.items).toMatchObject([{ name: 'a.txt', size: 10 }])
    expect(await up('taken', 5, { strategy: 'fail' })).toBeNull()

    const inSealed = { source: place.path('source'), target: '/Sealed', name: 'k', via, spoil: 'fileKey' }
    expect((await ann.fail('upload', inSealed)).json).toMatchObject({ code: 400, errorCode: -40763 })
    if (via === 's3') {
      const error = await ann.fail('upload', { ...inSealed, target: '/Plain', spoil: 'etag' })
      expect(error.json).toMatchObject({ code: 400, errorCode: -80045 })
    }
    expect(await ann.call('create_folder', { parent_id: plain.id, name: 'new' })).toMatchObject({ name: 'new' })
    expect((await ann.fail('create_folder', { parent_id: plain.id, name: 'new' })).status).toBe(409)
    expect((await ann.fail('create_room', { name: 'Plain' })).status).toBe(409)
    await ann.call('delete', { node_ids: [second.id, third.id] })
    expect((await ann.raw('GET', `/v4/nodes/${third.id}`)).json).toMatchObject({ code: 404 })
    await clean(ann)
  }
})

test(title('file keys of the wrong shape, and of clients that leave out the tag'), async () => {
  const place = await world()
  const ann = await place.enter('ann')
  await ann.call('create_key_pair', { password: 'x', version: 'A' })
  const room = await ann.call('create_room', { name: 'R' })
  await ann.call('encrypt_room', { room_id: room.id })
  const random = (length: number) => randomBytes(length).toString('base64')
  const good = { key: random(256), iv: random(12), tag: random(16), version: 'A' }
  const { tag: _, ...untagged } = good
  for (const fileKey of [
    untagged,
    { ...good, tag: random(15) },
    { ...good, iv: random(16) },
    { ...good, key: random(512) },
    { ...good, version: 'RSA-4096/AES-256-GCM' },
  ]) {
    const opened = await ann.raw('POST', '/v4/nodes/files/uploads', {
      json_body: { parentId: room.id, name: 'n', size: 1 },
    })
    await ann.raw('POST', opened.json.uploadUrl, { body: 'x', authorised: false })
    const end = await ann.raw('PUT', opened.json.uploadUrl, { json_body: { fileKey }, authorised: false })
    expect(end.json, JSON.stringify(fileKey)).toMatchObject({ code: 400, errorCode: -80062 })
  }
  await clean(ann)
})

test(
  title('chunks of other clients: end unknown, end exclusive, sent twice, empty at the end, by upload id'),
  async () => {
    const place = await world()
    const ann = await place.enter('ann')
    const room = await ann.call('create_room', { name: 'R' })
    const open = async (name: string) =>
      (await ann.raw('POST', '/v4/nodes/files/uploads', { json_body: { parentId: room.id, name } })).json
    const cases: [string, [string | undefined, string][]][] = [
      [
        'unknown total',
        [
          ['bytes 0-5/*', 'abcde'],
          ['bytes 5-10/*', 'fghij'],
        ],
      ],
      [
        'exclusive end',
        [
          ['bytes 0-5/10', 'abcde'],
          ['bytes 5-10/10', 'fghij'],
        ],
      ],
      [
        'inclusive end',
        [
          ['bytes 0-4/10', 'abcde'],
          ['bytes 5-9/10', 'fghij'],
        ],
      ],
      [
        'sent twice',
        [
          ['bytes 0-5/10', 'abcde'],
          ['bytes 5-10/10', 'XXXXX'],
          ['bytes 5-10/10', 'fghij'],
        ],
      ],
      [
        'extra empty',
        [
          ['bytes 0-5/10', 'abcde'],
          ['bytes 5-10/10', 'fghij'],
          ['bytes 10-10/10', ''],
        ],
      ],
      [
        'no headers',
        [
          [undefined, 'abcde'],
          [undefined, 'fghij'],
        ],
      ],
    ] // prettier-ignore
    for (const [name, chunks] of cases) {
      for (const byId of [false, true]) {
        const channel = await open(name)
        const path = byId ? `/v4/nodes/files/uploads/${channel.uploadId}` : channel.uploadUrl
        for (const [range, body] of chunks) {
          const headers = { 'Content-Type': 'application/octet-stream', ...(range && { 'Content-Range': range }) }
          const sent = await ann.raw('POST', path, { body, headers, authorised: byId })
          expect(sent, name).toMatchObject({ status: 201, json: { size: body.length } })
        }
        const end = await ann.raw('PUT', path, { json_body: { resolutionStrategy: 'overwrite' }, authorised: byId })
        expect(end.status, `${name}: ${end.text}`).toBe(201)
        expect(end.json).toMatchObject({ name, size: 10 })
        await ann.call('download', { path: `/R/${name}`, target: place.path('got') })
        expect(readFileSync(place.path('got'), 'utf8'), name).toBe('abcdefghij')
      }
    }
    const channel = await open('given up')
    expect((await ann.raw('DELETE', channel.uploadUrl, { authorised: false })).status).toBe(204)
    expect((await ann.raw('DELETE', channel.uploadUrl, { authorised: false })).json).toMatchObject({
      errorCode: -20501,
    })
    expect((await ann.raw('POST', `${channel.uploadUrl}`, { body: 'x', authorised: false })).status).toBe(404)

    // Ranges, HEAD and bad tokens.
    const node = await ann.call('node_at', { path: '/R/no headers' })
    const { downloadUrl } = (await ann.raw('POST', `/v4/nodes/files/${node.id}/downloads`)).json
    const get = (range?: string, method = 'GET') =>
      ann.raw(method, downloadUrl, { authorised: false, headers: range === undefined ? {} : { Range: range } })
    expect(await get('bytes=0-0')).toMatchObject({
      status: 206,
      text: 'a',
      headers: { 'content-range': 'bytes 0-0/10' },
    })
    expect(await get('bytes=4-')).toMatchObject({ status: 206, text: 'efghij' })
    expect(await get('bytes=-3')).toMatchObject({ status: 206, text: 'hij' })
    expect(await get('bytes=8-100')).toMatchObject({
      status: 206,
      text: 'ij',
      headers: { 'content-range': 'bytes 8-9/10' },
    })
    expect(await get('bytes=10-11')).toMatchObject({ status: 416 })
    expect(await get(undefined, 'HEAD')).toMatchObject({ status: 200, headers: { 'content-length': '10' } })
    const bad = await ann.raw('GET', '/v4/downloads/nonsense', { authorised: false })
    expect(bad.json).toMatchObject({ errorCode: -20502 })
    const findings: string[] = await ann.call('findings')
    expect(findings.filter((text) => !/^HEAD/.test(text))).toEqual([])
  },
)

test(title('search: exact names under a parent path, wildcards, depths, pages in parallel'), async () => {
  const place = await world()
  const ann = await place.enter('ann')
  const room = await ann.call('create_room', { name: 'Room' })
  const sub = await ann.call('create_folder', { parent_id: room.id, name: 'Sub' })
  const deep = await ann.call('create_folder', { parent_id: sub.id, name: 'Sub' })
  const up = (target: string, name: string) => ann.call('upload', { source: place.file('s', content(3)), target, name })
  for (const name of ['a.txt', 'aa.txt', 'a.txt.bak', 'A.TXT2', 'Ünï (1) [x] #+%&=.txt']) await up('/Room/Sub', name)
  await up('/Room/Sub/Sub', 'a.txt')
  const search = async (query: Record<string, string>) => {
    const reply = await ann.raw('GET', `/v4/nodes/search?${new URLSearchParams(query)}`)
    expect(reply.status, reply.text).toBe(200)
    return reply.json
  }
  const names = (list: Json) => list.items.map((node: Json) => node.parentPath + node.name)
  for (const depth of ['-1', '2', '3']) {
    const found = await search({ search_string: 'a.txt', depth_level: depth, filter: 'parentPath:eq:/Room/Sub/' })
    expect(names(found), depth).toEqual(['/Room/Sub/a.txt'])
    expect(found.range).toEqual({ offset: 0, limit: 500, total: 1 })
  }
  expect(await ann.call('node_at', { path: '/Room/Sub' })).toMatchObject({ id: sub.id })
  expect(await ann.call('node_at', { path: '/Room/Sub/Sub' })).toMatchObject({ id: deep.id })
  expect(await ann.call('node_at', { path: '/Room' })).toMatchObject({ id: room.id })
  expect(await ann.call('node_at', { path: '/Room/Sub/Ünï (1) [x] #+%&=.txt' })).toMatchObject({ type: 'file' })
  expect(
    names(await search({ search_string: 'a.txt', depth_level: '-1', filter: 'parentPath:eq:/room/sub/' })),
  ).toEqual([])
  expect(names(await search({ search_string: 'a.txt', depth_level: '-1', filter: 'parentPath:eq:/Room/Sub' }))).toEqual(
    [],
  )
  const all = await search({ search_string: '*', depth_level: '-1' })
  expect(all.range.total).toBe(9)
  expect(names(await search({ search_string: '*' }))).toEqual(['/Room'])
  const folders = { search_string: '*', depth_level: '-1', filter: 'type:eq:folder', sort: 'parentPath:asc' }
  expect(names(await search(folders))).toEqual(['/Room/Sub', '/Room/Sub/Sub'])
  const pages = await Promise.all([0, 500, 1000].map((offset) => search({ ...folders, offset: `${offset}` })))
  expect(pages.map((page) => page.items.length)).toEqual([2, 0, 0])
  expect(
    names(await search({ search_string: 'a*', parent_id: `${sub.id}`, depth_level: '0', filter: 'type:eq:file' }))
      .length,
  ).toBeGreaterThanOrEqual(3)
  const both = await search({
    search_string: 'a.txt',
    depth_level: '-1',
    filter: 'type:eq:file|parentPath:eq:/Room/Sub/Sub/',
  })
  expect(names(both)).toEqual(['/Room/Sub/Sub/a.txt'])
  await clean(ann)
})

test(title('more than 100 missing file keys are handed out in rounds'), async () => {
  const place = await world()
  const ann = await place.enter('ann')
  const others = [
    await place.enter('bob'),
    await place.enter('eve'),
    await place.enter('dan'),
    await place.enter('kim'),
  ]
  for (const user of [ann, ...others]) await user.call('create_key_pair', { password: 'x', version: 'A' })
  const room = await ann.call('create_room', { name: 'R' })
  await ann.call('encrypt_room', { room_id: room.id })
  const source = place.file('source', content(100))
  const count = 28
  for (let n = 0; n < count; n++) await ann.call('upload', { source, target: '/R', name: `f${n}` })
  for (const user of others) await ann.call('add_member', { room_id: room.id, user_id: user.id })
  const huge = await ann.call('missing', { limit: 500 })
  expect(huge.items.length).toBe(100)
  const kim = await ann.call('missing', { limit: 100, user_id: others[3]?.id, fileId: 1 })
  expect(kim.items.map((item: Json) => item.userId)).toEqual(Array(count).fill(others[3]?.id))
  expect(await ann.call('distribute')).toEqual([100, 12])
  expect(await ann.call('missing', { limit: 100 })).toMatchObject({
    items: [],
    users: [],
    files: [],
    range: { total: 0 },
  })
  for (const user of others) {
    await user.call('download', { path: `/R/f${count - 1}`, target: place.path('got') })
    expectSame(place.path('got'), content(100))
  }
  await clean(ann, ...others)
})

test(title('every basic endpoint answers with all that clients need'), async () => {
  const place = await world({ storage: 's3' })
  const ann = await place.enter('ann')
  const bob = await place.enter('bob')
  const get = async (path: string) => {
    const reply = await ann.raw('GET', path)
    expect(reply.status, `${path}: ${reply.text}`).toBe(200)
    return reply.json
  }
  expect(await get('/v4/public/software/version')).toMatchObject({
    restApiVersion: expect.stringMatching(/^[5-9]\.\d+\.\d+(-.*)?$/),
    sdsServerVersion: expect.any(String),
    buildDate: expect.any(String),
    isDracoonCloud: expect.any(Boolean),
  })
  expect((await get('/v4/public/time')).time).toEqual(expect.any(String))
  const algorithms = await get('/v4/config/info/policies/algorithms')
  for (const list of [algorithms.fileKeyAlgorithms, algorithms.keyPairAlgorithms]) {
    expect(list.length).toBeGreaterThan(0)
    for (const entry of list) {
      expect(entry).toMatchObject({ version: expect.any(String), description: expect.any(String) })
      expect(['REQUIRED', 'DISCOURAGED']).toContain(entry.status)
    }
  }
  await ann.call('create_key_pair', { password: 'x', label: 'one' })
  await ann.call('create_key_pair', { password: 'x', version: 'A' })
  const pairs = await get('/v4/user/account/keypairs')
  expect(pairs.map((pair: Json) => pair.publicKeyContainer.version).sort()).toEqual(['A', 'RSA-4096'])
  expect((await get('/v4/user/account/keypair')).publicKeyContainer.version).toBe('RSA-4096')
  const again = await ann.fail('create_key_pair', { password: 'x', version: 'A' })
  expect(again.json).toMatchObject({ errorCode: -70021 })
  expect((await get('/v4/user/account')).isEncryptionEnabled).toBe(true)
  expect(await get('/v4/user/account/customer')).toMatchObject({
    spaceLimit: expect.any(Number),
    spaceUsed: expect.any(Number),
    accountsLimit: expect.any(Number),
    accountsUsed: expect.any(Number),
    customerEncryptionEnabled: expect.any(Boolean),
  })
  expect(await get('/v4/config/info/policies/passwords')).toMatchObject({
    encryptionPasswordPolicies: expect.any(Object),
  })
  expect(await get('/v4/user/account/avatar')).toMatchObject({
    avatarUri: expect.any(String),
    avatarUuid: expect.any(String),
    isCustomAvatar: expect.any(Boolean),
  })

  const room = await ann.call('create_room', { name: 'R' })
  await ann.call('encrypt_room', { room_id: room.id })
  const file = await ann.call('upload', { source: place.file('f', content(9)), target: '/R' })
  const users = await get(`/v4/nodes/rooms/${room.id}/users`)
  expect(users.items[0]).toMatchObject({ userInfo: { id: ann.id } })
  for (const path of ['/v4/nodes', '/v4/nodes?parent_id=0&depth_level=0', `/v4/nodes?parent_id=${room.id}`]) {
    expect(await get(path)).toMatchObject({
      range: { offset: 0, limit: 500, total: 1 },
      items: [{ type: expect.any(String) }],
    })
  }
  expect(await get(`/v4/nodes/${file.id}`)).toMatchObject({
    id: file.id,
    type: 'file',
    name: 'f',
    size: 9,
    parentId: room.id,
    parentPath: '/R/',
    isEncrypted: true,
    hash: expect.stringMatching(/^[0-9a-f]{32}$/),
    branchVersion: expect.any(Number),
    createdAt: expect.any(String),
    timestampModification: expect.any(String),
  })
  const key = await get(`/v4/nodes/files/${file.id}/user_file_key`)
  expect(Object.keys(key).sort()).toEqual(['iv', 'key', 'tag', 'version'])
  expect(await get(`/v4/nodes/missingFileKeys?limit=100`)).toMatchObject({ range: {}, items: [], users: [], files: [] })

  // Move and copy answer a node; bodies of DELETE are read; unknown things are ignored.
  const folder = await ann.call('create_folder', { parent_id: room.id, name: 'F' })
  const items = {
    items: [{ id: file.id }],
    resolutionStrategy: 'autorename',
    keepShareLinks: false,
    nodeIds: [file.id],
  }
  const copied = await ann.raw('POST', `/v4/nodes/${folder.id}/copy_to`, { json_body: items })
  expect([200, 201], copied.text).toContain(copied.status)
  expect(copied.json).toMatchObject({ id: expect.any(Number), type: expect.any(String), name: expect.any(String) })
  const moved = await ann.raw('POST', `/v4/nodes/${folder.id}/move_to`, { json_body: items })
  expect(moved.json, moved.text).toMatchObject({ id: expect.any(Number), type: expect.any(String) })
  expect((await get(`/v4/nodes?parent_id=${folder.id}&unknown=1`)).range.total).toBe(2)
  // dates without zone, with offset, with Z
  for (const [index, time] of [
    '2024-05-01T10:00:00',
    '2024-05-01T12:00:00+02:00',
    '2024-05-01T10:00:00.000Z',
  ].entries()) {
    const json_body = { parentId: room.id, name: `t${index}`, timestampModification: time }
    const made = await ann.raw('POST', '/v4/nodes/folders', { json_body })
    expect(made.status, made.text).toBe(201)
    if (index > 0) expect(made.json.timestampModification).toMatch(/^2024-05-01T10:00:00(\.000)?Z$/)
  }

  // Presigned storage: part sizes, errors as XML, content types of all kinds, repeated requests.
  const opened = await ann.raw('POST', '/v4/nodes/files/uploads', {
    json_body: { parentId: room.id, name: 'parts', directS3Upload: true, size: 4 },
  })
  expect(opened.json).toMatchObject({
    uploadUrl: expect.any(String),
    uploadId: expect.any(String),
    token: expect.any(String),
  })
  const urls = async (first: number, last: number, size: number) =>
    ann.raw('POST', `/v4/nodes/files/uploads/${opened.json.uploadId}/s3_urls`, {
      json_body: { size, firstPartNumber: first, lastPartNumber: last },
    })
  expect((await urls(1, 5, 5 * MIB)).json.urls.map((one: Json) => one.partNumber)).toEqual([1, 2, 3, 4, 5])
  const { url } = (await urls(1, 1, 4)).json.urls[0]
  for (const type of ['application/octet-stream', 'application/x-www-form-urlencoded']) {
    const sent = await ann.raw('PUT', url, {
      body: 'four',
      authorised: false,
      headers: { 'Content-Type': type, 'Content-Range': 'bytes 0-0/9' },
    })
    expect(sent).toMatchObject({ status: 200, headers: { etag: expect.stringMatching(/^"[0-9a-f]+"$/) } })
  }
  const forged = await ann.raw('PUT', `${url}x`, { body: 'four', authorised: false })
  expect(forged.status).toBe(403)
  expect(forged.text).toMatch(/<Error>.*<Code>.+<\/Code>.*<Message>.+<\/Message>/s)
  const state = await ann.raw('GET', `/v4/nodes/files/uploads/${opened.json.uploadId}`)
  expect(state.json.status).toBe('transfer')

  // Errors.
  for (const [method, path, status, code] of [
    ['GET', '/v4/nodes/999999', 404, -41000],
    ['GET', '/v4/nodes/nonsense', 404, undefined],
    ['GET', '/v4/no/such/thing', 404, undefined],
    ['GET', '/v4/nodes?limit=-1', 400, -80024],
    ['GET', '/v4/nodes?offset=x', 400, -80024],
    ['POST', '/v4/nodes/files/999999/downloads', 404, -40751],
    ['GET', '/v4/user/account/keypair?version=C', 400, -70022],
    ['GET', '/v4/nodes/files/999999/user_file_key', 404, undefined],
    ['DELETE', '/v4/nodes/999999', 404, undefined],
    ['GET', '/v4/nodes/files/uploads/nonsense', 404, -20501],
  ] as const) {
    const reply = await ann.raw(method, path)
    expect([404, 400].includes(reply.status), `${method} ${path} ${reply.status}`).toBe(true)
    expect.soft(reply.status, `${method} ${path}: ${reply.text}`).toBe(status)
    if (code !== undefined) expect.soft(reply.json?.errorCode, `${method} ${path}: ${reply.text}`).toBe(code)
  }
  const broken = await ann.raw('POST', '/v4/nodes/rooms', {
    body: '{"name',
    headers: { 'Content-Type': 'application/json' },
  })
  expect(broken.status).toBe(400)
  for (const name of ['a:b', 'x.', '-x', 'CON', 'nul.txt', '', 'a'.repeat(151), 'a/b']) {
    const reply = await ann.raw('POST', '/v4/nodes/folders', { json_body: { parentId: room.id, name } })
    expect.soft(reply, `${name}: ${reply.text}`).toMatchObject({ status: 400, json: { code: 400 } })
  }
  const lost = await ann.raw('GET', '/v4/user/account', { headers: { Authorization: 'Bearer nonsense' } })
  expect(lost.json).toMatchObject({ code: 401 })
  expect((await ann.raw('GET', '/v4/nodes', { authorised: false })).json).toMatchObject({ code: 401 })
  expect((await bob.raw('GET', `/v4/nodes/${room.id}`)).status).toBeGreaterThan(402)
  expect((await bob.raw('GET', '/v4/nodes')).json).toMatchObject({ range: { total: 0 }, items: [] })
  // A bodiless request with a content type, and bearer tokens where none is needed.
  expect((await ann.raw('GET', '/v4/user/ping', { headers: { 'Content-Type': 'application/json' } })).status).toBe(200)
  expect((await ann.raw('GET', '/v4/public/system/info', { headers: { Authorization: 'Bearer old' } })).status).toBe(
    200,
  )
  await clean(ann, bob)
})
