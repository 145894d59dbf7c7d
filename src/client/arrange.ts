/** Moving, copying and renaming at the server; in another encrypted room the members get the keys. @module */
import { copyNodes, listChildren, moveNodes, updateFile, updateFolder } from '../api/nodes.ts'
import type { RemoteNode } from '../api/wire.ts'
import { cancelled, SyncError, toSyncError } from '../errors.ts'
import { escapeName, MAX_REMOTE_NAME, sameNameKey } from '../local/names.ts'
import { parseRemotePath, resolveRemote, roomOf } from '../sync/remote-path.ts'
import { findChild } from '../transfer/complete.ts'
import { distributeFileKeys, type RefusedMember } from '../transfer/distribute.ts'
import { shareKeysOf } from '../transfer/share-keys.ts'
import { keepingLinks } from '../transfer/share-links.ts'
import type { Abortable, ClientContext } from './context.ts'
import { modifiedAt, pathOf, type RemoteEntry, requireEntry, stat } from './entries.ts'

/** How something is moved or copied. */
export interface MoveOptions extends Abortable {
  /**
   * What to do where the name is taken. `overwrite` and `newer` (if what comes was modified later, else as `skip`): by a file only, which
   * goes to the recycle bin. `rename`: another name, with a number. Default `fail`.
   */
  readonly onConflict?: 'fail' | 'overwrite' | 'newer' | 'skip' | 'rename' | undefined
  /** Links of files that make way lead to what takes their place then. Default false: they end. */
  readonly keepShareLinks?: boolean | undefined
  /** Told of each when it is done. */
  readonly onDone?: ((done: Arranged) => void) | undefined
}

/** What became of one source. */
export interface Arranged {
  /** The path that was given. */
  readonly from: string
  /** It, where it is now; of what was skipped what is there. */
  readonly entry: RemoteEntry
  readonly isSkipped: boolean
}

/** What became of all sources, and of the keys of encrypted files in another room. */
export interface Arrangement {
  readonly done: readonly Arranged[]
  /** Members who got no keys, and why. */
  readonly refused: readonly RefusedMember[]
  /** Keys that could not be handed out: of a file that does not open, for instance for want of the password. `keys.distribute` does that later. */
  readonly keysSkipped: number
  /** Why handing out the keys was not finished; as before. */
  readonly keysPending?: unknown
}

const roomStays = (path: string) =>
  new SyncError('usage', 'IS_CONTAINER', `A room cannot be moved or copied: ${path}`, {
    hint: 'A room gets another name with: sync room rename',
  })

const exists = (path: string, hint = 'See --on-conflict.') =>
  new SyncError('conflict', 'EXISTS', `It exists already: ${path}`, { hint })

interface Goal {
  readonly parent: RemoteNode
  readonly roomId: number
  /** Names of the way to the parent. */
  readonly above: readonly string[]
  /** Absent: each by its own name. */
  readonly name?: string
}

/** Where things go: into a room or folder that is there, under their own names; one of them also to a path that is not. */
async function goalOf({ api }: ClientContext, target: string, count: number, signal?: AbortSignal): Promise<Goal> {
  const { found, missing } = await resolveRemote(api, target, signal)
  const last = found.at(-1)
  const names = parseRemotePath(target)
  if (missing.length === 0 && last !== undefined && last.type !== 'file') {
    return { parent: last, roomId: roomOf(found), above: names }
  }
  const isInto = count > 1 || target.endsWith('/')
  if (isInto && last?.type === 'file') {
    throw new SyncError('usage', 'TARGET_IS_FILE', `The remote target is a file: ${target}`)
  }
  // A file of that name is there, or nothing is: the place above has to be.
  const parent = missing.length === 0 ? found.at(-2) : missing.length === 1 && !isInto ? last : undefined
  if (parent === undefined || parent.type === 'file') {
    const what = isInto ? target : `The folder above ${target}`
    throw new SyncError('not_found', 'REMOTE_MISSING', `${what} does not exist`, {
      hint: 'Make it first: sync mkdir --parents',
    })
  }
  const name = missing.length === 0 ? last!.name : escapeName(names.at(-1)!)
  return { parent, roomId: roomOf(found), above: names.slice(0, -1), name }
}

/** A name that nothing has yet: `report (1).pdf`. */
async function freeName({ api }: ClientContext, parentId: number, name: string, signal?: AbortSignal): Promise<string> {
  const taken = new Set<string>()
  for await (const node of listChildren(api, parentId, signal)) taken.add(sameNameKey(node.name))
  const dot = name.lastIndexOf('.')
  const [stem, end] = dot > 0 ? [name.slice(0, dot), name.slice(dot)] : [name, '']
  for (let n = 1; ; n++) {
    const behind = n === 1 ? end : ` (${n - 1})${end}`
    const free = `${stem.slice(0, Math.max(1, MAX_REMOTE_NAME - behind.length))}${behind}`
    if (!taken.has(sameNameKey(free))) return free
  }
}

type Source = { readonly from: string; readonly entry: RemoteEntry; readonly roomId: number }

/** One of the sources; `send` with the resolution that the server is told. */
async function arrangeOne(
  context: ClientContext,
  send: typeof moveNodes,
  { from, entry }: Source,
  { parent, above, name: wanted = entry.name }: Goal,
  { onConflict = 'fail', keepShareLinks, signal }: MoveOptions,
): Promise<Arranged> {
  const { api } = context
  const shown = pathOf([...above, wanted])
  const isItself = entry.parentId === parent.id && sameNameKey(entry.name) === sameNameKey(wanted)
  if (isItself && send === moveNodes && entry.name === wanted) return { from, entry, isSkipped: true }
  let name = wanted
  let resolution: 'fail' | 'overwrite' = 'fail'
  if (onConflict === 'rename') name = await freeName(context, parent.id, wanted, signal)
  else if (onConflict !== 'fail') {
    const there = isItself ? entry : await findChild(api, parent.id, wanted, signal)
    const isNewer = there !== undefined && (modifiedAt(entry) ?? 0) > (modifiedAt(there) ?? 0)
    if (there !== undefined && (onConflict === 'skip' || (onConflict === 'newer' && !isNewer))) {
      return { from, entry: { ...there, path: shown }, isSkipped: true }
    }
    // Itself would have to make way for itself.
    if (there !== undefined && isItself && send === copyNodes) throw exists(shown, 'It cannot replace itself.')
    if (there !== undefined && (there.type !== 'file' || entry.type !== 'file')) {
      throw exists(shown, 'Only a file replaces a file. See also --on-conflict rename.')
    }
    resolution = 'overwrite'
  }
  await send(api, parent.id, [{ id: entry.id, name }], resolution, signal, keepShareLinks).catch((error) => {
    throw toSyncError(error).code === 'EXISTS' ? exists(shown) : error
  })
  return { from, entry: await stat(context, pathOf([...above, name]), { signal }), isSkipped: false }
}

async function arrange(
  context: ClientContext,
  send: typeof moveNodes,
  sources: readonly string[],
  target: string,
  options: MoveOptions,
): Promise<Arrangement> {
  const { api, keyring, onEvent } = context
  const { signal } = options
  const all: Source[] = []
  for (const from of sources) {
    const { entry, roomId } = await requireEntry(context, from, signal)
    if (entry.type === 'room') throw roomStays(from)
    all.push({ from, entry, roomId })
  }
  const goal = await goalOf(context, target, all.length, signal)
  const isEncrypted = goal.parent.isEncrypted === true
  for (const { from, entry } of all) {
    if ((entry.isEncrypted === true) === isEncrypted) continue
    const [one, other] = isEncrypted ? ['is not encrypted', 'is'] : ['is encrypted', 'is not']
    throw new SyncError('conflict', 'ENCRYPTION_DIFFERS', `${from} ${one}, and ${target} ${other}`, {
      hint: 'Download the files and upload them again.',
    })
  }
  const done: Arranged[] = []
  const refused: RefusedMember[] = []
  const onRefused = (one: RefusedMember) => void refused.push(one)
  const links = { api, keyring, keys: shareKeysOf(context), onEvent, onRefused }
  let keysSkipped = 0
  let keysPending: unknown
  try {
    const work = async () => {
      for (const source of all) {
        const one = await arrangeOne(context, send, source, goal, options)
        done.push(one)
        options.onDone?.(one)
      }
    }
    if (options.keepShareLinks === true) await keepingLinks(links, work, signal)
    else await work()
  } finally {
    // Also when one of them failed: those before it are there.
    const isForOthers = all.some(({ roomId }, at) => roomId !== goal.roomId && done[at]?.isSkipped === false)
    if (isEncrypted && isForOthers) {
      const { roomId } = goal
      try {
        keysSkipped = (await distributeFileKeys(api, keyring, { roomId, onEvent, onRefused, signal })).skipped
      } catch (error) {
        keysPending = signal?.aborted ? cancelled(signal) : error
        const { code, message } = toSyncError(keysPending)
        const text = `The keys are not handed out to the members of the room yet: ${message}`
        onEvent?.({ type: 'warning', code, message: text })
      }
    }
  }
  return { done, refused, keysSkipped, ...(keysPending === undefined ? {} : { keysPending }) }
}

/**
 * Moves files and folders into a room or folder that is there; a single one also to a path that is not, under that name. One after the
 * other, after all of them have been looked up; what was done before one fails stays done. In another encrypted room its members get the
 * file keys, as far as they are trusted.
 *
 * @throws {SyncError} `REMOTE_MISSING`, `EXISTS` when a name is taken, `INTO_ITSELF`, `IS_CONTAINER` for a room,
 * `ENCRYPTION_DIFFERS` between encrypted and plain places, `FILE_KEY_MISSING` for a file that this account cannot open.
 */
export const moveAll = (
  context: ClientContext,
  sources: readonly string[],
  target: string,
  options: MoveOptions,
): Promise<Arrangement> => arrange(context, moveNodes, sources, target, options)

/** As `moveAll`, and leaves them where they are, too. */
export const copyAll = (
  context: ClientContext,
  sources: readonly string[],
  target: string,
  options: MoveOptions,
): Promise<Arrangement> => arrange(context, copyNodes, sources, target, options)

const single =
  (send: typeof moveNodes) =>
  async (context: ClientContext, source: string, target: string, options: MoveOptions): Promise<RemoteEntry> =>
    (await arrange(context, send, [source], target, options)).done[0]!.entry

/**
 * As `moveAll`, of one file or folder.
 *
 * @returns it, where it is now. Whether members lack keys of it tells `moveAll`.
 */
export const move = single(moveNodes)

/** As `copyAll`, of one file or folder. */
export const copy = single(copyNodes)

/**
 * Gives a file or folder another name where it is.
 *
 * @param name - Without slashes; letters that the server cannot store are escaped.
 * @throws {SyncError} `EXISTS`, `REMOTE_MISSING`, `PATH_INVALID`, `IS_CONTAINER` for a room.
 */
export async function rename(
  context: ClientContext,
  path: string,
  name: string,
  { signal }: Abortable,
): Promise<RemoteEntry> {
  requireName(name)
  const { entry } = await requireEntry(context, path, signal)
  if (entry.type === 'room') throw roomStays(path)
  const update = entry.type === 'file' ? updateFile : updateFolder
  const node = await update(context.api, entry.id, { name: escapeName(name) }, signal)
  return { ...node, path: pathOf([...parseRemotePath(entry.path).slice(0, -1), node.name]) }
}

/** @throws {SyncError} `PATH_INVALID` for what is no single name. */
export function requireName(name: string): void {
  if (name !== '' && !name.includes('/')) return
  throw new SyncError('usage', 'PATH_INVALID', 'A name has no slash in it')
}
