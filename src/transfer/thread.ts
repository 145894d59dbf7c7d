/**
 * Another thread that carries out orders, and answers each in turn. What it is told and says is known to those who use it.
 * @module
 */
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { type ErrorClass, SyncError, type SyncErrorCode, toSyncError } from '../errors.ts'

/** An answer has an error, or what was asked for. */
export interface Failure {
  readonly error?: {
    readonly class: ErrorClass
    readonly code: SyncErrorCode
    readonly message: string
    readonly hint: string | undefined
  }
}

/** What was thrown over there, for an answer. */
export function failureOf(thrown: unknown): Failure {
  const { class: kind, code, message, hint } = toSyncError(thrown)
  return { error: { class: kind, code, message, hint } }
}

export interface Thread<Order, Answer> {
  /** Orders may be given before earlier ones are done; they are done in the same order. */
  ask(order: Order, transfer?: readonly ArrayBuffer[]): Promise<Answer>
  /** Ends the thread; what it was asked for and has not done is refused. */
  close(): Promise<void>
}

/** The compiled program of that name, where it is beside this one: not in a bundle, nor where the sources run as they are. */
export function programOf(name: string): URL | undefined {
  // A bundle for CommonJS has no URL.
  if (!URL.canParse(import.meta.url ?? '')) return undefined
  const program = new URL(`./${name}.js`, import.meta.url)
  return program.protocol === 'file:' && existsSync(fileURLToPath(program)) ? program : undefined
}

/**
 * Starts a thread. It keeps no process alive while nobody waits for it.
 *
 * @param lost - What is thrown once it has ended.
 */
export function startThread<Order, Answer extends Failure>(
  program: URL,
  name: string,
  lost: (cause: unknown) => SyncError,
): Thread<Order, Answer> {
  const worker = new Worker(program, { name, env: {} })
  const waiting: { resolve(answer: Answer): void; reject(error: unknown): void }[] = []
  let failure: SyncError | undefined

  const fail = (cause: unknown) => {
    failure ??= lost(cause)
    for (const { reject } of waiting.splice(0)) reject(failure)
  }
  worker.on('error', fail)
  worker.on('messageerror', fail)
  worker.on('exit', (code) => fail(new Error(`exit code ${code}`)))
  worker.on('message', (answer: Answer) => {
    const { resolve, reject } = waiting.shift()!
    // One that is waited for keeps the process alive, also when what is waited for is its end.
    if (waiting.length === 0 && failure === undefined) worker.unref()
    if (answer.error === undefined) return resolve(answer)
    const { class: kind, code, message, hint } = answer.error
    reject(new SyncError(kind, code, message, hint === undefined ? {} : { hint }))
  })
  worker.unref()

  return {
    ask(order, transfer = []) {
      if (failure !== undefined) return Promise.reject(failure)
      return new Promise((resolve, reject) => {
        waiting.push({ resolve, reject })
        worker.ref()
        worker.postMessage(order, transfer)
      })
    },
    async close() {
      failure ??= lost(undefined)
      await worker.terminate()
    },
  }
}
