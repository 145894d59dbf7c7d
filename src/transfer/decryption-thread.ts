/**
 * A thread that decrypts and writes large files while this one receives. It is given the memory that was received into, and does
 * what it is asked for in order. The other side is decryption-worker.ts.
 * @module
 */
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import type { FileKey } from '../../crypto/index.ts'
import { type ErrorClass, SyncError } from '../errors.ts'
import { openPlaintextFile } from './plaintext-file.ts'

/** What the thread is asked to do; each order has one answer, in the same order. */
export type Order = { readonly id: number } & (
  | {
      readonly do: 'open'
      readonly fd: number
      readonly shown: string
      readonly secrets: { readonly key: Uint8Array; readonly iv: Uint8Array; readonly tag: Uint8Array } | undefined
    }
  | { readonly do: 'replay'; readonly bytes: number }
  | { readonly do: 'write'; readonly chunks: readonly Uint8Array[] }
  | { readonly do: 'end' | 'forget' }
)

export interface Answer {
  readonly error?: {
    readonly class: ErrorClass
    readonly code: string
    readonly message: string
    readonly hint: string | undefined
  }
}

/** A `PlaintextFile` that is worked on elsewhere. Steps may be asked for before the last one is done. */
export interface RemotePlaintextFile {
  replay(bytes: number): Promise<void>
  /** @param chunks - Given away: they are empty afterwards. */
  write(chunks: readonly Uint8Array[]): Promise<void>
  end(): Promise<void>
  /** When it resolves, nothing touches the file any more, and its key is wiped there. */
  forget(): Promise<void>
}

export interface DecryptionThread {
  /** As `openPlaintextFile`; the key is copied. The file must stay open until `forget` has resolved. */
  open(fd: number, shown: string, fileKey: FileKey | undefined): RemotePlaintextFile
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
  const program = new URL('./decryption-worker.js', import.meta.url)
  const isThere = program.protocol === 'file:' && existsSync(fileURLToPath(program))
  return isThere ? startWorker(program) : { open: openHere, close: async () => {} }
}

/** The chunk itself where it is all of its memory, as most that come from a socket are, else a copy. */
function ownMemory(chunk: Uint8Array): Uint8Array<ArrayBuffer> {
  const { buffer, byteOffset, byteLength } = chunk
  const isWhole = buffer instanceof ArrayBuffer && byteOffset === 0 && buffer.byteLength === byteLength
  return isWhole ? new Uint8Array(buffer) : new Uint8Array(chunk)
}

function startWorker(program: URL): DecryptionThread {
  const worker = new Worker(program, { name: 'decryption', env: {} })
  const waiting: { resolve(): void; reject(error: unknown): void }[] = []
  let failure: SyncError | undefined
  let files = 0

  const fail = (cause: unknown) => {
    failure ??= lost(cause)
    for (const { reject } of waiting.splice(0)) reject(failure)
  }
  worker.on('error', fail)
  worker.on('messageerror', fail)
  worker.on('exit', (code) => fail(new Error(`exit code ${code}`)))
  worker.on('message', ({ error }: Answer) => {
    const { resolve, reject } = waiting.shift()!
    // An idle thread keeps no process alive, one that is waited for does.
    if (waiting.length === 0) worker.unref()
    if (error === undefined) return resolve()
    const { class: kind, code, message, hint } = error
    reject(new SyncError(kind, code, message, hint === undefined ? {} : { hint }))
  })
  worker.unref()

  function ask(order: Order, transfer: readonly ArrayBuffer[] = []): Promise<void> {
    if (failure !== undefined) return Promise.reject(failure)
    return new Promise((resolve, reject) => {
      waiting.push({ resolve, reject })
      worker.ref()
      worker.postMessage(order, transfer)
    })
  }

  return {
    open(fd, shown, fileKey) {
      const id = ++files
      const secrets = fileKey && { key: fileKey.key, iv: fileKey.iv, tag: fileKey.tag }
      // Without an own answer: what is wrong with it, the next steps say, too.
      ask({ do: 'open', id, fd, shown, secrets }).catch(() => {})
      return {
        replay: (bytes) => ask({ do: 'replay', id, bytes }),
        write(chunks) {
          const own = chunks.map(ownMemory)
          return ask(
            { do: 'write', id, chunks: own },
            own.map(({ buffer }) => buffer),
          )
        },
        end: () => ask({ do: 'end', id }),
        // A thread that is gone touches nothing either.
        forget: () => ask({ do: 'forget', id }).catch(() => {}),
      }
    },
    async close() {
      failure ??= lost(undefined)
      await worker.terminate()
    },
  }
}

function openHere(fd: number, shown: string, fileKey: FileKey | undefined): RemotePlaintextFile {
  const file = openPlaintextFile(fd, shown, fileKey)
  return {
    replay: async (bytes) => file.replay(bytes),
    write: async (chunks) => file.write(chunks),
    end: async () => file.end(),
    forget: async () => {},
  }
}
