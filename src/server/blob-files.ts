/**
 * Content on disk: part files below `DIR/blobs`, and the streams in and out of them. A node's content is an ordered
 * list of segments of such files, so finishing an upload copies nothing. Which content is alive is up to disk-blobs.ts.
 * @module
 */
import { createHash, type Hash, randomBytes } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { type FileHandle, open, readdir, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { Segment } from './records.ts'

const READ_SIZE = 256 * 1024

/** A body that was received in full. */
export interface Received {
  segment: Segment
  size: number
  /** MD5 of the body, in hex. */
  md5: string
  /** Resolves once the bytes are on disk; rejects if that failed. */
  synced: Promise<void>
}

export class BlobFiles {
  readonly #dir: string
  #dirSync: { running: Promise<void>; next: Promise<void> | undefined } | undefined

  constructor(dataDir: string) {
    this.#dir = join(dataDir, 'blobs')
    mkdirSync(this.#dir, { recursive: true, mode: 0o700 })
  }

  /**
   * Stores one body. Up to `inlineLimit` bytes stay in memory, to be kept in the metadata store; more goes to a file.
   *
   * @param contentId - Starts the name of the file, so that orphans can be told from live content.
   * @param observe - Sees every chunk, in order.
   * @throws whatever the source throws; nothing is left behind then.
   */
  async receive(
    contentId: string,
    source: AsyncIterable<Uint8Array>,
    inlineLimit: number,
    observe?: (chunk: Uint8Array) => void,
  ): Promise<Received> {
    const hash = createHash('md5')
    const early: Uint8Array[] = []
    let size = 0
    let file: { name: string; handle: FileHandle } | undefined
    try {
      for await (const chunk of source) {
        hash.update(chunk)
        observe?.(chunk)
        size += chunk.length
        if (file === undefined && size <= inlineLimit) {
          early.push(chunk)
          continue
        }
        if (file === undefined) {
          file = await this.#create(contentId)
          for (const waiting of early.splice(0)) await file.handle.appendFile(waiting)
        }
        await file.handle.appendFile(chunk)
      }
    } catch (error) {
      if (file !== undefined) await this.#abandon(file)
      throw error
    }
    return { ...settle(file, early, size), size, md5: hexOf(hash) }
  }

  async #create(contentId: string): Promise<{ name: string; handle: FileHandle }> {
    const name = `${contentId}-${randomBytes(6).toString('hex')}`
    return { name, handle: await open(join(this.#dir, name), 'wx', 0o600) }
  }

  async #abandon(file: { name: string; handle: FileHandle }): Promise<void> {
    await file.handle.close().catch(() => undefined)
    await unlink(join(this.#dir, file.name)).catch(() => undefined)
  }

  /** Makes the names of all files written so far durable. Calls that come together share one flush. */
  syncNames(): Promise<void> {
    const state = this.#dirSync
    if (state === undefined) {
      const running = this.#syncOnce().finally(() => {
        this.#dirSync = undefined
      })
      this.#dirSync = { running, next: undefined }
      return running
    }
    // The flush under way may have begun before our file was there, so wait for the one after it.
    state.next ??= state.running.catch(() => undefined).then(() => this.syncNames())
    return state.next
  }

  async #syncOnce(): Promise<void> {
    const dir = await open(this.#dir, 'r')
    try {
      await dir.sync()
    } finally {
      await dir.close()
    }
  }

  /** Removes the files of content that nothing refers to. Best effort: the start-up sweep catches the rest. */
  discard(segments: readonly Segment[]): void {
    for (const name of new Set(segments.map((segment) => segment.file))) {
      if (name !== undefined) unlink(join(this.#dir, name)).catch(() => undefined)
    }
  }

  /** Removes every file that `isLive` does not claim, given content id and file name. */
  async sweep(isLive: (contentId: string, name: string) => boolean): Promise<number> {
    let removed = 0
    for (const name of await readdir(this.#dir)) {
      if (isLive(name.slice(0, name.indexOf('-')), name)) continue
      await unlink(join(this.#dir, name))
      removed++
    }
    return removed
  }

  /** Bytes `start` to `end` (exclusive) of content. */
  async *read(segments: readonly Segment[], start: number, end: number): AsyncGenerator<Uint8Array> {
    let at = 0
    for (const segment of segments) {
      const from = Math.max(start - at, 0)
      const to = Math.min(end - at, segment.size)
      at += segment.size
      if (from >= to) continue
      if (segment.data !== undefined) yield segment.data.subarray(segment.offset + from, segment.offset + to)
      else if (segment.file !== undefined) yield* this.#readFile(segment.file, segment.offset + from, to - from)
    }
  }

  async *#readFile(name: string, offset: number, length: number): AsyncGenerator<Uint8Array> {
    const handle = await open(join(this.#dir, name), 'r')
    try {
      for (let done = 0; done < length; ) {
        const buffer = Buffer.allocUnsafeSlow(Math.min(READ_SIZE, length - done))
        const { bytesRead } = await handle.read(buffer, 0, buffer.length, offset + done)
        if (bytesRead === 0) throw new Error('Content file is shorter than recorded')
        done += bytesRead
        yield buffer.subarray(0, bytesRead)
      }
    } finally {
      await handle.close()
    }
  }
}

function settle(
  file: { name: string; handle: FileHandle } | undefined,
  early: readonly Uint8Array[],
  size: number,
): { segment: Segment; synced: Promise<void> } {
  if (file === undefined) {
    // Copied, because the chunks may be slices of larger network buffers.
    return { segment: { data: Uint8Array.from(Buffer.concat(early)), offset: 0, size }, synced: Promise.resolve() }
  }
  const { handle } = file
  const synced = handle.datasync().finally(() => handle.close())
  // Reported when the upload is finished; an abandoned one need not care.
  synced.catch(() => undefined)
  return { segment: { file: file.name, offset: 0, size }, synced }
}

export function hexOf(hash: Hash): string {
  return hash.digest('hex')
}
