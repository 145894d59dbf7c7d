/**
 * Another key pair for the account, which takes over all file keys. A server deletes the file keys of a key pair that is deleted, and
 * then the files that nobody can open, and it has at most one key pair of each version. So file keys never wait for anything: a key
 * pair of the older version holds them all at the server while the old RSA-4096 pair goes and the new one comes.
 *
 *     RSA-4096 (old)  →  + bridge (A)  →  bridge  →  bridge + RSA-4096 (new)  →  RSA-4096 (new)
 *
 * A key pair is deleted only after a walk through all files has found, for each of them, the key that is wrapped for the other pair,
 * and has opened it. Which step is next follows from what the server has and from what is kept here (key-change.ts).
 * @module
 */
import {
  generateKeyPair,
  importPublicKey,
  type KeyPairContainer,
  type KeyPairVersion,
  type Password,
  type UserKeyPair,
  unlockKeyPair,
} from '../../crypto/index.ts'
import { addNewerKeyPair, createKeyPair, deleteKeyPair, getKeyPairs } from '../api/account.ts'
import { SyncError, toSyncError } from '../errors.ts'
import { mapLimit } from '../session/map-limit.ts'
import { forgetKeyPair } from '../transfer/file-key-cache.ts'
import {
  encryptedFiles,
  type KeyedFile,
  type KeyLeft,
  type MovedKeys,
  moveFileKeys,
  ownFileKey,
  type Unreached,
} from '../transfer/move-file-keys.ts'
import type { KeyId } from '../transfer/pins.ts'
import type { Abortable, ClientContext } from './context.ts'
import { type KeyChange, type KeyChanges, openKeyChanges } from './key-change.ts'
import { askNewPassword, isSamePair, lockProven, wipePassword } from './key-password.ts'
import type { RenewedContainer } from './rescue.ts'

/** How a key pair is replaced. */
export interface ReplaceKeyPairOptions extends Abortable {
  /** The encryption password until now; asked for while file keys of the old key pair are to be opened. Default: that of the client. */
  readonly current?: (() => Promise<Password>) | undefined
  /** Goes on though some file keys cannot be moved: they are lost, with the files that nobody else can open. Default false. */
  readonly leaveBehind?: boolean | undefined
  /** Called before the old key pair is forgotten: for what keeps the password elsewhere. */
  readonly onChanged?: ((password: Password) => Promise<void>) | undefined
}

/** A key pair that took the place of another. */
export interface KeyReplacement {
  readonly former: readonly KeyId[]
  readonly keyPair: KeyId
  /** Files whose keys it opens. */
  readonly files: number
  /** Files of which this account had no key before either. */
  readonly absent: number
  /** Keys that were left behind, and the first of them. */
  readonly left: number
  readonly leftFiles: readonly KeyLeft[]
  /**
   * Containers of rescue keys that this machine knows: sealed anew, so that the paper opens the new key pair, or why not. `undefined`: which
   * there are cannot be read. Both are told as warnings, too.
   */
  readonly rescue: readonly RenewedContainer[] | undefined
}

/** How many file keys of a room at the top, with all below it, are to be moved. */
export interface RoomKeys {
  /** `/room`. */
  readonly room: string
  /** Files whose key this account has. */
  readonly files: number
  /** Of those, in recycle bins. */
  readonly binned: number
  /** Files whose key it lacks. */
  readonly absent: number
}

/** What a replacement would do. */
export interface ReplacementPlan {
  readonly keyPairs: readonly KeyId[]
  /** Since when one has begun and is not complete, in milliseconds since the epoch. */
  readonly unfinishedSince: number | undefined
  readonly rooms: readonly RoomKeys[]
  /** What it could not reach: file keys there would be lost. */
  readonly unreached: Unreached
  /** Files in recycle bins whose keys the server does not give. */
  readonly unreadable: number
}

const RSA: KeyPairVersion = 'RSA-4096'
const AT_ONCE = 8
const PROGRESS_EVERY = 500

const idOf = async ({ publicKeyContainer }: KeyPairContainer): Promise<KeyId> => {
  const { version, fingerprint } = await importPublicKey(publicKeyContainer)
  return { version, fingerprint }
}

const ofVersion = (pairs: readonly KeyPairContainer[], version: KeyPairVersion) =>
  pairs.find(({ publicKeyContainer }) => publicKeyContainer.version === version)

const noKeyPair = () =>
  new SyncError('key', 'NO_KEY_PAIR', 'This account has no key pair', { hint: 'Make one: sync keys create' })

const strange = () =>
  new SyncError(
    'conflict',
    'KEY_LOCK_CHANGED',
    'The key pairs at the server are not those of the replacement that has begun',
    {
      hint: 'Was one made with another program meanwhile? Look, and ask whoever did that: sync keys status',
    },
  )

/** @throws {SyncError} `KEYS_STRANDED` where something would be lost that the caller has not agreed to. */
function requireNoneLeft(
  { left, leftFiles, unreached }: Pick<MovedKeys, 'left' | 'leftFiles' | 'unreached'>,
  leaveBehind: boolean,
): void {
  if (leaveBehind || left + unreached.folders === 0) return
  const first = leftFiles[0]
  const names = first === undefined ? '' : `, first ${first.path} (${first.code})`
  const folders = unreached.folders === 0 ? '' : `, and those in ${unreached.folders} folders in recycle bins`
  throw new SyncError(
    'safety',
    'KEYS_STRANDED',
    `The keys of ${left} files cannot be moved${names}${folders}: without the old key pair they would be lost`,
    {
      hint: 'Restore or empty recycle bins; or give them up, with --leave-behind. Files that nobody else can open are deleted by the server then. To stay with the old key pair: sync keys replace --undo',
    },
  )
}

/** What there is to move, room by room. Nothing is changed and no password is needed. */
export async function planReplacement(context: ClientContext, { signal }: Abortable): Promise<ReplacementPlan> {
  const { api, onEvent } = context
  const pairs = await getKeyPairs(api, signal)
  if (pairs.length === 0) throw noKeyPair()
  const begun = await (await openKeyChanges(context, signal)).read()
  const unreached: Unreached = { folders: 0, bins: 0 }
  const rooms = new Map<string, { files: number; binned: number; absent: number }>()
  let [unreadable, seen] = [0, 0]
  const look = async ({ id, path, isBinned }: KeyedFile) => {
    const name = `/${path.split('/')[1]}`
    const room = rooms.get(name) ?? { files: 0, binned: 0, absent: 0 }
    rooms.set(name, room)
    try {
      const key = (await ownFileKey(api, id, RSA, signal)) ?? (await ownFileKey(api, id, 'A', signal))
      if (key === undefined) room.absent++
      else room.files++
      if (key !== undefined && isBinned) room.binned++
    } catch (error) {
      if (!(error instanceof SyncError) || !['not_found', 'permission'].includes(error.class)) throw error
      if (isBinned || error.class === 'permission') unreadable++
    }
    if (++seen % PROGRESS_EVERY === 0) onEvent?.({ type: 'phase', text: `Looking at file keys: ${seen}` })
  }
  await mapLimit(encryptedFiles(api, unreached, signal), AT_ONCE, look)
  return {
    keyPairs: await Promise.all(pairs.map(idOf)),
    unfinishedSince: begun?.kind === 'pair' ? begun.since : undefined,
    rooms: [...rooms].map(([room, counts]) => ({ room, ...counts })).sort((a, b) => (a.room < b.room ? -1 : 1)),
    unreached,
    unreadable,
  }
}

/** One replacement at work. */
interface Work extends Pick<ReplaceKeyPairOptions, 'signal'> {
  readonly context: ClientContext
  readonly changes: KeyChanges
  readonly userId: number
  readonly leaveBehind: boolean
  /** The encryption password until now. */
  readonly current: () => Promise<Password>
  /** Unlocked here, to be wiped. */
  readonly opened: Set<UserKeyPair>
  /** By locked private key. */
  readonly unlocking: Map<string, Promise<UserKeyPair>>
}

async function opened({ opened: all }: Work, work: Promise<UserKeyPair>): Promise<UserKeyPair> {
  const pair = await work
  all.add(pair)
  return pair
}

/** Walks until all that can be moved is there and opens. */
async function moveAll(
  work: Work,
  from: () => Promise<UserKeyPair>,
  fromVersion: KeyPairVersion,
  to: UserKeyPair,
): Promise<MovedKeys> {
  const { context, userId, leaveBehind, signal } = work
  const onProgress = (files: number) => context.onEvent?.({ type: 'phase', text: `Moving file keys: ${files}` })
  for (let before = Number.POSITIVE_INFINITY; ; ) {
    const walk = await moveFileKeys(context.api, { from, fromVersion, to, userId }, onProgress, signal)
    if (walk.moved === 0) {
      requireNoneLeft(walk, leaveBehind)
      return walk
    }
    if (walk.moved >= before) {
      throw new SyncError(
        'server',
        'KEYS_NOT_TAKEN',
        'The server takes file keys for a second key pair but does not keep them',
        {
          hint: 'Nothing is lost. To stay with the old key pair: sync keys replace --undo',
        },
      )
    }
    before = walk.moved
  }
}

/** Sends a key pair; what lies there afterwards counts, not the answer. */
async function ensurePair(work: Work, pair: KeyPairContainer, send: () => Promise<void>): Promise<void> {
  const { context, signal } = work
  const find = async () => ofVersion(await getKeyPairs(context.api, signal), pair.publicKeyContainer.version)
  const there = await find()
  if (there === undefined) {
    try {
      await send()
    } catch (error) {
      const sent = await find()
      if (sent === undefined || !isSamePair(sent, pair)) throw error
    }
  } else if (!isSamePair(there, pair)) throw strange()
}

/** Unlocks a key pair with the password until now, when it is needed and once. */
function lazily(work: Work, container: KeyPairContainer): () => Promise<UserKeyPair> {
  const id = container.privateKeyContainer.privateKey
  return () => {
    const pair =
      work.unlocking.get(id) ?? work.current().then((secret) => opened(work, unlockKeyPair(container, secret)))
    work.unlocking.set(id, pair)
    return pair
  }
}

/** An account that has both versions, for whatever reason: the newer pair takes over what only the older one opens. */
async function settle(work: Work, pairs: readonly KeyPairContainer[]): Promise<void> {
  const [newer, older] = [ofVersion(pairs, RSA), ofVersion(pairs, 'A')]
  if (newer === undefined || older === undefined) return
  const to = await lazily(work, newer)()
  await moveAll(work, lazily(work, older), 'A', to)
  await deleteKeyPair(work.context.api, 'A', work.signal)
}

/** The key pair that is to be replaced. A wrong password is told before anything is made. */
async function former(work: Work): Promise<KeyPairContainer> {
  const pairs = await getKeyPairs(work.context.api, work.signal)
  const preferred = ofVersion(pairs, RSA) ?? ofVersion(pairs, 'A')
  if (preferred === undefined) throw noKeyPair()
  await lazily(work, preferred)()
  await settle(work, pairs)
  return preferred
}

/** Makes what is needed for the first step and keeps it, before the server hears of it. */
async function begin(work: Work, before: KeyPairContainer, secret: Password): Promise<KeyChange> {
  const isBridge = before.publicKeyContainer.version === 'A'
  const bridge = isBridge ? await lazily(work, before)() : await opened(work, generateKeyPair('A'))
  const since = work.context.clock.now()
  const change: KeyChange = { kind: 'pair', since, before: [before], bridge: await lockProven(bridge, secret) }
  await work.changes.write(change)
  return change
}

/** Unlocks what was made for the replacement; the new password opens it, whichever run has made it. */
async function openMade(work: Work, container: KeyPairContainer, secret: Password): Promise<UserKeyPair> {
  try {
    return await opened(work, unlockKeyPair(container, secret))
  } catch (error) {
    if (!(error instanceof SyncError) || error.code !== 'KEY_PASSWORD_WRONG') throw error
    throw new SyncError(
      'key',
      'KEY_PASSWORD_WRONG',
      'This is not the new password that the replacement has begun with',
      {
        hint: 'Give the new one as you did then.',
      },
    )
  }
}

/** The old RSA-4096 pair gives its file keys to the bridge, and goes; returns what was found, if it was still there. */
async function crossOver(work: Work, change: KeyChange, bridge: UserKeyPair): Promise<MovedKeys | undefined> {
  const { context, signal } = work
  const { api } = context
  const old = ofVersion(change.before, RSA)
  if (old === undefined) return undefined
  const there = ofVersion(await getKeyPairs(api, signal), RSA)
  if (there === undefined || !isSamePair(there, old)) return undefined
  await ensurePair(work, change.bridge!, () => createKeyPair(api, change.bridge!, signal))
  const walk = await moveAll(work, lazily(work, there), RSA, bridge)
  await deleteKeyPair(api, RSA, signal).catch(async (error) => {
    const left = ofVersion(await getKeyPairs(api, signal), RSA)
    if (left !== undefined && isSamePair(left, old)) throw error
  })
  return walk
}

/** The new pair comes, takes the file keys over from the bridge, and the bridge goes. */
async function arrive(
  work: Work,
  begun: KeyChange,
  bridge: UserKeyPair,
  secret: Password,
): Promise<MovedKeys & { pair: UserKeyPair }> {
  const { context, changes, signal } = work
  const { api } = context
  let change = begun
  if (change.next === undefined) {
    const made = await opened(work, generateKeyPair(RSA))
    change = { ...change, next: await lockProven(made, secret) }
    await changes.write(change)
  }
  const next = change.next!
  const pair = await openMade(work, next, secret)
  await ensurePair(work, next, () => addNewerKeyPair(api, next, change.bridge!.privateKeyContainer, signal))
  const isBridged = async () => {
    const there = ofVersion(await getKeyPairs(api, signal), 'A')
    if (there !== undefined && !isSamePair(there, change.bridge!)) throw strange()
    return there !== undefined
  }
  await isBridged()
  const walk = await moveAll(work, async () => bridge, 'A', pair)
  if (await isBridged()) {
    await deleteKeyPair(api, 'A', signal).catch(async (error) => {
      if (await isBridged()) throw error
    })
  }
  return { ...walk, pair }
}

/**
 * Makes a new RSA-4096 key pair and moves all file keys to it; then the old one is deleted, at the server and in what is kept here. At
 * any moment every file key is wrapped at the server for a key pair that is there. Interrupted anywhere, the same call goes on.
 *
 * Others are told that the key has changed, and hand out nothing to this account before they have compared it. Nothing else of this
 * account may upload meanwhile: what it wraps for the old key pair after the last walk is lost with that.
 *
 * @param current - The encryption password until now.
 * @param next - The new one, which may be the same. Bytes are overwritten.
 * @throws {SyncError} `NO_KEY_PAIR`, `KEY_PASSWORD_WRONG`, `PASSWORD_REFUSED`; `KEYS_STRANDED` (class `safety`) where file keys would be
 * lost; `KEYS_NOT_TAKEN` for a server that does not keep file keys for two key pairs; `KEY_LOCK_CHANGED`, `LOCKED`,
 * `KEY_CHANGE_UNFINISHED` after an interrupted change of the password.
 */
export async function replaceKeyPair(
  context: ClientContext,
  current: () => Promise<Password>,
  next: () => Promise<Password>,
  { leaveBehind = false, onChanged, signal }: Omit<ReplaceKeyPairOptions, 'current'>,
): Promise<KeyReplacement> {
  const changes = await openKeyChanges(context, signal)
  return changes.exclusive(async () => {
    const { api, keyring, home } = context
    const begun = await changes.read()
    if (begun?.kind === 'password') throw passwordUnfinished()
    const all = new Set<UserKeyPair>()
    let asked: Promise<Password> | undefined
    const once = () => {
      asked ??= current()
      return asked
    }
    const userId = await keyring.userId(signal)
    const work: Work = {
      context,
      changes,
      userId,
      leaveBehind,
      current: once,
      opened: all,
      unlocking: new Map(),
      signal,
    }
    let secret: Password | undefined
    try {
      if (begun === undefined) await requireReachable(context, leaveBehind, signal)
      const old = begun === undefined ? await former(work) : undefined
      secret = await askNewPassword(context, next, signal)
      const change = begun ?? (await begin(work, old!, secret))
      const bridge = await openMade(work, change.bridge!, secret)
      const crossed = await crossOver(work, change, bridge)
      const { pair, ...arrived } = await arrive(work, change, bridge, secret)
      const { absent } = crossed ?? arrived
      const left = (crossed?.left ?? 0) + arrived.left
      const leftFiles = [...(crossed?.leftFiles ?? []), ...arrived.leftFiles]
      const before = await Promise.all(change.before.map(idOf))
      await adopt(context, pair, userId, secret, signal)
      for (const one of [...change.before, change.bridge!]) {
        await forgetKeyPair(home.fileKeys, api.origin, await importPublicKey(one.publicKeyContainer))
      }
      const rescue = await renewRescue(context, pair, signal)
      await onChanged?.(secret)
      await changes.remove()
      const { version, fingerprint } = pair.publicKey
      return {
        former: before,
        keyPair: { version, fingerprint },
        files: arrived.ready,
        absent,
        left,
        leftFiles,
        rescue,
      }
    } finally {
      for (const pair of all) pair.wipe()
      wipePassword(secret)
      wipePassword(await asked?.catch(() => undefined))
    }
  })
}

const passwordUnfinished = () =>
  new SyncError('conflict', 'KEY_CHANGE_UNFINISHED', 'A change of the encryption password is not complete', {
    hint: 'Complete it first: sync keys passwd',
  })

/** Before anything is made: what can be seen from far is told at once. */
async function requireReachable(context: ClientContext, leaveBehind: boolean, signal?: AbortSignal): Promise<void> {
  if (leaveBehind) return
  const { unreached, unreadable } = await planReplacement(context, { signal })
  requireNoneLeft({ left: unreadable, leftFiles: [], unreached }, leaveBehind)
}

/** What this machine knows of the own keys follows. */
async function adopt(
  { api, keyring }: ClientContext,
  { publicKey }: UserKeyPair,
  userId: number,
  secret: Password,
  signal: AbortSignal | undefined,
): Promise<void> {
  keyring.refresh(secret)
  const there = ofVersion(await getKeyPairs(api, signal), RSA)
  if (there !== undefined) await keyring.prove(there, publicKey).catch(() => {}) // is proven again the next time
  await keyring.pins.forget(userId)
  await keyring.pins.trust(userId, [publicKey], true)
}

/** Rescue keys on paper follow: their containers hold the old key pair, which opens nothing any more. What does not work is told. */
async function renewRescue(
  context: ClientContext,
  pair: UserKeyPair,
  signal: AbortSignal | undefined,
): Promise<readonly RenewedContainer[] | undefined> {
  const tell = (what: string, { code, message }: SyncError) =>
    context.onEvent?.({ type: 'warning', code, message: `${what} does not open the new key pair: ${message}` })
  try {
    const { renewRescueContainers } = await import('./rescue.ts')
    const renewed = await renewRescueContainers(context, pair, { signal })
    for (const { keyId, path, error } of renewed) {
      if (error !== undefined) tell(`Rescue key ${keyId} with its container in ${path}`, error)
    }
    return renewed
  } catch (error) {
    if (signal?.aborted) throw error
    tell('A rescue key on paper', toSyncError(error))
    return undefined
  }
}

/**
 * Takes back a replacement that has not deleted the old key pair yet: the bridge goes, and nothing has changed.
 *
 * @throws {SyncError} `KEY_CHANGE_NONE` when none has begun; `KEY_CHANGE_UNFINISHED` when the old key pair is gone already.
 */
export async function undoReplacement(
  context: ClientContext,
  current: () => Promise<Password>,
  { signal }: Abortable,
): Promise<void> {
  const changes = await openKeyChanges(context, signal)
  await changes.exclusive(async () => {
    const { api, keyring } = context
    const begun = await changes.read()
    if (begun === undefined || begun.kind === 'password') {
      throw new SyncError('usage', 'KEY_CHANGE_NONE', 'No replacement of the key pair has begun on this machine')
    }
    const pairs = await getKeyPairs(api, signal)
    const [old, there] = [ofVersion(begun.before, RSA), ofVersion(pairs, RSA)]
    const isLate = old === undefined ? there !== undefined : there === undefined || !isSamePair(there, old)
    if (isLate) {
      throw new SyncError(
        'conflict',
        'KEY_CHANGE_UNFINISHED',
        'The old key pair is gone already; the replacement can only be completed',
        {
          hint: 'Complete it: sync keys replace',
        },
      )
    }
    const bridge = ofVersion(pairs, 'A')
    if (old !== undefined && bridge !== undefined && isSamePair(bridge, begun.bridge!)) {
      await requireAllOld(context, current, there!, signal)
      await deleteKeyPair(api, 'A', signal)
    }
    await changes.remove()
    keyring.refresh()
  })
}

/** Every file key is there for the old pair: those of the bridge are copies, and new files were wrapped for the newer version. */
async function requireAllOld(
  context: ClientContext,
  current: () => Promise<Password>,
  container: KeyPairContainer,
  signal: AbortSignal | undefined,
): Promise<void> {
  const secret = await current()
  const pair = await unlockKeyPair(container, secret).finally(() => wipePassword(secret))
  try {
    const from = () => Promise.reject(strange())
    const userId = await context.keyring.userId(signal)
    await moveFileKeys(context.api, { from, fromVersion: 'A', to: pair, userId }, () => {}, signal)
  } finally {
    pair.wipe()
  }
}
