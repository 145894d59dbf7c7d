/** Passwords of links: the rules of the server. @module */
import { checkPassword, isWeakPassword, type Password } from '../../crypto/index.ts'
import { getAccount, getPasswordPolicy } from '../api/account.ts'
import { SyncError } from '../errors.ts'
import type { ClientContext } from './context.ts'
import { ruleText } from './key-password.ts'
import { textOf } from './links.ts'

/**
 * Reads the password of a new link, as the server wants them.
 *
 * @param isSent - The server gets it: that of a plain link.
 * @throws {SyncError} `PASSWORD_REFUSED`, `PASSWORD_EMPTY`.
 */
export async function readSharePassword(
  { api, onEvent }: ClientContext,
  password: () => Promise<Password>,
  isSent: boolean,
  signal: AbortSignal | undefined,
): Promise<string> {
  const policy = await getPasswordPolicy(api, signal, 'shares')
  const account = await getAccount(api, signal)
  const names = [account.firstName, account.lastName, account.email, account.userName].filter(
    (one) => one !== undefined,
  )
  const secret = textOf(await password())
  if (secret === '') throw new SyncError('usage', 'PASSWORD_EMPTY', 'The password of the link is empty')
  const broken = checkPassword(secret, policy, names).map(ruleText)
  if (isSent && /[&'<>]/.test(secret)) broken.push("none of & ' < >")
  if ([...secret].length > 1024) broken.push('1024 characters at most')
  if (broken.length > 0) {
    throw new SyncError('usage', 'PASSWORD_REFUSED', `The server wants passwords of links with ${broken.join('; ')}`, {
      hint: 'Choose another one, or have one made: --generate-password',
    })
  }
  if (isWeakPassword(secret, names)) {
    const message = isSent
      ? 'The password of the link is weak'
      : 'The password of the link is weak: whoever has the link can try passwords as fast as their machine goes'
    onEvent?.({ type: 'warning', code: 'PASSWORD_WEAK', message })
  }
  return secret
}
