/**
 * How many requests are under way at each server: more as long as each of them is answered about as fast as the fastest, so that twice
 * as many get twice as much done; half when the server says that it is too busy, or does not answer in time. Servers know nothing of
 * each other.
 * @module
 */
import type { Clock } from '../environment.ts'
import { cancelled, SyncError } from '../errors.ts'
import { codeOf } from './failures.ts'
import type { HttpRequest, HttpResponse, Send } from './types.ts'

export interface Concurrency {
  /** Wraps a `Send`: what is too much waits for its turn. An answer that is read as a stream counts until its headers are there. */
  wrap(send: Send): Send
  /** Most requests that there may ever be. */
  readonly most: number
  /** Requests that may be under way at a server now. */
  allowed(origin: string): number
  /** Told whenever that changes, for any server; returns how to stop listening. */
  onChange(listener: () => void): () => void
}

/** At first: so many in any case, and more where the fastest answer takes so long that they come to this many a second. */
const AT_FIRST = 16
const PER_MS_AT_FIRST = 0.1
/** An answer that takes so many times as long as the fastest one has waited for others. */
const SLOW = 2
/** Bytes; longer bodies say more of the bandwidth than of the distance. */
const SHORT = 16 * 1024

/** What all requests to one server know of each other. */
interface Gate {
  allowed: number
  underWay: number
  readonly waiting: (() => void)[]
  /** Milliseconds that the fastest answer took. */
  fastest: number
  /** True until the server was too busy for the first time: each good answer makes room for one more. */
  isStarting: boolean
  /** There were as many as are allowed; before that nothing is known of what the server bears. */
  wasFull: boolean
  /** Good answers since the last change. */
  good: number
  /** Counts the times that it was halved: what was sent before says nothing new. */
  epoch: number
}

const originOf = (url: string): string => url.slice(0, url.indexOf('/', 8))

const isBusy = ({ status }: HttpResponse) => status === 429 || status === 503
/** The server did not answer in time, or this machine cannot open more connections. */
const isTooMuch = (error: unknown) =>
  error instanceof SyncError &&
  ((error.class === 'network' && /TIMEOUT|STALLED/.test(error.code)) || /^E[MN]FILE$/.test(codeOf(error.cause)))

/** @param most - Connections that there may be to one server. */
export function createConcurrency(most: number, { monotonic }: Pick<Clock, 'monotonic'>): Concurrency {
  const gates = new Map<string, Gate>()
  const listeners = new Set<() => void>()

  function gateOf(origin: string): Gate {
    let gate = gates.get(origin)
    if (gate === undefined) {
      gate = {
        allowed: Math.min(AT_FIRST, most),
        underWay: 0,
        waiting: [],
        fastest: Number.POSITIVE_INFINITY,
        isStarting: true,
        wasFull: false,
        good: 0,
        epoch: 0,
      }
      gates.set(origin, gate)
    }
    return gate
  }

  function change(gate: Gate, allowed: number): void {
    gate.allowed = allowed
    gate.good = 0
    admit(gate)
    for (const listener of listeners) listener()
  }

  function admit(gate: Gate): void {
    while (gate.waiting.length > 0 && gate.underWay < gate.allowed) {
      gate.underWay++
      gate.waiting.shift()!()
    }
  }

  function enter(gate: Gate, signal: AbortSignal | undefined): Promise<void> | undefined {
    if (gate.underWay < gate.allowed) {
      gate.underWay++
      return undefined
    }
    return new Promise((resolve, reject) => {
      const go = () => {
        signal?.removeEventListener('abort', stop)
        resolve()
      }
      const stop = () => {
        gate.waiting.splice(gate.waiting.indexOf(go), 1)
        reject(cancelled(signal!))
      }
      if (signal?.aborted) return reject(cancelled(signal))
      gate.waiting.push(go)
      signal?.addEventListener('abort', stop, { once: true })
    })
  }

  function halve(gate: Gate, epoch: number): void {
    if (epoch !== gate.epoch) return
    gate.epoch++
    gate.isStarting = false
    change(gate, Math.max(1, Math.floor(gate.allowed / 2)))
  }

  function answered(gate: Gate, took: number): void {
    gate.fastest = Math.min(gate.fastest, took)
    if (!gate.wasFull && gate.isStarting) {
      const allowed = Math.min(most, Math.max(AT_FIRST, Math.floor(gate.fastest * PER_MS_AT_FIRST)))
      if (allowed !== gate.allowed) change(gate, allowed)
      return
    }
    // What is not used cannot show that there may be more.
    const isUsed = gate.waiting.length > 0 || gate.underWay * 2 >= gate.allowed
    if (!isUsed || took > SLOW * gate.fastest || gate.allowed >= most) return
    gate.good++
    if (gate.isStarting || gate.good >= gate.allowed) change(gate, gate.allowed + 1)
  }

  return {
    most,
    allowed: (origin) => gateOf(origin).allowed,
    onChange(listener) {
      listeners.add(listener)
      return () => void listeners.delete(listener)
    },
    wrap: (send) => async (request) => {
      const gate = gateOf(originOf(request.url))
      const turn = enter(gate, request.signal)
      if (turn !== undefined) await turn
      const { epoch } = gate
      gate.wasFull ||= gate.underWay >= gate.allowed
      // The time that it takes to connect says nothing of the server.
      let since: number | undefined
      const onStart = () => {
        since = monotonic()
      }
      try {
        const response = await send({ ...request, onStart })
        if (isBusy(response)) halve(gate, epoch)
        else if (since !== undefined && isShort(request)) answered(gate, monotonic() - since)
        return response
      } catch (error) {
        if (isTooMuch(error)) halve(gate, epoch)
        throw error
      } finally {
        gate.underWay--
        admit(gate)
      }
    },
  }
}

const isShort = ({ body }: HttpRequest) => (body?.length ?? 0) <= SHORT
