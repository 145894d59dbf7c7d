import type { Api } from '../api/api.ts'
import type { RemoteNode } from '../api/wire.ts'
import { SyncError, toSyncError } from '../errors.ts'
import { escapeName, type Names } from '../local/names.ts'
import { createTally, type RunSummary, runEntries, summarize, type Tally } from './outcome.ts'
import { planUpload, remotePathOf, type UploadStep } from './plan.ts'
import { isConflict, requireSamePlan, transferLines } from './plan-file.ts'
import { ensureFolder, requireContainer } from './remote-path.ts'
import {
  admitTarget,
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
import { openUploader, type Uploader } from './uploader.ts'

type UploadStepOf<K extends UploadStep['do']> = Extract<UploadStep, { do: K }>

/**
 * Uploads files and directories into a room or folder; makes missing folders; skips what is there with equal content; never
 * deletes.
 *
 * @returns the summary, also when something stopped the run (`stoppedBy`).
 * @throws {SyncError} for what is wrong before anything is transferred: sources, target, encryption, key pair, permission, a
 * plan that does not fit any more.
 */
export async function runUpload(
  context: RunContext,
  sources: readonly string[],
  target: string,
  options: UploadOptions = {},
): Promise<RunSummary> {
  const { api } = context
  const signal = options.signal ?? never
  memoryOf(options)
  context.onEvent?.({ type: 'phase', text: 'Looking at both sides' })
  const { container, roomId, missing } = await requireContainer(api, target, signal)
  await admitTarget(context, container, missing, target, options)
  checkTarget(container)
  const local = await readLocalTree(sources, { contents: options.contents ?? false, signal })
  const remote =
    missing.length > 0 ? [] : await listForUpload(api, container, roomId, local.entries, options.names, signal)
  const steps = planUpload(local.entries, new Map(remote.map((entry) => [remoteKey(entry.path), entry])), {
    checksum: options.checksum ?? false,
    names: options.names,
    ...(options.onConflict === undefined ? {} : { onConflict: options.onConflict }),
  })

  const lines = transferLines(steps)
  if (options.planned !== undefined) requireSamePlan(options.planned, lines)

  const tally = createTally()
  const uploads = steps.filter((step): step is UploadStepOf<'upload'> => step.do === 'upload')
  tally.files = local.entries.filter((entry) => entry.kind === 'file').length
  tally.skipped = steps.filter((step) => step.do === 'skip').length
  for (const failure of local.failures) {
    tally.failed.push(failure)
    report(context, failure.path, failure.error)
  }
  recordFailures(options.dryRun ? steps.filter((step) => !isConflict(step)) : steps, tally, context)
  if (options.dryRun) return { ...summarize(tally, local.ignored), steps: lines }
  const uploader = await openUploader(context, {
    signal,
    isEncrypted: container.isEncrypted === true,
    files: uploads.map(({ entry }) => entry),
    partSize: options.partSize,
    journal: options.journal,
    onRefused: ({ member, error }) => tally.pending.push({ what: 'member', name: member, error }),
    onInconsistent: (failure) => tally.failed.push(failure),
    ...(options.memory === undefined ? {} : { memory: options.memory }),
  })
  try {
    const bytes = uploads.reduce((sum, step) => sum + step.entry.size, 0)
    context.onEvent?.({ type: 'planned', files: uploads.length, bytes, skipped: tally.skipped })
    await uploader.retireOthers(new Set(uploads.map(({ entry }) => entry.source)))
    await uploader.ready()
    const places = await makeFolders(context, container, roomId, missing, remote, steps, tally, signal)
    const onFailure = (failure: { path: string; error: SyncError }) => report(context, failure.path, failure.error)
    const work = (step: UploadStepOf<'upload'>, stop: AbortSignal) => send(context, uploader, places, step, stop)
    await runEntries(uploads, options.jobs ?? DEFAULT_JOBS, tally, work, { signal, onFailure, onBusy: context.onBusy })
    if (tally.stoppedBy === undefined) await uploader.handOut(roomId)
  } catch (error) {
    tally.stoppedBy ??= toSyncError(signal.aborted ? signal.reason : error)
  }
  await uploader.close().catch((error) => {
    tally.stoppedBy ??= toSyncError(error)
  })
  return summarize(tally, local.ignored)
}

function checkTarget(container: RemoteNode): void {
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
  names: Names | undefined,
  signal: AbortSignal,
): Promise<RemoteEntry[]> {
  const wanted = new Set<string>()
  for (const { kind, path } of entries) {
    const remote = kind === 'directory' ? remotePathOf(path, names) : undefined
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

/** Uploads one planned file; `undefined` when a comparison shows that it is there already. */
async function send(
  context: RunContext,
  uploader: Uploader,
  places: ReadonlyMap<string, Place | SyncError>,
  { replaces, entry, compareWith, refusal, path, shown }: UploadStepOf<'upload'>,
  signal: AbortSignal,
): Promise<number | undefined> {
  const place = placeOf(places.get(remoteKey(path.slice(0, -1))), shown)
  if (compareWith !== undefined && (await isSameContent(context, compareWith, entry.source, shown, signal))) {
    return undefined
  }
  if (refusal !== undefined) throw refusal
  // The listed name, so that exactly the listed file is replaced.
  const name = replaces?.name ?? path.at(-1)!
  const to = { parentId: place.id, roomId: place.roomId, name, replaces }
  const { bytes } = await uploader.send({ source: entry.source, shown, ...to }, signal)
  return bytes
}
