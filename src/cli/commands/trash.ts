/** trash list, restore, empty; versions list, restore: what was deleted or replaced at the server. @module */
import type { Client, DeletedVersion } from '../../client/index.ts'
import { SyncError } from '../../errors.ts'
import { requireConfirmed } from '../agree.ts'
import { withClient } from '../connect.ts'
import { type Context, text } from '../context.ts'
import { display, isoTime, plural } from '../display.ts'
import { sizeText } from '../entry-text.ts'

const timeOf = (ms: number | undefined) => (ms === undefined ? undefined : isoTime(ms))

async function* roomsIn(client: Client, path: string, signal: AbortSignal): AsyncGenerator<string> {
  for await (const { path: room, type, cntRooms = 0 } of client.list(path, { signal })) {
    if (type !== 'room') continue
    yield room
    if (cntRooms > 0) yield* roomsIn(client, room, signal)
  }
}

/** What is in the bin of a room; of all rooms, where none is named, as far as they may be seen. */
async function* deletedIn(client: Client, path: string | undefined, { output, signal }: Context) {
  if (path !== undefined) return yield* client.trash.list(path, { signal })
  for await (const room of roomsIn(client, '/', signal)) {
    try {
      yield* client.trash.list(room, { signal })
    } catch (error) {
      if (!(error instanceof SyncError) || error.code !== 'FORBIDDEN') throw error
      output.warn(`The recycle bin of ${room} may not be seen`)
    }
  }
}

export async function list(context: Context, path?: string): Promise<void> {
  const { output } = context
  await withClient(context, async (client) => {
    let count = 0
    for await (const one of deletedIn(client, path, context)) {
      count++
      const place = `${one.parentPath}${one.name}`
      const shown = display(place) + (one.type === 'file' ? '' : '/')
      const more = one.cntVersions > 1 ? `  (${one.cntVersions} versions)` : ''
      output.result(`${isoTime(one.lastDeletedAt)}  ${shown}${more}`, {
        type: 'deleted',
        kind: one.type,
        path: place,
        versions: one.cntVersions,
        id: one.lastDeletedNodeId,
        deletedAt: timeOf(one.lastDeletedAt),
        firstDeletedAt: timeOf(one.firstDeletedAt),
      })
    }
    if (count === 0) output.info(`The recycle bin has nothing${path === undefined ? '' : ' from there'}.`)
  })
}

/** What was removed last under a path, whatever it was. */
async function newest(client: Client, path: string, signal: AbortSignal): Promise<DeletedVersion> {
  const found: DeletedVersion[] = []
  for (const type of ['file', 'folder'] as const) {
    for await (const version of client.versions.list(path, { type, signal })) {
      found.push(version)
      break
    }
  }
  const [last] = found.sort((a, b) => (b.deletedAt ?? 0) - (a.deletedAt ?? 0))
  if (last !== undefined) return last
  throw new SyncError('not_found', 'NOT_FOUND', `There is no ${path} in the recycle bin of its room`, {
    hint: 'See what is in it: sync trash list /ROOM',
  })
}

function conflictOf({ settings }: Context): 'fail' | 'overwrite' {
  const action = settings.text('on-conflict') ?? 'fail'
  if (action === 'fail' || action === 'overwrite') return action
  throw new SyncError('usage', 'OPTION_INVALID', `--on-conflict ${action} means nothing here: use fail or overwrite`)
}

/** Puts things back where they were, or into another place of their room, after all of them have been found. */
export async function restore(context: Context, paths: readonly string[]): Promise<void> {
  const { options, output, signal } = context
  const into = text(options, 'into')
  const onConflict = conflictOf(context)
  await withClient(context, async (client) => {
    const found: (DeletedVersion & { readonly from: string })[] = []
    for (const from of paths) found.push({ ...(await newest(client, from, signal)), from })
    for (const { id, from } of found) {
      await client.trash.restore([id], { into, onConflict, keepShareLinks: options.keepShareLinks === true, signal })
      const where = into === undefined ? '' : ` into ${display(into)}`
      output.done(`Restored ${display(from)}${where}`, { type: 'restored', path: from, id, into })
    }
  })
}

/** Removes everything in the bin of a room for good. */
export async function empty(context: Context, room: string): Promise<void> {
  const { output, signal } = context
  await withClient(context, async (client) => {
    let [count, versions] = [0, 0]
    const { type } = await client.stat(room, { signal })
    if (type !== 'room') throw new SyncError('usage', 'NOT_A_ROOM', `Not a room: ${room}`)
    for await (const { cntVersions } of client.trash.list(room, { signal })) {
      count++
      versions += cntVersions
    }
    if (count > 0) {
      const what = `${plural(versions, 'version')} of ${count === 1 ? 'one file or folder' : `${count} files and folders`}`
      await requireConfirmed(context, `Remove ${what} for good?`)
      await client.trash.empty(room, { signal })
    }
    output.done(count === 0 ? 'The recycle bin was empty' : `Removed ${plural(versions, 'version')} for good`, {
      type: 'emptied',
      path: room,
      versions,
    })
  })
}

/** The current version and the older ones, newest first. */
export async function listVersions(context: Context, path: string): Promise<void> {
  const { options, output, signal } = context
  const isHuman = options.human === true
  await withClient(context, async (client) => {
    const now = await client.stat(path, { signal }).catch((error) => {
      if (error instanceof SyncError && error.code === 'REMOTE_MISSING') return undefined
      throw error
    })
    if (now !== undefined && now.type !== 'file') throw new SyncError('usage', 'NOT_A_FILE', `Not a file: ${path}`)
    const line = (id: string, modified: number | undefined, size: number | undefined, what: string) =>
      `${id.padStart(10)}  ${(timeOf(modified) ?? '').padEnd(24)}  ${sizeText(size ?? 0, isHuman).padStart(12)}  ${what}`
    const tell = (
      version: Pick<DeletedVersion, 'id' | 'size' | 'timestampModification' | 'updatedAt' | 'deletedAt'>,
      isCurrent: boolean,
    ) => {
      const { id, size, timestampModification, updatedAt, deletedAt } = version
      const modified = timestampModification ?? updatedAt
      const what = isCurrent ? 'current' : `until ${timeOf(deletedAt) ?? 'some time'}`
      output.result(line(String(id), modified, size, what), {
        type: 'version',
        id,
        path,
        size,
        current: isCurrent,
        modifiedAt: timeOf(modified),
        deletedAt: timeOf(deletedAt),
      })
    }
    let count = now === undefined ? 0 : 1
    if (now !== undefined) tell(now, true)
    for await (const version of client.versions.list(path, { signal })) {
      count++
      tell(version, false)
    }
    if (count === 0) {
      throw new SyncError('not_found', 'REMOTE_MISSING', `There is no ${path} on the server, nor was there`, {
        hint: 'List what is there: sync ls /',
      })
    }
  })
}

/** Makes an older version the current one: the last one that was replaced, or the one of an id. */
export async function restoreVersion(context: Context, path: string, id?: string): Promise<void> {
  const { options, output, signal } = context
  if (id !== undefined && !/^\d{1,15}$/.test(id)) {
    throw new SyncError('usage', 'OPTION_INVALID', 'A version is named by its number', {
      hint: 'See them: sync versions list FILE',
    })
  }
  await withClient(context, async (client) => {
    let wanted = id === undefined ? undefined : Number(id)
    if (wanted === undefined) {
      for await (const version of client.versions.list(path, { signal })) {
        wanted = version.id
        break
      }
    }
    if (wanted === undefined) {
      throw new SyncError('not_found', 'NOT_FOUND', `There is no older version of ${path} in the recycle bin`)
    }
    await client.versions.restore(path, wanted, { keepShareLinks: options.keepShareLinks === true, signal })
    output.done(`Restored version ${wanted} of ${display(path)}`, { type: 'restored', path, id: wanted })
    output.info('The one that was current is in the recycle bin now.')
  })
}
