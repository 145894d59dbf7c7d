/** Time under control: sleeps end at once and move the clock, or wait for `advance`. */
import type { Clock, Random } from '../../src/environment.ts'
import { cancelled } from '../../src/errors.ts'

export interface FakeClock extends Clock {
  /** Every wait asked for, in order. */
  readonly sleeps: number[]
  /** Moves both clocks on and ends the sleeps that are due. */
  advance(ms: number): void
  /** Moves the wall clock alone, as a person or NTP would. */
  jump(ms: number): void
  /** Sleeps that have not ended. */
  pending(): number
}

/** @param mode - `auto`: a sleep moves the clock and ends; `manual`: it waits for `advance`. */
export function fakeClock(mode: 'auto' | 'manual' = 'auto', start = Date.UTC(2026, 0, 15, 12)): FakeClock {
  let elapsed = 0
  let wall = start
  const sleeps: number[] = []
  const waiting = new Set<{ at: number; end: () => void }>()
  const advance = (ms: number) => {
    elapsed += ms
    wall += ms
    for (const sleeper of [...waiting]) {
      if (sleeper.at > elapsed) continue
      waiting.delete(sleeper)
      sleeper.end()
    }
  }
  return {
    sleeps,
    advance,
    jump: (ms) => {
      wall += ms
    },
    pending: () => waiting.size,
    now: () => wall,
    monotonic: () => elapsed,
    sleep(ms, signal) {
      sleeps.push(ms)
      if (signal?.aborted) return Promise.reject(cancelled(signal))
      if (mode === 'auto') {
        advance(ms)
        return Promise.resolve()
      }
      return new Promise((resolve, reject) => {
        const sleeper = { at: elapsed + ms, end: resolve }
        waiting.add(sleeper)
        signal?.addEventListener(
          'abort',
          () => {
            waiting.delete(sleeper)
            reject(cancelled(signal))
          },
          { once: true },
        )
      })
    },
  }
}

/** The same number every time. */
export const steadyRandom = (value = 0): Random => ({ next: () => value })

/** CPU time of this process, in milliseconds: for bounds of work, which must not depend on what else the machine does. */
export function spentMs(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}

/** Lets everything run that can run without time passing. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve))
}
