/**
 * Proves that what is stored can be read: downloads, decrypts and checks every byte, and keeps nothing. Where a state of the
 * place is known, the server is also held to it: files that it dropped, swapped or set back to an older version are named.
 * @module
 */

import { getFileKey } from '../api/file-keys.ts'
import { SyncError } from '../errors.ts'
import { localName, type Names } from '../local/names.ts'
import { downloadContent, openFileKey } from '../transfer/content.ts'
import { createTally, runEntries, type Tally } from './outcome.ts'
import type { SyncRecord } from './records.ts'
import { requireRemote } from './remote-path.ts'
import { DEFAULT_JOBS, never, type RunContext, type RunOptions, report } from './run.ts'
import { keyOf } from './scan.ts'
import { type RemoteEntry, readRemoteTree, showPath } from './tree.ts'

export interface VerifyOptions extends Pick<RunOptions, 'jobs' | 'signal'> {
  /** Share of the files that are read, 0 to 1. Default 1. All of them are held to what is known. */
  readonly share?: number
  /** What is known of this place, by key; see records.ts. */
  readonly known?: ReadonlyMap<string, SyncRecord>
  /** How the runs that know it treated names. */
  readonly names?: Names | undefined
}

export interface Verification {
  /** Files there. */
  readonly files: number
  /** Files read and checked, and their bytes. */
  readonly verified: number
  readonly bytes: number
  /** Files compared with what is known of them. */
  readonly compared: number
  readonly tally: Tally
}

const rolledBack = () =>
  new SyncError('integrity', 'CONTENT_SWAPPED', 'The server has other content under this file than was stored there', {
    hint: 'Look at its versions and the recycle bin. If you have the file, push it again.',
  })

const dropped = () =>
  new SyncError('integrity', 'CONTENT_DROPPED', 'The server does not have this file any more', {
    hint: 'Somebody has deleted or moved it, or the server lost it. Look into the recycle bin.',
  })

const replaced = () =>
  new SyncError('integrity', 'CONTENT_REPLACED', 'The server has another version than was stored last', {
    hint: 'Somebody has stored a new version, or the server went back to an old one. Look at its versions.',
  })

/**
 * Reads files below a room or folder to their ends.
 *
 * @throws {SyncError} for what is wrong before anything is read.
 */
export async function verifyRemote(
  context: RunContext,
  path: string,
  options: VerifyOptions = {},
): Promise<Verification> {
  const { api, random } = context
  const signal = options.signal ?? never
  const { node, roomId } = await requireRemote(api, path, signal)
  const entries: RemoteEntry[] =
    node.type === 'file' ? [{ node, path: [node.name], roomId }] : await readRemoteTree(api, node, roomId, { signal })
  const files = entries.filter((entry) => entry.node.type === 'file')
  const tally = createTally()
  const fail = (shown: string, error: SyncError) => {
    tally.failed.push({ path: shown, error })
    report(context, shown, error)
  }
  const { known = new Map<string, SyncRecord>() } = options
  const seals = new Map<string, SyncRecord>()
  for (const [key, record] of known) if (record.kind === 'file') seals.set(key, record)
  const there = new Set<string>()
  const share = options.share ?? 1
  const work = files.map((entry) => {
    const key = keyOf(entry.path.map((name) => nameHere(name, options.names)))
    there.add(key)
    return { entry, key, shown: showPath(entry.path), isRead: share >= 1 || random.next() < share }
  })
  for (const [key, { path: lost }] of seals) if (!there.has(key)) fail(lost, dropped())
  const chosen = work.filter(({ isRead, key }) => isRead || seals.has(key))
  const bytes = chosen.reduce((sum, { isRead, entry }) => sum + (isRead ? (entry.node.size ?? 0) : 0), 0)
  context.onEvent?.({ type: 'planned', files: chosen.length, bytes, skipped: files.length - chosen.length })
  let [verified, compared] = [0, 0]
  await runEntries(
    chosen,
    options.jobs ?? DEFAULT_JOBS,
    tally,
    async ({ entry, key, shown, isRead }, stop) => {
      const record = seals.get(key)
      if (record !== undefined) {
        compared++
        await holdTo(record, entry, stop)
      }
      if (!isRead) return 0
      const { node: file } = entry
      const size = file.size ?? 0
      context.onEvent?.({ type: 'file-started', path: shown, bytes: size })
      const fileKey = await openFileKey(context, file, stop)
      try {
        await downloadContent(context, file, fileKey, { write: async () => {} }, shown, stop)
      } finally {
        fileKey?.wipe()
      }
      verified++
      context.onEvent?.({ type: 'file-done', path: shown, bytes: size })
      return size
    },
    { signal, onFailure: ({ path: shown, error }) => report(context, shown, error), onBusy: context.onBusy },
  )
  return { files: files.length, verified, bytes: tally.bytes, compared, tally }

  async function holdTo(record: SyncRecord, { node: file }: RemoteEntry, stop: AbortSignal): Promise<void> {
    if (record.remote.id !== file.id) throw replaced()
    if (record.remote.size !== file.size) throw rolledBack()
    if (record.seal === undefined || file.isEncrypted !== true) return
    const { iv, tag } = await getFileKey(api, file.id, stop)
    if (Buffer.concat([iv, tag]).toString('base64') !== record.seal) throw rolledBack()
  }
}

const nameHere = (remote: string, names: Names | undefined): string => {
  try {
    return localName(remote, { names })
  } catch {
    return remote
  }
}
