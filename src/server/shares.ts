/**
 * Shares: links by which people without an account fetch files, or put them somewhere. Their records, the index by node and the
 * counts in nodes are kept right here, inside units of work; what a link gives is up to the routes.
 * @module
 */
import { createHash, randomInt, timingSafeEqual } from 'node:crypto'
import { dropHolder, SHARE_BASE } from './holders.ts'
import type { NodeRecord, ShareRecord } from './records.ts'
import type { Store, Tx } from './store.ts'

/** Where to write, who does it, and when; what a change of the tree knows, too. */
interface Writing {
  store: Store
  tx: Tx
  userId: number
  now: number
}

type Kind = ShareRecord['kind']
type OfKind<K extends Kind> = Extract<ShareRecord, { kind: K }>

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789'
/** 190 bits. */
const KEY_LENGTH = 32

const newAccessKey = (): string =>
  Array.from({ length: KEY_LENGTH }, () => ALPHABET[randomInt(ALPHABET.length)]).join('')

/** By this the index is looked up: how long that takes says nothing of the key itself. */
const digestOf = (accessKey: string): string => createHash('sha256').update(accessKey).digest('hex')

const countOf = (kind: Kind): 'downloadShares' | 'uploadShares' =>
  kind === 'download' ? 'downloadShares' : 'uploadShares'

function count({ store, tx }: Writing, nodeId: number, kind: Kind, delta: number): void {
  const node = store.nodes.get(nodeId)
  if (node === undefined) return
  const { [countOf(kind)]: before = 0, ...rest } = node
  const after = before + delta
  tx.put(store.nodes, nodeId, after === 0 ? (rest as NodeRecord) : { ...node, [countOf(kind)]: after })
}

/** The share that a link leads to, unless it has run out. Malformed, unknown and revoked keys are all the same. */
export function findShare<K extends Kind>(
  store: Store,
  kind: K,
  accessKey: string,
  now: number,
): { share: OfKind<K>; node: NodeRecord } | undefined {
  const id = store.shareKeys.get(digestOf(accessKey))
  const share = id === undefined ? undefined : store.shares.get(id)
  if (share === undefined || !isSame(share.accessKey, accessKey) || !isOfKind(share, kind)) return undefined
  const node = store.nodes.get(share.nodeId)
  if (node === undefined || hasRunOut(share, now)) return undefined
  return { share, node }
}

export const hasRunOut = ({ expireAt }: ShareRecord, now: number): boolean => expireAt !== undefined && expireAt <= now

export function isOfKind<K extends Kind>(share: ShareRecord, kind: K): share is OfKind<K> {
  return share.kind === kind
}

function isSame(a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a), Buffer.from(b)]
  return left.length === right.length && timingSafeEqual(left, right)
}

type Fresh = ShareRecord extends infer S
  ? S extends ShareRecord
    ? Omit<S, 'id' | 'accessKey' | 'nodeId' | 'createdAt' | 'createdBy' | 'updatedAt' | 'updatedBy' | 'epoch'>
    : never
  : never

export function createShare(writing: Writing, node: NodeRecord, fresh: Fresh): ShareRecord {
  const { store, tx, userId, now } = writing
  const stamps = { createdAt: now, createdBy: userId, updatedAt: now, updatedBy: userId }
  const id = store.nextId(tx, 'share')
  const share: ShareRecord = { ...fresh, ...stamps, id, accessKey: newAccessKey(), nodeId: node.id, epoch: 1 }
  tx.put(store.shares, id, share)
  tx.put(store.shareKeys, digestOf(share.accessKey), id)
  tx.put(store.nodeShares, [node.roomId, node.id, id], 1)
  count(writing, node.id, share.kind, 1)
  return share
}

/** Ids of shares of a node itself, or of a room and all in it, in the order of nodes. */
function idsOf(store: Store, roomId: number, nodeId?: number): { nodeId: number; id: number }[] {
  const range =
    nodeId === undefined
      ? { start: [roomId, 0, 0], end: [roomId + 1, 0, 0] }
      : { start: [roomId, nodeId, 0], end: [roomId, nodeId + 1, 0] }
  return [...store.nodeShares.getKeys(range)].map(([, node, id]) => ({ nodeId: node, id }))
}

/** All shares of a room, of one kind. */
export function sharesIn<K extends Kind>(store: Store, kind: K, roomId: number): OfKind<K>[] {
  return idsOf(store, roomId).flatMap(({ id }) => {
    const share = store.shares.get(id)
    return share !== undefined && isOfKind(share, kind) ? [share] : []
  })
}

export const hasShares = (store: Store, roomId: number): boolean => {
  const [key] = store.nodeShares.getKeys({ start: [roomId, 0, 0], end: [roomId + 1, 0, 0], limit: 1 })
  return key !== undefined
}

/** Rooms in which there are shares, without a walk through all of them. */
export function* roomsWithShares(store: Store): Generator<number> {
  for (let last = 0; ; ) {
    const [next] = [...store.nodeShares.getKeys({ start: [last + 1, 0, 0], limit: 1 })]
    if (next === undefined) return
    last = next[0]
    yield last
  }
}

/** Revokes a share: nothing of it stays but the files that came by it. */
export function removeShare(writing: Writing, share: ShareRecord, roomId: number): void {
  const { store, tx } = writing
  tx.remove(store.shares, share.id)
  tx.remove(store.shareKeys, digestOf(share.accessKey))
  tx.remove(store.nodeShares, [roomId, share.nodeId, share.id])
  const own = { start: [share.id, 0], end: [share.id + 1, 0] }
  for (const key of [...store.received.getKeys(own)]) tx.remove(store.received, key)
  for (const key of [...store.redeemed.getKeys({ start: [share.id, ''], end: [share.id + 1, ''] })]) {
    tx.remove(store.redeemed, key)
  }
  dropHolder(writing, SHARE_BASE + share.id)
  count(writing, share.nodeId, share.kind, -1)
}

function removeAll(writing: Writing, roomId: number, ids: readonly { id: number }[]): void {
  for (const { id } of ids) {
    const share = writing.store.shares.get(id)
    if (share !== undefined) removeShare(writing, share, roomId)
  }
}

/** Revokes the shares of a node, not those of what is in it. */
export function dropShares(writing: Writing, node: NodeRecord): void {
  if (node.downloadShares === undefined && node.uploadShares === undefined) return
  removeAll(writing, node.roomId, idsOf(writing.store, node.roomId, node.id))
}

/** Revokes the shares of a file or folder and of all below it. The room has fewer shares than a folder may have files. */
export function dropSharesBelow(writing: Writing, top: NodeRecord): void {
  const { store } = writing
  const isBelow = (id: number): boolean => {
    for (let at = id; at !== 0 && at !== top.roomId; at = store.nodes.get(at)?.parentId ?? 0) {
      if (at === top.id) return true
    }
    return false
  }
  removeAll(
    writing,
    top.roomId,
    idsOf(store, top.roomId).filter(({ nodeId }) => isBelow(nodeId)),
  )
}

/** Keeps the index right when a node goes to another room. */
export function rehomeShares({ store, tx }: Writing, node: NodeRecord, roomId: number): void {
  if (node.downloadShares === undefined && node.uploadShares === undefined) return
  for (const { id } of idsOf(store, node.roomId, node.id)) {
    tx.remove(store.nodeShares, [node.roomId, node.id, id])
    tx.put(store.nodeShares, [roomId, node.id, id], 1)
  }
}

/** Takes the download shares off a file that is about to be replaced; `attachShares` gives them to what takes its place. */
export function detachShares(writing: Writing, node: NodeRecord): ShareRecord[] {
  const { store, tx } = writing
  const shares = idsOf(store, node.roomId, node.id)
    .map(({ id }) => store.shares.get(id))
    .filter((share) => share?.kind === 'download')
  for (const share of shares) {
    tx.remove(store.nodeShares, [node.roomId, node.id, share.id])
    count(writing, node.id, share.kind, -1)
  }
  return shares
}

/**
 * Gives shares to a file. The file key that a share had goes with it only if it belongs to this very content; else the share stands
 * without one, and gives nothing away, until somebody wraps the new key for it.
 */
export function attachShares(writing: Writing, nodeId: number, shares: readonly ShareRecord[]): void {
  const { store, tx } = writing
  const node = store.nodes.get(nodeId)
  if (node === undefined) return
  const [known] = [...store.fileKeys.getRange({ start: [nodeId, 0, ''], end: [nodeId + 1, 0, ''], limit: 1 })]
  for (const share of shares) {
    const holder = SHARE_BASE + share.id
    const before = [
      ...store.fileKeys.getRange({ start: [share.nodeId, holder, ''], end: [share.nodeId, holder + 1, ''] }),
    ]
    for (const { key, value } of before) {
      if (known === undefined || value.iv !== known.value.iv || value.tag !== known.value.tag) continue
      tx.put(store.fileKeys, [nodeId, holder, key[2]], value)
      tx.put(store.userFileKeys, [holder, key[2], nodeId], 1)
    }
    tx.put(store.shares, share.id, { ...share, nodeId })
    tx.put(store.nodeShares, [node.roomId, nodeId, share.id], 1)
    count(writing, nodeId, share.kind, 1)
  }
}

/** Download tokens that were counted are kept as long as they can come again; of one share so many. */
const MAX_OPEN_TOKENS = 20_000

/** What came of a token that somebody shows. */
export type Redemption = 'good' | 'gone' | 'used-up' | 'too-many'

/** Counts a download, unless this token was counted before. */
export function redeem(
  { store, tx, now }: Pick<Writing, 'store' | 'tx' | 'now'>,
  { id, epoch }: ShareRecord,
  nonce: string,
  lifetimeMs: number,
): Redemption {
  const share = store.shares.get(id)
  if (share?.kind !== 'download' || share.epoch !== epoch || hasRunOut(share, now)) return 'gone'
  if (store.redeemed.doesExist([id, nonce])) return 'good'
  if (isUsedUp(share)) return 'used-up'
  const openTokens = share.openTokens ?? 0
  if (openTokens >= MAX_OPEN_TOKENS) return 'too-many'
  tx.put(store.redeemed, [id, nonce], now + lifetimeMs)
  tx.put(store.shares, id, { ...share, downloads: share.downloads + 1, openTokens: openTokens + 1 })
  return 'good'
}

export const isUsedUp = (share: OfKind<'download'>): boolean =>
  share.maxDownloads !== undefined && share.downloads >= share.maxDownloads

/** Forgets tokens that have run out. */
export async function sweepRedeemed(store: Store, now: number): Promise<void> {
  const old = [...store.redeemed.getRange({})].filter(({ value }) => value < now).map(({ key }) => key)
  if (old.length === 0) return
  await store.write((tx) => {
    for (const key of old) {
      const share = store.redeemed.doesExist(key) ? store.shares.get(key[0]) : undefined
      tx.remove(store.redeemed, key)
      if (share?.kind === 'download') {
        tx.put(store.shares, share.id, { ...share, openTokens: Math.max(0, (share.openTokens ?? 0) - 1) })
      }
    }
  })
}
