/**
 * A network in one process: a TCP proxy with a one-way delay, a bandwidth that all connections share in each direction, and a
 * window per connection. It counts connections, requests and bytes. There is no loss and no slow start: what is measured is what
 * a client makes of distance, not of congestion control.
 * @module
 */
import { connect, createServer, type Socket } from 'node:net'
import { performance } from 'node:perf_hooks'
import { createRequestCounter } from './request-counter.ts'

export interface Link {
  /** Milliseconds in each direction; making a connection takes two of them, as with TCP. */
  readonly oneWayMs: number
  /** Bytes per second in each direction, over all connections; 0: no limit. */
  readonly bytesPerSecond: number
  /** Most bytes on their way and not acknowledged, per connection and direction. */
  readonly windowBytes: number
}

export interface Counts {
  readonly connections: number
  /** Most connections that were open at once. */
  readonly atOnce: number
  /** Requests in order, as `METHOD PATH`, numbers and long names in paths as `*`. Empty where there is TLS. */
  readonly requests: readonly string[]
  readonly bytesUp: number
  readonly bytesDown: number
  /** Most bytes that were on their way in one direction of one connection. */
  readonly mostInFlight: number
  /** From the first to the last piece of content, which is what comes in large pieces. Milliseconds, for each direction. */
  readonly contentUpMs: number
  readonly contentDownMs: number
}

export interface DelayProxy {
  readonly port: number
  /** For what comes from now on. */
  setLink(link: Link): void
  /** What was counted since the last time. */
  takeCounts(): Counts
  close(): Promise<void>
}

/** Bytes that the link takes from one connection before it is another one's turn. */
const TURN_BYTES = 16 * 1024

interface Mutable {
  connections: number
  atOnce: number
  requests: string[]
  bytesUp: number
  bytesDown: number
  mostInFlight: number
}

const noCounts = (): Mutable => ({
  connections: 0,
  atOnce: 0,
  requests: [],
  bytesUp: 0,
  bytesDown: 0,
  mostInFlight: 0,
})

/** Does things later, in the order in which they were given; there is one timer for all of them. */
function createDelayLine() {
  const pending: { readonly at: number; readonly then: () => void }[] = []
  let timer: NodeJS.Timeout | undefined
  const run = () => {
    timer = undefined
    const now = performance.now()
    while (pending.length > 0 && pending[0]!.at <= now) pending.shift()!.then()
    if (pending.length > 0) timer = setTimeout(run, Math.max(0, pending[0]!.at - now))
  }
  return {
    push(at: number, then: () => void) {
      // A shorter delay than before must not let anything overtake.
      const last = pending.at(-1)?.at ?? 0
      pending.push({ at: Math.max(at, last), then })
      timer ??= setTimeout(run, Math.max(0, at - performance.now()))
    },
    stop: () => clearTimeout(timer),
  }
}

/** One direction of one connection: what waits for the link. */
interface Flow {
  readonly waiting: Buffer[]
  hasEnded: boolean
  deliver(piece: Buffer): void
  end(): void
}

/** One direction of the link: connections take turns on it. */
function createLine(link: () => Link) {
  let content: { readonly from: number; to: number } | undefined
  const turns: Flow[] = []
  const arrivals = createDelayLine()
  let freeAt = 0
  let timer: NodeJS.Timeout | undefined

  function run(): void {
    timer = undefined
    for (;;) {
      const flow = turns[0]
      if (flow === undefined) return
      const now = performance.now()
      const { oneWayMs, bytesPerSecond } = link()
      if (freeAt > now + 1) {
        timer = setTimeout(run, freeAt - now)
        return
      }
      turns.shift()
      const chunk = flow.waiting.shift()
      if (chunk === undefined) {
        if (flow.hasEnded) arrivals.push(freeAt + oneWayMs, flow.end)
        continue
      }
      const piece = chunk.subarray(0, TURN_BYTES)
      if (piece.length < chunk.length) flow.waiting.unshift(chunk.subarray(TURN_BYTES))
      freeAt += bytesPerSecond === 0 ? 0 : (piece.length / bytesPerSecond) * 1000
      if (piece.length === TURN_BYTES) {
        content ??= { from: freeAt, to: freeAt }
        content.to = freeAt
      }
      arrivals.push(freeAt + oneWayMs, () => flow.deliver(piece))
      if (flow.waiting.length > 0 || flow.hasEnded) turns.push(flow)
    }
  }

  return {
    /** Says that a flow has something to send. */
    enter(flow: Flow) {
      // A timer that comes late takes nothing from the bandwidth while something waits.
      if (turns.length === 0) freeAt = Math.max(freeAt, performance.now())
      if (!turns.includes(flow)) turns.push(flow)
      if (timer === undefined) run()
    },
    takeContentMs() {
      const ms = content === undefined ? 0 : content.to - content.from
      content = undefined
      return ms
    },
    stop() {
      clearTimeout(timer)
      arrivals.stop()
    },
  }
}

/**
 * Starts the proxy on a free loopback port.
 *
 * @param targetPort - On loopback, too.
 */
export async function startDelayProxy(targetPort: number, first: Link): Promise<DelayProxy> {
  let link = first
  let counts = noCounts()
  let open = 0
  const sockets = new Set<Socket>()
  const [up, down] = [createLine(() => link), createLine(() => link)]
  const acknowledgements = createDelayLine()

  function carry(from: Socket, to: Socket, side: 'up' | 'down', look: (chunk: Buffer) => void): void {
    const line = side === 'up' ? up : down
    let inFlight = 0
    const flow: Flow = {
      waiting: [],
      hasEnded: false,
      deliver(piece) {
        // Acknowledged when it has been taken in over there.
        to.write(piece, () =>
          acknowledgements.push(performance.now() + link.oneWayMs, () => {
            inFlight -= piece.length
            if (inFlight < link.windowBytes) from.resume()
          }),
        )
      },
      end: () => to.end(),
    }
    from.on('data', (chunk: Buffer) => {
      look(chunk)
      counts[side === 'up' ? 'bytesUp' : 'bytesDown'] += chunk.length
      inFlight += chunk.length
      counts.mostInFlight = Math.max(counts.mostInFlight, inFlight)
      if (inFlight >= link.windowBytes) from.pause()
      flow.waiting.push(chunk)
      line.enter(flow)
    })
    from.on('end', () => {
      flow.hasEnded = true
      line.enter(flow)
    })
  }

  const server = createServer({ pauseOnConnect: true, allowHalfOpen: true }, (client) => {
    counts.connections++
    counts.atOnce = Math.max(counts.atOnce, ++open)
    const target = connect({ port: targetPort, host: '127.0.0.1', allowHalfOpen: true })
    for (const socket of [client, target]) {
      sockets.add(socket)
      socket.setNoDelay(true)
      socket.on('error', () => {})
      socket.on('close', (hasFailed) => {
        sockets.delete(socket)
        // What was cut on one side is cut on the other, when word of it gets there. What has ended goes its way in order.
        if (hasFailed) setTimeout(() => (socket === client ? target : client).destroy(), link.oneWayMs)
      })
    }
    client.on('close', () => open--)
    const counter = createRequestCounter((request) => counts.requests.push(request))
    // The client believes that it is connected at once; what it sends leaves when it would really be.
    setTimeout(() => {
      carry(client, target, 'up', counter)
      carry(target, client, 'down', () => {})
      client.resume()
    }, 2 * link.oneWayMs)
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  const address = server.address()
  return {
    port: typeof address === 'object' && address !== null ? address.port : 0,
    setLink(next) {
      link = next
    },
    takeCounts() {
      const taken = counts
      counts = noCounts()
      counts.atOnce = open
      return { ...taken, contentUpMs: up.takeContentMs(), contentDownMs: down.takeContentMs() }
    },
    async close() {
      up.stop()
      down.stop()
      acknowledgements.stop()
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
