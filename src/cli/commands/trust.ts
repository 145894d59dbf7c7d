/** keys list, verify, trust, forget: whose keys file keys are wrapped for. @module */
import { importPublicKey, SyncError } from '../../../crypto/index.ts'
import { getKeyPairs } from '../../api/account.ts'
import type { Client } from '../../client.ts'
import { parseRemotePath, remoteMissing, resolveRemote } from '../../sync/remote-path.ts'
import { listMembers, type Member } from '../../transfer/members.ts'
import { type KeyId, type PinState, showFingerprint } from '../../transfer/pins.ts'
import { placePath } from '../../transfer/places.ts'
import { withClient } from '../connect.ts'
import { type Context, text } from '../context.ts'
import { display } from '../display.ts'
import { EXIT } from '../exit-codes.ts'
import * as keys from './keys.ts'

/**
 * `verified`: somebody compared it. `changed`: not what was trusted before. `doubted`: trusted, but another one was seen.
 * `absent`: the server shows it no more. `unchecked`: the private key was never opened here.
 */
type State = 'own' | 'unchecked' | 'trusted' | 'verified' | 'new' | 'changed' | 'doubted' | 'absent'

interface Row extends KeyId {
  readonly state: State
  readonly userId: number
  readonly name?: string | undefined
  /** Belongs to no member, and opens every file of a room. */
  readonly isRescueKey?: boolean | undefined
  readonly since?: number | undefined
}

const nameOf = ({ userId, name, isRescueKey }: Pick<Row, 'userId' | 'name' | 'isRescueKey'>) =>
  `${isRescueKey === true ? 'rescue key' : name === undefined ? 'user' : display(name, 80)} (id:${userId})`

const sameKey = (a: KeyId, b: KeyId) => a.version === b.version && a.fingerprint === b.fingerprint

/** What is known and what is shown, key by key. */
function rowsOf({ userId, name, isRescueKey, keys: shown }: Member, pins: PinState): Row[] {
  const isMine = (pin: { userId: number }) => pin.userId === userId
  const [pinned, doubts] = [pins.keys.filter(isMine), pins.doubts.filter(isMine)]
  const row = ({ version, fingerprint }: KeyId, state: State, since?: number): Row => ({
    state,
    userId,
    name,
    isRescueKey,
    version,
    fingerprint,
    since,
  })
  const isShown = (key: KeyId) => shown.some((other) => sameKey(key, other))
  const inDoubt =
    doubts.length > 0 || (pinned.length > 0 && shown.some((key) => !pinned.some((pin) => sameKey(pin, key))))
  const known = pinned.map((pin) => {
    const state = inDoubt ? 'doubted' : !isShown(pin) ? 'absent' : pin.isVerified ? 'verified' : 'trusted'
    return row(pin, state, pin.since)
  })
  const strange = shown.filter((key) => ![...pinned, ...doubts].some((other) => sameKey(key, other)))
  return [
    ...known,
    ...doubts.map((pin) => row(pin, 'changed', pin.since)),
    ...strange.map((key) => row(key, inDoubt ? 'changed' : 'new')),
  ]
}

async function ownRows({ api, keyring }: Client, pins: PinState, signal: AbortSignal): Promise<Row[]> {
  const userId = await keyring.userId(signal)
  const known = pins.keys.filter((pin) => pin.userId === userId)
  const pairs = await getKeyPairs(api, signal)
  return Promise.all(
    pairs.map(async ({ publicKeyContainer }) => {
      const { version, fingerprint } = await importPublicKey(publicKeyContainer)
      const pin = known.find((one) => one.version === version)
      const state = pin === undefined ? 'unchecked' : sameKey(pin, { version, fingerprint }) ? 'own' : 'changed'
      return { state, userId, name: 'you', version, fingerprint, since: pin?.since }
    }),
  )
}

/** Members whom the server shows, and those who were known and are not shown any more. */
async function everybody({ api, keyring }: Client, pins: PinState, signal: AbortSignal): Promise<Member[]> {
  const members = await listMembers(api, keyring, signal)
  const self = await keyring.userId(signal)
  const shown = new Set([self, ...members.map(({ userId }) => userId)])
  const gone = new Set([...pins.keys, ...pins.doubts].map(({ userId }) => userId).filter((id) => !shown.has(id)))
  return [...members, ...[...gone].map((userId) => ({ userId, keys: [] }))]
}

export async function list(context: Context): Promise<number> {
  const { output, signal } = context
  return withClient(context, async (client) => {
    const pins = await client.keyring.pins.read()
    const members = await everybody(client, pins, signal)
    const rows = [...(await ownRows(client, pins, signal)), ...members.flatMap((member) => rowsOf(member, pins))]
    for (const row of rows) {
      const { state, userId, name, isRescueKey, version, fingerprint, since } = row
      const time = since === undefined ? undefined : new Date(since).toISOString()
      const head = [state.padEnd(9), nameOf(row), version, ...(time === undefined ? [] : [`since ${time}`])]
      output.result(`${head.join('  ')}\n  ${showFingerprint(fingerprint)}`, {
        type: 'key',
        state,
        userId,
        user: name,
        ...(isRescueKey === true ? { isRescueKey } : {}),
        version,
        fingerprint,
        since: time,
      })
    }
    if (pins.lostAt !== undefined) {
      output.warn('Whose keys were trusted before is lost: look at all of them, then: sync keys trust --all')
    }
    if (rows.some(({ state }) => state === 'changed' || state === 'doubted')) return EXIT.integrity
    return pins.lostAt === undefined ? EXIT.done : EXIT.safety
  })
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
  throw new SyncError('not_found', 'MEMBER_KEY_MISSING', `The server shows no usable key for ${nameOf(member)}`, {
    hint: 'They make one with: sync keys create',
  })
}

/** 64 hexadecimal digits, however they are grouped. */
function parseFingerprint(words: readonly string[]): string {
  const digits = words
    .join('')
    .replace(/[\s:-]/g, '')
    .toLowerCase()
  if (/^[0-9a-f]{64}$/.test(digits)) return digits
  throw new SyncError('usage', 'FINGERPRINT_INVALID', 'A fingerprint has 64 hexadecimal digits', {
    hint: 'They see theirs with: sync keys status',
  })
}

const differs = (member: Member) =>
  new SyncError(
    'integrity',
    'FINGERPRINT_DIFFERS',
    `The server shows another key for ${nameOf(member)}: ${member.keys.map((key) => showFingerprint(key.fingerprint)).join(', ')}`,
    { hint: 'Do not trust it, unless they read out this one.' },
  )

export async function verify(context: Context, user: string, words: readonly string[]): Promise<void> {
  const { output, signal } = context
  const fingerprint = parseFingerprint(words)
  await withClient(context, async ({ api, keyring }) => {
    const member = requireKeys(requireMember(await listMembers(api, keyring, signal), user))
    const others = member.keys.filter((key) => key.fingerprint !== fingerprint)
    if (others.length > 0) throw differs(member)
    const { keys: pinned } = await keyring.pins.read()
    const isTrusted = pinned.some((pin) => pin.userId === member.userId && pin.fingerprint === fingerprint)
    const advice = isTrusted
      ? 'it is trusted'
      : `to trust it: sync keys trust id:${member.userId} --fingerprint ${fingerprint}`
    output.result(`The server shows this key for ${nameOf(member)}; ${advice}`, {
      type: 'key-verified',
      userId: member.userId,
      user: member.name,
      fingerprint,
      isTrusted,
    })
  })
}

export async function trust(context: Context, user: string | undefined): Promise<number> {
  const { options, output, signal } = context
  const all = options.all === true
  const given = text(options, 'fingerprint')
  if (all === (user !== undefined) || (all && given !== undefined)) {
    throw new SyncError('usage', 'USAGE', 'Name one user, or say --all')
  }
  const fingerprint = given === undefined ? undefined : parseFingerprint([given])
  return withClient(context, async ({ api, keyring }) => {
    const members = await listMembers(api, keyring, signal)
    const pin = async (member: Member, keys: readonly KeyId[]) => {
      await keyring.pins.trust(member.userId, keys, fingerprint !== undefined)
      for (const key of keys) {
        output.done(`Trusted: ${nameOf(member)}  ${key.version}\n  ${showFingerprint(key.fingerprint)}`, {
          type: 'key-trusted',
          userId: member.userId,
          user: member.name,
          version: key.version,
          fingerprint: key.fingerprint,
        })
      }
    }
    if (user !== undefined) {
      const member = requireKeys(requireMember(members, user))
      const chosen = member.keys.filter((key) => fingerprint === undefined || key.fingerprint === fingerprint)
      if (chosen.length === 0) throw differs(member)
      if (new Set(chosen.map(({ version }) => version)).size < chosen.length) {
        throw new SyncError('integrity', 'KEYS_AMBIGUOUS', `The server shows several keys for ${nameOf(member)}`, {
          hint: 'Ask them which one is theirs, and give it with --fingerprint.',
        })
      }
      await pin(member, chosen)
      return EXIT.done
    }
    const pins = await keyring.pins.read()
    let isLeft = false
    let hasRescueKey = false
    for (const member of members) {
      const rows = rowsOf(member, pins)
      if (rows.some(({ state }) => state === 'changed')) {
        isLeft = true
        output.warn(`${nameOf(member)} is left out, since there is another key than before: sync keys list`)
      } else if (member.isRescueKey === true && rows.some(({ state }) => state === 'new')) {
        hasRescueKey = true
        output.warn(
          `${nameOf(member)} is left out, since it would open all files: if it is meant to be there, sync keys trust id:${member.userId}`,
        )
      } else if (rows.some(({ state }) => state === 'new')) {
        await pin(member, member.keys)
      }
    }
    await keyring.pins.acceptLoss()
    return isLeft ? EXIT.integrity : hasRescueKey ? EXIT.partial : EXIT.done
  })
}

export async function forget(context: Context, user: string | undefined): Promise<void> {
  const { options, output, signal } = context
  const path = text(options, 'room')
  if (user === undefined && path === undefined) return keys.forget(context)
  if (user !== undefined && path !== undefined) {
    throw new SyncError('usage', 'USAGE', 'Name a user or a room, not both')
  }
  await withClient(context, async (client) => {
    const { pins } = client.keyring
    if (path !== undefined) {
      const names = parseRemotePath(path)
      if (names.length === 0) throw new SyncError('usage', 'TARGET_IS_ROOT', 'Name a room: /room')
      // The guard would refuse to look below what is about to be forgotten.
      const { places: _guard, ...unguarded } = client.api
      const { found, missing } = await resolveRemote(unguarded, path, signal)
      const id = missing.length === 0 ? found.at(-1)?.id : undefined
      const wasKnown = await pins.forgetPlace(id, placePath(names))
      // One that is gone may still be known; one that nobody knows is a typing mistake.
      if (id === undefined && !wasKnown) throw remoteMissing(path)
      const what = wasKnown ? 'is not remembered as encrypted any more' : 'was not remembered'
      output.done(`${display(path)} ${what}`, { type: 'room-forgotten', id, wasKnown })
      return
    }
    const member = requireMember(await everybody(client, await pins.read(), signal), user ?? '')
    const count = await pins.forget(member.userId)
    output.done(count === 0 ? `No key of ${nameOf(member)} was known` : `Forgotten: the keys of ${nameOf(member)}`, {
      type: 'keys-forgotten',
      userId: member.userId,
      count,
    })
  })
}
