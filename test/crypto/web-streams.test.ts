import { expect, test } from 'vitest'
import { decryptBytes, decryptStream, encryptBytes, encryptStream, FileKey } from '../../crypto/index.ts'
import { failure, SEED, seededRandom } from './support.ts'

const { bytes, random } = seededRandom(SEED)
const collect = async (stream: ReadableStream<Uint8Array>) => new Uint8Array(await new Response(stream).arrayBuffer())

function chunked(data: Uint8Array): ReadableStream<Uint8Array> {
  let at = 0
  return new ReadableStream({
    pull(controller) {
      if (at >= data.length) return controller.close()
      const end = at + random(5_000)
      controller.enqueue(data.slice(at, end))
      at = end
    },
  })
}

test.each([0, 1, 100_000])('%i bytes through both streams', async (length) => {
  const plain = bytes(length)
  const { ciphertext, fileKey } = encryptStream(chunked(plain))
  const cipher = await collect(ciphertext)
  expect(Buffer.compare(decryptBytes(cipher, await fileKey), plain)).toBe(0)
  expect(Buffer.compare(await collect(decryptStream(chunked(cipher), await fileKey)), plain)).toBe(0)
})

test('a tag that does not fit fails the stream at its end', async () => {
  const { ciphertext, fileKey } = encryptBytes(bytes(1_000))
  const forged = new FileKey(fileKey.key, fileKey.iv, new Uint8Array(16))
  const reader = decryptStream(chunked(ciphertext), forged).getReader()
  const drain = async () => {
    while (!(await reader.read()).done);
  }
  expect(await failure(drain)).toBe('integrity CONTENT_TAMPERED')
})

test('nothing is read before someone pulls; cancelling reaches the source and rejects the key', async () => {
  let pulls = 0
  let cancelled: unknown
  const source = new ReadableStream<Uint8Array>(
    {
      pull(controller) {
        pulls++
        controller.enqueue(bytes(10))
      },
      cancel(reason) {
        cancelled = reason
      },
    },
    { highWaterMark: 0 },
  )
  const { ciphertext, fileKey } = encryptStream(source)
  await Promise.resolve()
  expect(pulls).toBe(0)
  const reader = ciphertext.getReader()
  await reader.read()
  expect(pulls).toBe(1)
  const reason = new Error('enough')
  await reader.cancel(reason)
  expect(cancelled).toBe(reason)
  await expect(fileKey).rejects.toBe(reason)
})

test('a failing source fails the stream and the key with its own error', async () => {
  const broken = new Error('disk gone')
  const source = new ReadableStream<Uint8Array>({
    pull() {
      throw broken
    },
  })
  const { ciphertext, fileKey } = encryptStream(source)
  await expect(ciphertext.getReader().read()).rejects.toBe(broken)
  await expect(fileKey).rejects.toBe(broken)
})
