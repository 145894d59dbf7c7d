/**
 * The fault plan: rules by which the server misbehaves on purpose, so that clients can be tested against it. Active
 * only when rules are given; the HTTP plumbing asks for a rule per request and carries it out.
 * @module
 */
import { SyncError } from '../../crypto/errors.ts'

/** What goes wrong. Exactly one kind per rule. */
export type FaultAction =
  | { status: number; headers?: Record<string, string>; body?: string }
  | { delayMs: number }
  /** Keeps the request waiting, until `release` or `clear`; nothing is done when the client has gone by then. */
  | { hold: true }
  /** Destroys the connection after that many bytes of the response body. */
  | { cutAfterBytes: number }
  /** Destroys the connection after that many bytes of the request body. */
  | { cutRequestAfterBytes: number }
  /** Flips the lowest bit of one byte of the response body. */
  | { flipByteAt: number }
  /** Does what was asked, then destroys the connection instead of answering. */
  | { loseAnswer: true }
  /** Answers 200 with a page that is no JSON, without doing anything. */
  | { garbage: true }

/** Which requests go wrong, and how. */
export interface FaultRule {
  /** `path` is the source of a regular expression, matched against the path of the URL without its query. */
  on: { method?: string; path: string }
  /** Skips that many matches first. */
  after?: number
  /** Applies that many times; once by default. */
  times?: number
  do: FaultAction
}

/** A fault that has happened. */
export interface FaultHit {
  method: string
  path: string
  action: FaultAction
}

const NUMBERS = ['delayMs', 'cutAfterBytes', 'cutRequestAfterBytes', 'flipByteAt'] as const
const FLAGS = ['hold', 'loseAnswer', 'garbage'] as const
const KINDS = ['status', ...NUMBERS, ...FLAGS] as const

/** A running plan: rules are tried in order, and the first that matches applies. */
export class FaultPlan {
  /** Every rule carried out so far, in order. */
  readonly hits: FaultHit[] = []
  #rules: { rule: FaultRule; path: RegExp; seen: number; done: number }[] = []
  readonly #held = new Set<() => void>()
  readonly #waiting = new Set<{ count: number; end: () => void }>()

  constructor(rules: readonly FaultRule[] = []) {
    for (const rule of rules) this.add(rule)
  }

  add(rule: FaultRule): void {
    this.#rules.push({ rule, path: new RegExp(rule.on.path), seen: 0, done: 0 })
  }

  /** Drops all rules and lets go what is held; hits stay. */
  clear(): void {
    this.#rules = []
    this.release()
  }

  /** Resolves as soon as `count` rules in all have been carried out, which is when `hits` is that long. */
  until(count: number): Promise<void> {
    return new Promise((end) => {
      if (this.hits.length >= count) end()
      else this.#waiting.add({ count, end })
    })
  }

  /** Lets everything go on that is held now. Rules stay. */
  release(): void {
    for (const go of [...this.#held]) go()
  }

  /** How many requests are held now. */
  get held(): number {
    return this.#held.size
  }

  /** For the server: resolves with `release`, or when what is given to `onGone` is called. */
  hold(onGone: (gone: () => void) => unknown): Promise<void> {
    return new Promise((resolve) => {
      const go = () => {
        this.#held.delete(go)
        resolve()
      }
      this.#held.add(go)
      onGone(go)
    })
  }

  /** The action for this request, if any; counts it. */
  take(method: string, path: string): FaultAction | undefined {
    for (const entry of this.#rules) {
      const { rule } = entry
      if (rule.on.method !== undefined && rule.on.method.toUpperCase() !== method) continue
      if (entry.done >= (rule.times ?? 1) || !entry.path.test(path)) continue
      if (entry.seen++ < (rule.after ?? 0)) continue
      entry.done++
      this.hits.push({ method, path, action: rule.do })
      for (const one of this.#waiting) {
        if (this.hits.length < one.count) continue
        this.#waiting.delete(one)
        one.end()
      }
      return rule.do
    }
    return undefined
  }
}

/**
 * Reads a fault plan: a JSON array of rules.
 *
 * @throws {SyncError} `BAD_FAULT_PLAN` naming the rule that is wrong.
 */
export function parseFaultPlan(text: string): FaultRule[] {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw bad('is not JSON')
  }
  if (!Array.isArray(value)) throw bad('must be an array of rules')
  return value.map((rule, index) => parseRule(rule, index))
}

const bad = (what: string): SyncError =>
  new SyncError('usage', 'BAD_FAULT_PLAN', `The fault plan ${what}`, {
    hint: 'A rule looks like {"on":{"path":"/uploads"},"do":{"status":503}}.',
  })

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0

function parseRule(value: unknown, index: number): FaultRule {
  const wrong = (what: string): SyncError => bad(`has a bad rule ${index + 1}: ${what}`)
  if (!isRecord(value)) throw wrong('not an object')
  const { on, after, times, do: action } = value
  const unknown = Object.keys(value).find((key) => !['on', 'after', 'times', 'do'].includes(key))
  if (unknown !== undefined) throw wrong(`unknown field ${unknown}`)
  if (!isRecord(on) || typeof on.path !== 'string') throw wrong('on.path is missing')
  if (on.method !== undefined && typeof on.method !== 'string') throw wrong('on.method is no string')
  try {
    new RegExp(on.path)
  } catch {
    throw wrong('on.path is no regular expression')
  }
  if ((after !== undefined && !isCount(after)) || (times !== undefined && !isCount(times))) {
    throw wrong('after and times must be counts')
  }
  const kinds = isRecord(action) ? KINDS.filter((kind) => Object.hasOwn(action, kind)) : []
  if (!isRecord(action) || kinds.length !== 1) throw wrong('do must hold exactly one action')
  for (const name of NUMBERS) {
    if (Object.hasOwn(action, name) && !isCount(action[name])) throw wrong(`${name} must be a count`)
  }
  checkStatus(action, wrong)
  return {
    on: { path: on.path, ...(on.method === undefined ? {} : { method: on.method as string }) },
    ...(after === undefined ? {} : { after: after as number }),
    ...(times === undefined ? {} : { times: times as number }),
    do: action as FaultAction,
  }
}

function checkStatus(action: Record<string, unknown>, wrong: (what: string) => SyncError): void {
  for (const name of FLAGS) {
    if (Object.hasOwn(action, name) && action[name] !== true) throw wrong(`${name} must be true`)
  }
  if (!Object.hasOwn(action, 'status')) return
  const { status, headers, body } = action
  if (!isCount(status) || status < 200 || status > 999) throw wrong('status must be 200 to 999')
  if (body !== undefined && typeof body !== 'string') throw wrong('body must be a string')
  if (headers === undefined) return
  if (!isRecord(headers) || Object.values(headers).some((item) => typeof item !== 'string')) {
    throw wrong('headers must be strings')
  }
}
