/**
 * Locks between processes: a file made with `wx` that names its holder. A lock is stale only when it is from this host and
 * its process is gone; age alone proves nothing (machines sleep).
 * @module
 */
import { closeSync, openSync, unlinkSync, writeSync } from 'node:fs'
import { readFile, stat, unlink } from 'node:fs/promises'
import { hostname } from 'node:os'
import { dirname } from 'node:path'
import type { Clock } from '../environment.ts'
import { localError, SyncError, systemCode } from '../errors.ts'
import { makePrivateDirectory } from './atomic-file.ts'
import { processStart } from './process-identity.ts'

interface Holder {
  pid: number
  host: string
  started: string
  id: string
}

export interface Lock {
  release(): Promise<void>
}

/** Just being written, or cut by a crash: an empty id never matches, so it is judged by the next look. */
const UNREADABLE: Holder = Object.freeze({ pid: 0, host: '', started: '', id: '' })

async function read(path: string): Promise<Holder | undefined> {
  let content: string
  try {
    content = await readFile(path, 'utf8')
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined
    throw localError(error, `read the lock ${path}`)
  }
  try {
    const { pid, host, started, id } = JSON.parse(content)
    if (!Number.isSafeInteger(pid) || pid <= 0) return UNREADABLE
    if ([host, started, id].some((field) => typeof field !== 'string')) return UNREADABLE
    return { pid, host, started, id }
  } catch {
    return UNREADABLE
  }
}

const isStale = (holder: Holder): boolean => holder.host === hostname() && processStart(holder.pid) !== holder.started

/** Whether a process of this machine that is alive has the lock. */
export async function isHeldHere(path: string): Promise<boolean> {
  const holder = await read(path)
  return holder !== undefined && holder.host === hostname() && !isStale(holder)
}

async function tryLock(path: string): Promise<Lock | undefined> {
  const id = globalThis.crypto.randomUUID()
  const mine: Holder = { pid: process.pid, host: hostname(), started: processStart(process.pid) ?? '', id }
  // In one go, without awaiting: nobody should see the file empty for longer than it takes.
  let fd: number
  try {
    fd = openSync(path, 'wx', 0o600)
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return undefined
    throw localError(error, `lock ${path}`)
  }
  let isOpen = true
  try {
    writeSync(fd, JSON.stringify(mine))
    isOpen = false
    closeSync(fd)
  } catch (error) {
    attempt(() => unlinkSync(path))
    if (isOpen) attempt(() => closeSync(fd))
    throw localError(error, `lock ${path}`)
  }
  return {
    /** What cannot be removed is stale as soon as this process has ended. */
    async release() {
      const holder = await read(path).catch(() => undefined)
      if (holder?.id === id) await unlink(path).catch(() => {})
    },
  }
}

function attempt(step: () => void): void {
  try {
    step()
  } catch {
    // What was wrong before is what is to be told.
  }
}

interface LockOptions {
  clock: Clock
  waitMs: number
  signal?: AbortSignal
}

/**
 * Removes a dead holder's lock. Only one process at a time may, and it looks again first: otherwise a slow one could remove
 * the lock of a quick one that is alive.
 *
 * @returns false when another process is at it.
 */
async function breakStale(path: string, holder: Holder, options: LockOptions): Promise<boolean> {
  let guard: Lock
  try {
    guard = await takeLock(`${path}.break`, { ...options, waitMs: 0 })
  } catch (error) {
    if (error instanceof SyncError && error.code === 'LOCKED') return false
    throw error
  }
  try {
    if ((await read(path))?.id === holder.id) await unlink(path)
    return true
  } catch (error) {
    throw localError(error, `remove the stale lock ${path}`)
  } finally {
    await guard.release()
  }
}

/** What was cut while it was written, so long ago, belongs to nobody. */
const UNREADABLE_MS = 60_000

/** Removes a lock file that a dead process has left, if it is one. Never fails. */
export async function removeStaleLock(path: string, clock: Clock): Promise<void> {
  try {
    const holder = await read(path)
    if (holder === undefined) return
    const isOver = holder.id === '' ? clock.now() - (await stat(path)).mtimeMs > UNREADABLE_MS : isStale(holder)
    if (isOver) await (await takeLock(path, { clock, waitMs: 0 })).release()
  } catch {
    // Somebody else was at it, or it cannot be removed.
  }
}

/**
 * Takes a lock, waiting up to `waitMs`.
 *
 * @throws {SyncError} `LOCKED` (class `conflict`) when another process holds it for longer.
 */
export async function takeLock(path: string, options: LockOptions): Promise<Lock> {
  await makePrivateDirectory(dirname(path))
  const deadline = options.clock.monotonic() + options.waitMs
  let unreadable = 0
  for (;;) {
    const lock = await tryLock(path)
    if (lock) return lock
    const holder = await read(path)
    if (holder === undefined) continue
    const isUnreadable = holder.id === ''
    unreadable = isUnreadable ? unreadable + 1 : 0
    const isSettled = !isUnreadable || unreadable > 20
    if (isSettled && (isUnreadable || isStale(holder)) && (await breakStale(path, holder, options))) continue
    if (isSettled && options.clock.monotonic() >= deadline) {
      throw new SyncError('conflict', 'LOCKED', `Another process (pid ${holder.pid} on ${holder.host}) holds ${path}`, {
        hint: 'Wait for it to end; a lock of a dead process is taken over by itself.',
      })
    }
    await options.clock.sleep(50, options.signal)
  }
}
