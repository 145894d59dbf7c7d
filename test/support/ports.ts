/** Ports for what cannot choose one itself, or has to come back at the same one. */
import { createServer } from 'node:net'

/** Below the ports that systems hand out, so that no other server or connection of the tests gets one meanwhile. */
const [FIRST, COUNT] = [10_000, 22_000]
/** Each worker of a test run has ports of its own, which it takes one after the other. */
const LANES = 8
const LANE = Math.floor(COUNT / LANES)
const lane = FIRST + (Number(process.env.VITEST_POOL_ID ?? 0) % LANES) * LANE
let next = Math.floor(Math.random() * LANE)

/** A port of 127.0.0.1 that was free a moment ago. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = lane + next
    next = (next + 1) % LANE
    const server = createServer()
    const isFree = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false)).listen(port, '127.0.0.1', () => resolve(true))
    })
    if (!isFree) continue
    await new Promise((resolve) => server.close(resolve))
    return port
  }
}
