/** keys create, status, distribute, remember, forget (the password, a server), servers, cache clear. @module */

import { clearKeyCache, filePinStore, parseBaseUrl } from '../../client/index.ts'
import { SyncError } from '../../errors.ts'
import { showFingerprint } from '../../fingerprint.ts'
import { homePaths } from '../../local/home.ts'
import { openSystemKeyring } from '../../local/system-keyring.ts'
import { connect, withClient } from '../connect.ts'
import { type Context, keyPassword, keyPasswordAccount, requireProfile, text } from '../context.ts'
import { display, plural } from '../display.ts'
import { EXIT } from '../exit-codes.ts'
import { createProgress } from '../output.ts'
import { homeDirectory } from '../profile.ts'
import { forgetSealed } from '../sealed-password.ts'

export async function create(context: Context): Promise<void> {
  const { output, signal } = context
  await withClient(context, async (client, profile) => {
    const password = async () => {
      const secret = await keyPassword(context, profile, true)()
      output.info('Making an RSA-4096 key pair…')
      return secret
    }
    const { version, fingerprint } = await client.keys.create(password, { signal })
    output.done(`Key pair made. Fingerprint:\n${showFingerprint(fingerprint)}`, {
      type: 'key-pair',
      version,
      fingerprint,
    })
    output.info('Keep the encryption password safe: without it nobody can open the files, not even the server.')
  })
}

export async function status(context: Context): Promise<number> {
  return withClient(context, async (client) => {
    const { keyPairs, missingFileKeys, unfinished } = await client.keys.status({ signal: context.signal })
    const lines = keyPairs.map(
      (row) =>
        `${row.version}  ${showFingerprint(row.fingerprint)}\n  locked with PBKDF2 ${row.prf}, ${row.iterations} iterations` +
        (row.current ? '' : ' (old protection: renew it with sync keys passwd)'),
    )
    const left = missingFileKeys === undefined ? [] : [`${plural(missingFileKeys, 'file key')} of others to hand out`]
    context.output.result(
      [
        ...(lines.length > 0 ? lines : ['no key pair; make one: sync keys create']),
        ...left,
        ...(unfinished === undefined ? [] : [unfinishedText(unfinished.kind)]),
      ].join('\n'),
      { type: 'keys', keyPairs, missingFileKeys, unfinished },
    )
    return keyPairs.length > 0 ? EXIT.done : EXIT.key
  })
}

/** What was begun, and how it is completed. */
export const unfinishedText = (kind: 'password' | 'pair'): string =>
  kind === 'pair'
    ? 'The replacement of the key pair is not complete: sync keys replace'
    : 'The change of the encryption password is not complete: sync keys passwd'

const noKeyring = () =>
  new SyncError('usage', 'KEYRING_MISSING', 'There is no keyring of the operating system to keep the password in', {
    hint: 'Use --key-password-file or --key-password-command in scripts.',
  })

/** Keeps the encryption password in the system's keyring, after it has opened the key pair. */
export async function remember(context: Context): Promise<void> {
  await withClient(context, async (client, profile) => {
    const keyring = await openSystemKeyring({ probe: true })
    if (keyring === undefined) throw noKeyring()
    if ((await client.keys.status({ signal: context.signal })).keyPairs.length === 0) {
      throw new SyncError('key', 'NO_KEY_PAIR', 'This account has no key pair', { hint: 'Make one: sync keys create' })
    }
    await keyring.remove(keyPasswordAccount(profile))
    const password = await keyPassword(context, profile)()
    await client.keys.tryPassword(password, { signal: context.signal })
    await keyring.set(keyPasswordAccount(profile), Buffer.from(password).toString('utf8'))
    password.fill(0)
    context.output.done('The encryption password is kept in the keyring of the operating system', {
      type: 'remembered',
    })
  })
}

export async function forget(context: Context): Promise<void> {
  const profile = await requireProfile(context)
  const account = keyPasswordAccount(profile)
  const sealed = await forgetSealed(homeDirectory(), account)
  const keyring = await openSystemKeyring({ probe: false })
  if (keyring === undefined && sealed.length === 0) throw noKeyring()
  await keyring?.remove(account)
  const places = [...(keyring === undefined ? [] : ['the keyring']), ...sealed]
  context.output.done(`The encryption password is not kept any more: ${places.join(', ')}`, {
    type: 'forgotten',
    sealed,
  })
}

export async function clearCache({ output }: Context): Promise<void> {
  const { files, bytes } = await clearKeyCache(homeDirectory())
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
    const room = text(context.options, 'room')
    const { refused, ...done } = await client.keys.distribute({ room, signal: context.signal })
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

const serverKeys = () => filePinStore(homePaths(homeDirectory()).serverKeys)

/** Keys of servers that were seen first. */
export async function servers({ output }: Context): Promise<void> {
  const known = await serverKeys().list()
  if (known.size === 0) output.info('No keys of servers are remembered.')
  for (const [server, pin] of [...known].sort(([a], [b]) => (a < b ? -1 : 1))) {
    output.result(`${pin}  ${display(server)}`, { type: 'server-key', server, pin })
  }
}

export async function forgetServer({ output }: Context, url: string): Promise<void> {
  const { origin } = parseBaseUrl(url, { path: true })
  const wasKnown = await serverKeys().forget(origin)
  const what = wasKnown ? 'Forgotten: the key of' : 'No key was known of'
  output.done(`${what} ${display(origin)}`, { type: 'server-key-forgotten', server: origin, wasKnown })
}
