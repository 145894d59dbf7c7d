/**
 * How often passwords and one-time codes may be tried: per account and per address, counted before the work, and how much of
 * the work is done at a time. Who may log in is users.ts.
 * @module
 */
import { OAuthError } from './errors.ts'

/** Failures of a name, or an address, within a time; then it has to wait for the rest of that time. */
export interface Rule {
  readonly most: number
  readonly withinMs: number
}

const PER_ACCOUNT: Rule = { most: 5, withinMs: 60_000 }
const PER_ADDRESS: Rule = { most: 30, withinMs: 60_000 }
/** Wrong codes after the right password. Six digits need more than a pause of a minute. */
const CODES_PER_ACCOUNT: Rule = { most: 30, withinMs: 86_400_000 }
const MAX_ENTRIES = 10_000
/** Logins that wait for their turn. */
const MAX_WAITING = 256
const MAX_WAITING_PER_ADDRESS = 64
/** Passwords hashed at once: each keeps a core busy and takes 16 MiB, and files need the same threads. */
const AT_ONCE = 1

interface Entry {
  failed: number
  /** When the first of them happened. */
  since: number
  /** Being checked right now: each counts as failed until it is known. */
  running: number
}

const tooMany = (waitMs: number): OAuthError =>
  new OAuthError(429, 'temporarily_unavailable', 'Too many failed logins', {
    'Retry-After': String(Math.max(1, Math.ceil(waitMs / 1000))),
  })

class Failures {
  readonly #rule: Rule
  readonly #entries = new Map<string, Entry>()

  constructor(rule: Rule) {
    this.#rule = rule
  }

  #entry(key: string, now: number): Entry | undefined {
    const entry = this.#entries.get(key)
    if (entry === undefined) return undefined
    // A clock that was set back must not lock anybody out for longer.
    if (Math.abs(now - entry.since) >= this.#rule.withinMs) entry.failed = 0
    return entry
  }

  /** Milliseconds to wait; 0 when one more may be tried. */
  waitMs(key: string, now: number): number {
    const entry = this.#entry(key, now)
    if (entry === undefined || entry.failed + entry.running < this.#rule.most) return 0
    return entry.failed === 0 ? 1000 : Math.max(1, entry.since + this.#rule.withinMs - now)
  }

  begin(key: string, now: number): void {
    const entry = this.#entry(key, now)
    if (entry !== undefined) entry.running++
    else {
      this.#makeRoom(now)
      this.#entries.set(key, { failed: 0, since: now, running: 1 })
    }
  }

  end(key: string, now: number, outcome: 'failed' | 'good' | 'neither'): void {
    const entry = this.#entry(key, now)
    if (entry === undefined) return
    entry.running--
    if (outcome === 'good') entry.failed = 0
    if (outcome === 'failed') {
      if (entry.failed === 0) entry.since = now
      entry.failed++
    }
    if (entry.failed === 0 && entry.running === 0) this.#entries.delete(key)
  }

  /** What has run out goes first, then what is oldest; never what is being checked. */
  #makeRoom(now: number): void {
    if (this.#entries.size < MAX_ENTRIES) return
    for (const onlyExpired of [true, false]) {
      for (const [key, { since, running }] of this.#entries) {
        if (this.#entries.size < MAX_ENTRIES) return
        const isExpired = Math.abs(now - since) >= this.#rule.withinMs
        if (running === 0 && (isExpired || !onlyExpired)) this.#entries.delete(key)
      }
    }
  }
}

/** Lets a few through at a time; addresses take turns. */
class Gate {
  readonly #waiting = new Map<string, (() => void)[]>()
  #count = 0
  #running = 0

  /** @throws {OAuthError} 429 when too many wait already. */
  async enter(address: string): Promise<() => void> {
    if (this.#running < AT_ONCE) this.#running++
    else {
      const line = this.#waiting.get(address) ?? []
      if (this.#count >= MAX_WAITING || line.length >= MAX_WAITING_PER_ADDRESS) throw tooMany(2000)
      this.#waiting.set(address, line)
      this.#count++
      await new Promise<void>((resolve) => line.push(resolve))
    }
    return () => this.#leave()
  }

  #leave(): void {
    const [next] = this.#waiting
    if (next === undefined) {
      this.#running--
      return
    }
    const [address, line] = next
    const resolve = line.shift()
    this.#count--
    this.#waiting.delete(address)
    if (line.length > 0) this.#waiting.set(address, line)
    resolve?.()
  }
}

/** What came of a try: `half` is the right password without the code that it needs. */
export type LoginOutcome = 'good' | 'half' | 'bad-password' | 'bad-code'

export class LoginLimits {
  readonly #accounts = new Failures(PER_ACCOUNT)
  readonly #addresses = new Failures(PER_ADDRESS)
  readonly #codes: Failures
  readonly #gate = new Gate()

  /** @param perDay - For what is tried against one secret for long: codes, or passwords of shares. */
  constructor(perDay: Rule = CODES_PER_ACCOUNT) {
    this.#codes = new Failures(perDay)
  }

  /**
   * Runs one try when its turn comes, if the limits allow it then.
   *
   * @param account - Folded user name.
   * @throws {OAuthError} 429 with `Retry-After`, before any work.
   */
  async attempt<T extends { outcome: LoginOutcome }>(
    account: string,
    address: string,
    now: () => number,
    work: () => Promise<T>,
  ): Promise<T> {
    this.#check(account, address, now())
    const leave = await this.#gate.enter(address)
    try {
      // Others may have failed while this one waited.
      this.#check(account, address, now())
      for (const [failures, key] of this.#counted(account, address)) failures.begin(key, now())
      let outcome: LoginOutcome | undefined
      try {
        const result = await work()
        outcome = result.outcome
        return result
      } finally {
        this.#record(account, address, now(), outcome)
      }
    } finally {
      leave()
    }
  }

  #record(account: string, address: string, now: number, outcome: LoginOutcome | undefined): void {
    const isBad = outcome === 'bad-password' || outcome === 'bad-code'
    const rest = outcome === 'good' ? 'good' : 'neither'
    this.#accounts.end(account, now, isBad ? 'failed' : rest)
    // An account of one's own that logs in must not free the address.
    this.#addresses.end(address, now, isBad ? 'failed' : 'neither')
    this.#codes.end(account, now, outcome === 'bad-code' ? 'failed' : rest)
  }

  #counted(account: string, address: string): [Failures, string][] {
    return [
      [this.#accounts, account],
      [this.#addresses, address],
      [this.#codes, account],
    ]
  }

  #check(account: string, address: string, now: number): void {
    const wait = Math.max(...this.#counted(account, address).map(([failures, key]) => failures.waitMs(key, now)))
    if (wait > 0) throw tooMany(wait)
  }
}
