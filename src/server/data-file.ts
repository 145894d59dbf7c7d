/**
 * Checks the file of the metadata store before LMDB maps it: LMDB trusts every byte it finds, so a cut or overwritten file
 * would end the process or corrupt its memory. Reads the file once, page by page along its trees, as LMDB's own format
 * demands it (data version 2, 64 bits, little-endian), and hands every record to the caller. Never writes.
 * @module
 */
import { closeSync, fstatSync, openSync, readFileSync, readSync } from 'node:fs'

const MAGIC = 0xbeefc0de
const DATA_VERSION = 2
const HEADER = 24
const META_BYTES = HEADER + 144
const NODE_HEADER = 8
const TREE_BYTES = 48
const NO_PAGE = 0xffff_ffff_ffff_ffffn
const MAX_DEPTH = 32
/** Free pages at the end that were never written. */
const MAX_UNWRITTEN = 2 ** 20

const [USED, FREE] = [1, 2]
const [BRANCH, LEAF, OVERFLOW, META] = [1, 2, 4, 8]
/** Flags of a leaf's entries: the value is on pages of its own; the value is a tree. */
const [BIG, TREE] = [1, 2]
/** Persistent flags of a file: keys of the list of free pages are integers; written, but not flushed yet. */
const [INTEGER_KEYS, UNFLUSHED] = [0x08, 0x1000]

/** What is wrong with the file, in words for an operator. */
export class DataFileError extends Error {}

const fail = (what: string): never => {
  throw new DataFileError(what)
}

interface Tree {
  depth: number
  branches: number
  leaves: number
  overflows: number
  entries: number
  /** −1: the tree is empty. */
  root: number
}

interface Meta {
  /** Where it must be mapped; never demanded here. */
  address: bigint
  /** Settings of the table of tables; none are used. */
  mainForm: number
  pageSize: number
  mapSize: number
  flags: number
  free: Tree
  main: Tree
  lastPage: number
  transaction: number
  boot: bigint
}

/** Called with every record; a false answer means that it is damaged. */
export type RecordCheck = (table: string, key: Buffer, value: Buffer) => boolean

export interface DataFileState {
  /** Of the last commit that LMDB will show. */
  transaction: number
  records: number
  pages: number
}

/** An unsigned 64-bit number that must be exact as a double. */
function wide(bytes: Buffer, at: number): number {
  const value = Number(bytes.readBigUInt64LE(at))
  return Number.isSafeInteger(value) ? value : fail('a number is out of range')
}

function treeAt(bytes: Buffer, at: number): Tree {
  const root = bytes.readBigUInt64LE(at + 40)
  return {
    depth: bytes.readUInt16LE(at + 6),
    branches: wide(bytes, at + 8),
    leaves: wide(bytes, at + 16),
    overflows: wide(bytes, at + 24),
    entries: wide(bytes, at + 32),
    root: root === NO_PAGE ? -1 : wide(bytes, at + 40),
  }
}

function metaAt(bytes: Buffer, at: number): Meta {
  const start = at + HEADER
  return {
    address: bytes.readBigUInt64LE(start + 8),
    mainForm: bytes.readUInt32LE(start + 72) + bytes.readUInt16LE(start + 76),
    mapSize: wide(bytes, start + 16),
    pageSize: bytes.readUInt32LE(start + 24),
    flags: bytes.readUInt16LE(start + 28),
    free: treeAt(bytes, start + 24),
    main: treeAt(bytes, start + 72),
    lastPage: wide(bytes, start + 120),
    transaction: wide(bytes, start + 128),
    boot: bytes.readBigInt64LE(start + 136),
  }
}

/** As LMDB reads it: the number before the first hyphen. 0 where the system does not tell. */
function bootId(): bigint {
  try {
    return BigInt(`0x${readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').split('-')[0]}`)
  } catch {
    return 0n
  }
}

/** The state that LMDB takes when it is the first to open the file: the last one that is surely on the disk. */
function pick(a: Meta, b: Meta, boot: bigint): Meta {
  if (b.transaction === 0) return a
  const latest = a.transaction >= b.transaction ? a : b
  const isFlushed = (latest.flags & UNFLUSHED) === 0
  if (isFlushed || (latest.boot !== 0n && latest.boot === boot)) return latest
  return a.transaction > b.transaction ? b : a
}

class Checker {
  readonly #fd: number
  readonly #size: number
  readonly #check: RecordCheck
  #meta!: Meta
  /** What each page is. */
  #seen = new Uint8Array(0)
  #records = 0

  constructor(fd: number, check: RecordCheck) {
    this.#fd = fd
    this.#size = fstatSync(fd).size
    this.#check = check
  }

  run(): DataFileState {
    this.#meta = this.#chooseMeta()
    const { free, main, lastPage, pageSize, transaction } = this.#meta
    this.#seen = new Uint8Array(lastPage + 1)
    this.#seen.fill(USED, 0, 2)
    this.#walk('', main, (key, value, isTree) => {
      const table = key.toString('utf8')
      if (!isTree) return fail(`there is a record beside the tables (${JSON.stringify(table)})`)
      if (value.length !== TREE_BYTES || value.readUInt32LE(0) !== 0 || value.readUInt16LE(4) !== 0) {
        return fail(`table ${JSON.stringify(table)} has an unknown form`)
      }
      // LMDB ends the names of tables with a zero in some versions.
      const name = table.replace(/\0$/, '')
      this.#walk(name, treeAt(value, 0), (recordKey, record, isInner) => {
        if (isInner) fail(`table ${name} holds another table`)
        this.#records++
        if (!this.#check(name, recordKey, record)) fail(`a record of table ${name} is not what was written`)
      })
    })
    this.#walk('', free, (key, value) => this.#freePages(key, value), true)
    const written = Math.floor(this.#size / pageSize)
    for (let page = written; page <= lastPage; page++) {
      if (this.#seen[page] !== FREE) fail(`it ends at byte ${this.#size}, before it should`)
    }
    return { transaction, records: this.#records, pages: Math.min(lastPage + 1, written) }
  }

  #chooseMeta(): Meta {
    const first = this.#read(0, META_BYTES)
    const pageSize = first.readUInt32LE(HEADER + 24)
    if (first.readUInt32LE(HEADER) !== MAGIC) fail('it does not begin like a file of LMDB')
    if (pageSize < 512 || pageSize > 65_536 || (pageSize & (pageSize - 1)) !== 0) fail('its page size is impossible')
    const both = this.#read(0, pageSize + META_BYTES)
    for (const [page, at] of [0, pageSize].entries()) {
      const isMeta = both.readUInt16LE(at + 18) === META && wide(both, at) === page
      const [magic, version] = [both.readUInt32LE(at + HEADER), both.readUInt32LE(at + HEADER + 4)]
      if (!isMeta || magic !== MAGIC || version !== DATA_VERSION) fail(`page ${page} is not what it must be`)
    }
    const metas = [metaAt(both, 0), metaAt(both, pageSize)] as const
    // Commits write these two in turn.
    const [even, odd] = [metas[0].transaction, metas[1].transaction]
    if (even % 2 !== 0 || (odd !== 0 && odd % 2 !== 1) || Math.abs(even - odd) > 1) fail('its first pages contradict')
    let chosen: Meta
    if (process.platform === 'win32') chosen = even >= odd ? metas[0] : metas[1]
    else {
      const boot = bootId()
      chosen = pick(pick(metas[0], metas[1], boot), metaAt(both, pageSize / 2), boot)
    }
    return this.#checkMeta(chosen, pageSize)
  }

  #checkMeta(meta: Meta, pageSize: number): Meta {
    const isPlain = meta.address === 0n && meta.mainForm === 0
    if (meta.pageSize !== pageSize || (meta.flags & ~UNFLUSHED) !== INTEGER_KEYS || !isPlain) {
      fail('its settings contradict')
    }
    if (meta.lastPage < 1 || meta.lastPage > this.#size / pageSize + MAX_UNWRITTEN) fail('its length is impossible')
    if (meta.mapSize > 2 ** 46 || meta.mapSize % pageSize !== 0) fail('its room is impossible')
    return meta
  }

  #read(at: number, length: number): Buffer {
    const bytes = Buffer.allocUnsafe(length)
    for (let done = 0; done < length; ) {
      const count = readSync(this.#fd, bytes, done, length - done, at + done)
      if (count === 0) fail(`it ends at byte ${this.#size}, before it should`)
      done += count
    }
    return bytes
  }

  /** Marks pages as met; each may be met once. */
  #claim(page: number, count: number, mark: number): void {
    if (!Number.isSafeInteger(page) || page < 2 || count < 1 || page + count - 1 > this.#meta.lastPage) {
      fail(`a page number is out of range (${page})`)
    }
    for (let n = page; n < page + count; n++) {
      if (this.#seen[n] !== 0) fail(`page ${n} is used twice`)
      this.#seen[n] = mark
    }
  }

  /** A page with a sound header. */
  #page(number: number, length: number): Buffer {
    const bytes = this.#read(number * this.#meta.pageSize, length)
    if (wide(bytes, 0) !== number) fail(`page ${number} says that it is another one`)
    if (wide(bytes, 8) > this.#meta.transaction) fail(`page ${number} is newer than the file`)
    return bytes
  }

  #walk(
    name: string,
    tree: Tree,
    onEntry: (key: Buffer, value: Buffer, isTree: boolean) => void,
    hasIntegerKeys = false,
  ): void {
    const met = { branches: 0, leaves: 0, overflows: 0, entries: 0 }
    let last: Buffer | undefined
    const isAfter = (key: Buffer, before: Buffer): boolean =>
      hasIntegerKeys ? wide(key, 0) > wide(before, 0) : Buffer.compare(key, before) > 0
    const leaf = (key: Buffer, value: Buffer, isTree: boolean): void => {
      if (hasIntegerKeys && key.length !== 8) fail('a key of the free pages has the wrong length')
      if (last !== undefined && !isAfter(key, last)) fail(`keys of table ${JSON.stringify(name)} are out of order`)
      last = Buffer.from(key)
      met.entries++
      onEntry(key, value, isTree)
    }
    const visit = (number: number, depth: number, least: Buffer | undefined): void => {
      if (depth > Math.min(tree.depth, MAX_DEPTH)) fail(`table ${JSON.stringify(name)} is deeper than it says`)
      this.#claim(number, 1, USED)
      const page = this.#page(number, this.#meta.pageSize)
      const kind = page.readUInt16LE(18)
      if (kind !== (depth === tree.depth ? LEAF : BRANCH)) fail(`page ${number} is of another kind`)
      const nodes = nodesOf(page, number, this.#meta.pageSize, kind === LEAF)
      if (kind === LEAF) met.leaves++
      else met.branches++
      for (const [index, node] of nodes.entries()) {
        if (kind === BRANCH) {
          const border = index === 0 ? least : node.key
          if (index > 0 && last !== undefined && !isAfter(node.key, last))
            fail(`keys of page ${number} are out of order`)
          visit(node.child, depth + 1, border)
          continue
        }
        if (index === 0 && least !== undefined && isAfter(least, node.key)) fail(`page ${number} is in the wrong place`)
        if ((node.flags & BIG) === 0) {
          leaf(node.key, node.value, (node.flags & TREE) !== 0)
          continue
        }
        if (node.value.length !== 24) fail(`an entry of page ${number} has the wrong length`)
        const [first, count] = [wide(node.value, 0), wide(node.value, 16)]
        if (count !== Math.ceil((HEADER + node.size) / this.#meta.pageSize))
          fail(`a value of page ${number} is too long`)
        this.#claim(first, count, USED)
        met.overflows += count
        const body = this.#page(first, HEADER + node.size)
        if (body.readUInt16LE(18) !== OVERFLOW || body.readUInt32LE(20) !== count)
          fail(`page ${first} is of another kind`)
        leaf(node.key, body.subarray(HEADER), false)
      }
    }
    if (tree.root === -1) {
      if (tree.entries !== 0) fail(`table ${JSON.stringify(name)} has lost its records`)
      return
    }
    visit(tree.root, 1, undefined)
    for (const [what, count] of Object.entries(met)) {
      if (count !== tree[what as keyof typeof met]) fail(`table ${JSON.stringify(name)} has lost or gained ${what}`)
    }
  }

  /** A list of free pages: a count, then pages, gaps (0) and runs (minus the length, then the first page). */
  #freePages(key: Buffer, value: Buffer): void {
    if (wide(key, 0) > this.#meta.transaction) fail('free pages are newer than the file')
    const words = value.length >= 8 ? wide(value, 0) : -1
    if (value.length % 8 !== 0 || words < 0 || (words + 1) * 8 > value.length)
      fail('a list of free pages has the wrong length')
    for (let n = 1; n <= words; n++) {
      const entry = value.readBigInt64LE(n * 8)
      if (entry === 0n) continue
      if (entry > 0n) this.#claim(Number(entry), 1, FREE)
      else {
        if (++n > words) fail('a list of free pages ends early')
        this.#claim(Number(value.readBigInt64LE(n * 8)), Number(-entry), FREE)
      }
    }
  }
}

interface Entry {
  key: Buffer
  value: Buffer
  flags: number
  /** Of the value, wherever it is. */
  size: number
  child: number
}

/** The entries of a page, which must fill it exactly as the page says. */
function nodesOf(page: Buffer, number: number, pageSize: number, isLeaf: boolean): Entry[] {
  const [lower, upper] = [page.readUInt16LE(20), page.readUInt16LE(22)]
  const room = pageSize - HEADER
  const count = lower >> 1
  if (lower % 2 !== 0 || lower > upper || upper > room || count === 0) fail(`page ${number} has impossible borders`)
  let filled = 0
  const entries: Entry[] = []
  const spans: [start: number, end: number][] = []
  for (let index = 0; index < count; index++) {
    const pointer = page.readUInt16LE(HEADER + index * 2)
    if (pointer < upper || pointer % 2 !== 0 || pointer + NODE_HEADER > room) fail(`page ${number} points outside`)
    const at = HEADER + pointer
    const [low, high, flags, keySize] = [0, 2, 4, 6].map((offset) => page.readUInt16LE(at + offset)) as [
      number,
      number,
      number,
      number,
    ]
    const size = low + high * 65_536
    const inline = !isLeaf ? 0 : (flags & BIG) !== 0 ? 24 : size
    const length = NODE_HEADER + keySize + inline
    if (pointer + length > room) fail(`an entry of page ${number} is too long`)
    if (isLeaf && (flags & ~(BIG | TREE)) !== 0) fail(`an entry of page ${number} is of an unknown kind`)
    if (keySize === 0 && (isLeaf || index > 0)) fail(`an entry of page ${number} has no key`)
    spans.push([pointer, pointer + length])
    filled += length + (length % 2)
    const keyAt = at + NODE_HEADER
    entries.push({
      key: page.subarray(keyAt, keyAt + keySize),
      value: page.subarray(keyAt + keySize, keyAt + keySize + inline),
      flags: isLeaf ? flags : 0,
      size,
      child: isLeaf ? -1 : size + flags * 2 ** 32,
    })
  }
  spans.sort((a, b) => a[0] - b[0])
  const isOverlapping = spans.some(([start], index) => index > 0 && start < (spans[index - 1]?.[1] ?? 0))
  if (isOverlapping || filled !== room - upper) fail(`entries of page ${number} overlap, or bytes are lost`)
  return entries
}

/** Whether this build of LMDB uses the form of file that this module knows. */
const isKnownForm = (): boolean => !['arm', 'ia32', 's390x', 'ppc'].includes(process.arch)

/**
 * Checks the whole file.
 *
 * @param check - Sees every record.
 * @returns undefined where this machine uses another form of file.
 * @throws {DataFileError} for anything that LMDB must not be given.
 */
export function checkDataFile(path: string, check: RecordCheck): DataFileState | undefined {
  if (!isKnownForm()) return undefined
  const fd = openSync(path, 'r')
  try {
    return new Checker(fd, check).run()
  } catch (error) {
    if (error instanceof RangeError) throw new DataFileError('a number is out of range', { cause: error })
    throw error
  } finally {
    closeSync(fd)
  }
}
