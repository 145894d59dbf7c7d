/**
 * What is remembered of transfers is kept for the newest ones: scripts send another file each day, and nobody takes back what was sent a
 * thousand transfers ago. Pairs are kept until somebody forgets them.
 * @module
 */
import { readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../environment.ts'
import { takeLock } from '../local/lock.ts'
import { lockOf } from './run-job.ts'
import { readPair, remembersPlaces } from './state.ts'

/** Pairs and transfers together. */
const KEPT = 1_000

/**
 * Forgets the transfers that ended longest ago. One that can be gone on with stays, and so does one that is running. Never fails: what
 * is left over is looked at again after the next transfer.
 *
 * @param states - Directory of all states.
 */
export async function dropOldTransfers(states: string, clock: Clock, kept: number = KEPT): Promise<void> {
  const entries = await readdir(states, { withFileTypes: true }).catch(() => [])
  const names = entries.flatMap((entry) => (entry.isDirectory() ? [entry.name] : []))
  if (names.length <= kept) return
  const found: { readonly directory: string; readonly at: number }[] = []
  for (const name of names) {
    const directory = join(states, name)
    const info = await stat(join(directory, 'runs')).catch(() => undefined)
    if (info !== undefined) found.push({ directory, at: info.mtimeMs })
  }
  found.sort((a, b) => a.at - b.at)
  for (const { directory } of found.slice(0, names.length - kept)) await drop(directory, clock)
}

async function drop(directory: string, clock: Clock): Promise<void> {
  try {
    const pair = await readPair(directory)
    if (pair === undefined || remembersPlaces(pair)) return
    const lock = await takeLock(lockOf(directory), { clock, waitMs: 0 })
    try {
      const isOpen = (await readdir(directory)).some((name) => name.endsWith('.journal'))
      if (!isOpen) await rm(directory, { recursive: true })
    } finally {
      await lock.release()
    }
  } catch {
    // It is in use, or cannot be removed.
  }
}
