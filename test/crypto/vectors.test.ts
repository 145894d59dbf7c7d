import { describe, expect, test } from 'vitest'
import { primitives } from '#primitives'
import { type KeyPairVersion, unwrapFileKey } from '../../crypto/index.ts'
import type { HashName, RsaUnwrapper } from '../../crypto/primitives/types.ts'
import { KEY_PAIR_PROFILES } from '../../crypto/versions.ts'
import { hex, pairFromPkcs8, shared } from './support.ts'

/** Whole, and in pieces around the block size. */
const PIECES = [Number.POSITIVE_INFINITY, 1, 15, 16, 17, 4096]

interface GcmCase {
  key: string
  iv: string
  aad: string
  pt?: string
  ct: string
  tag: string
  result: string
}

function inPieces(update: (chunk: Uint8Array) => Uint8Array, data: Uint8Array, size: number): string {
  let out = ''
  for (let at = 0; at < data.length; at += size)
    out += Buffer.from(update(data.subarray(at, at + size))).toString('hex')
  return out
}

/** Runs one case every way there is; true when its tag is accepted. */
function runGcm({ key, iv, aad, pt, ct, tag, result }: GcmCase): boolean {
  const verdicts = PIECES.map((size) => {
    const opening = primitives.gcmDecrypt(hex(key), hex(iv), hex(aad))
    const plain = inPieces((chunk) => opening.update(chunk), hex(ct), size)
    const accepted = opening.final(hex(tag))
    if (accepted && pt !== undefined) expect(plain).toBe(pt)
    if (result === 'valid') {
      const sealing = primitives.gcmEncrypt(hex(key), hex(iv), hex(aad))
      expect(inPieces((chunk) => sealing.update(chunk), hex(pt!), size)).toBe(ct)
      expect(Buffer.from(sealing.final()).toString('hex')).toBe(tag)
    }
    return accepted
  })
  expect(new Set(verdicts).size).toBe(1)
  return verdicts[0]!
}

type WycheproofGcm = { testGroups: { tests: (Omit<GcmCase, 'pt'> & { msg: string })[] }[] }
const wycheproofGcm = shared<WycheproofGcm>('vectors/wycheproof-aes-256-gcm-iv96-tag128.json')
const cavp = (['encrypt', 'decrypt'] as const).map((way) => ({
  way,
  tests: shared<{ tests: GcmCase[] }>(`vectors/nist-cavp-gcm-${way}-256-iv96-tag128.json`)?.tests,
}))

describe('AES-256-GCM', () => {
  test.skipIf(wycheproofGcm === undefined)('Wycheproof: 66 cases', () => {
    const cases = wycheproofGcm!.testGroups
      .flatMap(({ tests }) => tests)
      .map(({ msg, ...rest }) => ({ ...rest, pt: msg }))
    const accepted = cases.filter((one) => {
      const verdict = runGcm(one)
      expect(verdict).toBe(one.result === 'valid')
      return verdict
    })
    expect([cases.length, accepted.length]).toEqual([66, 39])
    console.info(`Wycheproof AES-256-GCM on ${primitives.name}: ${cases.length}/66`)
  })

  test.skipIf(cavp.some(({ tests }) => tests === undefined))('NIST CAVP: 750 cases', () => {
    const counts = cavp.map(({ tests }) => {
      const accepted = tests!.filter((one) => {
        const verdict = runGcm(one)
        expect(verdict).toBe(one.result === 'valid')
        return verdict
      })
      return [tests!.length, accepted.length]
    })
    expect(counts).toEqual([
      [375, 375],
      [375, 184],
    ])
    console.info(`NIST CAVP GCM on ${primitives.name}: ${counts[0]![0]! + counts[1]![0]!}/750`)
  })
})

interface OaepGroup {
  keySize: number
  sha: HashName
  mgfSha: HashName
  privateKeyPkcs8: string
  tests: { tcId: number; msg: string; ct: string; label: string; result: string }[]
}

const OAEP_FILES = [
  { file: '2048-sha256-mgf1sha1', total: 31, valid: 13 },
  { file: '2048-sha256-mgf1sha256', total: 37, valid: 18 },
  { file: '2048-sha1-mgf1sha1', total: 36, valid: 17 },
  { file: '4096-sha256-mgf1sha256', total: 37, valid: 18 },
  { file: '4096-sha256-mgf1sha1', total: 32, valid: 13 },
  { file: 'misc-2048-4096-sha1-sha256', total: 24, valid: 24 },
].map((entry) => ({
  ...entry,
  groups: shared<{ testGroups: OaepGroup[] }>(`vectors/wycheproof-rsa-oaep-${entry.file}.json`)?.testGroups,
}))

describe('RSAES-OAEP', () => {
  // Mixed hashes on 4096 bits are no key pair's; the portable engine would give them to forge, at a third of a second each.
  const notShipped = (file: string) =>
    primitives.name === 'portable' && file === '4096-sha256-mgf1sha1' && process.env.SEALSYNC_FULL !== '1'
  for (const { file, groups, total, valid } of OAEP_FILES) {
    const slow = notShipped(file)
    test.skipIf(groups === undefined || slow)(
      `Wycheproof ${file}: ${total} cases${slow ? ' (SEALSYNC_FULL=1)' : ''}`,
      async () => {
        let ran = 0
        let opened = 0
        for (const { sha: hash, mgfSha: mgf1Hash, privateKeyPkcs8, tests } of groups!) {
          const byLabel = new Map<string, RsaUnwrapper>()
          for (const { tcId, msg, ct, label, result } of tests) {
            const params = { hash, mgf1Hash, label: hex(label) }
            const unwrapper = byLabel.get(label) ?? (await primitives.rsaUnwrapper(hex(privateKeyPkcs8), params))
            byLabel.set(label, unwrapper)
            const plain = await unwrapper.unwrap(hex(ct)).catch(() => undefined)
            const got = plain === undefined ? 'refused' : Buffer.from(plain).toString('hex')
            expect(got, `case ${tcId}`).toBe(result === 'valid' ? msg : 'refused')
            ran++
            if (plain !== undefined) opened++
          }
        }
        expect([ran, opened]).toEqual([total, valid])
        console.info(`Wycheproof RSA-OAEP ${file} on ${primitives.name}: ${ran}/${total}`)
      },
    )
  }

  test.skipIf(OAEP_FILES.some(({ groups }) => groups === undefined)).each(OAEP_FILES)(
    'Wycheproof $file: as a file key only 32 bytes without a label, under the right hashes, open',
    async ({ groups }) => {
      for (const { keySize, sha, mgfSha, privateKeyPkcs8, tests } of groups!) {
        const version: KeyPairVersion = Number(keySize) === 2048 ? 'A' : 'RSA-4096'
        const { oaep, fileKeyVersion, wrappedLength } = KEY_PAIR_PROFILES[version]
        const pair = await pairFromPkcs8(hex(privateKeyPkcs8), version)
        const ours = oaep.hash === sha && oaep.mgf1Hash === mgfSha
        for (const { tcId, msg, ct, label, result } of tests) {
          const key = hex(ct)
          const wrapped = { version: fileKeyVersion, key, iv: new Uint8Array(12), tag: new Uint8Array(16) }
          const good = ours && result === 'valid' && label === '' && msg.length === 64 && /[1-9a-f]/.test(msg)
          const got = await unwrapFileKey(wrapped, pair).then(
            (fileKey) => Buffer.from(fileKey.key).toString('hex'),
            (error) => error.code,
          )
          const refusal = key.length === wrappedLength ? 'KEY_UNWRAP_FAILED' : 'FILE_KEY_INVALID'
          expect(got, `case ${tcId}`).toBe(good ? msg : refusal)
        }
      }
    },
  )
})
