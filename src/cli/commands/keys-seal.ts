/** keys seal: the encryption password, kept by the TPM of this machine or by a security key. @module */
import { SyncError } from '../../errors.ts'
import { withClient } from '../connect.ts'
import { type Context, keyPassword, keyPasswordAccount } from '../context.ts'
import { homeDirectory } from '../profile.ts'
import { SEAL_KINDS, type SealKind, sealPassword } from '../sealed-password.ts'

const isKind = (text: string): text is SealKind => (SEAL_KINDS as readonly string[]).includes(text)

/** Seals the password, after it has opened the key pair. */
export async function seal(context: Context, kind: string): Promise<void> {
  const { output, signal } = context
  if (!isKind(kind))
    throw new SyncError('usage', 'OPTION_INVALID', `Seal by ${SEAL_KINDS.join(' or ')}, not by ${kind}`)
  await withClient(context, async (client, profile) => {
    const password = await keyPassword(context, profile)()
    try {
      await client.keys.tryPassword(password, { signal })
      await sealPassword(homeDirectory(), keyPasswordAccount(profile), kind, password, output.info)
    } finally {
      password.fill(0)
    }
    output.done(`The encryption password is sealed; use it with --key-password-sealed ${kind}`, {
      type: 'sealed',
      kind,
    })
  })
}
