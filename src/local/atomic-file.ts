/**
 * Files that are either the old or the new version, never half of one: temporary sibling (`wx`, 0600), sync, rename, sync of
 * the directory. Used for state, tokens and downloads.
 * @module
 */
import {
  closeSync,
  fstatSync,
  fsync,
  ftruncateSync,
  lstatSync,
  openSync,
  renameSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import { type FileHandle, mkdir, open, readFile, rename, stat, unlink } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { localError, SyncError, systemCode } from '../errors.ts'
import { type FileTimes, setMode, setTimes } from './attributes.ts'
import { ownerMark } from './process-identity.ts'

/** Marks our temporary files, so that a later run can tell them from the user's. */
export const TEMP_MARK = '.sealsync-'

/** Directory at the top of a synchronized tree for what a run removed or replaced there; see sync/local-bin.ts. */
export const BIN_NAME = `${TEMP_MARK}bin`

/** File at the top of a pushed tree on the server that says what is in it; see sync/tree-manifest.ts. It is never on a disk. */
export const MANIFEST_NAME = `${TEMP_MARK}manifest`

/** True for names that only we make, and that mean nothing to anybody else; see partial-file.ts. */
export const isTemporaryName = (name: string): boolean =>
  name.startsWith(TEMP_MARK) &&
  (name === BIN_NAME || name === MANIFEST_NAME || /\.(?:part|info|lock|break|moving)$/.test(name))

/** A fresh name that says whose it is, so that a later run can tell what nobody will come back to. */
export function temporaryName(): string {
  const random = Buffer.from(globalThis.crypto.getRandomValues(new Uint8Array(9))).toString('base64url')
  return `${TEMP_MARK}${ownerMark()}.${random}.part`
}

/** A directory that can be made durable. It is opened before a change to it, which then cannot fail for want of an open file. */
async function openDirectory(path: string): Promise<{ sync(): Promise<void>; close(): Promise<void> }> {
  // Windows cannot sync directories, and does not need to.
  if (process.platform === 'win32') return { sync: async () => {}, close: async () => {} }
  const handle = await open(path, 'r')
  return {
    async sync() {
      await handle.sync().catch((error) => {
        // Some network file systems cannot sync directories.
        if (systemCode(error) !== 'EINVAL') throw error
      })
    },
    close: () => handle.close(),
  }
}

/** Makes a directory's entries durable. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await openDirectory(path)
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}

/** Throws unless what was opened under a name is in the directory that is meant; see `HeldDirectory`. */
export type Confirm = (fd: number, name: string) => void

export interface AtomicFile {
  readonly handle: FileHandle
  readonly tempPath: string
  /** Syncs, closes and puts the file in place. */
  commit(options?: { times?: FileTimes | undefined; beforeRename?: () => Promise<void> }): Promise<void>
  /** Closes and removes the temporary file; harmless after `commit`. */
  discard(): Promise<void>
}

/**
 * Starts a new version of `path`. Directory must exist. Errors are of class `local_io`.
 *
 * @throws {SyncError} `NOT_A_FILE` (class `usage`) for a device, a pipe or a socket: a file would take its place.
 */
export async function createAtomicFile(path: string, confirm?: Confirm): Promise<AtomicFile> {
  if (isDevice(path)) {
    throw new SyncError('usage', 'NOT_A_FILE', `${path} is no file, and a file would take its place`, {
      hint: 'Name a file of your own.',
    })
  }
  // Short on purpose: the target's own name may already be as long as the file system allows.
  const tempPath = join(dirname(path), temporaryName())
  return replacing(path, tempPath, await createTemporary(tempPath, path, confirm))
}

/** True for devices, pipes and sockets. What cannot be seen is told when it is written. */
function isDevice(path: string): boolean {
  try {
    const info = lstatSync(path, { throwIfNoEntry: false })
    return info !== undefined && !info.isFile() && !info.isDirectory() && !info.isSymbolicLink()
  } catch {
    return false
  }
}

/** Makes a temporary file for `path` under a name that must be free. */
export async function createTemporary(tempPath: string, path: string, confirm?: Confirm): Promise<FileHandle> {
  let handle: FileHandle | undefined
  try {
    handle = await open(tempPath, 'wx+', 0o600)
    confirm?.(handle.fd, basename(tempPath))
    return handle
  } catch (error) {
    if (handle !== undefined) {
      removeIfSame(handle.fd, tempPath)
      await handle.close().catch(() => {})
    }
    throw localError(error, `create a temporary file beside ${basename(path)}`)
  }
}

/** Removes a file that is open, unless another one has its name now. What could not be removed is at least empty. */
function removeIfSame(fd: number, path: string): void {
  try {
    ftruncateSync(fd)
    const [mine, there] = [fstatSync(fd, { bigint: true }), lstatSync(path, { bigint: true })]
    if (mine.ino === there.ino && mine.dev === there.dev) unlinkSync(path)
  } catch {
    // Whatever went wrong before is what is to be told.
  }
}

/** The way of an open temporary file to the place of `path`. */
export function replacing(path: string, tempPath: string, handle: FileHandle): AtomicFile {
  let state: 'open' | 'closed' | 'done' = 'open'
  return {
    handle,
    tempPath,
    async commit(options = {}) {
      try {
        if (options.times) setTimes(handle.fd, options.times)
        await handle.sync()
        state = 'closed'
        await handle.close()
        const directory = await openDirectory(dirname(path))
        try {
          await options.beforeRename?.()
          await renameWithPatience(tempPath, path)
          state = 'done'
          await directory.sync()
        } finally {
          await directory.close()
        }
      } catch (error) {
        throw localError(error, `write ${basename(path)}`)
      }
    },
    async discard() {
      if (state === 'open') await handle.close().catch(() => {})
      if (state !== 'done') await unlink(tempPath).catch(() => {})
    },
  }
}

/**
 * Puts a small file in place in as few steps as it takes: temporary sibling, sync, rename. The new name is durable only after
 * `syncDirectory`, which does for many files at once.
 *
 * @param options.beforeRename - Throws when it must not take the name.
 */
export async function placeFile(
  path: string,
  content: Uint8Array,
  options: {
    times?: FileTimes | undefined
    /** Default 0600. */
    mode?: number
    confirm?: Confirm | undefined
    beforeRename: () => void
  },
): Promise<void> {
  const tempPath = join(dirname(path), temporaryName())
  let fd: number | undefined
  try {
    fd = openSync(tempPath, 'wx', 0o600)
  } catch (error) {
    throw localError(error, `create a temporary file beside ${basename(path)}`)
  }
  try {
    options.confirm?.(fd, basename(tempPath))
    for (let at = 0; at < content.length; ) at += writeSync(fd, content, at, content.length - at)
    if (options.mode !== undefined) setMode(fd, options.mode)
    if (options.times) setTimes(fd, options.times)
    await syncFile(fd)
    const written = fd
    fd = undefined
    closeSync(written)
    options.beforeRename()
    if (process.platform === 'win32') await renameWithPatience(tempPath, path)
    else renameSync(tempPath, path)
  } catch (error) {
    if (fd === undefined) removeQuietly(tempPath)
    else {
      removeIfSame(fd, tempPath)
      closeQuietly(fd)
    }
    throw localError(error, `write ${basename(path)}`)
  }
}

function removeQuietly(path: string): void {
  try {
    unlinkSync(path)
  } catch {
    // The next run looks for what is left.
  }
}

function closeQuietly(fd: number): void {
  try {
    closeSync(fd)
  } catch {
    // It is closed all the same.
  }
}

const syncFile = promisify(fsync)

/** On Windows a scanner may hold a new file for a moment. */
async function renameWithPatience(from: string, to: string): Promise<void> {
  for (let wait = 10; ; wait *= 2) {
    try {
      return await rename(from, to)
    } catch (error) {
      const busy = process.platform === 'win32' && ['EPERM', 'EBUSY', 'EACCES'].includes(systemCode(error) ?? '')
      if (!busy || wait > 2_000) throw error
      await new Promise((resolve) => setTimeout(resolve, wait))
    }
  }
}

/** Writes a small private file atomically; makes its directory (0700). */
export async function writePrivateFile(path: string, content: string | Uint8Array): Promise<void> {
  await makePrivateDirectory(dirname(path))
  const file = await createAtomicFile(path)
  try {
    await file.handle.writeFile(content).catch((error) => {
      throw localError(error, `write ${basename(path)}`)
    })
    await file.commit()
  } finally {
    await file.discard()
  }
}

export async function makePrivateDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true, mode: 0o700 })
  } catch (error) {
    throw localError(error, `create the directory ${path}`)
  }
}

/** Longer than this no private file of ours is, and no device is read for ever. Bytes. */
const MAX_PRIVATE = 256 * 1024 * 1024

/**
 * Reads a file that holds a secret.
 *
 * @returns its bytes, or `undefined` when there is none.
 * @throws {SyncError} `SECRET_FILE_OPEN` when others can read it or another user owns it (not checked on Windows); `NOT_A_FILE` for a
 * device, `SECRET_TOO_LONG` above 256 MiB.
 */
export async function readPrivateFile(path: string): Promise<Uint8Array | undefined> {
  try {
    const info = await stat(path)
    if (process.platform !== 'win32') {
      const mine = info.uid === process.getuid?.() || info.uid === 0
      if (info.isFile() && ((info.mode & 0o077) !== 0 || !mine)) {
        throw new SyncError('usage', 'SECRET_FILE_OPEN', `Other users can read or own the secret file ${path}`, {
          hint: `Make it private: chmod 600 ${path}`,
        })
      }
    }
    if (info.isCharacterDevice() || info.isBlockDevice()) {
      throw new SyncError('usage', 'NOT_A_FILE', `${path} is a device`, { hint: 'Name a file.' })
    }
    if (info.size > MAX_PRIVATE) throw new SyncError('usage', 'SECRET_TOO_LONG', `${path} is longer than it can be`)
    return await readFile(path)
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined
    throw localError(error, `read ${path}`)
  }
}
