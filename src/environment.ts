/**
 * The outside world as plain objects, so that tests can supply their own: clock, randomness for jitter, and questions to a
 * person. Keys, IVs and PKCE values never come from here.
 * @module
 */
import { cancelled } from './errors.ts'

/** Time, and waiting. */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number
  /** Milliseconds on a clock that never jumps. */
  monotonic(): number
  /** Waits; rejects with the signal's reason when aborted. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
}

/** The clock of this machine. */
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(cancelled(signal))
      const stop = () => {
        clearTimeout(timer)
        reject(cancelled(signal!))
      }
      const timer = setTimeout(() => {
        signal?.removeEventListener('abort', stop)
        resolve()
      }, ms)
      signal?.addEventListener('abort', stop, { once: true })
    }),
}

/** For jitter and temporary names only. */
export interface Random {
  /** In [0, 1). */
  next(): number
}

export const systemRandom: Random = { next: () => globalThis.crypto.getRandomValues(new Uint32Array(1))[0]! / 2 ** 32 }

/** What a person needs for a device login, as the server said it: show it through a filter. */
export interface DeviceCode {
  readonly userCode: string
  readonly verificationUri: string
  /** The same with the code in it. */
  readonly verificationUriComplete?: string
  readonly expiresInMs: number
}

/** Questions to a person. A part that has nobody to ask leaves the functions out. */
export interface Ui {
  /** Opens, or shows, a login page. */
  openUrl(url: string): Promise<void>
  /** Shows the code of a device login (RFC 8628 §3.3), and where to type it. */
  showCode?(code: DeviceCode): Promise<void>
  /**
   * Asks for a secret without echo: a password, a one-time code. Rejects when there is no terminal.
   *
   * @param signal - Aborts when the answer has come from elsewhere.
   */
  askSecret(question: string, signal?: AbortSignal): Promise<string>
}

/** The outside world; parts that are left out are the real ones. */
export interface Environment {
  readonly clock: Clock
  readonly random: Random
  readonly ui?: Ui
}
