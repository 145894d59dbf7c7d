/**
 * Small content on its way down: fetched whole, checked, and only then written, in as few steps as it takes.
 * @module
 */

import { decryptBytes, type FileKey } from '../../crypto/index.ts'
import type { RemoteNode } from '../api/wire.ts'
import { SyncError } from '../errors.ts'
import { type DownloadContext, openFileKey, sizeOf } from './content.ts'
import { type Address, createAddress, readStretch } from './ranges.ts'

const SMALL_BYTES = 256 * 1024

export const isSmall = ({ size }: RemoteNode): boolean => size !== undefined && size <= SMALL_BYTES

/**
 * Fetches and decrypts content of at most 256 KiB.
 *
 * @param fileKey - May be one that was not asked for, see `Keyring.recall`.
 * @throws {SyncError} `CONTENT_TAMPERED`, `CONTENT_LENGTH_WRONG`, `CONTENT_SWAPPED`.
 */
export async function fetchSmall(
  context: DownloadContext,
  node: RemoteNode,
  fileKey: FileKey | undefined,
  signal: AbortSignal,
  address: Address = createAddress(context, node.id, signal),
): Promise<Uint8Array> {
  const size = sizeOf(node)
  const content = Buffer.allocUnsafe(size)
  let arrived = 0
  const take = (chunk: Uint8Array) => {
    content.set(chunk, arrived)
    arrived += chunk.length
    return undefined
  }
  await readStretch(context, address, { start: 0, end: size, size }, take, { orWhole: true, signal })
  if (fileKey === undefined) return content
  try {
    const plaintext = decryptBytes(content, fileKey)
    context.keyring.confirm(fileKey)
    return plaintext
  } catch (error) {
    if (!(error instanceof SyncError) || error.code !== 'CONTENT_TAMPERED') throw error
    throw await explain(context, node, fileKey, error, signal)
  }
}

/** What the server says of its key now: another one means that the content was exchanged, not damaged. */
async function explain(
  context: DownloadContext,
  node: RemoteNode,
  tried: FileKey,
  error: SyncError,
  signal: AbortSignal,
): Promise<unknown> {
  try {
    const current = await openFileKey(context, node, signal)
    if (current !== tried) current?.wipe()
    return error
  } catch (other) {
    return other
  }
}
