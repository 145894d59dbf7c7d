/** What the SRP test servers share: numbers, made with node:crypto and BigInt, apart from crypto/srp.ts. */
import { createHash, createPrivateKey, generateKeyPairSync, sign } from 'node:crypto'
import type { PinnedKey } from '../../src/session/pgp-signed-message.ts'

/** base^exponent mod modulus, from the highest bit down. */
export function power(base: bigint, exponent: bigint, modulus: bigint): bigint {
  let result = 1n
  for (const bit of exponent.toString(2)) {
    result = (result * result) % modulus
    if (bit === '1') result = (result * base) % modulus
  }
  return result
}

export const fromBytes = (bytes: Uint8Array) => BigInt(`0x${Buffer.from(bytes).toString('hex') || '0'}`)

export const toBytes = (number: bigint, length: number) =>
  Buffer.from(number.toString(16).padStart(length * 2, '0'), 'hex')

/** The 2048-bit group of RFC 5054: a safe prime with 2 as a generator of the whole group. */
export const RFC5054_2048 = BigInt(
  `0x${[
    'ac6bdb41324a9a9bf166de5e1389582faf72b6651987ee07fc3192943db56050a37329cbb4a099ed8193e0757767a13d',
    'd52312ab4b03310dcd7f48a9da04fd50e8083969edb767b0cf6095179a163ab3661a05fbd5faaae82918a9962f0b93b8',
    '55f97993ec975eeaa80d740adbf4ff747359d041d5c33ea71d281e446b14773bca97b43a23fb801676bd207a436c6481',
    'f1d2b9078717461a5b9d32e688f87748544523b524b0d57d5ea77a2775d2ecfa032cfbdbf52fb3786160279004e57ae6',
    'af874e7303ce53299ccc041c7bc308d82a5698f3a8d0c38271ae35f8e9dbfbb694b5c803d89f7ae435de236d525f5475',
    '9b65e372fcd68ef20fa7111f9e4aff73',
  ].join('')}`,
)

export interface SignatureChoices {
  /** Version, type, algorithm and hash, as the packet has them. */
  readonly head?: readonly [number, number, number, number]
  readonly newForm?: boolean
  /** What stands between the last line and the end of the armor. */
  readonly armorHeaders?: string
  /** Seconds in the hashed part; another number makes another signature. */
  readonly time?: number
  /** Bytes after the packet. */
  readonly behind?: Buffer
  /** Signs another text than the message shows. */
  readonly signed?: string
}

const HASHES: Record<number, string> = { 2: 'sha1', 8: 'sha256', 9: 'sha384', 10: 'sha512' }

/** A made-up OpenPGP Ed25519 key that signs messages. */
export function pgpKey() {
  const pair = generateKeyPairSync('ed25519')
  const raw = pair.publicKey.export({ type: 'spki', format: 'der' }).subarray(-32)
  const body = Buffer.concat([Buffer.from('046553f10016092b06010401da470f01010740', 'hex'), raw])
  const fingerprint = createHash('sha1')
    .update(Buffer.from([0x99, 0, 51]))
    .update(body)
    .digest('hex')
  const pin: PinnedKey = { fingerprint, packet: body.toString('hex') }
  const privateKey = createPrivateKey(pair.privateKey.export({ type: 'pkcs8', format: 'pem' }))

  const mpi = (bytes: Buffer) => {
    const bits = fromBytes(bytes).toString(2).length
    const length = Buffer.from([bits >> 8, bits & 0xff])
    return Buffer.concat([length, bytes.subarray(32 - Math.ceil(bits / 8))])
  }

  /** A signature packet for a text with CRLF line ends. */
  function packet(text: string, { head = [4, 1, 22, 8], newForm, time = 1_700_000_001 }: SignatureChoices = {}) {
    const created = Buffer.alloc(6)
    created.set([5, 2])
    created.writeUInt32BE(time, 2)
    const hashed = Buffer.concat([Buffer.from([...head, 0, 6]), created])
    const trailer = Buffer.from([4, 0xff, 0, 0, 0, hashed.length])
    const digest = createHash(HASHES[head[3]] ?? 'sha256')
      .update(text)
      .update(hashed)
      .update(trailer)
      .digest()
    const signature = sign(null, digest, privateKey)
    const unhashed = Buffer.from(`000a0910${fingerprint.slice(-16)}`, 'hex')
    const halves = [mpi(signature.subarray(0, 32)), mpi(signature.subarray(32))]
    const content = Buffer.concat([hashed, unhashed, digest.subarray(0, 2), ...halves])
    return { bytes: Buffer.concat([Buffer.from([newForm ? 0xc2 : 0x88, content.length]), content]), signature }
  }

  function message(text: string, choices: SignatureChoices = {}): string {
    const { bytes } = packet((choices.signed ?? text).split('\n').join('\r\n'), choices)
    const armored = Buffer.concat([bytes, choices.behind ?? Buffer.alloc(0)]).toString('base64')
    const shown = text.replace(/^-/gm, '- -')
    return [
      '-----BEGIN PGP SIGNED MESSAGE-----',
      'Hash: SHA256',
      '',
      shown,
      '-----BEGIN PGP SIGNATURE-----',
      `${choices.armorHeaders ?? ''}`,
      ...armored.match(/.{1,64}/g)!,
      '-----END PGP SIGNATURE-----',
      '',
    ].join('\n')
  }
  return { pin, packet, message }
}
