/**
 * Passwords of shares: how they are kept, and how often they may be tried. As with logins a try counts before it is known to be
 * wrong, so that many at once get no further than one after the other.
 * @module
 */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { hashPassword } from './credentials.ts'
import { ApiError, badRequest, OAuthError } from './errors.ts'
import { LoginLimits } from './login-limits.ts'
import type { ShareRecord } from './records.ts'
import { type Fields, optionalString } from './validate.ts'

const MAX_PASSWORD = 1024
const MAX_KNOWN = 1000
/** Wrong tries of one share, beside those of a minute. */
const PER_DAY = { most: 300, withinMs: 86_400_000 }

/** The password in a body, if there is one; what the API forbids is refused. */
export function newPassword(fields: Fields): string | undefined {
  const password = optionalString(fields, 'password')
  if (password === undefined) return undefined
  if (password === '') throw badRequest(-10002, 'Password is not secure')
  if (password.length > MAX_PASSWORD) throw badRequest(-80007, 'password is too long')
  if (/[&'<>]/.test(password)) throw badRequest(-80023, 'password contains invalid characters')
  return password
}

/** What is kept of a password. */
export async function lockPassword(password: string): Promise<NonNullable<ShareRecord['password']>> {
  const salt = new Uint8Array(randomBytes(16))
  return { salt, hash: new Uint8Array(await hashPassword(password, salt)) }
}

export class SharePasswords {
  readonly #limits = new LoginLimits(PER_DAY)
  /** What was right before, so that who sends many files does not wait for each. Keyed; gone with the process. */
  readonly #known = new Map<number, { epoch: number; mac: Buffer }>()
  readonly #key = randomBytes(32)
  readonly #now: () => number

  constructor(now: () => number) {
    this.#now = now
  }

  /**
   * Whether this is the password of a share. A share without one takes any.
   *
   * @throws {ApiError} 403 -51000 with `Retry-After`, before any work, after too many wrong ones.
   */
  async matches(share: ShareRecord, password: string | undefined, address: string): Promise<boolean> {
    const { password: kept } = share
    if (kept === undefined) return true
    if (password === undefined || password === '') return false
    try {
      const { isRight } = await this.#limits.attempt(String(share.id), address, this.#now, async () => {
        const right = await this.#check(share, kept, password)
        return { isRight: right, outcome: right ? 'good' : 'bad-code' }
      })
      return isRight
    } catch (error) {
      if (!(error instanceof OAuthError)) throw error
      throw new ApiError(403, -51000, 'Share is temporarily locked', { ...error.headers })
    }
  }

  async #check(share: ShareRecord, kept: NonNullable<ShareRecord['password']>, password: string): Promise<boolean> {
    const mac = createHmac('sha256', this.#key).update(password.normalize('NFC')).digest()
    const known = this.#known.get(share.id)
    // Only after the limits: this is fast.
    if (known !== undefined && known.epoch === share.epoch && timingSafeEqual(known.mac, mac)) return true
    if (password.length > MAX_PASSWORD) return false
    const hash = await hashPassword(password, kept.salt)
    if (!timingSafeEqual(hash, kept.hash)) return false
    if (this.#known.size >= MAX_KNOWN) this.#known.clear()
    this.#known.set(share.id, { epoch: share.epoch, mac })
    return true
  }
}
