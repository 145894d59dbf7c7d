/**
 * Statements of the owner of a key pair, signed with its private key: that this public key is theirs, for one. RSASSA-PSS under the pair
 * that also unwraps file keys; the two have nothing in common but the modulus, and what is signed begins with a purpose of its own.
 * @module
 */
import { primitives } from '#primitives'
import { concat, utf8 } from './bytes.ts'
import { UserKeyPair } from './key-pair.ts'
import type { PublicKey } from './public-key.ts'

/** What is signed under one purpose says nothing under another. */
const framed = (purpose: string, statement: Uint8Array) => concat(utf8(`sealsync ${purpose}\0`), statement)

/**
 * Signs a statement.
 *
 * @param purpose - What it is for, without NUL.
 * @returns as many bytes as the modulus has: 256 or 512.
 * @throws {SyncError} `KEY_UNUSABLE` for a wiped pair.
 * @see RFC 8017 §8.1
 */
export const signStatement = (pair: UserKeyPair, purpose: string, statement: Uint8Array): Promise<Uint8Array> =>
  primitives.rsaSign(UserKeyPair.privateKeyOf(pair), framed(purpose, statement))

/** True when the private key of this public one has signed that, for that purpose. */
export const isSignedStatement = async (
  { spki }: PublicKey,
  purpose: string,
  statement: Uint8Array,
  signature: Uint8Array,
): Promise<boolean> => {
  // Engines disagree about what they do with signatures of another length.
  const bytes = spki.length > 400 ? 512 : 256
  return signature.length === bytes && primitives.rsaVerify(spki, framed(purpose, statement), signature)
}
