/** Runs that are killed at one file after the other: the next one goes on, nothing is lost, nothing is there twice. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { listChildren } from '../../src/api/nodes.ts'
import type { Client } from '../../src/client.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import { accountPassword, createWorld, KEY_PASSWORD, makeTree, snapshot, user1, type World } from '../support/cli.ts'

const CHILD = fileURLToPath(new URL('../support/sync-child.mjs', import.meta.url))
/** Files between two kills; the full set kills at each. */
const STRIDE = process.env.SEALSYNC_FULL ? 1 : 40

let world: World
let anna: Client
beforeAll(async () => {
  world = await createWorld()
  anna = await world.client()
})
afterAll(() => world.close())

async function runChild(
  direction: string,
  local: string,
  remote: string,
  state: string,
  limit: number,
): Promise<boolean> {
  const args = [CHILD, world.server.url, user1, accountPassword(user1), KEY_PASSWORD, direction, local, remote, state]
  const child = spawn(process.execPath, [...args, String(limit)], { stdio: ['ignore', 'ignore', 'pipe'] })
  let stderr = ''
  child.stderr.setEncoding('utf8').on('data', (chunk) => {
    stderr += chunk
  })
  const [code, signal] = await once(child, 'close')
  if (signal === 'SIGKILL') return true
  expect(stderr).toBe('')
  expect(code).toBe(0)
  return false
}

/** Kills runs until one comes to its end; returns how many were killed. */
async function runToTheEnd(direction: string, local: string, remote: string, state: string): Promise<number> {
  for (let kills = 0; ; kills++) {
    if (!(await runChild(direction, local, remote, state, STRIDE))) return kills
    if (kills > 500) throw new Error('it makes no progress')
  }
}

async function remoteNames(remote: string): Promise<string[]> {
  const names: string[] = []
  const visit = async (id: number, prefix: string): Promise<void> => {
    for await (const node of listChildren(anna.api, id)) {
      names.push(`${prefix}${node.name}`)
      if (node.type !== 'file') await visit(node.id, `${prefix}${node.name}/`)
    }
  }
  await visit((await requireRemote(anna.api, remote)).node.id, '')
  return names
}

async function expectEqual(local: string, remote: string): Promise<void> {
  const names = await remoteNames(remote)
  expect(new Set(names).size).toBe(names.length)
  const copy = `${local}-copy-${Date.now()}`
  expect((await anna.download([remote], copy, { contents: true })).failed).toEqual([])
  const here = Object.fromEntries(Object.entries(snapshot(local)).filter(([path]) => !path.startsWith('.sealsync-bin')))
  expect(snapshot(copy)).toEqual(here)
}

test(`200 files, killed after every ${STRIDE}: up, changed on both sides, down`, async () => {
  const [local, remote, state] = [world.path('tree'), '/room/tree', world.path('state')]
  const files = (count: number, prefix: string, content: string) =>
    Object.fromEntries(Array.from({ length: count }, (_, n) => [`${prefix}${n % 7}/${n}.txt`, `${content} ${n}`]))
  makeTree(local, files(200, 'dir', 'content'))
  expect(await runToTheEnd('push', local, remote, state)).toBeGreaterThanOrEqual(Math.floor(200 / STRIDE / 2))
  await expectEqual(local, remote)

  // Changed, renamed, removed here; new there.
  for (let n = 0; n < 60; n++) writeFileSync(`${local}/dir${n % 7}/${n}.txt`, `changed ${n}`)
  renameSync(`${local}/dir6`, `${local}/renamed`)
  for (const n of [63, 64, 65]) rmSync(`${local}/dir${n % 7}/${n}.txt`)
  const other = world.path('other')
  makeTree(other, files(60, 'theirs', 'new'))
  expect((await anna.upload([other], remote, { contents: true })).failed).toEqual([])
  expect(await runToTheEnd('both', local, remote, state)).toBeGreaterThanOrEqual(Math.floor(120 / STRIDE / 2))
  await expectEqual(local, remote)

  const fresh = world.path('fresh')
  mkdirSync(fresh)
  expect(await runToTheEnd('pull', fresh, remote, world.path('state2'))).toBeGreaterThanOrEqual(
    Math.floor(250 / STRIDE / 2),
  )
  await expectEqual(fresh, remote)
}, 900_000)
