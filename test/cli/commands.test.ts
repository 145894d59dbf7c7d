import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { display, showBytes } from '../../src/cli/display.ts'
import { exitCodeOf, exitCodeOfRun } from '../../src/cli/exit-codes.ts'
import { splitCommand } from '../../src/cli/secrets.ts'
import { type ErrorClass, SyncError, type SyncErrorCode } from '../../src/errors.ts'
import { createWorld, KEY_PASSWORD, MAIN, makeTree, runCli, type World } from '../support/cli.ts'
import { freePort } from '../support/ports.ts'

let world: World
beforeAll(async () => {
  world = await createWorld({ users: ['anna', 'bob'] })
})
afterAll(() => world.close())

describe('every command', () => {
  const commands = [
    'login', 'logout', 'whoami', 'keys create', 'keys status', 'keys distribute', 'keys remember', 'keys forget', 'keys list', 'keys verify', 'keys trust', 'bench', 'room create', 'room members', 'ls',
    'mkdir', 'rm', 'stat', 'cat', 'upload', 'download', 'serve', 'serve user add',
  ] // biome-ignore format: one line reads better
  test.each(commands)('%s has help with the options that all have', async (command) => {
    const { code, stdout } = await world.cli([...command.split(' '), '--help'])
    expect(code).toBe(0)
    for (const option of ['--json', '--quiet', '--verbose', '--help']) expect(stdout).toContain(option)
    expect(stdout).not.toMatch(/--\S*password <|--\S*secret <|--\S*token </)
  })

  test('the program lists them all, with the exit codes; unknown ones are refused', async () => {
    const { stdout } = await world.cli(['--help'])
    for (const name of ['login', 'upload', 'download', 'serve', 'Exit codes']) expect(stdout).toContain(name)
    expect((await world.cli(['--version'])).stdout).toMatch(/^\d+\.\d+\.\d+\n$/)
    const unknown = await world.cli(['nonsense', '--json'])
    expect(unknown.code).toBe(2)
    expect(unknown.json.at(-1)).toMatchObject({ type: 'error', exitCode: 2 })
  })
})

describe('looking at the server and changing single things', () => {
  test('whoami, room, mkdir, ls, stat, rm as JSON', async () => {
    const json = async (...args: string[]) => {
      const run = await world.cli([...args, '--json'])
      expect(run.stderr).not.toContain('error')
      expect(run.code).toBe(0)
      return run.json
    }
    expect((await json('whoami'))[0]).toMatchObject({ type: 'whoami', user: 'anna', hasKeyPair: true })
    expect((await json('keys', 'status'))[0]).toMatchObject({
      type: 'keys',
      keyPairs: [{ version: 'RSA-4096', iterations: 1000, current: false }],
      missingFileKeys: 0,
    })
    expect((await json('room', 'create', '/second'))[0]).toMatchObject({
      kind: 'room',
      name: 'second',
      encrypted: true,
    })
    expect((await json('mkdir', '-p', '/second/a/b'))[0]).toMatchObject({ kind: 'folder', name: 'b', encrypted: true })
    expect((await json('ls', '/second')).map((node) => node.name)).toEqual(['a'])
    expect((await json('stat', '/second/a'))[0]).toMatchObject({ kind: 'folder', path: '/second/a' })
    expect(
      (await json('room', 'members', '/second', '--add', 'bob', '--role', 'admin')).map((row) => row.role),
    ).toEqual(['admin', 'admin'])
    expect((await json('room', 'members', '/second', '--remove', 'bob')).length).toBe(1)
    expect((await json('rm', '-r', '/second/a'))[0]).toMatchObject({ type: 'deleted', path: '/second/a' })
    expect(await json('ls', '/second')).toEqual([])
    expect((await world.cli(['rm', '-r', '/second'])).code).toBe(9)
    await json('rm', '-r', '--force', '/second')
    expect((await json('ls', '/')).map((node) => node.name)).toEqual(['room'])
  })

  test.each([
    [['room', 'create', '/room'], 12],
    [['room', 'create', '/a/b'], 2],
    [['room', 'members', '/room', '--add', 'nobody'], 2],
    [['room', 'members', '/nowhere'], 2],
    [['mkdir', '/room'], 12],
    [['mkdir', '/room/x/y'], 2],
    [['rm', '/room/nothing'], 2],
    [['rm', '/room'], 2],
    [['stat', '/room/nothing'], 2],
    [['cat', '/room'], 2],
    [['keys', 'create'], 12],
  ])('%j ends with %i', async (args, code) => {
    expect((await world.cli(args as string[])).code).toBe(code)
  })
})

describe('secrets', () => {
  /** Needs the private key each time; to upload does not, where the own key has been proven. */
  const reading = () => ['cat', '/room/secrets/f']
  beforeAll(async () => {
    makeTree(world.path('secrets'), { f: 'x' })
    expect(
      (await world.cli(['upload', world.path('secrets'), '/room', '--key-password-file', world.keyPasswordFile])).code,
    ).toBe(0)
  })

  test('from a file with one line end of either kind, from a command, from standard input, from the environment', async () => {
    for (const end of ['', '\n', '\r\n']) {
      writeFileSync(world.path('pw'), `${KEY_PASSWORD}${end}`, { mode: 0o600 })
      expect((await world.cli([...reading(), '--key-password-file', world.path('pw')])).code).toBe(0)
    }
    writeFileSync(world.path('pw'), `${KEY_PASSWORD}\n\n`, { mode: 0o600 })
    expect((await world.cli([...reading(), '--key-password-file', world.path('pw')])).code).toBe(13)
    expect((await world.cli([...reading(), '--key-password-command', `printf '%s\\n' '${KEY_PASSWORD}'`])).code).toBe(0)
    expect((await world.cli([...reading(), '--key-password-command', 'false'])).code).toBe(2)
    expect((await world.cli([...reading(), '--key-password-command', '/no/such/program'])).code).toBe(2)
    expect((await world.cli([...reading(), '--key-password-file', '-'], { input: `${KEY_PASSWORD}\n` })).code).toBe(0)
    expect((await world.cli(reading(), { env: { SEALSYNC_KEY_PASSWORD: KEY_PASSWORD } })).code).toBe(0)
    expect((await world.cli([...reading(), '--key-password-file', world.path('no-such-file')])).code).toBe(2)
  })

  test('a command given as a flag goes before a file from the environment', async () => {
    writeFileSync(world.path('stale'), 'an old password', { mode: 0o600 })
    const env = { SEALSYNC_KEY_PASSWORD_FILE: world.path('stale') }
    expect((await world.cli(reading(), { env })).code).toBe(13)
    const command = ['--key-password-command', `printf '%s' '${KEY_PASSWORD}'`]
    expect((await world.cli([...reading(), ...command], { env })).code).toBe(0)
  })

  test('an environment secret is not passed on to child processes', async () => {
    writeFileSync(world.path('show'), `#!/bin/sh\nenv > ${world.path('env')}\nprintf '%s' '${KEY_PASSWORD}'\n`, {
      mode: 0o755,
    })
    const run = await world.cli([...reading(), '--key-password-command', world.path('show')], {
      env: { SEALSYNC_KEY_PASSWORD: 'canary in the environment' },
    })
    expect([run.code, run.stdout]).toEqual([0, 'x'])
    expect(readFileSync(world.path('env'), 'utf8')).not.toContain('canary in the environment')
  })

  test('nothing secret is on disk in clear, but the login where no keyring is, and that is private', async () => {
    const files = spawnSync('find', [world.home, '-type', 'f']).stdout.toString().trim().split('\n')
    expect(files.length).toBeGreaterThan(1)
    for (const file of files) {
      expect(statSync(file).mode & 0o077, file).toBe(0)
      expect(readFileSync(file, 'utf8'), file).not.toContain(KEY_PASSWORD)
      expect(readFileSync(file, 'utf8'), file).not.toContain('account password')
    }
  })

  test('a command line is split like a shell does', () => {
    expect(splitCommand(`pass show "a b" 'c "d"' e\\ f ""`)).toEqual(['pass', 'show', 'a b', 'c "d"', 'e f', ''])
    expect(() => splitCommand('"open')).toThrow(SyncError)
    expect(() => splitCommand('  ')).toThrow(SyncError)
  })
})

test('flag wins over environment wins over profile', async () => {
  const path = join(world.home, 'profile-default.json')
  const profile = JSON.parse(readFileSync(path, 'utf8'))
  makeTree(world.path('p'), { f: 'x' })
  const run = (...more: string[]) => world.transfer(['upload', world.path('p'), '/room/p', ...more])
  writeFileSync(path, JSON.stringify({ ...profile, options: { jobs: 0 } }))
  expect((await run()).code).toBe(2)
  expect((await world.transfer(['upload', world.path('p'), '/room/p'], { env: { SEALSYNC_JOBS: '2' } })).code).toBe(0)
  expect(
    (await world.transfer(['upload', world.path('p'), '/room/p', '-j', '3'], { env: { SEALSYNC_JOBS: '0' } })).code,
  ).toBe(0)
  writeFileSync(path, '{"v":1')
  expect((await run()).code).toBe(2)
  writeFileSync(path, JSON.stringify(profile))
  expect((await run()).code).toBe(0)
})

describe('serve', () => {
  const start = async (args: string[]) => {
    const child = spawn(process.execPath, [MAIN, 'serve', '--json', ...args], {
      env: { ...process.env, SEALSYNC_HOME: world.path('serve-home') },
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    const [line] = (await once(child.stdout!, 'data')) as [Buffer]
    return { child, url: String(JSON.parse(line.toString()).url) }
  }
  const stop = async (child: ReturnType<typeof spawn>, signal: NodeJS.Signals = 'SIGTERM') => {
    const closed = once(child, 'close')
    child.kill(signal)
    return (await closed)[0]
  }

  test('over TLS with a private authority: refused without it, works with --ca-file, end to end', async () => {
    const dir = world.path('tls')
    mkdirSync(dir)
    const made = spawnSync('openssl', [
      'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=test',
      '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', join(dir, 'key.pem'), '-out', join(dir, 'cert.pem'),
    ]) // biome-ignore format: one line reads better
    expect(made.status, String(made.stderr)).toBe(0)
    const data = join(dir, 'data')
    const { child, url } = await start([
      '--data',
      data,
      '--tls-cert',
      join(dir, 'cert.pem'),
      '--tls-key',
      join(dir, 'key.pem'),
    ])
    try {
      expect(url).toMatch(/^https:/)
      // An account made while the server runs.
      const add = await runCli(world.home, [
        'serve',
        'user',
        'add',
        'tina',
        '--data',
        data,
        '--password-file',
        world.path('password-anna'),
      ])
      expect(add.code).toBe(0)
      expect(
        (
          await runCli(world.home, [
            'serve',
            'user',
            'add',
            'tina',
            '--data',
            data,
            '--password-file',
            world.path('password-anna'),
          ])
        ).code,
      ).toBe(12)
      const home = join(dir, 'home')
      const login = ['login', url, '--user', 'tina', '--password-file', world.path('password-anna')]
      expect((await runCli(home, login)).code).toBe(5)
      expect((await runCli(home, [...login, '--ca-file', join(dir, 'cert.pem')])).code).toBe(0)
      const key = ['--key-password-file', world.keyPasswordFile]
      expect((await runCli(home, ['keys', 'create', ...key])).code).toBe(0)
      expect((await runCli(home, ['room', 'create', '/r'])).code).toBe(0)
      makeTree(join(dir, 'src'), { f: Buffer.alloc(3_000_000, 'tls') })
      expect((await runCli(home, ['upload', join(dir, 'src'), '/r', ...key])).code).toBe(0)
      expect((await runCli(home, ['download', '/r/src', join(dir, 'out'), ...key])).code).toBe(0)
      expect(readFileSync(join(dir, 'out/src/f')).equals(readFileSync(join(dir, 'src/f')))).toBe(true)
      const insecure = await runCli(home, ['ls', '/'], { env: { NODE_TLS_REJECT_UNAUTHORIZED: '0' } })
      expect(insecure.code).toBe(5)
      expect(insecure.stderr).toContain('certificate checks off')
    } finally {
      expect(await stop(child)).toBe(0)
    }
  })

  test('keeps everything over a restart; a second server on the same data is refused', async () => {
    const data = world.path('restart')
    const first = await start(['--data', data, '--storage', 's3', '--port', String(await freePort())])
    expect(
      (
        await runCli(world.home, [
          'serve',
          'user',
          'add',
          'rita',
          '--data',
          data,
          '--password-file',
          world.path('password-anna'),
        ])
      ).code,
    ).toBe(0)
    expect((await runCli(world.home, ['serve', '--data', data])).code).not.toBe(0)
    const home = world.path('restart-home')
    const login = ['--user', 'rita', '--password-file', world.path('password-anna')]
    expect((await runCli(home, ['login', first.url, ...login])).code).toBe(0)
    expect((await runCli(home, ['room', 'create', '/kept', '--plain'])).code).toBe(0)
    expect(await stop(first.child, 'SIGKILL')).toBe(null)
    const second = await start(['--data', data, '--port', new URL(first.url).port])
    try {
      // The login is still good, and so is the room.
      expect((await runCli(home, ['ls', '/'])).stdout).toBe('kept/\n')
    } finally {
      expect(await stop(second.child, 'SIGINT')).toBe(0)
    }
  })

  test('misbehaves by a plan of faults from a file, and refuses a plan that is none', async () => {
    const data = world.path('faulty')
    const plan = world.path('faults.json')
    const password = world.path('password-anna')
    writeFileSync(
      plan,
      JSON.stringify([{ on: { method: 'GET', path: '/user/account$' }, after: 1, do: { status: 403 } }]),
    )
    expect(
      (await runCli(world.home, ['serve', 'user', 'add', 'flo', '--data', data, '--password-file', password])).code,
    ).toBe(0)
    const { child, url } = await start(['--data', data, '--faults', plan])
    try {
      const home = world.path('faulty-home')
      expect((await runCli(home, ['login', url, '--user', 'flo', '--password-file', password])).code).toBe(0)
      expect((await runCli(home, ['whoami'])).code).toBe(6)
      expect((await runCli(home, ['whoami'])).code).toBe(0)
    } finally {
      await stop(child)
    }
    writeFileSync(plan, '[{"on":{},"do":{"explode":true}}]')
    expect((await runCli(world.home, ['serve', '--data', data, '--faults', plan])).code).toBe(2)
  })

  test.each([
    [['serve'], 2],
    [['serve', '--data', '/tmp/x', '--host', '0.0.0.0'], 2],
    [['serve', '--data', '/tmp/x', '--tls-cert', '/nope'], 2],
    [['serve', '--data', '/tmp/x', '--port', '70000'], 2],
    [['serve', '--data', '/tmp/x', '--faults', '/nope'], 2],
    [['login', 'http://example.org'], 2],
    [['login', 'ftp://example.org'], 2],
    [['login', 'https://user:pw@example.org'], 2],
    [['login', 'http://127.0.0.1:1', '--password-file', 'x'], 2],
    [['whoami', '--profile', '../x'], 2],
    [['whoami', '--profile', 'unknown'], 4],
  ])('%j ends with %i', async (args, code) => {
    const { stderr, code: actual } = await runCli(world.home, args as string[])
    expect(actual, stderr).toBe(code)
  })
})

describe('the other sync', () => {
  test('is called when ours is called like it, and only then', async () => {
    const bin = world.path('bin')
    const later = world.path('later')
    mkdirSync(bin)
    mkdirSync(later)
    symlinkSync(MAIN, join(bin, 'sync'))
    symlinkSync(MAIN, join(bin, 'sealsync'))
    chmodSync(MAIN, 0o755)
    writeFileSync(join(later, 'sync'), '#!/bin/sh\necho "theirs $*"\nexit 7\n', { mode: 0o755 })
    const env = { PATH: `${bin}:${later}:${process.env.PATH}`, SEALSYNC_HOME: world.home }
    const call = async (program: string, ...args: string[]) => {
      const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'] })
      let out = ''
      child.stdout.on('data', (chunk) => {
        out += chunk
      })
      const [code] = await once(child, 'close')
      return { code, out }
    }
    expect(await call('sync')).toEqual({ code: 7, out: 'theirs \n' })
    expect(await call('sync', '-f', '/tmp')).toEqual({ code: 7, out: 'theirs -f /tmp\n' })
    expect((await call('sync', '--data', 'x')).out).toBe('theirs --data x\n')
    expect((await call('sync', '--version')).out).toMatch(/^\d/)
    expect((await call('sealsync')).out).not.toContain('theirs')
    rmSync(join(later, 'sync'))
  })
})

describe('what is shown and returned', () => {
  test('foreign text cannot steer the terminal', () => {
    const hostile = 'a\u001b[2Jb\u0007c\u009bd\u202ee\u2028f\u200bg\u0000h\ud800'
    const shown = display(hostile)
    expect(shown).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u2028\u202e\u200b\ud800]/)
    expect(shown).toContain('\\u{1b}[2J')
    expect(display('x'.repeat(1000), 10)).toBe(`${'x'.repeat(9)}…`)
    expect([0, 999, 1000, 1_500_000, 999_950_000].map(showBytes)).toEqual([
      '0 B',
      '999 B',
      '1.0 kB',
      '1.5 MB',
      '1.0 GB',
    ])
  })

  test('exit codes follow from the class, and the worst wins', () => {
    const error = (kind: ErrorClass, code: SyncErrorCode = 'INTERNAL') => new SyncError(kind, code, 'x')
    const table: [ErrorClass, number][] = [
      ['usage', 2], ['not_found', 2], ['auth', 4], ['network', 5], ['tls', 5], ['server', 5], ['rate_limit', 5],
      ['permission', 6], ['quota', 6], ['limit', 6], ['integrity', 7], ['safety', 9], ['local_io', 10], ['conflict', 12],
      ['key', 13], ['changed', 3], ['cancelled', 130], ['internal', 1],
    ] // biome-ignore format: a table
    for (const [kind, code] of table) expect(exitCodeOf(error(kind)), kind).toBe(code)
    expect(exitCodeOf(error('conflict', 'LOCKED'))).toBe(8)
    const run = (kinds: ErrorClass[], stoppedBy?: SyncError, direction: 'upload' | 'download' = 'upload') =>
      exitCodeOfRun(
        {
          failed: kinds.map((kind) => ({ path: 'p', error: error(kind) })),
          ...(stoppedBy === undefined ? {} : { stoppedBy }),
        },
        direction,
      )
    expect(run([])).toBe(0)
    expect(run(['usage', 'network', 'local_io', 'changed', 'not_found'])).toBe(3)
    expect(run(['local_io', 'usage'], undefined, 'download')).toBe(10)
    expect(run(['usage', 'conflict'])).toBe(12)
    expect(run(['conflict', 'key', 'usage'])).toBe(13)
    expect(run(['key', 'safety'])).toBe(9)
    expect(run(['safety', 'integrity', 'key'])).toBe(7)
    expect(run(['usage'], error('network'))).toBe(5)
    expect(run(['integrity'], error('network'))).toBe(7)
    expect(run(['integrity'], error('cancelled', 'SIGTERM'))).toBe(143)
  })
})
