/**
 * Looks at a data directory: the file of the metadata, every record, whether content and metadata belong together, and whether all content
 * is there. Beside a server that runs, which has looked at that file, it reads what is committed. Changes nothing, but for the marks when
 * told to adopt, and the place of files that nothing refers to when told to repair.
 * @module
 */
import { SyncError } from '../../crypto/errors.ts'
import { pathOf } from './admin/paths.ts'
import { askServer, NoAdminSocket } from './admin/socket.ts'
import { BlobFiles } from './blob-files.ts'
import { checkDataFile, DataFileError } from './data-file.ts'
import { DiskBlobs, usesFiles } from './disk-blobs.ts'
import { beginGeneration, checkPlace, identityOf } from './identity.ts'
import { takeInstanceLock } from './instance-lock.ts'
import { type Mark, type Place, storeLost } from './mark.ts'
import { FILE, type NodeRecord } from './records.ts'
import type { S3Options } from './s3/client.ts'
import { keyOf, ObjectStore } from './s3/objects.ts'
import { Signer } from './signing.ts'
import { dataFileOf, openStore, type Store, sizeOfFile, usesObjects } from './store.ts'
import { isWhole, Table } from './table.ts'
import { usageOf } from './tree.ts'

/** What of a store is checked. */
export interface CheckOptions {
  /** The object store that content is in, if it is. */
  s3?: S3Options
  /** Also reads all files of content, and compares them with their checksums. */
  readContent?: boolean
  /** Takes metadata and content for belonging together from now on. Nothing is deleted for at least 48 hours. */
  adopt?: boolean
  /** Moves files of content aside that nothing refers to. Deletes nothing. */
  repair?: boolean
}

/** One thing that is wrong. */
export interface StoreProblem {
  /**
   * `metadata`: the file, or records in it. `place`: content and metadata do not belong together. `tree`: records contradict.
   * `content`: content is gone or damaged.
   */
  kind: 'metadata' | 'place' | 'tree' | 'content'
  code: string
  message: string
  /** Paths of the files that cannot be read, for content. */
  paths?: string[]
}

/** What was found in a store. */
export interface StoreReport {
  /** Identity; absent when the metadata cannot be read. */
  store?: string
  generation?: number
  records: number
  files: number
  /** Contents that files refer to, and their bytes. */
  contents: number
  bytes: number
  /** Files of content that nothing refers to, those set aside included. */
  strays: number
  /** Of them, how many were moved aside just now. */
  setAside: number
  problems: StoreProblem[]
}

const MAX_TOLD = 100

const emptyReport = (): StoreReport => ({
  records: 0,
  files: 0,
  contents: 0,
  bytes: 0,
  strays: 0,
  setAside: 0,
  problems: [],
})

/** What is different while a server runs. */
interface Beside {
  /** Ids of contents that uploads under way write. */
  openUploads(): Promise<readonly string[]>
  setAside(store: Store, names: readonly string[]): Promise<number>
}

/**
 * Checks a data directory.
 *
 * @throws {SyncError} `SERVER_RUNNING` when it is to be adopted, or the server that runs cannot be asked; `STORE_EMPTY` when there is nothing
 * to check; what the object store says.
 */
export async function checkStore(dataDir: string, options: CheckOptions = {}): Promise<StoreReport> {
  const file = dataFileOf(dataDir)
  if (sizeOfFile(dataDir) === undefined) throw storeEmpty(dataDir)
  if (options.adopt !== true && (await canAsk(dataDir))) return checkBeside(dataDir, options)
  const lock = await takeInstanceLock(dataDir)
  const report = emptyReport()
  const objects = options.s3 === undefined ? undefined : new ObjectStore(options.s3, Date.now)
  try {
    await objects?.check()
    const content = new BlobFiles(dataDir)
    if ((sizeOfFile(file) ?? 0) === 0) {
      if ((await content.readMark()) === undefined && !(await content.hasContent())) throw storeEmpty(dataDir)
      report.problems.push(problemOf('place', storeLost(file, content.name)))
      return report
    }
    checkMetadata(file, report)
    if (report.problems.length > 0) return report
    const store = await openStore(dataDir, content, { isServed: true })
    try {
      await look(store, content, objects, options, report, {
        openUploads: async () => [],
        async setAside(_store, names) {
          const disk = new DiskBlobs(content, store, new Signer(await store.secret()), Date.now, 0)
          return disk.setAside(names, () => false)
        },
      })
    } finally {
      await store.close()
    }
    return report
  } finally {
    objects?.close()
    await lock.release()
  }
}

const canAsk = async (dataDir: string): Promise<boolean> =>
  askServer(dataDir, 'uploads.open', {}).then(
    () => true,
    (error: unknown) => {
      if (error instanceof NoAdminSocket) return false
      throw error
    },
  )

/** Checks in a process of its own, so that the server does not wait for it; only what is under way is asked of it. */
async function checkBeside(dataDir: string, options: CheckOptions): Promise<StoreReport> {
  const report = emptyReport()
  const objects = options.s3 === undefined ? undefined : new ObjectStore(options.s3, Date.now)
  try {
    await objects?.check()
    const content = new BlobFiles(dataDir)
    const store = await openStore(dataDir, content, { isServed: true })
    try {
      report.records = countRecords(store)
      await look(store, content, objects, options, report, {
        openUploads: () => askServer(dataDir, 'uploads.open', {}),
        setAside: (_store, names) => askServer(dataDir, 'strays.set-aside', { names }),
      })
    } finally {
      await store.close()
    }
  } finally {
    objects?.close()
  }
  return report
}

const countRecords = (store: Store): number =>
  Object.values(store).reduce((sum, table) => sum + (table instanceof Table ? table.getCount({}) : 0), 0)

const storeEmpty = (dataDir: string): SyncError =>
  new SyncError('usage', 'STORE_EMPTY', `There is nothing of a server in ${dataDir}`, { hint: 'Check --data.' })

function problemOf(kind: StoreProblem['kind'], error: unknown): StoreProblem {
  if (!(error instanceof SyncError)) throw error
  const { code, message, hint } = error
  return { kind, code, message: hint === undefined ? message : `${message}. ${hint}` }
}

function checkMetadata(file: string, report: StoreReport): void {
  const damaged = (message: string): void => {
    if (report.problems.length < MAX_TOLD) report.problems.push({ kind: 'metadata', code: 'STORE_DAMAGED', message })
  }
  try {
    const state = checkDataFile(file, (table, key, value) => {
      // All of them are told, not only the first.
      if (!isWhole(table, key, value)) damaged(`${file}: a record of table ${table} is not what was written`)
      return true
    })
    report.records = state?.records ?? 0
  } catch (error) {
    if (!(error instanceof DataFileError)) throw error
    damaged(`${file}: ${error.message}`)
  }
}

async function look(
  store: Store,
  content: BlobFiles,
  objects: ObjectStore | undefined,
  options: CheckOptions,
  report: StoreReport,
  beside: Beside,
): Promise<void> {
  // Before the records: what is written later is claimed by records that are read later.
  const [there, aside] = [await content.list(), await content.listAside()]
  const identity = await identityOf(store)
  Object.assign(report, { store: identity.store, generation: identity.generation })
  if (options.adopt === true) {
    report.generation = await adopt(store, objects === undefined ? [content] : [content, objects])
  }
  const places: [Place, () => boolean][] = [[content, () => usesFiles(store)]]
  if (objects !== undefined) places.push([objects, () => usesObjects(store)])
  else if (usesObjects(store)) {
    const message = 'Content is in an object store, which was not looked at; name it with --s3-endpoint and --s3-bucket'
    report.problems.push({ kind: 'place', code: 'S3_NEEDED', message })
  }
  for (const [place, usesPlace] of places) {
    await checkPlace(store, place, usesPlace).catch((error: unknown) => {
      report.problems.push(problemOf('place', error))
    })
  }
  const users = checkTree(store, report)
  const claimed = await checkContents(store, content, objects, options, users, report)
  const open = new Set(await beside.openUploads())
  const strays = there.filter((name) => !claimed.has(name) && !open.has(name.slice(0, name.indexOf('-'))))
  // Only while metadata and content are known to belong together.
  if (options.repair === true && !report.problems.some(({ kind }) => kind === 'place' || kind === 'metadata')) {
    report.setAside = await beside.setAside(store, strays)
  }
  report.strays = strays.length + aside.length
}

async function adopt(store: Store, places: readonly Place[]): Promise<number> {
  let newest = 0
  for (const place of places) {
    const mark = await place.readMark().catch((error: unknown): Mark | undefined => {
      if (error instanceof SyncError && error.code === 'STORE_MARK_DAMAGED') return undefined
      throw error
    })
    newest = Math.max(newest, mark?.generation ?? 0)
  }
  // The time of what nothing refers to starts anew: this metadata has not seen it before.
  await store.write((tx) => {
    for (const { key } of [...store.asides.getRange({})]) tx.remove(store.asides, key)
    for (const { key, value } of [...store.strays.getRange({})]) {
      if (value.foundAt === undefined) continue
      const { foundAt: _foundAt, ...stray } = value
      tx.put(store.strays, key, stray)
    }
  })
  return beginGeneration(store, places, newest)
}

/** Compares nodes with their indexes. Answers which files use which content. */
function checkTree(store: Store, report: StoreReport): Map<string, NodeRecord[]> {
  const users = new Map<string, NodeRecord[]>()
  let contradictions = 0
  const note = (node: NodeRecord): void => {
    if (node.type !== FILE) return
    report.files++
    const list = users.get(node.contentId ?? '') ?? []
    list.push(node)
    users.set(node.contentId ?? '', list)
  }
  for (const { value: node } of store.nodes.getRange({})) {
    note(node)
    if (store.names.get([node.parentId, node.name]) !== node.id) contradictions++
  }
  for (const { value: node } of store.deleted.getRange({})) note(node)
  const used = new Map<number, number>()
  for (const node of [...users.values()].flat()) used.set(node.createdBy, (used.get(node.createdBy) ?? 0) + node.size)
  for (const [userId, bytes] of used) if (usageOf(store, userId) !== bytes) contradictions++
  for (const { key, value } of store.names.getRange({})) {
    const node = store.nodes.get(value)
    if (node === undefined || node.parentId !== key[0] || node.name !== key[1]) contradictions++
  }
  for (const { value } of store.children.getRange({})) if (!store.nodes.doesExist(value)) contradictions++
  for (const { key, value } of store.contents.getRange({})) {
    if ((users.get(key)?.length ?? 0) !== value.refs) contradictions++
  }
  contradictions += checkShares(store)
  if (contradictions > 0) {
    const message = `${contradictions} records of the tree contradict each other`
    report.problems.push({ kind: 'tree', code: 'TREE_CONTRADICTS', message })
  }
  return users
}

/** Compares shares with their indexes and with the counts in nodes. */
function checkShares(store: Store): number {
  let contradictions = 0
  let indexed = 0
  const counts = new Map<string, number>()
  for (const { key } of store.nodeShares.getRange({})) {
    const [roomId, nodeId, id] = key
    const [node, share] = [store.nodes.get(nodeId), store.shares.get(id)]
    indexed++
    if (node === undefined || node.roomId !== roomId || share?.nodeId !== nodeId) contradictions++
    const counted = `${share?.kind} ${nodeId}`
    counts.set(counted, (counts.get(counted) ?? 0) + 1)
  }
  let keys = 0
  for (const { value } of store.shareKeys.getRange({})) {
    keys++
    if (!store.shares.doesExist(value)) contradictions++
  }
  let shares = 0
  for (const _share of store.shares.getKeys({})) shares++
  if (indexed !== shares || keys !== shares) contradictions++
  for (const { value: node } of store.nodes.getRange({})) {
    const [down, up] = [counts.get(`download ${node.id}`) ?? 0, counts.get(`upload ${node.id}`) ?? 0]
    if ((node.downloadShares ?? 0) !== down || (node.uploadShares ?? 0) !== up) contradictions++
  }
  for (const { value: node } of store.deleted.getRange({})) {
    if (node.downloadShares !== undefined || node.uploadShares !== undefined) contradictions++
  }
  for (const key of store.received.getKeys({})) if (!store.shares.doesExist(key[0])) contradictions++
  for (const key of store.redeemed.getKeys({})) if (!store.shares.doesExist(key[0])) contradictions++
  return contradictions
}

async function checkContents(
  store: Store,
  files: BlobFiles,
  objects: ObjectStore | undefined,
  { readContent }: CheckOptions,
  users: ReadonlyMap<string, NodeRecord[]>,
  report: StoreReport,
): Promise<Set<string>> {
  const claimed = new Set<string>()
  // In pieces: a cursor must not stay open while files are read.
  for (const id of [...store.contents.getKeys({})]) {
    const record = store.contents.get(id)
    if (record === undefined) continue
    report.contents++
    report.bytes += record.size
    const broken = (code: string, how: string): void => {
      if (report.problems.length >= MAX_TOLD) return
      // Deleted meanwhile, beside a server that runs.
      if (!store.contents.doesExist(id)) return
      const paths = (users.get(id) ?? []).map((node) => pathOf(store, node.id))
      report.problems.push({ kind: 'content', code, message: `Content ${id} is ${how}`, paths })
    }
    const isLong = record.segments.reduce((sum, { size }) => sum + size, 0) === record.size
    if (!isLong) broken('CONTENT_DAMAGED', 'not as long as it says')
    for (const { file, object, offset, size } of record.segments) {
      if (file !== undefined) {
        claimed.add(file)
        const length = await files.sizeOf(file)
        if (length === undefined) broken('CONTENT_GONE', `gone (${file})`)
        else if (length < offset + size) broken('CONTENT_DAMAGED', `cut short (${file})`)
        else if (readContent === true && !(await files.isWhole(record.segments, file))) {
          broken('CONTENT_DAMAGED', `damaged (${file})`)
        }
      } else if (object !== undefined && objects !== undefined) {
        const length = await objects.sizeOf(keyOf(object))
        if (length === undefined) broken('CONTENT_GONE', `gone (${keyOf(object)})`)
        else if (length !== record.size) broken('CONTENT_DAMAGED', `of another length (${keyOf(object)})`)
      }
    }
  }
  for (const [id, list] of users) {
    if (!store.contents.doesExist(id) && report.problems.length < MAX_TOLD) {
      const isStill = list.some(({ id: nodeId }) => store.nodes.doesExist(nodeId) || store.deleted.doesExist(nodeId))
      if (!isStill) continue
      const paths = list.map((node) => pathOf(store, node.id))
      report.problems.push({ kind: 'content', code: 'CONTENT_GONE', message: `Content ${id} has no record`, paths })
    }
  }
  return claimed
}
