import { describe, expect, test } from 'vitest'
import { primitives } from '#primitives'
import { FileKey, parseKeyPairContainer, unlockKeyPair } from '../../crypto/index.ts'
import { primitives as native } from '../../crypto/primitives/node.ts'
import { primitives as portable } from '../../crypto/primitives/portable.ts'
import type { Primitives } from '../../crypto/primitives/types.ts'
import { KEY_PAIR_PROFILES } from '../../crypto/versions.ts'
import { fixturePkcs8, fixturePublicKey, keyPairFixtures, SEED, seededRandom } from './support.ts'

const { random, bytes } = seededRandom(SEED)
const WAYS: readonly (readonly [Primitives, Primitives])[] = [
  [native, portable],
  [portable, native],
]

// Both engines are loaded side by side, so once is enough.
describe.skipIf(primitives.name !== 'native')('both engines on the same random inputs (in the native project)', () => {
  test('GCM streams in random pieces, with and without additional data', () => {
    for (let i = 0; i < 300; i++) {
      const [key, iv, plain] = [bytes(32), bytes(12), bytes(random(2_000))]
      const aad = i % 3 === 0 ? bytes(random(50)) : undefined
      const results = [native, portable].map((engine) => {
        const stream = engine.gcmEncrypt(key, iv, aad)
        const out = new Uint8Array(plain.length)
        for (let at = 0; at < plain.length; ) {
          const chunk = plain.subarray(at, at + 1 + random(100))
          if (random(2) === 0) stream.updateEach(chunk, (piece, offset) => out.set(piece, at + offset))
          else out.set(stream.update(chunk), at)
          at += chunk.length
        }
        return { cipher: out, tag: stream.final() }
      })
      expect(results[0]).toEqual(results[1])
      const { cipher, tag } = results[0]!
      const badTag = new Uint8Array(tag)
      badTag[random(16)]! ^= 1 << random(8)
      for (const engine of [native, portable]) {
        const verdicts = [tag, badTag].map((one) => {
          const stream = engine.gcmDecrypt(key, iv, aad)
          expect(Buffer.compare(stream.update(cipher), plain)).toBe(0)
          return stream.final(one)
        })
        expect(verdicts).toEqual([true, false])
      }
    }
  })

  test('tags of any length but 16 are refused', () => {
    const [key, iv] = [bytes(32), bytes(12)]
    for (const engine of [native, portable]) {
      const tag = engine.gcmEncrypt(key, iv).final()
      for (let length = 0; length <= 32; length++) {
        const cut = new Uint8Array(length)
        cut.set(tag.subarray(0, length))
        expect(engine.gcmDecrypt(key, iv).final(cut), `${engine.name} ${length}`).toBe(length === 16)
        if (length !== 16) expect(() => new FileKey(key, iv, cut)).toThrow(RangeError)
      }
    }
  })

  test('PBKDF2, CBC, SHA-256, equality', async () => {
    for (let i = 0; i < 40; i++) {
      const [password, salt, iv, data] = [bytes(1 + random(200)), bytes(8 + random(249)), bytes(16), bytes(random(300))]
      const prf = (['SHA-1', 'SHA-224', 'SHA-256', 'SHA-384', 'SHA-512'] as const)[i % 5]!
      const [one, two] = await Promise.all(WAYS.map(([engine]) => engine.pbkdf2(prf, password, salt, 1 + i, 32)))
      expect(Buffer.compare(one!, two!)).toBe(0)
      const sealed = await Promise.all(WAYS.map(([engine]) => engine.cbcEncrypt(one!, iv, data)))
      expect(Buffer.compare(sealed[0]!, sealed[1]!)).toBe(0)
      for (const [engine] of WAYS) {
        expect(Buffer.compare(await engine.cbcDecrypt(one!, iv, sealed[0]!), data)).toBe(0)
        expect(engine.sameBytes(data, new Uint8Array(data))).toBe(true)
        expect(engine.sameBytes(bytes(20), bytes(20))).toBe(false)
      }
      expect(Buffer.compare(native.sha256(data), portable.sha256(data))).toBe(0)
    }
  })

  test('CBC padding that is wrong is refused by both, for the same keys', async () => {
    const [iv, cipher] = [bytes(16), bytes(48)]
    let fine = 0
    for (let i = 0; i < 600; i++) {
      const key = bytes(32)
      const verdicts = await Promise.all(
        WAYS.map(([engine]) =>
          engine.cbcDecrypt(key, iv, cipher).then(
            () => true,
            () => false,
          ),
        ),
      )
      expect(verdicts[0]).toBe(verdicts[1])
      if (verdicts[0]) fine++
    }
    expect(fine).toBeLessThan(30)
  })

  test.each(['A', 'RSA-4096'] as const)('what one wraps the other unwraps: %s', async (version) => {
    const { oaep } = KEY_PAIR_PROFILES[version]
    const [pkcs8, { spki }] = [await fixturePkcs8(version), await fixturePublicKey(version)]
    for (const [one, other] of WAYS) {
      const [wrapper, unwrapper] = [await one.rsaWrapper(spki, oaep), await other.rsaUnwrapper(pkcs8, oaep)]
      for (let i = 0; i < 8; i++) {
        const plain = bytes(random(60))
        const wrapped = await wrapper.wrap(plain)
        expect(Buffer.compare(await unwrapper.unwrap(wrapped), plain)).toBe(0)
        wrapped[random(wrapped.length)]! ^= 1 << random(8)
        await expect(unwrapper.unwrap(wrapped)).rejects.toThrow()
      }
    }
  })

  test('key pairs one makes the other takes', async () => {
    for (const [one, other] of WAYS) {
      const { pkcs8, spki } = await one.rsaGenerate(2048)
      const { oaep } = KEY_PAIR_PROFILES.A
      const wrapped = await (await other.rsaWrapper(spki, oaep)).wrap(bytes(32))
      expect(await (await other.rsaUnwrapper(pkcs8, oaep)).unwrap(wrapped)).toHaveLength(32)
    }
  })

  test('randomness has its length and does not repeat', () => {
    for (const [{ randomBytes }] of WAYS) {
      expect([0, 12, 32].map((length) => randomBytes(length).length)).toEqual([0, 12, 32])
      expect(randomBytes(32)).not.toEqual(randomBytes(32))
    }
  })

  test('while a key pair is unlocked and file keys unwrapped, the event loop goes on (reported)', async () => {
    const { keyPair, password } = keyPairFixtures.find(({ name }) => name === 'RSA-4096 current')!
    let longest = 0
    let ticks = 0
    let before = performance.now()
    const turn = () => {
      const now = performance.now()
      longest = Math.max(longest, now - before)
      before = now
      ticks++
      next = setImmediate(turn)
    }
    before = performance.now()
    let next = setImmediate(turn)
    const pair = await unlockKeyPair(parseKeyPairContainer(keyPair), password)
    const wrapped = await pair.publicKey.wrapper.wrap(bytes(32))
    await Promise.all(Array.from({ length: 40 }, () => pair.unwrapper.unwrap(wrapped)))
    clearImmediate(next)
    console.info(`event loop during unlock and 40 unwraps: longest pause ${longest.toFixed(1)} ms, ${ticks} turns`)
    // Done on this thread, deriving and each unwrapping would be one turn; beside it, the loop turns as often as it gets to.
    expect(ticks).toBeGreaterThan(200)
  })
})
