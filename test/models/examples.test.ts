/** The programs in docs/examples, run as they are against servers of their own. */
import { spawn } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { CLIENT_ID, cognitoServer, POOL } from '../support/cognito-server.ts'
import { freshDirectory } from '../support/files.ts'
import { browse, embedded, tokenServer } from '../support/oauth.ts'
import { APPLICATION_KEY, APPLICATION_SECRET, CONSUMER_KEY, ovhServer } from '../support/ovh-server.ts'
import { protonServer } from '../support/proton-server.ts'
import { startProvider } from '../support/provider.ts'
import { httpServer, json } from '../support/servers.ts'

const EXAMPLES = fileURLToPath(new URL('../../docs/examples/', import.meta.url))
const CANARY = 'canary-51c0d-pw'

/** Runs one with secrets as files; `onLine` is told of each line that it prints. */
async function run(
  name: string,
  env: Record<string, string>,
  secrets: Record<string, string> = {},
  args: readonly string[] = [],
  onLine: (line: string) => unknown = () => {},
) {
  const directory = await freshDirectory()
  const files = Object.entries(secrets).map(([variable, text]) => {
    const path = join(directory, variable)
    writeFileSync(path, `${text}\n`, { mode: 0o600 })
    return [variable, path]
  })
  const child = spawn(process.execPath, [join(EXAMPLES, name), ...args], {
    env: { PATH: process.env.PATH, HOME: directory, ...env, ...Object.fromEntries(files) },
    stdio: ['ignore', 'pipe', 'pipe'],
    cwd: directory,
  })
  let [stdout, stderr, line] = ['', '', '']
  child.stdout.on('data', (chunk) => {
    stdout += chunk
    line += chunk
    for (let end = line.indexOf('\n'); end >= 0; end = line.indexOf('\n')) {
      onLine(line.slice(0, end))
      line = line.slice(end + 1)
    }
  })
  child.stderr.on('data', (chunk) => {
    stderr += chunk
  })
  const [code] = await once(child, 'close')
  expect(stdout + stderr).not.toContain(CANARY)
  return { code, stdout, stderr, last: () => JSON.parse(stdout.trim().split('\n').at(-1)!) }
}

describe('login.mjs', () => {
  const issue = () =>
    tokenServer((_form, response) =>
      json(response, { access_token: 'a', refresh_token: 'r', token_type: 'bearer', expires_in: 3600, scope: 'all' }),
    )

  test.each<[string, string, Record<string, string>, Record<string, string>]>([
    ['password', 'password', { USER: 'ann' }, { PASSWORD_FILE: CANARY }],
    ['client-credentials', 'client_credentials', { CLIENT_ID: 'program' }, { CLIENT_SECRET_FILE: CANARY }],
    [
      'jwt',
      'urn:ietf:params:oauth:grant-type:jwt-bearer',
      { CLIENT_ID: 'program', USER: 'ann' },
      {
        KEY_FILE: generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({
          type: 'pkcs8',
          format: 'pem',
        }) as string,
      },
    ],
    ['refresh-token', 'refresh_token', { CLIENT_ID: 'program' }, { TOKEN_FILE: CANARY }],
  ])('%s', async (WAY, grantType, env, secrets) => {
    const server = await issue()
    const { code, stderr, last } = await run('login.mjs', { WAY, SERVER: server.origin, ...env }, secrets)
    expect(stderr).toBe('')
    expect([code, server.tokenCalls[0]!.get('grant_type')]).toEqual([0, grantType])
    expect(last()).toMatchObject({ valid: true, scope: 'all' })
    expect(server.revoked).toContain('a')
  })

  test('access-token', async () => {
    const { code, last } = await run(
      'login.mjs',
      { WAY: 'access-token', SERVER: 'https://x.example' },
      { TOKEN_FILE: CANARY },
    )
    expect([code, last()]).toEqual([0, { valid: true }])
  })

  test('browser', async () => {
    const SERVER = await embedded()
    const fill = { username: 'ann', password: CANARY }
    const env = { WAY: 'browser', SERVER, CLIENT_ID: 'sealsync' }
    const { code, stderr, last } = await run('login.mjs', env, {}, [], async (line) => {
      if (line.startsWith('Open ')) await fetch(await browse(line.slice(5), fill, (at) => at.includes('/callback')))
    })
    expect(stderr).toBe('')
    expect([code, last().valid]).toEqual([0, true])
  })

  test('device', async () => {
    const provider = await startProvider()
    const env = { WAY: 'device', SERVER: provider.origin, CLIENT_ID: 'sealsync', SCOPE: 'openid' }
    const { code, stderr, last } = await run('login.mjs', env, {}, [], (line) => {
      const [, userCode, page] = /^Type (\S+) at (\S+)$/.exec(line) ?? []
      if (page === undefined) return
      const url = `${page}?user_code=${encodeURIComponent(userCode!)}`
      browse(url, { login: 'ann', password: 'any' }, () => false).catch(() => {})
    })
    expect(stderr).toBe('')
    expect([code, last()]).toMatchObject([0, { valid: true, who: 'ann' }])
  })

  test('proton', async () => {
    const server = await protonServer({ password: CANARY })
    const secrets = { PASSWORD_FILE: CANARY, MODULUS_KEY_FILE: JSON.stringify(server.modulusKey) }
    const { code, stderr, last } = await run(
      'login.mjs',
      { WAY: 'proton', SERVER: server.origin, USER: 'ann' },
      secrets,
    )
    expect(stderr).toBe('')
    expect([code, last()]).toMatchObject([0, { valid: true, scope: 'full self loggedin' }])
    expect(server.live()).toBe(0)
  })

  test('user-pool', async () => {
    const server = await cognitoServer({ password: CANARY })
    const env = {
      WAY: 'user-pool',
      SERVER: server.origin,
      ISSUER: server.origin,
      USER: 'ann',
      POOL_ID: POOL,
      CLIENT_ID,
    }
    const { code, stderr, last } = await run('login.mjs', env, { PASSWORD_FILE: CANARY })
    expect(stderr).toBe('')
    expect([code, last()]).toMatchObject([0, { valid: true, client: CLIENT_ID }])
  })

  test('an unknown way, and what is missing', async () => {
    expect(await run('login.mjs', { WAY: 'x', SERVER: 'https://x.example' })).toMatchObject({ code: 2 })
    expect(await run('login.mjs', { WAY: 'password', SERVER: 'https://x.example' })).toMatchObject({ code: 2 })
  })
})

describe('administration', () => {
  /** What a customer’s server knows, as far as the programs go. */
  async function service() {
    const users = Array.from({ length: 150 }, (_, n) => ({ id: n + 1, userName: `user${n + 1}` }))
    const rooms = [{ name: 'user2', parentId: 7 }]
    const accepted: unknown[] = []
    const server = await httpServer((seen, response) => {
      const { pathname, searchParams } = new URL(seen.path, 'http://x')
      const body = seen.body === '' ? {} : JSON.parse(seen.body)
      if (seen.headers.authorization !== 'Bearer token') return json(response, { code: 401, message: 'No' }, 401)
      if (pathname === '/api/v4/users' && seen.method === 'GET') {
        const [offset, limit] = ['offset', 'limit'].map((name) => Number(searchParams.get(name)))
        return json(response, {
          range: { offset, limit, total: users.length },
          items: users.slice(offset, offset! + limit!),
        })
      }
      if (pathname === '/api/v4/users') {
        if (body.email === 'bad')
          return json(response, { code: 400, message: 'Bad', errors: [{ field: 'email', message: 'no address' }] }, 400)
        if (users.some(({ userName }) => userName === body.userName))
          return json(response, { code: 409, message: 'There' }, 409)
        users.push({ id: 1000 + users.length, userName: body.userName })
        return json(response, { id: 1 }, 201)
      }
      if (pathname === '/api/v4/nodes/rooms') {
        if (rooms.some(({ name }) => name === body.name)) return json(response, { code: 409, message: 'There' }, 409)
        rooms.push(body)
        return json(response, { id: rooms.length }, 201)
      }
      if (pathname === '/api/v4/nodes/rooms/pending' && seen.method === 'GET') {
        const item = (userId: number, groupId: number) => ({
          userId,
          groupId,
          roomId: 7,
          roomName: 'Room',
          userInfo: { userName: `user${userId}` },
          groupInfo: { name: `group${groupId}` },
        })
        return json(response, {
          range: { offset: 0, limit: 500, total: 3 },
          items: [item(1, 5), item(2, 5), item(3, 6)],
        })
      }
      accepted.push(...body.items)
      return response.writeHead(204).end()
    })
    return { env: { WAY: 'access-token', SERVER: server.origin }, users, rooms, accepted }
  }
  const secret = { TOKEN_FILE: 'token' }

  test('create-users.mjs', async () => {
    const { env, users } = await service()
    const list = join(await freshDirectory(), 'users.json')
    writeFileSync(list, JSON.stringify([{ userName: 'new' }, { userName: 'user1' }, { userName: 'odd', email: 'bad' }]))
    const { code, stdout, stderr } = await run('create-users.mjs', env, secret, [list])
    expect(stdout).toBe('created new\nuser1 is there\n')
    expect(stderr).toMatch(/odd: .*Bad.*email.*no address/s)
    expect(code).toBe(1)
    expect(users.at(-1)).toMatchObject({ userName: 'new' })
  })

  test('personal-rooms.mjs', async () => {
    const { env, rooms } = await service()
    const { code, stdout } = await run('personal-rooms.mjs', env, secret, ['7'])
    expect(code).toBe(0)
    expect(stdout).toContain('user2 has a room')
    expect(rooms).toHaveLength(150)
    expect(rooms.at(-1)).toMatchObject({ name: 'user150', parentId: 7, adminIds: [150], inheritPermissions: false })
  })

  test('pending-assignments.mjs', async () => {
    const { env, accepted } = await service()
    const { code, stdout } = await run('pending-assignments.mjs', env, secret, ['5'])
    expect([code, stdout]).toEqual([
      0,
      'user1 by group group5 into Room\nuser2 by group group5 into Room\naccepted 2\n',
    ])
    expect(accepted).toEqual([1, 2].map((userId) => ({ userId, groupId: 5, roomId: 7, state: 'ACCEPTED' })))
  })
})

test('key-pair.mjs and up-and-download.mjs', async () => {
  const env = { SERVER: await embedded(), USER: 'ann' }
  const secrets = { PASSWORD_FILE: CANARY, KEY_PASSWORD_FILE: `${CANARY}-Key-1!` }
  expect(await run('key-pair.mjs', env, secrets)).toMatchObject({
    code: 0,
    stdout: expect.stringContaining('made a key pair'),
  })
  expect(await run('key-pair.mjs', env, secrets)).toMatchObject({ code: 0, stdout: expect.stringContaining('already') })
  const directory = await freshDirectory()
  const source = join(directory, 'photos')
  await mkdir(source)
  writeFileSync(join(source, 'seal.txt'), 'seal\n')
  const { createClient, passwordAuthorizer } = await import('../../src/index.ts')
  const client = createClient(env.SERVER, {
    authorizer: (origin) => passwordAuthorizer(origin, { userName: 'ann', password: async () => CANARY }),
  })
  await client.session.login()
  await client.rooms.create('/room')
  await client.close()
  const args = [source, '/room', join(directory, 'back')]
  const { code, stdout, stderr } = await run('up-and-download.mjs', env, secrets, args)
  expect([code, stderr]).toEqual([0, ''])
  expect(stdout).toBe('sent 1\nfetched 1\n')
  expect(readFileSync(join(directory, 'back/room/photos/seal.txt'), 'utf8')).toBe('seal\n')
}, 60_000)

test('ovh-me.mjs', async () => {
  const server = await ovhServer({ now: () => Date.now() })
  const keys = {
    OVH_APPLICATION_KEY: APPLICATION_KEY,
    OVH_APPLICATION_SECRET: APPLICATION_SECRET,
    OVH_CONSUMER_KEY: CONSUMER_KEY,
  }
  const env = { WAY: 'ovh', SERVER: server.endpoint, ENDPOINT: server.endpoint, ...keys }
  const { code, last } = await run('ovh-me.mjs', env)
  expect([code, last()]).toMatchObject([0, { method: 'GET', path: '/me' }])
  const wrong = await run('ovh-me.mjs', { ...env, OVH_CONSUMER_KEY: 'canary-other' })
  expect(wrong).toMatchObject({ code: 1, stderr: expect.stringMatching(/^LOGIN_NEEDED: .*EU\.ext-3/) })
})

test('proton-dump-load.mjs', async () => {
  const server = await protonServer({ password: CANARY })
  const path = join(await freshDirectory(), 'session.json')
  const env = { SERVER: server.origin, USER: 'ann', APP_VERSION: 'Test_1.0' }
  const secrets = { PASSWORD_FILE: CANARY, MODULUS_KEY_FILE: JSON.stringify(server.modulusKey) }
  const first = await run('proton-dump-load.mjs', env, secrets, [path])
  expect([first.code, first.stderr, first.stdout.split('\n')[0]]).toEqual([0, '', 'logging in'])
  expect(statSync(path).mode & 0o777).toBe(0o600)
  server.expire()
  const { APP_VERSION: _, ...later } = env
  const second = await run('proton-dump-load.mjs', later, secrets, [path])
  expect([second.code, second.stderr, second.stdout.split('\n')[0]]).toEqual([0, '', 'going on'])
  expect(server.seen.at(-1)?.headers['x-pm-appversion']).toBe('Test_1.0')
  expect(server.steps()).toEqual(['info', 'login', 'api', 'api', 'refresh', 'api'])
})

test('each program is run here, and is in the list', () => {
  const text = readFileSync(fileURLToPath(import.meta.url), 'utf8')
  const list = readFileSync(join(EXAMPLES, 'README.md'), 'utf8')
  for (const name of readdirSync(EXAMPLES).filter((one) => one.endsWith('.mjs'))) {
    expect(list, name).toContain(`(${name})`)
    if (name !== 'ways.mjs') expect(text, name).toContain(`'${name}'`)
  }
})
