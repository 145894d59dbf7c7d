/**
 * What a command does, for those who look later: one JSON object per line, in a private file that only grows (`--log-file`). Secrets
 * are cut out of every text; with `--log-redact names` nothing is written that could hold the name of a file, a folder or a room. What
 * goes wrong with the log is warned of once, and changes nothing else.
 * @module
 */
import { closeSync, constants, openSync, writeSync } from 'node:fs'
import type { HeaderTrace, Logger, redact as Redact, RunEvent, TraceHooks } from '../client/index.ts'
import { localError, toSyncError } from '../errors.ts'
import { jsonLine } from './display.ts'
import type { Output } from './output.ts'
import type { Settings } from './settings.ts'

const LEVELS = ['error', 'warn', 'info', 'debug'] as const
export type LogLevel = (typeof LEVELS)[number]

export interface Log {
  /** What is written of messages and events, and what `--trace-http` asks for. */
  readonly logger: Logger | undefined
  readonly trace: TraceHooks | undefined
  /**
   * Adds a record.
   *
   * @param fields - Without names of files; those are in `named`.
   * @param named - May hold such names, also inside of texts: left out where they are not wanted.
   */
  write(level: LogLevel, event: string, fields?: object, named?: object): void
  event(event: RunEvent): void
  close(): void
}

const MAX_TEXT = 1_000

const PLACES: ReadonlySet<string> = new Set(['path', 'from', 'copy'])

function cut(value: unknown, redact: typeof Redact): unknown {
  if (typeof value === 'string') return redact(value, [], MAX_TEXT)
  if (Array.isArray(value)) return value.slice(0, 100).map((one) => cut(one, redact))
  if (typeof value !== 'object' || value === null) return value
  // A long path looks like a token, and is none.
  const shown = ([name, one]: [string, unknown]) => [
    name,
    PLACES.has(name) && typeof one === 'string' ? one : cut(one, redact),
  ]
  return Object.fromEntries(Object.entries(value).map(shown))
}

/** Events that are too many for anything but a search for a fault. */
const DETAILS: ReadonlySet<RunEvent['type']> = new Set([
  'file-started',
  'part-confirmed',
  'ignored',
  'phase',
  'planned',
])
const WARNINGS: ReadonlySet<RunEvent['type']> = new Set(['file-failed', 'warning', 'conflict', 'waiting', 'retry'])
/** Of events: all that is never the name of something. */
const NAMELESS: ReadonlySet<string> = new Set([
  'type',
  'bytes',
  'files',
  'skipped',
  'code',
  'count',
  'delayMs',
  'leftMs',
  'do',
  'attempt',
  'userId',
  'fingerprint',
])

const levelOf = ({ type }: RunEvent): LogLevel => (DETAILS.has(type) ? 'debug' : WARNINGS.has(type) ? 'warn' : 'info')

/** Where records go; opened when the first one comes. */
function openSink(path: string, warn: (text: string) => void) {
  let fd: number | undefined
  let isBroken = false
  return {
    add(line: string): void {
      if (isBroken) return
      try {
        // Not through a link that somebody has put there; a new one is not readable for others.
        const flags = constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | (constants.O_NOFOLLOW ?? 0)
        fd ??= openSync(path, flags, 0o600)
        writeSync(fd, `${line}\n`)
      } catch (error) {
        isBroken = true
        warn(`${toSyncError(localError(error, `write the log ${path}`)).message}; there will be no more of it`)
      }
    },
    close(): void {
      if (fd !== undefined) closeSync(fd)
      fd = undefined
    },
  }
}

/** A line for people, as `curl -v` has them. */
function headerLines({ id, direction, headers }: HeaderTrace): string[] {
  const sign = direction === 'request' ? '>' : '<'
  return Object.entries(headers).map(([name, value]) => `${sign} ${id} ${name}: ${value}`)
}

/** What the settings ask for; without them nothing is written. */
export async function openLog(settings: Settings, output: Pick<Output, 'warn' | 'info'>): Promise<Log> {
  const path = settings.text('log-file')
  const traces = settings.flag('trace-http')
  const most = LEVELS.indexOf((settings.text('log-level') ?? 'info') as LogLevel)
  const hidesNames = settings.text('log-redact') === 'names'
  // Commands without a log need nothing of it.
  const { redact } = path === undefined ? { redact: (text: string) => text } : await import('../client/index.ts')
  const sink = path === undefined ? undefined : openSink(path, (text) => output.warn(text))

  function write(level: LogLevel, event: string, fields: object = {}, named: object = {}): void {
    if (sink === undefined || LEVELS.indexOf(level) > most) return
    const head = { time: new Date().toISOString(), level, pid: process.pid, event }
    sink.add(jsonLine({ ...head, ...(cut({ ...fields, ...(hidesNames ? {} : named) }, redact) as object) }))
  }

  /** With a file they are in it, whatever its level; without one they are said. */
  function tellHttp(event: string, fields: object, lines: () => readonly string[]): void {
    if (!traces) return
    if (sink === undefined) for (const line of lines()) output.info(line)
    else sink.add(jsonLine({ time: new Date().toISOString(), level: 'debug', pid: process.pid, event, ...fields }))
  }
  const ofLevel = (level: LogLevel) => (message: string, fields?: object) =>
    write(level, 'session', fields, { message })

  return {
    write,
    close: () => sink?.close(),
    logger:
      sink === undefined
        ? undefined
        : { debug: ofLevel('debug'), info: ofLevel('info'), warn: ofLevel('warn'), error: ofLevel('error') },
    trace: traces
      ? {
          onRequest: (one) =>
            tellHttp('http-request', one, () => [
              `> ${one.id} ${one.method} ${one.origin}${one.path} (${one.bytes} bytes)`,
            ]),
          onResponse: (one) =>
            tellHttp('http-response', one, () => [
              `< ${one.id} ${one.status ?? one.error} in ${Math.round(one.ms)} ms`,
            ]),
          onHeaders: (one) => tellHttp('http-headers', one, () => headerLines(one)),
          onConnect: (one) =>
            tellHttp('http-connect', one, () => [`* connected to ${one.origin} (${one.address ?? 'unknown'})`]),
          onTls: (one) => tellHttp('http-tls', one, () => [`* ${one.protocol}, ${one.cipher}`]),
        }
      : undefined,
    event(event) {
      const all = Object.entries(event)
      const plain = all.filter(([name]) => NAMELESS.has(name) && name !== 'type')
      const named = all.filter(([name]) => !NAMELESS.has(name))
      write(levelOf(event), event.type, Object.fromEntries(plain), Object.fromEntries(named))
    },
  }
}

/** An output of which the log gets what is said. */
export const logged = (output: Output, log: Log): Output => ({
  ...output,
  warn(text) {
    log.write('warn', 'said', {}, { message: text })
    output.warn(text)
  },
  info(text) {
    log.write('info', 'said', {}, { message: text })
    output.info(text)
  },
  error(error, exitCode, how) {
    const { code, class: kind, message } = error
    log.write('error', 'failed', { code, class: kind, exitCode }, { message })
    output.error(error, exitCode, how)
  },
})
