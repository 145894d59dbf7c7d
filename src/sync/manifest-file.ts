/**
 * What the manifests of backups and of pushed trees have in common: JSON with an entry per line, written to a private file and
 * sent from there; and reading one. Whoever has our public key could have made it, so nothing in it is taken on trust.
 * @module
 */
import { createHash } from 'node:crypto'
import { promisify } from 'node:util'
import { gunzipSync, gzip } from 'node:zlib'
import type { RemoteNode } from '../api/wire.ts'
import { SyncError } from '../errors.ts'
import { createAtomicFile } from '../local/atomic-file.ts'
import { downloadContent, openFileKey, sizeOf } from '../transfer/content.ts'
import { sealOf } from './records.ts'
import type { RunContext } from './run.ts'

/** Bytes; a longer text would not fit into a string. */
const MAX_MANIFEST = 480 * 1024 * 1024
const WRITE_BYTES = 1024 * 1024

const compress = promisify(gzip)
/** Every file of gzip begins so (RFC 1952 §2.3.1); no JSON does. */
const GZIP = Buffer.from([0x1f, 0x8b])

/**
 * Writes a manifest to a private file, an entry per line.
 *
 * @param how.isCompressed - Compress it with gzip, in members of a mebibyte.
 * @returns SHA-256 (hex) and size of the file.
 * @throws {SyncError} `MANIFEST_TOO_LARGE` (class `limit`).
 */
export async function writeManifestFile(
  path: string,
  head: object,
  entries: Iterable<object>,
  how: { isCompressed?: boolean } = {},
): Promise<{ sha256: string; size: number }> {
  const hash = createHash('sha256')
  let [size, length] = [0, 0]
  const file = await createAtomicFile(path)
  try {
    let text = `${JSON.stringify(head).slice(0, -1)},"entries":[`
    let separator = '\n'
    const flush = async () => {
      const plain = Buffer.from(text)
      text = ''
      length += plain.length
      const bytes = how.isCompressed === true ? await compress(plain) : plain
      hash.update(bytes)
      size += bytes.length
      for (let at = 0; at < bytes.length; ) at += (await file.handle.write(bytes, at)).bytesWritten
    }
    for (const entry of entries) {
      text += separator + JSON.stringify(entry)
      separator = ',\n'
      if (text.length >= WRITE_BYTES) await flush()
    }
    text += '\n]}\n'
    await flush()
    if (length > MAX_MANIFEST)
      throw new SyncError('limit', 'MANIFEST_TOO_LARGE', 'There are too many files for one manifest')
    await file.commit()
  } finally {
    await file.discard()
  }
  return { sha256: hash.digest('hex'), size }
}

/**
 * Fetches and decrypts a manifest.
 *
 * @param node - Read as an encrypted file, whatever the server says of it.
 * @throws {SyncError} what the layers below throw, and `MANIFEST_TOO_LARGE` (class `limit`); see `isAboutContent`.
 */
export async function fetchManifestFile(
  context: RunContext,
  node: RemoteNode,
  shown: string,
  signal: AbortSignal,
): Promise<{ bytes: Uint8Array; seal: string; sha256: string }> {
  const size = sizeOf(node)
  if (size > MAX_MANIFEST) throw new SyncError('limit', 'MANIFEST_TOO_LARGE', 'It is larger than manifests are')
  const fileKey = (await openFileKey(context, { ...node, isEncrypted: true }, signal))!
  const chunks: Buffer[] = []
  const sink = { write: async (chunk: Uint8Array) => void chunks.push(Buffer.from(chunk)) }
  try {
    const seal = sealOf(fileKey)
    await downloadContent({ ...context, onEvent: undefined }, node, fileKey, sink, shown, signal)
    const bytes = Buffer.concat(chunks)
    return { bytes, seal, sha256: createHash('sha256').update(bytes).digest('hex') }
  } finally {
    fileKey.wipe()
  }
}

/** What makes a manifest unreadable, as opposed to the way to it. */
export const isAboutContent = ({ class: kind }: SyncError): boolean =>
  ['integrity', 'not_found', 'limit'].includes(kind)

/** Says within `parseManifestFile` what is wrong. */
export class Invalid extends Error {}

/**
 * Reads what somebody may have made to harm us, compressed or not.
 *
 * @param otherwise - What to say of bytes that are no manifest.
 * @throws {SyncError} `MANIFEST_INVALID` (class `integrity`).
 */
export function parseManifestFile<T>(bytes: Uint8Array, otherwise: string, read: (value: unknown) => T): T {
  try {
    const isCompressed = GZIP.equals(bytes.subarray(0, GZIP.length))
    const plain = isCompressed ? gunzipSync(bytes, { maxOutputLength: MAX_MANIFEST }) : bytes
    return read(JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(plain)))
  } catch (cause) {
    const why = cause instanceof Invalid ? cause.message : 'it cannot be read'
    throw new SyncError('integrity', 'MANIFEST_INVALID', `${otherwise}: ${why}`, { cause })
  }
}

export function record(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Invalid(`${what} is no object`)
  return value as Record<string, unknown>
}

export function list<T>(value: unknown, what: string, item: (value: unknown) => T): T[] {
  if (!Array.isArray(value)) throw new Invalid(`${what} is no list`)
  return value.map(item)
}

export function text(value: unknown, what: string, form = /^/): string {
  if (typeof value !== 'string' || !form.test(value)) throw new Invalid(`${what} is not right`)
  return value
}

export function natural(value: unknown, what: string): number {
  if (!Number.isSafeInteger(value) || (value as number) < 0) throw new Invalid(`${what} is no number`)
  return value as number
}

export function flag(value: unknown, what: string): boolean {
  if (typeof value !== 'boolean') throw new Invalid(`${what} is neither true nor false`)
  return value
}

/** Entries whose paths are all different. */
export function placesOnce<T extends { readonly path: string }>(entries: readonly T[]): readonly T[] {
  if (new Set(entries.map(({ path }) => path)).size !== entries.length) throw new Invalid('a path is there twice')
  return entries
}

export const SHA256 = /^[0-9a-f]{64}$/
/** 12 and 16 bytes. */
export const SEAL = /^[A-Za-z0-9+/]{38}==$/
export const INTEGER = /^-?\d{1,30}$/
/** Of a link: anything but NUL. */
export const TARGET = /^[^\0]+$/
