/** session show, renew, export, import: the login itself. @module */
import { stat } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { parseDump, type SessionCheck, type SessionDump } from '../../client/index.ts'
import { systemClock } from '../../environment.ts'
import { localError, SyncError } from '../../errors.ts'
import { readPrivateFile, writePrivateFile } from '../../local/atomic-file.ts'
import { sweepDirectory } from '../../local/partial-file.ts'
import { connect, openStore } from '../connect.ts'
import type { Context } from '../context.ts'
import { display, isoTime, jsonLine } from '../display.ts'
import { EXIT } from '../exit-codes.ts'
import type { Output } from '../output.ts'
import { deleteProfile, loadProfile, type Profile, parseProfile, saveProfile } from '../profile.ts'
import { SETTINGS } from '../settings.ts'

/** What an export holds: the dumped session, and the profile that goes with it. */
interface Export extends SessionDump {
  readonly profile: unknown
}

const REASONS: Readonly<Record<NonNullable<SessionCheck['reason']>, string>> = Object.freeze({
  missing: 'there is no login',
  expired: 'expired, and cannot be renewed without you',
  refused: 'the server does not accept it any more',
})

/** What the server says of the token. */
function told(said: SessionCheck['introspection']): string[] {
  if (said === undefined) return []
  const { clientId, userName, subject, audience, issuer, tokenType, scope, expiresAt, issuedAt, notBefore } = said
  const times = { expires: expiresAt, issued: issuedAt, 'not before': notBefore }
  const rows = Object.entries({
    client: clientId,
    'user name': userName,
    subject,
    audience,
    issuer,
    type: tokenType,
    scope,
    ...Object.fromEntries(Object.entries(times).map(([name, at]) => [name, at === undefined ? at : isoTime(at)])),
  }).flatMap(([name, value]) => (value === undefined ? [] : [`  ${name.padEnd(10)} ${display(value, 200)}`]))
  return [`the server says: the token is ${said.active ? '' : 'not '}active`, ...rows]
}

export async function show(context: Context): Promise<number> {
  const online = context.options.online === true
  const { client, profile, store } = await connect(context)
  try {
    const check = await client.session.check({ online, signal: context.signal })
    const expires = check.expiresAt === undefined ? undefined : isoTime(check.expiresAt)
    const state = check.valid ? `valid${online ? ', says the server' : ''}` : REASONS[check.reason!]
    context.output.result(
      [
        `login    ${state}`,
        `server   ${profile.server}`,
        `user     ${display(profile.user)}`,
        `method   ${profile.method}`,
        `kept in  ${store.place}`,
        ...(expires === undefined ? [] : [`expires  ${expires} (renewed by itself)`]),
        ...(check.scope === undefined ? [] : [`scope    ${display(check.scope, 200)}`]),
        ...told(check.introspection),
      ].join('\n'),
      {
        type: 'session',
        ...check,
        expiresAt: expires,
        server: profile.server,
        user: profile.user,
        method: profile.method,
        store: profile.store,
        profile: context.profileName,
      },
    )
    return check.valid ? EXIT.done : EXIT.login
  } finally {
    await client.close()
  }
}

export async function renew(context: Context): Promise<void> {
  const { client } = await connect(context)
  try {
    await client.session.renew(context.signal)
    const { expiresAt } = await client.session.check()
    const until = expiresAt === undefined ? undefined : isoTime(expiresAt)
    context.output.done(`Login renewed${until === undefined ? '' : ` until ${until}`}`, {
      type: 'renewed',
      expiresAt: until,
    })
  } finally {
    await client.close()
  }
}

/** Writes to standard output, or makes a private file that was not there before. */
async function writeExport(file: string, text: string): Promise<void> {
  if (file === '-') {
    // Somebody must have taken it before it is removed here.
    await new Promise<void>((done, fail) => {
      process.stdout.write(text, (error) => (error ? fail(localError(error, 'write the login')) : done()))
    })
    return
  }
  const path = resolve(file)
  // What an export that was killed has left holds a login.
  await sweepDirectory(dirname(path), systemClock)
  const there = await stat(path).catch(() => undefined)
  if (there !== undefined) {
    // An export that was killed before the login was removed here goes on.
    const bytes = there.isFile() ? await readPrivateFile(path).catch(() => undefined) : undefined
    if (bytes !== undefined && Buffer.from(bytes).toString('utf8') === text) return
    throw new SyncError('usage', 'FILE_EXISTS', `${path} exists already`, { hint: 'Choose another file.' })
  }
  await writePrivateFile(path, text)
}

const notLoggedIn = (message = 'Not logged in') =>
  new SyncError('auth', 'LOGIN_NEEDED', message, { hint: 'Log in first: sync login URL' })

export async function exportSession(context: Context, file: string): Promise<void> {
  const keep = context.options.keep === true
  const { client, profile, store } = await connect(context)
  try {
    // Under the lock: no process may renew between the copy and the end of the original.
    await store.exclusive(async () => {
      const dumped = await client.session.dump()
      if (dumped.grant === undefined) throw notLoggedIn()
      const dump: Export = { ...dumped, profile }
      await writeExport(file, `${jsonLine(dump).trimEnd()}\n`)
      if (keep) return
      await store.clear()
      await deleteProfile(context.profileName)
    })
  } finally {
    await client.close()
  }
  const where = file === '-' ? 'standard output' : resolve(file)
  if (file !== '-')
    context.output.done(`The login is in ${display(where)}`, { type: 'exported', file: where, kept: keep })
  context.output.info(
    keep
      ? 'Both copies work only as long as the server’s refresh tokens do not rotate.'
      : 'It is no longer here. Take it over elsewhere with: sync session import FILE; then remove the file.',
  )
}

const MAX_EXPORT = 1024 * 1024

/** What would start a program here: whoever made the file must not choose one. */
const PROGRAMS = new Set(SETTINGS.flatMap(({ name }) => (name.endsWith('-command') ? [name] : [])))

function withoutPrograms({ options = {}, ...profile }: Profile, output: Output): Profile {
  const entries = Object.entries(options)
  for (const [name] of entries) if (PROGRAMS.has(name)) output.warn(`not taken over, since it runs a program: ${name}`)
  return { ...profile, options: Object.fromEntries(entries.filter(([name]) => !PROGRAMS.has(name))) }
}

async function readExport(file: string): Promise<string> {
  if (file === '-') {
    const chunks: Buffer[] = []
    let length = 0
    for await (const chunk of process.stdin) {
      chunks.push(Buffer.from(chunk))
      length += chunk.length
      if (length > MAX_EXPORT)
        throw new SyncError('usage', 'SESSION_INVALID', 'This is too long for an exported session')
    }
    return Buffer.concat(chunks).toString('utf8')
  }
  const bytes = await readPrivateFile(resolve(file))
  if (bytes === undefined) throw new SyncError('usage', 'FILE_MISSING', `There is no file ${resolve(file)}`)
  return Buffer.from(bytes).toString('utf8')
}

export async function importSession(context: Context, file: string): Promise<void> {
  const { settings, output, profileName } = context
  const text = await readExport(file)
  const dump = parseDump(text)
  const { grant } = dump
  if (grant === undefined) throw notLoggedIn('The export holds no login')
  const exported = (JSON.parse(text) as Export).profile
  const profile: Profile = parseProfile(JSON.stringify(exported ?? null), 'in the export')
  if (new URL(profile.server).origin !== dump.origin) {
    throw new SyncError('usage', 'SESSION_INVALID', 'The exported session and its profile name different servers')
  }
  if ((await loadProfile(profileName).catch(() => undefined)) !== undefined) {
    throw new SyncError('usage', 'PROFILE_EXISTS', `There is a login in profile ${profileName} already`, {
      hint: 'Log out first, or choose another name with --profile.',
    })
  }
  const kind = settings.text('session-store') as Profile['store'] | undefined
  const { store, kind: chosen } = await openStore(profile, settings, kind)
  await store.exclusive(() => store.save(grant))
  await saveProfile(profileName, { ...withoutPrograms(profile, output), store: chosen })
  if (chosen === 'file')
    output.warn(
      `${settings.text('session-store') === 'file' ? '' : 'no keyring found: '}the login is kept in plain text in ${store.place}`,
    )
  output.done(`Took over the login to ${profile.server} as ${display(profile.user)}`, {
    type: 'imported',
    server: profile.server,
    user: profile.user,
    store: chosen,
    profile: profileName,
  })
}
