/**
 * Small content on its way down: fetched whole, checked, and only then written, in as few steps as it takes.
 * @module
 */

import { decryptBytes, type FileKey } from '../../crypto/index.ts'
import type { RemoteNode } from '../api/wire.ts'
import { SyncError } from '../errors.ts'
import { type DownloadContext, openFileKey, sizeOf } from './content.ts'
import { isSameContent } from './keyring.ts'
import { createAddress, readStretch } from './ranges.ts'

const SMALL_BYTES = 256 * 1024

export const isSmall = ({ size }: RemoteNode): boolean => size !== undefined && size <= SMALL_BYTES

/**
 * Fetches and decrypts content of at most 256 KiB.
 *
 * @param fileKey - May be the one of an older content, see `Keyring.recall`.
 * @throws {SyncError} `CONTENT_TAMPERED`, `CONTENT_LENGTH_WRONG`.
 */
export async function fetchSmall(
  context: DownloadContext,
  node: RemoteNode,
  fileKey: FileKey | undefined,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const size = sizeOf(node)
  const content = Buffer.allocUnsafe(size)
  let arrived = 0
  const take = (chunk: Uint8Array) => {
    content.set(chunk, arrived)
    arrived += chunk.length
    return undefined
  }
  const address = createAddress(context.api, node.id, signal)
  await readStretch(context, address, { start: 0, end: size, size }, take, { orWhole: true, signal })
  if (fileKey === undefined) return content
  try {
    const plaintext = decryptBytes(content, fileKey)
    context.keyring.confirm(fileKey)
    return plaintext
  } catch (error) {
    if (!(error instanceof SyncError) || error.code !== 'CONTENT_TAMPERED') throw error
    return await decryptAnew(context, node, content, fileKey, error, signal)
  }
}

/** With the key that the server has for the node now, unless it is the same one. */
async function decryptAnew(
  context: DownloadContext,
  node: RemoteNode,
  content: Uint8Array,
  tried: FileKey,
  error: SyncError,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const current = await openFileKey(context, node, signal)
  if (current === undefined) throw error
  try {
    if (isSameContent(current, tried)) throw error
    const plaintext = decryptBytes(content, current)
    context.keyring.confirm(current)
    return plaintext
  } finally {
    current.wipe()
  }
}
