/** Clocks that were wrong once: what goes by age must not go by one of their times. */
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { systemRandom } from '../../src/environment.ts'
import { BIN_NAME } from '../../src/local/atomic-file.ts'
import { runSync, type SyncOptions } from '../../src/sync/jobs/pair.ts'
import { createWorld, makeTree, type World } from '../support/cli.ts'

let world: World
/** As the command line calls it. */
let account: string
beforeAll(async () => {
  world = await createWorld()
  makeTree(world.path('first'), { f: 'f' })
  expect((await world.transfer(['push', world.path('first'), '/room/first'])).code).toBe(0)
  const [pair] = readdirSync(join(world.home, 'sync'))
  account = JSON.parse(readFileSync(join(world.home, 'sync', pair!, 'pair.json'), 'utf8')).account
})
afterAll(() => world.close())

async function runAt(time: string, local: string, remote: string, options: Partial<SyncOptions> = {}) {
  const { api, keyring, clock } = await world.client()
  const context = { api, keyring, random: systemRandom, clock: { ...clock, now: () => Date.parse(time) } }
  const state = { directory: join(world.home, 'sync'), account }
  const summary = await runSync(context, local, remote, { direction: 'push', ...options, state })
  expect([summary.failed, summary.stoppedBy]).toEqual([[], undefined])
  return summary
}

test('no clock that is wrong for a while empties the bin, ahead or behind', async () => {
  const [source, copy] = [world.path('source'), world.path('copy')]
  const push = () => runAt('2031-01-01T00:00:00Z', source, '/room/bin', { delete: true })
  const pullAt = (time: string) => runAt(time, copy, '/room/bin', { direction: 'pull', delete: true })
  const bin = () => (existsSync(join(copy, BIN_NAME)) ? readdirSync(join(copy, BIN_NAME)) : [])
  makeTree(source, { a: 'a', b: 'b', c: 'c', d: 'd' })
  await push()
  await pullAt('2031-01-01T00:00:00Z')
  rmSync(join(source, 'b'))
  await push()
  await pullAt('2031-01-02T00:00:00Z')
  expect(bin()).toHaveLength(1)
  // Several runs, and something deleted in one of them.
  await pullAt('2040-01-01T00:00:00Z')
  await pullAt('2040-01-01T01:00:00Z')
  rmSync(join(source, 'c'))
  await push()
  await pullAt('2040-01-02T00:00:00Z')
  await pullAt('2031-01-03T00:00:00Z')
  await pullAt('2031-01-03T01:00:00Z')
  expect(bin()).toHaveLength(2)
  rmSync(join(source, 'd'))
  await push()
  await pullAt('2001-01-01T00:00:00Z')
  await pullAt('2031-01-04T00:00:00Z')
  await pullAt('2031-01-04T01:00:00Z')
  expect(bin()).toHaveLength(3)
  // When more than a month has really gone by.
  for (const day of ['01-15', '01-29', '02-10', '02-24', '03-10']) await pullAt(`2031-${day}T00:00:00Z`)
  expect(bin()).toEqual([])
})

test('a last success in the future counts as overdue, not as recent', async () => {
  const source = world.path('watched')
  makeTree(source, { a: 'a' })
  const status = () => world.cli(['status', source, '/room/watched', '--max-age', '24h'])
  await runAt('2090-01-01T00:00:00Z', source, '/room/watched')
  expect((await status()).code).toBe(3)
  writeFileSync(join(source, 'a'), 'now')
  const now = new Date().toISOString()
  await runAt(now, source, '/room/watched')
  expect((await status()).code).toBe(0)
  const list = await world.cli(['runs', source, '/room/watched'])
  expect(list.stdout.split('\n').map((line) => line.slice(0, 4))).toEqual([now.slice(0, 4), '2090', ''])
})
