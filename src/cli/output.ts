/**
 * Everything the command line says: results on stdout (`--json`: one object per line), progress and errors on stderr. All
 * foreign text passes `display`.
 * @module
 */
import type { SingleBar } from 'cli-progress'
import type { RunEvent, RunSummary } from '../client/index.ts'
import type { SyncError } from '../errors.ts'
import { showFingerprint } from '../fingerprint.ts'
import { display, jsonLine, plural, showBytes } from './display.ts'
import { write } from './streams.ts'

export { endOutput, guardOutput, writeResult } from './streams.ts'

export interface OutputOptions {
  readonly json: boolean
  readonly quiet: boolean
  readonly verbose: boolean
}

export interface Output extends OutputOptions {
  /** A result: text for people, or the object with `--json`. Text must be safe already; `-q` does not hide results. */
  result(text: string, object: object): void
  /** What a command has done, for whoever did not ask for more than that; hidden by `-q`, but not with `--json`. */
  done(text: string, object: object): void
  /** Something worth knowing; hidden by `-q`. */
  info(text: string): void
  /** Only with `-v`. */
  detail(text: string): void
  warn(text: string): void
  /** @param how - `plain`: without an object on stdout, because a summary follows. */
  error(error: SyncError, exitCode: number, how?: { plain?: boolean }): void
}

export function createOutput(options: OutputOptions): Output {
  const { json, quiet, verbose } = options
  return {
    ...options,
    result: (text, object) => write(process.stdout, json ? jsonLine(object) : text),
    done: (text, object) => {
      if (json || !quiet) write(process.stdout, json ? jsonLine(object) : text)
    },
    info: (text) => {
      if (!quiet) write(process.stderr, display(text))
    },
    detail: (text) => {
      if (verbose && !quiet) write(process.stderr, display(text))
    },
    warn: (text) => write(process.stderr, `warning: ${display(text)}`),
    error(error, exitCode, how) {
      write(process.stderr, `error: ${display(error.message)}`)
      if (error.hint !== undefined && !quiet) write(process.stderr, `  ${display(error.hint)}`)
      if (verbose && error.cause instanceof Error) write(process.stderr, `  cause: ${display(error.cause.message)}`)
      if (verbose && error.class === 'internal') write(process.stderr, display(causeStack(error), 4_000))
      if (json && !how?.plain) {
        const { class: kind, code, message, hint } = error
        write(process.stdout, jsonLine({ type: 'error', exitCode, class: kind, code, message, hint }))
      }
    },
  }
}

const causeStack = (error: SyncError) =>
  error.cause instanceof Error ? (error.cause.stack ?? '') : (error.stack ?? '')

export interface Progress {
  onEvent(event: RunEvent): void
  stop(): void
}

const LINE_EVERY_MS = 5_000

/** What a person is told while nothing else happens. */
export function waitingLine({ reason, leftMs }: { readonly reason: string; readonly leftMs: number }): string {
  const seconds = Math.ceil(leftMs / 1_000)
  return `waiting for the server, for up to ${seconds < 120 ? `${seconds} s` : `${Math.round(seconds / 60)} min`}: ${reason}`
}

/** Bars on a terminal, a line every few seconds elsewhere; with `--json` a line per file on stdout as well. */
export async function createProgress(output: Output, verb: string): Promise<Progress> {
  const bars = !output.quiet && !output.json && process.stderr.isTTY === true ? await createBars(verb) : undefined
  let planned = { files: 0, bytes: 0 }
  let files = 0
  let bytes = 0
  const confirmed = new Map<string, number>()
  let timer: NodeJS.Timeout | undefined
  const line = () => {
    output.info(
      `${verb}: ${files} of ${plural(planned.files, 'file')}, ${showBytes(bytes)} of ${showBytes(planned.bytes)}`,
    )
  }
  /** Above the bars, where there are any. */
  const say = (how: 'detail' | 'info' | 'warn', text: string): void => {
    if (how === 'detail' && !output.verbose) return
    const line = how === 'warn' ? `warning: ${display(text)}` : display(text)
    if (bars?.log(line) !== true) output[how](text)
  }
  return {
    onEvent(event) {
      switch (event.type) {
        case 'phase':
          say('detail', event.text)
          break
        case 'ignored':
          say('detail', `left out: ${event.path}`)
          break
        case 'planned':
          planned = event
          say(
            'detail',
            `${plural(event.files, 'file')} to transfer (${showBytes(event.bytes)}), ${event.skipped} unchanged`,
          )
          bars?.start(event.bytes, event.files)
          if (bars === undefined && event.files > 0) timer = setInterval(line, LINE_EVERY_MS).unref()
          break
        case 'file-started': {
          // A new attempt starts from nothing.
          bytes -= confirmed.get(event.path) ?? 0
          confirmed.delete(event.path)
          bars?.startFile(event.path, event.bytes)
          bars?.update(bytes, files)
          break
        }
        case 'part-confirmed':
          bytes += event.bytes
          confirmed.set(event.path, (confirmed.get(event.path) ?? 0) + event.bytes)
          bars?.advanceFile(event.path, event.bytes)
          bars?.update(bytes, files)
          break
        case 'file-done':
          files++
          confirmed.delete(event.path)
          bars?.endFile(event.path)
          bars?.update(bytes, files)
          if (output.verbose) say('detail', `done ${event.path} (${showBytes(event.bytes)})`)
          if (output.json) output.result('', { type: 'file', path: event.path, status: 'done', bytes: event.bytes })
          break
        case 'file-failed':
          bytes -= confirmed.get(event.path) ?? 0
          confirmed.delete(event.path)
          bars?.endFile(event.path)
          say('warn', `${display(event.path, 200)}: ${event.message}`)
          if (output.json) {
            const { path, code, message } = event
            output.result('', { type: 'file', path, status: 'failed', code, message })
          }
          break
        case 'retry':
          say('detail', `trying again in ${Math.round(event.delayMs)} ms: ${event.reason}`)
          break
        case 'waiting':
          say('info', waitingLine(event))
          break
        case 'conflict':
          say('warn', `Both sides changed ${event.path}; yours is ${event.copy} now`)
          break
        case 'warning':
          say('warn', event.message)
          break
        case 'key-pinned':
          say(
            'info',
            `${event.member} is trusted from now on; compare the key with theirs: ${showFingerprint(event.fingerprint)}`,
          )
          break
        case 'keys-handed-out':
          say('detail', `handed out ${plural(event.count, 'file key')}`)
          break
      }
    },
    stop() {
      if (timer !== undefined) {
        clearInterval(timer)
        if (planned.files > 0) line()
      }
      bars?.stop()
    },
  }
}

/** Files from this size have a bar of their own, a few at a time; smaller ones would only flicker. */
const OWN_BAR_FROM = 8 * 1024 * 1024
const OWN_BARS = 4

async function createBars(verb: string) {
  const { default: cliProgress } = await import('cli-progress')
  const bars = new cliProgress.MultiBar({
    stream: process.stderr,
    format: '  {bar} {percentage}% | {done}/{size} | {name}',
    hideCursor: true,
    clearOnComplete: true,
    stopOnComplete: false,
    // Signals are ours.
    gracefulExit: false,
    etaBuffer: 50,
    barsize: 24,
    linewrap: false,
  })
  const format = `${verb} {bar} {percentage}% | {done}/{size} | {files} files | {rate}/s | ETA {eta_formatted}`
  const begun = performance.now()
  const own = new Map<string, { bar: SingleBar; bytes: number; size: number }>()
  let all: SingleBar | undefined
  let [size, total] = [0, 0]
  const allPayload = (bytes: number, files: number) => {
    const seconds = Math.max(0.001, (performance.now() - begun) / 1000)
    const rate = showBytes(Math.round(bytes / seconds))
    return { done: showBytes(bytes), size: showBytes(size), files: `${files}/${total}`, rate }
  }
  const filePayload = (path: string, bytes: number, of: number) => ({
    done: showBytes(bytes),
    size: showBytes(of),
    name: display(path, 40),
  })
  function endFile(path: string): void {
    const one = own.get(path)
    if (one === undefined) return
    own.delete(path)
    bars.remove(one.bar)
  }
  return {
    start(bytes: number, files: number) {
      ;[size, total] = [bytes, files]
      if (files > 0) all = bars.create(Math.max(bytes, 1), 0, allPayload(0, 0), { format })
    },
    update(bytes: number, files: number) {
      all?.update(Math.max(0, bytes), allPayload(bytes, files))
    },
    startFile(path: string, bytes: number) {
      endFile(path)
      if (all === undefined || bytes < OWN_BAR_FROM || own.size >= OWN_BARS) return
      own.set(path, { bar: bars.create(bytes, 0, filePayload(path, 0, bytes)), bytes: 0, size: bytes })
    },
    advanceFile(path: string, bytes: number) {
      const one = own.get(path)
      if (one === undefined) return
      one.bytes += bytes
      one.bar.update(one.bytes, filePayload(path, one.bytes, one.size))
    },
    endFile,
    /** Puts a line above the bars; false when there are none. */
    log(line: string): boolean {
      // Erases what was drawn there before.
      if (all !== undefined) bars.log(`\u001b[J${line}\n`)
      return all !== undefined
    },
    stop() {
      if (all !== undefined) {
        // What is still to be said.
        bars.update()
        bars.stop()
      }
      all = undefined
    },
  }
}

/** A summary as programs read it. */
export function summaryFields<T extends Pick<RunSummary, 'failed' | 'pending' | 'stoppedBy'>>({
  failed,
  pending,
  stoppedBy,
  ...counts
}: T) {
  return {
    ...counts,
    failed: failed.map(({ path, error: { code, message } }) => ({ path, code, message })),
    ...(pending === undefined
      ? {}
      : { pending: pending.map(({ what, name, error: { code, message } }) => ({ what, name, code, message })) }),
    ...(stoppedBy === undefined ? {} : { stoppedBy: { code: stoppedBy.code, message: stoppedBy.message } }),
  }
}

/** What to do about what went wrong, each once. */
export const hintsOf = ({ failed, pending = [] }: Pick<RunSummary, 'failed' | 'pending'>): string[] => [
  ...new Set([...failed, ...pending].flatMap(({ error }) => error.hint ?? [])),
]

/** For the end of a line. */
export const pendingText = ({ pending = [] }: Pick<RunSummary, 'pending'>): string => {
  const members = pending.filter(({ what }) => what === 'member').length
  const rules = pending.length - members
  return [
    members === 0 ? '' : `, ${plural(members, 'member')} without keys`,
    rules === 0 ? '' : `, ${plural(rules, 'rule file')} not accepted`,
  ].join('')
}
