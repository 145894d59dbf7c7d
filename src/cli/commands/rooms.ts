/** room create, rename, delete, quota, history, members: rooms, and who may use them. @module */
import type { Client, NewMember, Role } from '../../client/index.ts'
import { systemClock } from '../../environment.ts'
import { SyncError } from '../../errors.ts'
import { showFingerprint } from '../../fingerprint.ts'
import { rulesOf as linesOf, readList } from '../../local/text-list.ts'
import { requireConfirmed } from '../agree.ts'
import { withClient } from '../connect.ts'
import { type Context, measured, text } from '../context.ts'
import { type CsvRow, csvLine, parseCsv } from '../csv.ts'
import { display, isoTime, plural, showBytes } from '../display.ts'
import { describe } from '../entry-text.ts'
import { parseDuration, parseSize } from '../settings.ts'

export async function create(context: Context, path: string): Promise<void> {
  const { options, output, signal } = context
  const plain = options.plain === true
  if (text(options, 'rescue') === 'paper') return createWithPaper(context, path)
  for (const flag of ['paper', 'split']) {
    if (options[flag] === undefined) continue
    throw new SyncError('usage', 'OPTION_INVALID', `--${flag} goes with --rescue paper`)
  }
  await withClient(context, async (client) => {
    const rescue = text(options, 'rescue') === 'system' ? 'system' : undefined
    const room = await client.rooms.create(path, { plain, ownMembers: options.ownMembers === true, rescue, signal })
    output.done(`Made the ${plain ? 'plain' : 'encrypted'} room ${display(room.path)}`, describe(room))
    if (rescue === 'system')
      output.info('The rescue key of the system gets file keys once it is trusted: sync keys rescue list')
  })
}

/** An encrypted room with a rescue key of its own. Where the paper goes has been opened before anything is made. */
async function createWithPaper(context: Context, path: string): Promise<void> {
  const { options, output, signal } = context
  const { openPaper, roomPage, sharesOf } = await import('./keys-rescue.ts')
  const shares = sharesOf(context)
  const paper = await openPaper(context)
  try {
    await withClient(context, async (client) => {
      output.info('Making an RSA-4096 key pair…')
      const rescue = await client.rescue.prepareForRoom(shares)
      const how = { plain: options.plain === true, ownMembers: options.ownMembers === true, rescue, signal }
      const createdAt = new Date(systemClock.now()).toISOString()
      const { version, fingerprint } = rescue
      const room = await client.rooms.create(path, how)
      await paper.print(roomPage({ ...rescue, room: room.path, server: client.origin, createdAt }))
      output.done(
        `Made the encrypted room ${display(room.path)}, with a rescue key:\n${showFingerprint(fingerprint)}`,
        {
          ...describe(room),
          rescueKey: { version, fingerprint, shares: shares ?? null, paper: paper.path },
        },
      )
    })
  } finally {
    await paper.discard()
  }
}

export async function rename(context: Context, path: string, name: string): Promise<void> {
  const { output, signal } = context
  await withClient(context, async (client) => {
    const room = await client.rooms.rename(path, name, { signal })
    output.done(`${display(path)} is ${display(room.path)} now`, { ...describe(room), from: path })
  })
}

/** Rooms have no recycle bin: somebody has to say that it is meant. */
export async function remove(context: Context, path: string): Promise<void> {
  const { output, signal } = context
  await withClient(context, async (client) => {
    const room = await client.stat(path, { signal })
    if (room.type !== 'room') throw new SyncError('usage', 'NOT_A_ROOM', `Not a room: ${path}`)
    const held = `${plural(room.cntFiles ?? 0, 'file')}, ${plural(room.cntFolders ?? 0, 'folder')} and ${plural(room.cntRooms ?? 0, 'room')}`
    await requireConfirmed(
      context,
      `Delete the room ${path} for good, with ${held} in it (${showBytes(room.size ?? 0)}), and its recycle bin?`,
    )
    const { id } = await client.rooms.remove(path, { signal })
    output.done(`Deleted the room ${display(path)}`, { type: 'deleted', path, id })
  })
}

/** Shows what a room may hold, or sets it. */
export async function quota(context: Context, path: string, size?: string): Promise<void> {
  const { output, signal } = context
  const bytes = size === undefined ? undefined : size === 'none' ? 0 : parseSize(size)
  if (size !== undefined && bytes === undefined) {
    throw new SyncError('usage', 'OPTION_INVALID', 'A quota is a size such as 10G, or none')
  }
  await withClient(context, async (client) => {
    if (bytes !== undefined) await client.rooms.setQuota(path, bytes, { signal })
    const room = await client.stat(path, { signal })
    if (room.type !== 'room') throw new SyncError('usage', 'NOT_A_ROOM', `Not a room: ${path}`)
    const limit = (room.quota ?? 0) > 0 ? room.quota : undefined
    const shown = limit === undefined ? 'no limit of its own' : `at most ${showBytes(limit)}`
    output.result(`${display(room.path)}: ${shown}, ${showBytes(room.size ?? 0)} used`, {
      type: 'quota',
      path: room.path,
      quota: limit,
      used: room.size ?? 0,
    })
  })
}

/** What was done in a room, newest first. */
export async function history(context: Context, path: string): Promise<void> {
  const { output, options, signal } = context
  const limit = Number(text(options, 'limit') ?? 50)
  if (!Number.isSafeInteger(limit) || limit < 1) {
    throw new SyncError('usage', 'OPTION_INVALID', '--limit takes a number from 1')
  }
  const ago = measured(context, 'since', parseDuration, '7d')
  const since = ago === undefined ? undefined : systemClock.now() - ago
  await withClient(context, async (client) => {
    let left = limit
    for await (const { id, time, userId, userName, message, operationName, status } of client.rooms.history(path, {
      since,
      signal,
    })) {
      const who = userName ?? String(userId)
      output.result(
        `${isoTime(time)}  ${display(who, 40).padEnd(16)}  ${status === 2 ? 'failed: ' : ''}${display(message)}`,
        {
          type: 'event',
          id,
          time: isoTime(time),
          userId,
          user: who,
          operation: operationName,
          failed: status === 2,
          message,
        },
      )
      if (--left === 0) break
    }
    if (left === limit) output.info('Nothing is noted of that room.')
  })
}

const ROLES: readonly Role[] = ['read', 'upload', 'append', 'edit', 'admin']

const isRole = (value: string): value is Role => (ROLES as readonly string[]).includes(value)

/** `anna`, `anna:read`, `group:staff`, `group:staff:admin`. A name with a colon in it is written with its role. */
function parseMember(given: string, fallback: Role): NewMember {
  const isGroup = given.startsWith('group:')
  const rest = isGroup ? given.slice('group:'.length) : given.startsWith('user:') ? given.slice('user:'.length) : given
  const at = rest.lastIndexOf(':')
  const role = at > 0 ? rest.slice(at + 1) : ''
  const member = isRole(role) ? { name: rest.slice(0, at), role } : { name: rest, role: fallback }
  if (member.name === '') throw new SyncError('usage', 'OPTION_INVALID', `This names nobody: ${given}`)
  return { kind: isGroup ? 'group' : 'user', ...member }
}

/** Members as a table: `type,name,role`; further columns are passed over. */
function membersIn(file: string, fallback: Role): NewMember[] {
  const invalid = (line: number, why: string) =>
    new SyncError('usage', 'LIST_INVALID', `${file}, line ${line}: ${why}`, {
      hint: 'The first line is type,name,role; the others are like user,anna,edit',
    })
  const [head, ...rows] = parseCsv(linesOf(readList(file), file).join('\n'), (line, why) => invalid(line, why))
  const column = (name: string) => head?.cells.findIndex((cell) => cell.trim().toLowerCase() === name) ?? -1
  const [kindAt, nameAt, roleAt] = ['type', 'name', 'role'].map(column)
  if (nameAt === -1) throw invalid(1, 'there is no column called name')
  const cell = ({ cells }: CsvRow, at: number | undefined) =>
    at === undefined || at < 0 ? '' : (cells[at] ?? '').trim()
  return rows.map((row) => {
    const [kind, name, role] = [cell(row, kindAt) || 'user', cell(row, nameAt), cell(row, roleAt) || fallback]
    if (kind !== 'user' && kind !== 'group') throw invalid(row.line, `${kind} is neither user nor group`)
    if (name === '') throw invalid(row.line, 'there is no name')
    if (!isRole(role)) throw invalid(row.line, `${role} is none of ${ROLES.join(', ')}`)
    return { kind, name, role }
  })
}

const textsOf = (value: unknown): readonly string[] => (Array.isArray(value) ? (value as string[]) : [])

interface Shown extends NewMember {
  readonly id: number
  readonly hasKeyPair?: boolean
}

async function everybody(client: Client, path: string, signal: AbortSignal): Promise<Shown[]> {
  const all: Shown[] = []
  for await (const { userId: id, name, role, hasKeyPair } of client.rooms.members(path, { signal })) {
    all.push({ kind: 'user', id, name: name ?? String(id), role, hasKeyPair })
  }
  for await (const { groupId: id, name, role } of client.rooms.groups(path, { signal })) {
    all.push({ kind: 'group', id, name, role })
  }
  return all
}

const sameMember = (one: Pick<NewMember, 'kind' | 'name'>) => (other: Pick<NewMember, 'kind' | 'name'>) =>
  one.kind === other.kind && one.name === other.name

export async function members(context: Context, path: string): Promise<void> {
  const { options, output, signal } = context
  const role = options.appendOnly === true ? 'append' : (text(options, 'role') ?? 'edit')
  const fallback = isRole(role) ? role : 'edit'
  const list = text(options, 'import')
  const add = [
    ...(list === undefined ? [] : membersIn(list, fallback)),
    ...textsOf(options.add).map((one) => parseMember(one, fallback)),
  ]
  const remove: Pick<NewMember, 'kind' | 'name'>[] = textsOf(options.remove).map((one) => parseMember(one, fallback))
  const isCsv = options.csv === true
  if (isCsv && output.json) throw new SyncError('usage', 'OPTION_INVALID', '--csv and --json exclude each other')
  if (options.exact === true && list === undefined) {
    throw new SyncError('usage', 'OPTION_INVALID', '--exact says that a list of --import is all there is')
  }
  const both = add.find((one) => remove.some(sameMember(one)))
  if (both !== undefined) {
    throw new SyncError('usage', 'OPTION_INVALID', `${both.name} cannot be added and removed at once`)
  }
  await withClient(context, async (client) => {
    if (options.exact === true) {
      const others = (await everybody(client, path, signal)).filter((one) => !add.some(sameMember(one)))
      const { userName } = await client.whoami({ signal })
      if (others.some(({ kind, name }) => kind === 'user' && name === userName)) {
        throw new SyncError('safety', 'WOULD_LEAVE', `You are not in ${list}, and would not be in the room any more`, {
          hint: 'Put yourself on the list, as admin.',
        })
      }
      for (const one of others) remove.push(one)
    }
    if (add.length + remove.length > 0) {
      const before = add.length > 0 ? await everybody(client, path, signal) : []
      const { isEncrypted } = await client.rooms.changeMembers(path, { add, remove, signal })
      if (isEncrypted && add.some((one) => !before.some(sameMember(one)))) {
        const steps = 'compare their keys (sync keys list) and trust them (sync keys trust), then: sync keys distribute'
        output.info(`To give them the keys of the files that are there, ${steps}`)
      }
    }
    const all = await everybody(client, path, signal)
    if (isCsv) output.result(csvLine(['type', 'name', 'role', 'key pair']), {})
    for (const { kind, id, name, role: one, hasKeyPair } of all) {
      const key = hasKeyPair === undefined ? '' : hasKeyPair ? 'yes' : 'no'
      const shown = `${one.padEnd(6)} ${kind === 'group' ? 'group ' : ''}${display(name, 80)}${key === 'no' ? '  (no key pair)' : ''}`
      output.result(
        isCsv ? csvLine([kind, name, one, key]) : shown,
        kind === 'group'
          ? { type: 'member', groupId: id, group: name, role: one }
          : { type: 'member', userId: id, user: name, role: one, hasKeyPair },
      )
    }
  })
}
