import { describe, expect, test } from 'vitest'
import { primitives } from '#primitives'
import { fromPem, toBigInt, toPem } from '../../crypto/bytes.ts'
import { DerError, der, derInteger, derOid, readDer, sequence, Tag } from '../../crypto/der.ts'
import {
  importPublicKey,
  type KeyPairContainer,
  type KeyPairVersion,
  parseFileKey,
  parseKeyPairContainer,
  SyncError,
  unlockKeyPair,
} from '../../crypto/index.ts'
import { checkPrivateKey, readLockedPrivateKey, sealPrivateKey } from '../../crypto/private-key.ts'
import { encodeSpki } from '../../crypto/public-key.ts'
import {
  fileFixtures,
  fixturePkcs8,
  fixturePublicKey,
  keyPairFixtures,
  quickFixture,
  SEED,
  seededRandom,
} from './support.ts'

const { random, bytes, pick } = seededRandom(SEED)
const VERSIONS = ['A', 'RSA-4096'] as const

/** One to three small injuries: flipped bits, odd bytes, cuts, repeats, insertions, oversized lengths. */
function injure(input: Uint8Array): Uint8Array {
  let out = Array.from(input)
  for (let count = 1 + random(3); count > 0; count--) {
    // Headers decide, so half of the injuries go there.
    const at = random(random(2) === 0 ? Math.min(out.length, 64) + 1 : out.length + 1)
    switch (random(7)) {
      case 0:
        if (out[at] !== undefined) out[at]! ^= 1 << random(8)
        break
      case 1:
        if (out[at] !== undefined) out[at] = pick([0, 1, 2, 5, 0x24, 0x30, 0x7f, 0x80, 0x81, 0x84, 0xff])
        break
      case 2:
        out = out.slice(0, at)
        break
      case 3:
        out.splice(at, 1 + random(4))
        break
      case 4:
        out.splice(at, 0, ...bytes(1 + random(4)))
        break
      case 5:
        out.splice(at, 0, ...out.slice(at, at + random(40)))
        break
      default:
        out.splice(at, 2, 0x30, 0x84, 0xff, 0xff, 0xff, 0xff)
    }
  }
  return Uint8Array.from(out)
}

function injureText(text: string): string {
  const at = random(text.length)
  const odd = () => pick(['', '\n', '\r', '\r\n', ' ', '=', '-', '\0', '\uD800', 'é', '-----', '\n'.repeat(500)])
  return text.slice(0, at) + odd() + text.slice(at + random(3))
}

function injureJson(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || random(8) === 0) {
    const text = typeof value === 'string' ? value : 'A'
    const odd: unknown[] = [
      undefined,
      null,
      0,
      -1,
      Number.NaN,
      true,
      '',
      'A',
      [],
      [value],
      {},
      { toString: 1 },
      text.repeat(3),
      `${text}=`,
    ]
    return random(3) === 0 ? injureText(text) : pick(odd)
  }
  const out: Record<string, unknown> = { ...value }
  const name = pick(Object.keys(out))
  if (random(6) === 0) delete out[name]
  else out[name] = injureJson(out[name])
  return out
}

describe('mutated containers give typed errors and nothing else', () => {
  let slowest = 0
  let total = 0
  const outcomes = new Map<string, number>()

  /** Runs `read` on one mutated input; whatever is thrown must be of ours. */
  async function probe(read: () => unknown): Promise<void> {
    const start = performance.now()
    let outcome = 'accepted'
    try {
      await read()
    } catch (error) {
      if (!(error instanceof SyncError)) throw new Error(`not a typed error: ${String(error)}`, { cause: error })
      expect(['key', 'integrity']).toContain(error.class)
      outcome = error.code
    }
    slowest = Math.max(slowest, performance.now() - start)
    total++
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
  }

  test('8,000 locked private keys', async () => {
    const pems = keyPairFixtures.map(({ keyPair }) => parseKeyPairContainer(keyPair).privateKeyContainer.privateKey)
    for (let i = 0; i < 8_000; i++) {
      const pem = pick(pems)
      if (i % 4 === 0) {
        await probe(() => readLockedPrivateKey(injureText(pem)))
        continue
      }
      const injured = toPem(injure(fromPem(pem.replaceAll('\r', ''), 'ENCRYPTED PRIVATE KEY')), 'ENCRYPTED PRIVATE KEY')
      await probe(() => {
        const { iterations, salt, iv, ciphertext } = readLockedPrivateKey(injured)
        expect([iv.length, ciphertext.length % 16, salt.length >= 8, iterations <= 10_000_000]).toEqual([
          16,
          0,
          true,
          true,
        ])
      })
    }
  })

  test('4,000 public keys: what is accepted is RSA of the right size', async () => {
    const keys = await Promise.all(VERSIONS.map(fixturePublicKey))
    for (let i = 0; i < 4_000; i++) {
      const { version, spki } = pick(keys)
      const pem = toPem(spki, 'PUBLIC KEY')
      const publicKey = i % 4 === 0 ? injureText(pem) : toPem(injure(spki), 'PUBLIC KEY')
      await probe(async () => {
        const key = await importPublicKey({ version, publicKey })
        expect(key.spki.length).toBe(spki.length)
      })
    }
  })

  test('8,000 JSON containers', async () => {
    const pairs = keyPairFixtures.map(({ keyPair }) => keyPair)
    const files = fileFixtures.map(({ fileKey }) => fileKey)
    for (let i = 0; i < 4_000; i++) {
      await probe(() => parseKeyPairContainer(injureJson(pick(pairs))))
      await probe(() => parseFileKey(injureJson(pick(files))))
    }
  })

  test('2,000 private keys as they come out of the cipher', async () => {
    const keys = await Promise.all(VERSIONS.map(async (version) => ({ version, der: await fixturePkcs8(version) })))
    for (let i = 0; i < 2_000; i++) {
      const { version, der: original } = pick(keys)
      const injured = random(20) === 0 ? bytes(random(3_000)) : injure(original)
      await probe(() => {
        try {
          // Accepted is only what means the same key.
          expect(checkPrivateKey(injured, version).pkcs8).toEqual(original)
        } catch (error) {
          if (error instanceof DerError) throw new SyncError('key', 'KEY_CONTAINER_INVALID', error.message)
          throw error
        }
      })
    }
  })

  test('counts', () => {
    console.info(
      `hostile containers on ${primitives.name}: ${total}, slowest ${slowest.toFixed(1)} ms`,
      Object.fromEntries(outcomes),
    )
    expect(total).toBe(22_000)
    expect(outcomes.get('accepted') ?? 0).toBeLessThan(total / 2)
  })
})

describe('private keys with altered numbers, under the right password', () => {
  const NAMES = ['version', 'n', 'e', 'd', 'p', 'q', 'dP', 'dQ', 'qInv'] as const
  const password = 'right'
  const secret = new TextEncoder().encode(password)

  const describeError = (error: unknown) => {
    const { name, class: kind, code, message, hint, retryable, cause } = error as SyncError
    return JSON.stringify([name, kind, code, message, hint, retryable, String(cause)])
  }

  function alter(number: Uint8Array): Uint8Array {
    const copy = new Uint8Array(number)
    const last = copy.length - 1
    switch (random(6)) {
      case 0:
        copy[random(copy.length)]! ^= 1 << random(8)
        return copy
      case 1:
        copy[last]! += 2
        return copy
      case 2:
        return new Uint8Array(1)
      case 3:
        return Uint8Array.of(1)
      case 4:
        return copy.subarray(0, last)
      default:
        return bytes(copy.length)
    }
  }

  test('1,000 containers: none accepted, one uniform error', async () => {
    const other = await primitives.rsaGenerate(2048)
    const errors = new Set<string>()
    let tried = 0
    const attempt = async (version: KeyPairVersion, pkcs8: Uint8Array, spki: Uint8Array) => {
      const salt = primitives.randomBytes(20)
      const privateKey = await sealPrivateKey(pkcs8, secret, {
        prf: 'SHA-1',
        iterations: 1_000,
        salt,
        iv: salt.subarray(0, 16),
      })
      const container: KeyPairContainer = {
        privateKeyContainer: { version, privateKey },
        publicKeyContainer: { version, publicKey: toPem(spki, 'PUBLIC KEY') },
      }
      tried++
      return unlockKeyPair(container, password)
    }
    const build = (numbers: readonly Uint8Array[]) =>
      der(
        Tag.Sequence,
        derInteger(new Uint8Array(1)),
        der(Tag.Sequence, derOid('1.2.840.113549.1.1.1'), der(Tag.Null)),
        der(Tag.OctetString, der(Tag.Sequence, ...numbers.map(derInteger))),
      )

    for (const version of VERSIONS) {
      const pkcs8 = await fixturePkcs8(version)
      const { spki } = await fixturePublicKey(version)
      const [, , octets] = sequence(readDer(pkcs8), 3)
      const numbers = sequence(readDer(octets!.content), 9).map(({ content }) => content)
      expect((await attempt(version, build(numbers), spki)).version).toBe(version)
      tried--
      const expectRefusal = async (altered: Uint8Array, publicKey: Uint8Array, what: string) => {
        const error = await attempt(version, altered, publicKey).then(
          () => expect.unreachable(what),
          (reason) => reason,
        )
        errors.add(describeError(error))
      }
      const rounds = version === 'A' ? 100 : 24
      for (let round = 0; round < rounds; round++) {
        for (let field = 1; field < NAMES.length; field++) {
          const altered = [...numbers]
          do altered[field] = alter(numbers[field]!)
          while (toBigInt(altered[field]!) === toBigInt(numbers[field]!))
          await expectRefusal(build(altered), spki, `${NAMES[field]} altered`)
        }
      }
      // Exchanged, doubled and mixed-up numbers, and a public key that fits an altered modulus.
      const swapped = (i: number, j: number) => numbers.map((_, at) => numbers[at === i ? j : at === j ? i : at]!)
      for (const [i, j] of [
        [4, 5],
        [6, 7],
        [4, 6],
        [3, 2],
        [7, 8],
      ] as const)
        await expectRefusal(build(swapped(i, j)), spki, 'swapped')
      const n = new Uint8Array(numbers[1]!)
      for (let tries = 0; tries < 8; tries++) {
        n[20 + tries]! ^= 1
        const altered = [...numbers]
        altered[1] = n
        const fitting = encodeSpki(n, numbers[2]!)
        const usable = await importPublicKey({ version, publicKey: toPem(fitting, 'PUBLIC KEY') }).then(
          () => true,
          () => false,
        )
        if (usable) await expectRefusal(build(altered), fitting, 'n altered in both halves')
      }
      if (version === 'A') {
        for (let i = 0; i < 20; i++) await expectRefusal(pkcs8, other.spki, 'public key swapped')
        await expectRefusal(other.pkcs8, spki, 'private key swapped')
      } else {
        for (let i = 0; i < 8; i++) await expectRefusal(await fixturePkcs8('A'), spki, 'key of the other version')
      }
    }
    // The same words as for a wrong password.
    const { container } = quickFixture('A')
    errors.add(describeError(await unlockKeyPair(container, 'wrong').catch((reason) => reason)))
    console.info(`altered private keys on ${primitives.name}: ${tried} tried, 0 accepted`)
    expect(tried).toBeGreaterThanOrEqual(1_000)
    expect([...errors]).toHaveLength(1)
    expect([...errors][0]).toContain('KEY_PASSWORD_WRONG')
  })
})
