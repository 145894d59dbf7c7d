/**
 * Input that is wrong on purpose: hosts, paths, JSON, ids, and binding where one should not.
 * @module
 */
import { connect } from 'node:net'
import { expect, test } from 'vitest'
import { startServer } from '../../src/server/index.ts'
import fc from '../support/property.ts'
import { ask, freshDir, makeRoom, signUp, startWorld } from './support.ts'

/** Sends raw bytes and answers everything that comes back. */
function raw(port: number, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let got = ''
    const socket = connect(port, '127.0.0.1', () => socket.write(text))
    socket.setEncoding('utf8')
    socket.on('data', (chunk: string) => {
      got += chunk
    })
    socket.on('close', () => resolve(got))
    socket.on('error', reject)
  })
}

test('only known hosts are served', async () => {
  const world = await startWorld({ allowedHosts: ['files.example'] })
  const status = async (host: string): Promise<number> =>
    (await ask(`${world.api}/v4/public/time`, { headers: { host } })).status
  for (const host of [
    'localhost',
    'LOCALHOST:1',
    '127.0.0.1:9',
    '127.9.9.9',
    '[::1]:5',
    'files.example',
    'Files.Example:443',
  ]) {
    expect(await status(host), host).toBe(200)
  }
  for (const host of [
    'evil.example',
    'localhost.evil.example',
    '127.0.0.1.evil.example',
    'files.example@evil',
    'localhost/',
    '10.0.0.1',
    'a b',
  ]) {
    expect(await status(host), host).toBe(421)
  }
})

test('URLs carry the host the client used', async () => {
  const world = await startWorld({ allowedHosts: ['files.example'] })
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  const reply = await ann.call(
    'POST',
    '/v4/nodes/files/uploads',
    { parentId: room, name: 'f' },
    { host: 'files.example:8443' },
  )
  expect(reply.json.uploadUrl).toMatch(/^http:\/\/files\.example:8443\/api\/v4\/uploads\/[0-9a-f]+$/)
})

test('listening beyond loopback needs TLS; a directory serves one server', async () => {
  const dataDir = await freshDir()
  for (const host of ['0.0.0.0', '::', '192.0.2.1', 'example.com']) {
    await expect(startServer({ data: dataDir, host })).rejects.toMatchObject({ class: 'usage', code: 'TLS_REQUIRED' })
  }
  const world = await startWorld({ data: dataDir })
  await expect(startServer({ data: dataDir })).rejects.toMatchObject({ class: 'conflict', code: 'SERVER_RUNNING' })
  expect((await ask(`${world.api}/v4/public/time`)).status).toBe(200)
  await world.server.close()
  await (await startServer({ data: dataDir })).close()
})

test('bad JSON is 400 with a JSON body, and the connection survives', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  const post = (body: string | Uint8Array) =>
    ask(`${world.api}/v4/nodes/folders`, {
      method: 'POST',
      token: ann.token,
      body,
      headers: { 'content-type': 'application/json' },
    })
  const deep = `${'['.repeat(40)}${']'.repeat(40)}`
  const bodies = [
    '',
    '{',
    'null',
    '[]',
    '"x"',
    '{"parentId":1,}',
    `{"a":${deep}}`,
    '['.repeat(1_000_000),
    Buffer.from([0x7b, 0xff, 0x7d]),
  ]
  for (const body of bodies) {
    const reply = await post(body)
    expect([reply.status, reply.headers['content-type'], reply.json?.code], String(body).slice(0, 30)).toEqual([
      400,
      'application/json',
      400,
    ])
  }
  const quoted = await post(JSON.stringify({ parentId: room, name: 'ok', note: '['.repeat(100) }))
  expect(quoted.status).toBe(201)
})

test('a body over the limit is refused without being kept', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const reply = await ask(`${world.api}/v4/nodes/folders`, {
    method: 'POST',
    token: ann.token,
    body: Buffer.alloc(17 * 1024 * 1024, 0x20),
  })
  expect(reply.json).toMatchObject({ code: 413 })
})

test('own properties only: __proto__ and friends change nothing', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  const post = (body: string) => ask(`${world.api}/v4/nodes/folders`, { method: 'POST', token: ann.token, body })
  const polluted = await post(`{"__proto__":{"name":"x","parentId":${room}},"constructor":{"prototype":{"name":"y"}}}`)
  expect(polluted.status).toBe(400)
  expect(({} as Record<string, unknown>).name).toBeUndefined()
  expect((await post(`{"parentId":${room},"name":"fine","__proto__":{"isAdmin":true}}`)).status).toBe(201)
  expect(
    (
      await ask(`${world.server.url}/oauth/token`, {
        method: 'POST',
        form: { client_id: '__proto__', grant_type: 'password' },
      })
    ).status,
  ).toBe(401)
  expect((await ann.call('GET', `/v4/nodes?filter=constructor:eq:1&parent_id=${room}`)).status).toBe(400)
})

test('ids that are none, and paths with tricks', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  for (const id of [
    '0',
    '-1',
    '1.0',
    '1e1',
    '0x1',
    'NaN',
    '99999999999999999999',
    '%00',
    '..',
    '%2e%2e',
    '1%2f2',
    '__proto__',
  ]) {
    const reply = await ann.call('GET', `/v4/nodes/${id}`)
    expect([400, 404], id).toContain(reply.status)
    expect(reply.json, id).toHaveProperty('code')
  }
  const { port } = world.server
  for (const path of [
    '/../../etc/passwd',
    '//etc/passwd',
    '/api/v4/../../db',
    '/blobs/x',
    '/s3/../x?X-Amz-Signature=1',
    '/%zz',
    '*',
    'http://evil.example/api/v4/public/time',
  ]) {
    const got = await raw(port, `GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`)
    expect(got, path).toMatch(/^HTTP\/1\.1 40[0-9] /)
  }
  expect((await ann.call('PATCH', '/v4/nodes')).status).toBe(405)
  expect(await raw(port, 'GET / HTTP/1.1\r\nConnection: close\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 /)
  expect(await raw(port, 'nonsense\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 /)
})

test('a login is needed everywhere but on public routes', async () => {
  const world = await startWorld()
  const routes: [string, string][] = [
    ['GET', '/v4/nodes'],
    ['GET', '/v4/nodes/1'],
    ['GET', '/v4/nodes/search'],
    ['DELETE', '/v4/nodes/1'],
    ['DELETE', '/v4/nodes'],
    ['POST', '/v4/nodes/rooms'],
    ['POST', '/v4/nodes/folders'],
    ['GET', '/v4/nodes/rooms/1/users'],
    ['GET', '/v4/user/account'],
    ['GET', '/v4/user/ping'],
    ['GET', '/v4/user/account/keypair'],
    ['POST', '/v4/user/account/keypair'],
    ['DELETE', '/v4/user/account/keypair'],
    ['GET', '/v4/config/info/general'],
    ['POST', '/v4/nodes/files/uploads'],
    ['GET', '/v4/nodes/files/uploads/1'],
    ['POST', '/v4/nodes/files/1/downloads'],
    ['GET', '/v4/nodes/missingFileKeys'],
    ['POST', '/v4/nodes/files/keys'],
    ['GET', '/v4/nodes/1/deleted_nodes'],
    ['POST', '/v4/nodes/deleted_nodes/actions/restore'],
  ]
  for (const [method, path] of routes) {
    for (const headers of [{}, { authorization: 'Bearer nope' }, { authorization: 'Basic eDp5' }]) {
      const reply = await ask(`${world.api}${path}`, { method, headers })
      expect(reply.json, `${method} ${path}`).toMatchObject({ code: 401, errorCode: -10012 })
    }
  }
  for (const path of ['/v4/public/time', '/v4/public/software/version', '/v4/public/system/info']) {
    expect((await ask(`${world.api}${path}`, { headers: { authorization: 'Bearer nope' } })).status).toBe(200)
  }
})

test('no input makes the server fail with 500', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  await makeRoom(ann, 'R')
  const posts = [
    '/v4/nodes/rooms',
    '/v4/nodes/folders',
    '/v4/nodes/files/uploads',
    '/v4/nodes/files/keys',
    '/v4/user/account/keypair',
    '/v4/nodes/1/move_to',
    '/v4/nodes/deleted_nodes/actions/restore',
  ]
  const known = [
    'parentId',
    'name',
    'adminIds',
    'items',
    'size',
    'nodeIds',
    'deletedNodeIds',
    'expiration',
    'notes',
    'publicKeyContainer',
    'privateKeyContainer',
    'timestampCreation',
    'classification',
  ]
  const body = fc.dictionary(
    fc.constantFrom(...known),
    fc.oneof(fc.jsonValue({ maxDepth: 3 }), fc.constant(1), fc.constant([1])),
  )
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...posts), body, async (path, json) => {
      expect((await ann.call('POST', path, json)).status).toBeLessThan(500)
    }),
    { numRuns: 150 },
  )
  const query = fc.record(
    {
      filter: fc.string(),
      sort: fc.string(),
      search_string: fc.string(),
      depth_level: fc.string(),
      parent_id: fc.string(),
    },
    { requiredKeys: [] },
  )
  await fc.assert(
    fc.asyncProperty(fc.constantFrom('/v4/nodes', '/v4/nodes/search'), query, async (path, values) => {
      const params = new URLSearchParams(values as Record<string, string>)
      expect((await ann.call('GET', `${path}?${params}`)).status).toBeLessThan(500)
    }),
    { numRuns: 150 },
  )
})
