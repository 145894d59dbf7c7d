import type { PublicKey } from '../../crypto/index.ts'
import { usesObjectStorage } from '../api/account.ts'
import type { Api } from '../api/api.ts'
import type { RemoteNode } from '../api/wire.ts'
import { SyncError, toSyncError } from '../errors.ts'
import { escapeName } from '../local/names.ts'
import { createDistributor } from '../transfer/distribute.ts'
import { type EncryptionThread, startEncryptionThread, THREAD_FROM } from '../transfer/encryption-thread.ts'
import { createSlabPool, type SlabPool } from '../transfer/flow.ts'
import { openUploadJournal, type UploadJournal } from '../transfer/journal.ts'
import { retire } from '../transfer/resume.ts'
import { type UploadContext, uploadFile } from '../transfer/upload.ts'
import { partSizeFor } from '../transfer/upload-channel.ts'
import { createTally, type RunSummary, runEntries, summarize, type Tally } from './outcome.ts'
import { planUpload, remotePathOf, type UploadStep } from './plan.ts'
import { ensureFolder, requireContainer } from './remote-path.ts'
import {
  DEFAULT_JOBS,
  isSameContent,
  memoryOf,
  never,
  type RunContext,
  recordFailures,
  report,
  type UploadOptions,
} from './run.ts'
import { type RemoteEntry, readLocalTree, readRemoteTree, remoteKey } from './tree.ts'

export const DEFAULT_PART_SIZE = 8 * 1024 * 1024
/** Parts in flight per file. */
const WINDOW = 3

type UploadStepOf<K extends UploadStep['do']> = Extract<UploadStep, { do: K }>

/**
 * Uploads files and directories into a room or folder; makes missing folders; skips what is there with equal content; never
 * deletes.
 *
 * @returns the summary, also when something stopped the run (`stoppedBy`).
 * @throws {SyncError} for what is wrong before anything is transferred: sources, target, encryption, key pair, permission.
 */
export async function runUpload(
  context: RunContext,
  sources: readonly string[],
  target: string,
  options: UploadOptions = {},
): Promise<RunSummary> {
  const { api, keyring } = context
  const signal = options.signal ?? never
  const slabs = createPartSlabs(options)
  context.onEvent?.({ type: 'phase', text: 'Looking at both sides' })
  const { container, roomId, missing } = await requireContainer(api, target, signal)
  checkTarget(container, options)
  const local = await readLocalTree(sources, { contents: options.contents ?? false, signal })
  const direct = await usesObjectStorage(api, signal)
  const remote = missing.length > 0 ? [] : await listForUpload(api, container, roomId, local.entries, signal)
  const steps = planUpload(local.entries, new Map(remote.map((entry) => [remoteKey(entry.path), entry])), {
    checksum: options.checksum ?? false,
    ...(options.onConflict === undefined ? {} : { onConflict: options.onConflict }),
  })

  const tally = createTally()
  const uploads = steps.filter((step): step is UploadStepOf<'upload'> => step.do === 'upload')
  tally.files = local.entries.filter((entry) => entry.kind === 'file').length
  tally.skipped = steps.filter((step) => step.do === 'skip').length
  for (const failure of local.failures) {
    tally.failed.push(failure)
    report(context, failure.path, failure.error)
  }
  recordFailures(steps, tally, context)
  const isEncrypted = container.isEncrypted === true
  const needsKey = isEncrypted && uploads.length > 0
  if (needsKey) await keyring.prepare(signal)
  const bytes = uploads.reduce((sum, step) => sum + step.entry.size, 0)
  context.onEvent?.({ type: 'planned', files: uploads.length, bytes, skipped: tally.skipped })

  // Unlocking takes half a second of one core: there is other work meanwhile, and a run that sends nothing does without.
  const ownKey = needsKey ? keyring.ownKey(signal) : undefined
  ownKey?.catch(() => {}) // reported when awaited
  const needsThread = needsKey && uploads.some(({ entry }) => entry.size >= THREAD_FROM)
  const distributor = createDistributor(api, keyring, {
    onEvent: context.onEvent,
    onRefused: ({ member, error }) => tally.failed.push({ path: member, error }),
    signal,
  })
  const { journal: path } = options
  const journal = path === undefined ? undefined : await openUploadJournal(path, context.clock, context.onEvent)
  const thread = needsThread ? startEncryptionThread() : undefined
  try {
    await retireUnplanned(api, journal, uploads, signal)
    const places = await makeFolders(context, container, roomId, missing, remote, steps, tally, signal)
    const wrapFor = await ownKey
    const upload = createUploader(context, options, { direct, wrapFor, places, journal, slabs, thread })
    const onFailure = (failure: { path: string; error: SyncError }) => report(context, failure.path, failure.error)
    const work = async (step: UploadStepOf<'upload'>, stop: AbortSignal) => {
      const done = await upload(step, stop)
      if (done?.fileKey) {
        await keyring.keep(done.node.id, done.fileKey)
        await distributor.remember(done.roomId, done.node.id, done.fileKey)
      }
      return done?.bytes
    }
    await runEntries(uploads, options.jobs ?? DEFAULT_JOBS, tally, work, { signal, onFailure, onBusy: context.onBusy })
    if (tally.stoppedBy === undefined) {
      if (isEncrypted) distributor.include(roomId)
      await distributor.flush()
    }
  } catch (error) {
    tally.stoppedBy ??= toSyncError(signal.aborted ? signal.reason : error)
  } finally {
    await thread?.close()
    await journal?.close()
  }
  return summarize(tally, local.ignored)
}

/** The part buffers of a run: as many as there is memory for, each large enough for the parts of the largest file. */
function createPartSlabs(options: UploadOptions): SlabPool {
  const size = partSizeFor(2 ** 36, options.partSize ?? DEFAULT_PART_SIZE)
  const count = Math.floor(memoryOf(options) / size)
  if (count > 0) return createSlabPool(count, size)
  if (options.memory === undefined) return createSlabPool(1, size)
  throw new SyncError('usage', 'MEMORY_INVALID', `A part of ${size} bytes does not fit into ${options.memory}`, {
    hint: 'Allow more memory, or choose smaller parts.',
  })
}

/** Gives up interrupted uploads of files that are not going to be sent. */
async function retireUnplanned(
  api: Api,
  journal: UploadJournal | undefined,
  uploads: readonly UploadStepOf<'upload'>[],
  signal: AbortSignal,
): Promise<void> {
  const planned = new Set(uploads.map(({ entry }) => entry.source))
  for (const entry of journal?.open() ?? []) {
    signal.throwIfAborted()
    if (entry.isAbandoned || !planned.has(entry.path)) await retire(api, entry, signal)
  }
}

function checkTarget(container: RemoteNode, options: UploadOptions): void {
  if (options.requireEncryption && container.isEncrypted !== true) {
    throw new SyncError('safety', 'NOT_ENCRYPTED', 'The target is not encrypted, and encryption is required', {
      hint: 'Choose an encrypted room. If this one was encrypted before, ask its administrator what happened.',
    })
  }
  if (container.permissions?.create === false) {
    throw new SyncError('permission', 'FORBIDDEN', 'You may not put files into this room', {
      hint: 'Ask the administrator of the room for the permission to create.',
    })
  }
}

/** Lists only the part of the target that the sources could meet. */
function listForUpload(
  api: Api,
  container: RemoteNode,
  roomId: number,
  entries: readonly { kind: string; path: readonly string[] }[],
  signal: AbortSignal,
): Promise<RemoteEntry[]> {
  const wanted = new Set<string>()
  for (const { kind, path } of entries) {
    const remote = kind === 'directory' ? remotePathOf(path) : undefined
    if (remote !== undefined) wanted.add(remoteKey(remote))
  }
  return readRemoteTree(api, container, roomId, { enter: (entry) => wanted.has(remoteKey(entry.path)), signal })
}

interface Place {
  readonly id: number
  readonly roomId: number
}

/** Where to put something; throws what became of its folder. That was tried already, so it says nothing new about the server. */
function placeOf(place: Place | SyncError | undefined, shown: string): Place {
  if (place === undefined) throw new Error(`no folder for ${shown}`)
  if (!(place instanceof SyncError)) return place
  throw new SyncError(place.class, place.code, `The folder for it could not be made: ${place.message}`, {
    ...(place.hint === undefined ? {} : { hint: place.hint }),
    cause: place,
  })
}

/** Makes the missing folders, parents first; returns where every folder is. */
async function makeFolders(
  context: RunContext,
  container: RemoteNode,
  roomId: number,
  missing: readonly string[],
  remote: readonly RemoteEntry[],
  steps: readonly UploadStep[],
  tally: Tally,
  signal: AbortSignal,
): Promise<Map<string, Place | SyncError>> {
  let base = container
  for (const name of missing) base = await ensureFolder(context.api, base.id, escapeName(name), signal)
  const places = new Map<string, Place | SyncError>([['', { id: base.id, roomId }]])
  for (const { node, path, roomId: room } of remote) {
    if (node.type !== 'file') places.set(remoteKey(path), { id: node.id, roomId: room })
  }
  const folders = steps.filter((step): step is UploadStepOf<'make-folder'> => step.do === 'make-folder')
  const depths = [...new Set(folders.map((step) => step.path.length))].sort((a, b) => a - b)
  for (const depth of depths) {
    const level = folders.filter((step) => step.path.length === depth)
    const levelTally = createTally()
    await runEntries(
      level,
      DEFAULT_JOBS,
      levelTally,
      async (step, stop) => {
        const parent = places.get(remoteKey(step.path.slice(0, -1)))
        const above = placeOf(parent, step.shown)
        try {
          const node = await ensureFolder(context.api, above.id, step.path.at(-1)!, stop)
          places.set(remoteKey(step.path), { id: node.id, roomId: node.type === 'room' ? node.id : above.roomId })
        } catch (error) {
          places.set(remoteKey(step.path), toSyncError(error))
          throw error
        }
        return 0
      },
      { signal, onFailure: ({ path, error }) => report(context, path, error) },
    )
    for (const failure of levelTally.failed) tally.failed.push(failure)
    if (levelTally.stoppedBy !== undefined) throw levelTally.stoppedBy
  }
  return places
}

/** Bound to a run: uploads one planned file; `undefined` when a comparison shows that it is there already. */
function createUploader(
  context: RunContext,
  options: UploadOptions,
  {
    direct,
    wrapFor,
    places,
    journal,
    slabs,
    thread,
  }: {
    direct: boolean
    wrapFor: PublicKey | undefined
    places: ReadonlyMap<string, Place | SyncError>
    journal: UploadJournal | undefined
    slabs: SlabPool
    thread: EncryptionThread | undefined
  },
) {
  const partSize = options.partSize ?? DEFAULT_PART_SIZE
  const transfer: UploadContext = {
    api: context.api,
    clock: context.clock,
    direct,
    slabs,
    thread,
    partSize,
    window: WINDOW,
    resume: journal && { journal, unwrap: context.keyring.unwrap },
    onEvent: context.onEvent,
  }
  return async (step: UploadStepOf<'upload'>, signal: AbortSignal) => {
    const place = placeOf(places.get(remoteKey(step.path.slice(0, -1))), step.shown)
    const { replaces, entry, compareWith, refusal } = step
    if (compareWith !== undefined && (await isSameContent(context, compareWith, entry.source, step.shown, signal))) {
      return undefined
    }
    if (refusal !== undefined) throw refusal
    const done = await uploadFile(
      transfer,
      {
        source: entry.source,
        shown: step.shown,
        parentId: place.id,
        // The listed name, so that exactly the listed file is replaced.
        name: replaces?.name ?? step.path.at(-1)!,
        ...(wrapFor === undefined ? {} : { wrapFor }),
        ...(replaces === undefined ? {} : { replaces }),
      },
      signal,
    )
    return { ...done, roomId: place.roomId }
  }
}
