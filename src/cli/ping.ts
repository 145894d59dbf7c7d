/**
 * Tells a monitoring service that a run has begun and how it ended: GET of URL/start, then URL or URL/EXITCODE. The URL is all
 * it takes to send such a ping, so no more than its origin is ever shown.
 * @module
 */

import { createDialer } from '../client/index.ts'
import { systemClock } from '../environment.ts'
import { SyncError, toSyncError } from '../errors.ts'
import { VERSION } from '../version.ts'
import type { Context } from './context.ts'
import { transportOf } from './transport.ts'

const TRIES = 2
const LIMIT_MS = 10_000
const RETRY_MS = 500
/** A second signal, or our own limit, ends the process soon after the first one. */
const CANCELLED_LIMIT_MS = 2_000

export interface Ping {
  started(): void
  ended(exitCode: number): Promise<void>
}

/** @param url - Absent: nobody is told. */
export function createPing({ settings, output, signal }: Context, url: string | undefined): Ping {
  if (url === undefined) return { started() {}, async ended() {} }
  const { origin } = new URL(url)

  async function send(suffix: string, tries: number, limitMs: number): Promise<void> {
    const target = new URL(url!)
    target.pathname = target.pathname.replace(/\/*$/, '') + suffix
    let dialer: ReturnType<typeof createDialer> | undefined
    try {
      const transport = await transportOf(settings, origin)
      // Certificate, pins and headers are for the files' server.
      dialer = createDialer({ ...transport, userAgent: `sealsync|${VERSION}`, ownOrigins: [], keepAliveMs: 0 })
      for (let attempt = 1; ; attempt++) {
        try {
          const stop = AbortSignal.timeout(limitMs)
          const { status } = await dialer.send({ method: 'GET', url: target.href, signal: stop, label: 'ping' })
          if (status < 300) return
          throw new SyncError('server', 'PING_REFUSED', `status ${status}`, { retryable: status >= 500 })
        } catch (thrown) {
          const error = toSyncError(thrown)
          if (attempt >= tries || !error.retryable) throw error
          await systemClock.sleep(RETRY_MS)
        }
      }
    } catch (error) {
      output.warn(`${origin} was not told of the run: ${toSyncError(error).message}`)
    } finally {
      await dialer?.close()
    }
  }

  // The run does not wait for it; only the second ping does, so that they arrive in order.
  let first: Promise<void> | undefined
  return {
    started() {
      first = send('/start', TRIES, LIMIT_MS)
    },
    async ended(exitCode) {
      const suffix = exitCode === 0 ? '' : `/${exitCode}`
      if (signal.aborted) return send(suffix, 1, CANCELLED_LIMIT_MS)
      await first
      return send(suffix, TRIES, LIMIT_MS)
    },
  }
}
