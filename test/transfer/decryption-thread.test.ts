/** The thread as it is built; started from the sources the same work is done without it. */
import { randomBytes } from 'node:crypto'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { encryptBytes } from '../../crypto/index.ts'
import { type DecryptionThread, startDecryptionThread } from '../../src/transfer/decryption-thread.ts'
import { freshDirectory } from '../support/files.ts'

const BUILT = new URL('../../dist/src/transfer/decryption-thread.js', import.meta.url).href
const startBuilt = async (): Promise<DecryptionThread> => (await import(BUILT)).startDecryptionThread()
const content = randomBytes(300_000)
const pieces = (bytes: Uint8Array, size = 70_001) => {
  const all: Uint8Array[] = []
  for (let at = 0; at < bytes.length; at += size) all.push(new Uint8Array(bytes.subarray(at, at + size)))
  return all
}

async function scene(start: () => DecryptionThread | Promise<DecryptionThread>) {
  const path = join(await freshDirectory(), 'file')
  const fd = openSync(path, 'w+')
  const thread = await start()
  onTestFinished(async () => {
    await thread.close()
    closeSync(fd)
  })
  return { path, fd, thread }
}

test.each([
  ['built', startBuilt],
  ['from the sources', startDecryptionThread],
] as const)('%s: decrypts in order, takes up what is there, refuses what does not match', async (_what, start) => {
  const { ciphertext, fileKey } = encryptBytes(content)
  const { path, fd, thread } = await scene(start)
  const file = thread.open(fd, 'file', fileKey)
  // A chunk that is a part of something larger must not take that along.
  const parts = pieces(ciphertext)
  await file.write([...parts.slice(0, 2), ciphertext.subarray(140_002, 140_010)])
  await file.write([ciphertext.slice(140_010)])
  await file.end()
  await file.forget()
  expect(ciphertext.length).toBe(content.length)
  expect(readFileSync(path).equals(content)).toBe(true)

  const again = thread.open(fd, 'file', fileKey)
  await again.replay(200_000)
  await again.write(pieces(ciphertext.subarray(200_000)))
  await again.end()
  await again.forget()
  expect(readFileSync(path).equals(content)).toBe(true)

  const wrong = thread.open(fd, 'file', fileKey)
  await wrong.write([new Uint8Array(ciphertext.length)])
  await expect(wrong.end()).rejects.toMatchObject({ class: 'integrity', code: 'CONTENT_TAMPERED' })
  await wrong.forget()

  const unwritable = thread.open(openSync(path, 'r'), 'file', fileKey)
  await expect(unwritable.write(pieces(ciphertext))).rejects.toMatchObject({ class: 'local_io', code: 'LOCAL_EBADF' })
  // Nothing goes on behind a gap.
  await expect(unwritable.write(pieces(ciphertext))).rejects.toMatchObject({ code: 'LOCAL_EBADF' })
  await expect(unwritable.end()).rejects.toMatchObject({ code: 'LOCAL_EBADF' })
  await unwritable.forget()
})

test('a thread that ends says so to everybody who waits', async () => {
  const { fd, thread } = await scene(startBuilt)
  const file = thread.open(fd, 'file', undefined)
  const writing = file.write([new Uint8Array(1000)])
  writing.catch(() => {})
  await thread.close()
  const ended = await writing.then(() => undefined).catch((error) => error)
  if (ended !== undefined) expect(ended).toMatchObject({ code: 'DECRYPTION_THREAD_LOST' })
  await expect(file.end()).rejects.toMatchObject({ class: 'internal', code: 'DECRYPTION_THREAD_LOST' })
  await file.forget()
})
