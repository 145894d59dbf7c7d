/** Fingerprints of public keys as people read and write them. @module */
import { SyncError } from './errors.ts'

/** What two people compare over the phone: groups of four digits. */
export const showFingerprint = (fingerprint: string): string => fingerprint.match(/.{1,4}/g)?.join(' ') ?? ''

/**
 * Reads a fingerprint: 64 hexadecimal digits, however they are grouped.
 *
 * @returns lower case, without anything between.
 * @throws {SyncError} `FINGERPRINT_INVALID`.
 */
export function parseFingerprint(text: string): string {
  const digits = text.replace(/[\s:-]/g, '').toLowerCase()
  if (/^[0-9a-f]{64}$/.test(digits)) return digits
  throw new SyncError('usage', 'FINGERPRINT_INVALID', 'A fingerprint has 64 hexadecimal digits', {
    hint: 'They see theirs with: sync keys status',
  })
}
