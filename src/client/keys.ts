/** The account's own key pair, and whose keys file keys are wrapped for. @module */
import {
  generateKeyPair,
  importPublicKey,
  type KeyPairVersion,
  keyProtection,
  lockKeyPair,
  type Password,
  unlockKeyPair,
} from '../../crypto/index.ts'
import { createKeyPair, getKeyPairs } from '../api/account.ts'
import { listMissingFileKeys } from '../api/file-keys.ts'
import { SyncError } from '../errors.ts'
import { parseFingerprint, showFingerprint } from '../fingerprint.ts'
import { parseRemotePath, remoteMissing, requireRemote, resolveRemote } from '../sync/remote-path.ts'
import { type DistributionResult, distributeFileKeys, type RefusedMember } from '../transfer/distribute.ts'
import { clearFileKeyCaches } from '../transfer/file-key-cache.ts'
import { listMembers, type Member } from '../transfer/members.ts'
import type { KeyId, PinState } from '../transfer/pins.ts'
import { placePath } from '../transfer/places.ts'
import type { Abortable, ClientContext } from './context.ts'
import { type KeyChange, openKeyChanges } from './key-change.ts'
import { type KeyOwner, ownerText } from './key-owner.ts'
import { askNewPassword, wipePassword } from './key-password.ts'

export type { KeyOwner } from './key-owner.ts'

/** One key pair of the account. */
export interface OwnKeyPair {
  readonly version: KeyPairVersion
  /** SHA-256 of the public key: 64 hexadecimal digits. */
  readonly fingerprint: string
  /** How the private key is locked: PBKDF2 with this HMAC and so many iterations. */
  readonly prf: string
  readonly iterations: number
  /** False: less than a new one would be locked with. */
  readonly current: boolean
}

/** How the account’s own keys stand. */
export interface KeysStatus {
  /** Empty: there is none yet. */
  readonly keyPairs: readonly OwnKeyPair[]
  /** File keys that this account could hand out to others; `undefined` where the server does not say. */
  readonly missingFileKeys: number | undefined
  /** A change of them that has begun on this machine and is not complete. */
  readonly unfinished?: { readonly kind: KeyChange['kind']; readonly since: number } | undefined
}

/**
 * `verified`: somebody compared it. `changed`: not what was trusted before. `doubted`: trusted, but another one was seen.
 * `absent`: the server shows it no more. `unchecked`: the private key was never opened here.
 */
export type KeyState = 'own' | 'unchecked' | 'trusted' | 'verified' | 'new' | 'changed' | 'doubted' | 'absent'

/** A key of somebody else, and what is thought of it. */
export interface KnownKey extends KeyOwner, KeyId {
  readonly state: KeyState
  /** Since when it is known, in milliseconds since the epoch. */
  readonly since?: number | undefined
}

/** All keys that are known of others. */
export interface KeyList {
  readonly keys: readonly KnownKey[]
  /** When it was noticed that whose keys were trusted before is lost: look at all of them, then `trustAll`. */
  readonly lostAt: number | undefined
}

/** What there is of key pairs, and of file keys to hand out. No password is needed. */
export async function status(context: ClientContext, { signal }: Abortable): Promise<KeysStatus> {
  const { api } = context
  const pairs = await getKeyPairs(api, signal)
  const missing = await listMissingFileKeys(api, { offset: 0 }, signal).catch((error) => {
    if (signal?.aborted) throw error
    return undefined // not everybody may hand out keys
  })
  const keyPairs: OwnKeyPair[] = []
  for (const pair of pairs) {
    const { version } = pair.publicKeyContainer
    const { fingerprint } = await importPublicKey(pair.publicKeyContainer)
    keyPairs.push({ version, fingerprint, ...keyProtection(pair) })
  }
  const begun = await (await openKeyChanges(context, signal)).read()
  return {
    ...(begun === undefined ? {} : { unfinished: { kind: begun.kind, since: begun.since } }),
    keyPairs,
    missingFileKeys: missing === undefined ? undefined : (missing.range?.total ?? missing.items.length),
  }
}

/**
 * Makes the account's RSA-4096 key pair, locks it with the encryption password and stores it at the server. Takes a few seconds.
 *
 * @param password - Has to follow the rules of the server; of one that is weak in spite of them, a warning tells (`PASSWORD_WEAK`).
 * Asked for only when there is no key pair yet. Bytes that it returns are overwritten.
 * @returns version and fingerprint; others compare the fingerprint when they trust the key.
 * @throws {SyncError} `KEY_PAIR_EXISTS`, `PASSWORD_REFUSED`, and for a bad password as `lockKeyPair`.
 */
export async function create(
  context: ClientContext,
  password: () => Promise<Password>,
  { signal }: Abortable,
): Promise<KeyId> {
  const { api, keyring } = context
  const existing = await getKeyPairs(api, signal)
  if (existing.some((pair) => pair.privateKeyContainer.version === 'RSA-4096')) {
    throw new SyncError('conflict', 'KEY_PAIR_EXISTS', 'This account has an RSA-4096 key pair already', {
      hint: 'See it with: sync keys status',
    })
  }
  const secret = await askNewPassword(context, password, signal)
  const pair = await generateKeyPair()
  try {
    await createKeyPair(api, await lockKeyPair(pair, secret), signal)
    keyring.refresh()
    await keyring.pins.trust(await keyring.userId(signal), [pair.publicKey], true)
    return { version: pair.version, fingerprint: pair.publicKey.fingerprint }
  } finally {
    pair.wipe()
    wipePassword(secret)
  }
}

/**
 * Finds out whether a password opens the key pair.
 *
 * @throws {SyncError} `KEY_PASSWORD_WRONG`, `NO_KEY_PAIR`.
 */
export async function tryPassword({ api }: ClientContext, password: Password, { signal }: Abortable): Promise<void> {
  const [container] = await getKeyPairs(api, signal)
  if (container === undefined) {
    throw new SyncError('key', 'NO_KEY_PAIR', 'This account has no key pair', { hint: 'Make one: sync keys create' })
  }
  const pair = await unlockKeyPair(container, password)
  pair.wipe()
}

/** Where file keys are handed out. */
export interface DistributeOptions extends Abortable {
  /** Path of something in the room; default: all rooms of this account. */
  readonly room?: string | undefined
}

/** What handing out has done, and who was refused. */
export interface Distribution extends DistributionResult {
  /** Members who got no keys, and why: `MEMBER_NEW`, `RESCUE_KEY_NEW`, `MEMBER_KEY_CHANGED`, `OWN_KEY_CHANGED`, `PINS_LOST`. */
  readonly refused: readonly RefusedMember[]
}

/**
 * Hands out the file keys that members lack, to those whose keys are trusted.
 *
 * @throws {SyncError} `REMOTE_MISSING`, `NO_KEY_PAIR`, `PASSWORD_NEEDED`, `KEY_PASSWORD_WRONG`.
 */
export async function distribute(
  { api, keyring, onEvent }: ClientContext,
  { room, signal }: DistributeOptions,
): Promise<Distribution> {
  const target = room === undefined ? undefined : await requireRemote(api, room, signal)
  const refused: RefusedMember[] = []
  const done = await distributeFileKeys(api, keyring, {
    ...(target === undefined ? {} : { roomId: target.roomId }),
    onEvent,
    onRefused: (one) => refused.push(one),
    signal,
  })
  return { ...done, refused }
}

const sameKey = (a: KeyId, b: KeyId) => a.version === b.version && a.fingerprint === b.fingerprint

/** What is known and what is shown, key by key. */
function rowsOf({ userId, name, isRescueKey, keys: shownKeys }: Member, pins: PinState): KnownKey[] {
  const isMine = (pin: { userId: number }) => pin.userId === userId
  const [pinned, doubts] = [pins.keys.filter(isMine), pins.doubts.filter(isMine)]
  const row = ({ version, fingerprint }: KeyId, state: KeyState, since?: number): KnownKey => ({
    state,
    userId,
    name,
    isRescueKey,
    version,
    fingerprint,
    since,
  })
  const isShown = (key: KeyId) => shownKeys.some((other) => sameKey(key, other))
  const inDoubt =
    doubts.length > 0 || (pinned.length > 0 && shownKeys.some((key) => !pinned.some((pin) => sameKey(pin, key))))
  const known = pinned.map((pin) => {
    const state = inDoubt ? 'doubted' : !isShown(pin) ? 'absent' : pin.isVerified ? 'verified' : 'trusted'
    return row(pin, state, pin.since)
  })
  const strange = shownKeys.filter((key) => ![...pinned, ...doubts].some((other) => sameKey(key, other)))
  return [
    ...known,
    ...doubts.map((pin) => row(pin, 'changed', pin.since)),
    ...strange.map((key) => row(key, inDoubt ? 'changed' : 'new')),
  ]
}

async function ownRows({ api, keyring }: ClientContext, pins: PinState, signal?: AbortSignal): Promise<KnownKey[]> {
  const userId = await keyring.userId(signal)
  const known = pins.keys.filter((pin) => pin.userId === userId)
  const pairs = await getKeyPairs(api, signal)
  return Promise.all(
    pairs.map(async ({ publicKeyContainer }): Promise<KnownKey> => {
      const { version, fingerprint } = await importPublicKey(publicKeyContainer)
      const pin = known.find((one) => one.version === version)
      const state = pin === undefined ? 'unchecked' : sameKey(pin, { version, fingerprint }) ? 'own' : 'changed'
      return { state, userId, name: 'you', version, fingerprint, since: pin?.since }
    }),
  )
}

/** Members whom the server shows, and those who were known and are not shown any more. */
async function everybody({ api, keyring }: ClientContext, pins: PinState, signal?: AbortSignal): Promise<Member[]> {
  const members = await listMembers(api, keyring, signal)
  const self = await keyring.userId(signal)
  const there = new Set([self, ...members.map(({ userId }) => userId)])
  const gone = new Set([...pins.keys, ...pins.doubts].map(({ userId }) => userId).filter((id) => !there.has(id)))
  return [...members, ...[...gone].map((userId) => ({ userId, keys: [] }))]
}

/** Own keys first, then those of all members of encrypted rooms, and of those who were members. */
export async function list(context: ClientContext, { signal }: Abortable): Promise<KeyList> {
  const pins = await context.keyring.pins.read()
  const members = await everybody(context, pins, signal)
  const own = await ownRows(context, pins, signal)
  return { keys: [...own, ...members.flatMap((member) => rowsOf(member, pins))], lostAt: pins.lostAt }
}

/** A member by name or `id:N`; a plain number is either. */
function requireMember(members: readonly Member[], user: string): Member {
  const id = /^(?:id:)?(-?\d+)$/.exec(user)?.[1]
  const found = members.filter(
    ({ userId, name }) => String(userId) === id || (name === user && !user.startsWith('id:')),
  )
  if (found.length > 1) {
    const ids = found.map(({ userId }) => `id:${userId}`).join(' or ')
    throw new SyncError('usage', 'USER_AMBIGUOUS', `More than one user is called ${user}`, { hint: `Write ${ids}.` })
  }
  const [member] = found
  if (member === undefined) {
    throw new SyncError('not_found', 'USER_UNKNOWN', `There is no member ${user} in your encrypted rooms`, {
      hint: 'See who there is: sync keys list',
    })
  }
  return member
}

function requireKeys(member: Member): Member {
  if (member.keys.length > 0) return member
  throw new SyncError('not_found', 'MEMBER_KEY_MISSING', `The server shows no usable key for ${ownerText(member)}`, {
    hint: 'They make one with: sync keys create',
  })
}

const differs = (member: Member) =>
  new SyncError(
    'integrity',
    'FINGERPRINT_DIFFERS',
    `The server shows another key for ${ownerText(member)}: ${member.keys.map((key) => showFingerprint(key.fingerprint)).join(', ')}`,
    { hint: 'Do not trust it, unless they read out this one.' },
  )

/** A key that was compared with what its owner has read out. */
export interface KeyVerified extends KeyOwner {
  readonly fingerprint: string
  readonly isTrusted: boolean
}

/**
 * Compares the key that the server shows for a member with what they have read out. Nothing is trusted by that.
 *
 * @param user - User name or `id:N`.
 * @throws {SyncError} `FINGERPRINT_DIFFERS` (class `integrity`), `FINGERPRINT_INVALID`, `USER_UNKNOWN`, `USER_AMBIGUOUS`,
 * `MEMBER_KEY_MISSING`.
 */
export async function verify(
  { api, keyring }: ClientContext,
  user: string,
  fingerprint: string,
  { signal }: Abortable,
): Promise<KeyVerified> {
  const wanted = parseFingerprint(fingerprint)
  const member = requireKeys(requireMember(await listMembers(api, keyring, signal), user))
  if (member.keys.some((key) => key.fingerprint !== wanted)) throw differs(member)
  const { keys: pinned } = await keyring.pins.read()
  const isTrusted = pinned.some((pin) => pin.userId === member.userId && pin.fingerprint === wanted)
  return { userId: member.userId, name: member.name, isRescueKey: member.isRescueKey, fingerprint: wanted, isTrusted }
}

/** Keys that are trusted from now on, of one member. */
export interface KeysTrusted extends KeyOwner {
  readonly keys: readonly KeyId[]
}

/** How a key is known to be the right one. */
export interface TrustOptions extends Abortable {
  /** As they have read it out; the key counts as verified then. */
  readonly fingerprint?: string | undefined
}

const ownerOf = ({ userId, name, isRescueKey }: Member): KeyOwner => ({ userId, name, isRescueKey })

/**
 * Trusts the keys that the server shows for a member, instead of any that were trusted before: file keys are handed out to them
 * from now on.
 *
 * @param user - User name or `id:N`.
 * @throws {SyncError} as `verify`; `KEYS_AMBIGUOUS` (class `integrity`) when the server shows several and no fingerprint is given;
 * `FINGERPRINT_NEEDED` for a rescue key without one.
 */
export async function trust(
  { api, keyring }: ClientContext,
  user: string,
  options: TrustOptions,
): Promise<KeysTrusted> {
  const fingerprint = options.fingerprint === undefined ? undefined : parseFingerprint(options.fingerprint)
  const member = requireKeys(requireMember(await listMembers(api, keyring, options.signal), user))
  const chosen = member.keys.filter((key) => fingerprint === undefined || key.fingerprint === fingerprint)
  if (chosen.length === 0) throw differs(member)
  if (member.isRescueKey === true && fingerprint === undefined) {
    const shown = chosen[0]?.fingerprint
    throw new SyncError('usage', 'FINGERPRINT_NEEDED', 'A rescue key opens all files: compare its fingerprint first', {
      hint: `Is it what the administrator of the room has written down? Then: sync keys rescue trust ${shown}`,
    })
  }
  if (new Set(chosen.map(({ version }) => version)).size < chosen.length) {
    throw new SyncError('integrity', 'KEYS_AMBIGUOUS', `The server shows several keys for ${ownerText(member)}`, {
      hint: 'Ask them which one is theirs, and give it with --fingerprint.',
    })
  }
  await keyring.pins.trust(member.userId, chosen, fingerprint !== undefined)
  return { ...ownerOf(member), keys: chosen.map(({ version, fingerprint: one }) => ({ version, fingerprint: one })) }
}

/** Whose keys are trusted now, and whose not. */
export interface TrustedAll {
  readonly trusted: readonly KeysTrusted[]
  /** Left out since there is another key than before: look at `list`. */
  readonly changed: readonly KeyOwner[]
  /** Rescue keys, which would open all files: `trust` them by name if they are meant to be there. */
  readonly rescueKeys: readonly KeyOwner[]
}

/** Trusts all members whose keys are new, and none whose keys have changed; accepts that older knowledge is lost. */
export async function trustAll({ api, keyring }: ClientContext, { signal }: Abortable): Promise<TrustedAll> {
  const members = await listMembers(api, keyring, signal)
  const pins = await keyring.pins.read()
  const trusted: KeysTrusted[] = []
  const changed: KeyOwner[] = []
  const rescueKeys: KeyOwner[] = []
  for (const member of members) {
    const states = rowsOf(member, pins).map(({ state }) => state)
    if (states.includes('changed')) changed.push(ownerOf(member))
    else if (!states.includes('new')) continue
    else if (member.isRescueKey === true) rescueKeys.push(ownerOf(member))
    else {
      await keyring.pins.trust(member.userId, member.keys, false)
      const keys = member.keys.map(({ version, fingerprint }) => ({ version, fingerprint }))
      trusted.push({ ...ownerOf(member), keys })
    }
  }
  await keyring.pins.acceptLoss()
  return { trusted, changed, rescueKeys }
}

/**
 * Forgets the keys of a member, who counts as new then.
 *
 * @param user - User name or `id:N`; also of somebody who is in no room any more.
 * @returns who, and how many keys were known.
 * @throws {SyncError} `USER_UNKNOWN`, `USER_AMBIGUOUS`.
 */
export async function forget(
  context: ClientContext,
  user: string,
  { signal }: Abortable,
): Promise<KeyOwner & { readonly count: number }> {
  const { pins } = context.keyring
  const member = requireMember(await everybody(context, await pins.read(), signal), user)
  return { ...ownerOf(member), count: await pins.forget(member.userId) }
}

/**
 * Forgets that a place was encrypted, with all below it: content may go there without encryption again.
 *
 * @param path - `/room` or below.
 * @throws {SyncError} `TARGET_IS_ROOT`; `REMOTE_MISSING` for one that is neither there nor known.
 */
export async function forgetPlace(
  { api, keyring }: ClientContext,
  path: string,
  { signal }: Abortable,
): Promise<{ readonly id: number | undefined; readonly wasKnown: boolean }> {
  const names = parseRemotePath(path)
  if (names.length === 0) throw new SyncError('usage', 'TARGET_IS_ROOT', 'Name a room: /room')
  // The guard would refuse to look below what is about to be forgotten.
  const { places: _guard, ...unguarded } = api
  const { found, missing } = await resolveRemote(unguarded, path, signal)
  const id = missing.length === 0 ? found.at(-1)?.id : undefined
  const wasKnown = await keyring.pins.forgetPlace(id, placePath(names))
  // One that is gone may still be known; one that nobody knows is a typing mistake.
  if (id === undefined && !wasKnown) throw remoteMissing(path)
  return { id, wasKnown }
}

/**
 * Removes all caches of file keys of the client's directory; the keys are unwrapped again when they are needed.
 *
 * @returns how many files, and their bytes.
 */
export const clearCache = ({ home }: ClientContext): Promise<{ readonly files: number; readonly bytes: number }> =>
  clearFileKeyCaches(home.fileKeys)
