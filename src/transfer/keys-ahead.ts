/**
 * File keys of a run, fetched and unwrapped in the order of its files and ahead of their content: RSA is what many small files
 * wait for, so it must not wait for anything itself.
 * @module
 */
import pLimit from 'p-limit'
import type { FileKey } from '../../crypto/index.ts'
import type { RemoteNode } from '../api/wire.ts'
import { type DownloadContext, openFileKey } from './content.ts'
import { isSmall } from './small-file.ts'

/** Files that are ahead at most; more where the server is far away. */
export const KEYS_AHEAD = 64
/** Keys on their way at once: enough for all cores and the round trips, and connections are left for content. */
export const KEYS_AT_ONCE = 8
/** Of the requests that there may be at once, those for keys, and the files that are ahead then. */
const SHARE = 0.5
const AHEAD = 2

export interface KeysAhead {
  /** The key of a file; `undefined` for a plain one. Files are taken about in order, each once. */
  take(node: RemoteNode, signal: AbortSignal): Promise<FileKey | undefined>
  /** Stops, and overwrites the keys that nobody took. */
  close(): Promise<void>
}

/** @param pace - How many requests there may be at once. Default: those of a near server. */
export function createKeysAhead(
  context: DownloadContext,
  nodes: readonly RemoteNode[],
  pace?: { allowed(): number; onChange(listener: () => void): () => void },
): KeysAhead {
  const stop = new AbortController()
  const limit = pLimit(KEYS_AT_ONCE)
  const ready = new Map<RemoteNode, Promise<FileKey | undefined>>()
  let begun = 0
  let taken = 0
  let follows: AbortSignal | undefined

  /** A small file is opened with the key that its content had last, if that is known: should it be another one now, little is lost. */
  async function openKey(node: RemoteNode, signal: AbortSignal): Promise<FileKey | undefined> {
    if (node.isEncrypted !== true) return undefined
    const known = isSmall(node) ? await context.keyring.recall(node.id, signal) : undefined
    return known ?? openFileKey(context, node, signal)
  }

  const adjust = () => {
    limit.concurrency = Math.max(KEYS_AT_ONCE, Math.floor((pace?.allowed() ?? 0) * SHARE))
  }
  const unfollow = pace?.onChange(adjust)

  function begin(): void {
    const ahead = Math.max(KEYS_AHEAD, (pace?.allowed() ?? 0) * AHEAD)
    for (; begun < nodes.length && begun < taken + ahead; begun++) {
      const node = nodes[begun]!
      if (node.isEncrypted !== true) continue
      const opening = limit(() => {
        stop.signal.throwIfAborted()
        return openKey(node, stop.signal)
      })
      opening.catch(() => {}) // told when it is taken
      ready.set(node, opening)
    }
  }

  return {
    take(node, signal) {
      // All files of a run share one signal.
      if (follows === undefined) {
        follows = signal
        if (signal.aborted) stop.abort(signal.reason)
        else signal.addEventListener('abort', () => stop.abort(signal.reason), { once: true })
      }
      taken++
      begin()
      const opening = ready.get(node)
      ready.delete(node)
      return opening ?? openKey(node, signal)
    },
    async close() {
      stop.abort()
      unfollow?.()
      for (const opening of ready.values()) {
        await opening.then((fileKey) => fileKey?.wipe()).catch(() => {})
      }
      ready.clear()
    },
  }
}
