/** ls, tree, find, du, stat, about: looking at what is at the server. @module */
import type { Client, FindOptions, RemoteEntry } from '../../client/index.ts'
import { systemClock } from '../../environment.ts'
import { SyncError, toSyncError } from '../../errors.ts'
import { withClient } from '../connect.ts'
import { type Context, integerOption, measured, text } from '../context.ts'
import { display, plural, showBytes } from '../display.ts'
import { describe, longLine, shownName, sizeText } from '../entry-text.ts'
import { parseDuration, parseSize } from '../settings.ts'

const timeOf = ({ timestampModification, updatedAt }: RemoteEntry) => timestampModification ?? updatedAt ?? 0

/** Largest and newest first, as `ls -S` and `ls -t` have it. */
const ORDERS: Readonly<Record<string, (a: RemoteEntry, b: RemoteEntry) => number>> = {
  size: (a, b) => (b.size ?? 0) - (a.size ?? 0),
  time: (a, b) => timeOf(b) - timeOf(a),
  name: (a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0),
}

/** Sorted as was asked for; as the server has it otherwise, one after the other. */
async function* inOrder({ options }: Context, entries: AsyncIterable<RemoteEntry>): AsyncGenerator<RemoteEntry> {
  const order = ORDERS[text(options, 'sort') ?? (options.reverse === true ? 'name' : '')]
  if (order === undefined) {
    yield* entries
    return
  }
  const all: RemoteEntry[] = []
  for await (const entry of entries) all.push(entry)
  all.sort((a, b) => order(a, b) || ORDERS.name!(a, b))
  yield* options.reverse === true ? all.reverse() : all
}

/** Lists one place; `isTitled` puts its path above. */
async function listOne(context: Context, client: Client, path: string, isTitled: boolean): Promise<void> {
  const { options, output, signal } = context
  const isDeep = options.recursive === true
  const ahead = [path]
  for (let place = ahead.pop(), isFirst = true; place !== undefined; place = ahead.pop(), isFirst = false) {
    if ((isTitled || isDeep) && !output.json) output.result(`${isFirst ? '' : '\n'}${display(place)}:`, {})
    const inside: string[] = []
    for await (const entry of inOrder(context, client.list(place, { signal }))) {
      const name = shownName(entry.name, entry)
      output.result(options.long === true ? longLine(entry, name, options.human === true) : name, describe(entry))
      if (isDeep && entry.type !== 'file') inside.push(entry.path)
    }
    for (const next of inside.reverse()) ahead.push(next)
  }
}

export async function ls(context: Context, given: readonly string[] = []): Promise<void> {
  const { options, output, signal } = context
  await withClient(context, async (client) => {
    const paths = await client.glob(given.length === 0 ? ['/'] : given, { signal })
    if (paths.length === 1) return listOne(context, client, paths[0]!, false)
    // As in a shell: files first, then what is in folders.
    const folders: string[] = []
    const files: RemoteEntry[] = []
    for (const path of paths) {
      const entry = path === '/' ? undefined : await client.stat(path, { signal })
      if (entry?.type === 'file') files.push(entry)
      else folders.push(path)
    }
    async function* each() {
      yield* files
    }
    for await (const file of inOrder(context, each())) {
      const name = display(file.path)
      output.result(options.long === true ? longLine(file, name, options.human === true) : name, describe(file))
    }
    for (const [index, path] of folders.entries()) {
      if (!output.json && (index > 0 || files.length > 0)) output.result('', {})
      await listOne(context, client, path, true)
    }
  })
}

export async function tree(context: Context, path = '/'): Promise<void> {
  const { options, output, signal } = context
  const depth = integerOption(options, 'depth', { min: 1, max: 1_000 }) ?? Number.POSITIVE_INFINITY
  const counts = { folders: 0, files: 0, bytes: 0 }
  await withClient(context, async (client) => {
    async function below(place: string, prefix: string, level: number): Promise<void> {
      const children: RemoteEntry[] = []
      for await (const entry of client.list(place, { signal })) {
        if (entry.type === 'file') {
          counts.files++
          counts.bytes += entry.size ?? 0
        } else counts.folders++
        if (entry.type !== 'file' || options.dirsOnly !== true) children.push(entry)
      }
      for (const [index, entry] of children.entries()) {
        const isLast = index === children.length - 1
        const name = shownName(entry.name, entry)
        const size = options.human === true && entry.type === 'file' ? `  ${sizeText(entry.size ?? 0, true)}` : ''
        output.result(`${prefix}${isLast ? '└── ' : '├── '}${name}${size}`, { ...describe(entry), depth: level })
        if (entry.type !== 'file' && level < depth)
          await below(entry.path, `${prefix}${isLast ? '    ' : '│   '}`, level + 1)
      }
    }
    if (path !== '/') {
      const top = await client.stat(path, { signal })
      if (top.type === 'file') throw new SyncError('usage', 'NOT_A_DIRECTORY', `Neither a room nor a folder: ${path}`)
    }
    if (!output.json) output.result(display(path), {})
    await below(path, '', 1)
  })
  output.info(`${plural(counts.folders, 'folder')}, ${plural(counts.files, 'file')}, ${showBytes(counts.bytes)}`)
}

/** A time: so long ago (`7d`), or a date (`2026-01-31`, with or without a time). Milliseconds since the epoch. */
function parseWhen(value: string): number | undefined {
  const ago = parseDuration(value)
  if (ago !== undefined) return systemClock.now() - ago
  if (!/^\d{4}-\d\d-\d\d([T ]|$)/.test(value)) return undefined
  const at = Date.parse(value)
  return Number.isNaN(at) ? undefined : at
}

const KINDS: Readonly<Record<string, RemoteEntry['type']>> = { f: 'file', d: 'folder', r: 'room' }

export async function find(context: Context, first: string, second?: string): Promise<void> {
  const { options, output, signal } = context
  // No name has a slash in it, so either order is clear.
  const [name, path] = first.startsWith('/') ? [second ?? '*', first] : [first, second ?? '/']
  if (name.includes('/')) throw new SyncError('usage', 'OPTION_INVALID', 'Name one place to look in, and one name')
  const type = text(options, 'type')
  const how: FindOptions = {
    type: type === undefined ? undefined : (KINDS[type] ?? (type as RemoteEntry['type'])),
    larger: measured(context, 'larger', parseSize, '100M'),
    smaller: measured(context, 'smaller', parseSize, '1K'),
    newer: measured(context, 'newer', parseWhen, '7d or 2026-01-31'),
    older: measured(context, 'older', parseWhen, '7d or 2026-01-31'),
    signal,
  }
  await withClient(context, async (client) => {
    for await (const entry of client.find(path, name, how)) {
      const shown = display(entry.path)
      output.result(options.long === true ? longLine(entry, shown, options.human === true) : shown, describe(entry))
    }
  })
}

/** What rooms and folders take, as the server counts it: what is in the recycle bins is not among it. */
export async function du(context: Context, given: readonly string[] = []): Promise<void> {
  const { options, output, signal } = context
  const depth = integerOption(options, 'depth', { min: 0, max: 1_000 })
  if (depth !== undefined && options.summarize === true) {
    throw new SyncError('usage', 'OPTION_INVALID', '--summarize is --depth 0: give one of them')
  }
  const deepest = options.summarize === true ? 0 : (depth ?? Number.POSITIVE_INFINITY)
  const tell = (path: string, bytes: number, entry?: RemoteEntry) =>
    output.result(`${sizeText(bytes, options.human === true).padStart(12)}  ${display(path)}`, {
      type: 'usage',
      path,
      kind: entry?.type ?? 'root',
      bytes,
    })
  await withClient(context, async (client) => {
    /** Counts what is below where the server has not. */
    async function sizeOf(path: string, level: number): Promise<number> {
      let bytes = 0
      for await (const entry of client.list(path, { signal })) {
        if (entry.type === 'file') bytes += entry.size ?? 0
        else if (level >= deepest && entry.size !== undefined) bytes += entry.size
        else {
          const inside = await sizeOf(entry.path, level + 1)
          bytes += inside
          if (level < deepest) tell(entry.path, inside, entry)
        }
      }
      return bytes
    }
    for (const path of await client.glob(given.length === 0 ? ['/'] : given, { signal })) {
      const top = path === '/' ? undefined : await client.stat(path, { signal })
      if (top?.type === 'file') tell(path, top.size ?? 0, top)
      else if (deepest === 0 && top?.size !== undefined) tell(path, top.size, top)
      else tell(path, await sizeOf(path, 0), top)
    }
  })
}

export async function stat(context: Context, path: string): Promise<void> {
  const { output, signal } = context
  await withClient(context, async (client) => {
    const { fileKey, ...entry } = await client.stat(path, { fileKey: true, signal })
    const info = {
      ...describe(entry),
      ...(entry.type === 'room' && (entry.quota ?? 0) > 0 ? { quota: entry.quota } : {}),
      ...(fileKey === undefined ? {} : { fileKey }),
    }
    const rows = Object.entries(info).filter(([name, value]) => name !== 'type' && value !== undefined)
    output.result(rows.map(([name, value]) => `${name.padEnd(12)}${display(String(value))}`).join('\n'), info)
  })
}

const spaceText = (used: number, limit: number | undefined) =>
  limit === undefined
    ? `${showBytes(used)} used, no limit`
    : `${showBytes(used)} of ${showBytes(limit)} used, ${showBytes(Math.max(0, limit - used))} free`

/** Who is logged in where, and how much room there is; of a path also what its room may hold. */
export async function about(context: Context, path?: string): Promise<void> {
  const { output, signal } = context
  await withClient(context, async (client) => {
    const [account, server, space] = await Promise.all([
      client.whoami({ signal }),
      client.serverInfo({ signal }),
      client.space({ signal }).catch((thrown) => {
        const error = toSyncError(thrown)
        if (error.class !== 'permission' && error.class !== 'not_found') throw thrown
        return undefined // not everybody may see it
      }),
    ])
    const room = path === undefined ? undefined : await client.stat(path, { signal })
    const quota = (room?.quota ?? 0) > 0 ? room?.quota : undefined
    const rows: [string, string | undefined][] = [
      ['server', server.origin],
      ['version', server.apiVersion],
      ['storage', server.usesObjectStorage ? 'object storage' : 'the server itself'],
      ['account', account.userName],
      ['name', [account.firstName, account.lastName].filter((one) => one).join(' ') || undefined],
      ['email', account.email || undefined],
      ['key pair', account.hasKeyPair ? 'yes' : 'none: sync keys create'],
      ['space', space === undefined ? 'you may not see it' : spaceText(space.used, space.limit)],
      ...(room === undefined
        ? []
        : ([
            [room.type, room.path],
            ['encrypted', room.isEncrypted === true ? 'yes' : 'no'],
            ['holds', spaceText(room.size ?? 0, quota)],
          ] as [string, string][])),
    ]
    output.result(
      rows.flatMap(([name, value]) => (value === undefined ? [] : `${name.padEnd(12)}${display(value)}`)).join('\n'),
      {
        type: 'about',
        server: server.origin,
        apiVersion: server.apiVersion,
        objectStorage: server.usesObjectStorage,
        user: account.userName,
        email: account.email,
        hasKeyPair: account.hasKeyPair,
        space,
        ...(room === undefined ? {} : { place: { ...describe(room), quota } }),
      },
    )
  })
}
