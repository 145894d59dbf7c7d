/** Content through pipes: from standard input and from commands to the server, and from there to standard output. */
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createWorld, MAIN, type World } from '../support/cli.ts'
import { UploadWatch } from '../support/upload-watch.ts'

const MIB = 1024 * 1024

const watch = new UploadWatch()
let world: World
beforeAll(async () => {
  world = await createWorld({ recorder: watch })
})
afterAll(() => world.close())

const key = () => ['--key-password-file', world.keyPasswordFile]
const names = async () => (await world.list('/room')).map(({ name }) => name)
const bytesOf = async (path: string) => Buffer.from(await (await (await world.client()).get(path)).bytes())
const errorIn = (run: { json: Record<string, unknown>[] }) =>
  (run.json.at(-1) as { stoppedBy?: { code: string } }).stoppedBy?.code

/** The program itself with pipes that the test holds. */
function start(args: readonly string[]) {
  const child = spawn(process.execPath, [MAIN, ...args, ...key()], {
    env: { PATH: process.env.PATH ?? '', SEALSYNC_HOME: world.home },
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  let stderr = ''
  child.stderr.setEncoding('utf8').on('data', (text) => {
    stderr += text
  })
  child.stdin.on('error', () => {})
  const out: Buffer[] = []
  child.stdout.on('data', (chunk) => out.push(chunk))
  const ended = once(child, 'close').then(([code]) => ({
    code: code as number | null,
    stderr,
    stdout: Buffer.concat(out),
  }))
  return { child, ended }
}

test('standard input becomes a file of any length, and comes back the same', async () => {
  for (const size of [0, 1, 8 * MIB, 20 * MIB + 3]) {
    const content = randomBytes(size)
    const up = start(['upload', '-', `/room/of-${size}`, '-q'])
    up.child.stdin.end(content)
    expect(await up.ended).toMatchObject({ code: 0, stderr: '' })
    const down = await start(['download', `/room/of-${size}`, '-', '-q']).ended
    expect(down).toMatchObject({ code: 0, stderr: '' })
    expect(down.stdout.equals(content)).toBe(true)
  }
  // Folders on the way are made; a file that is there gets a new version.
  for (const text of ['one', 'two']) {
    const up = start(['upload', '-', '/room/new/deep/name', '--json'])
    up.child.stdin.end(text)
    const { code, stdout } = await up.ended
    expect(code).toBe(0)
    expect(JSON.parse(String(stdout).trim().split('\n').at(-1)!)).toMatchObject({
      type: 'summary',
      transferred: 1,
      bytes: 3,
    })
  }
  expect(String(await bytesOf('/room/new/deep/name'))).toBe('two')
})

test('nothing is seen there before the end, and nothing is left when it is stopped', async () => {
  const before = await names()
  const { child, ended } = start(['upload', '-', '/room/slow', '--part-size', '7M'])
  const since = world.server.faults.hits.length
  world.server.faults.add({ on: { method: 'PUT', path: '^/s3/' }, after: 1, do: { hold: true } })
  child.stdin.write(randomBytes(20 * MIB))
  await world.server.faults.until(since + 1)
  expect(await names()).toEqual(before)
  child.kill('SIGTERM')
  expect((await ended).code).toBe(143)
  expect(watch.requests.at(-1)).toMatch(/^DELETE .*uploads/)
  world.server.faults.clear()
  expect(await names()).toEqual(before)
})

test('a command that fails stores nothing; what it says is shown, and it sees no secrets', async () => {
  const before = await names()
  const run = (command: string, target: string, ...more: string[]) =>
    world.cli(['upload', '--from-command', command, target, '--json', ...key(), ...more], {
      fresh: true,
      env: { SEALSYNC_KEY_PASSWORD: 'canary', SEALSYNC_HEADER: 'X-Canary: canary' },
    })
  const good = await run('printf hello', '/room/said')
  expect(good).toMatchObject({ code: 0 })
  expect(String(await bytesOf('/room/said'))).toBe('hello')
  for (const command of ['sh -c "printf half; echo broken >&2; exit 3"', "sh -c 'kill -9 $$'", '/no/such/program']) {
    const bad = await run(command, '/room/broken')
    expect([bad.code, errorIn(bad)]).toEqual([10, 'SOURCE_COMMAND_FAILED'])
    if (command.includes('broken')) expect(bad.stderr).toContain('broken')
  }
  expect(await names()).toEqual([...before, 'said'].sort())
  const shown = await run(`sh -c 'env > ${world.path('env')}; echo x'`, '/room/environment')
  expect(shown.code).toBe(0)
  expect(readFileSync(world.path('env'), 'utf8')).not.toContain('canary')
})

test('the command is ended with the upload', async () => {
  const { child, ended } = start([
    'upload',
    '--from-command',
    `sh -c 'echo $$ > ${world.path('pid')}; echo x; exec sleep 600'`,
    '/room/endless',
  ])
  while (!existsSync(world.path('pid')) || readFileSync(world.path('pid'), 'utf8') === '')
    await new Promise((next) => setTimeout(next, 20))
  child.kill('SIGINT')
  expect((await ended).code).toBe(130)
  const pid = Number(readFileSync(world.path('pid'), 'utf8'))
  expect(() => process.kill(pid, 0)).toThrow('ESRCH')
  expect(await names()).not.toContain('endless')
})

test.each([
  [['upload', '-', '/room'], 'OPTION_INVALID'],
  [['upload', '-', '/room/x/'], 'OPTION_INVALID'],
  [['upload', '-', 'file', '/room/x'], 'OPTION_INVALID'],
  [['upload', '-', '/room/x', '-n'], 'OPTION_INVALID'],
  [['upload', '-', '/room/x', '--exclude', 'a'], 'OPTION_INVALID'],
  [['upload', '-', '/room/x', '--on-conflict', 'newer'], 'OPTION_INVALID'],
  [['upload', '--from-command', 'true', 'file', '/room/x'], 'OPTION_INVALID'],
  [['upload', '--from-command', ' ', '/room/x'], 'COMMAND_INVALID'],
  [['upload', '--from-command', 'echo "a', '/room/x'], 'COMMAND_INVALID'],
  [['download', '/room/said', '-'], 'OPTION_INVALID'],
])('%j is refused', async (args, code) => {
  const run = await world.cli([...args, '--json'])
  expect([run.code, run.json.at(-1)]).toMatchObject([2, { code }])
})

test('what is there already is kept where that is wanted, and a folder always', async () => {
  const up = async (target: string, action: string) => {
    const run = start(['upload', '-', target, '--on-conflict', action, '--json'])
    run.child.stdin.end('again')
    const { code, stdout } = await run.ended
    return [code, JSON.parse(String(stdout).trim().split('\n').at(-1)!)]
  }
  expect(await up('/room/said', 'fail')).toMatchObject([12, { stoppedBy: { code: 'EXISTS' } }])
  expect(await up('/room/said', 'skip')).toMatchObject([0, { skipped: 1, transferred: 0 }])
  expect(await up('/room/new', 'overwrite')).toMatchObject([12, { stoppedBy: { code: 'EXISTS' } }])
  expect(String(await bytesOf('/room/said'))).toBe('hello')
  expect(await up('/nowhere/x', 'overwrite')).toMatchObject([2, { stoppedBy: { code: 'REMOTE_MISSING' } }])
})

test('what was tampered with is not printed, and of several files all have to be there', async () => {
  writeFileSync(world.path('t'), randomBytes(100_000))
  await (await world.client()).upload([world.path('t')], '/room/tampered')
  world.server.faults.add({ on: { method: 'GET', path: '/downloads/' }, do: { flipByteAt: 5_000 } })
  const bad = await start(['download', '/room/tampered', '-']).ended
  expect([bad.code, bad.stdout.length]).toEqual([7, 0])
  const two = await start(['cat', '/room/said', '/room/tampered']).ended
  expect([two.code, two.stdout.length]).toEqual([0, 100_005])
  const missing = await start(['cat', '/room/said', '/room/none']).ended
  expect([missing.code, missing.stdout.length]).toEqual([2, 0])
  const folder = await start(['download', '/room/new', '-']).ended
  expect([folder.code, folder.stdout.length]).toEqual([2, 0])
})

test('a reader that goes away ends it in silence', async () => {
  const { child, ended } = start(['download', '/room/of-20971523', '-', '-q'])
  child.stdout.once('data', () => child.stdout.destroy())
  expect(await ended).toMatchObject({ code: 0, stderr: '' })
})
