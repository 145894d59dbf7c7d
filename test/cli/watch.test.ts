/** `--watch`: changes on either side arrive, and it ends as it should. When runs are due: test/sync/watch.test.ts. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { createWorld, MAIN, makeTree, type World } from '../support/cli.ts'

let world: World
beforeAll(async () => {
  world = await createWorld()
})
afterAll(() => world.close())
afterEach(() => world.server.faults.clear())

type Line = Record<string, unknown>

/** The built command line with `--watch`; `until` resolves with the first line of output, seen or to come, that fits. */
function startWatch(args: readonly string[], more: Record<string, string> = {}) {
  const all = [MAIN, ...args, '--watch', '--json', '--key-password-file', world.keyPasswordFile]
  const child = spawn(process.execPath, all, {
    env: { PATH: process.env.PATH ?? '', SEALSYNC_HOME: world.home, ...more },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  const closed = once(child, 'close') as Promise<[number | null]>
  let stderr = ''
  child.stderr.setEncoding('utf8').on('data', (text) => {
    stderr += text
  })
  const lines: Line[] = []
  const waiting = new Set<() => void>()
  createInterface({ input: child.stdout }).on('line', (line) => {
    lines.push(JSON.parse(line))
    for (const look of waiting) look()
  })
  const until = (fits: (line: Line) => boolean, from = 0) =>
    new Promise<Line>((resolve, reject) => {
      const look = () => {
        const found = lines.slice(from).find(fits)
        if (found === undefined) return
        waiting.delete(look)
        resolve(found)
      }
      waiting.add(look)
      look()
      void closed.then(() => reject(new Error(`it ended: ${stderr}`)))
    })
  return {
    lines,
    until,
    stderr: () => stderr,
    async end(signal: NodeJS.Signals) {
      child.kill(signal)
      return (await closed)[0]
    },
    exit: async () => (await closed)[0],
  }
}

const isSummary = (line: Line) => line.type === 'summary'
const transfers = (line: Line) => isSummary(line) && Number(line.transferred) > 0
const isDone = (path: string) => (line: Line) => line.type === 'file' && line.path === path && line.status === 'done'

describe('a pair that is watched', () => {
  test('both: changes on either side arrive; an outage is survived; Ctrl-C ends it', async () => {
    const [local, events] = [world.path('both'), world.path('both.ndjson')]
    makeTree(local, { a: 'one' })
    const watch = startWatch(['both', local, '/room/both', '--poll', '1s', '--events', events])
    expect(await watch.until(transfers)).toMatchObject({ transferred: 1, exitCode: 0 })

    writeFileSync(join(local, 'b'), 'two')
    await watch.until(isDone('b'))
    const other = world.path('other')
    makeTree(other, { 'c.txt': 'three' })
    await (await world.client()).upload([other], '/room/both', { contents: true })
    await watch.until(isDone('c.txt'))
    expect(readFileSync(join(local, 'c.txt'), 'utf8')).toBe('three')

    // Another command may have its turn between two runs: the lock is not held.
    const looked = await world.cli(['both', local, '/room/both', '--wait', '10m'])
    expect(looked.code).toBe(0)

    const seen = watch.lines.length
    world.server.faults.add({ on: { path: '.' }, times: 1_000_000, do: { status: 501 } })
    writeFileSync(join(local, 'd'), 'four')
    const failed = await watch.until((line) => isSummary(line) && line.exitCode === 5, seen)
    expect(failed).toMatchObject({ stoppedBy: {} })
    world.server.faults.clear()
    await watch.until(isDone('d'))
    expect(watch.stderr()).toMatch(/The next try is in 5 s/)

    expect(await watch.end('SIGINT')).toBe(130)
    const runs = readFileSync(events, 'utf8').match(/"run-ended"/g)
    expect(runs?.length).toBe(watch.lines.filter(isSummary).length)
  })

  test('push: what is removed here goes there; an emptied directory ends it', async () => {
    // What lies in the directory of this program is heard like everything else.
    const local = join(world.home, 'push')
    makeTree(local, { a: 'one', 'sub/b': 'two', 'old/below/c': 'three' })
    const watch = startWatch(['push', local, '/room/push', '--delete'])
    await watch.until(transfers)
    renameSync(join(local, 'old'), join(local, 'new'))
    await watch.until((line) => isSummary(line) && line.moved === 1)
    writeFileSync(join(local, 'new/below/d'), 'four')
    await watch.until(isDone('new/below/d'))
    rmSync(join(local, 'sub'), { recursive: true })
    await watch.until((line) => isSummary(line) && line.deleted === 2)
    rmSync(local, { recursive: true })
    expect(await watch.exit()).toBe(9)
    expect(watch.lines.at(-1)).toMatchObject({ type: 'summary', exitCode: 9, stoppedBy: { code: 'ROOT_MISSING' } })
  })

  test('pull: by the clock where nothing tells of changes; SIGTERM ends it', async () => {
    const [local, other] = [world.path('pull'), world.path('pull-other')]
    makeTree(other, { a: 'one' })
    const anna = await world.client()
    await anna.upload([other], '/room/pull', { contents: true })
    const watch = startWatch(['pull', '/room/pull', local, '--poll', '1h', '--rescan', '1s'])
    await watch.until(isDone('a'))
    writeFileSync(join(other, 'b'), 'two')
    await anna.upload([other], '/room/pull', { contents: true })
    await watch.until(isDone('b'))
    expect(await watch.end('SIGTERM')).toBe(143)
    expect(existsSync(join(local, 'b'))).toBe(true)
  })

  test('without help from the system the clock finds changes; that is said once', async () => {
    const [local, hook] = [world.path('unwatched'), world.path('no-watcher.cjs')]
    makeTree(local, { a: 'one' })
    // As when fs.inotify.max_user_watches is used up by the first directory.
    writeFileSync(
      hook,
      `const fs = require('node:fs')
       fs.watch = () => { throw Object.assign(new Error('no more'), { code: 'ENOSPC' }) }
       require('node:module').syncBuiltinESMExports()`,
    )
    const env = { NODE_OPTIONS: `--require ${hook}` }
    const watch = startWatch(['push', local, '/room/unwatched', '--rescan', '1s'], env)
    await watch.until(transfers)
    writeFileSync(join(local, 'b'), 'two')
    await watch.until(isDone('b'))
    expect(await watch.end('SIGINT')).toBe(130)
    expect(watch.stderr().match(/warning: The system does not tell of all changes.*max_user_watches/g)?.length).toBe(1)
    expect(watch.lines.filter(({ code }) => code === 'WATCH_REFUSED')).toHaveLength(1)
  })

  test('what cannot work ends at once', async () => {
    const local = world.path('usage')
    mkdirSync(local)
    const ends = async (...args: string[]) => startWatch(['push', ...args]).exit()
    expect(
      await Promise.all([
        ends(world.path('missing'), '/room/x'),
        ends(local, '/room/x', '-n'),
        ends(local, '/room/x', '--rescan', '10ms'),
        ends(local, '/room/x', '--files-from', '-'),
      ]),
    ).toEqual([2, 2, 2, 2])
  })
})
