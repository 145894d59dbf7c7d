/** Backups that are killed at one request after the other: the next one goes on, and what is visible is whole. */
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { listRuns } from '../../src/sync/backup/read.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import { readRemoteTree } from '../../src/sync/tree.ts'
import { type Backup, createBackup } from '../support/backup.ts'
import {
  accountPassword,
  createWorld,
  KEY_PASSWORD,
  listFiles,
  makeTree,
  snapshot,
  user1,
  type World,
} from '../support/cli.ts'

const CHILD = fileURLToPath(new URL('../support/backup-child.mjs', import.meta.url))
/** Requests by which each kill comes later than the one before; the full set kills at each. */
const STRIDE = process.env.SEALSYNC_FULL ? 1 : 7

let world: World
beforeAll(async () => {
  world = await createWorld()
})
afterAll(() => world.close())

/** Bytes that it has read; `undefined` when it was killed. */
async function runChild(backup: Backup, limit: number, when: string, what: string): Promise<number | undefined> {
  const { set, state } = backup
  const account = [world.server.url, user1, accountPassword(user1), KEY_PASSWORD]
  const args = [CHILD, ...account, JSON.stringify(set), state.directory, String(limit), when, what]
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  let [stdout, stderr] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (chunk) => {
    stdout += chunk
  })
  child.stderr.setEncoding('utf8').on('data', (chunk) => {
    stderr += chunk
  })
  const [code, signal] = await once(child, 'close')
  if (signal === 'SIGKILL') return undefined
  expect(stderr).toBe('')
  expect(code).toBe(0)
  return Number(stdout)
}

/** Kills one after the other, each later than the one before; between them everything visible is whole. */
async function runToTheEnd(backup: Backup, what: string, between: () => Promise<void>): Promise<number> {
  for (let kills = 0; ; kills++) {
    const when = kills % 2 === 0 ? 'before' : 'after'
    if ((await runChild(backup, 1 + kills * STRIDE, when, what)) !== undefined) return kills
    await between()
  }
}

async function currentFiles(backup: Backup): Promise<string[]> {
  const { node, roomId } = await requireRemote(backup.context.api, `${backup.set.target}/files${backup.source}`)
  const entries = await readRemoteTree(backup.context.api, node, roomId)
  return entries.filter(({ node: { type } }) => type === 'file').map(({ path }) => path.join('/'))
}

test('a run and a prune, killed again and again', { timeout: 1_200_000 }, async () => {
  const backup = await createBackup(world, { keep: { last: 1 } })
  const { source, context, set, state } = backup
  makeTree(source, { a: 'a', b: 'b', 'sub/c': 'c', 'sub/d': 'd', 'gone/e': 'e', 'kind/f': 'f', same: 's' })
  const first = await backup.run()
  const before = snapshot(source)
  makeTree(source, { a: 'a2', 'sub/c': 'c2', new: 'n', 'deep/er/g': 'g' })
  for (const name of ['gone', 'kind', 'b']) rmSync(join(source, name), { recursive: true })
  writeFileSync(join(source, 'kind'), 'a file now')
  renameSync(join(source, 'sub/d'), join(source, 'sub/moved'))
  const now = snapshot(source)

  const wholeRuns = async () => {
    const { notes, problems } = await listRuns(context, set, state)
    expect(problems).toEqual([])
    const { summary, content } = await backup.restore(notes[0]!.run)
    expect(summary.failed).toEqual([])
    expect(snapshot(content)).toEqual(notes[0]!.run === first.run ? before : now)
  }
  expect(await runToTheEnd(backup, 'run', wholeRuns)).toBeGreaterThan(Math.floor(9 / STRIDE))
  expect(snapshot((await backup.restore()).content)).toEqual(now)
  await wholeRuns()
  expect((await currentFiles(backup)).sort()).toEqual(listFiles(source).sort())
  expect(await backup.run()).toMatchObject({ failed: [], bytes: 0, created: 0, changed: 0, removed: 0 })

  expect(await runToTheEnd(backup, 'prune', wholeRuns)).toBeGreaterThan(0)
  const { notes, problems } = await listRuns(context, set, state)
  expect([notes.length, problems]).toEqual([1, []])
  expect(snapshot((await backup.restore()).content)).toEqual(now)
  const history = await requireRemote(context.api, `${set.target}/history`)
  expect(await readRemoteTree(context.api, history.node, history.roomId)).toEqual([])
})

test.runIf(process.platform === 'linux')('a new file is read once', async () => {
  const backup = await createBackup(world)
  const size = 40_000_000
  makeTree(backup.source, { large: randomBytes(size) })
  const read = await runChild(backup, 0, 'before', 'run')
  expect(read).toBeGreaterThanOrEqual(size)
  expect(read).toBeLessThan(1.5 * size)
  expect(await backup.run()).toMatchObject({ failed: [], unchanged: 1, bytes: 0 })
})
