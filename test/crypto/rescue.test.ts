/** Rescue keys and their text: vectors, an independent implementation of HPKE, every wrong letter, shares, tampering. @module */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { beforeAll, describe, expect, test } from 'vitest'
import type { UserKeyPair } from '../../crypto/index.ts'
import { generateRescueSeed, openKeyPair, rescueKeyId, rescuePublicKey, sealKeyPair } from '../../crypto/rescue-key.ts'
import {
  combineRescueShares,
  createRescueReader,
  formatRescueSecret,
  isRescueShare,
  parseRescueText,
  type RescueShare,
  roomRescuePassword,
  splitRescueSecret,
} from '../../crypto/rescue-text.ts'
import fc from '../support/property.ts'
import { errorOf } from '../support/servers.ts'
import { unlockFixture } from './support.ts'

const FIXTURES = fileURLToPath(new URL('../../fixtures/rescue/', import.meta.url))
const LETTERS = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
const hex = (text: string) => new Uint8Array(Buffer.from(text, 'hex'))
const toHex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')

const codeOf = (work: () => unknown): [string, string] | undefined => {
  try {
    work()
    return undefined
  } catch (error) {
    const { code, message } = error as { code: string; message: string }
    return [code, message]
  }
}

const secrets = fc.oneof(
  fc.uint8Array({ minLength: 32, maxLength: 32 }).map((secret) => ({ kind: 'key' as const, secret })),
  fc.uint8Array({ minLength: 20, maxLength: 20 }).map((secret) => ({ kind: 'room' as const, secret })),
)

describe('the text', () => {
  test('comes back however it is written', () => {
    fc.assert(
      fc.property(
        secrets,
        fc.constantFrom('numbered', 'plain', 'lower', 'dashes', 'one line', 'o for 0'),
        (one, how) => {
          const lines = formatRescueSecret(one)
          const ways = {
            numbered: `RESCUE KEY\n\n${lines.map((line, at) => `  ${at + 1}:  ${line}`).join('\r\n')}\nkeep it safe`,
            plain: lines.join('\n'),
            lower: lines.join('\n').toLowerCase(),
            dashes: lines.join('\n').replaceAll(' ', '-'),
            'one line': lines.join('').replaceAll(' ', ''),
            'o for 0': lines.join('\n').replaceAll('0', 'o').replaceAll('1', 'l'),
          }
          expect(parseRescueText(ways[how as keyof typeof ways])).toEqual(one)
        },
      ),
    )
  })

  test('has lines of 14 letters at most', () => {
    for (const [kind, bytes, count] of [
      ['key', 32, 5],
      ['room', 20, 4],
    ] as const) {
      const lines = formatRescueSecret({ kind, secret: new Uint8Array(bytes).fill(0xa5) })
      expect(lines).toHaveLength(count)
      for (const line of lines) expect(line).toMatch(/^(?:[0-9A-HJKMNP-TV-Z]{4} ){0,3}[0-9A-HJKMNP-TV-Z]{2}$/)
    }
  })

  test('names the line of every single wrong letter, and of neighbours that were exchanged', () => {
    let tried = 0
    for (const one of [
      { kind: 'key' as const, secret: generateRescueSeed() },
      { kind: 'room' as const, secret: generateRescueSeed().subarray(0, 20) },
    ]) {
      const lines = formatRescueSecret(one).map((line) => line.replaceAll(' ', ''))
      const typed = (at: number, line: string) => lines.map((old, index) => (index === at ? line : old)).join('\n')
      lines.forEach((line, at) => {
        for (let column = 0; column < line.length; column++) {
          for (const letter of LETTERS) {
            if (letter === line[column]) continue
            const wrong = typed(at, line.slice(0, column) + letter + line.slice(column + 1))
            expect(codeOf(() => parseRescueText(wrong))).toEqual([
              'RESCUE_LINE_WRONG',
              expect.stringContaining(`Line ${at + 1} `),
            ])
            tried++
          }
          const [a, b] = [line[column], line[column + 1]]
          // What is exchanged between letters and checksum is found nearly always only.
          if (b === undefined || a === b || column === line.length - 3) continue
          const swapped = line.slice(0, column) + b + a + line.slice(column + 2)
          expect(codeOf(() => parseRescueText(typed(at, swapped)))?.[0]).toBe('RESCUE_LINE_WRONG')
        }
        for (const length of [line.length - 1, line.length + 1]) {
          const other = `${line}0`.slice(0, length)
          expect(codeOf(() => parseRescueText(typed(at, other)))).toEqual([
            'RESCUE_LINE_WRONG',
            expect.stringMatching(new RegExp(`^Line ${at + 1} .*${length} letters`)),
          ])
        }
        expect(codeOf(() => parseRescueText(typed(at, line.replace(/.$/, 'U'))))?.[1]).toContain(`Line ${at + 1} `)
      })
    }
    expect(tried).toBe((5 * 14 + 3 * 14 + 6) * 31)
  })

  test('lines that are missing, exchanged, repeated or of two papers are told', () => {
    const lines = formatRescueSecret({ kind: 'key', secret: generateRescueSeed() })
    const others = formatRescueSecret({ kind: 'key', secret: generateRescueSeed() })
    for (let count = 1; count < lines.length; count++) {
      const [code, message] = codeOf(() => parseRescueText(lines.slice(0, count).join('\n'))) ?? []
      if (count === 1) expect(code).toBe('RESCUE_TEXT_SHORT')
      expect([code, message]).toEqual(['RESCUE_TEXT_SHORT', `The rescue text ends after line ${count} of 5`])
    }
    for (let at = 1; at < lines.length; at++) {
      const exchanged = [...lines]
      ;[exchanged[at - 1], exchanged[at]] = [lines[at]!, lines[at - 1]!]
      expect(codeOf(() => parseRescueText(exchanged.join('\n')))).toEqual([
        'RESCUE_LINE_WRONG',
        expect.stringContaining(`Line ${at} `),
      ])
      const mixed = [...lines.slice(0, at), ...others.slice(at)].join('\n')
      expect(codeOf(() => parseRescueText(mixed))?.[0]).toBe('RESCUE_TEXT_INVALID')
    }
    expect(codeOf(() => parseRescueText([...lines, lines[4]].join('\n')))?.[0]).toBe('RESCUE_TEXT_INVALID')
    expect(codeOf(() => parseRescueText(''))?.[0]).toBe('RESCUE_TEXT_SHORT')
    const numbered = lines.map((line, at) => `${at + 1}: ${line}`).filter((_, at) => at !== 2)
    expect(codeOf(() => parseRescueText(numbered.join('\n')))?.[1]).toContain('Line 3 ')
  })

  test('any text at all is read or refused with a code', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[0-9A-Z \n]{0,120}$/)), (text) => {
        expect(codeOf(() => parseRescueText(text))?.[0]).toMatch(/^RESCUE_(LINE_WRONG|TEXT_SHORT|TEXT_INVALID)$/)
      }),
    )
  })

  test('is checked line by line while it is typed', () => {
    const one = { kind: 'key' as const, secret: generateRescueSeed() }
    const reader = createRescueReader()
    expect(reader.lines).toBeUndefined()
    for (const [at, line] of formatRescueSecret(one).entries()) {
      expect(reader.next).toBe(at + 1)
      const wrong = `${line[0] === '0' ? '1' : '0'}${line.slice(1)}`
      expect(codeOf(() => reader.add(wrong))?.[0]).toBe('RESCUE_LINE_WRONG')
      reader.add(line)
      expect(reader.lines).toBe(5)
    }
    expect(reader.next).toBeUndefined()
    expect(reader.result()).toEqual(one)
  })

  test('the password of a room has letters of every kind', () => {
    expect(roomRescuePassword(new Uint8Array(20).fill(0x33))).toMatch(/^([0-9A-Z]{4}-){8}rk1$/)
  })
})

describe('shares', () => {
  const sharesOf = (texts: readonly (readonly string[])[]) =>
    texts
      .map((lines) => parseRescueText(lines.join('\n')))
      .map((one) => {
        if (!isRescueShare(one)) throw new Error('no share')
        return one
      })

  test('any k of n give the secret, and fewer do not', async () => {
    const how = fc
      .integer({ min: 2, max: 9 })
      .chain((of) => fc.tuple(fc.integer({ min: 2, max: of }), fc.constant(of), fc.infiniteStream(fc.nat())))
    await fc.assert(
      fc.asyncProperty(secrets, how, async (one, [needed, of, random]) => {
        const { set, shares } = await splitRescueSecret(one, needed, of)
        const all = sharesOf(shares)
        expect(all.map(({ number }) => number)).toEqual(Array.from({ length: of }, (_, at) => at + 1))
        for (const share of all) expect(share).toMatchObject({ kind: one.kind, needed, of, set })
        const order = all.map((share) => ({ share, at: random.next().value! })).sort((a, b) => a.at - b.at)
        const some = order.slice(0, needed).map(({ share }) => share)
        expect(await combineRescueShares(some)).toEqual(one)
        const error = await errorOf(combineRescueShares([...some.slice(1), ...some.slice(1)]))
        expect(error).toMatchObject({ code: 'RESCUE_SHARES_FEW' })
        // Somebody who makes the paper say that fewer are needed gets nothing either.
        const less = some.slice(1).map((share): RescueShare => ({ ...share, needed: needed - 1 }))
        if (needed > 2) expect((await errorOf(combineRescueShares(less))).code).toBe('RESCUE_SHARES_WRONG')
      }),
      { numRuns: 30 },
    )
  })

  test('of different sets are told, and one that was changed', async () => {
    const one = { kind: 'key' as const, secret: generateRescueSeed() }
    const [first, second] = [await splitRescueSecret(one, 2, 3), await splitRescueSecret(one, 2, 3)]
    const [a, b] = [sharesOf(first.shares), sharesOf(second.shares)]
    expect(await errorOf(combineRescueShares([a[0]!, b[1]!]))).toMatchObject({
      code: 'RESCUE_SHARES_MIXED',
      message: expect.stringMatching(new RegExp(`${first.set} and ${second.set}`)),
    })
    const share = new Uint8Array(a[1]!.share)
    share[3]! ^= 1
    expect((await errorOf(combineRescueShares([a[0]!, { ...a[1]!, share }]))).code).toBe('RESCUE_SHARES_WRONG')
    const line = first.shares[1]![2]!
    const typed = first.shares[1]!.with(2, `${line[0] === 'A' ? 'B' : 'A'}${line.slice(1)}`)
    expect(codeOf(() => parseRescueText(typed.join('\n')))).toEqual([
      'RESCUE_LINE_WRONG',
      expect.stringContaining('Line 3 '),
    ])
    for (const [needed, of] of [
      [1, 3],
      [4, 3],
      [2, 256],
      [2.5, 3],
    ] as const) {
      expect((await errorOf(splitRescueSecret(one, needed, of))).code).toBe('RESCUE_SHARES_INVALID')
    }
  })
})

describe('the key', () => {
  let pair: UserKeyPair
  beforeAll(async () => {
    pair = await unlockFixture('A')
  })

  const { vectors } = JSON.parse(readFileSync(join(FIXTURES, 'hpke.json'), 'utf8')) as { vectors: Vector[] }
  interface Vector {
    readonly seed: string
    readonly publicKey: string
    readonly enc: string
    readonly context: string
    readonly sealed: string
    readonly fingerprint: string
  }

  test('comes from the seed as RFC 9180 has it (appendix A.1.1)', async () => {
    const ikmR = hex('6db9df30aa07dd42ee5e8181afdb977e538f5e1fec8a06223f33f7013e525037')
    expect(toHex(await rescuePublicKey(ikmR))).toBe('3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d')
  })

  test('opens what another implementation has sealed', async () => {
    expect(vectors.length).toBeGreaterThan(1)
    for (const { seed, publicKey, enc, context, sealed, fingerprint } of vectors) {
      expect(toHex(await rescuePublicKey(hex(seed)))).toBe(publicKey)
      const opened = await openKeyPair({ enc: hex(enc), sealed: hex(sealed) }, hex(seed), hex(context), 'A')
      expect(opened.publicKey.fingerprint).toBe(fingerprint)
    }
  })

  test('what it seals opens again, and nothing else does', async () => {
    const seed = generateRescueSeed()
    const context = new TextEncoder().encode('context')
    const publicKey = await rescuePublicKey(seed)
    expect(rescueKeyId(publicKey)).toMatch(/^[0-9a-f]{16}$/)
    const sealed = await sealKeyPair(pair, publicKey, context)
    const opened = await openKeyPair(sealed, seed, context, 'A')
    expect(opened.publicKey.fingerprint).toBe(pair.publicKey.fingerprint)
    const flip = (bytes: Uint8Array, at: number) => bytes.with(at, bytes[at]! ^ 1)
    const wrong: Parameters<typeof openKeyPair>[] = [
      [sealed, generateRescueSeed(), context, 'A'],
      [sealed, seed, new Uint8Array(0), 'A'],
      [sealed, seed, context, 'RSA-4096'],
      [{ ...sealed, enc: flip(sealed.enc, 0) }, seed, context, 'A'],
      [{ ...sealed, enc: new Uint8Array(32) }, seed, context, 'A'],
      [{ ...sealed, enc: sealed.enc.subarray(1) }, seed, context, 'A'],
      [{ ...sealed, sealed: flip(sealed.sealed, 0) }, seed, context, 'A'],
      [{ ...sealed, sealed: flip(sealed.sealed, sealed.sealed.length - 1) }, seed, context, 'A'],
      [{ ...sealed, sealed: sealed.sealed.subarray(1) }, seed, context, 'A'],
      [{ ...sealed, sealed: new Uint8Array(0) }, seed, context, 'A'],
    ]
    for (const given of wrong) {
      expect(await errorOf(openKeyPair(...given))).toMatchObject({
        class: 'integrity',
        code: 'RESCUE_CONTAINER_TAMPERED',
      })
    }
  })
})
