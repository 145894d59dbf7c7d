/** Handing out keys day and night: rounds, back-off, several at once, who is trusted meanwhile; on a clock of the test. @module */
import { mkdtempSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, onTestFinished, test } from 'vitest'
import { listMissingFileKeys } from '../../src/api/file-keys.ts'
import { putRoomMembers } from '../../src/api/nodes.ts'
import type { KeyServerRound, ServeKeysOptions } from '../../src/client/index.ts'
import type { Client } from '../../src/client.ts'
import { unlockFixture } from '../crypto/support.ts'
import { createWorld, giveKeyPair, KEY_PASSWORD, makeRoom, user1, type World } from '../support/cli.ts'
import { fakeClock } from '../support/clock.ts'
import { errorOf } from '../support/servers.ts'

let world: World
let number = 0
beforeAll(async () => {
  world = await createWorld({ users: [user1, 'bob'] })
  await giveKeyPair(await world.client('bob'))
})
afterAll(() => world.close())
afterEach(() => world.server.faults.clear())

/** A room with files of anna that bob, who is in it, cannot open. */
async function roomFor(files: number): Promise<string> {
  const anna = await world.openClient()
  const room = await makeRoom(anna, `served ${++number}`)
  for (let at = 0; at < files; at++) await anna.put(`/${room.name}/${at}`, Buffer.from(`content ${at}`))
  const { id } = await (await world.client('bob')).whoami()
  const permissions = { manage: false, read: true, create: false, change: false, delete: false }
  const others = { manageDownloadShare: false, manageUploadShare: false, readRecycleBin: false }
  const bin = { restoreRecycleBin: false, deleteRecycleBin: false }
  await putRoomMembers(anna.api, room.id, 'users', [{ id, permissions: { ...permissions, ...others, ...bin } }])
  await anna.close()
  return `/${room.name}`
}

/** A machine that serves keys; its time goes on only when it waits. */
async function machine() {
  const clock = fakeClock('auto')
  const directory = mkdtempSync(join(world.base, 'serve-'))
  const client = await world.openClient({ directory, environment: { clock }, retryForMs: 0 })
  onTestFinished(() => client.close())
  return { client, clock }
}

/** Serves until so many rounds are over. */
async function serve(client: Client, rounds: number, options: ServeKeysOptions, after?: (round: number) => unknown) {
  const stop = new AbortController()
  const done: KeyServerRound[] = []
  const end = await client.keys.serve({
    ...options,
    signal: stop.signal,
    async onRound(round) {
      const one = await round()
      done.push(one)
      await after?.(done.length)
      if (done.length >= rounds) stop.abort(new Error('enough'))
      return one
    },
  })
  return { end, done }
}

const missing = async (client: Client, room: string) => {
  const { id: roomId } = await client.stat(room)
  return (await listMissingFileKeys(client.api, { roomId, offset: 0 })).items.length
}

test('names who is not trusted, and hands out once they are', async () => {
  const room = await roomFor(2)
  const { client } = await machine()
  const { end, done } = await serve(client, 3, { room }, (round) => round === 2 && client.keys.trust('bob'))
  expect(end).toBe('stopped')
  expect(done.map(({ handedOut }) => handedOut)).toEqual([0, 0, 2])
  expect(done.map(({ refused }) => refused.map(({ error }) => error.code))).toEqual([
    ['MEMBER_NEW'],
    ['MEMBER_NEW'],
    [],
  ])
  expect(await missing(client, room)).toBe(0)
})

test('a round hands out no more than it may, and the next one comes at once', async () => {
  const room = await roomFor(103)
  const { client, clock } = await machine()
  await client.keys.trust('bob')
  const { done } = await serve(client, 3, { room, atMost: 1, intervalMs: 600_000 })
  // Whole calls: what is unwrapped together is handed out together.
  expect(done.map(({ handedOut, isCut }) => [handedOut, isCut])).toEqual([
    [100, true],
    [3, undefined],
    [0, undefined],
  ])
  const [first, second] = clock.sleeps.slice(-2) as [number, number]
  expect(first).toBeLessThan(2_000)
  expect(second).toBeGreaterThanOrEqual(450_000)
  expect(second).toBeLessThanOrEqual(750_000)
})

test('several serve one room: every key arrives once, and none of them fails', async () => {
  const room = await roomFor(5)
  const machines = await Promise.all([machine(), machine(), machine()])
  for (const { client } of machines) await client.keys.trust('bob')
  const served = await Promise.all(machines.map(({ client }) => serve(client, 2, { room })))
  for (const { done } of served) for (const round of done) expect(round.stoppedBy).toBeUndefined()
  const bob = await world.openClient({}, 'bob')
  for (let at = 0; at < 5; at++) {
    expect(Buffer.from(await (await bob.get(`${room}/${at}`)).bytes()).toString()).toBe(`content ${at}`)
  }
  await bob.close()
})

test('a server that is away is waited for, longer each time, and then served', async () => {
  const room = await roomFor(1)
  const { client, clock } = await machine()
  await client.keys.trust('bob')
  world.server.faults.add({ on: { path: '/missingFileKeys$' }, times: 3, do: { status: 503 } })
  const before = clock.sleeps.length
  const { done } = await serve(client, 4, { room })
  expect(done.map(({ stoppedBy, handedOut }) => [stoppedBy?.class, handedOut])).toEqual([
    ['server', 0],
    ['server', 0],
    ['server', 0],
    [undefined, 1],
  ])
  const waits = clock.sleeps.slice(before).filter((ms) => ms >= 3_000)
  for (const [at, ms] of waits.slice(0, 3).entries()) {
    expect(ms).toBeGreaterThanOrEqual(5_000 * 2 ** at * 0.75)
    expect(ms).toBeLessThanOrEqual(5_000 * 2 ** at * 1.25)
  }
})

test('another key pair ends it for a new client; wrong use and a wrong password end it for a person', async () => {
  const room = await roomFor(1)
  const { client } = await machine()
  expect(await errorOf(client.keys.serve({ intervalMs: 10 }))).toMatchObject({ code: 'OPTION_INVALID' })
  expect(await errorOf(client.keys.serve({ atMost: 0 }))).toMatchObject({ code: 'OPTION_INVALID' })
  const stranger = await world.openClient({ keyPassword: async () => 'wrong', trustNewMembers: true })
  expect(await errorOf(stranger.keys.serve({ room }))).toMatchObject({ code: 'KEY_PASSWORD_WRONG' })
  await stranger.close()
  const other = await unlockFixture('A')
  const { end, done } = await serve(client, 9, { room }, (round) => round === 2 && giveKeyPair(client, other))
  expect([end, done.length]).toEqual(['key-pair-changed', 3])
  await client.api.send({ method: 'DELETE', url: `${client.origin}/api/v4/user/account/keypair?version=A` })
  await client.keys.tryPassword(KEY_PASSWORD)
})
