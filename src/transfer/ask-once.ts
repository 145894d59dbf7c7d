/** Questions whose answers stay: asked once for all who wait. @module */
import { toSyncError } from '../errors.ts'

export interface AskOnce<T> {
  /** The answer; asked for when there is none. Rejects with what the question itself ended with. */
  get(signal?: AbortSignal): Promise<T>
  /** It may not be so any more. */
  forget(): void
}

/**
 * @param ask - Asks; a failure is not kept. Whoever asks first may give up: the others ask again then.
 * @param isKept - False for an answer that may be another one the next time.
 */
export function askOnce<T>(
  ask: (signal?: AbortSignal) => Promise<T>,
  isKept: (answer: T) => boolean = () => true,
): AskOnce<T> {
  let known: Promise<T> | undefined
  const drop = (one: Promise<T>) => {
    if (known === one) known = undefined
  }
  return {
    async get(signal) {
      for (;;) {
        const own = known === undefined ? ask(signal) : undefined
        known ??= own
        const asked = known!
        try {
          const answer = await asked
          if (!isKept(answer)) drop(asked)
          return answer
        } catch (error) {
          drop(asked)
          if (asked === own || toSyncError(error).class !== 'cancelled') throw error
        }
      }
    },
    forget() {
      known = undefined
    },
  }
}
