import { describe, expect, test } from 'vitest'
import { openSignedMessage, PROTON_MODULUS_KEY } from '../../src/session/pgp-signed-message.ts'
import { failure, shared } from '../crypto/support.ts'
import { pgpKey, type SignatureChoices } from '../support/srp.ts'

const REFUSED = 'auth SERVER_NOT_TRUSTED'

interface Examples {
  moduli: {
    published: { modulus: string; signedMessage: string; tamperedSignedMessage: string }
    own: {
      modulus: string
      signedMessage: string
      testKey: { fingerprint: string; keyPacketBody: string }
    }
  }
}
const examples = shared<Examples>('auth/proton-srp.json')

describe.skipIf(examples === undefined)('signed moduli of the worked examples', () => {
  const hexOf = (text: string) => Buffer.from(text, 'base64').toString('hex')

  test('one that the service has published, and its altered copy', () => {
    const { modulus, signedMessage, tamperedSignedMessage } = examples!.moduli.published
    expect(hexOf(openSignedMessage(signedMessage, PROTON_MODULUS_KEY))).toBe(modulus)
    expect(() => openSignedMessage(tamperedSignedMessage, PROTON_MODULUS_KEY)).toThrow('not valid')
  })

  test('one by the example’s own key, which no other key opens', async () => {
    const { modulus, signedMessage, testKey } = examples!.moduli.own
    const pin = { fingerprint: testKey.fingerprint, packet: testKey.keyPacketBody }
    expect(hexOf(openSignedMessage(signedMessage, pin))).toBe(modulus)
    expect(await failure(() => openSignedMessage(signedMessage, PROTON_MODULUS_KEY))).toBe(REFUSED)
  })
})

describe('well-formed messages', () => {
  const key = pgpKey()
  const open = (text: string, choices?: SignatureChoices) => openSignedMessage(key.message(text, choices), key.pin)

  test.each([8, 9, 10])('hash %i', (hash) => {
    expect(open('text', { head: [4, 1, 22, hash] })).toBe('text')
  })

  test('both forms of packets, armor headers, and CRLF', () => {
    expect(open('text', { newForm: true })).toBe('text')
    expect(open('text', { armorHeaders: 'Version: X\nComment: https://x.test\n' })).toBe('text')
    expect(openSignedMessage(key.message('text').replaceAll('\n', '\r\n'), key.pin)).toBe('text')
    expect(openSignedMessage(key.message('text').trimEnd(), key.pin)).toBe('text')
  })

  test('several lines, dashes and trailing blanks: what is signed is returned', () => {
    expect(open('a\n- b\n\n---c')).toBe('a\r\n- b\r\n\r\n---c')
    expect(open('a \t\nb', { signed: 'a\nb' })).toBe('a\r\nb')
  })

  test('no Hash line, or two', () => {
    const message = key.message('text')
    expect(openSignedMessage(message.replace('Hash: SHA256\n', ''), key.pin)).toBe('text')
    expect(openSignedMessage(message.replace('Hash: SHA256\n', '$&$&'), key.pin)).toBe('text')
  })

  test('halves of the signature that begin with zeros', () => {
    const short = (half: 'R' | 'S') => {
      for (let time = 0; ; time++) {
        const { signature } = key.packet('text', { time })
        if (signature[half === 'R' ? 0 : 32] === 0) return time
      }
    }
    expect(open('text', { time: short('R') })).toBe('text')
    expect(open('text', { time: short('S') })).toBe('text')
  })
})

describe('refused', () => {
  const key = pgpKey()
  const good = key.message('text')
  const of = (choices: SignatureChoices) => key.message('text', choices)
  const body = () => Buffer.from(/\n\n([A-Za-z0-9+/=\n]+)-----END/.exec(good)![1]!, 'base64')
  const withBody = (bytes: Buffer) =>
    good.replace(/\n\n[A-Za-z0-9+/=\n]+-----END/, `\n\n${bytes.toString('base64')}\n-----END`)

  test.each<[string, () => string]>([
    ['nothing', () => ''],
    ['other text', () => good.replace('\ntext\n', '\ntest\n')],
    ['a line more', () => good.replace('\ntext\n', '\ntext\nmore\n')],
    ['an empty line more', () => good.replace('\ntext\n', '\ntext\n\n')],
    ['a blank in front', () => good.replace('\ntext\n', '\n text\n')],
    ['another key', () => pgpKey().message('text')],
    ['signed something else', () => of({ signed: 'other' })],
    ['text before', () => `x\n${good}`],
    ['an empty line before', () => `\n${good}`],
    ['text after', () => `${good}x\n`],
    ['an empty line after', () => `${good}\n`],
    ['the message twice', () => good + good],
    ['a second signature packet', () => of({ behind: key.packet('text').bytes })],
    ['a byte behind the packet', () => of({ behind: Buffer.from([0]) })],
    ['another header line', () => good.replace('Hash:', 'Charset:')],
    ['an unknown header after Hash', () => good.replace('Hash: SHA256', 'Hash: SHA256\nNotDashEscaped: yes')],
    ['no empty line after the headers', () => good.replace('SHA256\n\n', 'SHA256\n')],
    ['a dash that is not escaped', () => good.replace('\ntext\n', '\n-text\n')],
    ['version 3', () => of({ head: [3, 1, 22, 8] })],
    ['a binary signature', () => of({ head: [4, 0, 22, 8] })],
    ['a certification', () => of({ head: [4, 16, 22, 8] })],
    ['RSA', () => of({ head: [4, 1, 1, 8] })],
    ['SHA-1', () => of({ head: [4, 1, 22, 2] })],
    ['no signature block', () => good.split('-----BEGIN PGP SIGNATURE')[0]!],
    ['armor without an empty line', () => good.replace('SIGNATURE-----\n\n', 'SIGNATURE-----\n')],
    ['armor that is not base64', () => good.replace(/\n\n([A-Za-z0-9+/=\n]+)-----END/, '\n\n!!!!\n-----END')],
    ['an empty packet', () => withBody(Buffer.alloc(0))],
    ['another kind of packet', () => withBody(Buffer.concat([Buffer.from([0x98]), body().subarray(1)]))],
    ['a partial length', () => withBody(Buffer.concat([Buffer.from([0xc2, 0xe1]), body().subarray(2)]))],
    ['an old packet without a length', () => withBody(Buffer.concat([Buffer.from([0x8b]), body().subarray(2)]))],
    ['too long', () => good.replace('\ntext\n', `\n${'x'.repeat(20_000)}\n`)],
  ])('%s', async (_name, message) => {
    expect(message()).not.toBe(good)
    expect(await failure(() => openSignedMessage(message(), key.pin))).toBe(REFUSED)
  })

  test('every packet that is cut short', async () => {
    for (let length = 0; length < body().length; length++) {
      const bytes = Buffer.from(body().subarray(0, length))
      expect(await failure(() => openSignedMessage(withBody(bytes), key.pin)), `${length}`).toBe(REFUSED)
      if (length > 2) bytes[1] = length - 2 // a length that fits
      expect(await failure(() => openSignedMessage(withBody(bytes), key.pin)), `${length} fitted`).toBe(REFUSED)
    }
  })

  test('every flipped byte of the packet, except where nothing is signed', async () => {
    const opened: number[] = []
    for (let at = 0; at < body().length; at++) {
      const bytes = body()
      bytes[at]! ^= 0x01
      if ((await failure(() => openSignedMessage(withBody(bytes), key.pin))) === 'nothing') opened.push(at)
    }
    // The unhashed part holds the key id of the issuer, which nobody reads.
    expect(opened).toEqual(Array.from({ length: 10 }, (_, index) => 16 + index))
  })

  test('a key that is not what its fingerprint says', async () => {
    const other = pgpKey().pin
    for (const pin of [
      { ...key.pin, packet: other.packet },
      { ...key.pin, fingerprint: other.fingerprint },
      { ...key.pin, packet: '' },
      { ...key.pin, packet: 'no hex' },
    ]) {
      expect(await failure(() => openSignedMessage(good, pin))).toBe('usage MODULUS_KEY_INVALID')
    }
  })
})
