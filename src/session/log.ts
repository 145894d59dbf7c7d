/**
 * A session's log: what happens, by an allow-list, with every secret cut out before a logger sees it.
 * @module
 */
import { redact, type Secrets } from '../http/redact.ts'
import { type TraceHooks, tell } from '../http/trace.ts'

/** What a line of a log says besides its message; without secrets. */
export type LogFields = Readonly<Record<string, string | number | boolean | undefined>>

/** What most logging libraries have; functions that are missing are not called. */
export interface Logger {
  debug?(message: string, fields?: LogFields): void
  info?(message: string, fields?: LogFields): void
  warn?(message: string, fields?: LogFields): void
  error?(message: string, fields?: LogFields): void
}

export type Level = 'debug' | 'info' | 'warn' | 'error'
export type Log = (level: Level, message: string, fields?: LogFields) => void

const MAX_MESSAGE = 500
const MAX_FIELD = 200

/** A logger as a function that cuts out secrets, and that cannot fail. */
export function createLog(logger: Logger | undefined, secrets: Secrets): Log {
  if (logger === undefined) return () => {}
  return (level, message, fields = {}) => {
    if (logger[level] === undefined) return
    const shown = Object.entries(fields)
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => [name, typeof value === 'string' ? redact(value, secrets.list, MAX_FIELD) : value])
    const text = redact(message, secrets.list, MAX_MESSAGE)
    tell<LogFields>((same) => logger[level]?.(text, same), Object.fromEntries(shown))
  }
}

/** Hooks that write requests, connections and repetitions into a log. */
export const logHooks = (log: Log): TraceHooks => ({
  onRequest: ({ id, method, origin, path, bytes }) => log('debug', 'request', { id, method, origin, path, bytes }),
  onResponse: (event) => log(event.status === undefined ? 'warn' : 'debug', 'response', { ...event }),
  onConnect: (event) => log('debug', 'connected', { ...event }),
  onTls: (event) => log('debug', 'tls', { ...event }),
  onRetry: (event) => log('info', 'repeating', { ...event }),
})
