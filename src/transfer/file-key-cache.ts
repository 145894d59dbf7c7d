/**
 * A cache of unwrapped file keys, so that RSA is paid once per file ever. One file per key pair: a header, then records of a fixed length, each sealed by itself (crypto/file-key-sealer.ts). Keys that come while the
 * key pair is locked wait in files of their own, encrypted for its public key as content is, until it is unlocked. Losing any of it costs time only, so
 * whatever is damaged, foreign or cut is passed over, and no failure here is a failure of anybody's transfer.
 * @module
 */
import { createHash, randomBytes } from 'node:crypto'
import { type FileHandle, lstat, open, readdir, stat, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { decryptBytes, encryptBytes } from '../../crypto/file-cipher.ts'
import { createFileKeySealer, type FileKeySealer, SEAL_ID_BYTES, SEALED_BYTES } from '../../crypto/file-key-sealer.ts'
import { FileKey, type PublicKey, type UserKeyPair, unwrapFileKey, wrapFileKey } from '../../crypto/index.ts'
import { KEY_PAIR_PROFILES } from '../../crypto/versions.ts'
import type { Clock } from '../environment.ts'
import { localError, systemCode } from '../errors.ts'
import { readPrivateFile, writePrivateFile } from '../local/atomic-file.ts'
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
  /** The same while the key pair is locked. The key is copied. */
  addLocked(publicKey: PublicKey, nodeId: number, fileKey: FileKey): void
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
/** Of what waits for the key pair to be unlocked. */
const LOCKED_SUFFIX = '.locked'
const LOCKED_MAGIC = Buffer.from('sealsync-locked\n')
/** Node id; key, IV and tag of the file key. */
const ENTRY_BYTES = 8 + 32 + 12 + 16
/** Of one key pair; the newest are kept. Each costs an RSA operation once. */
const MAX_LOCKED = 256
/** In one file. */
const MAX_ENTRIES = 4_096

interface Shelf {
  readonly pair: UserKeyPair
  readonly path: string
  readonly sealer: FileKeySealer
  readonly header: Buffer
  /** Loaded when first asked: an upload only adds. */
  records?: Promise<Map<string, Uint8Array>>
  pending: Uint8Array[]
  /** Files whose keys are among the pending ones. */
  taken?: Promise<string[]>
}

/** Keys for a public key, as they will be encrypted. */
interface Waiting {
  readonly publicKey: PublicKey
  entries: Buffer[]
}

const nameOf = (origin: string, { fingerprint, version }: PublicKey): string =>
  `${createHash('sha256').update(`${origin}\0${fingerprint}`).digest('hex').slice(0, 32)}-${version}`

export function createFileKeyCache(options: FileKeyCacheOptions): FileKeyCache {
  const { directory, origin, clock, maxRecords = MAX_RECORDS } = options
  const shelves = new Map<UserKeyPair, Shelf>()
  const waiting = new Map<string, Waiting>()
  let writing: Promise<void> = Promise.resolve()

  function shelfOf(pair: UserKeyPair): Shelf {
    let shelf = shelves.get(pair)
    if (shelf === undefined) {
      const sealer = createFileKeySealer(pair, origin)
      const path = join(directory, `${nameOf(origin, pair.publicKey)}${SUFFIX}`)
      // Says which key pair the file is of, to nobody but its owner.
      const header = Buffer.concat([MAGIC, sealer.idOf('')])
      shelf = { pair, path, sealer, header, pending: [] }
      shelves.set(pair, shelf)
    }
    return shelf
  }

  async function store(shelf: Shelf): Promise<void> {
    shelf.taken ??= takeLocked(shelf)
    const taken = await shelf.taken
    const { path, header, pending } = shelf
    if (pending.length + taken.length === 0) return
    shelf.pending = []
    try {
      const lock = await takeLock(`${path}.lock`, { clock, waitMs: 10_000 })
      try {
        if (pending.length > 0) await write(path, header, Buffer.concat(pending), maxRecords)
      } finally {
        await lock.release()
      }
      for (const one of taken.splice(0)) await unlink(one)
    } catch {
      // A full disk, or another process: the keys are unwrapped again next time.
    }
  }

  /** Takes over what came while the key pair was locked, without replacing anything; returns the files that it was in. */
  async function takeLocked({ pair, path, header, sealer, pending }: Shelf): Promise<string[]> {
    const files = await lockedFiles(directory, nameOf(origin, pair.publicKey))
    if (files.length === 0) return []
    const known = await load(path, header, maxRecords)
    for (const file of files) {
      // What does not open never will.
      for (const [nodeId, fileKey] of await openLocked(file, pair).catch(() => [])) {
        const name = String(nodeId)
        const id = sealer.idOf(name)
        if (!known.has(textOf(id))) pending.push(Buffer.concat([id, sealer.seal(name, fileKey)]))
        fileKey.wipe()
      }
    }
    return files
  }

  async function storeLocked({ publicKey, entries }: Waiting): Promise<void> {
    const plaintext = Buffer.concat(entries)
    try {
      const name = nameOf(origin, publicKey)
      const old = await lockedFiles(directory, name)
      for (const one of old.slice(0, Math.max(0, old.length + 1 - MAX_LOCKED))) await unlink(one)
      const { ciphertext, fileKey } = encryptBytes(plaintext)
      const { key, iv, tag } = await wrapFileKey(fileKey, publicKey)
      fileKey.wipe()
      const unique = `${String(clock.now()).padStart(16, '0')}-${randomBytes(6).toString('hex')}`
      const content = Buffer.concat([LOCKED_MAGIC, key, iv, tag, ciphertext])
      await writePrivateFile(join(directory, `${name}-${unique}${LOCKED_SUFFIX}`), content)
    } catch {
      // As above.
    } finally {
      for (const bytes of [plaintext, ...entries]) bytes.fill(0)
    }
  }

  function flush(): Promise<void> {
    writing = writing.then(async () => {
      for (const shelf of shelves.values()) await store(shelf)
      const all = [...waiting.values()]
      waiting.clear()
      for (const one of all) await storeLocked(one)
    })
    return writing
  }

  return {
    async find(pair, nodeId) {
      const shelf = shelfOf(pair)
      const { sealer, path, header } = shelf
      const name = String(nodeId)
      if (shelf.records === undefined) {
        shelf.taken ??= takeLocked(shelf)
        shelf.records = shelf.taken.then(() => load(path, header, maxRecords, shelf.pending))
      }
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
    addLocked(publicKey, nodeId, { key, iv, tag }) {
      const id = Buffer.alloc(8)
      id.writeBigUInt64BE(BigInt(nodeId))
      const one = waiting.get(publicKey.fingerprint) ?? { publicKey, entries: [] }
      waiting.set(publicKey.fingerprint, one)
      one.entries.push(Buffer.concat([id, key, iv, tag]))
      if (one.entries.length >= MAX_ENTRIES) void flush()
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

/** @param more - Records that are not written yet. */
async function load(
  path: string,
  header: Buffer,
  max: number,
  more: readonly Uint8Array[] = [],
): Promise<Map<string, Uint8Array>> {
  const records = new Map<string, Uint8Array>()
  const put = (record: Uint8Array) =>
    records.set(textOf(record.subarray(0, SEAL_ID_BYTES)), record.subarray(SEAL_ID_BYTES))
  for (const record of more) put(record)
  const opened = await openQuietly(path, header, 'r', max)
  if (opened === undefined) return records
  const [handle, size] = opened
  try {
    const bytes = Buffer.alloc(size - HEADER_BYTES)
    const { bytesRead } = await handle.read(bytes, 0, bytes.length, HEADER_BYTES)
    for (let at = 0; at + RECORD_BYTES <= bytesRead; at += RECORD_BYTES) {
      put(bytes.subarray(at, at + RECORD_BYTES))
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

/** Files that wait for a key pair, the oldest first. */
async function lockedFiles(directory: string, name: string): Promise<string[]> {
  const names = await readdir(directory).catch(() => [])
  return names
    .filter((one) => one.startsWith(`${name}-`) && one.endsWith(LOCKED_SUFFIX))
    .sort()
    .map((one) => join(directory, one))
}

async function openLocked(path: string, pair: UserKeyPair): Promise<[number, FileKey][]> {
  const { wrappedLength, fileKeyVersion } = KEY_PAIR_PROFILES[pair.version]
  const head = LOCKED_MAGIC.length + wrappedLength + 12 + 16
  const longest = head + (MAX_ENTRIES + BATCH) * ENTRY_BYTES
  if ((await stat(path)).size > longest) return []
  const bytes = (await readPrivateFile(path)) ?? new Uint8Array(0)
  if (bytes.length < head || !LOCKED_MAGIC.equals(bytes.subarray(0, LOCKED_MAGIC.length))) return []
  const [key, iv, tag] = slices(bytes.subarray(LOCKED_MAGIC.length), [wrappedLength, 12, 16])
  const fileKey = await unwrapFileKey({ version: fileKeyVersion, key: key!, iv: iv!, tag: tag! }, pair)
  const plaintext = decryptBytes(bytes.subarray(head), fileKey)
  fileKey.wipe()
  const entries: [number, FileKey][] = []
  for (let at = 0; at + ENTRY_BYTES <= plaintext.length; at += ENTRY_BYTES) {
    const [id, ...parts] = slices(plaintext.subarray(at), [8, 32, 12, 16])
    const nodeId = Number(Buffer.from(id!).readBigUInt64BE())
    const [itsKey, itsIv, itsTag] = parts as [Uint8Array, Uint8Array, Uint8Array]
    entries.push([nodeId, new FileKey(itsKey, itsIv, itsTag)])
  }
  plaintext.fill(0)
  return entries
}

/** Copies of the first bytes, cut into these lengths. */
function slices(bytes: Uint8Array, lengths: readonly number[]): Uint8Array[] {
  let at = 0
  return lengths.map((length) => {
    at += length
    return Uint8Array.from(bytes.subarray(at - length, at))
  })
}

/** Removes what is kept for a key pair that is no more. What cannot be removed opens with its private key only. */
export async function forgetKeyPair(directory: string, origin: string, publicKey: PublicKey): Promise<void> {
  const name = nameOf(origin, publicKey)
  for (const path of [join(directory, `${name}${SUFFIX}`), ...(await lockedFiles(directory, name))]) {
    await unlink(path).catch(() => {})
  }
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
      if (!name.endsWith(SUFFIX) && !name.endsWith(LOCKED_SUFFIX)) continue
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
