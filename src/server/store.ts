/**
 * The metadata store: one LMDB environment with a table per kind of record, and grouped durable transactions. What the
 * records mean is up to the modules that use them; content lives behind blobs.ts.
 * @module
 */
import { randomBytes } from 'node:crypto'
import { accessSync, constants, lstatSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import type { RootDatabase } from 'lmdb'
import { SyncError } from '../../crypto/errors.ts'
import { localError, systemCode } from '../errors.ts'
import { loadNative } from '../local/native.ts'
import { checkDataFile, DataFileError } from './data-file.ts'
import { type Place, storeLost } from './mark.ts'
import { privateDirectory } from './private-directory.ts'
import type {
  AsideRecord,
  AuditRecord,
  ClientRecord,
  CommentRecord,
  ContentRecord,
  DeletedRecord,
  EventRecord,
  FileKeyRecord,
  FinishedUpload,
  GroupRecord,
  KeyPairRecord,
  NodeRecord,
  ReceivedRecord,
  ShareRecord,
  StrayRecord,
  TokenRecord,
  UserRecord,
} from './records.ts'
import { isWhole, type Key, Table } from './table.ts'

/** The last turn at each directory, as long as there is one. */
const turns = new Map<string, Promise<unknown>>()

/**
 * Within a process the stores of one directory open, commit and close one after the other. The file has one lock for all who write; who
 * waits for it on the main thread keeps the one who holds it from ever going on, since its work is done there, too.
 */
function inTurn<T>(path: string, work: () => T | Promise<T>): Promise<T> {
  const before = turns.get(path)
  const turn = before === undefined ? (async () => work())() : before.then(work)
  const settled: Promise<unknown> = turn.then(
    () => {},
    () => {},
  )
  turns.set(path, settled)
  void settled.then(() => {
    if (turns.get(path) === settled) turns.delete(path)
  })
  return turn
}

/** Jobs that share one commit. Bounds how long one commit may hold up the event loop. */
const MAX_BATCH = 256

interface Job {
  /** Does the writes and returns what to do once they are durable. */
  run(tx: Tx): () => void
  reject(reason: unknown): void
}

/**
 * Writes of one unit of work. Every write is visible at once to reads in the same unit; if the unit throws, its writes
 * are taken back, while other units of the same commit stand.
 */
export class Tx {
  readonly #undo: (() => void)[] = []
  readonly #after: (() => void)[] = []

  /** What the calls below resolve with is that of the transaction, which is awaited. */
  put<V, K extends Key>(table: Table<V, K>, key: K, value: V): void {
    const before = table.get(key)
    this.#undo.push(() => {
      if (before === undefined) void table.remove(key)
      else void table.put(key, before)
    })
    void table.put(key, value)
  }

  remove<V, K extends Key>(table: Table<V, K>, key: K): void {
    const before = table.get(key)
    if (before === undefined) return
    this.#undo.push(() => void table.put(key, before))
    void table.remove(key)
  }

  /** Runs `action` after the commit is durable; not at all if the unit fails. */
  afterCommit(action: () => void): void {
    this.#after.push(action)
  }

  /** @internal */
  rollBack(): void {
    for (const undo of this.#undo.reverse()) undo()
  }

  /** @internal */
  finish(): void {
    for (const action of this.#after) action()
  }
}

/** All tables, plus `write`. Reads go to the tables directly and see the last commit. */
export class Store {
  readonly meta: Table<number | string | Uint8Array, string>
  readonly users: Table<UserRecord, number>
  /** Folded user name to user id. */
  readonly userNames: Table<number, string>
  /** [user, version] */
  readonly keyPairs: Table<KeyPairRecord, [number, string]>
  readonly nodes: Table<NodeRecord, number>
  /** [parent, name] to id: what makes a name unique in its folder. */
  readonly names: Table<number, [number, string]>
  /** [parent, type, folded name, id] to id: the order of listings. */
  readonly children: Table<number, [number, number, string, number]>
  readonly deleted: Table<DeletedRecord, number>
  /** [room, deleted node] */
  readonly bins: Table<number, [number, number]>
  /** [room, user] to permission bits, and the same turned round. */
  readonly members: Table<number, [number, number]>
  readonly memberships: Table<number, [number, number]>
  readonly groups: Table<GroupRecord, number>
  /** [group, user], and the same turned round. */
  readonly groupUsers: Table<number, [number, number]>
  readonly userGroups: Table<number, [number, number]>
  /** [room, group] to permission bits, and the same turned round. */
  readonly roomGroups: Table<number, [number, number]>
  readonly groupRooms: Table<number, [number, number]>
  /** [room, number of the event in it]; the newest of each room. */
  readonly events: Table<EventRecord, [number, number]>
  readonly contents: Table<ContentRecord, string>
  /** Content id to what has to be removed at the object store, unless an upload under way claims it. */
  readonly strays: Table<StrayRecord, string>
  /** Files that were set aside, by name. */
  readonly asides: Table<AsideRecord, string>
  /** [file, user, key pair version] and [user, key pair version, file]. */
  readonly fileKeys: Table<FileKeyRecord, [number, number, string]>
  readonly userFileKeys: Table<number, [number, string, number]>
  /** [room, file] for files in encrypted rooms. */
  readonly encryptedFiles: Table<number, [number, number]>
  /** SHA-256 of a token to what it grants, and [family, SHA-256]. */
  readonly tokens: Table<TokenRecord, string>
  readonly families: Table<number, [string, string]>
  readonly finished: Table<FinishedUpload, string>
  readonly shares: Table<ShareRecord, number>
  /** SHA-256 of an access key, in hex, to the share. */
  readonly shareKeys: Table<number, string>
  /** [room, node, share]. */
  readonly nodeShares: Table<number, [number, number, number]>
  /** [share, download token] to when the token runs out: downloads that have been counted. */
  readonly redeemed: Table<number, [number, string]>
  /** [share, number]. */
  readonly received: Table<ReceivedRecord, [number, number]>
  /** Bytes of the files that a user made. */
  readonly usage: Table<number, number>
  readonly clients: Table<ClientRecord, string>
  /** By the number of the event. */
  readonly audit: Table<AuditRecord, number>
  /** [user, node] to when it became a favorite. */
  readonly favorites: Table<number, [number, number]>
  /** Comments by id, and [node, id]. */
  readonly comments: Table<CommentRecord, number>
  readonly nodeComments: Table<number, [number, number]>
  /** [user, key] of what clients keep for a user. */
  readonly attributes: Table<string, [number, string]>
  readonly #root: RootDatabase
  readonly #path: string
  #queue: Job[] = []
  #draining = false
  #inFlight = 0
  #idle: (() => void)[] = []

  /** @param file - A root database of LMDB, whose types are not part of ours. */
  constructor(file: object, path: string) {
    const root = file as RootDatabase
    this.#root = root
    this.#path = path
    const table = <V, K extends Key>(name: string): Table<V, K> =>
      new Table(root.openDB<Buffer, K>({ name, encoding: 'binary' }), name)
    this.meta = table('meta')
    this.users = table('users')
    this.userNames = table('userNames')
    this.keyPairs = table('keyPairs')
    this.nodes = table('nodes')
    this.names = table('names')
    this.children = table('children')
    this.deleted = table('deleted')
    this.bins = table('bins')
    this.members = table('members')
    this.memberships = table('memberships')
    this.groups = table('groups')
    this.groupUsers = table('groupUsers')
    this.userGroups = table('userGroups')
    this.roomGroups = table('roomGroups')
    this.groupRooms = table('groupRooms')
    this.events = table('events')
    this.contents = table('contents')
    this.strays = table('strays')
    this.asides = table('asides')
    this.fileKeys = table('fileKeys')
    this.userFileKeys = table('userFileKeys')
    this.encryptedFiles = table('encryptedFiles')
    this.tokens = table('tokens')
    this.families = table('families')
    this.finished = table('finished')
    this.shares = table('shares')
    this.shareKeys = table('shareKeys')
    this.nodeShares = table('nodeShares')
    this.redeemed = table('redeemed')
    this.received = table('received')
    this.usage = table('usage')
    this.clients = table('clients')
    this.audit = table('audit')
    this.favorites = table('favorites')
    this.comments = table('comments')
    this.nodeComments = table('nodeComments')
    this.attributes = table('attributes')
  }

  /**
   * Runs one unit of work and resolves with its result once the commit is on disk. Units that arrive while a commit is
   * under way share the next one, so many small writes cost one flush.
   */
  write<T>(work: (tx: Tx) => T): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#queue.push({
        run(tx) {
          const value = work(tx)
          return () => resolve(value)
        },
        reject,
      })
      if (this.#draining) return
      this.#draining = true
      setImmediate(() => void this.#drain())
    })
  }

  async #drain(): Promise<void> {
    while (this.#queue.length > 0) {
      const jobs = this.#queue.splice(0, MAX_BATCH)
      this.#inFlight++
      const fail = (reason: unknown): void => {
        for (const job of jobs) job.reject(reason)
        this.#settled()
      }
      const outcomes: (() => void)[] = []
      try {
        const run = () => {
          for (const job of jobs) {
            const tx = new Tx()
            try {
              const resolve = job.run(tx)
              outcomes.push(() => {
                tx.finish()
                resolve()
              })
            } catch (error) {
              tx.rollBack()
              outcomes.push(() => job.reject(error))
            }
          }
        }
        await inTurn(this.#path, () => this.#root.transaction(run))
      } catch (error) {
        fail(error)
        continue
      }
      // The next commit may start while this one is still being flushed.
      this.#root.flushed.then(() => {
        for (const outcome of outcomes) outcome()
        this.#settled()
      }, fail)
    }
    this.#draining = false
    this.#settled(0)
  }

  #settled(done = 1): void {
    this.#inFlight -= done
    if (this.#inFlight > 0 || this.#draining) return
    for (const wake of this.#idle.splice(0)) wake()
  }

  /** The next id for nodes, users and so on; only inside a unit of work. */
  nextId(tx: Tx, kind: 'node' | 'user' | 'group' | 'event' | 'share' | 'comment'): number {
    const last = this.meta.get(kind)
    const id = (typeof last === 'number' ? last : 0) + 1
    tx.put(this.meta, kind, id)
    return id
  }

  /** A number above every earlier one, close to the time of day; only inside a unit of work. */
  nextVersion(tx: Tx, now: number): number {
    const version = Math.max(this.version() + 1, Math.floor(now))
    tx.put(this.meta, 'version', version)
    return version
  }

  /** The newest version of any node: unchanged means that no node changed. */
  version(): number {
    const version = this.meta.get('version')
    return typeof version === 'number' ? version : 0
  }

  /** The server's own signing secret (32 bytes), made on first use. */
  async secret(): Promise<Uint8Array> {
    return this.write((tx) => {
      const known = this.meta.get('secret')
      if (known instanceof Uint8Array) return Uint8Array.from(known)
      const fresh = new Uint8Array(randomBytes(32))
      tx.put(this.meta, 'secret', fresh)
      return fresh
    })
  }

  /** Waits for writes under way, then closes the environment. */
  async close(): Promise<void> {
    if (this.#draining || this.#inFlight > 0) await new Promise<void>((resolve) => this.#idle.push(resolve))
    await inTurn(this.#path, () => this.#root.close())
  }
}

/** Whether the metadata refers to content in an object store. */
export function usesObjects(store: Store): boolean {
  // Spares others the walk through all contents.
  if (store.meta.get('objects') === undefined) return false
  if (store.strays.getCount() > 0) return true
  for (const { value } of store.contents.getRange({})) if (value.segments[0]?.object !== undefined) return true
  return false
}

/** Where the metadata of a data directory is. */
export const dataFileOf = (dataDir: string): string => join(dataDir, 'db', 'data.mdb')

/** Length of the file and when it changed; both 0 when there is none. */
function stateOf(path: string): { size: number; changed: number } {
  try {
    const { size, mtimeMs } = statSync(path)
    return { size, changed: mtimeMs }
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return { size: 0, changed: 0 }
    throw localError(error, `read ${path}`)
  }
}

/** Length of what is at a path; `undefined` when nothing is. */
export function sizeOfFile(path: string): number | undefined {
  const { size, changed } = stateOf(path)
  return size === 0 && changed === 0 ? undefined : size
}

/** @throws {SyncError} `STORE_DAMAGED` when LMDB must not be given this file. */
function checkFile(path: string): void {
  for (let tries = 1; ; tries++) {
    const before = stateOf(path)
    try {
      checkDataFile(path, isWhole)
      return
    } catch (error) {
      if (!(error instanceof DataFileError)) throw localError(error, `read ${path}`)
      // A tool that adds an account may have written meanwhile.
      if (stateOf(path).changed !== before.changed && tries < 20) continue
      throw new SyncError('integrity', 'STORE_DAMAGED', `${path} is damaged: ${error.message}`, {
        hint: 'Nothing was changed. Put the file back from a backup; sync serve check says more.',
        cause: error,
      })
    }
  }
}

/**
 * LMDB ends the process when it cannot open one of its files, so that is found out before. Only by looks: closing a descriptor of its
 * lock file would give up the locks that this process has there.
 *
 * @throws {SyncError} `NOT_A_FILE`, or what the system says.
 */
function checkAccess(directory: string): void {
  const { R_OK, W_OK, X_OK } = constants
  let path = directory
  try {
    accessSync(path, R_OK | W_OK | X_OK)
    for (const name of ['data.mdb', 'lock.mdb']) {
      path = join(directory, name)
      if (lstatSync(path, { throwIfNoEntry: false }) === undefined) continue
      if (!statSync(path).isFile()) {
        throw new SyncError('usage', 'NOT_A_FILE', `${path} is not a file`, {
          hint: 'Move it away. A lock.mdb is made anew, a data.mdb has to come from a backup.',
        })
      }
      accessSync(path, R_OK | W_OK)
    }
  } catch (error) {
    throw localError(error, `use ${path}`)
  }
}

/**
 * Opens, or makes, the store below `dataDir`. Several processes may have it open; the first one checks the file.
 *
 * @param content - Where content is kept beside it.
 * @param options.isServed - A live server has the file open, so it was checked.
 * @throws {SyncError} `STORE_LOST`, `STORE_DAMAGED`, `NOT_A_DIRECTORY`, `NOT_A_FILE`; see checkPlace for what tells of other content.
 */
export async function openStore(dataDir: string, content: Place, options: { isServed: boolean }): Promise<Store> {
  privateDirectory(dataDir)
  privateDirectory(join(dataDir, 'db'))
  checkAccess(join(dataDir, 'db'))
  const file = dataFileOf(dataDir)
  if (stateOf(file).size === 0) {
    if ((await content.readMark()) !== undefined || (await content.hasContent())) throw storeLost(file, content.name)
  } else if (!options.isServed) checkFile(file)
  const { open } = await loadLmdb()
  const path = resolve(dataDir, 'db')
  return inTurn(path, () => new Store(open({ path, maxDbs: 64, noSubdir: false }), path))
}

/** @throws {SyncError} `LMDB_MISSING` where the package is not installed, or not for this machine. */
async function loadLmdb(): Promise<typeof import('lmdb')> {
  try {
    return (await loadNative('lmdb')) as typeof import('lmdb')
  } catch (cause) {
    throw new SyncError('usage', 'LMDB_MISSING', 'The server needs the package lmdb, which cannot be loaded here', {
      hint: 'Install it beside this program: npm install lmdb',
      cause,
    })
  }
}
