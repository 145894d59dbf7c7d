/**
 * One request as handlers see it, and the answers they give. Reads bodies with their limits; carries no policy beyond
 * "who is calling".
 * @module
 */
import type { IncomingMessage } from 'node:http'
import { Access } from './access.ts'
import type { BlobStore } from './blobs.ts'
import type { Shares, WatchedBody } from './connections.ts'
import { ApiError, badRequest, nodeNotFound, unauthorized } from './errors.ts'
import type { Grants } from './grants.ts'
import type { ListingCache } from './listing.ts'
import type { LoginLimits } from './login-limits.ts'
import type { NodeRecord, UserRecord } from './records.ts'
import type { SharePasswords } from './share-passwords.ts'
import type { Signer } from './signing.ts'
import type { Store, Tx } from './store.ts'
import type { Change } from './tree.ts'
import type { Uploads } from './uploads.ts'
import { asFields, type Fields, parseId, parseJson } from './validate.ts'

const MAX_JSON = 16 * 1024 * 1024
const MAX_FORM = 64 * 1024

/** What handlers work with; one per server. */
export interface App {
  store: Store
  blobs: BlobStore
  grants: Grants
  logins: LoginLimits
  sharePasswords: SharePasswords
  /** Archives that are being made, by who wants them. */
  archives: Shares
  /** Bytes of JSON and forms that are held, by who sent them. */
  texts: Shares
  uploads: Uploads
  signer: Signer
  listings: ListingCache
  storage: 'classic' | 's3'
  /** Lifetime of download URLs. */
  downloadUrlLifetimeS: number
  now(): number
  /** Why no more requests should come, if so. */
  unready(): string | undefined
  /** For what the operator should know and no answer can say. */
  onError(error: unknown): void
}

export interface Reply {
  status: number
  headers?: Record<string, string | number>
  /** Sent as JSON. */
  json?: unknown
  body?: string | Uint8Array
  /** Sent as it comes; without `Content-Length` among the headers, in pieces. */
  stream?: AsyncIterable<Uint8Array>
}

export type Handler = (call: Call) => Reply | Promise<Reply>

/** `METHOD /path` to handler. */
export type RouteTable = Readonly<Record<string, Handler>>

export const ok = (json: unknown): Reply => ({ status: 200, json })
export const created = (json: unknown): Reply => ({ status: 201, json })
export const noContent = (): Reply => ({ status: 204 })

export class Call {
  readonly app: App
  readonly method: string
  readonly path: string
  readonly query: URLSearchParams
  readonly params: Readonly<Record<string, string>>
  readonly headers: IncomingMessage['headers']
  /** Scheme and host as the client wrote them, without a slash at the end. */
  readonly baseUrl: string
  /** Where the request comes from; see addressOf. */
  readonly address: string
  /** The request body; can be read once. */
  readonly body: AsyncIterable<Uint8Array>
  readonly #watch: Pick<WatchedBody, 'isText'>
  #access: Access | undefined
  #user: UserRecord | undefined

  constructor(
    app: App,
    request: {
      method: string
      path: string
      query: URLSearchParams
      params: Readonly<Record<string, string>>
      headers: IncomingMessage['headers']
      baseUrl: string
      address: string
      body: AsyncIterable<Uint8Array>
      watch: Pick<WatchedBody, 'isText'>
    },
  ) {
    this.app = app
    this.method = request.method
    this.path = request.path
    this.query = request.query
    this.params = request.params
    this.headers = request.headers
    this.baseUrl = request.baseUrl
    this.address = request.address
    this.body = request.body
    this.#watch = request.watch
  }

  /** The caller; 401 without a good bearer token. */
  get user(): UserRecord {
    if (this.#user !== undefined) return this.#user
    const match = /^Bearer +([A-Za-z0-9._~+/=-]+)$/i.exec(this.headers.authorization ?? '')
    const user = match?.[1] === undefined ? undefined : this.app.grants.userOf(match[1])
    if (user === undefined) throw unauthorized()
    this.#user = user
    return user
  }

  /** The caller, if somebody has asked for it. */
  get resolvedUser(): UserRecord | undefined {
    return this.#user
  }

  /** The caller, if there is a good login. */
  get knownUser(): UserRecord | undefined {
    if (this.#user === undefined && this.headers.authorization === undefined) return undefined
    try {
      return this.user
    } catch (error) {
      if (error instanceof ApiError) return undefined
      throw error
    }
  }

  /** The caller's rights, as of the start of the request. */
  get access(): Access {
    this.#access ??= new Access(this.app.store, this.user.id)
    return this.#access
  }

  param(name: string): string {
    return this.params[name] ?? ''
  }

  /** An id from the path. What is no id cannot name a node. */
  id(name = 'id', notFound = nodeNotFound): number {
    const id = parseId(this.param(name))
    if (id === undefined) throw notFound()
    return id
  }

  /** An id from the query, undefined when absent. */
  queryId(name: string): number | undefined {
    const text = this.query.get(name)
    if (text === null || text === '') return undefined
    const id = parseId(text)
    if (id === undefined) throw badRequest(-80001, `Invalid ${name}`)
    return id
  }

  /** Runs a change of the tree as the caller, with rights as of that moment. */
  change<T>(work: (change: Change, access: Access) => T): Promise<T> {
    const { store, blobs } = this.app
    const userId = this.user.id
    const { address } = this
    return store.write((tx: Tx) =>
      work({ store, blobs, tx, userId, now: this.app.now(), address }, new Access(store, userId)),
    )
  }

  /** The node named in the path, if the caller may see it. */
  node(): NodeRecord {
    return this.access.node(this.id())
  }

  async #text(limit: number): Promise<string> {
    this.#watch.isText = true
    const chunks: Uint8Array[] = []
    const shares: (() => void)[] = []
    let size = 0
    const owner = this.#user === undefined ? this.address : `user ${this.#user.id}`
    try {
      for await (const chunk of this.body) {
        size += chunk.length
        if (size > limit) throw new ApiError(413, undefined, 'Body is too large')
        const giveBack = this.app.texts.take(owner, chunk.length)
        if (giveBack === undefined) throw new ApiError(429, undefined, 'Too much at once', { 'Retry-After': '5' })
        shares.push(giveBack)
        chunks.push(chunk)
      }
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: false }).decode(Buffer.concat(chunks))
    } catch (error) {
      if (error instanceof TypeError) throw badRequest(undefined, 'Body is not UTF-8')
      throw error
    } finally {
      for (const giveBack of shares) giveBack()
    }
  }

  /** The JSON object in the body; without one, an empty object where the body is optional. */
  async json(presence: 'needed' | 'optional' = 'needed'): Promise<Fields> {
    const text = await this.#text(MAX_JSON)
    if (text === '' && presence === 'optional') return {}
    if (text === '') throw badRequest(-80000, 'Body is missing')
    return asFields(parseJson(text))
  }

  /** The fields of a form body. */
  async form(): Promise<URLSearchParams> {
    return new URLSearchParams(await this.#text(MAX_FORM))
  }
}
