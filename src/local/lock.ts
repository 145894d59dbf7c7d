/**
 * Locks between processes: a file made with `wx` that names its holder. A lock is stale only when it is from this host and
 * its process is gone; age alone proves nothing (machines sleep).
 * @module
 */
import { open, readFile, rename, unlink } from 'node:fs/promises'
import { hostname } from 'node:os'
import { dirname } from 'node:path'
import type { Clock } from '../environment.ts'
import { localError, SyncError, systemCode } from '../errors.ts'
import { makePrivateDirectory } from './atomic-file.ts'

interface Holder {
  pid: number
  host: string
  started: string
  id: string
}

export interface Lock {
  release(): Promise<void>
}

/** Boot id and start time of a process: a recycled pid does not look like the same process. */
async function processStart(pid: number): Promise<string | undefined> {
  try {
    process.kill(pid, 0)
  } catch (error) {
    if (systemCode(error) === 'ESRCH') return undefined
  }
  if (process.platform !== 'linux') return 'alive'
  try {
    const boot = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
    const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).replace(/^.*\) /s, '').split(' ')
    return `${boot}/${fields[19]}`
  } catch {
    return undefined
  }
}

async function read(path: string): Promise<Holder | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8'))
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined
    // Just being written, or cut by a crash: an empty id never matches, so it is judged by the next look.
    return { pid: 0, host: '', started: '', id: '' }
  }
}

async function isStale(holder: Holder): Promise<boolean> {
  if (holder.host !== hostname()) return false
  return (await processStart(holder.pid)) !== holder.started
}

async function tryLock(path: string): Promise<Lock | undefined> {
  const id = globalThis.crypto.randomUUID()
  const mine: Holder = { pid: process.pid, host: hostname(), started: (await processStart(process.pid)) ?? '', id }
  try {
    const handle = await open(path, 'wx', 0o600)
    await handle.writeFile(JSON.stringify(mine))
    await handle.close()
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return undefined
    throw localError(error, `lock ${path}`)
  }
  return {
    async release() {
      if ((await read(path))?.id === id) await unlink(path).catch(() => {})
    },
  }
}

/** Takes a dead holder's lock away by renaming it to a unique name first, so that one of many takers wins. */
async function breakStale(path: string, holder: Holder): Promise<void> {
  const aside = `${path}.${globalThis.crypto.randomUUID()}`
  try {
    await rename(path, aside)
  } catch {
    return
  }
  const moved = await read(aside)
  if (moved?.id !== holder.id) {
    // Somebody replaced it meanwhile: put theirs back unless a third is there already.
    await rename(aside, path).catch(() => {})
    return
  }
  await unlink(aside).catch(() => {})
}

/**
 * Takes a lock, waiting up to `waitMs`.
 *
 * @throws {SyncError} `LOCKED` (class `conflict`) when another process holds it for longer.
 */
export async function takeLock(
  path: string,
  options: { clock: Clock; waitMs: number; signal?: AbortSignal },
): Promise<Lock> {
  await makePrivateDirectory(dirname(path))
  const deadline = options.clock.monotonic() + options.waitMs
  let unreadable = 0
  for (;;) {
    const lock = await tryLock(path)
    if (lock) return lock
    const holder = await read(path)
    if (holder === undefined) continue
    unreadable = holder.id === '' ? unreadable + 1 : 0
    if (holder.id === '' ? unreadable > 20 : await isStale(holder)) {
      await breakStale(path, holder)
      continue
    }
    if (options.clock.monotonic() >= deadline) {
      throw new SyncError('conflict', 'LOCKED', `Another process (pid ${holder.pid} on ${holder.host}) holds ${path}`, {
        hint: 'Wait for it to end; a lock of a dead process is taken over by itself.',
      })
    }
    await options.clock.sleep(50, options.signal)
  }
}
