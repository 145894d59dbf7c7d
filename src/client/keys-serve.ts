/**
 * Handing out file keys day and night: round after round, until a signal. Several may serve the same rooms: what one of them has handed out
 * the server passes over, and none of them keeps to the same clock.
 * @module
 */
import { SyncError, toSyncError } from '../errors.ts'
import { requireRemote } from '../sync/remote-path.ts'
import { never } from '../sync/run.ts'
import { type DistributionResult, distributeFileKeys, type RefusedMember } from '../transfer/distribute.ts'
import type { OnEvent } from '../transfer/events.ts'
import type { Abortable, ClientContext } from './context.ts'

/** How keys are served. */
export interface ServeKeysOptions extends Abortable {
  /** Path of something in the room; default: all rooms of this account. */
  readonly room?: string | undefined
  /** Between two rounds, in milliseconds, give or take a quarter: 1,000 or more. Default 60,000. */
  readonly intervalMs?: number | undefined
  /** File keys that one round hands out at most; the next one follows at once. Default 5,000. */
  readonly atMost?: number | undefined
  /** Called for each round, which it begins by calling what it is given, and resolves with what that gave. Default: begins it, and no more. */
  readonly onRound?: ((round: () => Promise<KeyServerRound>) => Promise<KeyServerRound>) | undefined
}

/** What one round has done. */
export interface KeyServerRound extends DistributionResult {
  /** Who got nothing, and why; the same ones are in each round. */
  readonly refused: readonly RefusedMember[]
  /** What ended the round; another one may fare better. */
  readonly stoppedBy?: SyncError | undefined
}

/** Why no more keys are served: the signal, or a new key pair of this account, which only a new client unlocks. */
export type ServeKeysEnd = 'stopped' | 'key-pair-changed'

const INTERVAL_MS = 60_000
const MIN_INTERVAL_MS = 1_000
const AT_MOST = 5_000
const FIRST_RETRY_MS = 5_000
const LAST_RETRY_MS = 300_000
/** Of the time between two rounds: so many of them do not come at once. */
const JITTER = 0.25
/** Warnings that are not said again. */
const MAX_TOLD = 1_000

/** What another round cannot cure. */
const isFinal = ({ class: kind, code }: SyncError): boolean =>
  ['internal', 'usage', 'auth'].includes(kind) ||
  ['KEY_PASSWORD_WRONG', 'PASSWORD_NEEDED', 'NO_KEY_PAIR', 'READ_ONLY'].includes(code)

function requireOptions({ intervalMs = INTERVAL_MS, atMost = AT_MOST }: ServeKeysOptions) {
  const wrong = (message: string) => new SyncError('usage', 'OPTION_INVALID', message)
  if (!Number.isFinite(intervalMs) || intervalMs < MIN_INTERVAL_MS) {
    throw wrong(`intervalMs takes a time of ${MIN_INTERVAL_MS} ms or more`)
  }
  if (!Number.isSafeInteger(atMost) || atMost < 1) throw wrong('atMost takes a number from 1')
  return { intervalMs, atMost }
}

/** Passes each warning on once. */
function sayOnce(onEvent: OnEvent | undefined): OnEvent {
  const told = new Set<string>()
  return (event) => {
    if (event.type === 'warning') {
      if (told.has(event.message)) return
      if (told.size >= MAX_TOLD) told.clear()
      told.add(event.message)
    }
    onEvent?.(event)
  }
}

/**
 * Hands out the file keys that members lack, to those whose keys are trusted, now and again and again. Those who are not trusted are named,
 * and get nothing; who is trusted meanwhile gets theirs in the next round. After failures of server or network it is tried again after 5 s,
 * and after twice as long each time, up to 5 min; an event `run-again` says so.
 *
 * @returns when the signal aborts, or the account has another key pair than at first.
 * @throws {SyncError} what another round cannot cure: wrong use, a lost login, the key pair.
 */
export async function serveKeys(context: ClientContext, options: ServeKeysOptions): Promise<ServeKeysEnd> {
  const { api, keyring, clock, random, onEvent } = context
  const { room, signal = never, onRound = (round) => round() } = options
  const { intervalMs, atMost } = requireOptions(options)
  const say = sayOnce(onEvent)
  /** The locked key pairs as they were in the first round. */
  let served: string | undefined
  let isChanged = false

  async function distribute(): Promise<KeyServerRound> {
    keyring.refresh()
    const now = JSON.stringify((await keyring.containers(signal)).map((pair) => pair.publicKeyContainer))
    served ??= now
    isChanged = served !== now
    if (isChanged) return { handedOut: 0, skipped: 0, refused: [] }
    const refused: RefusedMember[] = []
    const scope = room === undefined ? {} : { roomId: (await requireRemote(api, room, signal)).roomId }
    const onRefused = (one: RefusedMember) => void refused.push(one)
    const done = await distributeFileKeys(api, keyring, { ...scope, atMost, onEvent: say, onRefused, signal })
    return { ...done, refused }
  }

  async function round(): Promise<KeyServerRound> {
    try {
      return await distribute()
    } catch (error) {
      return { handedOut: 0, skipped: 0, refused: [], stoppedBy: toSyncError(error) }
    }
  }

  for (let failures = 0; !signal.aborted; ) {
    const { stoppedBy, isCut } = await onRound(round)
    if (signal.aborted) return 'stopped'
    if (isChanged) return 'key-pair-changed'
    if (stoppedBy !== undefined && isFinal(stoppedBy)) throw stoppedBy
    failures = stoppedBy === undefined ? 0 : failures + 1
    const pause = isCut === true ? Math.min(MIN_INTERVAL_MS, intervalMs) : intervalMs
    const retry = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.min(failures - 1, 20))
    const delayMs = Math.round((failures > 0 ? retry : pause) * (1 - JITTER + 2 * JITTER * random.next()))
    if (failures > 0) onEvent?.({ type: 'run-again', delayMs })
    await clock.sleep(delayMs, signal).catch(() => {}) // only the signal ends it
  }
  return 'stopped'
}
