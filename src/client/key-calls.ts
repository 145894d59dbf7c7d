/** What a client offers to change the own key pairs and to look at who has keys; what is behind each call is loaded by it. @module */
import type { Password } from '../../crypto/index.ts'
import type { Abortable, ClientContext } from './context.ts'
import type { KeyAudit, KeyAuditOptions } from './key-audit.ts'
import type { ChangePasswordOptions, PasswordChange } from './key-password.ts'
import type { KeyReplacement, ReplaceKeyPairOptions, ReplacementPlan } from './key-replacement.ts'

/** Other locks and other key pairs, and who has the keys of what. */
export interface KeyChangeCalls {
  /** Locks the own key pairs with another password, the same key pairs. Throws `KEY_PASSWORD_WRONG`, `KEY_LOCK_KEPT`. */
  changePassword(next: () => Promise<Password>, options?: ChangePasswordOptions): Promise<PasswordChange>
  /** Another key pair, which takes over all file keys. Throws `KEYS_STRANDED` where some would be lost. */
  replace(next: () => Promise<Password>, options?: ReplaceKeyPairOptions): Promise<KeyReplacement>
  /** What `replace` would move, room by room. */
  planReplacement(options?: Abortable): Promise<ReplacementPlan>
  /** Takes back a replacement that was interrupted before the old key pair was deleted. */
  undoReplacement(current?: () => Promise<Password>, options?: Abortable): Promise<void>
  /** Who has the keys of how many files, room by room, and what somebody should look at. */
  audit(options?: KeyAuditOptions): Promise<KeyAudit>
}

/** @param password - The encryption password of the client. */
export function createKeyChangeCalls(context: ClientContext, password: () => Promise<Password>): KeyChangeCalls {
  const replacement = () => import('./key-replacement.ts')
  return {
    changePassword: async (next, { current = password, ...how } = {}) =>
      (await import('./key-password.ts')).changePassword(context, current, next, how),
    replace: async (next, { current = password, ...how } = {}) =>
      (await replacement()).replaceKeyPair(context, current, next, how),
    planReplacement: async (how = {}) => (await replacement()).planReplacement(context, how),
    undoReplacement: async (current = password, how = {}) =>
      (await replacement()).undoReplacement(context, current, how),
    audit: async (how = {}) => (await import('./key-audit.ts')).audit(context, how),
  }
}
