/** Logins at the command line that go wrong, and what must not get lost or be left behind by them. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createWorld, MAIN, runCli, type World } from '../support/cli.ts'
import { browse } from '../support/oauth.ts'

let world: World
beforeAll(async () => {
  world = await createWorld({ users: ['anna', 'bob'], keyPair: false })
})
afterAll(() => world.close())

let homes = 0
const newHome = () => world.path(`home-${++homes}`)
const asUser = (name: string) => [
  'login',
  world.server.url,
  '--user',
  name,
  '--password-file',
  world.path(`password-${name}`),
]
const grants = (home: string) => readdirSync(home).filter((name) => /^grant-.*\.(json|enc)$/.test(name))
const secret = (name: string, content: string | Uint8Array, mode = 0o600) => {
  writeFileSync(world.path(name), content)
  chmodSync(world.path(name), mode)
  return world.path(name)
}

describe('what is wrong with the command: 2, and nothing is sent', () => {
  test.each([
    [['--issuer', 'nonsense'], 'ENDPOINT_INVALID'],
    [['--issuer', 'http://login.example.org'], 'URL_INSECURE'],
    [['--no-browser', '--redirect-uri', 'nonsense'], 'REDIRECT_INVALID'],
    [['--proxy', 'http://me:canary@127.0.0.1:9'], 'OPTION_INVALID'],
    [['--max-answer', '1K'], 'OPTION_INVALID'],
  ])('%j', async (args, code, exit = 2) => {
    const run = await runCli(newHome(), ['login', world.server.url, ...args, '--json'])
    expect([run.code, run.json.at(-1)?.code]).toEqual([exit, code])
    expect(run.stdout + run.stderr).not.toContain('canary')
  })

  test.skipIf(process.platform === 'win32')('a client key that others can read (POSIX modes)', async () => {
    const pem = (kind: string) => `-----BEGIN ${kind}-----\nAAAA\n-----END ${kind}-----\n`
    const cert = secret('cert.pem', pem('CERTIFICATE'), 0o644)
    const key = ['--client-cert', cert, '--client-key', secret('key.pem', pem('PRIVATE KEY'), 0o644)]
    const both = ['--client-cert', secret('both.pem', pem('CERTIFICATE') + pem('PRIVATE KEY'), 0o644)]
    const p12 = ['--client-cert', secret('client.p12', Uint8Array.of(0x30, 0x80), 0o644)]
    for (const args of [key, both, p12]) {
      const run = await runCli(newHome(), [...asUser('anna'), ...args, '--json'])
      expect([run.code, run.json.at(-1)?.code], args.join(' ')).toEqual([2, 'SECRET_FILE_OPEN'])
    }
  })

  test('a secret without end, from a file or standard input', async () => {
    const long = 'x'.repeat(70_000)
    for (const [file, input] of [
      [secret('long', long), ''],
      ['-', long],
    ] as const) {
      const args = ['login', world.server.url, '--user', 'anna', '--password-file', file, '--json']
      const run = await runCli(newHome(), args, { input })
      expect([run.code, run.json.at(-1)?.code], file).toEqual([2, 'SECRET_TOO_LONG'])
    }
  })
})

test.skipIf(process.platform === 'win32')(
  'a browser that stays in the foreground does not end the login (sh)',
  async () => {
    const browser = secret('browser', '#!/bin/sh\nexec sleep 30\n', 0o700)
    const home = newHome()
    const args = ['login', world.server.url, '--client-id', 'dracoon_legacy_scripting', '--code', '-']
    const env = { PATH: process.env.PATH ?? '', SEALSYNC_HOME: home, SEALSYNC_BROWSER: browser }
    const child = spawn(process.execPath, [MAIN, ...args], { env, stdio: ['pipe', 'ignore', 'pipe'] })
    let stderr = ''
    child.stderr.on('data', async (data) => {
      const before = stderr
      stderr += data
      const url = /^http\S+$/m.exec(stderr)?.[0]
      if (url === undefined || /^http\S+$/m.test(before)) return
      const fill = { username: 'anna', password: 'account password of anna' }
      const back = await browse(url, fill, (at) => new URL(at).pathname === '/oauth/callback')
      child.stdin.write(`${new URL(back).searchParams.get('code')}\n`)
    })
    const [code] = await once(child, 'close')
    expect(code, stderr).toBe(0)
  },
)

describe('nothing is left behind', () => {
  test('a login that takes the place of another removes what nothing leads to any more', async () => {
    const home = newHome()
    expect((await runCli(home, asUser('anna'))).code).toBe(0)
    const [first] = grants(home)
    expect((await runCli(home, [...asUser('anna'), '--profile', 'second'])).code).toBe(0)
    // Two profiles, one login: it stays as long as one of them is there.
    expect(grants(home)).toEqual([first])
    expect((await runCli(home, asUser('bob'))).code).toBe(0)
    expect(grants(home)).toHaveLength(2)
    const sealed = ['--profile', 'second', '--session-key-command', 'printf key']
    expect((await runCli(home, [...asUser('anna'), ...sealed])).code).toBe(0)
    expect(grants(home)).not.toContain(first)
    expect((await runCli(home, ['whoami', ...sealed, '--json'])).json[0]).toMatchObject({ user: 'anna' })
    expect((await runCli(home, ['whoami', '--json'])).json[0]).toMatchObject({ user: 'bob' })
  })

  test('one login in two profiles: removing one leaves the other', async () => {
    const home = newHome()
    for (const name of ['a', 'b']) expect((await runCli(home, [...asUser('anna'), '--profile', name])).code).toBe(0)
    expect((await runCli(home, ['profile', 'remove', 'a'])).code).toBe(0)
    expect((await runCli(home, ['whoami', '--profile', 'b'])).code).toBe(0)
    expect((await runCli(home, ['profile', 'remove', 'b'])).code).toBe(0)
    expect(grants(home)).toEqual([])
  })

  test('two ways to log in as one user do not take each other’s tokens', async () => {
    const home = newHome()
    expect((await runCli(home, asUser('anna'))).code).toBe(0)
    const [name] = grants(home)
    const { accessToken } = JSON.parse(readFileSync(join(home, name!), 'utf8'))
    const token = ['login', world.server.url, '--access-token-file', secret('token', accessToken), '--profile', 'token']
    expect((await runCli(home, token)).code).toBe(0)
    expect((await runCli(home, ['whoami', '--profile', 'token'])).code).toBe(0)
    expect((await runCli(home, ['session', 'renew'])).code).toBe(0)
  })

  test('a logout with the wrong key of the store removes it all the same', async () => {
    const home = newHome()
    expect((await runCli(home, [...asUser('anna'), '--session-key-command', 'printf key'])).code).toBe(0)
    const out = await runCli(home, ['logout', '--session-key-command', 'printf other', '--json'])
    expect([out.code, out.json.at(-1)?.code]).toEqual([4, 'STORE_KEY_WRONG'])
    expect(grants(home)).toEqual([])
    expect(existsSync(join(home, 'profile-default.json'))).toBe(false)
  })
})

test.skipIf(process.platform !== 'linux')(
  'a keyring that has gone: said, and nothing is forgotten (Linux)',
  async () => {
    const home = newHome()
    expect((await runCli(home, asUser('anna'))).code).toBe(0)
    const path = join(home, 'profile-default.json')
    const profile = JSON.parse(readFileSync(path, 'utf8'))
    writeFileSync(path, JSON.stringify({ ...profile, store: 'keyring' }), { mode: 0o600 })
    const env = { DBUS_SESSION_BUS_ADDRESS: `unix:path=${world.path('no-bus')}` }
    for (const command of ['whoami', 'logout']) {
      const run = await runCli(home, [command, '--json'], { env })
      expect([run.code, run.json.at(-1)?.code], command).toEqual([4, 'KEYRING_MISSING'])
    }
    expect(existsSync(path)).toBe(true)
  },
)

describe('moving a login', () => {
  test.skipIf(process.platform === 'win32')('into a pipe that nobody reads: it stays here (sh)', async () => {
    const home = newHome()
    expect((await runCli(home, asUser('anna'))).code).toBe(0)
    const env = { PATH: process.env.PATH ?? '', SEALSYNC_HOME: home }
    const script = `"${process.execPath}" "${MAIN}" session export - | true; exit \${PIPESTATUS[0]}`
    const child = spawn('bash', ['-c', script], { env, stdio: ['ignore', 'ignore', 'pipe'] })
    const [code] = await once(child, 'close')
    expect(code).not.toBe(0)
    expect((await runCli(home, ['whoami'])).code).toBe(0)
  })

  test('a program that the exported profile names is not run here', async () => {
    const from = newHome()
    expect((await runCli(from, asUser('anna'))).code).toBe(0)
    const { stdout } = await runCli(from, ['session', 'export', '-'])
    const dump = JSON.parse(stdout)
    const mark = world.path('was-run')
    const options = { 'session-key-command': `touch ${mark}`, 'key-password-command': `touch ${mark}`, jobs: 3 }
    const home = newHome()
    mkdirSync(home, { mode: 0o700 })
    const input = JSON.stringify({ ...dump, profile: { ...dump.profile, options } })
    const taken = await runCli(home, ['session', 'import', '-'], { input })
    expect(taken.code, taken.stderr).toBe(0)
    expect(taken.stderr).toContain('session-key-command')
    expect((await runCli(home, ['whoami'])).code).toBe(0)
    expect((await runCli(home, ['profile', 'show', '--json'])).json[0]).toMatchObject({ options: { jobs: 3 } })
    expect(existsSync(mark)).toBe(false)
  })
})
