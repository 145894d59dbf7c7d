/** Another encryption password for the same key pairs, and what the server wants of encryption passwords. @module */
import {
  checkPassword,
  importPublicKey,
  isWeakPassword,
  type KeyPairContainer,
  keyProtection,
  lockKeyPair,
  type Password,
  type PasswordPolicy,
  type PasswordViolation,
  type UserKeyPair,
  unlockKeyPair,
} from '../../crypto/index.ts'
import { createKeyPair, getAccount, getKeyPairs, getPasswordPolicy, relockKeyPair } from '../api/account.ts'
import { SyncError } from '../errors.ts'
import type { KeyId } from '../transfer/pins.ts'
import type { Abortable, ClientContext } from './context.ts'
import { openKeyChanges } from './key-change.ts'

const textOf = (password: Password): string =>
  typeof password === 'string' ? password : new TextDecoder().decode(password)

/** A rule as people say it. */
export function ruleText(broken: PasswordViolation): string {
  switch (broken.rule) {
    case 'minLength':
      return `at least ${broken.minLength} characters`
    case 'characters':
      return `${broken.required} kinds of characters at least (missing: ${broken.missing.join(', ')})`
    case 'userInfo':
      return 'no name or address of yours in it'
    case 'keyboardPattern':
      return 'no row of keys such as qwertz'
  }
}

/** Only a client can: the server never sees the password. */
function requirePolicy(password: Password, policy: PasswordPolicy, userInfo: readonly string[]): void {
  const broken = checkPassword(textOf(password), policy, userInfo)
  // What is empty is told in its own words, where the key is locked.
  if (broken.length === 0 || password.length === 0) return
  if (typeof password !== 'string') password.fill(0)
  const rules = broken.map(ruleText).join('; ')
  throw new SyncError('usage', 'PASSWORD_REFUSED', `The server wants encryption passwords with ${rules}`, {
    hint: 'Choose another one, such as several words that you take by chance.',
  })
}

/**
 * Asks for a new encryption password, once all is there that it has to follow.
 *
 * @throws {SyncError} `PASSWORD_REFUSED`.
 */
export async function askNewPassword(
  { api, onEvent }: ClientContext,
  password: () => Promise<Password>,
  signal?: AbortSignal,
): Promise<Password> {
  const { firstName, lastName, email, userName } = await getAccount(api, signal)
  const userInfo = [firstName, lastName, email, userName].filter((info) => info !== undefined)
  const policy = await getPasswordPolicy(api, signal)
  const secret = await password()
  requirePolicy(secret, policy, userInfo)
  if (isWeakPassword(textOf(secret), userInfo)) {
    const message = 'The encryption password is weak: whoever gets the locked key from the server could guess it'
    onEvent?.({ type: 'warning', code: 'PASSWORD_WEAK', message })
  }
  return secret
}

export const wipePassword = (secret: Password | undefined): void => {
  if (secret !== undefined && typeof secret !== 'string') secret.fill(0)
}

const bare = (pem: string) => pem.replace(/\s/g, '')

/** True for the same private key under the same lock. */
export const isSameLock = (a: KeyPairContainer, b: KeyPairContainer): boolean =>
  bare(a.privateKeyContainer.privateKey) === bare(b.privateKeyContainer.privateKey)

/** True for the same key pair, whatever its lock. */
export const isSamePair = (a: KeyPairContainer, b: KeyPairContainer): boolean =>
  bare(a.publicKeyContainer.publicKey) === bare(b.publicKeyContainer.publicKey)

/**
 * Locks a key pair, and unlocks it again before anybody depends on it.
 *
 * @throws {SyncError} as `lockKeyPair`; `INTERNAL` should it not open again.
 */
export async function lockProven(pair: UserKeyPair, password: Password): Promise<KeyPairContainer> {
  const locked = await lockKeyPair(pair, password)
  const again = await unlockKeyPair(locked, password)
  const isSame = again.publicKey.fingerprint === pair.publicKey.fingerprint
  again.wipe()
  if (!isSame) throw new SyncError('internal', 'INTERNAL', 'The newly locked key pair does not open')
  return locked
}

/** How the encryption password is changed. */
export interface ChangePasswordOptions extends Abortable {
  /** The password until now. Default: that of the client. */
  readonly current?: (() => Promise<Password>) | undefined
  /**
   * Called when the server has the new lock, and before the old one is forgotten: for what keeps the password elsewhere.
   */
  readonly onChanged?: ((password: Password) => Promise<void>) | undefined
}

/** A key pair under its new lock. */
export interface RelockedKeyPair extends KeyId {
  readonly iterations: number
  /** Of the lock before. */
  readonly formerIterations: number
}

/** What was locked again. */
export interface PasswordChange {
  readonly keyPairs: readonly RelockedKeyPair[]
}

interface Opened {
  /** As the server has it. */
  readonly container: KeyPairContainer
  /** The one that opened: that, or one that an interrupted change has kept. */
  readonly proven: KeyPairContainer
  readonly pair: UserKeyPair
}

const lockKept = () =>
  new SyncError(
    'conflict',
    'KEY_LOCK_KEPT',
    'This server does not replace the lock of a key pair; nothing was changed',
    {
      hint: 'A new key pair can have a new password, and takes over all file keys: sync keys replace -n',
    },
  )

const lockChanged = () =>
  new SyncError('conflict', 'KEY_LOCK_CHANGED', 'The key pair at the server was changed by somebody else meanwhile', {
    hint: 'Was that you, with another program? Look, and repeat: sync keys status',
  })

/** What lies at the server after all; a lost answer says nothing. */
async function readBack({ api }: ClientContext, locked: readonly KeyPairContainer[], signal: AbortSignal | undefined) {
  const there = await getKeyPairs(api, signal)
  const has = (one: KeyPairContainer) => there.some((other) => isSamePair(one, other) && isSameLock(one, other))
  return { there, has, hasAll: locked.every(has) }
}

/**
 * Locks the account's key pairs with another password; the key pairs, and with them all file keys and what others trust, stay the
 * same. Each new lock is opened once before it is sent, the server replaces the old one in one step, and the old one is kept in
 * the client's directory until the new one has been read back. Interrupted anywhere, one of the two passwords opens what is
 * there, and the same call completes it: the old password still opens what is kept.
 *
 * @param next - The new password, asked for when the current one has opened the key pair. Bytes are overwritten.
 * @throws {SyncError} `KEY_PASSWORD_WRONG`, `NO_KEY_PAIR`, `PASSWORD_REFUSED`; `KEY_LOCK_KEPT` where the server cannot do that,
 * `KEY_LOCK_CHANGED` when somebody else has; `KEY_CHANGE_UNFINISHED` during a replacement; `LOCKED`.
 */
export async function changePassword(
  context: ClientContext,
  current: () => Promise<Password>,
  next: () => Promise<Password>,
  { onChanged, signal }: Omit<ChangePasswordOptions, 'current'>,
): Promise<PasswordChange> {
  const changes = await openKeyChanges(context, signal)
  return changes.exclusive(async () => {
    const { api } = context
    const begun = await changes.read()
    if (begun?.kind === 'pair') throw replacementUnfinished()
    const containers = await getKeyPairs(api, signal)
    if (containers.length === 0) {
      throw new SyncError('key', 'NO_KEY_PAIR', 'This account has no key pair', { hint: 'Make one: sync keys create' })
    }
    const opened: Opened[] = []
    try {
      await openAll(containers, begun?.before ?? [], await current(), opened)
      return await relockOpened(context, changes, begun?.since, opened, next, { onChanged, signal })
    } finally {
      for (const { pair } of opened) pair.wipe()
    }
  })
}

/** Puts new locks on key pairs that have been opened; see `changePassword`. */
async function relockOpened(
  context: ClientContext,
  changes: Awaited<ReturnType<typeof openKeyChanges>>,
  since: number | undefined,
  opened: readonly Opened[],
  next: () => Promise<Password>,
  { onChanged, signal }: Omit<ChangePasswordOptions, 'current'>,
): Promise<PasswordChange> {
  const { keyring, clock } = context
  let secret: Password | undefined
  try {
    secret = await askNewPassword(context, next, signal)
    const locked: KeyPairContainer[] = []
    for (const { pair } of opened) locked.push(await lockProven(pair, secret))
    const before = opened.map(({ proven }) => proven)
    await changes.write({ kind: 'password', since: since ?? clock.now(), before })
    await replaceLocks(context, opened, locked, () => changes.remove(), signal)
    keyring.refresh(secret)
    for (const [at, { pair }] of opened.entries()) {
      await keyring.prove(locked[at]!, pair.publicKey).catch(() => {}) // is proven again the next time
    }
    await onChanged?.(secret)
    await changes.remove()
    return {
      keyPairs: opened.map(({ proven, pair: { version, publicKey } }, at) => ({
        version,
        fingerprint: publicKey.fingerprint,
        iterations: keyProtection(locked[at]!).iterations,
        formerIterations: keyProtection(proven).iterations,
      })),
    }
  } finally {
    wipePassword(secret)
  }
}

/**
 * As `changePassword`, for key pairs that were opened without their password: by a rescue key. One that the server has not got any more is
 * stored there.
 *
 * @param pairs - Unlocked; they stay so.
 * @throws {SyncError} as `changePassword`; `KEY_LOCK_CHANGED` when the server has another key pair of such a version.
 */
export async function relockKeyPairs(
  context: ClientContext,
  pairs: readonly UserKeyPair[],
  next: () => Promise<Password>,
  options: Omit<ChangePasswordOptions, 'current'>,
): Promise<PasswordChange> {
  const { api, keyring } = context
  const { onChanged, signal } = options
  const changes = await openKeyChanges(context, signal)
  return changes.exclusive(async () => {
    if ((await changes.read())?.kind === 'pair') throw replacementUnfinished()
    const containers = await getKeyPairs(api, signal)
    if (containers.length > 0) {
      const opened: Opened[] = []
      for (const pair of pairs) {
        const { version } = pair
        const container = containers.find((one) => one.publicKeyContainer.version === version)
        const shown = container && (await importPublicKey(container.publicKeyContainer))
        if (container === undefined || shown?.fingerprint !== pair.publicKey.fingerprint) throw lockChanged()
        opened.push({ container, proven: container, pair })
      }
      return relockOpened(context, changes, undefined, opened, next, options)
    }
    const secret = await askNewPassword(context, next, signal)
    try {
      const keyPairs: RelockedKeyPair[] = []
      for (const pair of pairs) {
        const locked = await lockProven(pair, secret)
        await createKeyPair(api, locked, signal)
        keyring.refresh(secret)
        await keyring.prove(locked, pair.publicKey).catch(() => {}) // is proven again the next time
        const { iterations } = keyProtection(locked)
        const { version, publicKey } = pair
        keyPairs.push({ version, fingerprint: publicKey.fingerprint, iterations, formerIterations: iterations })
      }
      await onChanged?.(secret)
      return { keyPairs }
    } finally {
      wipePassword(secret)
    }
  })
}

export const replacementUnfinished = (): SyncError =>
  new SyncError('conflict', 'KEY_CHANGE_UNFINISHED', 'The replacement of the key pair is not complete', {
    hint: 'Complete it first: sync keys replace',
  })

/** Opens every key pair with a password: as the server has it, or as it was kept when a change was interrupted. */
async function openAll(
  containers: readonly KeyPairContainer[],
  kept: readonly KeyPairContainer[],
  password: Password,
  opened: Opened[],
): Promise<void> {
  try {
    for (const container of containers) {
      let failure: unknown
      const candidates = [container, ...kept.filter((one) => isSamePair(one, container))]
      for (const proven of candidates) {
        try {
          opened.push({ container, proven, pair: await unlockKeyPair(proven, password) })
          failure = undefined
          break
        } catch (error) {
          if (!(error instanceof SyncError) || error.class !== 'key') throw error
          failure ??= error
        }
      }
      if (failure !== undefined) throw failure
    }
  } finally {
    wipePassword(password)
  }
}

const UNANSWERED: ReadonlySet<string> = new Set(['network', 'tls', 'server', 'rate_limit', 'cancelled'])

async function replaceLocks(
  context: ClientContext,
  opened: readonly Opened[],
  locked: readonly KeyPairContainer[],
  forgetKept: () => Promise<void>,
  signal: AbortSignal | undefined,
): Promise<void> {
  try {
    for (const [at, { container }] of opened.entries()) {
      await relockKeyPair(context.api, locked[at]!, container.privateKeyContainer, signal)
    }
  } catch (error) {
    const { there, hasAll } = await readBack(context, locked, signal)
    if (hasAll) return
    const isAsBefore = opened.every(({ container }) =>
      there.some((one) => isSamePair(one, container) && isSameLock(one, container)),
    )
    const isRefused =
      error instanceof SyncError && ['KEY_PAIR_EXISTS', 'EXISTS', 'REQUEST_REFUSED'].includes(error.code)
    // What was cut off may still arrive.
    const isAnswered = error instanceof SyncError && !UNANSWERED.has(error.class)
    if (isAnswered && isAsBefore) await forgetKept()
    if (isRefused && isAsBefore) throw lockKept()
    throw isRefused ? lockChanged() : error
  }
  if (!(await readBack(context, locked, signal)).hasAll) throw lockChanged()
}
