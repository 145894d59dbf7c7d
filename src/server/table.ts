/**
 * A table of the metadata store whose records carry a checksum over table, key and value: a damaged byte is an error and
 * never another record. The check of the whole file before it is opened is data-file.ts.
 * @module
 */
import { crc32 } from 'node:zlib'
import { Packr } from 'msgpackr'
import { writeKey } from 'ordered-binary'
import { SyncError } from '../../crypto/errors.ts'

// What LMDB takes, in types of our own: its declarations do not compile everywhere, and these are part of ours.
export type Key = string | number | Key[]

export interface RangeOptions {
  readonly start?: Key
  readonly end?: Key
  readonly inclusiveEnd?: boolean
  readonly exclusiveStart?: boolean
  readonly reverse?: boolean
  readonly limit?: number
  readonly offset?: number
}

interface RawTable<K> {
  get(key: K): Buffer | undefined
  doesExist(key: K): boolean
  getCount(range?: RangeOptions): number
  getRange(range: RangeOptions): Iterable<{ key: K; value: Buffer }>
  getKeys(range: RangeOptions): Iterable<K>
  put(key: K, value: Buffer): unknown
  remove(key: K): unknown
}

const SUM_BYTES = 4
const packr = new Packr({ useRecords: false })
/** Longer than any key that LMDB takes. */
const keyBytes = new Uint8Array(8192)

/** What a stored value must end with. `key` is the key as it is in the file. */
function sumOf(table: string, key: Uint8Array, value: Uint8Array): number {
  return crc32(value, crc32(key, crc32(table)))
}

/** Whether the bytes of a record are those that were written, for this key of this table. */
export function isWhole(table: string, key: Uint8Array, stored: Buffer): boolean {
  const end = stored.length - SUM_BYTES
  return end > 0 && stored.readUInt32LE(end) === sumOf(table, key, stored.subarray(0, end))
}

export class Table<V, K extends Key> {
  readonly name: string
  readonly #raw: RawTable<K>

  /** @param raw - Opened with binary encoding. */
  constructor(raw: RawTable<K>, name: string) {
    this.#raw = raw
    this.name = name
  }

  /** @throws {SyncError} `STORE_DAMAGED` when the record is not what was written. */
  get(key: K): V | undefined {
    const stored = this.#raw.get(key)
    return stored === undefined ? undefined : this.#unpack(key, stored)
  }

  doesExist(key: K): boolean {
    return this.#raw.doesExist(key)
  }

  getCount(range?: RangeOptions): number {
    return this.#raw.getCount(range)
  }

  /** Records in the order of their keys. */
  *getRange(range: RangeOptions): Generator<{ key: K; value: V }> {
    for (const { key, value } of this.#raw.getRange(range)) yield { key, value: this.#unpack(key, value) }
  }

  getKeys(range: RangeOptions): Iterable<K> {
    return this.#raw.getKeys(range)
  }

  put(key: K, value: V): void {
    const packed = packr.pack(value)
    const stored = Buffer.allocUnsafe(packed.length + SUM_BYTES)
    stored.set(packed)
    stored.writeUInt32LE(sumOf(this.name, this.#bytesOf(key), packed), packed.length)
    void this.#raw.put(key, stored)
  }

  remove(key: K): void {
    void this.#raw.remove(key)
  }

  #bytesOf(key: K): Uint8Array {
    return keyBytes.subarray(0, writeKey(key as Parameters<typeof writeKey>[0], keyBytes, 0))
  }

  #unpack(key: K, stored: Buffer): V {
    if (!isWhole(this.name, this.#bytesOf(key), stored)) {
      throw new SyncError('integrity', 'STORE_DAMAGED', `A record of the metadata store is damaged (${this.name})`, {
        hint: 'Stop the server and look with sync serve check.',
      })
    }
    return packr.unpack(stored.subarray(0, stored.length - SUM_BYTES)) as V
  }
}
