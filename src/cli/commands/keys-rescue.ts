/** keys rescue create, restore, trust, list, revoke; keys drill: what is left when the machine, or the password, is lost. @module */
import { join, resolve } from 'node:path'
import type {
  Client,
  PreparedRoomRescue,
  RescueCreated,
  RescuePassword,
  RescueSecret,
  RescueText,
  ShareCount,
} from '../../client/index.ts'
import { SyncError } from '../../errors.ts'
import { parseFingerprint, showFingerprint } from '../../fingerprint.ts'
import { writePrivateFile } from '../../local/atomic-file.ts'
import { connect, withClient } from '../connect.ts'
import { type Context, integerOption, text } from '../context.ts'
import { display, plural, showBytes } from '../display.ts'
import { EXIT, exitCodeOfRun } from '../exit-codes.ts'
import { newKeyPassword } from '../new-password.ts'
import { createProgress, type Output } from '../output.ts'
import { homeDirectory } from '../profile.ts'
import { fingerprintFact, openPaperFile, type PaperPage, showOnTerminal } from '../rescue-paper.ts'
import { getSecret, isInteractive, prompt } from '../secrets.ts'
import { write } from '../streams.ts'
import { updateKeyring } from './keys-passwd.ts'

const wrongOption = (message: string) => new SyncError('usage', 'OPTION_INVALID', message)

const day = (time: string) => time.slice(0, 10)

/** `3-of-5`, or `3/5`. */
export function sharesOf({ options }: Pick<Context, 'options'>): ShareCount | undefined {
  const given = text(options, 'split')
  if (given === undefined) return undefined
  const match = /^(\d{1,3})(?:-of-|\/)(\d{1,3})$/.exec(given)
  if (match === null) throw wrongOption('--split takes K-of-N, such as 3-of-5')
  return { needed: Number(match[1]), of: Number(match[2]) }
}

/** Where sheets go: a file, or the terminal of somebody who is there. */
export interface PaperTarget {
  /** Of a file. */
  readonly path: string | undefined
  print(page: PaperPage): Promise<void>
  discard(): Promise<void>
}

/**
 * Finds out where sheets go, before there are any.
 *
 * @throws {SyncError} `RESCUE_PAPER_NEEDED` where a secret would go to a pipe, a log or a program.
 */
export async function openPaper({ options, output }: Pick<Context, 'options' | 'output'>): Promise<PaperTarget> {
  const given = text(options, 'paper')
  if (given !== undefined) {
    const path = resolve(given)
    const file = await openPaperFile(path)
    return { path, print: file.write, discard: file.discard }
  }
  if (output.json || !isInteractive()) {
    throw new SyncError(
      'usage',
      'RESCUE_PAPER_NEEDED',
      'Say where the rescue paper goes: it is secret, and there is no terminal',
      {
        hint: 'A new private file to print: --paper FILE.html',
      },
    )
  }
  return {
    path: undefined,
    // Past everything that keeps what is said.
    print: async (page) => write(process.stderr, await showOnTerminal(page)),
    discard: async () => {},
  }
}

const placeText = ({ kind, path }: { readonly kind: string; readonly path: string }) =>
  kind === 'file' ? `file ${path}` : `${path} at the server`

function accountPage({ keyId, server, user, createdAt, keyPairs, places, papers }: RescueCreated): PaperPage {
  const stored = places.find(({ kind }) => kind === 'server')
  const where = stored === undefined ? '--container FILE' : `--store ${stored.path}`
  const several = papers.length > 1
  return {
    opens: `all encrypted files of ${user} at ${server}, for who can log in there`,
    facts: [
      ['Server', server],
      ['User', user],
      ...keyPairs.map(fingerprintFact),
      ['Rescue key', keyId],
      ['Container', places.map(placeText).join('; ')],
      ['Made', day(createdAt)],
    ],
    steps: [
      'Install sealsync on a machine that you trust.',
      `sync login ${server} --user ${user}`,
      `sync keys rescue restore ${where}`,
      several ? 'Type the lines of as many sheets as are needed.' : 'Type the lines above when it asks for them.',
      'Then choose a new encryption password. The paper stays valid.',
    ],
    papers,
  }
}

type RoomPage = Pick<PreparedRoomRescue, 'version' | 'fingerprint' | 'papers' | 'password'> & {
  readonly room: string
  readonly server: string
  readonly createdAt: string
}

/** What is printed for the rescue key of a room. */
export function roomPage({ room, server, createdAt, papers, password, ...key }: RoomPage): PaperPage {
  const other = password()
  return {
    opens: `all files of the room ${room} at ${server}, for its administrators`,
    facts: [
      ['Server', server],
      ['Room', room],
      fingerprintFact(key),
      ['Made', day(createdAt)],
      ...(other === undefined ? [] : [['For other programs', other] as const]),
    ],
    steps: [
      'Log in as an administrator of the room, who has a key pair.',
      `sync keys rescue restore --room ${room}`,
      'Type the lines above when it asks for them: the keys of all files are handed out then.',
    ],
    papers,
  }
}

const sheets = (count: number) => (count === 1 ? 'one sheet' : `${count} sheets`)

function tellPaper({ output }: Pick<Context, 'output'>, path: string | undefined, count: number): void {
  if (path === undefined) {
    output.info(
      'Write the lines down now, or photograph nothing and print them elsewhere: nothing keeps them. Clear the screen then.',
    )
    return
  }
  output.info(`${path} has ${sheets(count)}, and is secret: print it, then remove the file.`)
}

export async function create(context: Context): Promise<void> {
  const { options, output, signal } = context
  const shares = sharesOf(context)
  const [room, file, store] = [text(options, 'room'), text(options, 'container'), text(options, 'store')]
  if (room !== undefined && (file ?? store) !== undefined) {
    throw wrongOption('The container of a room is at the server: --room goes without --container and --store')
  }
  const paper = await openPaper(context)
  try {
    await withClient(context, async (client) => {
      if (room !== undefined) return createForRoom(context, client, room, shares, paper)
      const made = await client.rescue.create({ file, store, shares, signal })
      await printOr(paper, accountPage(made), () => client.rescue.revoke(made.keyId))
      const { keyId, server, userId, user, createdAt, keyPairs, places } = made
      const shown = places.map((place) => `  ${display(placeText(place), 300)}`)
      output.done(`Rescue key ${keyId} is made. Its container was read back and opened:\n${shown.join('\n')}`, {
        type: 'rescue-key',
        keyId,
        server,
        userId,
        user,
        createdAt,
        keyPairs,
        places,
        shares: shares ?? null,
        paper: paper.path,
      })
      tellPaper(context, paper.path, made.papers.length)
      output.info('Rehearse it once: sync keys drill')
    })
  } finally {
    await paper.discard()
  }
}

/** A rescue key without paper is worth nothing. */
async function printOr(paper: PaperTarget, page: PaperPage, undo: () => Promise<unknown>): Promise<void> {
  try {
    await paper.print(page)
  } catch (error) {
    await undo().catch(() => {})
    throw error
  }
}

async function createForRoom(
  context: Context,
  client: Client,
  room: string,
  shares: ShareCount | undefined,
  paper: PaperTarget,
): Promise<void> {
  const { output, signal } = context
  output.info('Making an RSA-4096 key pair…')
  const made = await client.rescue.createForRoom(room, { shares, signal })
  await paper.print(roomPage(made))
  const { version, fingerprint, handedOut } = made
  output.done(
    `The room ${display(room)} has a rescue key, which got ${plural(handedOut, 'file key')}:\n${showFingerprint(fingerprint)}`,
    { type: 'rescue-key', room, version, fingerprint, handedOut, shares: shares ?? null, paper: paper.path },
  )
  tellPaper(context, paper.path, made.papers.length)
}

const textsOf = (value: unknown): readonly string[] => (Array.isArray(value) ? (value as string[]) : [])

/** Reads a sheet from somebody who types it; each line is checked at once. */
async function typed({ output, signal }: Context, client: Client, title: string): Promise<RescueText> {
  output.info(title)
  const reader = await client.rescue.reader()
  while (reader.next !== undefined) {
    const of = reader.lines === undefined ? '' : ` of ${reader.lines}`
    try {
      reader.add(await prompt(`Line ${reader.next}${of}`, signal))
    } catch (error) {
      if (!(error instanceof SyncError) || error.class !== 'usage') throw error
      output.warn(error.message)
    }
  }
  return reader.result()
}

/** The secret: from files, or from a person who types as many sheets as are needed. */
async function secretOf(context: Context, client: Client): Promise<RescueSecret> {
  const files = textsOf(context.options.paper)
  if (files.length > 0) {
    const texts: string[] = []
    for (const file of files) texts.push(Buffer.from(await getSecret({ file })).toString('utf8'))
    return client.rescue.read(texts)
  }
  if (!isInteractive()) {
    throw new SyncError('usage', 'RESCUE_PAPER_NEEDED', 'The rescue text is needed, and there is no terminal to ask', {
      hint: 'Give a private file with its lines: --paper FILE',
    })
  }
  const texts: RescueText[] = [await typed(context, client, 'Type the lines of the rescue paper. They are not shown.')]
  const [first] = texts
  while (first !== undefined && 'needed' in first && texts.length < first.needed) {
    const left = first.needed - texts.length
    texts.push(await typed(context, client, `That was one share. Now another one of set ${first.set}, ${left} to go:`))
  }
  return client.rescue.combine(texts)
}

/** The rescue password of a room or of the system, where it is not one of our papers. */
async function rescuePassword(context: Context, client: Client): Promise<RescuePassword> {
  const file = text(context.options, 'rescuePasswordFile')
  if (file !== undefined) return { password: await getSecret({ file }) }
  return { secret: await secretOf(context, client) }
}

export async function restore(context: Context): Promise<number | undefined> {
  const { options, output, signal } = context
  const room = text(options, 'room')
  if (options.system === true) return restoreWithServerKey(context, room, 'system')
  if (room !== undefined) return restoreWithServerKey(context, room, 'room')
  const { client, profile } = await connect(context)
  try {
    const secret = await secretOf(context, client)
    const next = async () => {
      output.info('The rescue key opens the key pair. Now the new encryption password:')
      return newKeyPassword(context)
    }
    const { keyId, place, keyPairs } = await client.rescue.restore(secret, next, {
      file: text(options, 'container'),
      store: text(options, 'store'),
      onChanged: (password) => updateKeyring(context, profile, password),
      signal,
    })
    secret.secret.fill(0)
    const shown = keyPairs.map(({ version, fingerprint }) => `${version}  ${showFingerprint(fingerprint)}`)
    output.done(`The key pair has a new encryption password, and is the same:\n${shown.join('\n')}`, {
      type: 'rescued',
      keyId,
      place,
      keyPairs,
    })
    output.info('Is that the fingerprint on the paper? After a replaced key pair it is a newer one.')
    return undefined
  } finally {
    await client.close()
  }
}

async function restoreWithServerKey(
  context: Context,
  room: string | undefined,
  of: 'room' | 'system',
): Promise<number> {
  const { output, signal } = context
  const progress = await createProgress(output, 'handing out')
  const { client } = await connect(context, (event) => progress.onEvent(event))
  try {
    const given = await rescuePassword(context, client)
    if (of === 'system' && !('password' in given)) {
      throw wrongOption('--system goes with --rescue-password-file: the password that its administrator has')
    }
    const done =
      of === 'system' && 'password' in given
        ? await client.rescue.restoreSystem(given.password, { room, signal })
        : await client.rescue.restoreRoom(room!, given, { signal })
    const { refused, ...counts } = done
    for (const hint of new Set(refused.map(({ error }) => error.hint))) output.info(hint ?? '')
    output.done(`Handed out ${plural(done.handedOut, 'file key')}, ${done.skipped} could not be`, {
      type: 'distribution',
      ...counts,
      refused: refused.map(({ member, userId, error }) => ({
        member,
        userId,
        code: error.code,
        message: error.message,
      })),
    })
    if (refused.some(({ error }) => error.class === 'integrity')) return EXIT.integrity
    return done.skipped > 0 ? EXIT.partial : EXIT.done
  } finally {
    progress.stop()
    await client.close()
  }
}

export async function list(context: Context): Promise<void> {
  const { output, signal } = context
  await withClient(context, async (client) => {
    const { own, server } = await client.rescue.list({ signal })
    for (const { keyId, createdAt, places } of own) {
      const lines = places.map((place) => `  ${display(placeText(place), 300)}`)
      output.result([`own      rescue key ${keyId}, made ${day(createdAt)}`, ...lines].join('\n'), {
        type: 'rescue-key',
        of: 'account',
        keyId,
        createdAt,
        places,
      })
    }
    for (const { of, room, state, version, fingerprint } of server) {
      const whose =
        of === 'room' ? `room ${display(room ?? '', 80)}` : of === 'system' ? 'the whole system' : 'not named'
      output.result(`${state.padEnd(8)} ${whose}  ${version}\n  ${showFingerprint(fingerprint)}`, {
        type: 'rescue-key',
        of,
        room,
        state,
        version,
        fingerprint,
      })
    }
    if (own.length === 0) output.info('This machine knows no rescue key of yours; make one: sync keys rescue create')
  })
}

export async function trust(context: Context, words: readonly string[]): Promise<void> {
  const { output, signal } = context
  const fingerprint = parseFingerprint(words.join(''))
  await withClient(context, async (client) => {
    const { version, of, room } = await client.rescue.trust(fingerprint, { signal })
    const whose =
      of === 'room' ? `of the room ${display(room ?? '', 80)}` : of === 'system' ? 'of the system' : 'that it shows'
    output.done(`Trusted: the rescue key ${whose}  ${version}\n  ${showFingerprint(fingerprint)}`, {
      type: 'rescue-key-trusted',
      of,
      room,
      version,
      fingerprint,
    })
    output.info('To give it the keys of the files that are there: sync keys distribute')
  })
}

export async function revoke(context: Context, words: readonly string[]): Promise<number> {
  const { output, signal } = context
  return withClient(context, async (client) => {
    const id = words.join('')
    const { places } = await client.rescue.revoke(id, { signal })
    for (const { path, error } of places) {
      if (error !== undefined) output.warn(`The container is still there: ${display(path, 300)} (${error.message})`)
    }
    output.done('That rescue key does not count any more', {
      type: 'rescue-key-revoked',
      id: id.replace(/[\s:-]/g, '').toLowerCase(),
      places: places.map(({ kind, path, error }) => ({ kind, path, code: error?.code })),
    })
    if (places.length > 0) {
      output.info('Whoever has the paper and a copy of the container can still open it: sync keys replace')
    } else {
      output.info('What it has got it keeps: file keys that were handed out are not taken back.')
    }
    return places.some(({ error }) => error !== undefined) ? EXIT.partial : EXIT.done
  })
}

function showReport(output: Output, report: Awaited<ReturnType<Client['rescue']['drill']>>['report']): string {
  const { sampled, files, bytes, failed, isRight } = report
  const lines = failed.map(({ path, code, message }) => `  ${display(path, 300)}: ${display(message, 300)} (${code})`)
  const what = `${plural(sampled, 'file')} of ${files}, ${showBytes(bytes)}`
  if (isRight) return `The rescue key opens what it should: ${what}`
  if (sampled === 0) return 'There is no encrypted file to try it with'
  return [`${failed.length} of ${what} did not open with the rescue key:`, ...(output.quiet ? [] : lines)].join('\n')
}

/** Rehearses a rescue, and leaves a report. */
export async function drill(context: Context): Promise<number> {
  const { options, output, signal } = context
  const room = text(options, 'room')
  const files = integerOption(options, 'files', { min: 1, max: 10_000 })
  const progress = await createProgress(output, 'opening')
  const { client } = await connect(context, (event) => progress.onEvent(event))
  let found: Awaited<ReturnType<Client['rescue']['drill']>>
  try {
    if (room !== undefined) {
      found = await client.rescue.drillRoom(room, await rescuePassword(context, client), { files, signal })
    } else {
      const how = { file: text(options, 'container'), store: text(options, 'store'), files, signal }
      found = await client.rescue.drill(await secretOf(context, client), how)
    }
  } finally {
    progress.stop()
    await client.close()
  }
  const { report, failed } = found
  const stamp = report.at.replace(/[-:]|\.\d+/g, '')
  const path = resolve(text(options, 'report') ?? join(homeDirectory(), 'drills', `rescue-${stamp}.json`))
  const isText = /\.txt$/i.test(path)
  const shown = showReport(output, report)
  const head = `${report.at}  ${report.server}  ${report.user ?? report.room}  ${report.key}`
  await writePrivateFile(path, isText ? `${head}\n${shown}\n` : `${JSON.stringify(report, undefined, 1)}\n`)
  const exitCode = report.sampled === 0 ? EXIT.partial : exitCodeOfRun({ failed: [...failed] }, 'download')
  const say = report.isRight ? output.done : output.result
  say(shown, { type: 'summary', exitCode, ...report, report: path })
  output.info(`The report is in ${path}`)
  return exitCode
}
