/**
 * The temporary file of a large download. It outlives its process: beside it lies a small record of what it belongs to, and
 * the next run of the same download takes it over. What is in it is not to be trusted. A lock gives it one owner.
 *
 * Names, in the target's directory: `.sealsync-ID.part`, `.info`, `.lock`; ID is a digest of content and target.
 * @module
 */
import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, lstat, open, readdir, unlink } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import type { Clock } from '../environment.ts'
import { localError, SyncError } from '../errors.ts'
import {
  type AtomicFile,
  type Confirm,
  createTemporary,
  replacing,
  TEMP_MARK,
  writePrivateFile,
} from './atomic-file.ts'
import { type Lock, takeLock } from './lock.ts'
import { isOwnerGone } from './process-identity.ts'

export interface PartialFile extends AtomicFile {
  /** Bytes that an earlier run left at its beginning. */
  readonly found: number
  /** Closes it and leaves it for the next run; harmless after `commit` and `discard`. */
  keep(): Promise<void>
}

/** What nobody has come back to for so long is removed. */
const KEPT_FOR_MS = 14 * 24 * 60 * 60 * 1000
const MAX_INFO_BYTES = 4096

interface Info {
  /** Of the target. */
  readonly name: string
  /** Of the complete content. */
  readonly size: number
  /** Which file it is about: inode. */
  readonly file: string
}

const digest = (text: string) => createHash('sha256').update(text).digest('base64url').slice(0, 22)

function formatInfo(id: string, { name, size, file }: Info): string {
  const content = JSON.stringify([1, id, name, size, file])
  return JSON.stringify([content, digest(content)])
}

function parseInfo(text: string, id: string): Info | undefined {
  try {
    const [content, check] = JSON.parse(text)
    if (typeof content !== 'string' || check !== digest(content)) return undefined
    const [version, of, name, size, file] = JSON.parse(content)
    return version === 1 && of === id ? { name, size, file } : undefined
  } catch {
    return undefined
  }
}

const isPrivate = (info: { mode: bigint; uid: bigint; nlink: bigint; isFile(): boolean }) =>
  info.isFile() &&
  (process.platform === 'win32' ||
    ((info.mode & 0o077n) === 0n && info.nlink === 1n && info.uid === BigInt(process.getuid!())))

/** Opens what must be a private file of ours: nothing that somebody else put there, and never through a link. */
async function openOwn(path: string, flags: number): Promise<FileHandle | undefined> {
  let handle: FileHandle | undefined
  try {
    if (!isPrivate(await lstat(path, { bigint: true }))) return undefined
    handle = await open(path, flags | (constants.O_NOFOLLOW ?? 0))
    if (isPrivate(await handle.stat({ bigint: true }))) return handle
  } catch {
    // Whatever it is, it is not what we left.
  }
  await handle?.close().catch(() => {})
  return undefined
}

async function readInfo(base: string, id: string): Promise<(Info & { changedAt: number }) | undefined> {
  const handle = await openOwn(`${base}.info`, constants.O_RDONLY)
  if (handle === undefined) return undefined
  try {
    const { size, mtimeMs } = await handle.stat()
    const info = size > MAX_INFO_BYTES ? undefined : parseInfo(await handle.readFile('utf8'), id)
    return info && { ...info, changedAt: mtimeMs }
  } catch {
    return undefined
  } finally {
    await handle.close().catch(() => {})
  }
}

const isLocked = (error: unknown) => error instanceof SyncError && error.code === 'LOCKED'

const removeQuietly = (path: string) => unlink(path).catch(() => {})

async function removeBoth(base: string): Promise<void> {
  await removeQuietly(`${base}.part`)
  await removeQuietly(`${base}.info`)
}

async function takeOver(
  base: string,
  id: string,
  name: string,
  size: number,
): Promise<[FileHandle, number] | undefined> {
  const info = await readInfo(base, id)
  if (info?.name !== name || info.size !== size) return undefined
  const handle = await openOwn(`${base}.part`, constants.O_RDWR)
  if (handle === undefined) return undefined
  const now = await handle.stat({ bigint: true }).catch(() => undefined)
  if (now !== undefined && now.size <= BigInt(size) && String(now.ino) === info.file) return [handle, Number(now.size)]
  await handle.close().catch(() => {})
  return undefined
}

async function create(
  base: string,
  id: string,
  path: string,
  size: number,
  confirm: Confirm | undefined,
): Promise<FileHandle> {
  await removeBoth(base)
  const handle = await createTemporary(`${base}.part`, path, confirm)
  try {
    const { ino } = await handle.stat({ bigint: true })
    await writePrivateFile(`${base}.info`, formatInfo(id, { name: basename(path), size, file: String(ino) }))
    return handle
  } catch (error) {
    await handle.close().catch(() => {})
    await removeBoth(base)
    throw error
  }
}

/**
 * Opens the partial file of a download to `path`, an earlier run's if there is one that fits, else an empty one.
 *
 * @param identity - Everything that must be the same for old bytes to be of use.
 * @param size - Of the complete content.
 * @returns `undefined` when another process has it, or when something that cannot be removed is in its place.
 */
export async function openPartialFile(
  path: string,
  { identity, size, clock, confirm }: { identity: string; size: number; clock: Clock; confirm?: Confirm | undefined },
): Promise<PartialFile | undefined> {
  const id = digest(`${identity}\0${basename(path)}`)
  const base = join(dirname(path), `${TEMP_MARK}${id}`)
  let lock: Lock
  try {
    lock = await takeLock(`${base}.lock`, { clock, waitMs: 0 })
  } catch (error) {
    if (isLocked(error)) return undefined
    throw error
  }
  try {
    const [handle, found] = (await takeOver(base, id, basename(path), size)) ?? [
      await create(base, id, path, size, confirm),
      0,
    ]
    return partialFile(replacing(path, `${base}.part`, handle), found, `${base}.info`, lock)
  } catch (error) {
    await lock.release()
    if (error instanceof SyncError && error.code === 'LOCAL_EEXIST') return undefined
    throw localError(error, `create a temporary file beside ${basename(path)}`)
  }
}

function partialFile(file: AtomicFile, found: number, infoPath: string, lock: Lock): PartialFile {
  let over = false
  return {
    handle: file.handle,
    tempPath: file.tempPath,
    found,
    async commit(options) {
      await file.commit(options)
      over = true
      await removeQuietly(infoPath)
      await lock.release()
    },
    async discard() {
      if (over) return
      over = true
      await file.discard()
      await removeQuietly(infoPath)
      await lock.release()
    },
    async keep() {
      if (over) return
      over = true
      await file.handle.close().catch(() => {})
      await lock.release()
    },
  }
}

/** A partial file that may still be continued. */
export interface Leftover {
  readonly id: string
  /** Name of the file that it was to become. */
  readonly name: string
  /** Of disk that it takes up. */
  readonly bytes: number
}

const ANONYMOUS = /^\.sealsync-(\d+\.[\w-]{8}\.[\w-]{8})\.[\w-]{12}\.part$/
const PARTIAL = /^\.sealsync-([\w-]{22})\.(?:part|info|lock)$/

/**
 * Removes from a directory what processes that are gone have left there and nobody can continue. What belongs to a process
 * that lives, or to another machine, stays.
 *
 * @returns what may be continued. Never fails: tidying up must not keep anybody from working.
 */
export async function sweepDirectory(directory: string, clock: Clock): Promise<Leftover[]> {
  const names = await readdir(directory).catch(() => [])
  const ids = new Set<string>()
  for (const name of names) {
    if (!name.startsWith(TEMP_MARK)) continue
    const owner = ANONYMOUS.exec(name)?.[1]
    const id = PARTIAL.exec(name)?.[1]
    if (id !== undefined) ids.add(id)
    else if (owner !== undefined && isOwnerGone(owner)) await removeQuietly(join(directory, name))
  }
  const found: Leftover[] = []
  for (const id of ids) {
    const base = join(directory, `${TEMP_MARK}${id}`)
    const usable = () => look(base, id, clock)
    const left = await usable()
    if (left !== undefined) found.push({ id, ...left })
    // Once more under the lock: its owner may just have been at it.
    else await removeUnowned(base, clock, async () => (await usable()) === undefined)
  }
  return found
}

/** Removes what may be continued, unless somebody works on it. */
export const removeLeftover = (directory: string, { id }: Leftover, clock: Clock): Promise<void> =>
  removeUnowned(join(directory, `${TEMP_MARK}${id}`), clock)

async function look(base: string, id: string, clock: Clock): Promise<{ name: string; bytes: number } | undefined> {
  const info = await readInfo(base, id)
  if (info === undefined || Math.abs(clock.now() - info.changedAt) > KEPT_FOR_MS) return undefined
  const part = await lstat(`${base}.part`).catch(() => undefined)
  return part?.isFile() ? { name: info.name, bytes: part.size } : undefined
}

async function removeUnowned(base: string, clock: Clock, still = async () => true): Promise<void> {
  try {
    const lock = await takeLock(`${base}.lock`, { clock, waitMs: 0 })
    try {
      if (await still()) await removeBoth(base)
    } finally {
      await lock.release()
    }
  } catch {
    // It has an owner, or cannot be removed.
  }
}
