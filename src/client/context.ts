/** What the parts of a client share, and small helpers of all of them. @module */
import type { Home } from '../local/home.ts'
import type { RunContext } from '../sync/run.ts'

/** What runs and everything else of one client work with. */
export interface ClientContext extends RunContext {
  readonly home: Home
}

/** Of everything that waits. An abort rejects with `signal.reason`; what the server has done by then stays done. */
export interface Abortable {
  readonly signal?: AbortSignal | undefined
}

export async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of source) all.push(item)
  return all
}
