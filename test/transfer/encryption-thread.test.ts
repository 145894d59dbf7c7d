/** The thread that encrypts large files, as it is built: its program runs from `dist`. */
import { createHash, randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import {
  createFileDecryptor,
  createResumableEncryptor,
  type FileKey,
  generateKeyPair,
  resumeFileEncryptor,
  unwrapFileKey,
} from '../../crypto/index.ts'
import { openStable } from '../../src/local/stable-read.ts'
import type * as Source from '../../src/transfer/encryption-thread.ts'
import { createPartMaker, type PartMaker } from '../../src/transfer/part-maker.ts'

const built = new URL('../../dist/src/transfer/encryption-thread.js', import.meta.url).href
const { startEncryptionThread } = (await import(/* @vite-ignore */ built)) as typeof Source

const PART = 304_000
const content = randomBytes(4 * PART + 17)
const dir = mkdtempSync(join(tmpdir(), 'sealsync-thread-'))
const path = join(dir, 'file')
writeFileSync(path, content)
afterAll(() => rmSync(dir, { recursive: true }))
const never = new AbortController().signal
const owner = await generateKeyPair('A')

const start = () => startEncryptionThread()!
const slab = (length: number) => Buffer.from(new SharedArrayBuffer(length))

/** Asks for all parts at once, as an upload asks for some ahead. */
async function makeAll(maker: PartMaker, use?: (part: { number: number; bytes: Buffer }) => Promise<void>) {
  const asked = []
  for (let number = 1, at = 0; at < content.length; number++, at += PART) {
    const bytes = slab(Math.min(PART, content.length - at))
    asked.push(maker.make(number, at, bytes).then((digest) => ({ number, bytes, digest: digest! })))
  }
  const parts = await Promise.all(asked)
  for (const part of parts) await use?.(part)
  return { parts, fileKey: (await maker.end())! }
}

function decrypt(parts: readonly { bytes: Uint8Array }[], fileKey: FileKey): Buffer {
  const decryptor = createFileDecryptor(fileKey)
  const plain = parts.map(({ bytes }) => Buffer.from(decryptor.update(bytes)))
  decryptor.final()
  return Buffer.concat(plain)
}

test('the digest of the plaintext is made on the way, here and there, if it is asked for', async () => {
  const thread = start()
  const reader = await openStable(path, 'file')
  const digest = createHash('sha256').update(content).digest('base64')
  const makers = [true, false].flatMap((isHashed) => [
    thread.encrypt(reader, createResumableEncryptor(), 'file', never, { isHashed }),
    createPartMaker(reader, createResumableEncryptor(), isHashed),
    createPartMaker(reader, undefined, isHashed),
  ])
  for (const maker of makers) await makeAll(maker)
  expect(makers.map((maker) => maker.sha256())).toEqual([digest, digest, digest, undefined, undefined, undefined])
  await reader.close()
  await thread.close()
})

test('several files at a time: each opens with its own key, and there is a digest of every part', async () => {
  const thread = start()
  const readers = await Promise.all([1, 2, 3].map(() => openStable(path, 'file')))
  const done = await Promise.all(
    readers.map((reader) => makeAll(thread.encrypt(reader, createResumableEncryptor(), 'file', never))),
  )
  for (const { parts, fileKey } of done) {
    expect(decrypt(parts, fileKey).equals(content)).toBe(true)
    expect(parts.map(({ digest }) => digest.length)).toEqual([16, 16, 16, 16, 16])
  }
  expect(new Set(done.map(({ fileKey }) => Buffer.from(fileKey.key).toString('hex'))).size).toBe(3)
  for (const reader of readers) await reader.close()
  await thread.close()
})

test('it goes on with what the main thread began, and the other way round: the same bytes, digests and key', async () => {
  const thread = start()
  for (const where of ['here', 'there']) {
    const reader = await openStable(path, 'file')
    const encryptor = createResumableEncryptor()
    const sealed = await encryptor.seal(owner.publicKey)
    const make = (here: boolean, cipher: typeof encryptor) =>
      makeAll(here ? createPartMaker(reader, cipher) : thread.encrypt(reader, cipher, 'file', never))
    const first = await make(where === 'here', encryptor)
    const sent = new Map(first.parts.map(({ number, digest }) => [number, digest]))
    const resumed = await resumeFileEncryptor(sealed, (wrapped) => unwrapFileKey(wrapped, owner), sent)
    const second = await make(where !== 'here', resumed)
    const bytesOf = ({ parts }: typeof first) => Buffer.concat(parts.map(({ bytes }) => bytes))
    expect(bytesOf(second).equals(bytesOf(first))).toBe(true)
    expect(second.parts.map(({ digest }) => digest)).toEqual(first.parts.map(({ digest }) => digest))
    expect([second.fileKey.key, second.fileKey.tag]).toEqual([first.fileKey.key, first.fileKey.tag])
    await reader.close()
  }
  await thread.close()
})

test('what differs from what was sent is refused, and so is the end', async () => {
  const thread = start()
  const reader = await openStable(path, 'file')
  const encryptor = createResumableEncryptor()
  const sealed = await encryptor.seal(owner.publicKey)
  encryptor.abandon()
  const sent = new Map([[2, randomBytes(16)]])
  const resumed = await resumeFileEncryptor(sealed, (wrapped) => unwrapFileKey(wrapped, owner), sent)
  const maker = thread.encrypt(reader, resumed, 'file', never)
  await maker.make(1, 0, slab(PART))
  const mismatch = { class: 'changed', code: 'RESUME_MISMATCH' }
  await expect(maker.make(2, PART, slab(PART))).rejects.toMatchObject(mismatch)
  await expect(maker.end()).rejects.toMatchObject(mismatch)
  await reader.close()
  await thread.close()
})

test('a part is looked at again when it was sent: a bit that has flipped since, anywhere, is seen', async () => {
  const thread = start()
  const reader = await openStable(path, 'file')
  const checkOutput = { size: content.length }
  for (const maker of [
    thread.encrypt(reader, createResumableEncryptor({ checkOutput }), 'file', never, { checkOutput }),
    thread.encrypt(reader, createResumableEncryptor({ checkOutput: true }), 'file', never),
    createPartMaker(reader, createResumableEncryptor({ checkOutput })),
  ]) {
    const { parts, fileKey } = await makeAll(maker, async ({ number, bytes }) => {
      const at = (number * 7_919) % bytes.length
      bytes[at]! ^= 4
      await expect(maker.confirm(number, bytes)).rejects.toMatchObject({ code: 'OUTPUT_CHECK_FAILED' })
      bytes[at]! ^= 4
      await maker.confirm(number, bytes)
    })
    expect(decrypt(parts, fileKey).equals(content)).toBe(true)
  }
  await reader.close()
  await thread.close()
})

test('a part out of its order never meets the cipher', async () => {
  const thread = start()
  const reader = await openStable(path, 'file')
  for (const maker of [
    thread.encrypt(reader, createResumableEncryptor(), 'file', never),
    createPartMaker(reader, createResumableEncryptor()),
  ]) {
    const target = slab(PART)
    await expect(maker.make(2, PART, target)).rejects.toThrow()
    expect(target.every((byte) => byte === 0)).toBe(true)
    maker.abandon()
  }
  await reader.close()
  await thread.close()
})

test('a file that became shorter is one that changed; a given up one makes nothing more', async () => {
  const thread = start()
  const short = join(dir, 'short')
  writeFileSync(short, content)
  const reader = await openStable(short, 'short')
  truncateSync(short, PART)
  const maker = thread.encrypt(reader, createResumableEncryptor(), 'short', never)
  await maker.make(1, 0, slab(PART))
  await expect(maker.make(2, PART, slab(PART))).rejects.toMatchObject({ class: 'changed', code: 'SOURCE_CHANGED' })
  maker.abandon()
  await expect(maker.make(2, PART, slab(PART))).rejects.toMatchObject({ class: 'internal' })
  await reader.close()
  await thread.close()
})

test('an abort ends a part that is being made', async () => {
  const thread = start()
  const reader = await openStable(path, 'file')
  const stop = new AbortController()
  const maker = thread.encrypt(reader, createResumableEncryptor(), 'file', stop.signal)
  const target = slab(content.length)
  const asked = maker.make(1, 0, target)
  stop.abort()
  await expect(asked).rejects.toMatchObject({ class: 'cancelled' })
  expect(target.subarray(-PART).every((byte) => byte === 0)).toBe(true)
  maker.abandon()
  await reader.close()
  await thread.close()
})

test('a thread that is gone is an error for all who wait and all who come, never a wait', async () => {
  const thread = start()
  const reader = await openStable(path, 'file')
  const maker = thread.encrypt(reader, createResumableEncryptor(), 'file', never)
  const lost = { class: 'internal', code: 'ENCRYPTION_THREAD_LOST' }
  const waiting = expect(maker.make(1, 0, slab(PART))).rejects.toMatchObject(lost)
  await thread.close()
  await waiting
  await expect(maker.make(1, 0, slab(PART))).rejects.toMatchObject(lost)
  await expect(maker.end()).rejects.toMatchObject(lost)
  await reader.close()
})

test('an encryptor that was handed over, or has begun, cannot be', async () => {
  const encryptor = createResumableEncryptor()
  const { key } = encryptor.handOver()
  expect(key.some((byte) => byte !== 0)).toBe(true)
  expect(() => encryptor.handOver()).toThrow(TypeError)
  expect(() => encryptor.update(content)).toThrow(TypeError)
  await expect(encryptor.seal(owner.publicKey)).rejects.toMatchObject({ code: 'KEY_UNUSABLE' })
  const begun = createResumableEncryptor()
  begun.update(content)
  expect(() => begun.handOver()).toThrow(TypeError)
  begun.abandon()
})
