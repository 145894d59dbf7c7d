/** A network of one's own between a program and a server on loopback, in a process of its own: programs/delay-proxy.ts. @module */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Counts, Link } from './server/delay-proxy.ts'

export type { Counts, Link }

export interface Network {
  readonly port: number
  /** Changes the link for what comes from now on; resolves to what was counted since the last change. */
  set(link?: Partial<Link>): Promise<Counts>
  close(): Promise<void>
}

/** No delay, no limit. */
export const NEAR: Link = { oneWayMs: 0, bytesPerSecond: 0, windowBytes: 2 ** 20 }

/** @param targetPort - Of the server, on loopback. */
export async function startNetwork(targetPort: number): Promise<Network> {
  const program = join(process.env.BENCH_PROGRAMS ?? '.', 'delay-proxy.mjs')
  const child = spawn(process.execPath, [program, String(targetPort)], { stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const next = async (): Promise<string> => {
    const { value, done } = await lines.next()
    if (done === true) throw new Error('the delay proxy has ended')
    return value
  }
  return {
    port: Number(await next()),
    async set(link = {}) {
      child.stdin.write(`${JSON.stringify(link)}\n`)
      return JSON.parse(await next()) as Counts
    },
    async close() {
      child.stdin.end()
      if (child.exitCode === null) await once(child, 'exit')
    },
  }
}
