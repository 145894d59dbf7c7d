/**
 * Rehearsing a rescue: files taken by chance are fetched and decrypted by a rescue key alone, up to their tags, and nothing of them is
 * kept. What comes of it is a report with a date.
 * @module
 */
import { type FileKey, SyncError, type UserKeyPair, unwrapFileKey, type WrappedFileKey } from '../../crypto/index.ts'
import { getFileKey } from '../api/file-keys.ts'
import { fileAt } from '../api/nodes.ts'
import { getRescueFileKey } from '../api/rescue-keys.ts'
import type { RemoteNode } from '../api/wire.ts'
import { toSyncError } from '../errors.ts'
import { never } from '../sync/run.ts'
import { downloadContent, sizeOf } from '../transfer/content.ts'
import type { Abortable, ClientContext } from './context.ts'
import { openRescue, type RescuePlaces } from './rescue.ts'
import type { RescueSecret } from './rescue-papers.ts'
import { openRoomRescue, type RescuePassword } from './rescue-rooms.ts'

/** What is rehearsed. */
export interface RescueDrillOptions extends Abortable, RescuePlaces {
  /** How many files; default 20. Fewer where there are no more. */
  readonly files?: number | undefined
}

/** What a drill has found, as it is kept in a file. */
export interface RescueDrillReport {
  readonly format: 'sealsync-rescue-drill'
  readonly version: 1
  /** ISO 8601. */
  readonly at: string
  readonly server: string
  /** Of the account, or the room, whose rescue key it was. */
  readonly user?: string
  readonly room?: string
  /** Id of an account's rescue key; of a room's, its fingerprint. */
  readonly key: string
  /** Where the container was. */
  readonly container?: string
  /** Files that there are; not all of them need to be encrypted. */
  readonly files: number
  readonly sampled: number
  readonly bytes: number
  /** All that were tried have opened, and there was at least one. */
  readonly isRight: boolean
  readonly failed: readonly { readonly path: string; readonly code: string; readonly message: string }[]
}

/** What a drill has found, with the errors themselves. */
export interface RescueDrill {
  readonly report: RescueDrillReport
  readonly failed: readonly { readonly path: string; readonly error: SyncError }[]
}

const FILES = 20
/** Places looked at for each file that is tried: others may be plain. */
const TRIES = 8

/** Encrypted files, each taken by chance from all that there are. */
async function choose(
  { api, random }: ClientContext,
  below: number,
  count: number,
  signal: AbortSignal,
): Promise<{ total: number; chosen: readonly RemoteNode[] }> {
  const { total } = await fileAt(api, below, 0, signal)
  const seen = new Set<number>()
  const chosen = new Map<number, RemoteNode>()
  // Where there are few, each of them is looked at.
  const order = total <= count * TRIES ? shuffled(total, random) : undefined
  for (let tried = 0; tried < Math.min(total, count * TRIES) && chosen.size < count; tried++) {
    let offset = order?.[tried] ?? Math.floor(random.next() * total)
    while (order === undefined && seen.has(offset)) offset = (offset + 1) % total
    seen.add(offset)
    const { file } = await fileAt(api, below, offset, signal)
    if (file?.type === 'file' && file.isEncrypted === true) chosen.set(file.id, file)
  }
  return { total, chosen: [...chosen.values()] }
}

function shuffled(count: number, random: ClientContext['random']): number[] {
  const all = Array.from({ length: count }, (_, at) => at)
  for (let at = 0; at < count; at++) {
    const other = at + Math.floor(random.next() * (count - at))
    ;[all[at], all[other]] = [all[other]!, all[at]!]
  }
  return all
}

const pathOf = ({ parentPath = '/', name }: RemoteNode) => `${parentPath}${name}`

async function rehearse(
  context: ClientContext,
  below: number,
  count: number,
  open: (node: RemoteNode) => Promise<FileKey>,
  signal: AbortSignal,
) {
  const { total, chosen } = await choose(context, below, count, signal)
  const failed: { path: string; error: SyncError }[] = []
  let bytes = 0
  for (const node of chosen) {
    const path = pathOf(node)
    let fileKey: FileKey | undefined
    try {
      const size = sizeOf(node)
      fileKey = await open(node)
      context.onEvent?.({ type: 'file-started', path, bytes: size })
      await downloadContent(context, node, fileKey, { write: async () => {} }, path, signal)
      context.onEvent?.({ type: 'file-done', path, bytes: size })
      bytes += size
    } catch (thrown) {
      if (signal.aborted) throw thrown
      const error = toSyncError(thrown)
      failed.push({ path, error })
      context.onEvent?.({ type: 'file-failed', path, code: error.code, message: error.message })
    } finally {
      fileKey?.wipe()
    }
  }
  return { files: total, sampled: chosen.length, bytes, failed }
}

function finish(
  { api, clock }: ClientContext,
  whose: Pick<RescueDrillReport, 'user' | 'room' | 'key' | 'container'>,
  { failed, ...counts }: Awaited<ReturnType<typeof rehearse>>,
): RescueDrill {
  const report: RescueDrillReport = {
    format: 'sealsync-rescue-drill',
    version: 1,
    at: new Date(clock.now()).toISOString(),
    server: api.origin,
    ...whose,
    ...counts,
    isRight: failed.length === 0 && counts.sampled > 0,
    failed: failed.map(({ path, error: { code, message } }) => ({ path, code, message })),
  }
  return { report, failed }
}

const countOf = ({ files = FILES }: RescueDrillOptions) => {
  if (Number.isSafeInteger(files) && files > 0 && files <= 10_000) return files
  throw new RangeError('files is a number from 1 to 10,000')
}

const noPair = (version: string) =>
  new SyncError('key', 'NO_KEY_PAIR', `The rescue container has no key pair of version ${version}`, {
    hint: 'Make a new rescue key: sync keys rescue create',
  })

/**
 * Opens the account's key pairs with what is on paper, and files with them. The encryption password is not asked for.
 *
 * @throws {SyncError} as `openRescue`. What is wrong with single files is in the report.
 */
export async function drill(
  context: ClientContext,
  secret: RescueSecret,
  options: RescueDrillOptions,
): Promise<RescueDrill> {
  const { signal = never } = options
  const count = countOf(options)
  const { keyId, place, container, pairs } = await openRescue(context, secret, options)
  try {
    const open = async (node: RemoteNode) => {
      const wrapped = await getFileKey(context.api, node.id, signal)
      return unwrapFileKey(wrapped, pairFor(wrapped, pairs))
    }
    const found = await rehearse(context, 0, count, open, signal)
    return finish(context, { user: container.user, key: keyId, container: place.path }, found)
  } finally {
    for (const pair of pairs) pair.wipe()
  }
}

function pairFor({ version }: WrappedFileKey, pairs: readonly UserKeyPair[]): UserKeyPair {
  const wanted = version === 'A' ? 'A' : 'RSA-4096'
  const pair = pairs.find((one) => one.version === wanted)
  if (pair === undefined) throw noPair(wanted)
  return pair
}

/** As `drill`, with the rescue key of a room. */
export async function drillRoom(
  context: ClientContext,
  path: string,
  given: RescuePassword,
  options: RescueDrillOptions,
): Promise<RescueDrill> {
  const { signal = never } = options
  const count = countOf(options)
  const { roomId, pair } = await openRoomRescue(context, path, given, signal)
  try {
    const open = async (node: RemoteNode) =>
      unwrapFileKey(await getRescueFileKey(context.api, node.id, 'room', signal), pair)
    const found = await rehearse(context, roomId, count, open, signal)
    return finish(context, { room: path, key: pair.publicKey.fingerprint }, found)
  } finally {
    pair.wipe()
  }
}
