/**
 * ZIP archives as a stream: what goes in is read once and nothing is held but the directory that ends the archive. Content is
 * stored in deflate blocks without compression, which readers of streams can follow to their end; ZIP64 where sizes ask for it.
 * @module
 */
import { crc32 } from 'node:zlib'

/** One file or folder of an archive. */
export interface ZipEntry {
  /** Path with slashes; folders end with one. */
  readonly path: string
  /** Bytes of content; folders have 0. */
  readonly size: number
  /** Milliseconds since the epoch. */
  readonly modifiedAt: number
  /** Opens the content, when its turn comes. */
  readonly open?: () => Promise<AsyncIterable<Uint8Array>>
}

const STORED = 0
const DEFLATE = 8
const BLOCK = 65_535
const LIMIT_32 = 0xffff_ffff
const LIMIT_16 = 0xffff
/** From here on numbers have eight bytes: blocks add to a size, so that less than the limit may become more. */
const LARGE = 2 ** 31
/** Names are UTF-8; for files, sizes and checksum follow the content. */
const FOLDER_FLAGS = 0x0800
const FILE_FLAGS = 0x0808
/** ZIP64. */
const VERSION = 45
/** Made on Unix, so that the mode counts. */
const MADE_BY = (3 << 8) | VERSION
const FILE_MODE = 0o100644
const FOLDER_MODE = 0o040755

/**
 * The bytes of an archive.
 *
 * @throws what opening or reading an entry throws, and a RangeError when an entry has other bytes than it said.
 */
export async function* zipOf(entries: AsyncIterable<ZipEntry> | Iterable<ZipEntry>): AsyncGenerator<Uint8Array> {
  const directory: Buffer[] = []
  let offset = 0
  for await (const entry of entries) {
    const name = Buffer.from(entry.path)
    const stamp = dosTime(entry.modifiedAt)
    const isFolder = entry.open === undefined
    const isLarge = entry.size >= LARGE
    const at = offset
    const header = localHeader(name, stamp, isLarge, isFolder)
    yield header
    offset += header.length
    if (entry.open === undefined) {
      directory.push(directoryEntry(name, stamp, { sum: 0, packed: 0, size: 0, at, isLarge, isFolder }))
      continue
    }
    let [size, packed, sum] = [0, 0, 0]
    for await (const chunk of await entry.open()) {
      for (let from = 0; from < chunk.length; from += BLOCK) {
        const piece = chunk.subarray(from, from + BLOCK)
        yield blockHeader(piece.length, false)
        yield piece
        packed += BLOCK_HEADER + piece.length
      }
      sum = crc32(chunk, sum)
      size += chunk.length
    }
    if (size !== entry.size) throw new RangeError('Content is not as long as it says')
    yield blockHeader(0, true)
    packed += BLOCK_HEADER
    const end = descriptor(sum, packed, size, isLarge)
    yield end
    offset += packed + end.length
    directory.push(directoryEntry(name, stamp, { sum, packed, size, at, isLarge, isFolder }))
  }
  yield* ending(directory, offset)
}

const BLOCK_HEADER = 5

function blockHeader(length: number, isLast: boolean): Buffer {
  const header = Buffer.alloc(BLOCK_HEADER)
  header.writeUInt8(isLast ? 1 : 0, 0)
  header.writeUInt16LE(length, 1)
  header.writeUInt16LE(length ^ 0xffff, 3)
  return header
}

/** Date and time in UTC as MS-DOS has them: two-second steps from 1980 to 2107. */
function dosTime(ms: number): number {
  const date = new Date(Math.min(Math.max(ms, Date.UTC(1980, 0, 1)), Date.UTC(2107, 11, 31)))
  const day = ((date.getUTCFullYear() - 1980) << 9) | ((date.getUTCMonth() + 1) << 5) | date.getUTCDate()
  const time = (date.getUTCHours() << 11) | (date.getUTCMinutes() << 5) | (date.getUTCSeconds() >> 1)
  return ((day << 16) | time) >>> 0
}

function localHeader(name: Buffer, stamp: number, isLarge: boolean, isFolder: boolean): Buffer {
  const header = Buffer.alloc(30)
  header.writeUInt32LE(0x0403_4b50, 0)
  header.writeUInt16LE(VERSION, 4)
  header.writeUInt16LE(isFolder ? FOLDER_FLAGS : FILE_FLAGS, 6)
  header.writeUInt16LE(isFolder ? STORED : DEFLATE, 8)
  header.writeUInt32LE(stamp, 10)
  header.writeUInt16LE(name.length, 26)
  if (!isLarge) return Buffer.concat([header, name])
  // Says that the sizes behind the content have eight bytes each.
  header.writeUInt32LE(LIMIT_32, 18)
  header.writeUInt32LE(LIMIT_32, 22)
  header.writeUInt16LE(20, 28)
  return Buffer.concat([header, name, zip64([0, 0])])
}

function descriptor(sum: number, packed: number, size: number, isLarge: boolean): Buffer {
  const bytes = Buffer.alloc(isLarge ? 24 : 16)
  bytes.writeUInt32LE(0x0807_4b50, 0)
  bytes.writeUInt32LE(sum, 4)
  if (isLarge) {
    bytes.writeBigUInt64LE(BigInt(packed), 8)
    bytes.writeBigUInt64LE(BigInt(size), 16)
  } else {
    bytes.writeUInt32LE(packed, 8)
    bytes.writeUInt32LE(size, 12)
  }
  return bytes
}

/** The extra field with numbers of eight bytes. */
function zip64(numbers: readonly number[]): Buffer {
  const extra = Buffer.alloc(4 + numbers.length * 8)
  extra.writeUInt16LE(1, 0)
  extra.writeUInt16LE(numbers.length * 8, 2)
  for (const [index, number] of numbers.entries()) extra.writeBigUInt64LE(BigInt(number), 4 + index * 8)
  return extra
}

interface Written {
  sum: number
  packed: number
  size: number
  at: number
  isLarge: boolean
  isFolder: boolean
}

function directoryEntry(name: Buffer, stamp: number, { sum, packed, size, at, isLarge, isFolder }: Written): Buffer {
  const isFar = at >= LIMIT_32
  const numbers = [...(isLarge ? [size, packed] : []), ...(isFar ? [at] : [])]
  const extra = numbers.length === 0 ? Buffer.alloc(0) : zip64(numbers)
  const entry = Buffer.alloc(46)
  entry.writeUInt32LE(0x0201_4b50, 0)
  entry.writeUInt16LE(MADE_BY, 4)
  entry.writeUInt16LE(VERSION, 6)
  entry.writeUInt16LE(isFolder ? FOLDER_FLAGS : FILE_FLAGS, 8)
  entry.writeUInt16LE(isFolder ? STORED : DEFLATE, 10)
  entry.writeUInt32LE(stamp, 12)
  entry.writeUInt32LE(sum, 16)
  entry.writeUInt32LE(isLarge ? LIMIT_32 : packed, 20)
  entry.writeUInt32LE(isLarge ? LIMIT_32 : size, 24)
  entry.writeUInt16LE(name.length, 28)
  entry.writeUInt16LE(extra.length, 30)
  entry.writeUInt32LE(((isFolder ? FOLDER_MODE : FILE_MODE) << 16) >>> 0, 38)
  entry.writeUInt32LE(isFar ? LIMIT_32 : at, 42)
  return Buffer.concat([entry, name, extra])
}

function* ending(directory: readonly Buffer[], start: number): Generator<Uint8Array> {
  let size = 0
  for (const entry of directory) {
    yield entry
    size += entry.length
  }
  const count = directory.length
  if (count >= LIMIT_16 || start >= LIMIT_32 || size >= LIMIT_32) {
    const record = Buffer.alloc(56 + 20)
    record.writeUInt32LE(0x0606_4b50, 0)
    record.writeBigUInt64LE(44n, 4)
    record.writeUInt16LE(MADE_BY, 12)
    record.writeUInt16LE(VERSION, 14)
    record.writeBigUInt64LE(BigInt(count), 24)
    record.writeBigUInt64LE(BigInt(count), 32)
    record.writeBigUInt64LE(BigInt(size), 40)
    record.writeBigUInt64LE(BigInt(start), 48)
    record.writeUInt32LE(0x0706_4b50, 56)
    record.writeBigUInt64LE(BigInt(start + size), 64)
    record.writeUInt32LE(1, 72)
    yield record
  }
  const end = Buffer.alloc(22)
  end.writeUInt32LE(0x0605_4b50, 0)
  end.writeUInt16LE(Math.min(count, LIMIT_16), 8)
  end.writeUInt16LE(Math.min(count, LIMIT_16), 10)
  end.writeUInt32LE(Math.min(size, LIMIT_32), 12)
  end.writeUInt32LE(Math.min(start, LIMIT_32), 16)
  yield end
}
