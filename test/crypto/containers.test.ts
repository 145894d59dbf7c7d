import { describe, expect, test } from 'vitest'
import { equal, fromBase64, fromPem, MAX_PEM_BYTES, toBase64, toBigInt, toHex, toPem } from '../../crypto/bytes.ts'
import { DerError, der, derInteger, derOid, oid, readDer, smallInteger, Tag } from '../../crypto/der.ts'
import {
  formatFileKey,
  importPublicKey,
  parseFileKey,
  parseKeyPairContainer,
  parsePublicKeyContainer,
} from '../../crypto/index.ts'
import { readLockedPrivateKey } from '../../crypto/private-key.ts'
import { failure, fixturePublicKey, hex, keyPairFixtures, quickFixture, SEED, seededRandom } from './support.ts'

const filled = (length: number) => Buffer.alloc(length, 5).toString('base64')
const VERSIONS = [
  { version: 'A', length: 256 },
  { version: 'RSA-4096/AES-256-GCM', length: 512 },
] as const

describe('file key JSON', () => {
  test.each(VERSIONS)('$version goes in and out; unknown fields are ignored', ({ version, length }) => {
    const json = { key: filled(length), iv: filled(12), tag: filled(16), version }
    expect(formatFileKey(parseFileKey({ ...json, extra: 1 }))).toEqual(json)
  })

  test.each(VERSIONS)('$version: everything else is refused', async ({ version, length }) => {
    const good = { key: filled(length), iv: filled(12), tag: filled(16), version }
    for (const field of ['key', 'iv', 'tag'] as const) {
      const text = good[field]
      const bad = [
        undefined,
        null,
        7,
        {},
        [text],
        '',
        `${text} `,
        `${text}\n`,
        ` ${text}`,
        text.slice(0, -4),
        `${text}AAAA`,
        `${text}====`,
      ]
      bad.push(text.replaceAll('=', ''), text.replace('BQUF', 'BQ-F'), text.replace('BQUF', 'BQ\nF'), text.slice(0, -1))
      for (const wrong of [0, 1, 11, 13, 15, 17, 31, 32, 255, 257, 511, 513]) bad.push(filled(wrong))
      for (const value of bad) {
        if (value === text) continue // a 12-byte IV has no padding to take away
        expect(await failure(() => parseFileKey({ ...good, [field]: value })), String(value)).toBe(
          'integrity FILE_KEY_INVALID',
        )
      }
    }
    const unused = good.tag.replace(/.==$/, (end) => `${String.fromCharCode(end.charCodeAt(0) + 1)}==`)
    expect(Buffer.from(unused, 'base64')).toEqual(Buffer.from(good.tag, 'base64'))
    expect(await failure(() => parseFileKey({ ...good, tag: unused }))).toBe('integrity FILE_KEY_INVALID')
  })

  test('versions are a closed, case-sensitive list, and the length belongs to the version', async () => {
    const good = { key: filled(256), iv: filled(12), tag: filled(16), version: 'A' }
    for (const version of [
      'a',
      'B',
      '',
      'RSA-4096',
      'AES-256-GCM',
      'RSA-2048/AES-256-GCM',
      'rsa-4096/aes-256-gcm',
      'A ',
      '__proto__',
    ]) {
      expect(await failure(() => parseFileKey({ ...good, version }))).toBe('key KEY_VERSION_UNKNOWN')
    }
    expect(await failure(() => parseFileKey({ ...good, version: 'RSA-4096/AES-256-GCM' }))).toBe(
      'integrity FILE_KEY_INVALID',
    )
    for (const odd of [undefined, null, '', 'A', 1, [], {}, Object.create(good)]) {
      expect(await failure(() => parseFileKey(odd))).toBe('integrity FILE_KEY_INVALID')
    }
  })
})

describe('key pair JSON', () => {
  test('server-made fields are ignored', () => {
    const given = keyPairFixtures[0]!.keyPair
    expect(Object.keys(parseKeyPairContainer(given).privateKeyContainer)).toEqual(['version', 'privateKey'])
  })

  test('anything but two halves of one known version is refused', async () => {
    const { privateKeyContainer, publicKeyContainer } = quickFixture('A').container
    const halves = { privateKeyContainer, publicKeyContainer }
    for (const odd of [
      undefined,
      null,
      1,
      'x',
      [],
      {},
      { privateKeyContainer },
      { publicKeyContainer },
      Object.create(halves),
    ]) {
      expect(await failure(() => parseKeyPairContainer(odd))).toBe('key KEY_CONTAINER_INVALID')
    }
    const unknown = { ...privateKeyContainer, version: 'RSA-8192' }
    expect(await failure(() => parseKeyPairContainer({ ...halves, privateKeyContainer: unknown }))).toBe(
      'key KEY_VERSION_UNKNOWN',
    )
    const other = { ...publicKeyContainer, version: 'RSA-4096' }
    expect(await failure(() => parseKeyPairContainer({ ...halves, publicKeyContainer: other }))).toBe(
      'key KEY_VERSION_MISMATCH',
    )
    expect(await failure(() => parsePublicKeyContainer({ version: 'A', publicKey: 7 }))).toBe(
      'key KEY_CONTAINER_INVALID',
    )
    expect(await failure(() => parsePublicKeyContainer({ version: 'toString', publicKey: '' }))).toBe(
      'key KEY_VERSION_UNKNOWN',
    )
  })
})

describe('base64', () => {
  test('agrees with the platform on every length and refuses what is not canonical', () => {
    const { bytes, random } = seededRandom(SEED)
    for (let length = 0; length < 200; length++) {
      const data = bytes(length)
      const text = Buffer.from(data).toString('base64')
      expect(toBase64(data)).toBe(text)
      expect(fromBase64(text)).toEqual(data)
      if (length === 0) continue
      const at = random(text.length)
      const altered = text.slice(0, at) + '-_ \n*é'.charAt(random(6)) + text.slice(at + 1)
      expect(fromBase64(altered)).toBeUndefined()
    }
    for (const text of ['A', 'AA', 'AAA', 'A===', '====', '=AAA', 'AA=A', 'AB==', 'AAB=', 'AA==AAAA', 'ＡAAA']) {
      expect(fromBase64(text), text).toBeUndefined()
    }
  })
})

describe('PEM', () => {
  const body = toPem(new Uint8Array(100).fill(3), 'X')
  const bytes = new Uint8Array(100).fill(3)

  test('LF, CRLF, no final line end, several of them, other widths', () => {
    const crlf = body.replaceAll('\n', '\r\n')
    const narrow = body.replace(/([A-Za-z0-9+/]{10})(?=[A-Za-z0-9+/])/g, '$1\n').replace('-----BEGIN X', '-----BEGIN X')
    for (const text of [body, crlf, body.trimEnd(), crlf.trimEnd(), `${body}\n\r\n`, narrow])
      expect(fromPem(text, 'X')).toEqual(bytes)
  })

  test('nothing else', async () => {
    const bad = [
      '',
      '\n',
      'X',
      body.replaceAll('X', 'Y'),
      `x${body}`,
      ` ${body}`,
      `${body}x`,
      body.replace('-----END X-----\n', ''),
    ]
    bad.push(body.replace('AwMD', 'AwM!'), body.replace('AwMD', 'AwM '), body.replace('AwMD', 'A=MD'), body + body)
    bad.push(
      '-----BEGIN X-----\n-----END X-----',
      '-----BEGIN X-----\n\n-----END X-----\n',
      body.replaceAll('\n', '\r'),
    )
    bad.push(body.replace('BEGIN', 'begin'), body.replace('X-----\n', 'X-----\nProc-Type: 4,ENCRYPTED\n\n'))
    for (const text of bad)
      expect(await failure(() => fromPem(text, 'X')), JSON.stringify(text)).toBe('key KEY_CONTAINER_INVALID')
  })

  // Stripping line ends with a backtracking expression once took 18 s for this text.
  test('64 KiB of line ends are refused like anything else', async () => {
    const before = process.cpuUsage()
    for (const text of [
      `${'\n'.repeat(MAX_PEM_BYTES - 1)}x`,
      `${'\r\n'.repeat(MAX_PEM_BYTES / 2 - 1)}x`,
      'A'.repeat(MAX_PEM_BYTES + 1),
    ]) {
      expect(await failure(() => fromPem(text, 'X'))).toBe('key KEY_CONTAINER_INVALID')
    }
    // Microseconds of work, not of waiting for a turn.
    const { user, system } = process.cpuUsage(before)
    expect(user + system).toBeLessThan(5_000_000)
  })
})

describe('DER', () => {
  test('only the shortest definite form is read', () => {
    expect(readDer(hex('0500'))).toEqual({ tag: 5, content: hex('') })
    const long = der(Tag.OctetString, new Uint8Array(300))
    expect(toHex(long.subarray(0, 4))).toBe('0482012c')
    expect(readDer(long).content).toHaveLength(300)
    for (const bad of [
      '',
      '05',
      '0501',
      '050000',
      '058100',
      '0581',
      '30800000',
      '3003020200',
      '04820001aa',
      '0481017f',
      '1f0100',
      '0484000000',
      '30040500',
    ]) {
      expect(() => readDer(hex(bad)), bad).toThrow(DerError)
    }
    expect(() =>
      readDer(Array.from({ length: 18 }).reduce<Uint8Array>((inner) => der(Tag.Sequence, inner), hex('0500'))),
    ).toThrow('deep')
  })

  test('small integers', () => {
    const read = (text: string) => smallInteger(readDer(hex(text)))
    expect([read('020100'), read('02017f'), read('02020080'), read('0203010001'), read('02050100000000')]).toEqual([
      0,
      127,
      128,
      65_537,
      2 ** 32,
    ])
    for (const bad of ['0200', '020180', '02020001', '0202ff00', '020701000000000000', '0401ff'])
      expect(() => read(bad), bad).toThrow(DerError)
  })

  test('object identifiers have one encoding', () => {
    for (const dotted of ['1.2.840.113549.1.5.13', '2.16.840.1.101.3.4.1.42', '0.0', '1.39.0', '2.5.4.3']) {
      expect(oid(readDer(derOid(dotted)))).toBe(dotted)
    }
    // 2a 86 48 … with a padded arc means the same number and would give one key two encodings.
    for (const bad of ['0600', '060180', '06022a80', '060a2a864886f70d0105800d', '06028001', '06062a8fffffff7f8f']) {
      expect(() => oid(readDer(hex(bad))), bad).toThrow(DerError)
    }
  })

  test('big numbers', () => {
    for (const text of ['00', '01', '7f', '80', 'ff00', '00ff', '0123456789abcdef0123456789']) {
      expect(toBigInt(hex(text))).toBe(BigInt(`0x${text}`))
      expect(toBigInt(readDer(derInteger(hex(text))).content)).toBe(BigInt(`0x${text}`))
    }
    expect(toBigInt(hex(''))).toBe(0n)
    expect([equal(hex('0102'), hex('0102')), equal(hex('0102'), hex('0103')), equal(hex('01'), hex('0100'))]).toEqual([
      true,
      false,
      false,
    ])
  })
})

describe('public keys', () => {
  const spkiOf = (n: bigint, e = 65_537n) => {
    const bytes = (value: bigint) =>
      hex(value.toString(16).padStart(value.toString(16).length + (value.toString(16).length % 2), '0'))
    const key = der(Tag.Sequence, derInteger(bytes(n)), derInteger(bytes(e)))
    const id = der(Tag.Sequence, derOid('1.2.840.113549.1.1.1'), der(Tag.Null))
    return der(Tag.Sequence, id, der(Tag.BitString, Uint8Array.of(0), key))
  }
  const attempt = (spki: Uint8Array) =>
    failure(() => importPublicKey({ version: 'A', publicKey: toPem(spki, 'PUBLIC KEY') }))

  test('the fingerprint is SHA-256 of the DER, whatever the PEM looks like', async () => {
    const { publicKeyContainer } = quickFixture('A').container
    const key = await fixturePublicKey('A')
    const { createHash } = await import('node:crypto')
    expect(key.fingerprint).toBe(createHash('sha256').update(key.spki).digest('hex'))
    const crlf = { ...publicKeyContainer, publicKey: publicKeyContainer.publicKey.replaceAll('\n', '\r\n').trimEnd() }
    expect((await importPublicKey(crlf)).fingerprint).toBe(key.fingerprint)
  })

  test('modulus and exponent must be the version’s', async () => {
    const { spki } = await fixturePublicKey('A')
    const n = toBigInt(spki.slice(33, 33 + 256))
    expect(spkiOf(n)).toEqual(spki)
    expect(await attempt(spki)).toBe('nothing')
    const top = 1n << 2047n
    const bad = [
      spkiOf(n - 1n),
      spkiOf(n, 3n),
      spkiOf(n, 1n),
      spkiOf(n, 65_539n),
      spkiOf(n, (1n << 64n) + 65_537n),
      spkiOf(n >> 1n),
    ]
    bad.push(
      spkiOf((n << 8n) | 1n),
      spkiOf(0n),
      ...[3n, 257n, 32_771n, 65_519n, 65_521n].map((prime) => spkiOf(prime * ((top / prime + 2n) | 1n))),
    )
    for (const [i, key] of bad.entries()) expect(await attempt(key), `number ${i}`).toBe('key PUBLIC_KEY_INVALID')
  })

  test('one key has one encoding', async () => {
    const { spki } = await fixturePublicKey('A')
    const id = der(Tag.Sequence, derOid('1.2.840.113549.1.1.1'), der(Tag.Null))
    expect(spki.slice(4, 4 + id.length)).toEqual(id)
    const bits = spki.slice(4 + id.length)
    const padded = der(Tag.Sequence, der(Tag.Oid, hex('2a864886f70d01018001')), der(Tag.Null))
    const variants = [
      der(Tag.Sequence, der(Tag.Sequence, derOid('1.2.840.113549.1.1.1')), bits),
      der(Tag.Sequence, der(Tag.Sequence, derOid('1.2.840.113549.1.1.7'), der(Tag.Null)), bits),
      der(Tag.Sequence, padded, bits),
      der(Tag.Sequence, id, bits, der(Tag.Null)),
      der(Tag.Sequence, id, new Uint8Array(bits).fill(1, 4, 5)),
      der(Tag.OctetString, spki.slice(4)),
      spki.slice(0, -1),
      Uint8Array.of(...spki, 0),
    ]
    for (const [i, key] of variants.entries()) expect(await attempt(key), `variant ${i}`).toBe('key PUBLIC_KEY_INVALID')
  })
})

describe('headers of locked private keys', () => {
  const { container } = quickFixture('A')
  const bytes = fromPem(container.privateKeyContainer.privateKey, 'ENCRYPTED PRIVATE KEY')
  const part = (tag: number, text: string) => der(tag, hex(text))
  const build = (
    change: Partial<
      Record<'scheme' | 'kdf' | 'salt' | 'iterations' | 'rest' | 'cipher' | 'iv' | 'ciphertext', Uint8Array>
    >,
  ) => {
    const {
      scheme = derOid('1.2.840.113549.1.5.13'),
      kdf = derOid('1.2.840.113549.1.5.12'),
      salt = der(Tag.OctetString, new Uint8Array(20)),
      iterations = part(Tag.Integer, '2710'),
      rest = new Uint8Array(0),
      cipher = derOid('2.16.840.1.101.3.4.1.42'),
      iv = der(Tag.OctetString, new Uint8Array(16)),
      ciphertext = der(Tag.OctetString, new Uint8Array(32)),
    } = change
    const params = der(
      Tag.Sequence,
      der(Tag.Sequence, kdf, der(Tag.Sequence, salt, iterations, rest)),
      der(Tag.Sequence, cipher, iv),
    )
    return toPem(der(Tag.Sequence, der(Tag.Sequence, scheme, params), ciphertext), 'ENCRYPTED PRIVATE KEY')
  }
  const read = (change: Parameters<typeof build>[0]) => failure(() => readLockedPrivateKey(build(change)))
  const octets = (length: number) => der(Tag.OctetString, new Uint8Array(length))
  const prf = (dotted: string, ...parameters: Uint8Array[]) => der(Tag.Sequence, derOid(dotted), ...parameters)
  const SHA1 = '1.2.840.113549.2.7'

  test('the builder makes what is read', async () => {
    expect(await read({})).toBe('nothing')
    expect(await read({ rest: part(Tag.Integer, '20') })).toBe('nothing')
    expect(await read({ rest: prf(SHA1) })).toBe('nothing')
    for (const last of [8, 9, 10, 11]) {
      expect(await read({ rest: prf(`1.2.840.113549.2.${last}`, der(Tag.Null)) })).toBe('nothing')
    }
    for (const length of [8, 128, 256]) expect(await read({ salt: octets(length) })).toBe('nothing')
    expect(bytes.length).toBeGreaterThan(1000)
  })

  test('unsupported algorithms are named as such', async () => {
    for (const change of [
      { scheme: derOid('1.2.840.113549.1.12.1.3') },
      { kdf: derOid('1.3.6.1.4.1.11591.4.11') },
      { cipher: derOid('2.16.840.1.101.3.4.1.2') },
      { cipher: derOid('1.2.840.113549.3.7') },
      { rest: prf('1.2.840.113549.2.6', der(Tag.Null)) },
      { rest: prf('1.2.840.113549.2.13', der(Tag.Null)) },
    ]) {
      expect(await read(change)).toBe('key KEY_CONTAINER_UNSUPPORTED')
    }
  })

  test('everything else is damaged', async () => {
    const changes: Parameters<typeof build>[0][] = [0, 7, 257, 300].map((length) => ({ salt: octets(length) }))
    changes.push(...[0, 12, 15, 17].map((length) => ({ iv: octets(length) })))
    changes.push(...[0, 1, 15, 17, 33].map((length) => ({ ciphertext: octets(length) })))
    changes.push(
      { salt: part(Tag.Sequence, '') },
      { iterations: part(Tag.Integer, 'ff') },
      { iterations: part(Tag.Integer, '') },
    )
    changes.push({ rest: part(Tag.Integer, '10') }, { rest: part(Tag.Integer, '0020') }, { rest: der(Tag.Null) })
    changes.push(
      { rest: prf(SHA1, octets(0)) },
      { rest: prf(SHA1, part(Tag.Null, '00')) },
      { rest: prf(SHA1, der(Tag.Null), der(Tag.Null)) },
    )
    const doubled = Uint8Array.of(...prf(SHA1), ...prf(SHA1))
    changes.push(
      { rest: doubled },
      { iterations: part(Tag.Integer, '002710') },
      { iterations: part(Tag.Integer, '01000000000000') },
    )
    for (const [i, change] of changes.entries())
      expect(await read(change), `change ${i}`).toBe('key KEY_CONTAINER_INVALID')
    for (const label of ['PRIVATE KEY', 'RSA PRIVATE KEY', 'PUBLIC KEY']) {
      expect(await failure(() => readLockedPrivateKey(toPem(bytes, label)))).toBe('key KEY_CONTAINER_INVALID')
    }
  })
})
