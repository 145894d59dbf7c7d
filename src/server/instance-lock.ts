/**
 * One running server per data directory: a lock file that names its owner. Tools that only write metadata need no lock.
 * @module
 */
import { randomUUID } from 'node:crypto'
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, unlinkSync, writeSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { SyncError } from '../../crypto/errors.ts'

interface Owner {
  pid: number
  host: string
  /** Tells a process from a later one with the same id, where the system says when it started. */
  started: string
  id: string
}

/** Start time of a process in ticks since boot, or '' where that cannot be learnt. */
function startOf(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // Fields after the command, which may itself hold spaces and brackets; start time is number 22 of all.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? ''
  } catch {
    return ''
  }
}

function isAlive(owner: Owner): boolean {
  if (owner.host !== hostname()) return true
  try {
    process.kill(owner.pid, 0)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false
  }
  const started = startOf(owner.pid)
  return started === '' || owner.started === '' || started === owner.started
}

function readOwner(path: string): Owner | undefined {
  try {
    const owner = JSON.parse(readFileSync(path, 'utf8')) as Partial<Owner> | null
    if (typeof owner?.pid !== 'number' || typeof owner.host !== 'string' || typeof owner.id !== 'string')
      return undefined
    return { pid: owner.pid, host: owner.host, started: String(owner.started ?? ''), id: owner.id }
  } catch {
    return undefined
  }
}

/**
 * Takes the lock.
 *
 * @returns a function that gives it back.
 * @throws {SyncError} `SERVER_RUNNING` when a live server has it.
 */
export function takeInstanceLock(dataDir: string): () => void {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 })
  const path = join(dataDir, 'server.lock')
  const own: Owner = { pid: process.pid, host: hostname(), started: startOf(process.pid), id: randomUUID() }
  for (let attempt = 0; attempt < 5; attempt++) {
    try {
      const fd = openSync(path, 'wx', 0o600)
      writeSync(fd, JSON.stringify(own))
      fsyncSync(fd)
      closeSync(fd)
      return () => {
        if (readOwner(path)?.id === own.id) unlinkSync(path)
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    }
    const owner = readOwner(path)
    if (owner !== undefined && isAlive(owner)) break
    // Renaming first lets exactly one of several starters clear a lock that was left behind.
    const aside = `${path}.${own.id}`
    try {
      renameSync(path, aside)
      unlinkSync(aside)
    } catch {
      // Another starter was quicker.
    }
  }
  throw new SyncError('conflict', 'SERVER_RUNNING', 'Another server is using this data directory', {
    hint: 'Stop the other server, or give this one a directory of its own.',
  })
}
