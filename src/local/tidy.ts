/**
 * Tidying up the directory in which this program keeps logins, states and locks. A process that was killed while it wrote there
 * leaves a temporary file, which may hold a live token, and locks; what belongs to one that lives, or to another machine, stays.
 * @module
 */
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../environment.ts'
import { removeStaleLock } from './lock.ts'
import { sweepDirectory } from './partial-file.ts'

/** Directories in which we write, and how deep. Others in it are not ours to look through. */
const DEPTHS: Readonly<Record<string, number>> = Object.freeze({
  backups: 0,
  drills: 0,
  'file-keys': 0,
  'key-pairs': 0,
  listings: 0,
  locks: 1,
  pins: 1,
  'sealed-passwords': 0,
  sync: 2,
  tmp: 0,
})

/** Never fails: it must not keep anybody from working. */
export async function tidyOwnDirectory(home: string, clock: Clock): Promise<void> {
  const names = await tidy(home, clock)
  for (const name of names) {
    const depth = DEPTHS[name]
    if (depth !== undefined) await tidyBelow(join(home, name), depth, clock)
  }
}

async function tidyBelow(directory: string, depth: number, clock: Clock): Promise<void> {
  const names = await tidy(directory, clock)
  if (depth > 0) for (const name of names) await tidyBelow(join(directory, name), depth - 1, clock)
}

/** Tidies one directory; returns the names of those in it. */
async function tidy(directory: string, clock: Clock): Promise<string[]> {
  const entries = await readdir(directory, { withFileTypes: true }).catch(() => [])
  if (entries.some(({ name }) => name.startsWith('.sealsync-'))) await sweepDirectory(directory, clock)
  for (const entry of entries) {
    const isLock = entry.isFile() && /\.(?:lock|break)$/.test(entry.name)
    if (isLock) await removeStaleLock(join(directory, entry.name), clock)
  }
  return entries.flatMap((entry) => (entry.isDirectory() ? [entry.name] : []))
}
