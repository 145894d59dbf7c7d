/**
 * How fast something goes, when what is done comes in pieces: an average over the last half minute or so, in which older pieces count
 * less and less. Pure; whoever asks says what time it is, in milliseconds.
 * @module
 */

const MEMORY_MS = 30_000

/** Before this time, and before two pieces have come, a rate would be a guess. */
const KNOWN_AFTER_MS = 3_000
const KNOWN_AFTER_PIECES = 2

/** As long as nothing comes, nobody knows. */
const SILENT_MS = 30_000

export interface Estimate {
  /** Something has been done. */
  add(amount: number, now: number): void
  /** Per second; `undefined` as long as it is not known, or not any more. */
  rate(now: number): number | undefined
}

/** @param begun - When the first piece was begun. */
export function createEstimate(begun: number): Estimate {
  let sum = 0
  let last = begun
  let pieces = 0
  const faded = (now: number) => sum * Math.exp(-Math.max(0, now - last) / MEMORY_MS)
  return {
    add(amount, now) {
      if (!(amount > 0)) return
      sum = faded(now) + amount
      last = Math.max(last, now)
      pieces++
    },
    rate(now) {
      if (pieces < KNOWN_AFTER_PIECES || now - begun < KNOWN_AFTER_MS || now - last > SILENT_MS) return undefined
      // What a steady rate would have left in the sum by now.
      const seconds = (MEMORY_MS / 1000) * (1 - Math.exp(-(now - begun) / MEMORY_MS))
      return faded(now) / seconds
    },
  }
}
