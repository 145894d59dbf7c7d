/**
 * Checks OpenPGP cleartext-signed messages, as strictly as one pinned Ed25519 key allows: one shape, one signature, one kind
 * of key. What the text means is the caller's business.
 * @module
 */
import { createHash, createPublicKey, verify } from 'node:crypto'
import { equal, fromBase64 } from '../../crypto/bytes.ts'
import { SyncError } from '../errors.ts'

/** A signing key, pinned by its fingerprint. */
export interface PinnedKey {
  /** 40 hexadecimal digits, version 4. */
  readonly fingerprint: string
  /** Body of the public-key packet, hexadecimal: 51 bytes for Ed25519. */
  readonly packet: string
}

/** Signs the moduli of Proton's servers (`proton@srp.modulus`). */
export const PROTON_MODULUS_KEY: PinnedKey = Object.freeze({
  fingerprint: '248097092b458509c508dac0350585c4e9518f26',
  packet: '045c01cb8316092b06010401da470f0101074016ead65d7c234de9aa8c3ec25e35d5c8a7f4a1fee7f42b662fcbfd7a79338201',
})

const MAX_MESSAGE = 16_384
const BEGIN_MESSAGE = '-----BEGIN PGP SIGNED MESSAGE-----'
const BEGIN_SIGNATURE = '-----BEGIN PGP SIGNATURE-----'
const END_SIGNATURE = '-----END PGP SIGNATURE-----'

/** SubjectPublicKeyInfo of an Ed25519 key up to its 32 bytes (RFC 8410 §4). */
const SPKI_PREFIX = Buffer.from('302a300506032b6570032100', 'hex')
/** Algorithm 22, the curve's OID, and an MPI of 263 bits that begins with 0x40 (RFC 9580 §5.5.5.5). */
const ED25519_PREFIX = Buffer.from('16092b06010401da470f01010740', 'hex')
const TEXT_SIGNATURE = 1
const EDDSA = 22
/** Hash algorithms by their number (RFC 9580 §9.5). */
const HASHES: Readonly<Record<number, string>> = Object.freeze({ 8: 'sha256', 9: 'sha384', 10: 'sha512' })

const refused = (reason: string) =>
  new SyncError('auth', 'SERVER_NOT_TRUSTED', `The server’s signed message was refused: ${reason}`, {
    hint: 'Do not log in here before this is explained: somebody else may be answering for the server.',
  })

const MALFORMED = 'it is malformed'

/** The 32 bytes of the key, if it is what its fingerprint says (RFC 9580 §5.5.4.2). */
function publicKey(pin: PinnedKey): Buffer {
  const body = Buffer.from(pin.packet, 'hex')
  const header = Buffer.from([0x99, body.length >> 8, body.length & 0xff])
  const fingerprint = createHash('sha1').update(header).update(body).digest('hex')
  const isEd25519 = body.length === 51 && body[0] === 4 && body.subarray(5, 19).equals(ED25519_PREFIX)
  if (!isEd25519 || fingerprint !== pin.fingerprint.toLowerCase()) {
    throw new SyncError('usage', 'MODULUS_KEY_INVALID', 'The signing key does not belong to its fingerprint', {
      hint: 'It must be a version 4 Ed25519 key; give the body of its public-key packet.',
    })
  }
  return body.subarray(19)
}

/** Text and armored signature. Nothing may stand before, between or after (RFC 9580 §7). */
function split(message: string): { text: string; armor: string[] } {
  if (message.length > MAX_MESSAGE) throw refused('it is too long')
  const lines = message.split(/\r?\n/)
  if (lines.at(-1) === '') lines.pop()
  const border = lines.indexOf(BEGIN_SIGNATURE)
  if (lines[0] !== BEGIN_MESSAGE || border === -1 || lines.at(-1) !== END_SIGNATURE) throw refused(MALFORMED)

  let start = 1
  while (/^Hash: [A-Za-z0-9, ]+$/.test(lines[start]!)) start++
  if (lines[start] !== '' || start >= border) throw refused(MALFORMED)
  const text = lines.slice(start + 1, border).map((line) => {
    if (line.startsWith('-') && !line.startsWith('- ')) throw refused(MALFORMED)
    return line.replace(/^- /, '').replace(/[ \t]+$/, '')
  })
  // Signed is the text with CRLF between its lines and none after the last.
  return { text: text.join('\r\n'), armor: lines.slice(border + 1, -1) }
}

/** The bytes of an armored block: header lines, an empty line, base64, perhaps a checksum, which protects nothing. */
function unarmor(lines: string[]): Buffer {
  const empty = lines.indexOf('')
  const headers = lines.slice(0, Math.max(empty, 0))
  if (empty === -1 || !headers.every((line) => /^[A-Za-z]+: /.test(line))) throw refused(MALFORMED)
  const body = lines.slice(empty + 1)
  if (/^=[A-Za-z0-9+/]{4}$/.test(body.at(-1) ?? '')) body.pop()
  const bytes = fromBase64(body.join(''))
  if (bytes === undefined) throw refused(MALFORMED)
  return Buffer.from(bytes)
}

/** Reads bytes from the front; running out of them is a refusal. */
function reader(bytes: Buffer) {
  let at = 0
  const take = (length: number): Buffer => {
    if (at + length > bytes.length) throw refused(MALFORMED)
    at += length
    return bytes.subarray(at - length, at)
  }
  return {
    take,
    byte: () => take(1)[0]!,
    uint16: () => take(2).readUInt16BE(),
    uint32: () => take(4).readUInt32BE(),
    offset: () => at,
    done: () => at === bytes.length,
  }
}

/** The body of the one packet, which is a signature (tag 2), in the old or the new form (RFC 9580 §4.2). */
function onlySignature(bytes: Buffer): Buffer {
  const packet = reader(bytes)
  const tag = packet.byte()
  let length: number
  if (tag === 0xc2) {
    const first = packet.byte()
    if (first < 192) length = first
    else if (first < 224) length = ((first - 192) << 8) + packet.byte() + 192
    else if (first === 255) length = packet.uint32()
    else throw refused(MALFORMED)
  } else if (tag === 0x88) length = packet.byte()
  else if (tag === 0x89) length = packet.uint16()
  else throw refused('it holds something else than a signature')
  const body = packet.take(length)
  if (!packet.done()) throw refused('it holds more than one signature')
  return body
}

/** One half of an Ed25519 signature: an MPI, without its leading zeros, back to 32 bytes. */
function half(body: ReturnType<typeof reader>): Buffer {
  const bits = body.uint16()
  if (bits > 256) throw refused(MALFORMED)
  const value = body.take(Math.ceil(bits / 8))
  // The count leaves out leading zeros: one number, one form.
  if (value.length > 0 && bits !== value.length * 8 - Math.clz32(value[0]!) + 24) throw refused(MALFORMED)
  return Buffer.concat([Buffer.alloc(32 - value.length), value])
}

/** Version 4 signature packet (RFC 9580 §5.2.3): what it covers, and the signature itself. */
function parseSignature(packet: Buffer) {
  const body = reader(packet)
  const [version, type, algorithm, hashId] = body.take(4)
  const hash = HASHES[hashId!]
  if (version !== 4 || type !== TEXT_SIGNATURE || algorithm !== EDDSA || hash === undefined) {
    throw refused('its signature is of another kind')
  }
  body.take(body.uint16())
  const covered = packet.subarray(0, body.offset())
  body.take(body.uint16())
  const digestStart = body.take(2)
  const signature = Buffer.concat([half(body), half(body)])
  if (!body.done()) throw refused(MALFORMED)
  return { hash, covered, digestStart, signature }
}

/**
 * Opens a cleartext-signed message.
 *
 * @param message - At most 16,384 characters; LF or CRLF.
 * @param pin - The one key that may have signed it.
 * @returns the text that is signed, lines joined with CRLF.
 * @throws {SyncError} `SERVER_NOT_TRUSTED` for every message but a well-formed one with a valid signature by this key;
 * `MODULUS_KEY_INVALID` when `pin` contradicts itself.
 * @see RFC 9580 §5.2.4, §7
 */
export function openSignedMessage(message: string, pin: PinnedKey): string {
  const raw = publicKey(pin)
  const { text, armor } = split(message)
  const { hash, covered, digestStart, signature } = parseSignature(onlySignature(unarmor(armor)))
  const trailer = Buffer.alloc(6)
  trailer.writeUInt16BE(0x04ff)
  trailer.writeUInt32BE(covered.length, 2)
  const digest = createHash(hash).update(text, 'utf8').update(covered).update(trailer).digest()
  const key = createPublicKey({ key: Buffer.concat([SPKI_PREFIX, raw]), format: 'der', type: 'spki' })
  if (!equal(digest.subarray(0, 2), digestStart) || !verify(null, digest, key, signature)) {
    throw refused('its signature is not valid')
  }
  return text
}
