/**
 * A thread that decrypts and writes large files while this one receives. It is given the memory that was received into, and does
 * what it is asked for in order. The other side is decryption-worker.ts.
 * @module
 */
import type { FileKey } from '../../crypto/index.ts'
import { SyncError } from '../errors.ts'
import { openPlaintextFile } from './plaintext-file.ts'
import { type Failure, programOf, startThread } from './thread.ts'

/** What the thread is asked to do; each order has one answer, in the same order. */
export type Order = { readonly id: number } & (
  | {
      readonly do: 'open'
      readonly fd: number
      readonly shown: string
      readonly secrets: { readonly key: Uint8Array; readonly iv: Uint8Array; readonly tag: Uint8Array } | undefined
      readonly isHashed: boolean
    }
  | { readonly do: 'replay'; readonly bytes: number }
  | { readonly do: 'write'; readonly chunks: readonly Uint8Array[] }
  | { readonly do: 'end' | 'forget' }
)

export interface Answer extends Failure {
  /** Of a file that has ended, where it was asked for. */
  readonly sha256?: string | undefined
}

/** A `PlaintextFile` that is worked on elsewhere. Steps may be asked for before the last one is done. */
export interface RemotePlaintextFile {
  replay(bytes: number): Promise<void>
  /** @param chunks - Given away: they are empty afterwards. */
  write(chunks: readonly Uint8Array[]): Promise<void>
  end(): Promise<string | undefined>
  /** When it resolves, nothing touches the file any more, and its key is wiped there. */
  forget(): Promise<void>
}

export interface DecryptionThread {
  /** As `openPlaintextFile`; the key is copied. The file must stay open until `forget` has resolved. */
  open(fd: number, shown: string, fileKey: FileKey | undefined, isHashed?: boolean): RemotePlaintextFile
  close(): Promise<void>
}

const lost = (cause: unknown) =>
  new SyncError('internal', 'DECRYPTION_THREAD_LOST', 'The thread that decrypts has ended unexpectedly', {
    hint: 'Run again: what has arrived of large files is not fetched again.',
    cause,
  })

/**
 * Starts the thread. Where its program is not beside this one (a bundle, or the sources run as they are) the work is done here,
 * step by step.
 */
export function startDecryptionThread(): DecryptionThread {
  const program = programOf('decryption-worker')
  return program === undefined ? { open: openHere, close: async () => {} } : startWorker(program)
}

/** The chunk itself where it is all of its memory, as most that come from a socket are, else a copy. */
function ownMemory(chunk: Uint8Array): Uint8Array<ArrayBuffer> {
  const { buffer, byteOffset, byteLength } = chunk
  const isWhole = buffer instanceof ArrayBuffer && byteOffset === 0 && buffer.byteLength === byteLength
  return isWhole ? new Uint8Array(buffer) : new Uint8Array(chunk)
}

function startWorker(program: URL): DecryptionThread {
  const thread = startThread<Order, Answer>(program, 'decryption', lost)
  const ask = async (order: Order, transfer?: readonly ArrayBuffer[]): Promise<void> => {
    await thread.ask(order, transfer)
  }
  let files = 0
  return {
    open(fd, shown, fileKey, isHashed = false) {
      const id = ++files
      const secrets = fileKey && { key: fileKey.key, iv: fileKey.iv, tag: fileKey.tag }
      // Without an own answer: what is wrong with it, the next steps say, too.
      ask({ do: 'open', id, fd, shown, secrets, isHashed }).catch(() => {})
      return {
        replay: (bytes) => ask({ do: 'replay', id, bytes }),
        write(chunks) {
          const own = chunks.map(ownMemory)
          return ask(
            { do: 'write', id, chunks: own },
            own.map(({ buffer }) => buffer),
          )
        },
        end: async () => (await thread.ask({ do: 'end', id })).sha256,
        // A thread that is gone touches nothing either.
        forget: () => ask({ do: 'forget', id }).catch(() => {}),
      }
    },
    close: thread.close,
  }
}

function openHere(fd: number, shown: string, fileKey: FileKey | undefined, isHashed?: boolean): RemotePlaintextFile {
  const file = openPlaintextFile(fd, shown, fileKey, isHashed)
  return {
    replay: async (bytes) => file.replay(bytes),
    write: async (chunks) => file.write(chunks),
    end: async () => file.end(),
    forget: async () => {},
  }
}
