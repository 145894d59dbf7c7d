/** keys passwd: another encryption password for the same key pair. @module */
import { showFingerprint } from '../../fingerprint.ts'
import { openSystemKeyring } from '../../local/system-keyring.ts'
import { connect } from '../connect.ts'
import { type Context, keyPassword, keyPasswordAccount } from '../context.ts'
import { newKeyPassword } from '../new-password.ts'
import { homeDirectory, type Profile } from '../profile.ts'
import { sealedKinds, sealPassword } from '../sealed-password.ts'

/** What keeps the password elsewhere follows: what is sealed, and the keyring of the system. What does not work is told: the change itself has happened. */
export async function passwordFollows(
  context: Context,
  profile: Profile,
  password: string | Uint8Array,
): Promise<void> {
  await updateKeyring(context, profile, password)
  const [home, account, { output }] = [homeDirectory(), keyPasswordAccount(profile), context]
  for (const kind of await sealedKinds(home, account)) {
    await sealPassword(home, account, kind, Buffer.from(password), output.info).catch(() =>
      output.warn(`What ${kind} has sealed is still the old password; renew it: sync keys seal ${kind}`),
    )
  }
}

export async function updateKeyring(
  { output }: Context,
  profile: Profile,
  password: string | Uint8Array,
): Promise<void> {
  const account = keyPasswordAccount(profile)
  try {
    const keyring = await openSystemKeyring({ probe: false })
    if (keyring === undefined || (await keyring.get(account)) === undefined) return
    await keyring.set(account, Buffer.from(password).toString('utf8'))
  } catch {
    output.warn('The keyring of the operating system still has the old password; renew it: sync keys remember')
  }
}

export async function passwd(context: Context): Promise<void> {
  const { output, signal } = context
  const { client, profile } = await connect(context)
  try {
    const next = async () => {
      const secret = await newKeyPassword(context)
      output.info('Locking the key pair…')
      return secret
    }
    const { keyPairs } = await client.keys.changePassword(next, {
      current: keyPassword(context, profile),
      onChanged: (password) => passwordFollows(context, profile, password),
      signal,
    })
    const lines = keyPairs.map(({ version, fingerprint, iterations, formerIterations }) => {
      const stronger = formerIterations < iterations
      return `${version}  ${showFingerprint(fingerprint)}${stronger ? `\n  ${iterations} iterations, before: ${formerIterations}` : ''}`
    })
    output.done(`The encryption password is changed; the key pair is the same:\n${lines.join('\n')}`, {
      type: 'password-changed',
      keyPairs,
    })
    output.info(
      'Whoever has a copy of the old locked key and knows the old password can still open it: sync keys replace',
    )
  } finally {
    await client.close()
  }
}
