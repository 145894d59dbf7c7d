/**
 * Upload channels: what a client opened to send one file, and the step that turns it into a node. Channels live in memory
 * and end with the process; a finished upload is durable, and its outcome can be asked for later. The bytes are the
 * business of the storage, HTTP that of the routes.
 * @module
 */
import { randomBytes } from 'node:crypto'
import { Access, CREATE, DELETE } from './access.ts'
import type { BlobStore, FinishedContent, Incoming, Receipt } from './blobs.ts'
import { Shares } from './connections.ts'
import { ApiError, badRequest, forbidden } from './errors.ts'
import { FILE, type FileKeyRecord, type NodeRecord, ROOM } from './records.ts'
import type { Store } from './store.ts'
import { type Change, createNode, settleName } from './tree.ts'
import { type ConflictStrategy, keyVersionOf, MAX_ENCRYPTED_SIZE } from './validate.ts'

const IDLE_MS = 24 * 3_600_000
const OUTCOME_MS = 7 * 86_400_000
const MAX_CHANNELS = 20_000
/** Of one user; the one that was not used for longest makes room for another. */
const MAX_CHANNELS_PER_USER = 1000
const BUSY_MS = 60_000
/** Bodies of content that one user sends at a time. */
const MAX_BODIES_PER_USER = 256

export interface NewUpload {
  userId: number
  parentId: number
  name: string
  size?: number
  direct: boolean
  attributes: Partial<NodeRecord>
}

export interface Channel extends NewUpload {
  id: string
  status: 'transfer' | 'finishing' | 'error'
  error?: ApiError
  lastUsed: number
  incoming: Incoming
  /** Gives back what its user may open. */
  giveBack(): void
}

export interface FinishRequest {
  strategy: ConflictStrategy
  name?: string
  fileKey?: FileKeyRecord
  /** File keys for others, by user id. */
  userKeys: readonly { userId: number; fileKey: FileKeyRecord }[]
}

const notFound = (): ApiError => new ApiError(404, -20501, 'Upload not found')
const closed = (): ApiError => new ApiError(400, -20503, 'Upload channel is closed')

export class Uploads {
  readonly #store: Store
  readonly #blobs: BlobStore
  readonly #now: () => number
  readonly #channels = new Map<string, Channel>()
  readonly #shares = new Shares(MAX_CHANNELS_PER_USER)
  readonly #bodies = new Shares(MAX_BODIES_PER_USER)

  constructor(store: Store, blobs: BlobStore, now: () => number) {
    this.#store = store
    this.#blobs = blobs
    this.#now = now
  }

  /** @throws {ApiError} 400 -90033 when content must go to the object store directly; what that store says. */
  async open(request: NewUpload): Promise<Channel> {
    if (this.#blobs.isDirectOnly && !request.direct) throw badRequest(-90033, 'Direct upload is mandatory')
    // Before the work: others that come meanwhile count it.
    const giveBack = this.#takeShare(request.userId)
    try {
      const id = randomBytes(16).toString('hex')
      const incoming = await this.#blobs.open(id)
      const channel: Channel = { ...request, id, status: 'transfer', lastUsed: this.#now(), incoming, giveBack }
      this.#channels.set(id, channel)
      return channel
    } catch (error) {
      giveBack()
      throw error
    }
  }

  #forget(channel: Channel): void {
    if (this.#channels.delete(channel.id)) channel.giveBack()
  }

  /** @throws {ApiError} 429 when there are too many open uploads, and all are in use. */
  #takeShare(userId: number): () => void {
    for (;;) {
      const isFull = this.#channels.size >= MAX_CHANNELS
      const giveBack = isFull ? undefined : this.#shares.take(String(userId))
      if (giveBack !== undefined) return giveBack
      let oldest: Channel | undefined
      for (const channel of this.#channels.values()) {
        const isIdle = channel.status !== 'finishing' && channel.lastUsed + BUSY_MS < this.#now()
        if (!isIdle || channel.userId !== userId) continue
        if (oldest === undefined || channel.lastUsed < oldest.lastUsed) oldest = channel
      }
      if (oldest === undefined) throw new ApiError(429, undefined, 'Too many open uploads', { 'Retry-After': '5' })
      this.cancel(oldest)
    }
  }

  /** A channel that can still take bytes. Finished ones answer 400, unknown ones 404. */
  get(id: string, userId?: number): Channel {
    const channel = this.find(id, userId)
    if (channel !== undefined && channel.status !== 'finishing') return channel
    if (channel !== undefined || this.outcome(id, userId) !== undefined) throw closed()
    throw notFound()
  }

  find(id: string, userId?: number): Channel | undefined {
    const channel = this.#channels.get(id)
    if (channel === undefined || (userId !== undefined && channel.userId !== userId)) return undefined
    channel.lastUsed = this.#now()
    return channel
  }

  /** Id of the node that a finished upload became. */
  outcome(id: string, userId?: number): number | undefined {
    const finished = this.#store.finished.get(id)
    if (finished === undefined || (userId !== undefined && finished.userId !== userId)) return undefined
    return finished.nodeId
  }

  cancel(channel: Channel): void {
    this.#forget(channel)
    // A commit that failed only afterwards may have made it a node.
    if (!this.#store.contents.doesExist(channel.id)) channel.incoming.discard()
  }

  #isOpen(channel: Channel): boolean {
    return this.#channels.get(channel.id) === channel && channel.status !== 'finishing'
  }

  /** Takes one part of a direct upload at a URL of this server. Answers its ETag without quotes. */
  async putPart(channel: Channel, number: number, body: AsyncIterable<Uint8Array>): Promise<string> {
    return (await this.#receive(channel, () => channel.incoming.putPart(number, body, () => this.#isOpen(channel)))).md5
  }

  /** Takes one chunk of a classic upload; see `Incoming.putChunk`. */
  putChunk(channel: Channel, start: number | undefined, body: AsyncIterable<Uint8Array>): Promise<Receipt> {
    return this.#receive(channel, () => channel.incoming.putChunk(start, body, () => this.#isOpen(channel)))
  }

  async #receive<T>(channel: Channel, work: () => Promise<T>): Promise<T> {
    const giveBack = this.#bodies.take(String(channel.userId))
    if (giveBack === undefined) throw new ApiError(429, undefined, 'Too much at once', { 'Retry-After': '1' })
    try {
      return await work()
    } finally {
      giveBack()
    }
  }

  /**
   * Turns a channel into a node. Resolves once the node is durable. When it is refused, the channel stays open, so that
   * the client can finish it differently.
   *
   * @param collect - Makes content of what has been received.
   */
  async finish(
    channel: Channel,
    collect: (incoming: Incoming) => Promise<FinishedContent>,
    request: FinishRequest,
  ): Promise<number> {
    channel.status = 'finishing'
    try {
      const content = await collect(channel.incoming)
      const nodeId = await this.#store.write((tx) => {
        const now = this.#now()
        const change: Change = { store: this.#store, blobs: this.#blobs, tx, userId: channel.userId, now }
        const id = commitUpload(change, channel, content, request)
        channel.incoming.claim(tx, content)
        return id
      })
      this.#forget(channel)
      return nodeId
    } catch (error) {
      channel.status = 'transfer'
      throw error
    }
  }

  /** Drops channels that nobody has used for a day, and forgets old outcomes. */
  async sweep(): Promise<void> {
    const now = this.#now()
    for (const channel of this.#channels.values()) {
      if (channel.status !== 'finishing' && channel.lastUsed + IDLE_MS < now) this.cancel(channel)
    }
    const old = [...this.#store.finished.getRange({})].filter(({ value }) => value.finishedAt + OUTCOME_MS < now)
    if (old.length === 0) return
    await this.#store.write((tx) => {
      for (const { key } of old) tx.remove(this.#store.finished, key)
    })
  }
}

function commitUpload(change: Change, channel: Channel, content: FinishedContent, request: FinishRequest): number {
  const { store, tx, userId, now } = change
  const access = new Access(store, userId)
  const parent = access.find(channel.parentId)
  if (parent === undefined || parent.type === FILE) throw new ApiError(404, -40000, 'Container not found')
  access.require(parent, CREATE)
  if (parent.encrypted) checkKeys(store, userId, content.size, request)
  checkQuota(store, parent, content.size)
  let replaced: NodeRecord | undefined
  const name = settleName(change, parent.id, request.name ?? channel.name, FILE, request.strategy, (existing) => {
    if ((access.bits(existing.roomId) & DELETE) === 0) throw forbidden()
    replaced = existing
  })
  const node = createNode(change, {
    ...channel.attributes,
    type: FILE,
    name,
    parentId: parent.id,
    encrypted: parent.encrypted,
    size: content.size,
    contentId: channel.id,
    ...(replaced === undefined ? {} : { referenceId: replaced.referenceId ?? replaced.id }),
    ...(content.hash === undefined ? {} : { hash: content.hash }),
  })
  tx.put(store.contents, channel.id, { segments: content.segments, size: content.size, refs: 1 })
  if (parent.encrypted && request.fileKey !== undefined) {
    putFileKey(change, node.id, userId, request.fileKey)
    for (const entry of request.userKeys) {
      if (entry.userId !== userId && store.users.doesExist(entry.userId)) {
        putFileKey(change, node.id, entry.userId, entry.fileKey)
      }
    }
  }
  tx.put(store.finished, channel.id, { userId, nodeId: node.id, finishedAt: now })
  return node.id
}

function checkKeys(store: Store, userId: number, size: number, request: FinishRequest): void {
  if (request.fileKey === undefined) throw badRequest(-40763, 'File key must be set')
  if (size > MAX_ENCRYPTED_SIZE) throw badRequest(-80037, 'File is too long for encryption')
  if (!store.keyPairs.doesExist([userId, keyVersionOf(request.fileKey.version)])) {
    throw badRequest(-80062, 'File key fits no key pair of the user')
  }
}

/** Answers 507 when `size` more bytes would exceed the quota of a room on the way up. */
export function checkQuota(store: Store, container: NodeRecord, size: number): void {
  for (let id = container.id; id !== 0; ) {
    const node = store.nodes.get(id)
    if (node === undefined) return
    if (node.type === ROOM && node.quota !== undefined && node.quota > 0 && node.size + size > node.quota) {
      throw new ApiError(507, -40200, 'Exceeds the quota of the room')
    }
    id = node.parentId
  }
}

/** Stores a wrapped file key for a recipient, unless there is one already. */
export function putFileKey(change: Change, fileId: number, userId: number, fileKey: FileKeyRecord): void {
  const { store, tx } = change
  const version = keyVersionOf(fileKey.version)
  if (store.fileKeys.doesExist([fileId, userId, version])) return
  tx.put(store.fileKeys, [fileId, userId, version], fileKey)
  tx.put(store.userFileKeys, [userId, version, fileId], 1)
}
