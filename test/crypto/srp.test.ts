import { createHash, createHmac, getDiffieHellman, hkdfSync } from 'node:crypto'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { SyncError } from '../../crypto/errors.ts'
import {
  COGNITO_GROUP,
  type CognitoChallenge,
  checkServerProof,
  createCognitoEphemeral,
  modPow,
  protonGroup,
  protonHash,
  proveToProton,
  rfc5054,
  signedBytes,
  signForCognito,
} from '../../crypto/srp.ts'
import { fromBytes, power, RFC5054_2048, toBytes } from '../support/srp.ts'
import { failure, hex, SEED, seededRandom, shared, toBase64 } from './support.ts'

const REFUSED = 'auth SERVER_NOT_TRUSTED'
const sha256 = (data: Uint8Array | string) => createHash('sha256').update(data).digest()
const toHex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')
const digest = (data: Uint8Array | string) => toHex(sha256(data))
const le = (number: bigint) => toBytes(number, 256).reverse()
const num = (bytes: Uint8Array) => fromBytes(Buffer.from(bytes).reverse())

test('RFC 5054 appendix B: the published numbers', () => {
  const number = (...lines: string[]) => BigInt(`0x${lines.join('').replaceAll(' ', '')}`)
  const group = {
    N: number(
      'EEAF0AB9 ADB38DD6 9C33F80A FA8FC5E8 60726187 75FF3C0B 9EA2314C 9C256576 D674DF74 96EA81D3 383B4813 D692C6E0',
      'E0D5D8E2 50B98BE4 8E495C1D 6089DAD1 5DC7D7B4 6154D6B6 CE8EF4AD 69B15D49 82559B29 7BCF1885 C529F566 660E57EC',
      '68EDBC3C 05726CC0 2FD4CBF4 976EAA9A FD5138FE 8376435B 9FC61D2F C0EB06E3',
    ),
    g: 2n,
  }
  const B = number(
    'BD0C6151 2C692C0C B6D041FA 01BB152D 4916A1E7 7AF46AE1 05393011 BAF38964 DC46A067 0DD125B9 5A981652 236F99D9',
    'B681CBF8 7837EC99 6C6DA044 53728610 D0C6DDB5 8B318885 D7D82C7F 8DEB75CE 7BD4FBAA 37089E6F 9C6059F3 88838E7A',
    '00030B33 1EB76840 910440B1 B27AAEAE EB4012B7 D7665238 A8E3FB00 4B117B58',
  )
  const made = rfc5054(group, {
    userName: 'alice',
    password: 'password123',
    salt: hex('BEB25379D1A8581EB5A727673A2441EE'),
    a: number('60975527 035CF2AD 1989806F 0407210B C81EDC04 E2762A56 AFD529DD DA2D4393'),
    B,
  })
  expect(made).toEqual({
    k: number('7556AA04 5AEF2CDD 07ABAF0F 665C3E81 8913186F'),
    x: number('94B7555A ABE9127C C58CCF49 93DB6CF8 4D16C124'),
    A: number(
      '61D5E490 F6F1B795 47B0704C 436F523D D0E560F0 C64115BB 72557EC4 4352E890 3211C046 92272D8B 2D1A5358 A2CF1B6E',
      '0BFCF99F 921530EC 8E393561 79EAE45E 42BA92AE ACED8251 71E1E8B9 AF6D9C03 E1327F44 BE087EF0 6530E69F 66615261',
      'EEF54073 CA11CF58 58F0EDFD FE15EFEA B349EF5D 76988A36 72FAC47B 0769447B',
    ),
    u: number('CE38B959 3487DA98 554ED47D 70A7AE5F 462EF019'),
    S: number(
      'B0DC82BA BCF30674 AE450C02 87745E79 90A3381F 63B387AA F271A10D 233861E3 59B48220 F7C4693C 9AE12B0A 6F67809F',
      '0876E2D0 13800D6C 41BB59B6 D5979B5C 00A172B4 A2A5903A 0BDCAF8A 709585EB 2AFAFA8F 3499B200 210DCC1F 10EB3394',
      '3CD67FC8 8A2F39A4 BE5BEC4E C0A3212D C346D7E4 74B29EDE 8A469FFE CA686E5A',
    ),
  })
  // The verifier of the same appendix, by its first and last words.
  const v = modPow(2n, made.x, group.N).toString(16)
  expect(v).toMatch(/^7e273de8696ffc4f.*e2099afb$/)
})

test('powers: small numbers by counting, negative bases, the trivial modulus', () => {
  for (let base = -7n; base <= 7n; base++) {
    for (let exponent = 0n; exponent < 9n; exponent++) {
      for (const modulus of [1n, 2n, 7n, 12n]) {
        const plain = base ** exponent
        expect(modPow(base, exponent, modulus)).toBe(((plain % modulus) + modulus) % modulus)
      }
    }
  }
})

describe('Proton', () => {
  const group = protonGroup(le(RFC5054_2048))
  const { N } = group
  const k = num(protonHash(le(2n), le(N)))
  const PASSWORD_HASH = '$2y$10$WycYznmHAwUAb1/wZ1PtZew8CwswVDkfJcgvCQHflfMGx7PqzaHJ2'
  const verifier = (passwordHash: string) => power(2n, num(protonHash(Buffer.from(passwordHash), le(N))), N)

  // Made with a script in Python (hashlib, pow) that computes both sides: a = SHA-256("aSEED"), b = SHA-256("bSEED"), the
  // modulus of RFC 5054. The values are SHA-256 of what the name says. Seeds 2 and 434 were searched for.
  test.each([
    {
      kind: 'ordinary',
      seed: 0,
      A: 'eb7d2a46e5b8d55c3e5d4eba2dc45c2325c2a8ae7228058293f1cca710218967',
      B: '02a348555dc29b31c59e5c4827feb4f69ea855f7d466611807c1ecb2d51ab134',
      M1: '1d9dfc146154501c3b9c25cefacc0f60d4609c7bb893c83ed17abf70c264d1b6',
      M2: 'bcd009c5eb4e792ed3eaa3b25856925235b2ea1498beb351d4a3f28daa70f1c9',
    },
    {
      kind: 'A with a zero in front',
      seed: 2,
      A: 'fe9a3faa822fd346c01cc47fc3db6206d9292aa4ef1db09a07b422be5f21517d',
      B: 'd6ebd9ad6287cd594c9172861450edb17b83ca3aaf42de34694ba175ddc34a12',
      M1: '929cc4eb9f0d52b4fb7d78ed3953c2356ae6d523723cb4879f1e58f788a7be67',
      M2: 'a95d6eced1eb694918a41516957ab999ee69de96a9d00bd95387f594cd434d14',
    },
    {
      kind: 'S with a zero in front',
      seed: 434,
      A: '4d2cbd768a8fd433ab85eec684db740a20fca962ad5c7343a3130f39371b7af9',
      B: '5f35c8483cec1cf8ef1a92c46d5148df9941ead5245f4f4888e66daa8074316c',
      M1: '17afd321213e9fb28297f7cd7386caf8e5907f13aa84ad462f26fe4bd78d04d5',
      M2: 'e368f10115c7bb7d9fa9e95d783bf03e71b36175364010b63efd5a187bb274bf',
    },
  ])('known answer: $kind', ({ seed, A, B, M1, M2 }) => {
    const b = num(sha256(`b${seed}`))
    const ephemeral = le((k * verifier(PASSWORD_HASH) + power(2n, b, N)) % N)
    expect(digest(ephemeral)).toBe(B)
    const made = proveToProton(group, ephemeral, PASSWORD_HASH, sha256(`a${seed}`))
    expect(digest(made.clientEphemeral)).toBe(A)
    expect(digest(made.clientProof)).toBe(M1)
    expect(digest(made.expectedServerProof)).toBe(M2)
  })

  test('client and server agree on random passwords, and never on different ones', () => {
    const { bytes } = seededRandom(SEED)
    for (let i = 0; i < 3; i++) {
      const typed = `$2y$10$${Buffer.from(bytes(60)).toString('base64').slice(0, 53)}`
      const other = `${typed.slice(0, -1)}${typed.endsWith('.') ? '/' : '.'}`
      for (const registered of [typed, other]) {
        const v = verifier(registered)
        const b = num(bytes(32))
        const B = le((k * v + power(2n, b, N)) % N)
        const made = proveToProton(group, B, typed)
        const A = made.clientEphemeral
        const S = power((num(A) * power(v, num(protonHash(A, B)), N)) % N, b, N)
        const M1 = protonHash(A, B, le(S))
        expect(
          M1.every((byte, at) => byte === made.clientProof[at]),
          `seed ${SEED}`,
        ).toBe(registered === typed)
        const check = () => checkServerProof(made, protonHash(A, M1, le(S)))
        if (registered === typed) check()
        else expect(check, `seed ${SEED}`).toThrow(SyncError)
      }
    }
  })

  test('the ephemeral is fresh, and as long as it should be', () => {
    const spy = vi.spyOn(globalThis.crypto, 'getRandomValues')
    onTestFinished(() => spy.mockRestore())
    const [one, two] = [1, 2].map(() => proveToProton(group, le(5n), PASSWORD_HASH).clientEphemeral)
    expect(one).not.toEqual(two)
    expect(spy.mock.calls.map(([array]) => (array as Uint8Array).length)).toEqual([32, 32])
  })

  test('ephemerals that prove nothing, and wrong lengths', async () => {
    const prove = (B: Uint8Array) => failure(() => proveToProton(group, B, PASSWORD_HASH))
    for (const B of [0n, 1n, N - 1n, N, N + 1n, 2n ** 2048n - 1n]) expect(await prove(le(B))).toBe(REFUSED)
    for (const length of [0, 255, 257]) expect(await prove(new Uint8Array(length).fill(5))).toBe(REFUSED)
    expect(() => proveToProton(group, le(5n), 'x')).toThrow(RangeError)
    expect(() => proveToProton(group, le(5n), PASSWORD_HASH, new Uint8Array(31))).toThrow(RangeError)
  })

  test('moduli that are not for logins', async () => {
    const refused = (modulus: Uint8Array) => failure(() => protonGroup(modulus))
    const modp14 = fromBytes(getDiffieHellman('modp14').getPrime()) // a safe prime, but 2 generates half of its group
    for (const n of [0n, 1n, N >> 1n, N - 8n, N + 24n, modp14]) expect(await refused(le(n))).toBe(REFUSED)
    for (const length of [0, 255, 257]) expect(await refused(new Uint8Array(length).fill(0xfb))).toBe(REFUSED)
  })

  test('a server proof that is missing, cut or another', async () => {
    const made = proveToProton(group, le(5n), PASSWORD_HASH)
    const right = made.expectedServerProof
    checkServerProof(made, right.slice())
    for (const at of [0, 1, 127, 254, 255]) {
      const wrong = right.slice()
      wrong[at]! ^= 0x80
      expect(await failure(() => checkServerProof(made, wrong))).toBe(REFUSED)
    }
    for (const wrong of [undefined, right.slice(1), new Uint8Array(0), new Uint8Array(256), made.clientProof]) {
      expect(await failure(() => checkServerProof(made, wrong))).toBe(REFUSED)
    }
  })
})

describe('Cognito', () => {
  const { N, g } = COGNITO_GROUP
  const k = fromBytes(sha256(Buffer.concat([signedBytes(N), signedBytes(g)])))
  const poolName = 'TestPool1'
  const timestamp = 'Mon Jan 5 04:07:09 UTC 2026'
  const secretBlock = Uint8Array.from({ length: 48 }, (_, index) => index)

  function verifier(salt: string, identity: string): bigint {
    const x = sha256(Buffer.concat([signedBytes(BigInt(`0x${salt}`)), sha256(identity)]))
    return power(g, fromBytes(x), N)
  }
  const challengeOf = (B: string, salt: string, more: Partial<CognitoChallenge> = {}): CognitoChallenge => ({
    poolName,
    userId: 'user-1',
    password: 'pässwörd',
    salt,
    serverEphemeral: B,
    secretBlock,
    timestamp,
    ...more,
  })

  test('the group is that of OpenSSL', () => {
    expect(N).toBe(fromBytes(getDiffieHellman('modp15').getPrime()))
    expect(k.toString(16)).toMatch(/^538282c4354742d7.*5b66d9ee6$/)
  })

  test.each<[bigint, string]>([
    [0n, '00'],
    [1n, '01'],
    [0x7fn, '7f'],
    [0x80n, '0080'],
    [0xffn, '00ff'],
    [0x100n, '0100'],
    [0x7fffn, '7fff'],
    [0x8000n, '008000'],
    [0xa00n, '0a00'],
  ])('bytes of %i', (number, bytes) => expect(toHex(signedBytes(number))).toBe(bytes))

  // Made with a script in Python (hashlib, hmac, pow) that computes both sides: a = SHA-256("aSEED.0") … ("aSEED.3"), b =
  // SHA-256("bSEED"). A and B are SHA-256 of their hexadecimal text. Seeds 4 and 151 were searched for.
  test.each([
    {
      kind: 'ordinary',
      seed: 0,
      salt: '3f1e2d3c4b5a6978',
      A: '4340b950da91ee356ff3c8ed3f615be551365cfc9ebcc081dee1b7c718a01943',
      B: 'a243d9121617d975b9d4eedf15db417720fc79785ab4ee6bd2e4153aa70b02f1',
      signature: 'bl2ogLa/ZTPv/KdLHpaFVqU8HHzwvanCVxovWQueylY=',
    },
    {
      kind: 'A with a zero in front',
      seed: 4,
      salt: '3f1e2d3c4b5a6978',
      A: 'd57c24520b720f59eaee30fe9caf73a03db02f3a3b0e92478c04af8378cccf8b',
      B: 'e3d5fff95a4ad5c926f466c067ab37a23802fea12d573713c9c3b4976c5c2de9',
      signature: 'PoAIrXIWnp5jv3FBNle3/B5TyzbWCJci0oQyccgC9/U=',
    },
    {
      kind: 'S with a zero in front',
      seed: 151,
      salt: '3f1e2d3c4b5a6978',
      A: '6f5c35e1ac022d55eb7585a9c7d8e56d2be2b7918c270dd7c30e97bc0539e1e9',
      B: '69a5b2f9820f2257f7d3b5bf33438095101d1f5cd95d9428d5dbf87bd29c0a2a',
      signature: '8Hh5WS7wJ3xj7NDzYKCflr3aKaeqV2vVHCBTcixdy+c=',
    },
    {
      kind: 'salt with its top bit set',
      seed: 3,
      salt: 'ff1e2d3c4b5a6978',
      A: '2e64d804a7d9c3306af6752cb848aaeb8980ac7a97b7f52bc3bd930e895d684c',
      B: '1e4cdc358259016bdc5c1c2e35eb41df9c0fed4442e7ca8ceb87f2a43b7b2653',
      signature: 'rC9Uly9TEfZdqlU1AOk++1y3wxC6cBqsS9CGWwtFf58=',
    },
    {
      kind: 'salt of odd length',
      seed: 4,
      salt: 'af1e2d3c4b5a697',
      A: 'd57c24520b720f59eaee30fe9caf73a03db02f3a3b0e92478c04af8378cccf8b',
      B: '2492f94c75e604e9c5c312a13b32fcf912c243d3d842ae2e390aa927fb1db646',
      signature: 'FF8tJ7/hxx6cnuFjUHgIx9AzUfOWSQ4Dv7NtUv5/5nw=',
    },
    {
      kind: 'salt with zeros in front',
      seed: 5,
      salt: '00001e2d3c4b5a69',
      A: 'cfe3feb1408455e1e2125deaa582ae6f277c368b5b98e499131177852a0cd14c',
      B: '6d1b7a598a04f02b3bdcd72a4faad1e4f7c6b133c0c1b6c9211512b990b8d456',
      signature: 'DK8YyULyrtWbQeUukePXF2UaFIzFMlwV1HC12fmiGrs=',
    },
  ])('known answer: $kind', ({ seed, salt, A, B, signature }) => {
    const b = fromBytes(sha256(`b${seed}`))
    const v = verifier(salt, 'TestPool1user-1:pässwörd')
    const serverEphemeral = ((k * v + power(g, b, N)) % N).toString(16)
    expect(digest(serverEphemeral)).toBe(B)
    const ephemeral = createCognitoEphemeral(Buffer.concat([0, 1, 2, 3].map((part) => sha256(`a${seed}.${part}`))))
    expect(digest(ephemeral.hex)).toBe(A)
    expect(toBase64(signForCognito(ephemeral, challengeOf(serverEphemeral, salt)))).toBe(signature)
    expect(toBase64(signForCognito(ephemeral, challengeOf(serverEphemeral.toUpperCase(), salt)))).toBe(signature)
  })

  test('client and server agree on random passwords, and never on different ones', () => {
    const { bytes, random } = seededRandom(SEED)
    for (let i = 0; i < 4; i++) {
      const password = Buffer.from(bytes(1 + random(40))).toString('latin1')
      const salt = toHex(bytes(16))
      const b = fromBytes(bytes(32))
      for (const registered of [password, `${password}x`]) {
        const v = verifier(salt, `${poolName}user-1:${registered}`)
        const B = (k * v + power(g, b, N)) % N
        const mine = createCognitoEphemeral()
        const u = sha256(Buffer.concat([signedBytes(mine.A), signedBytes(B)]))
        const S = power((mine.A * power(v, fromBytes(u), N)) % N, b, N)
        const key = hkdfSync('sha256', signedBytes(S), signedBytes(fromBytes(u)), 'Caldera Derived Key', 16)
        const claim = createHmac('sha256', Buffer.from(key)).update(`${poolName}user-1`).update(secretBlock)
        const expected = claim.update(timestamp).digest('base64')
        const made = signForCognito(mine, challengeOf(B.toString(16), salt, { password }))
        expect(toBase64(made) === expected, `seed ${SEED}`).toBe(registered === password)
      }
    }
  })

  test('ephemerals and salts that are none', async () => {
    const mine = createCognitoEphemeral()
    const sign = (B: string, salt = 'ff') => failure(() => signForCognito(mine, challengeOf(B, salt)))
    const n = N.toString(16)
    for (const B of ['0', '0'.repeat(768), n, n.toUpperCase(), '', 'xyz', '-1', '0x12', ' 12', '12\n', `0${n}`]) {
      expect(await sign(B), B.slice(0, 9)).toBe(REFUSED)
    }
    for (const salt of ['', 'g', '-1', '1'.repeat(1025)]) expect(await sign('12', salt)).toBe(REFUSED)
    expect(await sign('12')).toBe('nothing')
    expect(() => createCognitoEphemeral(new Uint8Array(127))).toThrow(RangeError)
  })
})

interface ProtonExamples {
  moduli: Record<string, { modulus: string }>
  pmhash: { input: string; pmhash: string }[]
  cases: {
    id: string
    modulus: string
    bcryptHash?: string
    a: string
    A: string
    B: string
    M1: string
    M2: string
    receivedServerProof?: string
  }[]
  mustRefuse: { case: string; B: string }[]
}
const proton = shared<ProtonExamples>('auth/proton-srp.json')

describe.skipIf(proton === undefined)('worked examples: Proton', () => {
  const groupOf = (name: string) => protonGroup(hex(proton!.moduli[name]!.modulus))
  // One case repeats the inputs of the first.
  const bcryptHash = (one: { bcryptHash?: string }) => one.bcryptHash ?? proton!.cases[0]!.bcryptHash!

  test.each(proton?.pmhash ?? [])('hash of $input', ({ input, pmhash }) => {
    expect(toHex(protonHash(hex(input)))).toBe(pmhash)
  })

  test.each(proton?.cases ?? [])('$id', async (one) => {
    const made = proveToProton(groupOf(one.modulus), hex(one.B), bcryptHash(one), hex(one.a))
    expect(toHex(made.clientEphemeral)).toBe(one.A)
    expect(toHex(made.clientProof)).toBe(one.M1)
    expect(toHex(made.expectedServerProof)).toBe(one.M2)
    const received = hex(one.receivedServerProof ?? one.M2)
    const outcome = one.receivedServerProof === undefined ? 'nothing' : REFUSED
    expect(await failure(() => checkServerProof(made, received))).toBe(outcome)
  })

  test.each(proton?.mustRefuse ?? [])('refused: $case', async ({ B }) => {
    expect(await failure(() => proveToProton(groupOf('own'), hex(B), bcryptHash({})))).toBe(REFUSED)
  })
})

interface CognitoExamples {
  N: string
  padHex: { int: number; hex: string }[]
  cases: {
    id: string
    poolName: string
    userIdForSrp: string
    password: string
    SALT: string
    SECRET_BLOCK: string
    a: string
    SRP_A: string
    SRP_B: string
    TIMESTAMP: string
    PASSWORD_CLAIM_SIGNATURE: string
  }[]
}
const cognito = shared<CognitoExamples>('auth/cognito-srp.json')

describe.skipIf(cognito === undefined)('worked examples: Cognito', () => {
  test('group and bytes', () => {
    expect(COGNITO_GROUP.N.toString(16)).toBe(cognito!.N)
    for (const { int, hex } of cognito!.padHex) expect(toHex(signedBytes(BigInt(int)))).toBe(hex)
  })

  test.each(cognito?.cases ?? [])('$id', (one) => {
    const ephemeral = createCognitoEphemeral(hex(one.a.padStart(256, '0')))
    expect(ephemeral.hex).toBe(one.SRP_A)
    const signature = signForCognito(ephemeral, {
      poolName: one.poolName,
      userId: one.userIdForSrp,
      password: one.password,
      salt: one.SALT,
      serverEphemeral: one.SRP_B,
      secretBlock: Buffer.from(one.SECRET_BLOCK, 'base64'),
      timestamp: one.TIMESTAMP,
    })
    expect(toBase64(signature)).toBe(one.PASSWORD_CLAIM_SIGNATURE)
  })
})
