/**
 * How many requests a user, or an address without a login, may send in a second: a bucket for each that fills again. Off unless the
 * operator says a number; logins have limits of their own, see login-limits.ts.
 * @module
 */
import { ApiError } from './errors.ts'

/** So many seconds' worth may come at once. */
const BURST_S = 10
const MAX_KEYS = 10_000

export class Rates {
  readonly #perSecond: number
  readonly #buckets = new Map<string, { left: number; at: number }>()

  constructor(perSecond: number) {
    this.#perSecond = perSecond
  }

  /**
   * Takes one request of somebody.
   *
   * @param now - Milliseconds of a clock that does not jump.
   * @throws {ApiError} 429 with `Retry-After`
   */
  take(key: string, now: number): void {
    const most = this.#perSecond * BURST_S
    const before = this.#buckets.get(key)
    const left =
      before === undefined ? most : Math.min(most, before.left + ((now - before.at) / 1000) * this.#perSecond)
    // The newest is last, so that the oldest makes way.
    this.#buckets.delete(key)
    this.#buckets.set(key, { left: Math.max(0, left - 1), at: now })
    if (this.#buckets.size > MAX_KEYS) {
      for (const oldest of this.#buckets.keys()) {
        this.#buckets.delete(oldest)
        break
      }
    }
    if (left >= 1) return
    const waitS = Math.max(1, Math.ceil((1 - left) / this.#perSecond))
    throw new ApiError(429, undefined, 'Too many requests', { 'Retry-After': String(waitS) })
  }
}
