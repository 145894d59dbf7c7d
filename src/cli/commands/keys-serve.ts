/** keys serve: hands out file keys until a signal. SIGHUP reads login, key password and trusted keys anew. @module */
import type { KeyServerRound } from '../../client/index.ts'
import { systemClock } from '../../environment.ts'
import { cancelled, SyncError, toSyncError } from '../../errors.ts'
import { type RunEnd, reported } from '../automation.ts'
import { connect } from '../connect.ts'
import { type Context, integerOption, measured, text } from '../context.ts'
import { display, plural } from '../display.ts'
import { EXIT, exitCodeOf, signalExit } from '../exit-codes.ts'
import { createMetrics } from '../metrics.ts'
import { listenForMetrics } from '../metrics-listener.ts'
import { waitingLine } from '../output.ts'
import { parseDuration } from '../settings.ts'

const MIN_INTERVAL_MS = 1_000

function exitCodeOfRound({ stoppedBy, refused, skipped }: KeyServerRound): number {
  if (stoppedBy !== undefined) return exitCodeOf(stoppedBy)
  if (refused.some(({ error }) => error.class === 'integrity')) return EXIT.integrity
  if (refused.some(({ error }) => error.class === 'safety')) return EXIT.safety
  return skipped > 0 ? EXIT.partial : EXIT.done
}

/** Tells of a round what is worth a line. */
function tellRound({ output }: Context, round: KeyServerRound, named: Set<string>): void {
  if (round.handedOut > 0) {
    output.result(`Handed out ${plural(round.handedOut, 'file key')}`, {
      type: 'keys-handed-out',
      time: new Date(systemClock.now()).toISOString(),
      handedOut: round.handedOut,
      skipped: round.skipped,
    })
  }
  if (round.stoppedBy !== undefined) output.warn(`This round has failed: ${round.stoppedBy.message}`)
  const now = new Set<string>()
  for (const { member, userId, error } of round.refused) {
    const id = `${userId} ${error.code} ${error.message}`
    now.add(id)
    if (named.has(id)) continue
    output.info(`  ${error.hint ?? ''}`)
    if (output.json) {
      output.result('', { type: 'refused', member, userId, code: error.code, message: error.message })
    }
  }
  // Who is not among them any more is told of again should they come back.
  for (const id of named) if (!now.has(id)) named.delete(id)
  for (const id of now) named.add(id)
}

/** Aborts what is at work at each SIGHUP; at a terminal that ends the command instead, as the terminal is gone then. */
function watchReload(): { next(): AbortSignal; end(): void } {
  let controller = new AbortController()
  const reload = () => controller.abort()
  const isService = process.stdin.isTTY !== true
  if (isService) process.on('SIGHUP', reload)
  return {
    next() {
      if (controller.signal.aborted) controller = new AbortController()
      return controller.signal
    },
    end: () => void (isService && process.off('SIGHUP', reload)),
  }
}

export async function serve(context: Context): Promise<number> {
  const { options, output, signal } = context
  const intervalMs = measured(context, 'interval', parseDuration, '5m')
  if (intervalMs !== undefined && intervalMs < MIN_INTERVAL_MS) {
    throw new SyncError('usage', 'OPTION_INVALID', '--interval takes a time from 1s')
  }
  const atMost = integerOption(options, 'at-most', { min: 1, max: 1_000_000 })
  const port = integerOption(options, 'metrics-listen', { min: 0, max: 65_535 })
  const room = text(options, 'room')
  const places = { command: 'keys serve', local: '', remote: room ?? '/' }
  const metrics = createMetrics(places)
  const listener = port === undefined ? undefined : await listenForMetrics(port, metrics.text)
  if (listener !== undefined) {
    output.result(`Figures are at ${listener.url}`, { type: 'metrics', url: listener.url })
  }
  const named = new Set<string>()
  let handedOutSinceStart = 0

  /** As any run: told of by events, figures and pings. */
  async function onRound(begin: () => Promise<KeyServerRound>): Promise<KeyServerRound> {
    const begun = systemClock.monotonic()
    const { round, ...end } = await reported(context, places, async (): Promise<RunEnd & { round: KeyServerRound }> => {
      const done = await begin()
      if (!signal.aborted) tellRound(context, done, named)
      handedOutSinceStart += done.handedOut
      const summary = {
        handedOut: done.handedOut,
        handedOutSinceStart,
        skipped: done.skipped,
        refused: done.refused.map(({ member, userId, error }) => ({ member, userId, code: error.code })),
        stoppedBy: done.stoppedBy?.code,
      }
      return { round: done, summary, exitCode: exitCodeOfRound(done) }
    })
    const endedAt = systemClock.now()
    metrics.set({ ...end, seconds: (systemClock.monotonic() - begun) / 1_000, endedAt })
    return round
  }

  const reload = watchReload()
  try {
    for (;;) {
      const reloads = reload.next()
      const { client } = await connect(context, (event) => {
        if (event.type === 'warning') output.warn(event.message)
        if (event.type === 'waiting') output.info(waitingLine(event))
        if (event.type === 'run-again') output.info(`The next try is in ${Math.round(event.delayMs / 1_000)} s.`)
        if (event.type === 'key-pinned') output.info(`trusted from now on: ${display(event.member, 80)}`)
      })
      try {
        const until = AbortSignal.any([signal, reloads])
        const end = await client.keys.serve({ room, intervalMs, atMost, onRound, signal: until })
        if (end === 'key-pair-changed') output.info('The account has another key pair; going on with that.')
      } finally {
        await client.close()
      }
      if (signal.aborted) return signalExit(toSyncError(cancelled(signal)))
      if (reloads.aborted) output.info('Reading everything anew.')
    }
  } finally {
    reload.end()
    await listener?.close()
  }
}
