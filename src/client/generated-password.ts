/** Passwords that are taken by chance. @module */
import { randomInt } from 'node:crypto'
import { checkPassword, type PasswordPolicy } from '../../crypto/index.ts'

/** Nothing that looks like something else. */
const SIGNS = 'ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789'
const GROUP = 5
/** 116 bits. */
const GROUPS = 4

/** A password that is easy to read out: groups of letters and digits, taken by chance. */
export function generateSharePassword(policy: PasswordPolicy = {}): string {
  for (;;) {
    const groups = Math.max(GROUPS, Math.ceil(((policy.minLength ?? 0) + 1) / (GROUP + 1)))
    const words = Array.from({ length: groups }, () =>
      Array.from({ length: GROUP }, () => SIGNS[randomInt(SIGNS.length)]!).join(''),
    )
    const password = words.join('-')
    // All kinds of characters, whatever is wanted of them; the rows of a keyboard come by chance, too.
    const isMixed = /[A-Z]/.test(password) && /[a-z]/.test(password) && /\d/.test(password)
    if (isMixed && checkPassword(password, policy).length === 0) return password
  }
}
