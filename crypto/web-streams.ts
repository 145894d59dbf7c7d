/**
 * Web Streams at the edge: the content cipher of file-cipher.ts for `fetch` bodies, `Blob.stream()` and the like. Inside the
 * project content flows as async iterables, which are quicker.
 * @module
 */
import { createFileDecryptor, createFileEncryptor } from './file-cipher.ts'
import type { FileKey } from './file-key.ts'

/** `source` with each chunk transformed; `last` runs at its regular end, `failed` at any other end. */
function mapStream(
  source: ReadableStream<Uint8Array>,
  transform: (chunk: Uint8Array) => Uint8Array,
  last: () => void,
  failed: (reason: unknown) => void,
): ReadableStream<Uint8Array> {
  const reader = source.getReader()
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const { done, value } = await reader.read()
          if (!done) return controller.enqueue(transform(value))
          last()
          controller.close()
        } catch (error) {
          failed(error)
          await reader.cancel(error).catch(() => {}) // the first failure is the one to report
          throw error
        }
      },
      async cancel(reason) {
        failed(reason)
        await reader.cancel(reason)
      },
    },
    { highWaterMark: 0 },
  )
}

/** Ciphertext as a stream, and the key that opens it. */
export interface EncryptedStream {
  readonly ciphertext: ReadableStream<Uint8Array>
  /** Resolves when the content has ended; rejects when the stream fails or is cancelled before. */
  readonly fileKey: Promise<FileKey>
}

/**
 * Encrypts a stream under a fresh key and IV; nothing is read before someone pulls.
 *
 * @example
 * const { ciphertext, fileKey } = encryptStream(file.stream())
 * const body = await new Response(ciphertext).blob()
 * const wrapped = await wrapFileKey(await fileKey, recipient)
 */
export function encryptStream(plaintext: ReadableStream<Uint8Array>): EncryptedStream {
  const encryptor = createFileEncryptor()
  let resolve: (fileKey: FileKey) => void = () => {}
  let reject: (reason: unknown) => void = () => {}
  const fileKey = new Promise<FileKey>((onValue, onError) => {
    resolve = onValue
    reject = onError
  })
  fileKey.catch(() => {}) // the stream reports it too; nobody has to listen twice
  const ciphertext = mapStream(
    plaintext,
    (chunk) => encryptor.update(chunk),
    () => resolve(encryptor.final()),
    (reason) => {
      encryptor.abandon()
      reject(reason)
    },
  )
  return { ciphertext, fileKey }
}

/**
 * Decrypts a stream. What it yields is UNVERIFIED until it has closed: collect it where nobody acts on it, and throw it away
 * when the stream errors, as it does with `CONTENT_TAMPERED` when the tag does not fit.
 */
export function decryptStream(ciphertext: ReadableStream<Uint8Array>, fileKey: FileKey): ReadableStream<Uint8Array> {
  const decryptor = createFileDecryptor(fileKey)
  return mapStream(
    ciphertext,
    (chunk) => decryptor.update(chunk),
    () => decryptor.final(),
    () => {},
  )
}
