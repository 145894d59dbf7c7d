/** The crypto core against the OpenSSL command line and against the JavaScript libraries. */
import * as nodeCrypto from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { promisify } from 'node:util'
import { gcm } from '@noble/ciphers/aes.js'
import forge from 'node-forge'
import {
  createFileDecryptor,
  createFileEncryptor,
  parseKeyPairContainer,
  unlockKeyPair,
  unwrapFileKey,
  wrapFileKey,
} from '../../crypto/index.ts'
import { primitives as portable } from '../../crypto/primitives/portable.ts'
import { type Comparison, compare, isFull, type Side, time } from '../harness.ts'
import { opensslGcm, opensslRsa } from '../openssl.ts'

const MiB = 1024 * 1024
const { items } = JSON.parse(readFileSync(join(process.env.BENCH_ROOT!, 'fixtures/keys/key-pairs.json'), 'utf8'))
const fixture = items.find(({ name }: { name: string }) => name === 'RSA-4096 current')
const container = parseKeyPairContainer(fixture.keyPair)
const pair = await unlockKeyPair(container, fixture.password)

const source = new Uint8Array(MiB).fill(5)
const target = new Uint8Array(MiB)

/** GB/s of `step`, which handles so many bytes, over about so many in total. */
async function throughput(bytes: number, total: number, step: () => void): Promise<number> {
  const rounds = Math.max(1, Math.round(total / bytes))
  const ms = await time(() => {
    for (let i = 0; i < rounds; i++) step()
  })
  return (rounds * bytes) / ms / 1e6
}

const [key, iv] = [nodeCrypto.randomBytes(32), nodeCrypto.randomBytes(12)]

const drop = () => {}
const encrypt = (options?: { checkOutput: boolean }) => {
  const encryptor = createFileEncryptor(options)
  return throughput(MiB, 2048 * MiB, () => encryptor.updateEach(source, drop))
}
const encryptInto = () => {
  const encryptor = createFileEncryptor()
  return throughput(MiB, 2048 * MiB, () => encryptor.updateInto(source, target, 0))
}

const forgeEncrypt = (piece: number): Side => ({
  name: `forge ${piece / 1024} KiB`,
  run() {
    const cipher = forge.cipher.createCipher('AES-GCM', key.toString('binary'))
    cipher.start({ iv: iv.toString('binary') })
    const text = Buffer.from(source.subarray(0, piece)).toString('binary')
    return throughput(piece, 2 * MiB, () => {
      cipher.update(forge.util.createBuffer(text))
      cipher.output.getBytes()
    })
  },
})

const UNWRAPS = 512
const wrapped = await wrapFileKey(createFileEncryptor().final(), pair.publicKey)
let busiest = 0

async function unwraps(): Promise<number> {
  let left = UNWRAPS
  const before = performance.eventLoopUtilization()
  const ms = await time(() =>
    Promise.all(
      Array.from({ length: 16 }, async () => {
        while (left-- > 0) (await unwrapFileKey(wrapped, pair)).wipe()
      }),
    ),
  )
  busiest = Math.max(busiest, performance.eventLoopUtilization(before).utilization)
  return (UNWRAPS * 1e3) / ms
}

const pbkdf2 = promisify(nodeCrypto.pbkdf2)

const comparisons: Comparison[] = [
  {
    name: 'encrypt, one stream',
    unit: 'GB/s',
    sides: [
      { name: 'ours', run: () => encrypt() },
      opensslGcm(),
      {
        name: 'noble one-shot 64 KiB',
        run: () => throughput(65_536, 4 * MiB, () => gcm(key, iv).encrypt(source.subarray(0, 65_536))),
      },
      forgeEncrypt(65_536),
      forgeEncrypt(MiB),
    ],
    goals: {
      'openssl speed': { atLeast: 0.7 },
      'noble one-shot 64 KiB': { atLeast: 30 },
      'forge 64 KiB': { atLeast: 100 },
      'forge 1024 KiB': { atLeast: 100 },
    },
  },
  {
    name: 'encrypt, one stream, copied into a buffer',
    unit: 'GB/s',
    sides: [{ name: 'ours', run: encryptInto }, opensslGcm()],
  },
  {
    name: 'encrypt with output check',
    unit: 'GB/s',
    sides: [{ name: 'ours', run: () => encrypt({ checkOutput: true }) }, opensslGcm()],
  },
  {
    name: 'decrypt, one stream',
    unit: 'GB/s',
    sides: [
      {
        name: 'ours',
        run() {
          const decryptor = createFileDecryptor(createFileEncryptor().final())
          return throughput(MiB, 2048 * MiB, () => decryptor.updateEach(source, drop))
        },
      },
      opensslGcm('-decrypt'),
    ],
  },
  {
    name: 'portable engine, encrypt',
    unit: 'GB/s',
    sides: [
      {
        name: 'ours',
        run() {
          const stream = portable.gcmEncrypt(key, iv)
          return throughput(65_536, 16 * MiB, () => stream.updateEach(source.subarray(0, 65_536), drop))
        },
      },
      {
        name: 'noble one-shot 64 KiB',
        run: () => throughput(65_536, 16 * MiB, () => gcm(key, iv).encrypt(source.subarray(0, 65_536))),
      },
    ],
  },
  {
    name: 'unwrap RSA-4096',
    unit: '1/s',
    sides: [{ name: 'ours', run: unwraps }, opensslRsa('private')],
    goals: { [opensslRsa('private').name]: { atLeast: 0.9 } },
  },
  {
    name: 'wrap RSA-4096',
    unit: '1/s',
    sides: [
      {
        name: 'ours',
        async run() {
          const fileKey = createFileEncryptor().final()
          const count = 10_000
          let left = count
          const ms = await time(() =>
            Promise.all(
              Array.from({ length: 16 }, async () => {
                while (left-- > 0) await wrapFileKey(fileKey, pair.publicKey)
              }),
            ),
          )
          return (count * 1e3) / ms
        },
      },
      opensslRsa('public'),
    ],
    goals: { 'openssl, one core': { atLeast: 0.85 } },
  },
  {
    name: 'unlock, 1.3 M iterations',
    unit: 'ms',
    sides: [
      { name: 'ours', run: () => time(async () => (await unlockKeyPair(container, fixture.password)).wipe()) },
      {
        name: 'PBKDF2 alone',
        run: () => time(() => pbkdf2('password', nodeCrypto.randomBytes(20), 1_300_000, 32, 'sha1')),
      },
    ],
    goals: { 'PBKDF2 alone': { atMost: 1.1 } },
  },
]
/** The quick run leaves out what no goal of the whole program hangs on; the slow peers are among it. */
const QUICK = ['decrypt, one stream', 'encrypt with output check', 'unwrap RSA-4096']
await compare(isFull ? comparisons : comparisons.filter(({ name }) => QUICK.includes(name)))
process.stdout.write(`main thread busy during unwraps: ${(busiest * 100).toFixed(0)} %\n`)
