/**
 * What has been seen before and must not change unnoticed: members' public keys, pinned on first use, and places that were
 * encrypted. One small private file per server. Who gets file keys is decided in distribute.ts, where plain content may go in
 * places.ts.
 * @module
 */
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import type { KeyPairVersion } from '../../crypto/index.ts'
import type { PlaceGuard } from '../api/api.ts'
import type { Clock } from '../environment.ts'
import { SyncError, toSyncError } from '../errors.ts'
import { readPrivateFile, writePrivateFile } from '../local/atomic-file.ts'
import { takeLock } from '../local/lock.ts'
import type { OnEvent } from './events.ts'
import { createPlaces, isAtOrBelow, type Place } from './places.ts'

/** A public key by its fingerprint. */
export interface KeyId {
  readonly version: KeyPairVersion
  /** SHA-256 of the SubjectPublicKeyInfo, 64 lower-case hex digits. */
  readonly fingerprint: string
}

export interface KeyPin extends KeyId {
  readonly userId: number
  /** Milliseconds since the epoch. */
  readonly since: number
  /** Somebody has compared the fingerprint with what the member says. */
  readonly isVerified: boolean
}

/** The public key of an account that is used here, and the locked key pair that it was proven by: unlocked, it belongs to this key. */
export interface OwnKey extends KeyId {
  /** Name of the login. */
  readonly account: string
  /** SHA-256 of the locked private key as the server has it, 64 lower-case hex digits. */
  readonly lockedKey: string
}

export interface OwnPin extends OwnKey {
  /** Milliseconds since the epoch. */
  readonly since: number
}

/** The public key of an account of which the private key is not on this machine: somebody has compared it here. */
export interface GivenPin extends KeyId {
  readonly userId: number
  /** Milliseconds since the epoch. */
  readonly since: number
}

/**
 * A rescue key of the server, of a room or of the system, whose fingerprint somebody has compared. Under which id the server shows it
 * does not matter: whoever has its private key reads what is wrapped for it.
 */
export interface RescueKeyPin extends KeyId {
  /** Milliseconds since the epoch. */
  readonly since: number
}

export interface PinState {
  readonly keys: readonly KeyPin[]
  /** Rescue keys of the server that may get file keys. */
  readonly rescueKeys: readonly RescueKeyPin[]
  /** Public keys of the accounts that are used here, which their private keys have proven. Not those that somebody was shown. */
  readonly own: readonly OwnPin[]
  /** Public keys of those accounts that were brought here from another machine, one of each. */
  readonly given: readonly GivenPin[]
  /** What the server showed instead of a pinned key, until somebody decides. */
  readonly doubts: readonly KeyPin[]
  /** Rooms and folders that were encrypted. */
  readonly encrypted: readonly Place[]
  /** Rooms and folders that are not, and that a person has agreed to use. */
  readonly plain: readonly Place[]
  /** Since when earlier pins are lost, in milliseconds since the epoch: what is not pinned may be anything. */
  readonly lostAt?: number
}

/**
 * `pinned`: trusted from now on. `new`: never seen, and nobody there who may trust it. `lost`: not pinned, and older pins were
 * lost. `changed`: not what was pinned.
 */
export type Verdict = 'trusted' | 'pinned' | 'new' | 'lost' | 'changed'

export interface Pins extends PlaceGuard {
  read(): Promise<PinState>
  /**
   * Judges all keys that one answer shows, by member. What is pinned or doubted by that is durable before it resolves. Doubts
   * stay until somebody decides, even if the pinned key is back.
   *
   * @param mayPin - Whose keys may be pinned at first sight, if new ones are trusted at all. Default: everybody's.
   */
  judge(
    shown: ReadonlyMap<number, readonly KeyId[]>,
    mayPin?: (userId: number) => boolean,
  ): Promise<ReadonlyMap<number, Verdict>>
  /** Pins these keys of a member, in place of others of the same version, and ends doubts about the member. */
  trust(userId: number, keys: readonly KeyId[], isVerified: boolean): Promise<void>
  /** Trusts a rescue key of the server, whoever it is shown for; see `RescueKeyPin`. */
  trustRescueKey(key: KeyId): Promise<void>
  /** Ends that, also under ids that it was trusted for; returns how many pins there were. */
  forgetRescueKey(fingerprint: string): Promise<number>
  /** True for what was proven here within the last 30 days: this account, this public key, and the locked key pair as it was then. */
  isProven(own: OwnKey): Promise<boolean>
  /** Takes note that the key pair of an account has been unlocked, and belongs to this public key. */
  prove(own: OwnKey): Promise<void>
  /** The public key of an account that is used here, as it was brought from another machine. */
  given(userId: number): Promise<GivenPin | undefined>
  /** Takes a public key of an account for the right one from now on, in place of any other. */
  give(userId: number, key: KeyId): Promise<void>
  /** Forgets all about a member; returns how many keys were pinned or in doubt. */
  forget(userId: number): Promise<number>
  /**
   * Forgets whether a room or folder was encrypted, and with it everything below its path; returns whether any was known.
   *
   * @param path - See `placePath`.
   */
  forgetPlace(id: number | undefined, path: string): Promise<boolean>
  /** Takes note that pins were lost: from now on what is new counts as new again. */
  acceptLoss(): Promise<void>
  /** Writes which places were seen encrypted. */
  close(): Promise<void>
}

export interface PinOptions {
  /** `https://HOST`. Users and rooms of two servers have nothing to do with each other. */
  readonly origin: string
  readonly clock: Clock
  /** Where pins are kept; private. Default: memory. */
  readonly directory?: string | undefined
  /** Pins keys of members who were never seen before. Default: false. */
  readonly trustNew?: boolean | undefined
  readonly onEvent?: OnEvent | undefined
}

const VERSION = 4
/** Then it has to be proven again: whoever has lost the encryption password should learn it before much depends on it. */
const PROVEN_MS = 30 * 86_400_000
/** Most keys, and most places of a kind, that are kept. */
const MAX_PINS = 10_000
/** Of one member. */
const MAX_DOUBTS = 4
const NOTHING: PinState = Object.freeze({
  keys: [],
  rescueKeys: [],
  own: [],
  given: [],
  doubts: [],
  encrypted: [],
  plain: [],
})

const checksumOf = (json: string) => createHash('sha256').update(json).digest('hex')

const isId = (value: unknown) => Number.isSafeInteger(value)

const isPlace = (value: unknown) => {
  if (typeof value !== 'object' || value === null) return false
  const { id, path } = value as Record<keyof Place, unknown>
  return isId(id) && (path === undefined || typeof path === 'string')
}

const samePlace = (a: Place, b: Place) => a.id === b.id && a.path === b.path

function parsePin(value: unknown): KeyPin | undefined {
  const { userId, version, fingerprint, since, isVerified } = value as Record<keyof KeyPin, unknown>
  const isPin =
    isId(userId) &&
    (version === 'A' || version === 'RSA-4096') &&
    /^[0-9a-f]{64}$/.test(String(fingerprint)) &&
    isId(since) &&
    typeof isVerified === 'boolean'
  return isPin ? ({ userId, version, fingerprint, since, isVerified } as KeyPin) : undefined
}

function parseOwn(value: unknown): OwnPin | undefined {
  const { account, version, fingerprint, lockedKey, since } = value as Record<keyof OwnPin, unknown>
  const isPin =
    typeof account === 'string' &&
    (version === 'A' || version === 'RSA-4096') &&
    [fingerprint, lockedKey].every((digest) => /^[0-9a-f]{64}$/.test(String(digest))) &&
    isId(since)
  return isPin ? ({ account, version, fingerprint, lockedKey, since } as OwnPin) : undefined
}

function parseGiven(value: unknown): GivenPin | undefined {
  const pin = parsePin({ ...(value as object), isVerified: true })
  return pin && { userId: pin.userId, version: pin.version, fingerprint: pin.fingerprint, since: pin.since }
}

function parseRescueKey(value: unknown): RescueKeyPin | undefined {
  const pin = parsePin({ ...(value as object), userId: 0, isVerified: true })
  return pin && { version: pin.version, fingerprint: pin.fingerprint, since: pin.since }
}

/** @returns `undefined` for what is damaged, or of another version or server. */
function parse(bytes: Uint8Array, origin: string): PinState | undefined {
  try {
    return parseState(bytes, origin)
  } catch {
    return undefined // no JSON, or not ours
  }
}

function parseState(bytes: Uint8Array, origin: string): PinState | undefined {
  const [checksum, json = '', ...rest] = Buffer.from(bytes).toString('utf8').split('\n')
  if (checksum !== checksumOf(json) || rest.join('') !== '') return undefined
  const { format, version, server, keys, rescueKeys, own, given, doubts, encrypted, plain, lostAt } = JSON.parse(json)
  if (format !== 'sealsync-pins' || version !== VERSION || server !== origin) return undefined
  if (![keys, rescueKeys, own, given, doubts, encrypted, plain].every(Array.isArray)) return undefined
  if (![...encrypted, ...plain].every(isPlace)) return undefined
  const pins = [keys, doubts].map((list) => list.map(parsePin))
  const ownPins = own.map(parseOwn)
  const givenPins = given.map(parseGiven)
  const rescuePins = rescueKeys.map(parseRescueKey)
  const isWhole = ![...pins.flat(), ...ownPins, ...givenPins, ...rescuePins].includes(undefined)
  if (!isWhole || (lostAt !== undefined && !isId(lostAt))) return undefined
  return {
    keys: pins[0] as KeyPin[],
    rescueKeys: rescuePins,
    own: ownPins,
    given: givenPins,
    doubts: pins[1] as KeyPin[],
    encrypted,
    plain,
    ...(lostAt === undefined ? {} : { lostAt }),
  }
}

function format(state: PinState, origin: string): string {
  const json = JSON.stringify({ format: 'sealsync-pins', version: VERSION, server: origin, ...state })
  return `${checksumOf(json)}\n${json}\n`
}

const sameKey = (a: KeyId, b: KeyId) => a.version === b.version && a.fingerprint === b.fingerprint

const sameLogin = (a: OwnKey, b: OwnKey) => a.account === b.account && a.version === b.version

/** For how long what is pinned of it counts, in milliseconds; 0 when it is not pinned, or a clock has been set back since. */
function provenFor({ own }: PinState, key: OwnKey, now: number): number {
  const pin = own.find((one) => sameLogin(one, key) && sameKey(one, key) && one.lockedKey === key.lockedKey)
  if (pin === undefined || pin.since > now) return 0
  return Math.max(0, pin.since + PROVEN_MS - now)
}

/** The verdict about one member, and the state after it. */
function judgeOne(
  state: PinState,
  userId: number,
  keys: readonly KeyId[],
  trustNew: boolean,
  now: number,
): { verdict: Verdict; next: PinState } {
  const pinned = state.keys.filter((pin) => pin.userId === userId)
  const doubted = state.doubts.filter((pin) => pin.userId === userId)
  const asPin = ({ version, fingerprint }: KeyId): KeyPin => {
    return { userId, version, fingerprint, since: now, isVerified: false }
  }
  const strange = keys.filter((key) => !pinned.some((pin) => sameKey(pin, key)))
  const isAmbiguous = keys.some((a) => keys.some((b) => a.version === b.version && a.fingerprint !== b.fingerprint))
  if (isAmbiguous || doubted.length > 0 || (pinned.length > 0 && strange.length > 0)) {
    const added = strange.filter((key) => !doubted.some((pin) => sameKey(pin, key))).map(asPin)
    const kept = added.slice(0, MAX_DOUBTS - doubted.length)
    return { verdict: 'changed', next: kept.length === 0 ? state : { ...state, doubts: [...state.doubts, ...kept] } }
  }
  if (strange.length === 0) return { verdict: 'trusted', next: state }
  const isRescueKey = (key: KeyId) => state.rescueKeys.some((pin) => sameKey(pin, key))
  if (strange.every(isRescueKey)) return { verdict: 'trusted', next: state }
  if (state.lostAt !== undefined) return { verdict: 'lost', next: state }
  if (!trustNew) return { verdict: 'new', next: state }
  return { verdict: 'pinned', next: { ...state, keys: [...state.keys, ...strange.map(asPin)] } }
}

const lost = (path: string) =>
  new SyncError(
    'safety',
    'PINS_LOST',
    'What was known about rooms and members was damaged, so a room that is not encrypted may have been before',
    { hint: `See the damaged file beside ${path}, then: sync keys trust --all` },
  )

const tooMany = () =>
  new SyncError('limit', 'TOO_MANY_PINS', `More than ${MAX_PINS} keys or rooms of one server are not remembered`)

/** Remembers in a file of `directory`, or in memory. A file that is damaged is kept aside, and that is remembered. */
export function createPins({ origin, clock, directory, trustNew = false, onEvent }: PinOptions): Pins {
  const path = directory && join(directory, `${createHash('sha256').update(origin).digest('hex').slice(0, 32)}.pins`)
  let inMemory: PinState = NOTHING

  async function read(): Promise<PinState> {
    if (path === undefined) return inMemory
    const bytes = await readPrivateFile(path)
    const state = bytes === undefined ? NOTHING : parse(bytes, origin)
    return state ?? update((now) => ({ value: now, next: now }))
  }

  /** Keeps a damaged file aside; a crash in between leaves it damaged, never missing. Under the lock only. */
  async function recover(bytes: Uint8Array, file: string): Promise<PinState> {
    const keptAs = `${file}.corrupt-${clock.now()}`
    await writePrivateFile(keptAs, bytes)
    const state = { ...NOTHING, lostAt: clock.now() }
    await writePrivateFile(file, format(state, origin))
    const message = `The file of known keys and rooms was damaged and is kept as ${keptAs}. Nothing is handed out to members until their keys are confirmed: sync keys list, sync keys trust`
    onEvent?.({ type: 'warning', code: 'PINS_DAMAGED', message })
    return state
  }

  /** One at a time over all processes, on what is there by then. */
  async function update<T>(work: (state: PinState) => { value: T; next: PinState }): Promise<T> {
    if (path === undefined) {
      const { value, next } = work(inMemory)
      inMemory = next
      return value
    }
    const lock = await takeLock(`${path}.lock`, { clock, waitMs: 10_000 })
    try {
      const bytes = await readPrivateFile(path)
      const now = bytes === undefined ? NOTHING : (parse(bytes, origin) ?? (await recover(bytes, path)))
      const { value, next } = work(now)
      const lists = [next.keys, next.rescueKeys, next.own, next.given, next.encrypted, next.plain]
      if (lists.some((list) => list.length > MAX_PINS)) throw tooMany()
      if (next !== now) await writePrivateFile(path, format(next, origin))
      return value
    } finally {
      await lock.release()
    }
  }

  const places = createPlaces({
    read,
    async add(kind, found) {
      const isNew = (state: PinState) => (place: Place) => !state[kind].some((known) => samePlace(known, place))
      if (!found.some(isNew(await read()))) return
      await update((now) => {
        const added = found.filter(isNew(now))
        return { value: undefined, next: added.length === 0 ? now : { ...now, [kind]: [...now[kind], ...added] } }
      })
    },
    onLoss(error) {
      const { message } = toSyncError(error)
      onEvent?.({
        type: 'warning',
        code: 'ROOMS_NOT_PINNED',
        message: `Which rooms are encrypted is not kept: ${message}`,
      })
    },
    lost: () => lost(path ?? ''),
  })

  return {
    read,
    async judge(shown, mayPin = () => true) {
      const judgeAll = (state: PinState) => {
        const value = new Map<number, Verdict>()
        let next = state
        for (const [userId, keys] of shown) {
          const one = judgeOne(next, userId, keys, trustNew && mayPin(userId), clock.now())
          value.set(userId, one.verdict)
          next = one.next
        }
        return { value, next }
      }
      const state = await read()
      const first = judgeAll(state)
      // Where something is to be kept, what another process has written meanwhile counts.
      return first.next === state ? first.value : update((now) => judgeAll(now))
    },
    trust: (userId, keys, isVerified) =>
      update((now) => {
        const isReplaced = (pin: KeyPin) => pin.userId === userId && keys.some(({ version }) => version === pin.version)
        const added = keys.map((key): KeyPin => {
          const { version, fingerprint } = key
          const known = now.keys.find((pin) => pin.userId === userId && sameKey(pin, key))
          const since = known?.since ?? clock.now()
          return { userId, version, fingerprint, since, isVerified: isVerified || known?.isVerified === true }
        })
        const doubts = now.doubts.filter((pin) => pin.userId !== userId)
        const next = { ...now, doubts, keys: [...now.keys.filter((pin) => !isReplaced(pin)), ...added] }
        return { value: undefined, next }
      }),
    trustRescueKey: ({ version, fingerprint }) =>
      update((now) => {
        if (now.rescueKeys.some((pin) => pin.fingerprint === fingerprint)) return { value: undefined, next: now }
        const rescueKeys = [...now.rescueKeys, { version, fingerprint, since: clock.now() }]
        return { value: undefined, next: { ...now, rescueKeys } }
      }),
    forgetRescueKey: (fingerprint) =>
      update((now) => {
        const isOther = (pin: KeyId) => pin.fingerprint !== fingerprint
        const next = { ...now, rescueKeys: now.rescueKeys.filter(isOther), keys: now.keys.filter(isOther) }
        const value = now.rescueKeys.length + now.keys.length - next.rescueKeys.length - next.keys.length
        return { value, next: value === 0 ? now : next }
      }),
    isProven: async (own) => provenFor(await read(), own, clock.now()) > 0,
    async prove(own) {
      // Not written at each run.
      if (provenFor(await read(), own, clock.now()) > PROVEN_MS / 2) return
      const { account, version, fingerprint, lockedKey } = own
      const pin: OwnPin = { account, version, fingerprint, lockedKey, since: clock.now() }
      await update((now) => {
        const next = { ...now, own: [...now.own.filter((one) => !sameLogin(one, own)), pin] }
        return { value: undefined, next }
      })
    },
    given: async (userId) => (await read()).given.find((pin) => pin.userId === userId),
    give: (userId, { version, fingerprint }) =>
      update((now) => {
        const pin: GivenPin = { userId, version, fingerprint, since: clock.now() }
        return { value: undefined, next: { ...now, given: [...now.given.filter((one) => one.userId !== userId), pin] } }
      }),
    forget: (userId) =>
      update((now) => {
        const isOther = (pin: KeyPin) => pin.userId !== userId
        const next = { ...now, keys: now.keys.filter(isOther), doubts: now.doubts.filter(isOther) }
        const count = now.keys.length + now.doubts.length - next.keys.length - next.doubts.length
        return { value: count, next }
      }),
    forgetPlace: (id, path) =>
      update((now) => {
        places.forget(id, path)
        const isOther = (place: Place) =>
          place.id !== id && (place.path === undefined || !isAtOrBelow(place.path, path))
        const next = { ...now, encrypted: now.encrypted.filter(isOther), plain: now.plain.filter(isOther) }
        return { value: next.encrypted.length < now.encrypted.length, next }
      }),
    acceptLoss: () => update(({ lostAt: _lostAt, ...next }) => ({ value: undefined, next })),
    saw: places.saw,
    enter: places.enter,
    admit: places.admit,
    plain: places.plain,
    close: places.flush,
  }
}
