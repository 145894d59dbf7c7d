/**
 * What a run tells programs that watch over it: events as they happen, figures of its end, and a ping. Nothing that goes wrong
 * here changes the run or its exit code; it is warned of.
 * @module
 */
import { closeSync, openSync, writeSync } from 'node:fs'
import type { RunEvent } from '../client/index.ts'
import { systemClock } from '../environment.ts'
import { localError, toSyncError } from '../errors.ts'
import type { Context } from './context.ts'
import { jsonLine } from './display.ts'
import { exitCodeOf } from './exit-codes.ts'
import { type RunEnd, type RunPlaces, writeMetrics } from './metrics.ts'
import { type Output, writeResult } from './output.ts'
import { createPing } from './ping.ts'

export type { RunEnd, RunPlaces } from './metrics.ts'

/** Not worth a line each: progress only. */
const QUIET: ReadonlySet<RunEvent['type']> = new Set(['file-started', 'part-confirmed', 'phase', 'ignored'])

/** Where events go, one line each; `-` is standard output. */
function openEvents(target: string | undefined, output: Output): { write(event: object): void; close(): void } {
  let fd: number | undefined
  const attempt = (work: () => void) => {
    try {
      work()
    } catch (error) {
      fd = undefined
      output.warn(`${toSyncError(localError(error, `write events to ${target}`)).message}; there will be no more`)
    }
  }
  if (target !== undefined && target !== '-') {
    attempt(() => {
      fd = openSync(target, 'a', 0o600)
    })
  }
  return {
    write(event) {
      if (target === '-') writeResult(jsonLine(event))
      else if (fd !== undefined) attempt(() => writeSync(fd!, `${jsonLine(event)}\n`))
    },
    close() {
      if (fd !== undefined) closeSync(fd)
    },
  }
}

/**
 * Does a run and tells of it by the settings `events`, `metrics-file` and `ping-url`.
 *
 * @param work - The run; it passes on its events and prints its own summary.
 */
export async function reported<T extends RunEnd>(
  context: Context,
  places: RunPlaces,
  work: (onEvent: (event: RunEvent) => void) => Promise<T>,
): Promise<T> {
  const { output, settings } = context
  const run = globalThis.crypto.randomUUID()
  const begun = systemClock.monotonic()
  const events = openEvents(settings.text('events'), output)
  const tell = ({ type, ...event }: { readonly type: string } & Record<string, unknown>) =>
    events.write({ time: new Date(systemClock.now()).toISOString(), run, type, ...event })
  const ping = createPing(context, settings.text('ping-url'))

  async function end({ exitCode, summary }: RunEnd): Promise<void> {
    tell({ type: 'run-ended', exitCode, summary })
    events.close()
    const file = settings.text('metrics-file')
    if (file !== undefined) {
      const seconds = (systemClock.monotonic() - begun) / 1_000
      await writeMetrics(file, places, { exitCode, summary, seconds, endedAt: systemClock.now() }).catch((error) =>
        output.warn(`The metrics are not written: ${toSyncError(error).message}`),
      )
    }
    await ping.ended(exitCode)
  }

  tell({ type: 'run-started', ...places })
  ping.started()
  let result: T
  try {
    result = await work((event) => {
      if (!QUIET.has(event.type)) tell(event)
    })
  } catch (error) {
    await end({ exitCode: exitCodeOf(toSyncError(error)), summary: {} })
    throw error
  }
  await end(result)
  return result
}
