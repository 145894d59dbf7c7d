/** Every way to log in, at the command line: real processes against independent servers, and what they leave behind. */
import { spawn } from 'node:child_process'
import { generateKeyPairSync, verify } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { codeAt } from '../../src/server/one-time-codes.ts'
import { createWorld, MAIN, runCli } from '../support/cli.ts'
import { freshDirectory } from '../support/files.ts'
import { browse } from '../support/oauth.ts'
import { PROGRAM_SECRET, startProvider } from '../support/provider.ts'
import { httpServer, json } from '../support/servers.ts'
import { hasPty, runInPty } from '../support/terminal.ts'

/** As much of a room server as a login needs; it accepts the tokens that `accepts` does. */
async function roomServer(accepts: (token: string) => boolean | Promise<boolean>) {
  return httpServer(async ({ path, headers }, response) => {
    if (path.startsWith('/api/v4/public/software/version')) return json(response, { restApiVersion: '4.42.0' })
    const token = /^Bearer (.+)$/.exec(String(headers.authorization))?.[1]
    if (token === undefined || !(await accepts(token))) return json(response, { code: 401, errorCode: -10001 }, 401)
    if (path === '/api/v4/user/account') return json(response, { id: 7, userName: 'ann', isEncryptionEnabled: false })
    return json(response, {}, 404)
  })
}

/** Asks the provider whether it issued the token (RFC 7662). */
const issuedBy = (origin: string) => async (token: string) => {
  const answer = await fetch(`${origin}/token/introspection`, {
    method: 'POST',
    body: new URLSearchParams({ token, client_id: 'sealsync' }),
  })
  return ((await answer.json()) as { active?: boolean }).active === true
}

async function place() {
  const base = await freshDirectory()
  const secret = (name: string, content: string | Uint8Array) => {
    writeFileSync(join(base, name), content, { mode: 0o600 })
    return join(base, name)
  }
  return { base, home: join(base, 'home'), secret }
}

/** Starts a login that needs a person, and hands what it prints to `act`. */
async function loginWith(
  home: string,
  args: string[],
  act: (line: string, say: (text: string) => void) => Promise<unknown> | undefined,
) {
  const child = spawn(process.execPath, [MAIN, 'login', ...args], {
    env: { PATH: process.env.PATH ?? '', SEALSYNC_HOME: home },
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  let stdout = ''
  let rest = ''
  let stderr = ''
  const acts: (Promise<unknown> | undefined)[] = []
  child.stdout.on('data', (data) => {
    stdout += data
  })
  child.stderr.on('data', (data) => {
    stderr += data
    rest += data
    for (let end = rest.indexOf('\n'); end !== -1; end = rest.indexOf('\n')) {
      acts.push(act(rest.slice(0, end), (text) => void child.stdin.write(text)))
      rest = rest.slice(end + 1)
    }
  })
  const [code] = (await once(child, 'close')) as [number]
  await Promise.all(acts)
  return { code, stdout, stderr }
}

async function expectAnn(home: string) {
  const whoami = await runCli(home, ['whoami', '--json'])
  expect(whoami.code, whoami.stderr).toBe(0)
  expect(whoami.json[0]).toMatchObject({ type: 'whoami', user: 'ann' })
}

async function expectRenewal(home: string) {
  const renewed = await runCli(home, ['session', 'renew', '--json'])
  expect(renewed.code, renewed.stderr).toBe(0)
  await expectAnn(home)
}

/** After a login: it works, can be looked at, and renewed. */
async function live(home: string) {
  await expectAnn(home)
  const shown = await runCli(home, ['session', 'show', '--online', '--json'])
  expect(shown.code, shown.stderr).toBe(0)
  expect(shown.json[0]).toMatchObject({ type: 'session', valid: true })
  await expectRenewal(home)
}

describe('against a certified provider', () => {
  test('device: the code is shown, typed elsewhere, and the login renews and ends', async () => {
    const provider = await startProvider()
    const api = await roomServer(issuedBy(provider.origin))
    const { home } = await place()
    const args = [
      api.origin,
      '--device',
      '--issuer',
      provider.origin,
      '--client-id',
      'sealsync',
      '--scope',
      'openid offline_access',
      '--introspect',
    ]
    const { code, stderr } = await loginWith(home, args, (line) => {
      const complete = /with the code in it: (\S+)/.exec(line)?.[1]
      return complete === undefined
        ? undefined
        : browse(complete, { login: 'ann', password: 'any' }, () => false).catch(() => {})
    })
    expect(code, stderr).toBe(0)
    expect(stderr).toMatch(/\n[A-Z]{4}-[A-Z]{4}\n/)
    await live(home)
    // What the provider says of the token, for programs and for people.
    const { json } = await runCli(home, ['session', 'show', '--online', '--json'])
    const said = { active: true, clientId: 'sealsync', issuer: provider.origin, expiresAt: expect.any(Number) }
    expect(json[0]).toMatchObject({ type: 'session', introspection: said })
    const { stdout } = await runCli(home, ['session', 'show', '--online'])
    expect(stdout).toMatch(/the server says: the token is active\n {2}client {5}sealsync\n/)
    expect(await runCli(home, ['session', 'show'])).toMatchObject({
      stdout: expect.not.stringContaining('the server says:'),
    })
    expect((await runCli(home, ['logout', '--json'])).json[0]).toMatchObject({ revoked: true })
    expect((await runCli(home, ['whoami'])).code).toBe(4)
  })

  test('client credentials: secret from a private file only, renewed by asking again', async () => {
    const provider = await startProvider()
    const api = await roomServer(issuedBy(provider.origin))
    const { home, secret } = await place()
    const file = secret('secret', PROGRAM_SECRET)
    const args = (id: string, auth: string) => [
      'login',
      api.origin,
      '--method',
      'client-credentials',
      '--issuer',
      provider.origin,
      '--client-id',
      id,
      '--client-secret-file',
      file,
      '--client-auth',
      auth,
      '--scope',
      'all',
      '--json',
    ]
    for (const [id, auth] of [
      ['by-basic', 'basic'],
      ['by-post', 'post'],
    ] as const) {
      const login = await runCli(home, args(id, auth))
      expect(login.code, login.stderr).toBe(0)
      expect(login.json[0]).toMatchObject({ type: 'login', method: 'client-credentials' })
      await (id === 'by-basic' ? live(home) : expectRenewal(home))
    }
    chmodSync(file, 0o644)
    expect((await runCli(home, args('by-basic', 'basic'))).json.at(-1)).toMatchObject({ code: 'SECRET_FILE_OPEN' })
    const wrong = await runCli(home, args('by-basic', 'basic').with(9, secret('wrong', 'canary-wrong')))
    expect(wrong.code).toBe(4)
    expect(wrong.stdout + wrong.stderr).not.toContain('canary')
  })
})

test('browser without a browser: the code is shown by the server and read from standard input', async () => {
  const world = await createWorld({ keyPair: false })
  try {
    const home = world.path('home-2')
    const args = [world.server.url, '--no-browser', '--code', '-', '--client-id', 'dracoon_legacy_scripting']
    const { code, stderr } = await loginWith(home, args, async (line, say) => {
      if (!line.startsWith('http')) return
      const fill = { username: 'anna', password: 'account password of anna' }
      const back = await browse(line, fill, (url) => new URL(url).pathname === '/oauth/callback')
      // The input stays open: one line is enough.
      say(`${new URL(back).searchParams.get('code')}\n`)
    })
    expect(code, stderr).toBe(0)
    expect((await runCli(home, ['whoami', '--json'])).json[0]).toMatchObject({ user: 'anna', method: 'browser' })
  } finally {
    await world.close()
  }
})

test('a browser on another machine: the address that it ends at will do, without further options', async () => {
  const world = await createWorld({ keyPair: false })
  try {
    const fill = { username: 'anna', password: 'account password of anna' }
    const log = async (
      home: string,
      args: string[],
      finish: (back: string, say: (text: string) => void) => unknown,
    ) => {
      const { code, stderr } = await loginWith(
        world.path(home),
        [world.server.url, '--no-browser', ...args],
        async (line, say) => {
          if (!line.startsWith('http')) return
          // It stops before the address, which leads nowhere from there.
          await finish(await browse(line, fill, (url) => new URL(url).pathname === '/callback'), say)
        },
      )
      expect(code, stderr).toBe(0)
      expect((await runCli(world.path(home), ['whoami', '--json'])).json[0]).toMatchObject({
        user: 'anna',
        method: 'browser',
      })
    }
    await log('pasted', ['--code', '-'], (back, say) => say(`${back}\n`))
    await log('code', ['--code', '-'], (back, say) => say(`${new URL(back).searchParams.get('code')}\n`))
    // It may be this machine after all; nobody types anything then, and standard input stays open.
    await log('here', ['--code', '-'], (back) => fetch(back))
    await log('nobody', [], (back) => fetch(back))
    const other = await loginWith(
      world.path('other'),
      [world.server.url, '--no-browser', '--code', '-'],
      async (line, say) => {
        if (line.startsWith('http')) say('http://127.0.0.1:1/callback?code=x&state=y\n')
      },
    )
    expect([other.code, other.stderr]).toEqual([4, expect.stringContaining('belongs to another login')])
  } finally {
    await world.close()
  }
})

test.runIf(hasPty)(
  'at a terminal the same is asked for, and nothing has to be typed when the browser comes by itself',
  async () => {
    const world = await createWorld({ keyPair: false })
    try {
      const fill = { username: 'anna', password: 'account password of anna' }
      for (const pastes of [true, false]) {
        const home = world.path(`home-${pastes}`)
        const run = runInPty(
          [process.execPath, MAIN, 'login', world.server.url, '--no-browser'],
          { SEALSYNC_HOME: home },
          [500, 24],
        )
        await run.until((output) => output.includes('the address it led to'))
        const url = /https?:\S+/.exec(run.output())![0]
        const back = await browse(url, fill, (at) => new URL(at).pathname === '/callback')
        if (pastes) run.tell({ send: `${back}\r` })
        else await fetch(back)
        expect(await run.ended()).toEqual({ code: 0, echo: true })
        expect(run.output()).toContain('Logged in to')
      }
    } finally {
      await world.close()
    }
  },
)

test('a one-time code besides the password: from a file, or there is nobody to ask', async () => {
  const world = await createWorld({ keyPair: false })
  try {
    const file = world.path('authenticator')
    const password = ['--password-file', world.path('password-anna')]
    const add = (path: string) =>
      world.cli(['serve', 'user', 'add', 'otto', '--data', world.path('server'), '--one-time-codes', path, ...password])
    expect((await add(world.path('password-anna', 'x'))).code).toBe(10)
    const added = await add(file)
    expect(added.code, added.stderr).toBe(0)
    expect(statSync(file).mode & 0o777).toBe(0o600)
    expect(added.stdout + added.stderr).not.toContain('secret=')
    const text = new URL(readFileSync(file, 'utf8').trim()).searchParams.get('secret')!
    const bits = [...text].map((one) => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(one).toString(2).padStart(5, '0'))
    const secret = Uint8Array.from(bits.join('').match(/.{8}/g) ?? [], (byte) => Number.parseInt(byte, 2))
    const step = Math.floor(Date.now() / 30_000)
    const good = Array.from({ length: 30 }, (_, at) => codeAt(secret, step - 2 + at))
    const bad = Array.from({ length: 31 }, (_, at) => `0000${10 + at}`).find((one) => !good.includes(one))
    const home = world.path('home-2')
    const args = ['login', world.server.url, '--user', 'otto', ...password, '--json']
    const nobody = await runCli(home, args)
    expect([nobody.code, nobody.json.at(-1)?.code]).toEqual([4, 'CODE_NEEDED'])
    const wrong = await runCli(home, [...args, '--code', '-'], { input: `${bad}\n` })
    expect([wrong.code, wrong.json.at(-1)?.code]).toEqual([4, 'WRONG_CREDENTIALS'])
    // Nobody attends: the code is made of the app's secret, or comes from a program.
    const program = await runCli(home, [...args, '--otp-command', `printf ${bad}`])
    expect([program.code, program.json.at(-1)?.code]).toEqual([4, 'WRONG_CREDENTIALS'])
    const both = await runCli(home, [...args, '--otp-command', 'true', '--otp-secret-file', file])
    expect(both.code).toBe(2)
    const alone = await runCli(world.path('home-3'), [...args, '--otp-secret-file', file])
    expect(alone.code, alone.stderr).toBe(0)
    expect(alone.stdout + alone.stderr).not.toContain(text)
    // Each is good once, so the next one.
    const code = codeAt(secret, Math.floor(Date.now() / 30_000) + 1)
    const right = await runCli(home, [...args, '--code', '-'], { input: `${code}\n` })
    expect(right.code, right.stderr).toBe(0)
  } finally {
    await world.close()
  }
})

test('JWT assertions, with keys as PEM, encrypted PEM and JWK', async () => {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  let issued = 0
  const api = await httpServer(({ path, body, headers }, response) => {
    if (path === '/oauth/token') {
      const form = new URLSearchParams(body)
      const [head = '', claims = '', signature = ''] = String(form.get('assertion')).split('.')
      const key = { key: publicKey, dsaEncoding: 'ieee-p1363' } as const
      const good = verify('sha256', Buffer.from(`${head}.${claims}`), key, Buffer.from(signature, 'base64url'))
      const said = JSON.parse(Buffer.from(claims, 'base64url').toString())
      if (!good || said.iss !== 'backup' || said.sub !== 'ann') return json(response, { error: 'invalid_grant' }, 400)
      return json(response, { access_token: `jwt-${++issued}`, token_type: 'Bearer', expires_in: 600 })
    }
    if (!/^Bearer jwt-\d+$/.test(String(headers.authorization))) return json(response, {}, 401)
    return json(response, { id: 7, userName: 'ann' })
  })
  const { home, secret } = await place()
  const password = secret('key-password', 'canary pässword\n')
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' })
  const cipher = { cipher: 'aes-256-cbc', passphrase: Buffer.from('canary pässword') } as const
  const keys: [string, string | Buffer, string[]][] = [
    ['pem', pem, []],
    ['locked', privateKey.export({ type: 'pkcs8', format: 'pem', ...cipher }), ['--jwt-key-password-file', password]],
    ['jwk', JSON.stringify(privateKey.export({ format: 'jwk' })), []],
  ]
  for (const [name, content, more] of keys) {
    const args = ['--jwt-key-file', secret(name, content), '--jwt-issuer', 'backup', '--jwt-subject', 'ann', ...more]
    const login = await runCli(home, ['login', api.origin, ...args, '--json'])
    expect(login.code, login.stderr).toBe(0)
    await (name === 'pem' ? live(home) : expectRenewal(home))
  }
  const lacking = await runCli(home, ['login', api.origin, '--jwt-key-file', join(home, 'none'), '--jwt-issuer', 'i'])
  expect(lacking.code).toBe(2)
})

test('an access token from a file: read again when it is refused; nothing can renew it', async () => {
  let good = 'token-1'
  const api = await roomServer((token) => token === good)
  const { home, secret } = await place()
  const file = secret('token', 'token-1\n')
  const env = { SEALSYNC_ACCESS_TOKEN_FILE: file }
  expect((await runCli(home, ['login', api.origin], { env })).code).toBe(0)
  expect((await runCli(home, ['whoami'])).code).toBe(0)
  good = 'token-2'
  secret('token', 'token-2')
  expect((await runCli(home, ['whoami'])).code).toBe(0)
  good = 'token-3'
  const refused = await runCli(home, ['whoami', '--json'])
  expect(refused.code).toBe(4)
  expect(refused.stdout + refused.stderr).not.toContain('token-2')
})

test('a refresh token from a file is spent by the login, and the login goes on without the file', async () => {
  const world = await createWorld({ keyPair: false })
  try {
    const dump = world.path('dump.json')
    expect((await world.cli(['session', 'export', dump])).code).toBe(0)
    const { grant } = JSON.parse(readFileSync(dump, 'utf8'))
    const file = world.path('refresh-token')
    writeFileSync(file, grant.refreshToken, { mode: 0o600 })
    const home = world.path('home-2')
    const login = await runCli(home, ['login', world.server.url, '--refresh-token-file', file])
    expect(login.code, login.stderr).toBe(0)
    writeFileSync(file, 'gone')
    expect((await runCli(home, ['session', 'renew'])).code).toBe(0)
    expect((await runCli(home, ['whoami'])).code).toBe(0)
  } finally {
    await world.close()
  }
})

test('an API key goes along with every request to the server, and to no other', async () => {
  const api = await roomServer(() => true)
  const { home, secret } = await place()
  const token = secret('token', 'token-1')
  const key = ['--api-key-header', 'X-Api-Key', '--api-key-file', secret('key', 'canary-key\n')]
  const login = await runCli(home, ['login', api.origin, '--access-token-file', token, ...key])
  expect(login.code, login.stderr).toBe(0)
  expect((await runCli(home, ['whoami'])).code).toBe(0)
  const stamped = api.seen.filter(({ headers }) => headers.authorization !== undefined)
  expect(stamped.length).toBeGreaterThan(1)
  for (const { headers } of stamped) expect(headers['x-api-key']).toBe('canary-key')
  expect(login.stdout + login.stderr).not.toContain('canary')
})

describe('moving a login', () => {
  test('export takes it away, import takes it over; the file is private and never overwritten', async () => {
    const world = await createWorld({ keyPair: false })
    try {
      const file = world.path('login.json')
      const moved = await world.cli(['session', 'export', file, '--json'])
      expect(moved.code, moved.stderr).toBe(0)
      expect(statSync(file).mode & 0o777).toBe(0o600)
      expect((await world.cli(['whoami'])).code).toBe(4)
      expect(readdirSync(world.home).filter((name) => !name.startsWith('locks'))).toEqual([])

      const home = world.path('home-2')
      const imported = await runCli(home, ['session', 'import', file, '--json'])
      expect(imported.code, imported.stderr).toBe(0)
      expect(imported.json[0]).toMatchObject({ type: 'imported', user: 'anna', server: world.server.url })
      expect((await runCli(home, ['whoami'])).code).toBe(0)
      expect((await runCli(home, ['session', 'import', file, '--json'])).json.at(-1)).toMatchObject({
        code: 'PROFILE_EXISTS',
      })
      const occupied = world.path('occupied.json')
      writeFileSync(occupied, 'of somebody else', { mode: 0o600 })
      expect((await runCli(home, ['session', 'export', occupied, '--json'])).json.at(-1)).toMatchObject({
        code: 'FILE_EXISTS',
      })
      expect((await runCli(home, ['whoami'])).code).toBe(0)

      // Through a pipe, kept, into an encrypted store of another profile.
      const piped = await runCli(home, ['session', 'export', '-', '--keep'])
      const store = ['--session-key-command', "printf 'the key of this store'"]
      const other = ['--profile', 'other', ...store]
      const taken = await runCli(home, ['session', 'import', '-', ...other], { input: piped.stdout })
      expect(taken.code, taken.stderr).toBe(0)
      expect((await runCli(home, ['whoami', ...other])).code).toBe(0)
      const blind = await runCli(home, ['whoami', '--profile', 'other', '--json'])
      expect([blind.code, blind.json.at(-1)?.code]).toEqual([4, 'STORE_KEY_MISSING'])
      const wrong = ['--session-key-command', "printf 'another'"]
      const unopened = await runCli(home, ['whoami', '--profile', 'other', '--json', ...wrong])
      expect([unopened.code, unopened.json.at(-1)?.code]).toEqual([4, 'STORE_KEY_WRONG'])
      const { accessToken, refreshToken } = JSON.parse(piped.stdout).grant
      for (const name of readdirSync(home).filter((one) => one.endsWith('.enc'))) {
        const bytes = readFileSync(join(home, name))
        for (const token of [accessToken, refreshToken]) expect(bytes.includes(token)).toBe(false)
      }
    } finally {
      await world.close()
    }
  })

  test.each([
    ['nothing of ours', '{"some":"json"}', 'SESSION_INVALID'],
    ['no JSON', 'canary', 'SESSION_INVALID'],
    ['without a profile', '', 'PROFILE_DAMAGED'],
  ])('%s is refused', async (_name, content, code) => {
    const { home, secret } = await place()
    const grant = { v: 1, accessToken: 'canary' }
    const dump = { type: 'sealsync-session', v: 1, origin: 'https://x.example', method: 'password', grant }
    const file = secret('dump', content || JSON.stringify(dump))
    const run = await runCli(home, ['session', 'import', file, '--json'])
    expect([run.code, run.json.at(-1)?.code]).toEqual([2, code])
    expect(run.stdout + run.stderr).not.toContain('canary')
    expect(existsSync(join(home, 'profile-default.json'))).toBe(false)
  })
})

test('profiles: several accounts, listed, shown, renamed, removed', async () => {
  const world = await createWorld({ users: ['anna', 'bob'], keyPair: false })
  try {
    const bob = ['login', world.server.url, '--user', 'bob', '--password-file', world.path('password-bob')]
    expect((await world.cli([...bob, '--profile', 'bob', '--connect-timeout', '90s'])).code).toBe(0)
    const list = async () => (await world.cli(['profile', 'list', '--json'])).json
    expect(await list()).toMatchObject([
      { name: 'bob', user: 'bob', current: false },
      { name: 'default', user: 'anna', current: true },
    ])
    expect((await world.cli(['whoami', '--json', '--profile', 'bob'])).json[0]).toMatchObject({ user: 'bob' })
    // What was given at the login holds later.
    expect((await world.cli(['config', 'show', '--json', '--profile', 'bob'])).json).toContainEqual({
      type: 'setting',
      name: 'connect-timeout',
      value: 90_000,
      origin: 'profile bob',
    })
    expect((await world.cli(['profile', 'show', 'bob', '--json'])).json[0]).toMatchObject({
      user: 'bob',
      method: 'password',
      options: { 'connect-timeout': '90000ms' },
    })
    expect((await world.cli(['profile', 'rename', 'bob', 'default', '--json'])).json.at(-1)).toMatchObject({
      code: 'PROFILE_EXISTS',
    })
    expect((await world.cli(['profile', 'rename', 'bob', 'work'])).code).toBe(0)
    expect((await world.cli(['whoami', '--profile', 'work'])).code).toBe(0)
    expect((await world.cli(['profile', 'remove', 'work'])).code).toBe(0)
    expect(await list()).toHaveLength(1)
    for (const args of [
      ['show', 'work'],
      ['remove', 'work'],
      ['rename', 'work', 'x'],
    ]) {
      const run = await world.cli(['profile', ...args, '--json'])
      expect([run.code, run.json.at(-1)?.code], args.join(' ')).toEqual([2, 'PROFILE_MISSING'])
    }
    expect((await world.cli(['profile', 'show', '../x', '--json'])).json.at(-1)).toMatchObject({ code: 'PROFILE_NAME' })
    writeFileSync(join(world.home, 'profile-broken.json'), '{', { mode: 0o600 })
    expect(await list()).toContainEqual({ type: 'profile', name: 'broken', current: false, damaged: true })
  } finally {
    await world.close()
  }
})

describe('doctor', () => {
  const states = (run: { json: Record<string, unknown>[] }) =>
    Object.fromEntries(run.json.filter(({ type }) => type === 'check').map(({ name, state }) => [name, state]))

  test('all well, then a login that does not hold, then no server', async () => {
    const world = await createWorld({ keyPair: false })
    try {
      const well = await world.cli(['doctor', '--json'])
      expect(well.code, well.stdout).toBe(0)
      expect(states(well)).toMatchObject({
        settings: 'ok',
        home: 'ok',
        tls: 'ok',
        server: 'ok',
        clock: 'ok',
        login: 'ok',
        'key pair': 'warn',
      })
      const path = readdirSync(world.home).find((name) => name.startsWith('grant-') && name.endsWith('.json'))!
      const grant = JSON.parse(readFileSync(join(world.home, path), 'utf8'))
      const broken = { ...grant, accessToken: 'x', refreshToken: 'y' }
      writeFileSync(join(world.home, path), JSON.stringify(broken), { mode: 0o600 })
      const refused = await world.cli(['doctor', '--json'])
      expect(refused.code).toBe(4)
      expect(states(refused)).toMatchObject({ server: 'ok', login: 'fail' })
      await world.server.close()
      const gone = await world.cli(['doctor', '--json'])
      expect(gone.code).toBe(5)
      expect(states(gone)).toMatchObject({ server: 'fail' })
    } finally {
      await world.close()
    }
  })

  test('something else at the address, a clock that is off, settings that are wrong', async () => {
    const { home } = await place()
    const other = await httpServer((_request, response) => response.writeHead(404).end('<html>'))
    const run = await runCli(home, ['doctor', other.origin, '--json'])
    expect(run.code).toBe(5)
    expect(run.json.find(({ name }) => name === 'server')).toMatchObject({ state: 'fail', code: 'NOT_COMPATIBLE' })
    const portal = await httpServer((_request, response) => response.end('<html>canary'))
    const caught = await runCli(home, ['doctor', portal.origin, '--json'])
    expect(caught.code).toBe(5)
    expect(caught.json.find(({ name }) => name === 'server')).toMatchObject({ state: 'fail', code: 'NOT_COMPATIBLE' })
    expect(caught.stdout + caught.stderr).not.toContain('canary')
    const late = await httpServer((_request, response) =>
      json(response, { restApiVersion: '4.0' }, 200, { date: new Date(Date.now() - 3_600_000).toUTCString() }),
    )
    const skewed = await runCli(home, ['doctor', late.origin, '--json', '-q'])
    expect(states(skewed)).toMatchObject({ clock: 'warn', login: 'warn' })
    const wrong = await runCli(home, ['doctor', late.origin, '--json', '--connections', '0'])
    expect(wrong.code).toBe(2)
    expect(states(wrong)).toMatchObject({ settings: 'fail' })
  })
})
