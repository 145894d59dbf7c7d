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
import { isShareHolder, SHARE_BASE } from './holders.ts'
import { FILE, type FileKeyRecord, type NodeRecord, ROOM, type ShareRecord } from './records.ts'
import { attachShares, detachShares, hasRunOut } from './shares.ts'
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

/** Of one file request, of one visitor of it, and of all file requests together. */
const MAX_CHANNELS_PER_REQUEST = 256
const MAX_CHANNELS_PER_VISITOR = 32
const MAX_VISITOR_CHANNELS = 5000
/** Visitors come back after a reload, but not the day after. */
const VISITOR_IDLE_MS = 6 * 3_600_000
/** Beside twice the size: what is sent again counts again. */
const SLACK = 64 * 1024 * 1024
/** How much may come between two looks at the disk. */
const LOOK_BYTES = 64 * 1024 * 1024

/** A channel that was opened by a file request. */
export interface Visit {
  address: string
  /** Most bytes of content. */
  limit: number
}

export interface NewUpload {
  /** Or the holder id of a file request. */
  userId: number
  visit?: Visit
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
  /** Bytes that came so far. */
  received: number
  /** Visitors: sizes for which URLs were given, by part, and their sum. */
  announced: Map<number, number>
  announcedBytes: number
  /** Gives back what its user may open. */
  giveBack(): void
}

export interface FinishRequest {
  strategy: ConflictStrategy
  /** Links to a file that is replaced lead to the new one. */
  keepShareLinks?: boolean
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
  readonly #reserveBytes: number
  readonly #channels = new Map<string, Channel>()
  readonly #shares = new Shares(MAX_CHANNELS_PER_USER)
  readonly #requests = new Shares(MAX_CHANNELS_PER_REQUEST)
  readonly #visitors = new Shares(MAX_CHANNELS_PER_VISITOR)
  readonly #visits = new Shares(MAX_VISITOR_CHANNELS)
  readonly #bodies = new Shares(MAX_BODIES_PER_USER)

  /** @param reserveBytes - That visitors leave free on the disk. */
  constructor(store: Store, blobs: BlobStore, now: () => number, reserveBytes: number) {
    this.#reserveBytes = reserveBytes
    this.#store = store
    this.#blobs = blobs
    this.#now = now
  }

  /** @throws {ApiError} 400 -90033 when content must go to the object store directly; what that store says. */
  async open(request: NewUpload): Promise<Channel> {
    if (this.#blobs.isDirectOnly && !request.direct) throw badRequest(-90033, 'Direct upload is mandatory')
    // Before the work: others that come meanwhile count it.
    const giveBack = this.#makeRoom(request)
    try {
      const id = randomBytes(16).toString('hex')
      const incoming = await this.#blobs.open(id)
      const fresh = { received: 0, announced: new Map<number, number>(), announcedBytes: 0 }
      const channel: Channel = {
        ...request,
        id,
        status: 'transfer',
        lastUsed: this.#now(),
        incoming,
        ...fresh,
        giveBack,
      }
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
  #makeRoom(request: NewUpload): () => void {
    for (;;) {
      const giveBack = this.#channels.size >= MAX_CHANNELS ? undefined : this.#take(request)
      if (giveBack !== undefined) return giveBack
      let oldest: Channel | undefined
      for (const channel of this.#channels.values()) {
        const isIdle = channel.status !== 'finishing' && channel.lastUsed + BUSY_MS < this.#now()
        // A visitor makes room for nobody but themselves.
        const isOwn = channel.userId === request.userId && channel.visit?.address === request.visit?.address
        if (!isIdle || !isOwn) continue
        if (oldest === undefined || channel.lastUsed < oldest.lastUsed) oldest = channel
      }
      if (oldest === undefined) throw new ApiError(429, undefined, 'Too many open uploads', { 'Retry-After': '5' })
      this.cancel(oldest)
    }
  }

  #take({ userId, visit }: NewUpload): (() => void) | undefined {
    if (visit === undefined) return this.#shares.take(String(userId))
    const taken: (() => void)[] = []
    const giveAllBack = (): void => {
      for (const giveBack of taken) giveBack()
    }
    for (const [shares, key] of [
      [this.#visits, ''],
      [this.#requests, String(userId)],
      [this.#visitors, `${userId} ${visit.address}`],
    ] as const) {
      const giveBack = shares.take(key)
      if (giveBack === undefined) {
        giveAllBack()
        return undefined
      }
      taken.push(giveBack)
    }
    return giveAllBack
  }

  /** Ids of the contents that are being written. */
  openIds(): string[] {
    return [...this.#channels.keys()]
  }

  /** Whether an upload under way writes the content with this id. */
  isOpen(id: string): boolean {
    return this.#channels.has(id)
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
    // Its addresses need no login, so an account that is disabled has to end it.
    if (this.#store.users.get(channel.userId)?.disabledAt !== undefined) {
      if (channel.status !== 'finishing') this.cancel(channel)
      return undefined
    }
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
    return (
      await this.#receive(channel, () =>
        channel.incoming.putPart(number, this.#counted(channel, body), () => this.#isOpen(channel)),
      )
    ).md5
  }

  /** Takes one chunk of a classic upload; see `Incoming.putChunk`. */
  putChunk(channel: Channel, start: number | undefined, body: AsyncIterable<Uint8Array>): Promise<Receipt> {
    return this.#receive(channel, () =>
      channel.incoming.putChunk(start, this.#counted(channel, body), () => this.#isOpen(channel)),
    )
  }

  /** Bytes of a body, as far as the channel may take them. */
  async *#counted(channel: Channel, body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    const { visit } = channel
    let size = 0
    let looked = Number.NEGATIVE_INFINITY
    for await (const chunk of body) {
      if (visit !== undefined && size - looked >= LOOK_BYTES) {
        this.#checkVisit(channel)
        await this.checkDisk(0)
        looked = size
      }
      size += chunk.length
      channel.received += chunk.length
      if (visit !== undefined && (size > visit.limit || channel.received > 2 * visit.limit + SLACK)) {
        throw new ApiError(507, -50504, 'Exceeds the size of this upload')
      }
      yield chunk
    }
  }

  /** @throws {ApiError} 404 when the file request has ended. */
  #checkVisit({ userId }: Channel): void {
    const share = this.#store.shares.get(userId - SHARE_BASE)
    if (share === undefined || hasRunOut(share, this.#now()))
      throw new ApiError(404, -50501, 'Upload access key not found')
  }

  /** @throws {ApiError} 507 when so many bytes more would leave too little of the disk. */
  async checkDisk(bytes: number): Promise<void> {
    const free = await this.#blobs.freeBytes()
    if (free !== undefined && free - bytes < this.#reserveBytes) {
      throw new ApiError(507, -90201, 'Exceeds the free disk space')
    }
  }

  /** @throws {ApiError} 507 when URLs were given for more than the channel may take. */
  announce(channel: Channel, part: number, size: number): void {
    const { visit, announced } = channel
    if (visit === undefined) return
    const before = announced.get(part) ?? 0
    const after = Math.max(size, before)
    announced.set(part, after)
    channel.announcedBytes += after - before
    if (size > visit.limit || channel.announcedBytes > 2 * visit.limit + SLACK) {
      throw new ApiError(507, -50504, 'Exceeds the size of this upload')
    }
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
   * @param commit - Makes the node, inside the unit of work.
   */
  async finish(
    channel: Channel,
    collect: (incoming: Incoming) => Promise<FinishedContent>,
    request: FinishRequest,
    commit: Commit = commitUpload,
  ): Promise<number> {
    channel.status = 'finishing'
    try {
      const content = await collect(channel.incoming)
      const nodeId = await this.#store.write((tx) => {
        const now = this.#now()
        const change: Change = { store: this.#store, blobs: this.#blobs, tx, userId: channel.userId, now }
        const id = commit(change, channel, content, request)
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

  /** Drops channels that nobody has used for long, and forgets old outcomes. */
  async sweep(): Promise<void> {
    const now = this.#now()
    for (const channel of this.#channels.values()) {
      const idleMs = channel.visit === undefined ? IDLE_MS : VISITOR_IDLE_MS
      const isOrphan = channel.visit !== undefined && !this.#store.shares.doesExist(channel.userId - SHARE_BASE)
      if (channel.status !== 'finishing' && (isOrphan || channel.lastUsed + idleMs < now)) this.cancel(channel)
    }
    const old = [...this.#store.finished.getRange({})].filter(({ value }) => value.finishedAt + OUTCOME_MS < now)
    if (old.length === 0) return
    await this.#store.write((tx) => {
      for (const { key } of old) tx.remove(this.#store.finished, key)
    })
  }
}

/** Makes a node of content that has come, and answers its id. */
export type Commit = (change: Change, channel: Channel, content: FinishedContent, request: FinishRequest) => number

function commitUpload(change: Change, channel: Channel, content: FinishedContent, request: FinishRequest): number {
  const { store, tx, userId, now } = change
  const access = new Access(store, userId)
  const parent = access.find(channel.parentId)
  if (parent === undefined || parent.type === FILE) throw new ApiError(404, -40000, 'Container not found')
  access.require(parent, CREATE)
  if (parent.encrypted) checkKeys(store, userId, content.size, request)
  checkQuota(store, parent, content.size)
  let replaced: NodeRecord | undefined
  let kept: ShareRecord[] = []
  const name = settleName(change, parent.id, request.name ?? channel.name, FILE, request.strategy, (existing) => {
    if ((access.bits(existing.roomId) & DELETE) === 0) throw forbidden()
    if (request.keepShareLinks === true) kept = detachShares(change, existing)
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
  if (parent.encrypted && request.fileKey !== undefined) putFileKey(change, node.id, userId, request.fileKey)
  attachShares(change, node.id, kept)
  if (parent.encrypted) {
    for (const entry of request.userKeys) {
      if (entry.userId !== userId && isRecipient(store, node.id, entry)) {
        putFileKey(change, node.id, entry.userId, entry.fileKey)
      }
    }
  }
  tx.put(store.finished, channel.id, { userId, nodeId: node.id, finishedAt: now })
  return node.id
}

/** Whether keys that come along are kept: for users, and for shares that lead to this file. */
function isRecipient(store: Store, nodeId: number, { userId, fileKey }: FinishRequest['userKeys'][number]): boolean {
  if (!isShareHolder(userId)) return store.users.doesExist(userId)
  const isOfFile = store.shares.get(userId - SHARE_BASE)?.nodeId === nodeId
  return isOfFile && store.keyPairs.doesExist([userId, keyVersionOf(fileKey.version)])
}

function checkKeys(store: Store, userId: number, size: number, request: FinishRequest): void {
  if (request.fileKey === undefined) throw badRequest(-40763, 'File key must be set')
  if (size > MAX_ENCRYPTED_SIZE) throw badRequest(-80037, 'File is too long for encryption')
  if (!store.keyPairs.doesExist([userId, keyVersionOf(request.fileKey.version)])) {
    throw badRequest(-80062, 'File key fits no key pair of the user')
  }
  const { iv, tag } = request.fileKey
  if (request.userKeys.some(({ fileKey }) => fileKey.iv !== iv || fileKey.tag !== tag)) {
    throw badRequest(-80062, 'File keys belong to different content')
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
