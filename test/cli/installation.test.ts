/** setup, update --check and uninstall --data: what they write, believe and remove, and what they leave alone. */
import { spawnSync } from 'node:child_process'
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { pathLine } from '../../src/cli/commands/setup.ts'
import { compareVersions, readRelease, releaseKey } from '../../src/cli/release.ts'
import { systemClock } from '../../src/environment.ts'
import { homePaths } from '../../src/local/home.ts'
import { takeLock } from '../../src/local/lock.ts'
import { VERSION } from '../../src/version.ts'
import { createWorld, MAIN, makeTree, runProgram, snapshot } from '../support/cli.ts'
import { freshDirectory } from '../support/files.ts'
import fc from '../support/property.ts'

const isPosix = process.platform !== 'win32'
const hasShell = (name: string) => spawnSync(name, ['--version']).status === 0

/** A home directory, and ours as npm links it into a directory below. */
async function ownHome() {
  const home = await freshDirectory()
  const bin = join(home, '.local/bin')
  mkdirSync(bin, { recursive: true })
  for (const name of ['sync', 'sealsync']) symlinkSync(MAIN, join(bin, name))
  const env = { HOME: home, PATH: process.env.PATH ?? '', SEALSYNC_HOME: join(home, 'private'), SHELL: '/bin/bash' }
  return {
    home,
    bin,
    env,
    setup: (...args: string[]) => runProgram(process.execPath, [join(bin, 'sealsync'), 'setup', ...args], env),
  }
}

test.runIf(isPosix)('setup writes its line once, through links, shows it before, and takes it out again', async () => {
  const { home, bin, setup } = await ownHome()
  const before = 'export A=1\nalias ll="ls -l"'
  mkdirSync(join(home, 'dotfiles'))
  writeFileSync(join(home, 'dotfiles/bashrc'), before, { mode: 0o640 })
  symlinkSync('dotfiles/bashrc', join(home, '.bashrc'))
  const content = () => readFileSync(join(home, '.bashrc'), 'utf8')

  const refused = await setup()
  expect(refused).toMatchObject({ code: 9, stderr: expect.stringContaining('--yes') })
  expect(refused.stderr).toContain(`\n  ${pathLine('bash', bin)}\n`)
  expect(content()).toBe(before)

  for (const changed of [true, false]) {
    const { code, stdout } = await setup('--yes', '--json')
    expect(code).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({ type: 'setup', shell: 'bash', changed })
    expect(content().match(/>>> sealsync/g)).toHaveLength(1)
    expect(content().startsWith(`${before}\n`)).toBe(true)
  }
  expect(lstatSync(join(home, '.bashrc')).isSymbolicLink()).toBe(true)
  expect(statSync(join(home, '.bashrc')).mode & 0o777).toBe(0o640)

  expect(await setup('--remove', '--yes')).toMatchObject({ code: 0 })
  expect(content()).toBe(`${before}\n`)
  expect(await setup('--remove', '--yes')).toMatchObject({ code: 0, stdout: expect.stringContaining('Nothing of') })
  expect(await setup('--remove', '--yes', '--shell', 'zsh')).toMatchObject({ code: 0 })
  expect(existsSync(join(home, '.zshrc'))).toBe(false)
})

test.runIf(isPosix)(
  'a shell that has read it gets ours as sync, first and once; what runs in scripts does not change',
  async () => {
    const { home, bin, setup, env } = await ownHome()
    for (const shell of ['bash', 'zsh', 'fish'])
      expect(await setup('--yes', '--shell', shell)).toMatchObject({ code: 0 })
    const fish = readFileSync(join(home, '.config/fish/conf.d/sealsync.fish'), 'utf8')
    expect(fish).toContain(`fish_add_path --path --prepend --move ${bin}\n`)
    const show = ['-i', '-c', 'command -v sync; echo "PATH=$PATH"']
    for (const [shell, args] of [
      ['bash', show],
      ['zsh', show],
      ['fish', ['-c', 'command -v sync; echo PATH=(string join : $PATH)']],
    ] as const) {
      if (!hasShell(shell)) continue
      // Nested shells read it again.
      for (const PATH of [env.PATH, `${bin}:${env.PATH}`, `/first:${bin}:${env.PATH}`]) {
        const { stdout } = await runProgram(shell, args, { ...env, PATH })
        const lines = stdout.trim().split('\n')
        expect([shell, lines[0], lines[1]?.startsWith(`PATH=${bin}:`)]).toEqual([shell, join(bin, 'sync'), true])
        expect(lines[1]?.startsWith(`PATH=${bin}:${bin}:`)).toBe(false)
      }
    }
    const script = await runProgram('bash', ['-c', 'command -v sync'], env)
    expect(script.stdout.trim()).not.toBe(join(bin, 'sync'))
    expect(await setup('--remove', '--yes', '--shell', 'fish')).toMatchObject({ code: 0 })
    expect(existsSync(join(home, '.config/fish/conf.d/sealsync.fish'))).toBe(false)
  },
)

test.runIf(isPosix)(
  'setup: only the line, shells that it does not know, lines that were edited, no short name',
  async () => {
    const { home, bin, setup, env } = await ownHome()
    const printed = await setup('--print')
    expect(printed).toMatchObject({ code: 0, stdout: `${pathLine('bash', bin)}\n` })
    expect(existsSync(join(home, '.bashrc'))).toBe(false)
    const tcsh = await runProgram(process.execPath, [join(bin, 'sealsync'), 'setup'], { ...env, SHELL: '/bin/tcsh' })
    expect(tcsh).toMatchObject({ code: 2, stderr: expect.stringContaining('tcsh') })
    const edited = '# >>> sealsync: the short name sync, written by "sealsync setup" >>>\nother\n'
    writeFileSync(join(home, '.bashrc'), edited)
    for (const args of [['--yes'], ['--remove', '--yes']]) {
      expect(await setup(...args)).toMatchObject({ code: 2, stderr: expect.stringContaining('by hand') })
    }
    expect(readFileSync(join(home, '.bashrc'), 'utf8')).toBe(edited)
    const bare = await runProgram(process.execPath, [MAIN, 'setup', '--yes'], env)
    expect(bare).toMatchObject({ code: 2, stderr: expect.stringContaining('short name') })
  },
)

test('the line for directories of all kinds', () => {
  expect(pathLine('bash', '/usr/lib/sealsync/bin')).toContain('PATH=/usr/lib/sealsync/bin:"$PATH"')
  expect(pathLine('zsh', '/home/a b/bin')).toContain('PATH="/home/a b/bin":"$PATH"')
  for (const bad of ['/a$(id)', '/a`id`', '/a"b', "/a'b", '/a\nb', '/a\\b']) {
    expect(() => pathLine('bash', bad), bad).toThrow(/cannot be written/)
  }
})

const HEADER = '{"alg":"EdDSA","typ":"sealsync-release+json"}'
const DAY_MS = 86_400_000
const pair = generateKeyPairSync('ed25519')
const publicOf = (key: KeyObject) =>
  Buffer.from(String(key.export({ format: 'jwk' }).x), 'base64url').toString('base64')

function signed(payload: object, { header = HEADER, key = pair.privateKey } = {}) {
  const [head, body] = [header, JSON.stringify(payload)].map((text) => Buffer.from(text).toString('base64url'))
  const signature = sign(null, Buffer.from(`${head}.${body}`), key).toString('base64url')
  return { protected: head!, payload: body!, signature }
}

const times = (releasedMs: number, days = 30) => ({
  released: new Date(releasedMs).toISOString(),
  expires: new Date(Date.now() + days * DAY_MS).toISOString(),
})
const release = (version: string, more: object = {}) => ({ name: 'sealsync', version, ...times(Date.now()), ...more })

/** A place that says of releases what it is told to. */
async function publisher() {
  let answer: { status: number; body: string | Buffer } = { status: 404, body: '' }
  let asked = 0
  const server = createServer((_request, response) => {
    asked++
    response.writeHead(answer.status, { 'content-type': 'application/json' }).end(answer.body)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => new Promise((resolve) => server.close(() => resolve())))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/releases/newest.json`,
    asked: () => asked,
    says(body: object | string | Buffer, status = 200) {
      answer = { status, body: typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body) }
    },
  }
}

test('update --check: newer, the same, older; asked only when told to; nothing is installed', async () => {
  const world = await createWorld({ keyPair: false })
  onTestFinished(() => world.close())
  const { url, says, asked } = await publisher()
  const options = ['--update-url', url, '--update-key', publicOf(pair.publicKey)]
  const check = (...more: string[]) => world.cli(['update', '--check', ...options, ...more])
  says(signed(release('99.0.0', { url: 'https://files.example.org/sealsync' })))
  expect(await check('--json')).toMatchObject({
    code: 11,
    json: [
      { type: 'update', newest: '99.0.0', current: VERSION, newer: true, url: 'https://files.example.org/sealsync' },
    ],
  })
  expect((await check('-q')).stdout).toContain('99.0.0 is there')
  says(signed(release(VERSION)))
  expect(await check()).toMatchObject({ code: 0, stdout: `${VERSION} is the newest release\n` })
  says(signed(release('0.0.1')))
  expect(await check()).toMatchObject({ code: 0 })
  const before = asked()
  expect(await world.cli(['update', ...options])).toMatchObject({ code: 2 })
  expect(await world.cli(['whoami'])).toMatchObject({ code: 0 })
  expect(asked()).toBe(before)
  // From the settings, as it is meant to be; and without them.
  writeFileSync(join(world.home, 'config.toml'), `update-url = "${url}"\nupdate-key = "${publicOf(pair.publicKey)}"\n`)
  chmodSync(join(world.home, 'config.toml'), 0o600)
  expect(await world.cli(['update', '--check'])).toMatchObject({ code: 0 })
})

test('update --check believes nothing that is not signed, in time and newer than what was known', async () => {
  const world = await createWorld({ keyPair: false })
  onTestFinished(() => world.close())
  const { url, says } = await publisher()
  const key = publicOf(pair.publicKey)
  const check = (more: readonly string[] = ['--update-url', url, '--update-key', key]) =>
    world.cli(['update', '--check', '--json', ...more])
  const good = signed(release('99.0.0'))
  const tampered = { ...good, payload: Buffer.from(JSON.stringify(release('100.0.0'))).toString('base64url') }
  const other = generateKeyPairSync('ed25519').privateKey
  const invalid = { exitCode: 7, code: 'RELEASE_INVALID' }
  const cases: [body: object | string | Buffer, error: object, status?: number][] = [
    [tampered, invalid],
    [signed(release('99.0.0'), { key: other }), invalid],
    [signed(release('99.0.0'), { header: '{"alg":"none"}' }), invalid],
    [signed(release('99.0.0'), { header: '{"alg":"EdDSA","typ":"other"}' }), invalid],
    [{ ...good, signature: '' }, invalid],
    [{ payload: good.payload }, invalid],
    [[good], invalid],
    ['not JSON', invalid],
    ['', invalid],
    [signed({ ...release('99.0.0'), name: 'another' }), invalid],
    [signed(release('99')), invalid],
    [signed(release('99.0.0', { url: 'javascript:alert(1)' })), invalid],
    [signed(release('99.0.0', { released: 'yesterday' })), invalid],
    [signed(release('99.0.0', { expires: undefined })), invalid],
    [signed(release('99.0.0', times(Date.now(), -1))), { exitCode: 9, code: 'RELEASE_EXPIRED' }],
    [Buffer.alloc(70_000, ' '), { code: 'ANSWER_TOO_LARGE' }],
    ['', { exitCode: 5, code: 'RELEASE_MISSING' }, 404],
  ]
  for (const [index, [body, error, status]] of cases.entries()) {
    says(body, status)
    expect([index, (await check()).json.at(-1)]).toMatchObject([index, { type: 'error', ...error }])
  }
  expect(existsSync(join(world.home, 'releases.json'))).toBe(false)

  const now = Date.now()
  says(signed(release('99.0.1', times(now))))
  expect(await check()).toMatchObject({ code: 11 })
  says(signed(release('99.0.0', times(now - DAY_MS))))
  expect((await check()).json.at(-1)).toMatchObject({ exitCode: 9, code: 'RELEASE_ROLLED_BACK' })
  // Another publisher has its own memory; one that cannot be read is made anew.
  says(signed(release('99.0.0', times(now - DAY_MS)), { key: other }))
  const theirs = Buffer.from(String(other.export({ format: 'jwk' }).x), 'base64url').toString('base64')
  expect(await check(['--update-url', url, '--update-key', theirs])).toMatchObject({ code: 11 })
  writeFileSync(join(world.home, 'releases.json'), 'broken', { mode: 0o600 })
  says(signed(release('99.0.0', times(now - DAY_MS))))
  expect(await check()).toMatchObject({ code: 11 })

  for (const [more, code] of [
    [['--update-key', key], 'OPTION_MISSING'],
    [['--update-url', url], 'OPTION_MISSING'],
    [['--update-url', url, '--update-key', 'abc'], 'OPTION_INVALID'],
    [['--update-url', 'http://files.example.org/x', '--update-key', key], 'URL_INSECURE'],
    [['--update-url', 'file:///etc/passwd', '--update-key', key], 'URL_INVALID'],
  ] as const) {
    expect((await check(more)).json.at(-1), more.join(' ')).toMatchObject({ type: 'error', code })
  }
})

test('what sign-release.mjs signs is what is believed', async () => {
  const directory = await freshDirectory()
  const script = fileURLToPath(new URL('../../src/packaging/sign-release.mjs', import.meta.url))
  const run = (...args: string[]) => spawnSync(process.execPath, [script, ...args], { encoding: 'utf8' })
  const file = join(directory, 'key.pem')
  const made = run('--new-key', file)
  expect(made.status, made.stderr).toBe(0)
  expect(statSync(file).mode & 0o777).toBe(isPosix ? 0o600 : expect.any(Number))
  expect(run('--new-key', file).status).not.toBe(0)
  const text = run('--key', file, '--days', '30', '--url', 'https://files.example.org/').stdout
  const found = readRelease(Buffer.from(text), releaseKey(made.stdout.trim()))
  expect(found).toMatchObject({ version: VERSION, url: 'https://files.example.org/' })
  expect(Math.round((found.expiresMs - found.releasedMs) / DAY_MS)).toBe(30)
  expect(run('--key', file).status).not.toBe(0)
})

test('versions are ordered as semver orders them', () => {
  const sorted = [
    '0.0.1',
    '0.1.0-alpha',
    '0.1.0-alpha.1',
    '0.1.0-alpha.beta',
    '0.1.0-beta.2',
    '0.1.0-beta.11',
    '0.1.0',
    '0.10.0',
    '1.0.0-rc.1',
    '1.0.0',
  ]
  for (const [i, a] of sorted.entries()) {
    for (const [j, b] of sorted.entries()) expect(Math.sign(compareVersions(a, b)), `${a} ${b}`).toBe(Math.sign(i - j))
  }
})

test('a text with one byte changed is refused, or says the same', () => {
  const key = releaseKey(publicOf(pair.publicKey))
  const good = JSON.stringify(signed(release('1.2.3')))
  fc.assert(
    fc.property(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 }), (at, bits) => {
      const bytes = Buffer.from(good)
      bytes[at]! ^= bits
      try {
        // The last letter of base64 has bits that say nothing.
        expect(readRelease(bytes, key).version).toBe('1.2.3')
      } catch (error) {
        expect(error).toMatchObject({ code: 'RELEASE_INVALID' })
      }
    }),
    { numRuns: 500 },
  )
})

test('uninstall --data lists what there is, asks, and leaves directories that were synchronized alone', async () => {
  const world = await createWorld()
  onTestFinished(() => world.close())
  const key = ['--key-password-file', world.keyPasswordFile]
  makeTree(world.path('tree'), { 'a.txt': 'first' })
  makeTree(world.home, { 'config.toml': 'jobs = 2\n', 'backups/set.toml': 'x = 1\n', 'notes.txt': 'of somebody' })
  expect(await world.cli(['push', world.path('tree'), '/room/tree', ...key])).toMatchObject({ code: 0 })
  makeTree(world.path('tree'), { 'a.txt': 'second' })
  expect(await world.cli(['both', world.path('tree'), '/room/tree', ...key])).toMatchObject({ code: 0 })
  const [home, tree] = [snapshot(world.home), snapshot(world.path('tree'))]

  const listed = await world.cli(['uninstall', '--data', '-n', '--json'])
  expect(listed.code).toBe(0)
  const kinds = new Set(listed.json.filter(({ type }) => type === 'kept').map(({ what }) => what))
  expect([...kinds]).toEqual(expect.arrayContaining(['logins', 'known pairs', 'settings', 'caches']))
  expect(listed.json.at(-1)).toMatchObject({ type: 'summary', removed: false, directory: world.home })
  expect((await world.cli(['uninstall', '--data', '-n'])).stderr).toContain('notes.txt is not of this program')
  expect(await world.cli(['uninstall', '--data'])).toMatchObject({ code: 9, stderr: expect.stringContaining('--yes') })
  expect(await world.cli(['uninstall'])).toMatchObject({ code: 2, stderr: expect.stringContaining('--data') })
  expect(Object.keys(snapshot(world.home))).toEqual(
    expect.arrayContaining(Object.keys(home).filter((name) => !name.startsWith('locks'))),
  )

  const lock = await takeLock(join(world.home, 'locks/another.lock'), { clock: systemClock, waitMs: 0 })
  expect(await world.cli(['uninstall', '--data', '--yes'])).toMatchObject({ code: 8 })
  await lock.release()

  const removed = await world.cli(['uninstall', '--data', '--yes', '--json'])
  expect(removed.json.at(-1)).toMatchObject({ type: 'summary', removed: true })
  expect(snapshot(world.home)).toEqual({ 'notes.txt': 'of somebody' })
  expect(snapshot(world.path('tree'))).toEqual(tree)
  expect(await world.cli(['whoami'])).toMatchObject({ code: 4 })
  expect(await world.cli(['uninstall', '--data', '--json'])).toMatchObject({ code: 0, json: [{ files: 0 }] })
})

test.runIf(isPosix)(
  'uninstall --data: a directory that others use, or that the user lives in, stays as it is',
  async () => {
    const home = await freshDirectory()
    const shared = join(home, 'projects')
    makeTree(shared, { 'backups/mine.tar': 'x', 'sync/mine': 'y' })
    const run = (SEALSYNC_HOME: string) =>
      runProgram(process.execPath, [MAIN, 'uninstall', '--data', '--yes'], { PATH: '', HOME: home, SEALSYNC_HOME })
    chmodSync(shared, 0o755)
    for (const directory of [shared, home, dirname(home), '/']) {
      expect(await run(directory), directory).toMatchObject({
        code: 9,
        stderr: expect.stringContaining('nothing is removed'),
      })
    }
    expect(snapshot(shared)).toMatchObject({ 'backups/mine.tar': 'x', 'sync/mine': 'y' })
    expect(await run(join(home, 'nowhere'))).toMatchObject({ code: 0 })
    // A link to the directory leads there; what links in it lead to stays.
    makeTree(join(home, 'real'), { 'config.toml': '', 'tmp/': '' })
    chmodSync(join(home, 'real'), 0o700)
    symlinkSync(shared, join(home, 'real/tmp/link'))
    symlinkSync(join(home, 'real'), join(home, 'link'))
    expect(await run(join(home, 'link'))).toMatchObject({ code: 0 })
    expect(existsSync(join(home, 'real'))).toBe(false)
    expect(snapshot(shared)).toMatchObject({ 'sync/mine': 'y' })
  },
)

test('uninstall --data knows everything that has a place in the private directory', async () => {
  const home = join(await freshDirectory(), 'home')
  const { directory, ...paths } = homePaths(home)
  makeTree(directory, Object.fromEntries(Object.values(paths).map((path) => [basename(path), ''])))
  chmodSync(home, 0o700)
  const listed = runProgram(process.execPath, [MAIN, 'uninstall', '--data', '-n'], { PATH: '', SEALSYNC_HOME: home })
  const { code, stdout, stderr } = await listed
  expect([code, stderr]).toEqual([0, expect.not.stringContaining('is not of this program')])
  for (const path of Object.values(paths)) expect(stdout).toContain(path)
})
