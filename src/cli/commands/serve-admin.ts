/** serve user, group, room, client, stats, audit: the embedded server is administered, through it or directly. @module */
import { randomBytes } from 'node:crypto'
import { resolve } from 'node:path'
import { systemClock } from '../../environment.ts'
import { SyncError } from '../../errors.ts'
import { writePrivateFile } from '../../local/atomic-file.ts'
import type {
  AnswerOf,
  ArgumentsOf,
  ClientSummary,
  GroupSummary,
  OperationName,
  RemovalPlan,
  RoomSummary,
  UserDetails,
  UserSummary,
} from '../../server/index.ts'
import { type Context, measured, text } from '../context.ts'
import { csvLine } from '../csv.ts'
import { display, isoTime, plural, showBytes } from '../display.ts'
import { getSecret } from '../secrets.ts'
import { requireData } from '../serve-options.ts'
import { parseDuration, parseSize } from '../settings.ts'

async function ask<N extends OperationName>(context: Context, name: N, args: ArgumentsOf<N>): Promise<AnswerOf<N>> {
  const { administer } = await import('../../server/index.ts')
  return administer(await requireData(context), name, args)
}

const lines = (rows: readonly string[]): string => rows.join('\n')

/** A size with its unit, or none. */
function sizeOf(given: string): number | undefined {
  const bytes = given === 'none' ? 0 : parseSize(given)
  if (bytes === undefined || (bytes === 0 && given !== 'none' && given !== '0')) {
    throw new SyncError('usage', 'OPTION_INVALID', 'A quota is a size such as 10G, or none')
  }
  return bytes === 0 ? undefined : bytes
}

// Users

const states = ({ isAdmin, isDisabled, hasKeyPair }: UserSummary): string =>
  [isDisabled ? 'disabled' : '', isAdmin ? 'administrator' : '', hasKeyPair ? '' : 'no key pair']
    .filter((word) => word !== '')
    .join(', ')

const spaceOf = ({ usedBytes, quota }: UserSummary): string =>
  quota === undefined ? showBytes(usedBytes) : `${showBytes(usedBytes)} of ${showBytes(quota)}`

/** A user in answers: times as people write them. */
const userObject = ({ createdAt, lastLoginAt, ...user }: UserSummary): object => ({
  type: 'user',
  ...user,
  user: user.name,
  createdAt: isoTime(createdAt),
  ...(lastLoginAt === undefined ? {} : { lastLoginAt: isoTime(lastLoginAt) }),
})

export async function userList(context: Context): Promise<void> {
  for (const user of await ask(context, 'user.list', {})) {
    const line = `${display(user.name, 40).padEnd(24)}  ${spaceOf(user).padStart(10)}  ${states(user)}`
    context.output.result(line.trimEnd(), userObject(user))
  }
}

export async function userShow(context: Context, name: string): Promise<void> {
  const user: UserDetails = await ask(context, 'user.show', { name })
  const rooms = user.rooms.map(({ path, isAdmin }) => `  ${display(path)}${isAdmin ? ' (manages it)' : ''}`)
  const rows = [
    `${display(user.name)}${states(user) === '' ? '' : `: ${states(user)}`}`,
    `made ${isoTime(user.createdAt)}, ${user.lastLoginAt === undefined ? 'never logged in' : `last login ${isoTime(user.lastLoginAt)}`}`,
    `${spaceOf(user)}; ${plural(user.logins, 'login')}${user.oneTimeCodes ? '; one-time codes' : ''}`,
    ...(user.groups.length === 0 ? [] : [`groups: ${user.groups.map((group) => display(group)).join(', ')}`]),
    ...(rooms.length === 0 ? [] : ['rooms:', ...rooms]),
  ]
  context.output.result(lines(rows), userObject(user))
}

/** A new password: from a file, made here, or typed twice. */
async function newPassword(context: Context, name: string): Promise<string> {
  const file = text(context.options, 'passwordFile')
  const target = text(context.options, 'passwordTo')
  if (file !== undefined && target !== undefined) {
    throw new SyncError('usage', 'OPTION_INVALID', '--password-file and --password-to exclude each other')
  }
  if (target !== undefined) {
    // 120 bits, without signs that look alike or that a shell takes for its own.
    const password = [...randomBytes(24)].map((byte) => 'abcdefghjkmnpqrstuvwxyz23456789-'[byte & 31]).join('')
    await writePrivateFile(resolve(target), `${password}\n`)
    return password
  }
  const secret = await getSecret({
    file,
    variable: 'SEALSYNC_PASSWORD',
    question: `Password for ${display(name, 60)}`,
    confirm: true,
    missing: new SyncError('auth', 'PASSWORD_NEEDED', 'The account needs a password, and there is no terminal to ask', {
      hint: 'Give it with --password-file, or have one made with --password-to.',
    }),
  })
  return Buffer.from(secret).toString('utf8')
}

export async function userAdd(context: Context, name: string): Promise<void> {
  const { options, output } = context
  const dataDir = await requireData(context)
  const { addUser, removeUser } = await import('../../server/index.ts')
  const codeFile = text(options, 'oneTimeCodes')
  const password = await newPassword(context, name)
  const more = { oneTimeCodes: codeFile !== undefined, isAdmin: options.admin === true }
  const { id, authenticator } = await addUser(dataDir, { name, password, ...more })
  if (codeFile !== undefined && authenticator !== undefined) {
    await writePrivateFile(resolve(codeFile), `${authenticator}\n`).catch(async (error) => {
      await removeUser(dataDir, name) // nobody could log in to it
      throw error
    })
    output.info(`The address for an authenticator app is in ${resolve(codeFile)}`)
  }
  output.done(`Made the account ${display(name)}`, { type: 'user', id, user: name })
}

export async function userPassword(context: Context, name: string): Promise<void> {
  // A name that nobody has should not cost anybody a password.
  await ask(context, 'user.show', { name })
  const { hashNewPassword } = await import('../../server/index.ts')
  const password = await hashNewPassword(await newPassword(context, name))
  const user = await ask(context, 'user.password', { name, password })
  context.output.done(`${display(user.name)} has another password; its logins have ended`, userObject(user))
}

async function setDisabled(context: Context, name: string, isDisabled: boolean): Promise<void> {
  const user = await ask(context, 'user.disabled', { name, isDisabled })
  const what = isDisabled ? 'is disabled; its logins have ended' : 'can log in again'
  context.output.done(`${display(user.name)} ${what}`, userObject(user))
}

export const userDisable = (context: Context, name: string): Promise<void> => setDisabled(context, name, true)
export const userEnable = (context: Context, name: string): Promise<void> => setDisabled(context, name, false)

export async function userAdmin(context: Context, name: string, state: string): Promise<void> {
  if (state !== 'on' && state !== 'off') throw new SyncError('usage', 'OPTION_INVALID', 'Say on or off')
  const user = await ask(context, 'user.admin', { name, isAdmin: state === 'on' })
  const what = user.isAdmin ? 'is an administrator' : 'is no administrator'
  context.output.done(`${display(user.name)} ${what}`, userObject(user))
}

export async function userQuota(context: Context, name: string, size?: string): Promise<void> {
  if (size === undefined) {
    const user = await ask(context, 'user.show', { name })
    const limit = user.quota === undefined ? 'no limit' : `at most ${showBytes(user.quota)}`
    context.output.result(`${display(user.name)}: ${limit}, ${showBytes(user.usedBytes)} used`, userObject(user))
    return
  }
  const bytes = sizeOf(size)
  const user = await ask(context, 'user.quota', { name, ...(bytes === undefined ? {} : { bytes }) })
  context.output.done(`${display(user.name)}: ${spaceOf(user)}`, userObject(user))
}

function planText(plan: RemovalPlan): string {
  const rest = plan.unreadable - plan.unreadablePaths.length
  return lines([
    `${display(plan.name)} made files of ${showBytes(plan.usedBytes)}; they stay`,
    `${plural(plan.unreadable, 'file')} that nobody else can open`,
    ...plan.unreadablePaths.map((path) => `  ${display(path)}`),
    ...(rest > 0 ? [`  and ${rest} more`] : []),
    `${plural(plan.roomsWithoutAdmin.length, 'room')} that nobody else manages`,
    ...plan.roomsWithoutAdmin.map((path) => `  ${display(path)}`),
  ])
}

export async function userRemove(context: Context, name: string): Promise<void> {
  const { options, output } = context
  if (options.dryRun === true) {
    const plan = await ask(context, 'user.plan-removal', { name })
    output.result(planText(plan), { type: 'removal-plan', ...plan })
    return
  }
  const plan = await ask(context, 'user.remove', { name, force: options.force === true })
  output.done(`Removed the account ${display(plan.name)}`, { type: 'user-removed', ...plan })
}

// Groups

const groupObject = ({ createdAt, ...group }: GroupSummary): object => ({
  type: 'group',
  ...group,
  group: group.name,
  createdAt: isoTime(createdAt),
})

export async function groupList(context: Context): Promise<void> {
  for (const group of await ask(context, 'group.list', {})) {
    const counts = `${plural(group.members.length, 'member')}, ${plural(group.rooms.length, 'room')}`
    context.output.result(`${display(group.name, 40).padEnd(24)}  ${counts}`, groupObject(group))
  }
}

export async function groupAdd(context: Context, name: string, users: readonly string[]): Promise<void> {
  const group = await ask(context, 'group.add', { name, users })
  context.output.done(`The group ${display(name)} has ${plural(group.members.length, 'member')}`, {
    ...groupObject(group),
    users,
  })
}

const listOf = (value: unknown): string[] => (Array.isArray(value) ? value.map(String) : [])

export async function groupMembers(context: Context, name: string): Promise<void> {
  const [add, remove] = [listOf(context.options.add), listOf(context.options.remove)]
  let group = await ask(context, 'group.show', { name })
  if (add.length > 0) group = await ask(context, 'group.add', { name: group.name, users: add })
  if (remove.length > 0) group = await ask(context, 'group.take-out', { name: group.name, users: remove })
  const isChanged = add.length + remove.length > 0
  const say = isChanged ? context.output.done : context.output.result
  const shown = isChanged
    ? `The group ${display(group.name)} has ${plural(group.members.length, 'member')}`
    : lines(group.members.map((member) => display(member)))
  if (isChanged || group.members.length > 0 || context.output.json) say(shown, groupObject(group))
}

export async function groupRemove(context: Context, name: string): Promise<void> {
  const group = await ask(context, 'group.remove', { name })
  context.output.done(`Removed the group ${display(group.name)}`, { ...groupObject(group), type: 'group-removed' })
}

// Rooms

function roomLine(room: RoomSummary): string {
  const { path, isEncrypted, size, quota, recycleDays, admins, members } = room
  const space = quota === undefined ? showBytes(size) : `${showBytes(size)} of ${showBytes(quota)}`
  const rest = [
    isEncrypted ? '' : 'plain',
    plural(members, 'member'),
    admins.length === 0 ? 'nobody manages it' : `managed by ${admins.map((name) => display(name, 40)).join(', ')}`,
    recycleDays === 0 ? '' : `deleted files ${recycleDays} days`,
  ]
  return `${display(path).padEnd(32)}  ${space.padStart(10)}  ${rest.filter((word) => word !== '').join('; ')}`
}

export async function roomList(context: Context): Promise<void> {
  for (const room of await ask(context, 'room.list', {}))
    context.output.result(roomLine(room), { type: 'room', ...room })
}

export async function roomOwner(context: Context, path: string, user: string): Promise<void> {
  const { unreadable, ...room } = await ask(context, 'room.owner', { path, user })
  const object = { type: 'room', ...room, unreadable }
  context.output.done(`${display(user)} manages ${display(room.path)} now`, object)
  if (unreadable > 0) {
    context.output.info(
      `${plural(unreadable, 'file')} there cannot be opened by ${display(user)} yet: a member who can hands the keys on with sync keys distribute`,
    )
  }
}

export async function roomQuota(context: Context, path: string, size: string): Promise<void> {
  const room = await ask(context, 'room.quota', { path, bytes: sizeOf(size) ?? 0 })
  context.output.done(roomLine(room), { type: 'room', ...room })
}

export async function roomRecyclePeriod(context: Context, path: string, days: string): Promise<void> {
  if (!/^\d{1,4}$/.test(days))
    throw new SyncError('usage', 'OPTION_INVALID', 'A period is a number of days, up to 9999')
  const room = await ask(context, 'room.recycle', { path, days: Number(days) })
  context.output.done(roomLine(room), { type: 'room', ...room })
}

// Clients

const clientObject = ({ createdAt, ...client }: ClientSummary): object => ({
  type: 'client',
  ...client,
  ...(createdAt === undefined ? {} : { createdAt: isoTime(createdAt) }),
})

export async function clientList(context: Context): Promise<void> {
  for (const client of await ask(context, 'client.list', {})) {
    const secret = client.isBuiltIn ? 'with an empty secret' : 'with a secret'
    const kind = [client.isPublic ? 'public' : secret, ...(client.isBuiltIn ? ['built in'] : [])].join(', ')
    const line = `${display(client.id, 40).padEnd(28)}  ${kind}; ${client.grants.join(', ')}`
    context.output.result(lines([line, ...client.redirectUris.map((uri) => `  ${display(uri)}`)]), clientObject(client))
  }
}

export async function clientAdd(context: Context, id: string): Promise<void> {
  const { options, output } = context
  const [file, target, title] = ['secretFile', 'secretTo', 'title'].map((name) => text(options, name))
  const given = file === undefined ? undefined : Buffer.from(await getSecret({ file })).toString('utf8')
  const client = await ask(context, 'client.add', {
    id,
    isPublic: options.public === true,
    redirectUris: listOf(options.redirectUri),
    ...(title === undefined ? {} : { name: title }),
    ...(options.grant === undefined ? {} : { grants: listOf(options.grant) }),
    ...(given === undefined ? {} : { secret: given }),
  })
  const { secret, ...shown } = client
  const fresh = given === undefined ? secret : undefined
  const object = clientObject(shown)
  if (fresh !== undefined && target !== undefined) {
    await writePrivateFile(resolve(target), `${fresh}\n`).catch(async (error) => {
      await ask(context, 'client.remove', { id }) // nobody would know its secret
      throw error
    })
  }
  if (fresh === undefined || target !== undefined) output.done(`Made the client ${display(id)}`, object)
  // It is what was asked for, and it is shown this once.
  else output.result(`Made the client ${display(id)}; its secret is ${fresh}`, { ...object, secret: fresh })
}

export async function clientRemove(context: Context, id: string): Promise<void> {
  const removed = await ask(context, 'client.remove', { id })
  const what = `Removed the client ${display(id)}; ${plural(removed.logins, 'login')} ended`
  context.output.done(what, { type: 'client-removed', ...removed })
}

// Numbers and the log

export async function stats(context: Context): Promise<void> {
  const found = await ask(context, 'stats', {})
  const { server } = found
  const rows = [
    `${plural(found.users, 'user')} (${found.disabledUsers} disabled), ${plural(found.groups, 'group')}, ${plural(found.clients, 'client')}, ${plural(found.logins, 'login')}`,
    `${plural(found.rooms, 'room')} (${found.encryptedRooms} encrypted), ${plural(found.folders, 'folder')}, ${plural(found.files, 'file')}, ${found.deleted} in recycle bins`,
    `${showBytes(found.contentBytes)} of content, ${showBytes(found.metadataBytes)} of metadata`,
    server === undefined
      ? 'not running'
      : `running since ${isoTime(server.startedAt)}: ${plural(server.connections, 'connection')}, ${plural(server.requests, 'request')}, ${plural(server.uploads, 'upload')} under way`,
  ]
  const object =
    server === undefined ? found : { ...found, server: { ...server, startedAt: isoTime(server.startedAt) } }
  context.output.result(lines(rows), { type: 'stats', ...object })
}

export async function auditLog(context: Context): Promise<void> {
  const { options, output } = context
  const ago = measured(context, 'since', parseDuration, '7d')
  const [user, operation] = ['user', 'operation'].map((name) => text(options, name))
  const isCsv = options.csv === true && !output.json
  if (isCsv) output.result(csvLine(['id', 'time', 'user', 'operation', 'failed', 'message', 'node', 'address']), {})
  let after = 0
  for (let isMore = true; isMore; ) {
    const page = await ask(context, 'audit', {
      after,
      ...(ago === undefined ? {} : { from: systemClock.now() - ago }),
      ...(user === undefined ? {} : { user }),
      ...(operation === undefined ? {} : { operation }),
    })
    for (const { id, time, userId, user: name, operation: what, status, message, nodeId, address } of page.items) {
      const failed = status === 2
      const at = isoTime(time)
      const line = isCsv
        ? csvLine([id, at, name, what, failed, message, nodeId ?? '', address ?? ''].map(String))
        : `${at}  ${display(name === '' ? '-' : name, 40).padEnd(16)}  ${failed ? 'failed: ' : ''}${display(message)}`
      const more = { ...(nodeId === undefined ? {} : { nodeId }), ...(address === undefined ? {} : { address }) }
      output.result(line, {
        type: 'event',
        id,
        time: at,
        userId,
        user: name,
        operation: what,
        failed,
        message,
        ...more,
      })
    }
    after = page.items.at(-1)?.id ?? after
    isMore = page.isMore && page.items.length > 0
  }
}
