/**
 * Everything the command line says: results on stdout (`--json`: one object per line), progress and errors on stderr. All
 * foreign text passes `display`.
 * @module
 */
import type { RunEvent, RunSummary } from '../client/index.ts'
import type { SyncError } from '../errors.ts'
import { showFingerprint } from '../fingerprint.ts'
import { display, jsonLine, plural, showBytes } from './display.ts'
import { showTyping } from './echo.ts'
import { createEstimate, type Estimate } from './estimate.ts'
import {
  type BarLetters,
  durationText,
  fileLine,
  type ProgressState,
  phaseLine,
  progressLine,
} from './progress-line.ts'
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
      if (error.hint !== undefined) write(process.stderr, `  ${display(error.hint)}`)
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

/** So many bytes take about as long as a small file takes because it is a file. */
const BYTES_OF_A_FILE = 64 * 1024

/** Counts what a run has done, and says how fast it goes. Times in milliseconds. */
function createTally(verb: string) {
  let all = { files: 0, bytes: 0 }
  let files = 0
  let bytes = 0
  let work: Estimate | undefined
  let content: Estimate | undefined
  /** Of files on their way: what is confirmed. */
  const confirmed = new Map<string, number>()
  const advance = (more: number, ended: number, now: number) => {
    bytes += more
    files += ended
    content?.add(more, now)
    work?.add(more + ended * BYTES_OF_A_FILE, now)
  }
  /** What was confirmed of a file does not count any more. */
  const takeBack = (path: string) => {
    bytes -= confirmed.get(path) ?? 0
    confirmed.delete(path)
  }
  return {
    plan(planned: { readonly files: number; readonly bytes: number }) {
      all = { files: planned.files, bytes: planned.bytes }
    },
    start(path: string, now: number) {
      // A new attempt starts from nothing.
      takeBack(path)
      work ??= createEstimate(now)
      content ??= createEstimate(now)
    },
    confirm(path: string, more: number, now: number) {
      confirmed.set(path, (confirmed.get(path) ?? 0) + more)
      advance(more, 0, now)
    },
    end(path: string, size: number, now: number) {
      const left = Math.max(0, size - (confirmed.get(path) ?? 0))
      confirmed.delete(path)
      advance(left, 1, now)
    },
    fail: takeBack,
    isPlanned: () => all.files > 0,
    state(now: number): ProgressState {
      const most = all.bytes + all.files * BYTES_OF_A_FILE
      const done = bytes + files * BYTES_OF_A_FILE
      const speed = work?.rate(now)
      return {
        verb,
        share: most === 0 ? 0 : Math.min(1, Math.max(0, done / most)),
        files,
        allFiles: all.files,
        bytes,
        allBytes: all.bytes,
        rate: content?.rate(now),
        secondsLeft: speed === undefined ? undefined : Math.max(0, most - done) / speed,
      }
    },
  }
}

/** The same for a log, without a terminal. */
function plainLine({ verb, files, allFiles, bytes, allBytes, rate, secondsLeft }: ProgressState): string {
  return [
    `${verb}: ${files} of ${plural(allFiles, 'file')}`,
    `${showBytes(bytes)} of ${showBytes(allBytes)}`,
    ...(rate === undefined ? [] : [`${showBytes(Math.round(rate))}/s`]),
    ...(secondsLeft === undefined || files === allFiles ? [] : [`ETA ${durationText(secondsLeft)}`]),
  ].join(', ')
}

/** Where lines can be drawn again; what is no terminal for people gets a line now and then. */
const canDraw = () => {
  const { CI, TERM } = process.env
  return process.stderr.isTTY === true && TERM !== 'dumb' && (CI === undefined || ['', '0', 'false'].includes(CI))
}

/** Bars on a terminal, a line every few seconds elsewhere; with `--json` a line per file on stdout as well. */
export async function createProgress(output: Output, verb: string): Promise<Progress> {
  const shown = !output.quiet && !output.json && canDraw() ? await createShown(verb) : undefined
  const tally = createTally(verb)
  let timer: NodeJS.Timeout | undefined
  const now = () => performance.now()
  const line = () => output.info(plainLine(tally.state(now())))
  return {
    onEvent(event) {
      switch (event.type) {
        case 'phase':
          output.detail(event.text)
          shown?.phase(event.text)
          break
        case 'ignored':
          output.detail(`left out: ${event.path}`)
          break
        case 'planned':
          tally.plan(event)
          output.detail(
            `${plural(event.files, 'file')} to transfer (${showBytes(event.bytes)}), ${event.skipped} unchanged`,
          )
          shown?.count(() => tally.state(now()))
          if (shown === undefined && event.files > 0) timer ??= setInterval(line, LINE_EVERY_MS).unref()
          break
        case 'file-started':
          showTyping()
          tally.start(event.path, now())
          shown?.startFile(event.path, event.bytes)
          break
        case 'part-confirmed':
          tally.confirm(event.path, event.bytes, now())
          shown?.advanceFile(event.path, event.bytes)
          break
        case 'file-done':
          tally.end(event.path, event.bytes, now())
          shown?.endFile(event.path)
          if (output.verbose) output.detail(`done ${event.path} (${showBytes(event.bytes)})`)
          if (output.json) output.result('', { type: 'file', path: event.path, status: 'done', bytes: event.bytes })
          break
        case 'file-failed':
          tally.fail(event.path)
          shown?.endFile(event.path)
          output.warn(`${display(event.path, 200)}: ${event.message}`)
          if (output.json) {
            const { path, code, message } = event
            output.result('', { type: 'file', path, status: 'failed', code, message })
          }
          break
        case 'retry':
          output.detail(`trying again in ${Math.round(event.delayMs)} ms: ${event.reason}`)
          break
        case 'waiting':
          shown?.phase('waiting for the server')
          output.info(waitingLine(event))
          break
        case 'conflict':
          output.warn(`Both sides changed ${event.path}; yours is ${event.copy} now`)
          break
        case 'warning':
          output.warn(event.message)
          break
        case 'key-pinned':
          output.info(
            `${event.member} is trusted from now on; compare the key with theirs: ${showFingerprint(event.fingerprint)}`,
          )
          break
        case 'keys-handed-out':
          output.detail(`handed out ${plural(event.count, 'file key')}`)
          break
      }
    },
    stop() {
      if (timer !== undefined) {
        clearInterval(timer)
        if (tally.isPlanned()) line()
      }
      shown?.stop()
    },
  }
}

/** Files from this size have a bar of their own, a few at a time; smaller ones would only flicker. */
const OWN_BAR_FROM = 8 * 1024 * 1024
const OWN_BARS = 4

/** Blocks where the terminal has them, and they take one column for sure. */
const barLetters = (): BarLetters => {
  const { LC_ALL, LC_CTYPE, LANG } = process.env
  const locale = LC_ALL || LC_CTYPE || LANG || ''
  return process.platform !== 'linux' || /utf-?8/i.test(locale) ? ['█', '░'] : ['#', '-']
}

async function createShown(verb: string) {
  const { createBars } = await import('./bars.ts')
  const bars = createBars(process.stderr)
  const letters = barLetters()
  const own = new Map<string, { bytes: number; remove: () => void }>()
  let state: (() => ProgressState) | undefined
  let phase: { readonly text: string; readonly since: number } | undefined
  let isAdded = false
  const addMain = () => {
    if (isAdded) return
    isAdded = true
    bars.add((width) => {
      const seconds = phase === undefined ? 0 : (performance.now() - phase.since) / 1000
      if (state !== undefined) return progressLine({ ...state(), phase: phase?.text }, width, letters)
      return phase === undefined ? '' : phaseLine(verb, phase.text, seconds, width)
    })
  }
  function endFile(path: string): void {
    own.get(path)?.remove()
    own.delete(path)
  }
  return {
    phase(text: string) {
      phase = { text: text.charAt(0).toLowerCase() + text.slice(1), since: performance.now() }
      addMain()
    },
    /** From now on there is something to count. */
    count(counted: () => ProgressState) {
      state = counted
      phase = undefined
      if (counted().allFiles > 0) addMain()
    },
    startFile(path: string, size: number) {
      phase = undefined
      endFile(path)
      if (!isAdded || size < OWN_BAR_FROM || own.size >= OWN_BARS) return
      const one = { bytes: 0, remove: () => {} }
      own.set(path, one)
      one.remove = bars.add((width) => fileLine({ name: path, bytes: one.bytes, allBytes: size }, width, letters))
    },
    advanceFile(path: string, more: number) {
      phase = undefined
      const one = own.get(path)
      if (one !== undefined) one.bytes += more
    },
    endFile,
    stop: () => bars.stop(),
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
