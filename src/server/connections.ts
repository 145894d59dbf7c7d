/**
 * What a stranger, or one member, may hold of the server: connections, requests whose body is not there yet, and the time
 * they take. One address cannot use up what others need. Counting uploads is uploads.ts.
 * @module
 */
import type { IncomingMessage, Server } from 'node:http'
import type { Socket } from 'node:net'
import { Server as TlsServer } from 'node:tls'
import { ApiError } from './errors.ts'
import { addressOf, type Proxies } from './proxies.ts'

/** How much of a server one address may take, and all together. */
export interface ConnectionLimits {
  /** Connections of all, and of one address. */
  readonly sockets: number
  readonly socketsPerAddress: number
  /** Requests of one address whose body is still on its way. */
  readonly bodiesPerAddress: number
  /** Longest time for a body that is not content: JSON and forms. */
  readonly textMs: number
  /** Content may take any time, but not less than `slowBytes` in this time of waiting for the client. */
  readonly slowMs: number
  readonly slowBytes: number
  /** How often the two are looked at. */
  readonly lookMs: number
}

export const CONNECTION_LIMITS: ConnectionLimits = Object.freeze({
  sockets: 8192,
  socketsPerAddress: 1024,
  bodiesPerAddress: 512,
  textMs: 60_000,
  slowMs: 120_000,
  slowBytes: 120 * 1024,
  lookMs: 5000,
})

/** Counts how many each key has, with a bound. */
export class Shares {
  readonly #most: number
  readonly #counts = new Map<string, number>()

  constructor(most: number) {
    this.#most = most
  }

  /** @returns what gives the amount back, or undefined when it would be too much. */
  take(key: string, amount = 1): (() => void) | undefined {
    const count = (this.#counts.get(key) ?? 0) + amount
    if (count > this.#most) return undefined
    this.#counts.set(key, count)
    return () => {
      const left = (this.#counts.get(key) ?? 0) - amount
      if (left > 0) this.#counts.set(key, left)
      else this.#counts.delete(key)
    }
  }
}

/** Watches the connections of a server. */
export class Connections {
  readonly #limits: ConnectionLimits
  readonly #sockets = new Set<Socket>()
  /** By address, in the order they came; the value counts requests under way. */
  readonly #byAddress = new Map<string, Map<Socket, number>>()
  readonly #bodies: Shares
  readonly #raw: Shares
  readonly #watched = new Set<Body>()
  readonly #timer: NodeJS.Timeout
  readonly #proxies: Proxies

  /** @param proxies - Connections of these are many people's. */
  constructor(limits: ConnectionLimits, proxies: Proxies) {
    this.#limits = limits
    this.#proxies = proxies
    this.#bodies = new Shares(limits.bodiesPerAddress)
    this.#raw = new Shares(limits.socketsPerAddress * 2)
    this.#timer = setInterval(() => this.#look(), limits.lookMs)
    this.#timer.unref()
  }

  attach(server: Server): void {
    server.maxConnections = this.#limits.sockets
    // With TLS there is a socket below the one that requests come from; it goes when that one goes.
    const event = server instanceof TlsServer ? 'secureConnection' : 'connection'
    server.on(event, (socket: Socket) => this.#add(socket))
    if (event === 'secureConnection') server.on('connection', (socket: Socket) => this.#addRaw(socket))
  }

  #add(socket: Socket): void {
    const address = addressOf(socket)
    const own = this.#byAddress.get(address) ?? new Map<Socket, number>()
    this.#byAddress.set(address, own)
    if (own.size >= this.#limits.socketsPerAddress && !this.#proxies.isProxy(socket)) {
      // Whoever waits for nothing makes room.
      const idle = [...own].find(([, requests]) => requests === 0)?.[0] ?? socket
      idle.destroy()
      own.delete(idle)
      if (idle === socket) return
    }
    own.set(socket, 0)
    this.#track(socket)
    socket.setNoDelay(true)
    socket.on('close', () => {
      own.delete(socket)
      if (own.size === 0 && this.#byAddress.get(address) === own) this.#byAddress.delete(address)
    })
  }

  /** Who is still at the handshake cannot make room for others. */
  #addRaw(socket: Socket): void {
    const isProxy = this.#proxies.isProxy(socket)
    const giveBack = isProxy ? () => undefined : this.#raw.take(addressOf(socket))
    if (giveBack === undefined) socket.destroy()
    else {
      socket.on('close', giveBack)
      this.#track(socket)
    }
  }

  #track(socket: Socket): void {
    this.#sockets.add(socket)
    socket.on('close', () => this.#sockets.delete(socket))
  }

  /** Notes a request; returns what ends it. */
  request({ socket }: IncomingMessage): () => void {
    const own = this.#byAddress.get(addressOf(socket))
    const count = (by: number): void => {
      const now = own?.get(socket)
      if (now !== undefined) own?.set(socket, now + by)
    }
    count(1)
    return () => count(-1)
  }

  /**
   * Watches a body until it is there.
   *
   * @throws {ApiError} 429 when the address has too many on their way.
   */
  body(req: IncomingMessage): Body {
    const giveBack = this.#bodies.take(this.#proxies.originOf(req).address)
    if (giveBack === undefined) {
      throw new ApiError(429, undefined, 'Too many requests at once', { 'Retry-After': '5', Connection: 'close' })
    }
    const body = new Body(req, () => {
      giveBack()
      this.#watched.delete(body)
    })
    this.#watched.add(body)
    return body
  }

  #look(): void {
    for (const body of this.#watched) body.look(this.#limits)
  }

  /** Connections that are open, those below TLS not counted. */
  get count(): number {
    let count = 0
    for (const own of this.#byAddress.values()) count += own.size
    return count
  }

  /** Ends all connections. */
  destroy(): void {
    for (const socket of this.#sockets) socket.destroy()
  }

  close(): void {
    clearInterval(this.#timer)
  }
}

/** One body on its way. */
class Body {
  readonly #req: IncomingMessage
  readonly #onEnd: () => void
  /** Text is wanted whole and soon. */
  isText = false
  /** The client has to send now; else it is this server that takes its time. */
  isWaiting = false
  #bytes = 0
  #waitedMs = 0
  #totalMs = 0

  constructor(req: IncomingMessage, onEnd: () => void) {
    this.#req = req
    this.#onEnd = onEnd
  }

  received(bytes: number): void {
    this.#bytes += bytes
  }

  look({ lookMs, textMs, slowMs, slowBytes }: ConnectionLimits): void {
    this.#totalMs += lookMs
    if (this.isWaiting) this.#waitedMs += lookMs
    const isSlow = this.#waitedMs >= slowMs
    if ((this.isText && this.#totalMs >= textMs) || (isSlow && this.#bytes < slowBytes)) this.#req.destroy()
    if (!isSlow) return
    this.#bytes = 0
    this.#waitedMs = 0
  }

  end(): void {
    this.#onEnd()
  }
}

export type WatchedBody = Pick<Body, 'isText' | 'isWaiting' | 'received' | 'end'>
