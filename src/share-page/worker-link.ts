/**
 * The page's end of the worker. It is started through a policy for Trusted Types that knows one script and no other.
 * @module
 */
import { Failure, type PlainFailure } from './failure.ts'
import type { Answer, Calls, Cancel, Event, Request } from './messages.ts'

/** Name of the worker's file beside this one; put in when the page is built. */
declare const WORKER_FILE: string

interface TrustedTypes {
  createPolicy(name: string, rules: { createScriptURL(url: string): string }): { createScriptURL(url: string): URL }
}

function startWorker(): Worker {
  const address = new URL(WORKER_FILE, import.meta.url).href
  const { trustedTypes } = globalThis as { trustedTypes?: TrustedTypes }
  const policy = trustedTypes?.createPolicy('sealsync-worker', {
    createScriptURL(url) {
      if (url !== address) throw new TypeError('no script of this page')
      return url
    },
  })
  return new Worker(policy?.createScriptURL(address) ?? address, { type: 'module' })
}

interface Waiting {
  resolve(value: unknown): void
  reject(failure: Failure): void
  onEvent(event: Event): void
}

const failed = ({ code, message, retryAfterMs }: PlainFailure): Failure => new Failure(code, message, { retryAfterMs })

export interface CallOptions {
  readonly signal?: AbortSignal
  readonly onEvent?: (event: Event) => void
}

export class WorkerLink {
  readonly #worker = startWorker()
  readonly #waiting = new Map<number, Waiting>()
  #count = 0

  constructor() {
    this.#worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      const one = this.#waiting.get(data.id)
      if ('event' in data) {
        one?.onEvent(data.event)
        return
      }
      this.#waiting.delete(data.id)
      if ('failure' in data) one?.reject(failed(data.failure))
      else one?.resolve(data.value)
    }
    this.#worker.onerror = (event) => {
      event.preventDefault()
      for (const { reject } of this.#waiting.values()) reject(new Failure('BUG', event.message || 'The worker ended'))
      this.#waiting.clear()
    }
  }

  call<Name extends keyof Calls>(
    name: Name,
    args: Parameters<Calls[Name]>,
    { signal, onEvent = () => {} }: CallOptions = {},
  ): Promise<ReturnType<Calls[Name]>> {
    const id = ++this.#count
    const request: Request = { id, name, args }
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as (value: unknown) => void, reject, onEvent })
      this.#worker.postMessage(request)
      const cancel = (): void => this.#worker.postMessage({ cancel: id } satisfies Cancel)
      if (signal?.aborted) cancel()
      else signal?.addEventListener('abort', cancel, { once: true })
    })
  }
}
