/**
 * A cache of unwrapped file keys, so that RSA is paid once per file ever. One file per key pair: a header, then records of a fixed length, each sealed by itself (crypto/file-key-sealer.ts). Losing any of it costs time only, so
 * whatever is damaged, foreign or cut is passed over, and no failure here is a failure of anybody's transfer.
 * @module
 */
import { createHash } from 'node:crypto'
import { type FileHandle, lstat, open, readdir, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { createFileKeySealer, type FileKeySealer, SEAL_ID_BYTES, SEALED_BYTES } from '../../crypto/file-key-sealer.ts'
import type { FileKey, UserKeyPair } from '../../crypto/index.ts'
import type { Clock } from '../environment.ts'
import { localError, systemCode } from '../errors.ts'
import { writePrivateFile } from '../local/atomic-file.ts'
import { takeLock } from '../local/lock.ts'

export interface FileKeyCacheOptions {
  /** Of the caches; private. */
  readonly directory: string
  readonly origin: string
  readonly clock: Clock
  /** Records per file at most. Default 100,000 (10.4 MB). */
  readonly maxRecords?: number
}

export interface FileKeyCache {
  /** The newest file key that was added for a node. The node may have another one by now: its IV and tag tell, or its content. */
  find(pair: UserKeyPair, nodeId: number): Promise<FileKey | undefined>
  /** Takes a file key whose content has matched its tag. */
  add(pair: UserKeyPair, nodeId: number, fileKey: FileKey): void
  /** Writes what was added. */
  flush(): Promise<void>
}

const MAGIC = Buffer.from('sealsync-keys-2\n')
const HEADER_BYTES = MAGIC.length + SEAL_ID_BYTES
const RECORD_BYTES = SEAL_ID_BYTES + SEALED_BYTES
const MAX_RECORDS = 100_000
/** Kept when the file is full: the newest. */
const KEPT_SHARE = 0.75
/** Written together. */
const BATCH = 256
const SUFFIX = '.keys'

interface Shelf {
  readonly path: string
  readonly sealer: FileKeySealer
  readonly header: Buffer
  /** Loaded when first asked: an upload only adds. */
  records?: Promise<Map<string, Uint8Array>>
  pending: Uint8Array[]
}

export function createFileKeyCache(options: FileKeyCacheOptions): FileKeyCache {
  const { directory, origin, clock, maxRecords = MAX_RECORDS } = options
  const shelves = new Map<UserKeyPair, Shelf>()
  let writing: Promise<void> = Promise.resolve()

  function shelfOf(pair: UserKeyPair): Shelf {
    let shelf = shelves.get(pair)
    if (shelf === undefined) {
      const sealer = createFileKeySealer(pair, origin)
      const id = createHash('sha256').update(`${origin}\0${pair.publicKey.fingerprint}`).digest('hex').slice(0, 32)
      const path = join(directory, `${id}-${pair.version}${SUFFIX}`)
      // Says which key pair the file is of, to nobody but its owner.
      const header = Buffer.concat([MAGIC, sealer.idOf('')])
      shelf = { path, sealer, header, pending: [] }
      shelves.set(pair, shelf)
    }
    return shelf
  }

  async function store(shelf: Shelf): Promise<void> {
    const { path, header, pending } = shelf
    if (pending.length === 0) return
    shelf.pending = []
    try {
      const lock = await takeLock(`${path}.lock`, { clock, waitMs: 10_000 })
      try {
        await write(path, header, Buffer.concat(pending), maxRecords)
      } finally {
        await lock.release()
      }
    } catch {
      // A full disk, or another process: the keys are unwrapped again next time.
    }
  }

  function flush(): Promise<void> {
    writing = writing.then(async () => {
      for (const shelf of shelves.values()) await store(shelf)
    })
    return writing
  }

  return {
    async find(pair, nodeId) {
      const shelf = shelfOf(pair)
      const { sealer, path, header } = shelf
      const name = String(nodeId)
      shelf.records ??= load(path, header, maxRecords)
      const sealed = (await shelf.records).get(textOf(sealer.idOf(name)))
      return sealed && sealer.open(name, sealed)
    },
    add(pair, nodeId, fileKey) {
      const shelf = shelfOf(pair)
      const { sealer, pending } = shelf
      const name = String(nodeId)
      pending.push(Buffer.concat([sealer.idOf(name), sealer.seal(name, fileKey)]))
      if (pending.length >= BATCH) void flush()
    },
    async flush() {
      await flush()
      for (const { sealer } of shelves.values()) sealer.wipe()
      shelves.clear()
    },
  }
}

const textOf = (id: Uint8Array) => Buffer.from(id.buffer, id.byteOffset, id.length).toString('latin1')

const limitOf = (records: number) => HEADER_BYTES + records * RECORD_BYTES

/** Opens a cache file if it is a private one of this key pair and not larger than it may be. */
async function openFile(
  path: string,
  header: Buffer,
  flags: string,
  max: number,
): Promise<[FileHandle, number] | undefined> {
  const info = await lstat(path)
  const isOurs = process.platform === 'win32' || ((info.mode & 0o077) === 0 && info.uid === process.getuid?.())
  if (!info.isFile() || !isOurs || info.size < HEADER_BYTES || info.size >= limitOf(max + 1)) return undefined
  const handle = await open(path, flags)
  try {
    const start = Buffer.alloc(HEADER_BYTES)
    const { bytesRead } = await handle.read(start, 0, HEADER_BYTES, 0)
    if (bytesRead === HEADER_BYTES && start.equals(header)) return [handle, info.size]
  } catch (error) {
    await closeQuietly(handle)
    throw error
  }
  await closeQuietly(handle)
  return undefined
}

const closeQuietly = (handle: FileHandle) => handle.close().catch(() => {})

const openQuietly = (path: string, header: Buffer, flags: string, max: number) =>
  openFile(path, header, flags, max).catch(() => undefined)

async function load(path: string, header: Buffer, max: number): Promise<Map<string, Uint8Array>> {
  const records = new Map<string, Uint8Array>()
  const opened = await openQuietly(path, header, 'r', max)
  if (opened === undefined) return records
  const [handle, size] = opened
  try {
    const bytes = Buffer.alloc(size - HEADER_BYTES)
    const { bytesRead } = await handle.read(bytes, 0, bytes.length, HEADER_BYTES)
    for (let at = 0; at + RECORD_BYTES <= bytesRead; at += RECORD_BYTES) {
      const record = bytes.subarray(at, at + RECORD_BYTES)
      records.set(textOf(record.subarray(0, SEAL_ID_BYTES)), record.subarray(SEAL_ID_BYTES))
    }
  } catch {
    // What was read counts.
  } finally {
    await closeQuietly(handle)
  }
  return records
}

/** Adds records behind the last whole one, or makes the file anew. */
async function write(path: string, header: Buffer, added: Buffer, max: number): Promise<void> {
  const opened = await openQuietly(path, header, 'r+', max)
  if (opened === undefined) {
    await writePrivateFile(path, Buffer.concat([header, added]))
    return
  }
  const [handle, size] = opened
  const end = size - ((size - HEADER_BYTES) % RECORD_BYTES)
  let kept: Buffer
  try {
    if (end + added.length <= limitOf(max)) {
      await handle.write(added, 0, added.length, end)
      return
    }
    const length = Math.max(0, Math.floor(max * KEPT_SHARE) * RECORD_BYTES - added.length)
    kept = Buffer.alloc(Math.min(length, end - HEADER_BYTES))
    await handle.read(kept, 0, kept.length, end - kept.length)
  } finally {
    await handle.close()
  }
  await writePrivateFile(path, Buffer.concat([header, kept, added.subarray(-max * RECORD_BYTES)]))
}

/**
 * Removes all caches of a directory.
 *
 * @returns how many files, and their bytes.
 */
export async function clearFileKeyCaches(directory: string): Promise<{ files: number; bytes: number }> {
  let [files, bytes] = [0, 0]
  try {
    for (const name of await readdir(directory)) {
      if (!name.endsWith(SUFFIX)) continue
      const path = join(directory, name)
      const { size } = await lstat(path)
      await unlink(path)
      files++
      bytes += size
    }
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw localError(error, `clear the cache of file keys in ${directory}`)
  }
  return { files, bytes }
}
