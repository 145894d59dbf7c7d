/**
 * One-time codes of an authenticator app (RFC 6238), for logins that nobody attends. Whoever keeps the secret beside the password has
 * one factor in two places.
 * @module
 */
import { type Clock, systemClock } from '../environment.ts'
import { SyncError } from '../errors.ts'

const MAX_SECRET = 1_024

const invalid = () =>
  new SyncError('usage', 'OTP_SECRET_INVALID', 'The secret of the one-time codes cannot be read', {
    hint: 'It is the text below the picture that an authenticator app reads (base32), or its otpauth:// address.',
  })

/**
 * The code of this moment.
 *
 * @param secret - In base32, with spaces as they are often shown, or as an `otpauth://totp/…` address, which may name another
 * algorithm, number of digits or period than SHA-1, 6 and 30 s.
 * @throws {SyncError} `OTP_SECRET_INVALID`; the message shows nothing of it.
 */
export async function oneTimeCode(secret: string, clock: Clock = systemClock): Promise<string> {
  const text = secret.trim()
  if (text === '' || text.length > MAX_SECRET) throw invalid()
  const { TOTP, URI, Secret } = await import('otpauth')
  let totp: InstanceType<typeof TOTP> | undefined
  try {
    const read = text.startsWith('otpauth://')
      ? URI.parse(text)
      : new TOTP({ secret: Secret.fromBase32(text.replace(/[\s-]/g, '').toUpperCase()) })
    if (read instanceof TOTP) totp = read
  } catch {
    throw invalid() // the library's own message may quote it
  }
  if (totp === undefined || totp.secret.bytes.length < 1 || totp.digits > 10 || totp.period < 1) throw invalid()
  return totp.generate({ timestamp: clock.now() })
}

/**
 * For the `code` of a way to log in: asks for the secret each time, and gives each code once, as servers take them once: a second
 * login within the same period waits for the next one.
 *
 * @param secret - See {@link oneTimeCode}.
 */
export function oneTimeCodes(
  secret: () => string | Promise<string>,
  clock: Clock = systemClock,
): (signal?: AbortSignal) => Promise<string> {
  let last: string | undefined
  return async (signal) => {
    let code = await oneTimeCode(await secret(), clock)
    // At most a period of a minute; a longer one is no reason to wait.
    for (let waits = 0; code === last && waits < 60; waits++) {
      await clock.sleep(1_000, signal)
      code = await oneTimeCode(await secret(), clock)
    }
    last = code
    return code
  }
}
