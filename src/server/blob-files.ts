/**
 * Content on disk: part files below `DIR/blobs`, and the streams in and out of them. A node's content is an ordered
 * list of segments of such files, so finishing an upload copies nothing. Which content is alive is up to disk-blobs.ts.
 * @module
 */
import { createHash, type Hash, randomBytes } from 'node:crypto'
import { type FileHandle, open, readdir, readFile, rename, stat, statfs, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { localError, systemCode } from '../errors.ts'
import { writePrivateFile } from '../local/atomic-file.ts'
import { ApiError, contentDamaged, contentGone } from './errors.ts'
import { type Mark, markText, type Place, parseMark } from './mark.ts'
import { privateDirectory } from './private-directory.ts'
import type { Segment } from './records.ts'

/** Bytes under one checksum, and of one read. */
const BLOCK = 256 * 1024
const MARK_FILE = '.store'
/** Below the other one, so that moving is possible wherever that is mounted. */
const ASIDE_DIRECTORY = '.strays'

/** CRC-32 of each block of a file, four bytes each. */
class BlockSums {
  readonly #sums: number[] = []
  #sum = 0
  #filled = 0

  add(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length; ) {
      const piece = chunk.subarray(at, at + BLOCK - this.#filled)
      this.#sum = crc32(piece, this.#sum)
      this.#filled += piece.length
      at += piece.length
      if (this.#filled === BLOCK) this.#next()
    }
  }

  #next(): void {
    this.#sums.push(this.#sum)
    this.#sum = 0
    this.#filled = 0
  }

  end(): Uint8Array {
    if (this.#filled > 0) this.#next()
    const bytes = Buffer.alloc(this.#sums.length * 4)
    for (const [index, sum] of this.#sums.entries()) bytes.writeUInt32LE(sum, index * 4)
    return bytes
  }
}

/** A body that was received in full. */
export interface Received {
  segment: Segment
  size: number
  /** MD5 of the body, in hex. */
  md5: string
  /** Resolves once the bytes are on disk; rejects if that failed. */
  synced: Promise<void>
}

export class BlobFiles implements Place {
  readonly key = 'disk'
  readonly name: string
  readonly #dir: string
  /** What nothing refers to, kept for a while. */
  readonly #aside: string
  #dirSync: { running: Promise<void>; next: Promise<void> | undefined } | undefined

  constructor(dataDir: string) {
    this.#dir = join(dataDir, 'blobs')
    this.#aside = join(this.#dir, ASIDE_DIRECTORY)
    this.name = `the directory ${this.#dir}`
    privateDirectory(dataDir)
    privateDirectory(this.#dir)
    privateDirectory(this.#aside)
  }

  async readMark(): Promise<Mark | undefined> {
    const path = join(this.#dir, MARK_FILE)
    try {
      return parseMark(await readFile(path, 'utf8'), this.name)
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return undefined
      throw localError(error, `read ${path}`)
    }
  }

  writeMark(mark: Mark): Promise<void> {
    return writePrivateFile(join(this.#dir, MARK_FILE), markText(mark))
  }

  /** Bytes that there is room for. */
  async freeBytes(): Promise<number> {
    const { bavail, bsize } = await statfs(this.#dir)
    return bavail * bsize
  }

  async hasContent(): Promise<boolean> {
    return (await this.list()).length + (await this.listAside()).length > 0
  }

  /** Names of all files of content. */
  list(): Promise<string[]> {
    return contentNames(this.#dir)
  }

  /** Names of what was set aside. */
  listAside(): Promise<string[]> {
    return contentNames(this.#aside)
  }

  /**
   * Stores one body. Up to `inlineLimit` bytes stay in memory, to be kept in the metadata store; more goes to a file.
   *
   * @param contentId - Starts the name of the file, so that orphans can be told from live content.
   * @throws whatever the source throws; nothing is left behind then.
   */
  async receive(contentId: string, source: AsyncIterable<Uint8Array>, inlineLimit: number): Promise<Received> {
    const hash = createHash('md5')
    const sums = new BlockSums()
    const early: Uint8Array[] = []
    let size = 0
    let file: { name: string; handle: FileHandle } | undefined
    try {
      for await (const chunk of source) {
        hash.update(chunk)
        sums.add(chunk)
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
    return { ...settle(file, early, size, sums), size, md5: hexOf(hash) }
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

  /** Moves a file of content to where nobody looks, or back. */
  setAside(name: string): Promise<void> {
    return this.#move(name, this.#dir, this.#aside)
  }

  bringBack(name: string): Promise<void> {
    return this.#move(name, this.#aside, this.#dir)
  }

  async #move(name: string, from: string, to: string): Promise<void> {
    try {
      await rename(join(from, name), join(to, name))
    } catch (error) {
      throw localError(error, `move ${join(from, name)}`)
    }
  }

  /** Removes what was set aside; fine when it is gone. */
  async removeAside(name: string): Promise<void> {
    await unlink(join(this.#aside, name)).catch((error) => {
      if (systemCode(error) !== 'ENOENT') throw localError(error, `remove ${join(this.#aside, name)}`)
    })
  }

  /** Bytes that a file of content has; `undefined` when it is gone. */
  async sizeOf(name: string): Promise<number | undefined> {
    try {
      return (await stat(join(this.#dir, name))).size
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return undefined
      throw localError(error, `read ${join(this.#dir, name)}`)
    }
  }

  /** Whether all bytes that these segments use of a file are those that were stored. */
  async isWhole(segments: readonly Segment[], name: string): Promise<boolean> {
    try {
      for (const segment of segments.filter(({ file }) => file === name)) {
        for await (const _bytes of this.read([segment], 0, segment.size));
      }
      return true
    } catch (error) {
      if (error instanceof ApiError) return false
      throw localError(error, `read ${join(this.#dir, name)}`)
    }
  }

  /**
   * Bytes `start` to `end` (exclusive) of content. Only blocks whose checksum holds are handed over.
   *
   * @throws {ApiError} 410 when a file is gone or not what was stored.
   */
  async *read(segments: readonly Segment[], start: number, end: number): AsyncGenerator<Uint8Array> {
    let at = 0
    for (const segment of segments) {
      const from = Math.max(start - at, 0)
      const to = Math.min(end - at, segment.size)
      at += segment.size
      if (from >= to) continue
      if (segment.data !== undefined) yield segment.data.subarray(segment.offset + from, segment.offset + to)
      else yield* this.#readFile(segment, segment.offset + from, segment.offset + to)
    }
  }

  async *#readFile({ file = '', sums }: Segment, from: number, to: number): AsyncGenerator<Uint8Array> {
    const handle = await open(join(this.#dir, file), 'r').catch((error) => {
      throw systemCode(error) === 'ENOENT' ? contentGone(file) : error
    })
    try {
      for (let block = Math.floor(from / BLOCK); block * BLOCK < to; block++) {
        const bytes = await readBlock(handle, block)
        const isWhole = sums !== undefined && block * 4 < sums.length && crc32(bytes) === sumAt(sums, block)
        if (!isWhole) throw contentDamaged(file)
        const base = block * BLOCK
        yield bytes.subarray(Math.max(from - base, 0), Math.min(to - base, BLOCK))
      }
    } finally {
      await handle.close()
    }
  }
}

/** Files of content in a directory; what else is ours begins with a dot, and other things are none of our business. */
async function contentNames(dir: string): Promise<string[]> {
  try {
    const entries = await readdir(dir, { withFileTypes: true })
    return entries.filter((entry) => entry.isFile() && !entry.name.startsWith('.')).map(({ name }) => name)
  } catch (error) {
    throw localError(error, `list ${dir}`)
  }
}

const sumAt = (sums: Uint8Array, block: number): number =>
  Buffer.from(sums.buffer, sums.byteOffset, sums.byteLength).readUInt32LE(block * 4)

/** A whole block; the last one of a file is shorter. */
async function readBlock(handle: FileHandle, block: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafeSlow(BLOCK)
  let done = 0
  for (;;) {
    const { bytesRead } = await handle.read(buffer, done, BLOCK - done, block * BLOCK + done)
    done += bytesRead
    if (bytesRead === 0 || done === BLOCK) return buffer.subarray(0, done)
  }
}

function settle(
  file: { name: string; handle: FileHandle } | undefined,
  early: readonly Uint8Array[],
  size: number,
  sums: BlockSums,
): { segment: Segment; synced: Promise<void> } {
  if (file === undefined) {
    // Copied, because the chunks may be slices of larger network buffers.
    return { segment: { data: Uint8Array.from(Buffer.concat(early)), offset: 0, size }, synced: Promise.resolve() }
  }
  const { handle } = file
  const synced = handle.datasync().finally(() => handle.close())
  // Reported when the upload is finished; an abandoned one need not care.
  synced.catch(() => undefined)
  return { segment: { file: file.name, offset: 0, size, sums: sums.end() }, synced }
}

export function hexOf(hash: Hash): string {
  return hash.digest('hex')
}
