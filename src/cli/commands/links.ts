/** Links without an account: download, cat, share info, and upload --to-request. @module */
import { statSync } from 'node:fs'
import { basename, resolve } from 'node:path'
import {
  type DownloadLink,
  isLink,
  type LinkDownload,
  type LinkPassword,
  type PlanLine,
  parseLink,
  type Receipt,
  type RequestRecipient,
  type RunEvent,
  type SyncSummary,
} from '../../client/index.ts'
import { cancelled, SyncError, toSyncError } from '../../errors.ts'
import { showFingerprint } from '../../fingerprint.ts'
import { type Context, namesOf, text } from '../context.ts'
import { display, isoTime, plural, showBytes } from '../display.ts'
import { linkPassword, openDownload, openRequest, shownLink } from '../links.ts'
import { printAll } from '../print-content.ts'
import { confirm, isInteractive } from '../secrets.ts'
import { type JobRun, type Link, limitsOf, nothing, runWith } from './sync.ts'

const wrong = (message: string, hint?: string) =>
  new SyncError('usage', 'OPTION_INVALID', message, hint === undefined ? {} : { hint })

/** Names of options as people write them. */
const flagOf = (name: string) => `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`

/** What means nothing where there is one file, or some, and no tree. */
function requireNoTrees({ options }: Context, what: string): void {
  const ofTrees = [
    'contents',
    'checksum',
    'filesFrom',
    'filesFrom0',
    'filterFrom',
    'maxSize',
    'minAge',
    'maxTransfer',
    'maxDuration',
  ]
  const given = ofTrees.find((name) => options[name] !== undefined && options[name] !== false)
  if (given !== undefined) throw wrong(`${flagOf(given)} means nothing for ${what}`)
  if ((options.patterns as unknown[] | undefined)?.length)
    throw wrong(`--exclude and --include mean nothing for ${what}`)
}

/** A run that nobody is logged in for: what it works with is told of what happens. */
const guestLink: () => Link<(event: RunEvent) => void> = () => ({
  open: async (onEvent) => ({ client: onEvent }),
  release: async () => {},
})

const conflictOf = ({ settings }: Context) => {
  const action = settings.text('on-conflict')
  if (action !== 'newer') return action as 'skip' | 'overwrite' | 'rename' | 'fail' | undefined
  throw wrong('--on-conflict newer means nothing for a link, which has no time', 'Use overwrite, skip, rename or fail.')
}

/** Links, and where they go: what follows them, or the directory that the command runs in. */
function takeTarget(paths: readonly string[]): { readonly links: readonly string[]; readonly target: string } {
  const last = paths.at(-1)!
  const links = isLink(last) ? paths : paths.slice(0, -1)
  if (!links.every(isLink)) throw wrong('Links and paths of the server are not downloaded together')
  return { links, target: isLink(last) ? '.' : last }
}

/** Downloads what is behind links. Several have one password, as `share create --each` makes them. */
export async function download(context: Context, paths: readonly string[]): Promise<number> {
  const { links, target } = takeTarget(paths)
  const parsed = links.map(parseLink)
  const password = once(linkPassword(context))
  const dryRun = context.options.dryRun === true
  const isPiped = target === '-'
  const lines: PlanLine[] = []
  const done: LinkDownload[] = []
  const run: JobRun<(event: RunEvent) => void> = {
    command: 'download',
    local: isPiped ? '-' : resolve(target),
    remote: parsed.map(shownLink).join(' '),
    roots: [],
    dryRun,
    options: () => limitsOf(context),
    async start(onEvent, { signal = context.signal, requireEncryption }) {
      requireNoTrees(context, 'a link')
      if (isPiped && (context.output.json || context.settings.text('events') === '-' || dryRun)) {
        throw wrong('Standard output is for the content here, so there is no place for JSON or a dry run')
      }
      const how = { onConflict: conflictOf(context), names: namesOf(context), requireEncryption, dryRun, signal }
      let summary: SyncSummary = { ...nothing(run), files: links.length }
      for (const link of links) {
        const opened = await openDownload(context, link, onEvent, password)
        try {
          const got = isPiped ? await printLink(opened, requireEncryption, signal) : await opened.download(target, how)
          if (got === undefined) break
          done.push(got)
          lines.push({ do: 'download', path: basename(got.path), bytes: got.bytes, reason: 'behind the link', of: '' })
          const { transferred, bytes, skipped } = summary
          summary = got.isSkipped
            ? { ...summary, skipped: skipped + 1 }
            : { ...summary, transferred: transferred + 1, bytes: bytes + got.bytes }
        } catch (error) {
          // What was fetched before is told.
          if (signal.aborted || done.length > 0) {
            return {
              ...summary,
              left: links.length - done.length,
              stoppedBy: toSyncError(signal.aborted ? cancelled(signal) : error),
            }
          }
          throw error
        } finally {
          await opened.close()
        }
      }
      return summary
    },
    tell: ({ transferred, skipped, bytes }) => {
      const shown = done.map(({ path }) => display(path)).join(', ')
      return {
        text: `${plural(transferred, 'file')} downloaded (${showBytes(bytes)})${skipped > 0 ? `, ${skipped} there already` : ''}${isPiped || shown === '' ? '' : `: ${shown}`}`,
        fields: { downloads: done.map(({ path, bytes, isSkipped }) => ({ path, bytes, skipped: isSkipped })) },
        ...(dryRun ? { lines: lines.filter((_, at) => !done[at]!.isSkipped) } : {}),
      }
    },
  }
  return (await runWith(context, run, guestLink())).exitCode
}

/** The same password for all: asked for once. */
function once(ask: LinkPassword): LinkPassword {
  let asked: ReturnType<LinkPassword> | undefined
  return (use) => {
    asked ??= ask(use)
    return asked
  }
}

/** @returns `undefined` when nobody reads any more. */
async function printLink(
  opened: DownloadLink,
  requireEncryption: boolean | undefined,
  signal: AbortSignal,
): Promise<LinkDownload | undefined> {
  const content = await opened.get({ requireEncryption, signal })
  const bytes = await printAll(content)
  return bytes === undefined ? undefined : { path: '-', bytes, isSkipped: false }
}

/** Prints what is behind links, each after checking all of it. */
export async function cat(context: Context, links: readonly string[]): Promise<void> {
  if (!links.every(isLink)) throw wrong('Links and paths of the server are not printed together')
  const password = once(linkPassword(context))
  for (const link of links) {
    const opened = await openDownload(context, link, warnOf(context), password)
    try {
      if ((await printLink(opened, context.settings.flag('require-encryption'), context.signal)) === undefined) return
    } finally {
      await opened.close()
    }
  }
}

const warnOf =
  ({ output }: Context) =>
  (event: RunEvent): void => {
    if (event.type === 'warning') output.warn(event.message)
    if (event.type === 'retry') output.detail(`trying again: ${event.reason}`)
  }

const timeOf = (at: number | undefined) => (at === undefined ? undefined : isoTime(at))

const rows = (all: readonly (readonly [string, string | undefined])[]): string =>
  all.flatMap(([name, value]) => (value === undefined ? [] : [`${`${name}:`.padEnd(12)} ${display(value)}`])).join('\n')

/** Says what is behind a link, of either kind; needs no login, and does not count as a download. */
export async function info(context: Context, link: string): Promise<void> {
  if (parseLink(link).kind === 'request') return requestInfo(context, link)
  const { output, signal } = context
  const opened = await openDownload(context, link, warnOf(context))
  try {
    const it = await opened.info({ signal })
    const kind = it.isEncrypted
      ? 'end-to-end encrypted; its password opens it here'
      : it.isProtected
        ? 'not encrypted; its password goes to the server'
        : 'not encrypted'
    output.result(
      rows([
        ['file', it.isArchive ? `${it.fileName} (an archive)` : it.fileName],
        ['size', showBytes(it.size)],
        ['name', it.name === it.fileName ? undefined : it.name],
        ['protection', kind],
        ['from', it.creator],
        ['expires', timeOf(it.expiresAt)],
        ['notes', it.notes],
        ['state', it.isUsedUp ? 'used as often as it may be' : undefined],
      ]),
      {
        type: 'link',
        kind: 'download',
        fileName: it.fileName,
        size: it.size,
        archive: it.isArchive,
        encrypted: it.isEncrypted,
        protected: it.isProtected,
        usedUp: it.isUsedUp,
        name: it.name,
        from: it.creator,
        createdAt: timeOf(it.createdAt),
        expiresAt: timeOf(it.expiresAt),
        notes: it.notes,
      },
    )
  } finally {
    await opened.close()
  }
}

const shownRecipients = (recipients: readonly RequestRecipient[]) =>
  recipients.map(({ userId, version, fingerprint }) => ({ userId, version, fingerprint }))

async function requestInfo(context: Context, link: string): Promise<void> {
  const { output, signal, options } = context
  const isGiven = text(options, 'passwordFile') !== undefined || text(options, 'passwordCommand') !== undefined
  const opened = await openRequest(context, link, warnOf(context), isGiven)
  try {
    const it = await opened.info({ signal })
    const to =
      it.isProtected && it.recipients.length === 0 ? 'told with the password' : plural(it.recipients.length, 'member')
    output.result(
      rows([
        ['request', it.name],
        ['protection', it.isEncrypted ? `encrypted here, for ${to}` : 'not encrypted'],
        ['from', it.creator],
        ['takes', it.remainingFiles === undefined ? undefined : plural(it.remainingFiles, 'more file')],
        ['space', it.remainingBytes === undefined ? undefined : showBytes(it.remainingBytes)],
        ['expires', timeOf(it.expiresAt)],
        ['notes', it.notes],
      ]),
      {
        type: 'link',
        kind: 'request',
        name: it.name,
        encrypted: it.isEncrypted,
        protected: it.isProtected,
        from: it.creator,
        remainingFiles: it.remainingFiles,
        remainingBytes: it.remainingBytes,
        createdAt: timeOf(it.createdAt),
        expiresAt: timeOf(it.expiresAt),
        notes: it.notes,
        recipients: shownRecipients(it.recipients),
      },
    )
    tellRecipients(context, it.recipients)
  } finally {
    await opened.close()
  }
}

function tellRecipients({ output }: Context, recipients: readonly RequestRecipient[]): void {
  for (const { userId, fingerprint } of recipients) {
    output.detail(`encrypted for user ${userId}: ${showFingerprint(fingerprint)}`)
  }
}

const sizeAt = (path: string): number => statSync(path, { throwIfNoEntry: false })?.size ?? 0

/** Sends files to a file request; each that has arrived has a receipt, as `sha256sum` prints it. */
export async function send(context: Context, files: readonly string[]): Promise<number> {
  const { output } = context
  const link = text(context.options, 'toRequest')!
  const parsed = parseLink(link)
  const dryRun = context.options.dryRun === true
  let receipts: readonly Receipt[] = []
  let recipients: readonly RequestRecipient[] = []
  const lines: PlanLine[] = []
  const run: JobRun<(event: RunEvent) => void> = {
    command: 'upload',
    local: files.map((one) => resolve(one)).join(' '),
    remote: shownLink(parsed),
    roots: [],
    dryRun,
    options: () => limitsOf(context),
    async start(onEvent, { signal = context.signal, requireEncryption, allowPlain, partSize, memory }) {
      requireNoTrees(context, 'a file request')
      if (context.options.fromCommand !== undefined || files.includes('-')) {
        throw wrong(
          'A file request takes files, which can be sent again after an interruption',
          'Write it into a file first.',
        )
      }
      const opened = await openRequest(context, link, onEvent)
      try {
        const isAsking = isInteractive() && !output.json
        const summary = await opened.send(files, {
          signal,
          requireEncryption,
          // Nobody but a person says no.
          allowPlain: allowPlain === true ? true : undefined,
          ...(isAsking ? { confirm } : {}),
          partSize,
          memory,
          dryRun,
        })
        receipts = summary.receipts
        recipients = summary.recipients
        tellRecipients(context, recipients)
        if (dryRun)
          for (const path of files)
            lines.push({ do: 'upload', path, bytes: sizeAt(path), reason: 'for the file request', of: '' })
        const sent = receipts.filter(({ isEarlier }) => !isEarlier)
        return {
          ...nothing(run),
          files: files.length,
          transferred: sent.length,
          bytes: sent.reduce((sum, { bytes }) => sum + bytes, 0),
          skipped: receipts.length - sent.length,
          failed: summary.failed,
          left: dryRun ? 0 : summary.left,
          ...(summary.stoppedBy === undefined ? {} : { stoppedBy: summary.stoppedBy }),
        }
      } finally {
        await opened.close()
      }
    },
    tell({ transferred, skipped, bytes, failed, left }) {
      const more = [
        ...(skipped > 0 ? [`${skipped} sent before`] : []),
        ...(failed.length > 0 ? [`${failed.length} failed`] : []),
        ...(left > 0 ? [`${left} left: the same command goes on`] : []),
      ]
      const fields = receipts.map(({ path, name, bytes: size, sha256, at, isEarlier }) => ({
        path,
        name,
        bytes: size,
        sha256,
        at: isoTime(at),
        earlier: isEarlier,
      }))
      return {
        text: [`${plural(transferred, 'file')} sent (${showBytes(bytes)})`, ...more].join(', '),
        fields: { receipts: fields, recipients: shownRecipients(recipients) },
        ...(dryRun ? { lines } : {}),
      }
    },
  }
  const { exitCode } = await runWith(context, run, guestLink())
  if (!output.json && !dryRun) for (const { sha256, path } of receipts) output.result(`${sha256}  ${display(path)}`, {})
  return exitCode
}
