/** share and request: create, list, show, update, revoke, mail-text: links to give files away, and to have files sent. @module */
import {
  type Client,
  type FileRequest,
  type Password,
  requestMailText,
  type Share,
  shareMailText,
} from '../../client/index.ts'
import { systemClock } from '../../environment.ts'
import { SyncError } from '../../errors.ts'
import { showFingerprint } from '../../fingerprint.ts'
import { connect, withClient } from '../connect.ts'
import { type Context, integerOption, measured, text } from '../context.ts'
import { display, isoTime, plural, showBytes } from '../display.ts'
import { isPasswordGiven, linkPassword } from '../links.ts'
import { createProgress } from '../output.ts'
import { isInteractive } from '../secrets.ts'
import { parseDuration, parseSize } from '../settings.ts'

const wrong = (message: string, hint?: string) =>
  new SyncError('usage', 'OPTION_INVALID', message, hint === undefined ? {} : { hint })

/** When a link ends: after `7d`, or at a date; `null` for `never`. */
function expiryOf({ options }: Context): number | null | undefined {
  const value = text(options, 'expires')
  if (value === undefined) return undefined
  if (value === 'never') return null
  const after = parseDuration(value)
  const isDate = /^\d{4}-\d\d-\d\d([T ]|$)/.test(value)
  const at = after === undefined ? (isDate ? Date.parse(value) : Number.NaN) : systemClock.now() + after
  if (Number.isNaN(at)) throw wrong('--expires takes a time such as 7d, a date such as 2026-12-31, or never')
  if (at <= systemClock.now()) throw wrong('--expires lies in the past')
  return at
}

/** A limit, or `null` for `none`. */
function limitOf<T>({ options }: Context, name: string, read: () => T | undefined): T | null | undefined {
  return options[name] === 'none' ? null : read()
}

const MOST = 2 ** 31 - 1
const countOf = (context: Context, flag: string, name: string) =>
  limitOf(context, name, () => integerOption(context.options, flag, { min: 1, max: MOST }))

/** A new link has no limit to take away. */
const unlessNone = <T>(value: T | null | undefined): T | undefined => value ?? undefined

/** What was decided on a password: how it is got, and what it was. */
interface Chosen {
  readonly password: (() => Promise<Password>) | undefined
  /** Known when it has been asked for. */
  said(): string | undefined
}

/** The password of a new link; asked for at the terminal where it is needed, or wanted. */
async function choosePassword(context: Context, client: Client, isNeeded: () => Promise<boolean>): Promise<Chosen> {
  const { options } = context
  const isGenerated = options.generatePassword === true
  if (isGenerated && isPasswordGiven(context))
    throw wrong('--generate-password and another password do not go together')
  const isAsked = options.askPassword === true
  let said: string | undefined
  const keep = (ask: () => Promise<Password>) => async () => {
    const secret = await ask()
    said = typeof secret === 'string' ? secret : Buffer.from(secret).toString('utf8')
    return secret
  }
  const known = { said: () => said }
  if (isGenerated) return { ...known, password: keep(() => client.shares.generatePassword({ signal: context.signal })) }
  if (isPasswordGiven(context) || isAsked) return { ...known, password: keep(linkPassword(context, true)) }
  const mayAsk = isInteractive() && (await isNeeded())
  return { ...known, password: mayAsk ? keep(linkPassword(context, true)) : undefined }
}

const timeOf = (at: number | undefined) => (at === undefined ? undefined : isoTime(at))

const fieldsOf = (share: Share) => ({
  type: 'share',
  id: share.id,
  link: share.link,
  path: share.path,
  kind: share.type,
  nodeId: share.nodeId,
  name: share.name,
  encrypted: share.isEncrypted,
  protected: share.isProtected,
  createdAt: timeOf(share.createdAt),
  createdBy: share.createdBy,
  expiresAt: timeOf(share.expiresAt),
  downloads: share.downloads,
  maxDownloads: share.maxDownloads,
  notify: share.notify,
  notes: share.notes,
})

const requestFieldsOf = (request: FileRequest) => ({
  type: 'request',
  id: request.id,
  link: request.link,
  path: request.path,
  targetId: request.targetId,
  name: request.name,
  encrypted: request.isEncrypted,
  protected: request.isProtected,
  createdAt: timeOf(request.createdAt),
  createdBy: request.createdBy,
  expiresAt: timeOf(request.expiresAt),
  files: request.files,
  uploads: request.uploads,
  maxFiles: request.maxFiles,
  maxSize: request.maxSize,
  notify: request.notify,
  notes: request.notes,
})

/** What comes of a new link: the link, and its password where that is to be seen. */
function printNew(context: Context, links: readonly string[], password: string | undefined): void {
  const { output, options } = context
  const isSplit = options.split === true
  const isShown = password !== undefined && (isSplit || options.generatePassword === true)
  if (output.json) {
    if (isShown) output.result('', { type: 'share-password', password })
    return
  }
  if (!isSplit) {
    for (const line of links) output.result(line, {})
    if (isShown) output.result(`Password: ${display(password)}`, {})
    return
  }
  output.result(`Send this by mail:\n${links.map((line) => `  ${line}`).join('\n')}`, {})
  if (isShown) output.result(`Send this another way, such as by phone or messenger:\n  ${display(password)}`, {})
}

function requireSplittable({ options }: Context, { password }: Chosen): void {
  if (options.split !== true || password !== undefined) return
  throw wrong(
    '--split parts the link from its password, and there is none',
    'Use --generate-password or --ask-password.',
  )
}

export async function create(context: Context, paths: readonly string[]): Promise<void> {
  const { options, output, settings, signal } = context
  const isEach = options.each === true
  const progress = await createProgress(output, 'Sharing')
  const { client } = await connect(context, (event) => progress.onEvent(event))
  try {
    const given = await client.glob(paths, { signal })
    const chosen = await choosePassword(context, client, () => isAnyEncrypted(client, given, signal))
    requireSplittable(context, chosen)
    const shares = await client.shares.create(given, {
      password: chosen.password,
      name: text(options, 'name'),
      notes: text(options, 'notes'),
      expiresAt: unlessNone(expiryOf(context)),
      maxDownloads: unlessNone(countOf(context, 'max-downloads', 'maxDownloads')),
      notify: options.notify === true ? true : undefined,
      requireEncryption: settings.flag('require-encryption'),
      each: isEach,
      dryRun: options.dryRun === true,
      signal,
      onShared: (share) => {
        if (output.json) output.result('', fieldsOf(share))
      },
    })
    if (options.dryRun === true) {
      for (const { id: _, link: _link, createdAt: _at, ...share } of shares.map(fieldsOf)) {
        output.result(
          `would share ${display(share.path ?? share.name)}${share.encrypted ? '' : ' (not encrypted)'}`,
          share,
        )
      }
      return
    }
    if (shares.length === 0) output.info('There is no file to share.')
    const isList = shares.length > 1 || isEach
    printNew(
      context,
      shares.map(({ link, path }) => (isList ? `${link}  ${display(path ?? '')}` : link)),
      chosen.said(),
    )
    if (shares.some(({ isProtected }) => !isProtected)) {
      output.info('Whoever has the link can download it.')
    }
  } finally {
    progress.stop()
    await client.close()
  }
}

async function isAnyEncrypted(client: Client, paths: readonly string[], signal: AbortSignal): Promise<boolean> {
  for (const path of paths) if ((await client.stat(path, { signal })).isEncrypted === true) return true
  return false
}

/** Protection, use and end of a link, in a few words. */
function stateOf({ isEncrypted, isProtected, downloads, maxDownloads, expiresAt }: Share): string {
  const protection = isEncrypted ? 'encrypted' : isProtected ? 'password' : 'open'
  const use =
    maxDownloads === undefined ? plural(downloads, 'download') : `${downloads} of ${plural(maxDownloads, 'download')}`
  const end = expiresAt === undefined ? 'no end' : `until ${isoTime(expiresAt)}`
  return `${protection}, ${use}, ${end}`
}

function requestStateOf({ isEncrypted, isProtected, files = 0, maxFiles, maxSize, expiresAt }: FileRequest): string {
  const protection = [isEncrypted ? 'encrypted' : 'not encrypted', ...(isProtected ? ['password'] : [])].join(', ')
  const use = maxFiles === undefined ? plural(files, 'file') : `${files} of ${plural(maxFiles, 'file')}`
  const size = maxSize === undefined ? '' : `, up to ${showBytes(maxSize)}`
  const end = expiresAt === undefined ? 'no end' : `until ${isoTime(expiresAt)}`
  return `${protection}, ${use}${size}, ${end}`
}

export async function list(context: Context, path?: string): Promise<void> {
  const { output, signal } = context
  await withClient(context, async (client) => {
    let count = 0
    for await (const share of client.shares.list(path, { signal })) {
      count++
      output.result(
        `${String(share.id).padStart(6)}  ${display(share.path ?? share.name)}  (${stateOf(share)})`,
        fieldsOf(share),
      )
    }
    if (count === 0) output.info('There are no links.')
  })
}

export async function listRequests(context: Context, path?: string): Promise<void> {
  const { output, signal } = context
  await withClient(context, async (client) => {
    let count = 0
    for await (const request of client.requests.list(path, { signal })) {
      count++
      const shown = display(request.path ?? request.name)
      output.result(
        `${String(request.id).padStart(6)}  ${shown}  (${requestStateOf(request)})`,
        requestFieldsOf(request),
      )
    }
    if (count === 0) output.info('There are no file requests.')
  })
}

const rows = (all: readonly (readonly [string, string | undefined])[]): string =>
  all.flatMap(([name, value]) => (value === undefined ? [] : [`${`${name}:`.padEnd(10)} ${display(value)}`])).join('\n')

const common = ({ id, link, path, name, createdAt, createdBy, notes, notify }: Share | FileRequest) =>
  [
    ['link', link],
    ['id', String(id)],
    ['path', path],
    ['name', path?.endsWith(`/${name}`) ? undefined : name],
    ['made', `${isoTime(createdAt)}${createdBy === undefined ? '' : ` by ${createdBy}`}`],
    ['notes', notes],
    ['notify', notify ? 'the owner is told of each use' : undefined],
  ] as const

export async function show(context: Context, which: string): Promise<void> {
  const { output, signal } = context
  await withClient(context, async (client) => {
    const share = await client.shares.get(which, { signal })
    output.result(rows([...common(share), ['state', stateOf(share)]]), fieldsOf(share))
  })
}

/** A request, and who has sent what when. */
export async function showRequest(context: Context, which: string): Promise<void> {
  const { output, signal } = context
  await withClient(context, async (client) => {
    const { received, ...request } = await client.requests.get(which, { signal })
    output.result(rows([...common(request), ['state', requestStateOf(request)]]), {
      ...requestFieldsOf(request),
      received: received.map(({ receivedAt, ...file }) => ({ ...file, receivedAt: timeOf(receivedAt) })),
    })
    if (output.json) return
    for (const { name, size = 0, receivedAt, by } of received) {
      const from = by === undefined ? '' : `  (${display(by)})`
      output.result(`${timeOf(receivedAt) ?? ''}  ${showBytes(size).padStart(10)}  ${display(name)}${from}`, {})
    }
  })
}

export async function revoke(context: Context, which: readonly string[]): Promise<void> {
  const { output, signal } = context
  await withClient(context, async (client) => {
    for (const share of await client.shares.revoke(which, { signal })) {
      output.done(`The link of ${display(share.path ?? share.name)} leads nowhere any more`, {
        ...fieldsOf(share),
        type: 'share-revoked',
      })
    }
  })
}

export async function revokeRequests(context: Context, which: readonly string[]): Promise<void> {
  const { output, signal } = context
  await withClient(context, async (client) => {
    for (const request of await client.requests.revoke(which, { signal })) {
      output.done(`The request for ${display(request.path ?? request.name)} is closed`, {
        ...requestFieldsOf(request),
        type: 'request-revoked',
      })
    }
  })
}

/** The password that a link gets, or `null` where it is to have none. */
async function changedPassword(context: Context, client: Client): Promise<Chosen & { readonly none: boolean }> {
  const none = context.options.password === false
  const chosen = await choosePassword(context, client, async () => false)
  if (none && chosen.password !== undefined) throw wrong('--no-password and a password do not go together')
  return { ...chosen, none }
}

const notifyOf = ({ options }: Context) => (options.notify === undefined ? undefined : options.notify === true)

export async function update(context: Context, which: string): Promise<void> {
  const { output, options, signal } = context
  await withClient(context, async (client) => {
    const { password, none, said } = await changedPassword(context, client)
    const changes = {
      name: text(options, 'name'),
      notes: text(options, 'notes'),
      expiresAt: expiryOf(context),
      maxDownloads: countOf(context, 'max-downloads', 'maxDownloads'),
      notify: notifyOf(context),
      password: none ? null : password,
    }
    requireChange(changes)
    const share = await client.shares.update(which, { ...changes, signal })
    output.done(`${display(share.path ?? share.name)}: ${stateOf(share)}`, fieldsOf(share))
    printNew(context, [], said())
  })
}

export async function updateRequest(context: Context, which: string): Promise<void> {
  const { output, options, signal } = context
  await withClient(context, async (client) => {
    const { password, none, said } = await changedPassword(context, client)
    const changes = {
      name: text(options, 'name'),
      notes: text(options, 'notes'),
      expiresAt: expiryOf(context),
      maxFiles: countOf(context, 'max-files', 'maxFiles'),
      maxSize: limitOf(context, 'maxSize', () => measured(context, 'max-size', parseSize, '10G')),
      notify: notifyOf(context),
      password: none ? null : password,
    }
    requireChange(changes)
    const request = await client.requests.update(which, { ...changes, signal })
    output.done(`${display(request.path ?? request.name)}: ${requestStateOf(request)}`, requestFieldsOf(request))
    printNew(context, [], said())
  })
}

function requireChange(changes: Readonly<Record<string, unknown>>): void {
  if (Object.values(changes).every((value) => value === undefined)) throw wrong('Nothing is said that should change')
}

/** Names in it are other people's. */
function printMail(output: Context['output'], mail: string): void {
  const lines = mail.split('\n').map((line) => display(line))
  output.result(lines.join('\n'), { type: 'mail-text', text: mail })
}

export async function mailText(context: Context, which: string): Promise<void> {
  const { output, signal } = context
  await withClient(context, async (client) => {
    printMail(output, shareMailText(await client.shares.get(which, { signal })))
  })
}

export async function requestMail(context: Context, which: string): Promise<void> {
  const { output, signal } = context
  await withClient(context, async (client) => {
    printMail(output, requestMailText(await client.requests.get(which, { signal })))
  })
}

export async function createRequest(context: Context, path: string): Promise<void> {
  const { options, output, settings, signal } = context
  await withClient(context, async (client) => {
    const chosen = await choosePassword(context, client, async () => false)
    requireSplittable(context, chosen)
    const request = await client.requests.create(path, {
      password: chosen.password,
      name: text(options, 'name'),
      notes: text(options, 'notes'),
      expiresAt: unlessNone(expiryOf(context)),
      maxFiles: unlessNone(countOf(context, 'max-files', 'maxFiles')),
      maxSize: measured(context, 'max-size', parseSize, '10G'),
      notify: options.notify === true ? true : undefined,
      requireEncryption: settings.flag('require-encryption'),
      signal,
    })
    if (output.json) output.result('', requestFieldsOf(request))
    printNew(context, [request.link], chosen.said())
    if (!request.isEncrypted) output.info('What comes by it is not encrypted: the room is not.')
  })
}

/** Takes note of the key of a link that was made elsewhere. */
export async function trust(context: Context, which: string): Promise<void> {
  const { output, signal } = context
  await withClient(context, async (client) => {
    const { fingerprint, ...share } = await client.shares.trust(which, linkPassword(context), { signal })
    output.done(`The link ${share.id} gets the keys of new versions from now on: ${showFingerprint(fingerprint)}`, {
      ...fieldsOf(share),
      type: 'share-trusted',
      fingerprint,
    })
  })
}
