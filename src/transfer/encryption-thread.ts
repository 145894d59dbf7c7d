/**
 * A thread that reads and encrypts large files while this one sends. Files take turns part by part; all parts of a file are made
 * there, in order, into memory that both threads see. The other side is encryption-worker.ts.
 * @module
 */
import { type EncryptionSecrets, FileKey, type OutputCheck, type ResumableEncryptor } from '../../crypto/index.ts'
import { SyncError } from '../errors.ts'
import type { StableReader } from '../local/stable-read.ts'
import type { PartMaker } from './part-maker.ts'
import { type Failure, programOf, startThread } from './thread.ts'

/** What the thread is asked to do; each order has one answer, in the same order. */
export type Order =
  | {
      readonly do: 'open'
      readonly file: number
      readonly fd: number
      readonly shown: string
      readonly secrets: EncryptionSecrets
      readonly isHashed: boolean
      readonly checkOutput: OutputCheck
      /** One number; not 0: give up in the middle of a part. */
      readonly stop: Int32Array
    }
  | {
      readonly do: 'part'
      readonly file: number
      readonly number: number
      readonly offset: number
      readonly target: Uint8Array
    }
  | { readonly do: 'confirm'; readonly file: number; readonly number: number; readonly target: Uint8Array }
  | { readonly do: 'end'; readonly file: number }
  | { readonly do: 'abandon'; readonly file: number }

export interface Answer extends Failure {
  /** Of a part. */
  readonly digest?: Uint8Array
  /** Of a file that has ended. */
  readonly fileKey?: {
    readonly key: Uint8Array<ArrayBuffer>
    readonly iv: Uint8Array<ArrayBuffer>
    readonly tag: Uint8Array<ArrayBuffer>
  }
  /** Of the plaintext of a file that has ended, where it was asked for. */
  readonly sha256?: string | undefined
}

export interface EncryptionThread {
  /**
   * Has a file read and encrypted there. The file must stay open until all parts that were asked for have been made or refused.
   *
   * @param encryptor - Handed over: it has ended here.
   * @param signal - Its abort refuses what is asked for, in the middle of a part too.
   * @param options.isHashed - Make the SHA-256 of the plaintext, too.
   * @param options.checkOutput - Default: all of it is decrypted again.
   */
  encrypt(
    reader: StableReader,
    encryptor: ResumableEncryptor,
    shown: string,
    signal: AbortSignal,
    options?: { readonly isHashed?: boolean; readonly checkOutput?: OutputCheck },
  ): PartMaker
  /** Ends the thread; what it was asked for and has not done is refused. */
  close(): Promise<void>
}

/** Below this a file is done here before the other thread has it. */
export const THREAD_FROM = 8 * 1024 * 1024

const lost = (cause: unknown) =>
  new SyncError('internal', 'ENCRYPTION_THREAD_LOST', 'The thread that encrypts has ended unexpectedly', {
    hint: 'Run again: what has arrived is not sent again.',
    cause,
  })

/**
 * Starts the thread.
 *
 * @returns `undefined` where its program is not beside this one (a bundle, or the sources run as they are).
 */
export function startEncryptionThread(): EncryptionThread | undefined {
  const program = programOf('encryption-worker')
  if (program === undefined) return undefined
  const { ask, close } = startThread<Order, Answer>(program, 'encryption', lost)
  let files = 0
  return {
    encrypt(reader, encryptor, shown, signal, { isHashed = false, checkOutput = true } = {}) {
      const file = ++files
      const stop = new Int32Array(new SharedArrayBuffer(4))
      const onAbort = () => void Atomics.store(stop, 0, 1)
      if (signal.aborted) onAbort()
      signal.addEventListener('abort', onAbort, { once: true })
      const secrets = encryptor.handOver()
      const { key, iv, digestKey } = secrets
      // Without an own answer: what is wrong with it, its parts say, too.
      ask({ do: 'open', file, fd: reader.fd, shown, secrets, isHashed, checkOutput, stop }, [
        key.buffer,
        iv.buffer,
        digestKey.buffer,
      ]).catch(() => {})
      let sha256: string | undefined
      return {
        make: async (number, offset, target) => (await ask({ do: 'part', file, number, offset, target })).digest,
        confirm: async (number, target) => void (await ask({ do: 'confirm', file, number, target })),
        async end() {
          const ended = await ask({ do: 'end', file })
          signal.removeEventListener('abort', onAbort)
          sha256 = ended.sha256
          const { key, iv, tag } = ended.fileKey!
          return new FileKey(key, iv, tag)
        },
        sha256: () => sha256,
        abandon() {
          signal.removeEventListener('abort', onAbort)
          onAbort()
          ask({ do: 'abandon', file }).catch(() => {})
        },
      }
    },
    close,
  }
}
