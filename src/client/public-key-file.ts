/**
 * Public keys that are brought from the machine with the private key to one that can only write: a small file of text, signed by that
 * private key. The signature says that whoever made the file has it; that it is the right one, a person says who compares the fingerprint.
 * @module
 */
import {
  importPublicKey,
  isSignedStatement,
  type KeyPairVersion,
  type PublicKey,
  type PublicKeyContainer,
  parsePublicKeyContainer,
} from '../../crypto/index.ts'
import { getAccount, getKeyPairs } from '../api/account.ts'
import { SyncError } from '../errors.ts'
import { parseFingerprint, showFingerprint } from '../fingerprint.ts'
import type { Abortable, ClientContext } from './context.ts'

const FORMAT = 'sealsync-public-key'
const VERSION = 1
const PURPOSE = 'public key, 1'
/** Characters; a key of 4096 bits makes about 1,700. */
const MAX_LENGTH = 16_384

/** What such a file says. */
export interface PublicKeyFile {
  /** `https://HOST`: users of another server have nothing to do with this one. */
  readonly server: string
  readonly userId: number
  readonly userName: string
  readonly version: KeyPairVersion
  /** SHA-256 of the public key: 64 hexadecimal digits. */
  readonly fingerprint: string
  /** ISO 8601. */
  readonly createdAt: string
}

interface Said extends Omit<PublicKeyFile, 'fingerprint'> {
  readonly publicKey: string
}

/** In one order, with lengths that JSON makes plain. */
const statementOf = ({ server, userId, userName, version, publicKey, createdAt }: Said): Uint8Array =>
  Buffer.from(JSON.stringify([server, userId, userName, version, publicKey, createdAt]))

/**
 * Makes the file that says what the public key of this account is. Unlocks the key pair.
 *
 * @returns its text.
 * @throws {SyncError} `NO_KEY_PAIR`, `PASSWORD_NEEDED`, `KEY_PASSWORD_WRONG`, `PRIVATE_KEY_ELSEWHERE`.
 */
export async function exportPublic({ api, keyring, clock }: ClientContext, { signal }: Abortable): Promise<string> {
  const { id, userName = '' } = await getAccount(api, signal)
  const createdAt = new Date(clock.now()).toISOString()
  const said = ({ version, spki }: PublicKey): Said => {
    const lines = Buffer.from(spki)
      .toString('base64')
      .match(/.{1,64}/g)!
    const publicKey = `-----BEGIN PUBLIC KEY-----\n${lines.join('\n')}\n-----END PUBLIC KEY-----`
    return { server: api.origin, userId: id, userName, version, publicKey, createdAt }
  }
  const { publicKey, signature } = await keyring.sign(PURPOSE, (key) => statementOf(said(key)), signal)
  const file = { format: FORMAT, formatVersion: VERSION, ...said(publicKey) }
  return `${JSON.stringify({ ...file, signature: Buffer.from(signature).toString('base64') }, undefined, 1)}\n`
}

const wrong = (why: string, cause?: unknown) =>
  new SyncError('integrity', 'PUBLIC_KEY_FILE', `This is no public key of an account: ${why}`, {
    hint: 'Make it anew where the private key is: sync keys export-public FILE',
    cause,
  })

function parse(text: string): Said & { readonly signature: Uint8Array } {
  if (text.length > MAX_LENGTH) throw wrong('it is too long')
  let from: Record<string, unknown>
  try {
    from = Object(JSON.parse(text))
  } catch (cause) {
    throw wrong('it is not such a file', cause)
  }
  const { format, formatVersion, server, userId, userName, version, publicKey, createdAt, signature } = from
  if (format !== FORMAT || formatVersion !== VERSION) throw wrong('it is not such a file')
  const texts = [server, userName, publicKey, createdAt, signature]
  const isWhole =
    texts.every((one) => typeof one === 'string') &&
    Number.isSafeInteger(userId) &&
    (version === 'A' || version === 'RSA-4096') &&
    !Number.isNaN(Date.parse(createdAt as string))
  if (!isWhole) throw wrong('something is missing in it')
  const said = { server, userId, userName, version, publicKey, createdAt } as Said
  return { ...said, signature: new Uint8Array(Buffer.from(signature as string, 'base64')) }
}

async function open(text: string): Promise<{ readonly file: PublicKeyFile; readonly key: PublicKey }> {
  const { signature, ...said } = parse(text)
  const { publicKey: pem, ...file } = said
  let key: PublicKey
  try {
    const container: PublicKeyContainer = parsePublicKeyContainer({ version: said.version, publicKey: pem })
    key = await importPublicKey(container)
  } catch (cause) {
    throw wrong('the key in it cannot be used', cause)
  }
  const isSigned = await isSignedStatement(key, PURPOSE, statementOf(said), signature).catch(() => false)
  if (!isSigned) throw wrong('its signature is not that of the key in it')
  return { file: { ...file, fingerprint: key.fingerprint }, key }
}

/**
 * Reads such a file, and checks that it was made by who has the private key. Whose key it is, only its owner can say: compare the fingerprint.
 *
 * @throws {SyncError} `PUBLIC_KEY_FILE` (class `integrity`).
 */
export const readPublic = async (text: string): Promise<PublicKeyFile> => (await open(text)).file

/** A key that counts from now on. */
export interface PinnedPublic extends PublicKeyFile {
  /** It is that of this account: uploads are encrypted for it. Else of a member, who gets file keys from now on. */
  readonly isOwn: boolean
}

/**
 * Takes the key in such a file for the right one from now on. That of this account is what uploads are encrypted for where one can only
 * write (`writeOnly` of the client); that of somebody else counts as a verified one of a member.
 *
 * @param fingerprint - As a person has compared it with what the owner sees.
 * @throws {SyncError} `FINGERPRINT_DIFFERS` when it is not that of the file, `PUBLIC_KEY_FILE`, `OWN_KEY_CHANGED` when the server shows
 * another key for this account (all of class `integrity`), `PUBLIC_KEY_FOREIGN` for one of another server, `NO_KEY_PAIR`.
 */
export async function pinPublic(
  { api, keyring }: ClientContext,
  text: string,
  fingerprint: string,
  { signal }: Abortable,
): Promise<PinnedPublic> {
  const wanted = parseFingerprint(fingerprint)
  const { file, key } = await open(text)
  if (key.fingerprint !== wanted) {
    throw new SyncError(
      'integrity',
      'FINGERPRINT_DIFFERS',
      `The key in the file is ${showFingerprint(key.fingerprint)}`,
      {
        hint: 'It may have been exchanged on its way: make it anew, and compare what sync keys status says there.',
      },
    )
  }
  if (file.server !== api.origin) {
    throw new SyncError(
      'usage',
      'PUBLIC_KEY_FOREIGN',
      `The key is one of ${file.server}, and this login of ${api.origin}`,
    )
  }
  const isOwn = file.userId === (await keyring.userId(signal))
  if (isOwn) {
    const pairs = await getKeyPairs(api, signal)
    if (pairs.length === 0) {
      throw new SyncError('key', 'NO_KEY_PAIR', 'This account has no key pair', { hint: 'Make one: sync keys create' })
    }
    const shown = pairs.find(({ publicKeyContainer: { version } }) => version === key.version)
    const found = shown && (await importPublicKey(shown.publicKeyContainer)).fingerprint
    if (found !== wanted) {
      const what = found === undefined ? 'no key of this version' : showFingerprint(found)
      throw new SyncError(
        'integrity',
        'OWN_KEY_CHANGED',
        `The server shows another public key for this account: ${what}`,
        {
          hint: 'Ask the administrator of the server, unless the file is from before you made a new key pair.',
        },
      )
    }
    await keyring.pins.give(file.userId, key)
    keyring.refresh()
  }
  await keyring.pins.trust(file.userId, [key], true)
  return { ...file, isOwn }
}
