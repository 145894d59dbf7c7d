/**
 * How many requests are under way, and a promise for when none is. An answer that is read as a stream counts to its end.
 * @module
 */
import { withEnd } from './stream-end.ts'
import type { Send } from './types.ts'

export interface InFlight {
  /** Counts what goes through it. */
  wrap(send: Send): Send
  count(): number
  /** Resolves when nothing is under way. */
  idle(): Promise<void>
}

export function createInFlight(): InFlight {
  let count = 0
  const waiting = new Set<() => void>()
  const enter = () => {
    count++
    let isOver = false
    return () => {
      if (isOver) return
      isOver = true
      if (--count > 0) return
      for (const resolve of waiting) resolve()
      waiting.clear()
    }
  }

  return {
    wrap: (send) => async (request) => {
      const leave = enter()
      try {
        const response = await send(request)
        if (response.stream !== undefined) return { ...response, stream: withEnd(response.stream, leave) }
        leave()
        return response
      } catch (error) {
        leave()
        throw error
      }
    },
    count: () => count,
    idle: () => (count === 0 ? Promise.resolve() : new Promise((resolve) => void waiting.add(resolve))),
  }
}
