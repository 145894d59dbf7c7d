/** A fixed number of permits to hold something. @module */
import { cancelled } from '../errors.ts'

export interface Permits {
  /** Waits for its turn. */
  take(signal: AbortSignal): Promise<void>
  /** Takes one if one is free and nobody waits for it. */
  takeFree(): boolean
  give(): void
}

export function createPermits(count: number): Permits {
  const waiting: (() => void)[] = []
  let free = count
  function takeFree(): boolean {
    if (free === 0) return false
    free--
    return true
  }
  return {
    takeFree,
    async take(signal) {
      if (signal.aborted) throw cancelled(signal)
      if (takeFree()) return
      await new Promise<void>((resolve, reject) => {
        const stop = () => {
          waiting.splice(waiting.indexOf(deliver), 1)
          reject(cancelled(signal))
        }
        const deliver = () => {
          signal.removeEventListener('abort', stop)
          resolve()
        }
        waiting.push(deliver)
        signal.addEventListener('abort', stop, { once: true })
      })
    },
    give() {
      const next = waiting.shift()
      if (next === undefined) free++
      else next()
    },
  }
}
