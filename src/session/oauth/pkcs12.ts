/**
 * The private key of a PKCS#12 file (RFC 7292) as OpenSSL 3 writes it: PBES2 inside, a MAC around. Certificates in it are not
 * looked at. Loaded only when there is such a file.
 * @module
 */
import * as pkijs from 'pkijs'
import { MAX_PEM_BYTES } from '../../../crypto/bytes.ts'
import { keyInvalid, legacyEncryption, passphraseWrong } from './key-errors.ts'

const DATA = '1.2.840.113549.1.7.1'
const KEY_BAG = '1.2.840.113549.1.12.10.1.1'
const SHROUDED_KEY_BAG = '1.2.840.113549.1.12.10.1.2'
/** The PBE kinds of PKCS#12 itself, all with RC4, RC2 or 3DES (RFC 7292 appendix C). */
const LEGACY = /^1\.2\.840\.113549\.1\.12\.1\.\d+$/

const bytesOf = (view: Uint8Array): ArrayBuffer => Uint8Array.from(view).buffer

/** The bags outside encrypted parts: programs put keys there, each encrypted by itself, and certificates elsewhere. */
async function readBags(file: Uint8Array, password: ArrayBuffer): Promise<pkijs.SafeBag[]> {
  let pfx: pkijs.PFX
  try {
    pfx = pkijs.PFX.fromBER(bytesOf(file))
  } catch {
    throw keyInvalid()
  }
  try {
    await pfx.parseInternalValues({ password, checkIntegrity: true })
  } catch (error) {
    throw error instanceof Error && error.message.includes('Integrity') ? passphraseWrong() : keyInvalid()
  }
  const safe = pfx.parsedValue?.authenticatedSafe
  if (safe === undefined) throw keyInvalid()
  safe.safeContents = safe.safeContents.filter(({ contentType }) => contentType === DATA)
  await safe.parseInternalValues({ safeContents: safe.safeContents.map(() => ({})) })
  const contents: readonly { value: pkijs.SafeContents }[] = safe.parsedValue.safeContents
  return contents.flatMap(({ value }) => value.safeBags)
}

/** A plain key, or one under PBES2; `undefined` for a bag that holds something else. */
async function openBag(bag: pkijs.SafeBag, password: ArrayBuffer): Promise<pkijs.PrivateKeyInfo | undefined> {
  const { bagId, bagValue } = bag
  if (bagId === KEY_BAG) return bagValue as pkijs.PrivateKeyInfo
  if (bagId !== SHROUDED_KEY_BAG) return undefined
  const shrouded = bagValue as pkijs.PKCS8ShroudedKeyBag & {
    parseInternalValues(parameters: { password: ArrayBuffer }): Promise<void>
  }
  if (LEGACY.test(shrouded.encryptionAlgorithm.algorithmId)) throw legacyEncryption()
  try {
    await shrouded.parseInternalValues({ password })
  } catch {
    throw passphraseWrong()
  }
  return shrouded.parsedValue
}

/**
 * Opens a PKCS#12 file.
 *
 * @param file - At most 65,536 bytes.
 * @returns the first private key as PKCS#8 DER; wipe it after use.
 * @throws {SyncError} `KEY_INVALID`, `KEY_PASSPHRASE_WRONG`, `KEY_LEGACY_ENCRYPTION`.
 */
export async function openPkcs12(file: Uint8Array, passphrase: string): Promise<Uint8Array> {
  if (file.length > MAX_PEM_BYTES) throw keyInvalid()
  const password = bytesOf(Buffer.from(passphrase))
  for (const bag of await readBags(file, password)) {
    const key = await openBag(bag, password)
    if (key !== undefined) return new Uint8Array(key.toSchema().toBER(false))
  }
  throw keyInvalid()
}
