/**
 * Handing out file keys: every member of a room who lacks the key of a file gets it, wrapped for their public key, if that is
 * the key that is pinned for them. Keys of files just uploaded are at hand; older ones are unwrapped with our own key pair.
 * @module
 */
import {
  type FileKey,
  formatFileKey,
  type PublicKey,
  parseFileKey,
  SyncError,
  type UserKeyPair,
  unwrapFileKey,
  type WrappedFileKey,
} from '../../crypto/index.ts'
import type { Api } from '../api/api.ts'
import { type HolderKey, KEYS_PER_CALL, listMissingFileKeys, postFileKeys } from '../api/file-keys.ts'
import { countTree, listTooLong, MAX_ENTRIES } from '../api/nodes.ts'
import type { MissingFileKeys } from '../api/wire.ts'
import { cancelled } from '../errors.ts'
import { showFingerprint } from '../fingerprint.ts'
import type { OnEvent } from './events.ts'
import type { Keyring } from './keyring.ts'
import { listMemberNames } from './members.ts'
import type { Verdict } from './pins.ts'
import { listRescueKeys, type RescueKey } from './rescue-keys.ts'

export interface Distributor {
  /** Keeps the key of a file just uploaded until the next hand-out in its room. The key is wiped then. */
  remember(roomId: number, fileId: number, fileKey: FileKey): Promise<void>
  /**
   * Has this room looked at by the next hand-out, too: an interrupted run may have left files there without.
   *
   * @param ahead - What is missing there, as `askMissingKeys` has asked; only where nothing has been put there since.
   */
  include(roomId: number, ahead?: Promise<MissingFileKeys>): void
  /** Hands out what is missing in the rooms of the remembered files and the included ones, to the end. */
  flush(): Promise<void>
}

/** Asks which keys are missing in a room, before a hand-out. What goes wrong is told by that. */
export function askMissingKeys(api: Api, roomId: number, signal?: AbortSignal): Promise<MissingFileKeys> {
  const asked = listMissingFileKeys(api, { roomId, offset: 0 }, signal)
  asked.catch(() => {})
  return asked
}

/** How many file keys members got. */
export interface DistributionResult {
  readonly handedOut: number
  /** Entries that could not be served: a member's key is unusable, or a file key does not open. */
  readonly skipped: number
  /** There may be more: only so many were to be handed out at once. */
  readonly isCut?: true
}

/** Somebody who gets no file keys before a person has looked at their key. */
export interface RefusedMember {
  /** For people: name, as the server says it, and id. */
  readonly member: string
  readonly userId: number
  /** `MEMBER_NEW`, `RESCUE_KEY_NEW`, `MEMBER_KEY_CHANGED`, `OWN_KEY_CHANGED`, `PINS_LOST`. */
  readonly error: SyncError
}

const MAX_REMEMBERED = 500
/** Where one can only write: what is not handed out when a run is interrupted has to be sent again. */
const MAX_REMEMBERED_WRITING = 16

interface DistributionOptions {
  readonly roomId?: number
  /** Keys at hand, by file id. */
  readonly known?: ReadonlyMap<number, FileKey>
  /** After so many file keys the rest is left for another time. Default: none is. */
  readonly atMost?: number | undefined
  /** Opens file keys with another key pair than the account's: a rescue key. */
  readonly from?: { readonly holder: HolderKey; readonly pair: UserKeyPair } | undefined
  /** What is missing for the current key pair, where that has been asked. */
  readonly ahead?: Promise<MissingFileKeys> | undefined
  /** What has been reported before: user id and verdict. */
  readonly reported?: Set<string>
  /** Told of each member who is refused, once. */
  readonly onRefused?: ((refused: RefusedMember) => void) | undefined
  readonly onEvent?: OnEvent | undefined
  readonly signal?: AbortSignal | undefined
}

/**
 * Hands out all file keys that are missing in one room (or everywhere), to members whose keys are trusted. An account with key
 * pairs of both versions also hands out what it can open with the older one only; its own newer key pair is among the
 * recipients then.
 */
export async function distributeFileKeys(
  api: Api,
  keyring: Keyring,
  options: DistributionOptions = {},
): Promise<DistributionResult> {
  const { from, signal } = options
  const own: HolderKey[] = (await keyring.containers(signal)).length > 1 ? ['current', 'previous'] : ['current']
  const holders = from === undefined ? own : [from.holder]
  const report = createReport(api, options)
  const { atMost = Number.POSITIVE_INFINITY } = options
  let handedOut = 0
  let skipped = 0
  let isCut = false
  for (const holder of holders) {
    const done = await distributeWith(api, keyring, holder, { ...options, atMost: atMost - handedOut }, report)
    handedOut += done.handedOut
    skipped += done.skipped
    isCut ||= done.isCut === true
  }
  if (handedOut > 0 && !keyring.isWriteOnly) await pinOwn(keyring, signal)
  return { handedOut, skipped, ...(isCut ? { isCut } : {}) }
}

/** Keeps our own key, which is unlocked by now, so that a wrong one is noticed where nothing is unlocked: `keys list`. */
async function pinOwn(keyring: Keyring, signal: AbortSignal | undefined): Promise<void> {
  const self = await keyring.userId(signal)
  const own = await keyring.ownKey(signal)
  const { keys } = await keyring.pins.read()
  const isKnown = keys.some((pin) => pin.userId === self && pin.fingerprint === own.fingerprint)
  if (!isKnown) await keyring.pins.trust(self, [own], true)
}

interface Report {
  /** The members that the server names, with their user names; `undefined` when it does not. */
  readonly members: () => Promise<ReadonlyMap<number, string | undefined> | undefined>
  /** What stands in the way of one file or user; throws what stands in the way of all. */
  readonly warn: (id: string, error: unknown, what: string) => void
  readonly judged: (userId: number, verdict: Verdict | 'own', keys: readonly PublicKey[]) => Promise<void>
}

/** Says everything once, with the names that the server knows. */
function createReport(
  api: Api,
  { roomId, reported = new Set(), onRefused, onEvent, signal }: DistributionOptions,
): Report {
  const warned = new Set<string>()
  let found: ReturnType<Report['members']> | undefined
  let rescueKeys: Promise<readonly RescueKey[]> | undefined
  /** Where the server does not say who the members are. */
  const isShownAsRescueKey = async (keys: readonly PublicKey[]) => {
    rescueKeys ??= listRescueKeys(api, roomId === undefined ? [] : [{ id: roomId }], signal)
    const shown = await rescueKeys
    return keys.some(({ fingerprint }) => shown.some(({ key }) => key.fingerprint === fingerprint))
  }
  const members = () => {
    found ??= listMemberNames(api, roomId, signal).catch((error) => {
      if (signal?.aborted) throw error
      return undefined // not everybody may see who the members are
    })
    return found
  }
  return {
    members,
    warn(id, error, what) {
      if (!(error instanceof SyncError) || (error.class !== 'key' && error.class !== 'integrity')) throw error
      if (error.code === 'KEY_PASSWORD_WRONG' || error.code === 'NO_KEY_PAIR') throw error
      if (!warned.has(id)) onEvent?.({ type: 'warning', code: error.code, message: `${what}: ${error.message}` })
      warned.add(id)
    },
    async judged(userId, verdict, keys) {
      if (verdict === 'trusted' || reported.has(`${userId} ${verdict}`)) return
      reported.add(`${userId} ${verdict}`)
      const names = await members()
      const name = names?.get(userId)
      const isRescueKey =
        verdict !== 'own' && (names === undefined ? await isShownAsRescueKey(keys) : !names.has(userId))
      const user = name === undefined ? `user ${userId}` : `${name} (user ${userId})`
      const member = isRescueKey ? `rescue key (id:${userId})` : user
      if (verdict === 'pinned') {
        for (const { fingerprint } of keys) onEvent?.({ type: 'key-pinned', member, userId, fingerprint })
        return
      }
      const error = refusal(member, userId, verdict, keys, isRescueKey)
      onRefused?.({ member, userId, error })
      onEvent?.({ type: 'warning', code: error.code, message: error.message })
    },
  }
}

function refusal(
  member: string,
  userId: number,
  verdict: Verdict | 'own',
  keys: readonly PublicKey[],
  isRescueKey: boolean,
): SyncError {
  const shown = keys.map(({ fingerprint }) => showFingerprint(fingerprint)).join(', ')
  // An id, not the name: that comes from the server, and this gets copied into a shell.
  const trust = `then: sync keys trust id:${userId}`
  if (verdict === 'new' && isRescueKey) {
    const message = `The server shows a ${member}, which belongs to no member and would open all files; it gets no file keys before its fingerprint was compared: ${shown}`
    return new SyncError('integrity', 'RESCUE_KEY_NEW', message, {
      hint: `Compare it with what the administrator of the room has written down, then: sync keys rescue trust ${keys[0]?.fingerprint}`,
    })
  }
  if (verdict === 'new') {
    const message = `${member} is new and gets no file keys before the key is trusted: ${shown}`
    return new SyncError('changed', 'MEMBER_NEW', message, { hint: `Compare the key with what they see, ${trust}` })
  }
  if (verdict === 'lost') {
    const message = `${member} gets no file keys: whose keys were trusted is lost, and now there is ${shown}`
    return new SyncError('safety', 'PINS_LOST', message, { hint: `Compare the key with what they see, ${trust}` })
  }
  if (verdict === 'own') {
    const message = `The server shows a public key for this account that does not belong to its private key: ${shown}`
    return new SyncError('integrity', 'OWN_KEY_CHANGED', message, { hint: 'Ask the administrator of the server.' })
  }
  const message = `${member} gets no file keys: the server shows, or has shown, another key than the trusted one; now ${shown}`
  return new SyncError('integrity', 'MEMBER_KEY_CHANGED', message, {
    hint: `Ask them whether they have made a new key pair, and compare it, ${trust}`,
  })
}

/** From so many files on, the server must say that there are as many. */
const UNCOUNTED = 2_000
/** Most members who may lack the keys of one place. */
const MAX_RECIPIENTS = 10_000

/**
 * Counts what is listed as missing. Each page must bring something new, and only for files that there are, or the server could
 * go on listing for ever.
 */
function createCount(
  api: Api,
  roomId: number | undefined,
  signal: AbortSignal | undefined,
): (page: MissingFileKeys) => Promise<void> {
  const { maxEntries = MAX_ENTRIES } = api
  const seen = new Set<string>()
  const files = new Set<number>()
  const users = new Set<number>()
  let believed = UNCOUNTED
  return async ({ items }) => {
    const before = seen.size
    for (const { userId, fileId } of items) {
      seen.add(`${userId} ${fileId}`)
      files.add(fileId)
      users.add(userId)
    }
    if (seen.size === before) {
      throw new SyncError('server', 'KEYS_NOT_TAKEN', 'The server accepts file keys but keeps listing them as missing')
    }
    // Counted again when there are more: files may be added all the while.
    if (files.size > believed) believed = (await countTree(api, roomId ?? 0, signal)) + UNCOUNTED
    if (files.size > believed || users.size > MAX_RECIPIENTS || seen.size > maxEntries) throw listTooLong()
  }
}

/** Page by page. Served entries vanish from the server's list, so the offset only moves past those that cannot be served. */
async function distributeWith(
  api: Api,
  keyring: Keyring,
  holder: HolderKey,
  { roomId, known, ahead, from, atMost = Number.POSITIVE_INFINITY, onEvent, signal }: DistributionOptions,
  report: Report,
): Promise<DistributionResult> {
  let handedOut = 0
  let skipped = 0
  const count = createCount(api, roomId, signal)
  for (let asked = holder === 'current' ? ahead : undefined; ; asked = undefined) {
    if (signal?.aborted) throw cancelled(signal)
    const scope = { ...(roomId === undefined ? {} : { roomId }), holder, offset: skipped }
    const page = await (asked ?? listMissingFileKeys(api, scope, signal))
    if (page.items.length === 0) return { handedOut, skipped }
    if (handedOut >= atMost) return { handedOut, skipped, isCut: true }
    await count(page)
    const { entries, served } = await wrapPage(page, keyring, known, from?.pair, report, signal)
    for (let at = 0; at < entries.length; at += KEYS_PER_CALL) {
      await postFileKeys(api, entries.slice(at, at + KEYS_PER_CALL), signal)
    }
    handedOut += served
    skipped += page.items.length - served
    if (served > 0) onEvent?.({ type: 'keys-handed-out', count: served })
  }
}

/** The trusted keys of the members who lack file keys; a member may have one of each version. */
async function trustedKeys(
  page: MissingFileKeys,
  keyring: Keyring,
  { warn, judged, members }: Report,
  signal: AbortSignal | undefined,
): Promise<ReadonlyMap<number, readonly PublicKey[]>> {
  const shown = new Map<number, PublicKey[]>()
  for (const userId of new Set(page.items.map((item) => item.userId))) {
    const containers = page.users.filter(({ id }) => id === userId).map((user) => user.publicKeyContainer)
    for (const container of containers.length > 0 ? containers : [undefined]) {
      try {
        const key = await keyring.importKey(container)
        const keys = shown.get(userId) ?? []
        if (!keys.some(({ fingerprint }) => fingerprint === key.fingerprint)) shown.set(userId, [...keys, key])
      } catch (error) {
        warn(`user ${userId}`, error, `User ${userId} gets no file keys`)
      }
    }
  }
  const trusted = new Map<number, readonly PublicKey[]>()
  if (shown.size === 0) return trusted
  const self = await keyring.userId(signal)
  const own = shown.get(self)
  shown.delete(self)
  if (own !== undefined) {
    if (await areOwn(own, keyring, signal)) trusted.set(self, own)
    else await judged(self, 'own', own)
  }
  const { keys: pinned } = await keyring.pins.read()
  const hasUnknown = [...shown.keys()].some((userId) => !pinned.some((pin) => pin.userId === userId))
  // At first sight nobody is trusted but members: a rescue key opens everything, and anybody could have made it.
  const known = hasUnknown ? await members() : undefined
  const verdicts = await keyring.pins.judge(shown, (userId) => known?.has(userId) === true)
  for (const [userId, keys] of shown) {
    const verdict = verdicts.get(userId) ?? 'changed'
    if (verdict === 'trusted' || verdict === 'pinned') trusted.set(userId, keys)
    await judged(userId, verdict, keys)
  }
  return trusted
}

/** Our own keys need no pins of members: the private ones prove them, or somebody has compared the one that was brought here. */
async function areOwn(keys: readonly PublicKey[], keyring: Keyring, signal: AbortSignal | undefined): Promise<boolean> {
  if (keyring.isWriteOnly) {
    const { fingerprint } = await keyring.wrappingKey(signal)
    return keys.every((key) => key.fingerprint === fingerprint)
  }
  const versions = (await keyring.containers(signal)).map(({ publicKeyContainer }) => publicKeyContainer.version)
  for (const { version, fingerprint } of keys) {
    if (!versions.includes(version)) return false
    if ((await keyring.ownKey(signal, version)).fingerprint !== fingerprint) return false
  }
  return true
}

/** Wraps what a page asks for; `served` counts its items. */
async function wrapPage(
  page: MissingFileKeys,
  keyring: Keyring,
  known: ReadonlyMap<number, FileKey> | undefined,
  rescue: UserKeyPair | undefined,
  report: Report,
  signal: AbortSignal | undefined,
) {
  const unwrap = (wrapped: WrappedFileKey) =>
    rescue === undefined ? keyring.unwrap(wrapped, signal) : unwrapFileKey(wrapped, rescue)
  const recipients = await trustedKeys(page, keyring, report, signal)
  const items = page.items.filter(({ userId }) => recipients.has(userId))
  const containers = new Map(page.files.map((file) => [file.id, file.fileKeyContainer]))
  const opened = new Map<number, FileKey>()
  try {
    // All unwraps of a page run at once: they are the slow part, and they run on all cores.
    const unknown = [...new Set(items.map((item) => item.fileId))].filter((id) => known?.get(id) === undefined)
    // Where one can only write, those are left to others.
    const wanted = keyring.isWriteOnly ? [] : unknown
    const results = await Promise.allSettled(
      wanted.map(async (id) => [id, await unwrap(parseFileKey(containers.get(id)))] as const),
    )
    results.forEach((result, index) => {
      if (result.status === 'fulfilled') opened.set(...result.value)
      else report.warn(`file ${wanted[index]}`, result.reason, `The key of file ${wanted[index]} is not handed out`)
    })
    const entries: { userId: number; fileId: number; fileKey: ReturnType<typeof formatFileKey> }[] = []
    let served = 0
    for (const { userId, fileId } of items) {
      const fileKey = known?.get(fileId) ?? opened.get(fileId)
      if (fileKey === undefined) continue
      for (const publicKey of recipients.get(userId) ?? []) {
        entries.push({ userId, fileId, fileKey: formatFileKey(await keyring.wrap(fileKey, publicKey)) })
      }
      served++
    }
    return { entries, served }
  } finally {
    for (const fileKey of opened.values()) fileKey.wipe()
  }
}

/** For a run of uploads: hands out in batches, not per file. */
export function createDistributor(
  api: Api,
  keyring: Keyring,
  options: Pick<DistributionOptions, 'onEvent' | 'onRefused' | 'signal'> = {},
): Distributor {
  const most = keyring.isWriteOnly ? MAX_REMEMBERED_WRITING : MAX_REMEMBERED
  const reported = new Set<string>()
  let rooms = new Map<number, Map<number, FileKey>>()
  let asked = new Map<number, Promise<MissingFileKeys>>()
  let count = 0
  let running: Promise<void> = Promise.resolve()

  async function handOut(batch: typeof rooms, answers: typeof asked): Promise<void> {
    try {
      for (const [roomId, known] of batch) {
        const ahead = known.size === 0 ? answers.get(roomId) : undefined
        await distributeFileKeys(api, keyring, { roomId, known, ahead, reported, ...options })
      }
    } finally {
      for (const known of batch.values()) for (const fileKey of known.values()) fileKey.wipe()
    }
  }

  function flush(): Promise<void> {
    const batch = rooms
    const answers = asked
    rooms = new Map()
    asked = new Map()
    count = 0
    // One after the other: two at once would hand out the same entries.
    const next = running.then(() => handOut(batch, answers))
    running = next.catch(() => {})
    return next
  }

  function knownIn(roomId: number): Map<number, FileKey> {
    let known = rooms.get(roomId)
    if (known === undefined) {
      known = new Map()
      rooms.set(roomId, known)
    }
    return known
  }

  return {
    include(roomId, ahead) {
      knownIn(roomId)
      if (ahead !== undefined) asked.set(roomId, ahead)
    },
    async remember(roomId, fileId, fileKey) {
      knownIn(roomId).set(fileId, fileKey)
      if (++count >= most) await flush()
    },
    flush,
  }
}
