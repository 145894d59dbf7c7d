/** What is kept of transfers: of the newest ones, and of all that can be gone on with. */
import { existsSync, mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { systemClock } from '../../src/environment.ts'
import { takeLock } from '../../src/local/lock.ts'
import { transferPair } from '../../src/sync/jobs/transfer.ts'
import { dropOldTransfers } from '../../src/sync/old-transfers.ts'
import { journalOf, lockOf } from '../../src/sync/run-job.ts'
import { openState, type Pair, stateDirectory } from '../../src/sync/state.ts'

const states = mkdtempSync(join(tmpdir(), 'sealsync-old-'))
afterAll(() => rmSync(states, { recursive: true }))

async function remember(pair: Pair, day: number): Promise<string> {
  const directory = stateDirectory(states, pair)
  mkdirSync(directory, { mode: 0o700 })
  const state = await openState(directory, pair, day, () => {})
  state.beginRun({ command: 'upload', startedAt: day })
  await state.flush()
  await state.close()
  utimesSync(join(directory, 'runs'), day, day)
  return directory
}

test('the oldest transfers go, but none that is running or can be gone on with, and no pair', async () => {
  const place = { directory: states, account: 'anna' }
  const upload = (name: string, day: number) =>
    remember(transferPair('upload', [name], { target: '/room' }, place), day)
  const pair = await remember({ account: 'anna', local: '/a', remote: '/room' }, 1)
  const open = await upload('/open', 2)
  writeFileSync(journalOf(open), '')
  const running = await upload('/running', 3)
  const lock = await takeLock(lockOf(running), { clock: systemClock, waitMs: 0 })
  const [old, older] = [await upload('/old', 5), await upload('/older', 4)]
  const [recent, newest] = [await upload('/recent', 6), await upload('/newest', 7)]
  const left = () => [pair, open, running, older, old, recent, newest].map((directory) => existsSync(directory))
  await dropOldTransfers(states, systemClock)
  expect(left()).toEqual(Array(7).fill(true))
  await dropOldTransfers(states, systemClock, 3)
  expect(left()).toEqual([true, true, true, false, true, true, true])
  await lock.release()
  await dropOldTransfers(states, systemClock, 3)
  expect(left()).toEqual([true, true, false, false, true, true, true])
})
