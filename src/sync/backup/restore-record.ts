/**
 * What this machine remembers of restores into new directories: which run was begun in which directory. It is written before anything
 * is restored, so that a restore that was killed can be given again and goes on; and it stays, so that a restore that has come
 * to its end finds all there when it is given again. It allows to go on where everything that differs is kept, and nothing else.
 * @module
 */
import { createHash } from 'node:crypto'
import { type BigIntStats, statSync } from 'node:fs'
import { readdir, rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import type { Clock } from '../../environment.ts'
import { readPrivateFile, writePrivateFile } from '../../local/atomic-file.ts'
import { sweepDirectory } from '../../local/partial-file.ts'

export interface RestoreRecord {
  readonly run: string
  /** Only these were asked for; empty: all. */
  readonly paths: readonly string[]
}

interface Stored extends RestoreRecord {
  readonly version: 1
  readonly target: string
  readonly directory: string
}

/** Tells a directory from one that was made under the same name later; inode numbers are used again, birth times are not. */
function identityOf(target: string): string | undefined {
  let info: BigIntStats | undefined
  try {
    info = statSync(target, { bigint: true, throwIfNoEntry: false })
  } catch {
    return undefined
  }
  return info?.isDirectory() ? `${info.dev}:${info.ino}:${info.birthtimeNs}` : undefined
}

const folderOf = (setDirectory: string) => join(setDirectory, 'restores')

const placeOf = (setDirectory: string, target: string) =>
  join(folderOf(setDirectory), `${createHash('sha256').update(resolve(target)).digest('hex').slice(0, 32)}.json`)

async function read(path: string): Promise<Stored | undefined> {
  try {
    const bytes = await readPrivateFile(path)
    const stored: Stored | undefined = bytes && JSON.parse(Buffer.from(bytes).toString('utf8'))
    return stored?.version === 1 && typeof stored.run === 'string' && Array.isArray(stored.paths) ? stored : undefined
  } catch {
    return undefined // without a record the target just has to be empty
  }
}

/** Held by a restore into a directory. */
export const restoreLock = (setDirectory: string, target: string): string =>
  placeOf(setDirectory, target).replace(/json$/, 'lock')

/**
 * The restore that was begun in a directory, if it is still that directory.
 *
 * @param setDirectory - See `backupDirectory`.
 */
export async function readRestoreRecord(setDirectory: string, target: string): Promise<RestoreRecord | undefined> {
  const stored = await read(placeOf(setDirectory, target))
  const isHere = stored?.directory !== undefined && stored.directory === identityOf(target)
  return isHere ? { run: stored.run, paths: stored.paths } : undefined
}

/**
 * Remembers the restore that begins in a directory, durably; forgets those whose directories are gone.
 *
 * @throws {SyncError} of class `local_io`.
 */
export async function writeRestoreRecord(
  setDirectory: string,
  target: string,
  record: RestoreRecord,
  clock: Clock,
): Promise<void> {
  const folder = folderOf(setDirectory)
  await sweepDirectory(folder, clock)
  for (const name of await readdir(folder).catch(() => [])) {
    if (!name.endsWith('.json')) continue
    const stored = await read(join(folder, name))
    const isGone = stored === undefined || identityOf(stored.target) !== stored.directory
    if (isGone) await rm(join(folder, name), { force: true })
  }
  const directory = identityOf(target)
  if (directory === undefined) return
  const stored: Stored = { version: 1, target: resolve(target), directory, ...record }
  await writePrivateFile(placeOf(setDirectory, target), `${JSON.stringify(stored)}\n`)
}

/** True when the same command was given. */
export const isSameRestore = (a: RestoreRecord, b: RestoreRecord): boolean =>
  a.run === b.run && JSON.stringify([...a.paths].sort()) === JSON.stringify([...b.paths].sort())
