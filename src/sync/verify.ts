/**
 * Proves that what is stored can be read: downloads, decrypts and checks every byte, and keeps nothing. Where a state of the
 * place is known, or a manifest is there, the server is also held to it: files that it dropped, swapped or set back to an older
 * version are named.
 * @module
 */
import { createHash } from 'node:crypto'
import { getFileKey } from '../api/file-keys.ts'
import { SyncError, toSyncError } from '../errors.ts'
import { MANIFEST_NAME } from '../local/atomic-file.ts'
import type { Names } from '../local/names.ts'
import { downloadContent, openFileKey } from '../transfer/content.ts'
import { nameHere } from './known-places.ts'
import { createTally, runEntries, type Tally } from './outcome.ts'
import { type SyncRecord, sealOf } from './records.ts'
import { requireRemote } from './remote-path.ts'
import { DEFAULT_JOBS, never, type RunContext, report } from './run.ts'
import type { Limits } from './run-job.ts'
import { isManifest, keyOf } from './scan.ts'
import type { ManifestPin } from './state.ts'
import { type RemoteEntry, readRemoteTree, showPath } from './tree.ts'
import { droppedManifest, isTooLongAgo, judgeManifest, readTreeManifest } from './tree-manifest.ts'

/** How much is read, and what it is held to. */
export interface VerifyOptions extends Pick<Limits, 'jobs' | 'signal'> {
  /** Share of the files that are read, 0 to 1. Default 1. All of them are held to what is known. */
  readonly share?: number
  /** What is known of this place, by key; see records.ts. */
  readonly known?: ReadonlyMap<string, SyncRecord>
  /** How the runs that know it treated names. */
  readonly names?: Names | undefined
  /** The manifest that is known of it. */
  readonly pin?: ManifestPin | undefined
}

/** What a file is held to. */
interface Held {
  readonly path: string
  readonly node: number
  readonly size: number
  readonly seal?: string | undefined
  /** Hex. */
  readonly sha256?: string | undefined
}

const heldTo = ({ path, remote, seal, sha256 }: SyncRecord): Held => ({
  path,
  node: remote.id,
  size: remote.size,
  seal,
  sha256: sha256 === undefined ? undefined : Buffer.from(sha256, 'base64').toString('hex'),
})

/** What reading everything to its end has found. */
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
  const manifest = entries.find((entry) => entry.path.length === 1 && isManifest(entry.node) && entry.node !== node)
  const files = entries.filter((entry) => entry.node.type === 'file' && entry !== manifest)
  const tally = createTally()
  const fail = (shown: string, error: SyncError) => {
    tally.failed.push({ path: shown, error })
    report(context, shown, error)
  }
  const { known = new Map<string, SyncRecord>() } = options
  const held = new Map<string, Held>()
  for (const entry of await readManifest(manifest)) held.set(keyOf(entry.path.split('/')), entry)
  // What was seen here counts for more.
  for (const [key, record] of known) if (record.kind === 'file') held.set(key, heldTo(record))
  const there = new Set<string>()
  const share = options.share ?? 1
  const work = files.map((entry) => {
    const key = keyOf(entry.path.map((name) => nameHere(name, options.names)))
    there.add(key)
    return { entry, key, shown: showPath(entry.path), isRead: share >= 1 || random.next() < share }
  })
  for (const [key, { path: lost }] of held) if (!there.has(key)) fail(lost, dropped())
  const chosen = work.filter(({ isRead, key }) => isRead || held.has(key))
  const bytes = chosen.reduce((sum, { isRead, entry }) => sum + (isRead ? (entry.node.size ?? 0) : 0), 0)
  context.onEvent?.({ type: 'planned', files: chosen.length, bytes, skipped: files.length - chosen.length })
  let [verified, compared] = [0, 0]
  await runEntries(
    chosen,
    options.jobs ?? DEFAULT_JOBS,
    tally,
    async ({ entry, key, shown, isRead }, stop) => {
      const expected = held.get(key)
      if (expected !== undefined) {
        compared++
        await holdTo(expected, entry, stop)
      }
      if (!isRead) return 0
      const { node: file } = entry
      const size = file.size ?? 0
      context.onEvent?.({ type: 'file-started', path: shown, bytes: size })
      const fileKey = await openFileKey(context, file, stop)
      const hash = expected?.sha256 === undefined ? undefined : createHash('sha256')
      try {
        await downloadContent(context, file, fileKey, { write: async (chunk) => void hash?.update(chunk) }, shown, stop)
      } finally {
        fileKey?.wipe()
      }
      if (hash !== undefined && hash.digest('hex') !== expected?.sha256) throw rolledBack()
      verified++
      context.onEvent?.({ type: 'file-done', path: shown, bytes: size })
      return size
    },
    { signal, onFailure: ({ path: shown, error }) => report(context, shown, error), onBusy: context.onBusy },
  )
  return { files: files.length, verified, bytes: tally.bytes, compared, tally }

  async function holdTo(expected: Held, { node: file }: RemoteEntry, stop: AbortSignal): Promise<void> {
    if (expected.node !== file.id) throw replaced()
    if (expected.size !== file.size) throw rolledBack()
    if (expected.seal === undefined) return
    if (file.isEncrypted !== true || sealOf(await getFileKey(api, file.id, stop)) !== expected.seal) throw rolledBack()
  }

  /** The files of the manifest, as far as it is right; what is wrong with it is told. */
  async function readManifest(entry: RemoteEntry | undefined): Promise<readonly Held[]> {
    const { pin } = options
    if (entry === undefined) {
      if (pin !== undefined) fail(MANIFEST_NAME, droppedManifest())
      return []
    }
    try {
      const found = await readTreeManifest(context, entry.node, signal)
      const problem = pin && judgeManifest(pin, found)
      if (problem !== undefined) throw problem
      if (pin === undefined || isTooLongAgo(pin, found.manifest)) {
        const message = 'This machine knows no newer manifest of this place, so an older one could not be noticed'
        context.onEvent?.({ type: 'warning', code: 'NOT_PINNED', message })
      }
      // What is known here is what it was made from, or newer.
      if (found.sha256 === pin?.sha256) return []
      return found.manifest.entries.filter((one) => one.kind === 'file')
    } catch (thrown) {
      const error = toSyncError(thrown)
      const isAboutIt = error.class === 'integrity' || (error.class === 'server' && !error.retryable)
      if (!isAboutIt) throw thrown
      fail(MANIFEST_NAME, error)
      return []
    }
  }
}
