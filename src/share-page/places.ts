/**
 * Where the worker puts plaintext until its tag is checked, so that nobody gets to see it before: the browser's private file system (on the disk,
 * in no folder of the person's), a file that the person has chosen (the browser swaps it in when it is closed, and not before), or memory.
 * @module
 */
import { Failure } from './failure.ts'

/** What a browser holds in memory at most. */
export const MEMORY_LIMIT = 512 * 1024 * 1024
/** Left to others when the private file system is used. */
const SPARE = 64 * 1024 * 1024
const DIRECTORY = 'sealsync-share'
const lockOf = (name: string): string => `${DIRECTORY}/${name}`

export interface Place {
  write(bytes: Uint8Array): Promise<void>
  /** The content is right: gives it out. `undefined` where it is now in the file that was chosen. */
  commit(): Promise<Blob | undefined>
  /** Removes all of it. Also right after `commit`, once it has been saved. */
  discard(): Promise<void>
}

/** As far as it is used here; the types of workers are not those of pages. */
interface SyncAccessHandle {
  write(bytes: Uint8Array, options: { at: number }): number
  getSize(): number
  flush(): void
  close(): void
}

type PrivateFile = FileSystemFileHandle & { createSyncAccessHandle(): Promise<SyncAccessHandle> }

async function directory(): Promise<FileSystemDirectoryHandle> {
  const root = await navigator.storage.getDirectory()
  return root.getDirectoryHandle(DIRECTORY, { create: true })
}

/** Holds a lock until it is let go; undefined when another one has it. */
function hold(name: string): Promise<(() => void) | undefined> {
  return new Promise((resolve, reject) => {
    navigator.locks
      .request(name, { ifAvailable: true }, (lock) => {
        if (lock === null) return resolve(undefined)
        return new Promise<void>((release) => resolve(release))
      })
      .catch(reject)
  })
}

/** Removes what pages have left that are closed, or crashed: files whose page holds no lock any more. */
export async function removeLeftovers(): Promise<void> {
  const place = await directory()
  const names: string[] = []
  for await (const name of (place as unknown as { keys(): AsyncIterable<string> }).keys()) names.push(name)
  for (const name of names) {
    const release = await hold(lockOf(name))
    if (release === undefined) continue
    await place.removeEntry(name).catch(() => {}) // the browser may still be reading it; the next visit tries again
    release()
  }
}

async function openPrivate(): Promise<Place> {
  const place = await directory()
  const name = globalThis.crypto.randomUUID()
  const release = await hold(lockOf(name))
  const file = (await place.getFileHandle(name, { create: true })) as PrivateFile
  let handle: SyncAccessHandle | undefined = await file.createSyncAccessHandle()
  let at = 0
  const close = (): void => {
    handle?.close()
    handle = undefined
  }
  return {
    async write(bytes) {
      for (let done = 0; done < bytes.length; ) {
        const left = bytes.subarray(done)
        const count = handle?.write(left, { at }) ?? 0
        // Where there is no room, Chromium answers with a number that is an error, and none that could be written.
        const isWritten = count > 0 && count <= left.length && handle?.getSize() === at + count
        if (!isWritten) throw new Failure('NO_SPACE', 'The browser takes no more')
        done += count
        at += count
      }
    },
    async commit() {
      handle?.flush()
      close()
      const content = await file.getFile()
      if (content.size !== at) throw new Failure('NO_SPACE', 'The browser has not kept all of it')
      return content
    },
    async discard() {
      close()
      await place.removeEntry(name).catch(() => {}) // as above
      release?.()
    },
  }
}

/** Writes to a file that the person has chosen. What the browser writes to until it is closed has another name. */
async function openChosen(file: FileSystemFileHandle): Promise<Place> {
  const writable = await file.createWritable()
  let isOpen = true
  let size = 0
  return {
    async write(bytes) {
      await writable.write(bytes as Uint8Array<ArrayBuffer>)
      size += bytes.length
    },
    async commit() {
      isOpen = false
      await writable.close()
      if ((await file.getFile()).size !== size) throw new Failure('NO_SPACE', 'The browser has not written all of it')
      return undefined
    },
    async discard() {
      if (isOpen) await writable.abort()
      isOpen = false
    },
  }
}

function openMemory(): Place {
  let parts: Uint8Array<ArrayBuffer>[] = []
  return {
    async write(bytes) {
      parts.push(bytes as Uint8Array<ArrayBuffer>)
    },
    commit: async () => new Blob(parts),
    async discard() {
      parts = []
    },
  }
}

export type PlaceKind = 'private' | 'chosen' | 'memory' | 'none'

/**
 * Which place a content of this size goes to. The private file system is first: there people get a download as they know it.
 *
 * @param canChoose - Whether the browser lets people choose a file to write to.
 */
export async function choosePlace(size: number, canChoose: boolean): Promise<PlaceKind> {
  if (await hasRoom(size)) return 'private'
  if (canChoose) return 'chosen'
  return size <= MEMORY_LIMIT ? 'memory' : 'none'
}

/** False too where there is no private file system, as in private windows of some browsers. */
async function hasRoom(size: number): Promise<boolean> {
  try {
    const place = await openPrivate()
    await place.discard()
    const { quota = 0, usage = 0 } = await navigator.storage.estimate()
    return quota - usage >= size + SPARE
  } catch {
    return false
  }
}

export async function openPlace(kind: PlaceKind, chosen: FileSystemFileHandle | undefined): Promise<Place> {
  if (kind === 'private') return openPrivate()
  if (kind === 'memory') return openMemory()
  if (kind === 'chosen' && chosen !== undefined) return openChosen(chosen)
  throw new Failure('NO_SPACE', 'There is no place for a file of this size')
}

export { hold }
