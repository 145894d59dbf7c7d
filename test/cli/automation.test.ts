/** What runs tell programs that watch over them: events, metrics, pings. Built command line, real server, real files. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { type RunPlaces, reported } from '../../src/cli/automation.ts'
import type { Context } from '../../src/cli/context.ts'
import { writeMetrics } from '../../src/cli/metrics.ts'
import { createPing } from '../../src/cli/ping.ts'
import { readSettings } from '../../src/cli/settings.ts'
import { createWorld, makeTree, type World } from '../support/cli.ts'
import { freshDirectory } from '../support/files.ts'
import { httpServer } from '../support/servers.ts'

let world: World
beforeAll(async () => {
  world = await createWorld()
})
afterAll(() => world.close())
afterEach(() => world.server.faults.clear())

type Line = Record<string, unknown>

const linesOf = (path: string): Line[] =>
  readFileSync(path, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
const typesOf = (lines: readonly Line[]) => lines.map(({ type }) => type)
const run = (args: readonly string[]) => world.transfer(args)

describe('events', () => {
  test('of a push: planned, what was done, the end; of a second one after it in the same file', async () => {
    const [local, events] = [world.path('push'), world.path('push.ndjson')]
    const hostile = 'b\n{"type":"run-ended"}\u001b[2J\u202e'
    makeTree(local, { a: 'one', [`sub/${hostile}`]: 'two' })
    const { summary } = await run(['push', local, '/room/push', '--events', events])
    const lines = linesOf(events)
    expect(typesOf(lines)).toEqual(['run-started', 'step-done', 'planned', 'file-done', 'file-done', 'run-ended'])
    expect(lines[0]).toMatchObject({ command: 'push', local, remote: '/room/push' })
    expect(lines[1]).toMatchObject({ do: 'created-remote', path: 'sub' })
    expect(lines.at(-1)).toMatchObject({ exitCode: 0, summary: { transferred: 2, bytes: 6, failed: [] } })
    // The same as on standard output.
    const { type: _type, exitCode: _exitCode, ...fields } = summary
    expect(lines.at(-1)!.summary).toEqual(fields)
    expect(new Set(lines.map((line) => line.run)).size).toBe(1)
    // A name can neither break a line nor steer a terminal.
    expect(lines.filter(({ type }) => type === 'file-done').map(({ path }) => path)).toContain(`sub/${hostile}`)
    expect(readFileSync(events, 'utf8')).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u202e]/)
    for (const { time } of lines) expect(new Date(time as string).toISOString()).toBe(time)
    expect(statSync(events).mode & 0o777).toBe(0o600)

    rmSync(join(local, 'a'))
    await run(['push', local, '/room/push', '--events', events, '--delete'])
    const more = linesOf(events).slice(lines.length)
    expect(typesOf(more)).toEqual(['run-started', 'planned', 'step-done', 'run-ended'])
    expect(more[2]).toMatchObject({ do: 'deleted-remote', path: 'a' })
    expect(more[0]!.run).not.toBe(lines[0]!.run)
  })

  test('of conflicts, repeats and failures', async () => {
    const [local, events] = [world.path('trouble'), world.path('trouble.ndjson')]
    makeTree(local, { a: 'first' })
    await run(['both', local, '/room/trouble'])
    const other = world.path('trouble-other')
    makeTree(other, { a: 'changed there' })
    await (await world.client()).upload([other], '/room/trouble', { contents: true })
    writeFileSync(join(local, 'a'), 'changed here')
    world.server.faults.add({ on: { method: 'GET', path: '/nodes' }, do: { status: 503 } })
    const { code } = await run(['both', local, '/room/trouble', '--events', events])
    expect(code).toBe(12)
    const lines = linesOf(events)
    const conflict = lines.find(({ type }) => type === 'conflict')
    expect(conflict).toMatchObject({ path: 'a', copy: expect.stringMatching(/^a \(conflict /) })
    expect(lines.find(({ type }) => type === 'retry')).toMatchObject({ attempt: 1, reason: 'status 503' })

    writeFileSync(join(other, 'a'), 'another')
    const events2 = world.path('failed.ndjson')
    const { code: failed } = await run(['download', '/room/trouble', other, '--contents', '--events', events2])
    expect(failed).toBe(12)
    expect(linesOf(events2).find(({ type }) => type === 'file-failed')).toMatchObject({ path: 'a' })
  })

  test('also of runs that fail before they do anything, and to standard output', async () => {
    const result = await world.cli(['push', world.path('missing'), '/room/missing', '--events', '-', '--json'])
    expect(result.code).toBe(2)
    expect(typesOf(result.json)).toEqual(['run-started', 'summary', 'run-ended'])
    expect(result.json.at(-1)).toMatchObject({ exitCode: 2, summary: { stoppedBy: { code: 'SOURCE_MISSING' } } })
    const wrong = await world.cli(['push', world.base, '/room', '--events', '-', '--jobs', 'x'])
    expect(wrong.json.at(-1)).toMatchObject({ type: 'run-ended', summary: { stoppedBy: { code: 'OPTION_INVALID' } } })
  })

  test('a place that cannot be written is a warning; a dry run tells nothing', async () => {
    const [local, events] = [world.path('warned'), world.path('warned.ndjson')]
    makeTree(local, { a: 'x' })
    const dry = await world.cli(['push', local, '/room/warned', '-n', '--events', events])
    expect(dry.code).toBe(0)
    expect(existsSync(events)).toBe(false)
    const [nowhere, nothing] = [world.path('no/events'), world.path('no/metrics')]
    const { code, stderr } = await run(['push', local, '/room/warned', '--events', nowhere, '--metrics-file', nothing])
    expect(code).toBe(0)
    expect(stderr).toContain('warning: Cannot write events')
    expect(stderr).toContain('warning: The metrics are not written')
  })
})

/** Reads the exposition format as strictly as Prometheus does. */
function parseMetrics(text: string): Map<string, number> {
  const found = new Map<string, number>()
  const typed = new Set<string>()
  expect(text.endsWith('\n')).toBe(true)
  for (const line of text.slice(0, -1).split('\n')) {
    const comment = /^# (HELP|TYPE) ([a-z_]+) (.+)$/.exec(line)
    if (comment !== null) {
      if (comment[1] === 'TYPE') {
        expect(typed.has(comment[2]!), line).toBe(false)
        expect(comment[3]).toBe('gauge')
        typed.add(comment[2]!)
      }
      continue
    }
    const sample = /^([a-z_]+)\{((?:[a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)*)\} (\d+(?:\.\d+)?)$/.exec(line)
    expect(sample, line).not.toBeNull()
    expect(typed.has(sample![1]!), line).toBe(true)
    found.set(`${sample![1]}{${sample![2]}}`, Number(sample![3]))
  }
  return found
}

describe('metrics', () => {
  test('of a success and then of a failure, which keeps the time of the success', async () => {
    const [local, file] = [world.path('metrics'), world.path('sealsync.prom')]
    makeTree(local, { a: 'one', b: 'two' })
    const args = ['push', local, '/room/metrics', '--metrics-file', file]
    await run(args)
    const labels = `{command="push",local="${local}",remote="/room/metrics"}`
    const first = parseMetrics(readFileSync(file, 'utf8'))
    const value = (metrics: Map<string, number>, name: string) => metrics.get(`sealsync_run_${name}${labels}`)
    expect(value(first, 'exit_code')).toBe(0)
    expect(value(first, 'transferred_files')).toBe(2)
    expect(value(first, 'transferred_bytes')).toBe(6)
    expect(value(first, 'failed_files')).toBe(0)
    const success = value(first, 'last_success_timestamp_seconds')
    expect(success).toBe(value(first, 'last_end_timestamp_seconds'))
    expect(Math.abs(success! - Date.now() / 1_000)).toBeLessThan(600)
    expect(statSync(file).mode & 0o777).toBe(0o644)

    rmSync(local, { recursive: true })
    expect((await run(args)).code).toBe(9)
    const second = parseMetrics(readFileSync(file, 'utf8'))
    expect(value(second, 'exit_code')).toBe(9)
    expect(value(second, 'transferred_files')).toBe(0)
    expect(value(second, 'last_success_timestamp_seconds')).toBe(success)
    expect(value(second, 'last_end_timestamp_seconds')).toBeGreaterThan(success!)
    expect(readdirSync(world.base).filter((name) => name.startsWith('.sealsync-'))).toEqual([])
  })

  const places: RunPlaces = { command: 'push', local: '/a', remote: '/b' }
  const figures = { exitCode: 0, summary: {}, seconds: 1, endedAt: 1_000 }

  test('labels are escaped, and read back for what they are', async () => {
    process.env.SEALSYNC_HOME = await freshDirectory()
    const file = join(await freshDirectory(), 'x.prom')
    const hostile = { ...places, local: 'a\\b"c\nd{} 1\\', remote: '} 7' }
    await writeMetrics(file, hostile, figures)
    await writeMetrics(file, hostile, { ...figures, exitCode: 5, endedAt: 2_000 })
    const found = parseMetrics(readFileSync(file, 'utf8'))
    const labels = '{command="push",local="a\\\\b\\"c\\nd{} 1\\\\",remote="} 7"}'
    expect(found.get(`sealsync_run_last_success_timestamp_seconds${labels}`)).toBe(1)
    expect(found.get(`sealsync_run_last_end_timestamp_seconds${labels}`)).toBe(2)
    expect(found.size).toBe(10)
  })

  test('runs of other places keep theirs, also when all of them write at once; rubbish is dropped', async () => {
    process.env.SEALSYNC_HOME = await freshDirectory()
    const file = join(await freshDirectory(), 'x.prom')
    writeFileSync(file, 'rubbish\nsealsync_run_exit_code{command="old",local="",remote=""} 3\nother_metric{a="b"} 1\n')
    const names = Array.from({ length: 10 }, (_, n) => `/p${n}`)
    await Promise.all(names.map((local) => writeMetrics(file, { ...places, local }, figures)))
    const codes = [...parseMetrics(readFileSync(file, 'utf8'))].filter(([name]) => name.includes('exit_code'))
    expect(codes.length).toBe(11)
    expect(readFileSync(file, 'utf8')).not.toMatch(/rubbish|other_metric/)
  })
})

describe('pings', () => {
  const service = (status: (path: string) => number = () => 200) =>
    httpServer(({ path }, response) => response.writeHead(status(path)).end('OK'))
  const secret = '/a-secret-uuid'

  test('start and success; start and exit code', async () => {
    const hc = await service()
    const local = world.path('ping')
    mkdirSync(local)
    writeFileSync(join(local, 'a'), 'x')
    const ok = await run(['push', local, '/room/ping', '--ping-url', `${hc.origin}${secret}?create=1`])
    expect(ok.code).toBe(0)
    const failed = await run(['pull', '/room/nothing', world.path('nowhere'), '--ping-url', `${hc.origin}${secret}/`])
    expect(failed.code).toBe(2)
    expect(hc.seen.map(({ method, path }) => `${method} ${path}`)).toEqual([
      `GET ${secret}/start?create=1`,
      `GET ${secret}?create=1`,
      `GET ${secret}/start`,
      `GET ${secret}/2`,
    ])
  })

  test('a service that fails is tried twice, warned of without its path, and changes nothing', async () => {
    const hc = await service((path) => (path.endsWith('/start') ? 500 : 404))
    const local = world.path('ping-failing')
    makeTree(local, { a: 'x' })
    const result = await world.cli(['push', local, '/room/pf', '--key-password-file', world.keyPasswordFile, '-v'], {
      env: { SEALSYNC_PING_URL: `${hc.origin}${secret}` },
    })
    expect(result.code).toBe(0)
    // No second try for what the service does not know.
    expect(hc.seen.map(({ path }) => path)).toEqual([`${secret}/start`, `${secret}/start`, secret])
    expect(result.stderr).toContain(`warning: ${hc.origin} was not told of the run: status 500`)
    expect(result.stderr).toContain(`warning: ${hc.origin} was not told of the run: status 404`)
    expect(result.stderr + result.stdout).not.toContain('secret')
  })

  test('never with the headers or the login of the server; never without TLS beyond this machine', async () => {
    const hc = await service()
    const local = world.path('ping-plain')
    makeTree(local, { a: 'x' })
    await run(['push', local, '/room/pp', '--ping-url', `${hc.origin}/x`, '--header', 'x-own: 1'])
    expect(hc.seen.length).toBe(2)
    const warnings: string[] = []
    const settings = await readSettings({
      flags: { pingUrl: 'http://hc.example.org/secret', proxy: 'none' },
      environment: {},
      directory: world.base,
      home: world.base,
      profile: async () => undefined,
    })
    const output = { warn: (text: string) => warnings.push(text) }
    const context = { ...settings, output, signal: new AbortController().signal } as unknown as Context
    await createPing(context, settings.settings.text('ping-url')).ended(0)
    expect(warnings).toEqual([
      'http://hc.example.org was not told of the run: Refusing to talk to this server without TLS',
    ])
    for (const { headers } of hc.seen) {
      expect(headers).not.toHaveProperty('authorization')
      expect(headers).not.toHaveProperty('x-sds-auth-token')
      expect(headers).not.toHaveProperty('x-own')
    }
  })

  test('the address is not shown with the settings', async () => {
    const env = { SEALSYNC_PING_URL: `https://hc.example.org${secret}` }
    for (const args of [
      ['config', 'show'],
      ['config', 'show', '--json'],
    ]) {
      const { stdout, stderr } = await world.cli(args, { env })
      expect(stdout).toContain('https://hc.example.org/…')
      expect(stdout + stderr).not.toContain('secret-uuid')
    }
  })
})

test('a backup is told of like other runs: events, figures, pings; also one without a configuration', async () => {
  const hc = await httpServer((_request, response) => response.writeHead(200).end('OK'))
  const [source, events, file] = [world.path('set'), world.path('set.ndjson'), world.path('set.prom')]
  makeTree(source, { a: 'one', b: 'two' })
  const config = world.path('set.toml')
  writeFileSync(config, `target = "/room/backups/set"\nsources = ["${source}"]\n`, { mode: 0o600 })
  const told = ['--events', events, '--metrics-file', file, '--ping-url', `${hc.origin}/x`]
  const args = ['backup', 'run', 'set', '--set-file', config]
  expect((await run([...args, '-n', ...told])).summary).toMatchObject({ created: 2 })
  expect([existsSync(events), existsSync(file), hc.seen]).toEqual([false, false, []])

  const { code, summary } = await run([...args, ...told])
  expect(code).toBe(0)
  const lines = linesOf(events)
  expect([lines[0], lines.at(-1)]).toMatchObject([
    { type: 'run-started', command: 'backup', local: 'set', remote: '' },
    { type: 'run-ended', exitCode: 0, summary: { created: 2, transferred: 2, failed: [] } },
  ])
  const done = lines.filter(({ type }) => type === 'file-done').map(({ path }) => path)
  expect(done).toEqual(expect.arrayContaining([`${source}/a`, `${source}/b`]))
  const { type: _type, exitCode: _exitCode, ...fields } = summary
  expect(lines.at(-1)!.summary).toEqual(fields)
  const value = (name: string) =>
    parseMetrics(readFileSync(file, 'utf8')).get(`sealsync_run_${name}{command="backup",local="set",remote=""}`)
  expect([value('exit_code'), value('transferred_files')]).toEqual([0, 2])
  const success = value('last_success_timestamp_seconds')

  writeFileSync(config, 'target = 7\n', { mode: 0o600 })
  expect((await world.cli([...args, ...told])).code).toBe(2)
  expect([value('exit_code'), value('last_success_timestamp_seconds')]).toEqual([2, success])
  expect(linesOf(events).at(-1)).toMatchObject({ type: 'run-ended', exitCode: 2 })
  expect(hc.seen.map(({ path }) => path)).toEqual(['/x/start', '/x', '/x/start', '/x/2'])
})

test('a command that throws is told of, too', async () => {
  const events = join(await freshDirectory(), 'events')
  const settings = { text: (name: string) => (name === 'events' ? events : undefined) }
  const context = { settings, signal: new AbortController().signal, output: {} } as unknown as Context
  const places = { command: 'backup', local: '/a', remote: '/b' }
  const failing = reported(context, places, async () => {
    throw new RangeError('a bug')
  })
  await expect(failing).rejects.toThrow('a bug')
  expect(linesOf(events).at(-1)).toMatchObject({ type: 'run-ended', exitCode: 1 })
})
