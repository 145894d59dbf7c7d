/** keys create, status, distribute, remember, forget (the password), cache clear. @module */
import {
  generateKeyPair,
  importPublicKey,
  keyProtection,
  lockKeyPair,
  SyncError,
  unlockKeyPair,
} from '../../../crypto/index.ts'
import { createKeyPair, getKeyPairs } from '../../api/account.ts'
import { listMissingFileKeys } from '../../api/file-keys.ts'
import { openSystemKeyring } from '../../local/system-keyring.ts'
import { requireRemote } from '../../sync/remote-path.ts'
import { distributeFileKeys, type RefusedMember } from '../../transfer/distribute.ts'
import { clearFileKeyCaches } from '../../transfer/file-key-cache.ts'
import { showFingerprint } from '../../transfer/pins.ts'
import { connect, withClient } from '../connect.ts'
import { type Context, keyCachePath, keyPassword, keyPasswordAccount, requireProfile, text } from '../context.ts'
import { plural } from '../display.ts'
import { EXIT } from '../exit-codes.ts'
import { createProgress } from '../output.ts'

export async function create(context: Context): Promise<void> {
  await withClient(context, async (client, profile) => {
    const existing = await getKeyPairs(client.api, context.signal)
    if (existing.some((pair) => pair.privateKeyContainer.version === 'RSA-4096')) {
      throw new SyncError('conflict', 'KEY_PAIR_EXISTS', 'This account has an RSA-4096 key pair already', {
        hint: 'See it with: sync keys status',
      })
    }
    const password = await keyPassword(context, profile, true)()
    context.output.info('Making an RSA-4096 key pair…')
    const pair = await generateKeyPair()
    try {
      await createKeyPair(client.api, await lockKeyPair(pair, password), context.signal)
      const { fingerprint } = pair.publicKey
      await client.keyring.pins.trust(await client.keyring.userId(context.signal), [pair.publicKey], true)
      context.output.done(`Key pair made. Fingerprint:\n${showFingerprint(fingerprint)}`, {
        type: 'key-pair',
        version: pair.version,
        fingerprint,
      })
      context.output.info(
        'Keep the encryption password safe: without it nobody can open the files, not even the server.',
      )
    } finally {
      pair.wipe()
      password.fill(0)
    }
  })
}

export async function status(context: Context): Promise<number> {
  return withClient(context, async (client) => {
    const pairs = await getKeyPairs(client.api, context.signal)
    const missing = await listMissingFileKeys(client.api, { offset: 0 }, context.signal).catch(() => undefined)
    const count = missing === undefined ? undefined : (missing.range?.total ?? missing.items.length)
    const rows = []
    for (const pair of pairs) {
      const { version } = pair.publicKeyContainer
      const { fingerprint } = await importPublicKey(pair.publicKeyContainer)
      rows.push({ version, fingerprint, ...keyProtection(pair) })
    }
    const lines = rows.map(
      (row) =>
        `${row.version}  ${showFingerprint(row.fingerprint)}\n  locked with PBKDF2 ${row.prf}, ${row.iterations} iterations` +
        (row.current ? '' : ' (old protection: change the password to renew it)'),
    )
    const left = count === undefined ? [] : [`${plural(count, 'file key')} of others to hand out`]
    context.output.result(
      [...(lines.length > 0 ? lines : ['no key pair; make one: sync keys create']), ...left].join('\n'),
      {
        type: 'keys',
        keyPairs: rows,
        missingFileKeys: count,
      },
    )
    return rows.length > 0 ? EXIT.done : EXIT.key
  })
}

const noKeyring = () =>
  new SyncError('usage', 'KEYRING_MISSING', 'There is no keyring of the operating system to keep the password in', {
    hint: 'Use --key-password-file or --key-password-command in scripts.',
  })

/** Keeps the encryption password in the system's keyring, after it has opened the key pair. */
export async function remember(context: Context): Promise<void> {
  await withClient(context, async ({ api }, profile) => {
    const keyring = await openSystemKeyring({ probe: true })
    if (keyring === undefined) throw noKeyring()
    const [container] = await getKeyPairs(api, context.signal)
    if (container === undefined) {
      throw new SyncError('key', 'NO_KEY_PAIR', 'This account has no key pair', { hint: 'Make one: sync keys create' })
    }
    await keyring.remove(keyPasswordAccount(profile))
    const password = await keyPassword(context, profile)()
    const pair = await unlockKeyPair(container, password)
    pair.wipe()
    await keyring.set(keyPasswordAccount(profile), Buffer.from(password).toString('utf8'))
    password.fill(0)
    context.output.done('The encryption password is kept in the keyring of the operating system', {
      type: 'remembered',
    })
  })
}

export async function forget(context: Context): Promise<void> {
  const profile = await requireProfile(context)
  const keyring = await openSystemKeyring({ probe: false })
  if (keyring === undefined) throw noKeyring()
  await keyring.remove(keyPasswordAccount(profile))
  context.output.done('The keyring does not hold the encryption password any more', { type: 'forgotten' })
}

export async function clearCache({ output }: Context): Promise<void> {
  const { files, bytes } = await clearFileKeyCaches(keyCachePath())
  output.done(files === 0 ? 'There is no cache of file keys' : `Removed ${plural(files, 'cache')} of file keys`, {
    type: 'key-cache-cleared',
    files,
    bytes,
  })
}

export async function distribute(context: Context): Promise<number> {
  const progress = await createProgress(context.output, 'handing out')
  const { client } = await connect(context, (event) => progress.onEvent(event))
  try {
    const path = text(context.options, 'room')
    const target = path === undefined ? undefined : await requireRemote(client.api, path, context.signal)
    const refused: RefusedMember[] = []
    const done = await distributeFileKeys(client.api, client.keyring, {
      ...(target === undefined ? {} : { roomId: target.roomId }),
      onEvent: progress.onEvent,
      onRefused: (one) => refused.push(one),
      signal: context.signal,
    })
    for (const hint of new Set(refused.map(({ error }) => error.hint))) context.output.info(hint ?? '')
    context.output.done(`Handed out ${plural(done.handedOut, 'file key')}, ${done.skipped} could not be`, {
      type: 'distribution',
      ...done,
      refused: refused.map(({ member, userId, error }) => ({
        member,
        userId,
        code: error.code,
        message: error.message,
      })),
    })
    if (refused.some(({ error }) => error.class === 'integrity')) return EXIT.integrity
    if (refused.some(({ error }) => error.class === 'safety')) return EXIT.safety
    return done.skipped > 0 ? EXIT.partial : EXIT.done
  } finally {
    progress.stop()
    await client.close()
  }
}
