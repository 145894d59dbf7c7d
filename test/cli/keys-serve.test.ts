/** keys serve as a service: a line for what it does, figures, SIGHUP, SIGTERM, a server that comes back. @module */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { afterAll, afterEach, beforeAll, expect, onTestFinished, test } from 'vitest'
import { createWorld, giveKeyPair, MAIN, type World } from '../support/cli.ts'

let world: World
beforeAll(async () => {
  world = await createWorld({ users: ['anna', 'bob'] })
  await giveKeyPair(await world.client('bob'))
  const anna = await world.client()
  await anna.put('/room/a', Buffer.from('a'))
  await anna.put('/room/b', Buffer.from('b'))
  await anna.rooms.addMember('/room', 'bob', { role: 'read' })
})
afterAll(() => world.close())
afterEach(() => world.server.faults.clear())

type Line = Record<string, unknown>

function startServe(...args: string[]) {
  const all = [MAIN, 'keys', 'serve', '--json', '--key-password-file', world.keyPasswordFile, ...args]
  const child = spawn(process.execPath, all, {
    env: { PATH: process.env.PATH ?? '', SEALSYNC_HOME: world.home, SEALSYNC_RETRY_FOR: '0s' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  const closed = once(child, 'close') as Promise<[number | null]>
  /** Of both streams. */
  const lines: string[] = []
  const waiting = new Set<() => void>()
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on('line', (line) => {
      lines.push(line)
      for (const look of waiting) look()
    })
  }
  const until = (fits: (line: string) => boolean) =>
    new Promise<string>((resolve, reject) => {
      const look = () => {
        const at = lines.findIndex(fits)
        if (at === -1) return
        waiting.delete(look)
        resolve(lines.splice(0, at + 1).at(-1)!)
      }
      waiting.add(look)
      look()
      void closed.then(() => reject(new Error(`it ended: ${lines.join('\n')}`)))
    })
  return {
    until,
    event: async (fits: (line: Line) => boolean): Promise<Line> =>
      JSON.parse(await until((line) => line.startsWith('{') && fits(JSON.parse(line)))),
    kill: (signal: NodeJS.Signals) => child.kill(signal),
    exit: async () => (await closed)[0],
  }
}

test('serves members as they are trusted, with figures, over a reload, until SIGTERM', async () => {
  const file = world.path('keys.prom')
  const events = world.path('events')
  const service = startServe('--interval', '1s', '--metrics-listen', '0', '--metrics-file', file, '--events', events)
  const { url } = await service.event(({ type }) => type === 'metrics')
  expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/metrics$/)
  const refused = await service.event(({ type }) => type === 'refused')
  expect(refused).toMatchObject({ member: expect.stringContaining('bob'), code: 'MEMBER_NEW' })
  expect((await world.cli(['keys', 'trust', 'bob'])).code).toBe(0)
  expect(await service.event(({ type }) => type === 'keys-handed-out')).toMatchObject({ handedOut: 2, skipped: 0 })
  // What was handed out shows in the figures of that round or of a later one.
  const figures = async () => (await fetch(String(url))).text()
  expect(await figures()).toContain('sealsync_keys_refused{command="keys serve",local="",remote="/"}')
  expect((await fetch(String(url).replace('/metrics', '/other'))).status).toBe(404)
  expect((await fetch(String(url), { method: 'POST' })).status).toBe(404)
  service.kill('SIGHUP')
  await service.until((line) => line.includes('Reading everything anew'))
  const anna = await world.client()
  await anna.put('/room/c', Buffer.from('c'))
  // Either that upload has handed it out, or the next round does.
  service.kill('SIGTERM')
  expect(await service.exit()).toBe(143)
  expect(readFileSync(file, 'utf8')).toContain('sealsync_keys_handed_out_since_start{')
  const runs = readFileSync(events, 'utf8').trim().split('\n')
  expect(runs.map((line) => JSON.parse(line).type)).toContain('run-ended')
})

test('a server that fails is waited for; wrong options and a lost login end it', async () => {
  world.server.faults.add({ on: { path: '/missingFileKeys$' }, times: 1, do: { status: 503 } })
  const service = startServe('--interval', '1s')
  await service.until((line) => line.includes('This round has failed'))
  await service.until((line) => line.includes('The next try is in'))
  service.kill('SIGTERM')
  expect(await service.exit()).toBe(143)
  for (const args of [
    ['--interval', '0s'],
    ['--at-most', '0'],
    ['--metrics-listen', '0.0.0.0:80'],
  ]) {
    expect((await world.cli(['keys', 'serve', ...args])).code, args.join(' ')).toBe(2)
  }
  expect((await world.cli(['logout'])).code).toBe(0)
  expect((await world.cli(['keys', 'serve', '--interval', '1s'])).code).toBe(4)
})
