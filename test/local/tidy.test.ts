import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, utimesSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { systemClock } from '../../src/environment.ts'
import { temporaryName } from '../../src/local/atomic-file.ts'
import { takeLock } from '../../src/local/lock.ts'
import { tidyOwnDirectory } from '../../src/local/tidy.ts'
import { freshDirectory } from '../support/files.ts'

const put = (path: string, content = 'live token') => {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, content, { mode: 0o600 })
}
/** A pid that nobody has. */
const { pid: deadPid } = spawnSync(process.execPath, ['-e', ''])
/** As ours, of a process that is gone. */
const deadName = () => temporaryName().replace(/^\.sealsync-\d+/, `.sealsync-${deadPid}`)
const deadLock = (host = hostname()) => JSON.stringify({ pid: deadPid, host, started: 'then', id: 'an-id' })

const PLACES = ['', 'locks', 'sync/pair', 'tmp', 'pins', 'file-keys', 'key-pairs', 'sealed-passwords']

test('what the dead left is removed everywhere, what the living and others have stays', async () => {
  const home = await freshDirectory()
  const kept: string[] = []
  const keep = (path: string, content?: string) => {
    put(path, content)
    kept.push(path)
  }
  for (const place of PLACES) {
    const at = join(home, place)
    for (const name of [deadName(), deadName()]) put(join(at, name))
    put(join(at, 'x.lock'), deadLock())
    put(join(at, 'y.lock'), deadLock())
    put(join(at, 'y.lock.break'), deadLock())
    keep(join(at, 'file.json'))
    keep(join(at, temporaryName()))
    keep(join(at, 'far.lock'), deadLock('another-host'))
  }
  put(join(home, 'cut.lock'), '')
  utimesSync(join(home, 'cut.lock'), 1, 1)
  keep(join(home, 'fresh.lock'), '')
  keep(join(home, 'foreign', deadName()))
  const held = await takeLock(join(home, 'held.lock'), { clock: systemClock, waitMs: 0 })
  await tidyOwnDirectory(home, systemClock)
  expect(existsSync(join(home, 'held.lock'))).toBe(true)
  await held.release()
  const left = readdirSync(home, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
  expect(left.sort()).toEqual(kept.sort())
})

test('a directory that is not there, or cannot be read, keeps nobody from working', async () => {
  await tidyOwnDirectory(join(await freshDirectory(), 'none'), systemClock)
})
