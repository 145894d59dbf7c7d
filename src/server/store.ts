/**
 * The metadata store: one LMDB environment with a table per kind of record, and grouped durable transactions. What the
 * records mean is up to the modules that use them; content lives behind blobs.ts.
 * @module
 */
import { randomBytes } from 'node:crypto'
import { chmodSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Database, Key, RootDatabase } from 'lmdb'
import type {
  ContentRecord,
  DeletedRecord,
  FileKeyRecord,
  FinishedUpload,
  KeyPairRecord,
  NodeRecord,
  StrayRecord,
  TokenRecord,
  UserRecord,
} from './records.ts'

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

  put<V, K extends Key>(table: Database<V, K>, key: K, value: V): void {
    const before = table.get(key)
    this.#undo.push(() => {
      if (before === undefined) table.remove(key)
      else table.put(key, before)
    })
    table.put(key, value)
  }

  remove<V, K extends Key>(table: Database<V, K>, key: K): void {
    const before = table.get(key)
    if (before === undefined) return
    this.#undo.push(() => table.put(key, before))
    table.remove(key)
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
  readonly meta: Database<number | Uint8Array, string>
  readonly users: Database<UserRecord, number>
  /** Folded user name to user id. */
  readonly userNames: Database<number, string>
  /** [user, version] */
  readonly keyPairs: Database<KeyPairRecord, [number, string]>
  readonly nodes: Database<NodeRecord, number>
  /** [parent, name] to id: what makes a name unique in its folder. */
  readonly names: Database<number, [number, string]>
  /** [parent, type, folded name, id] to id: the order of listings. */
  readonly children: Database<number, [number, number, string, number]>
  readonly deleted: Database<DeletedRecord, number>
  /** [room, deleted node] */
  readonly bins: Database<number, [number, number]>
  /** [room, user] to permission bits, and the same turned round. */
  readonly members: Database<number, [number, number]>
  readonly memberships: Database<number, [number, number]>
  readonly contents: Database<ContentRecord, string>
  /** Content id to what has to be removed at the object store, unless an upload under way claims it. */
  readonly strays: Database<StrayRecord, string>
  /** [file, user, key pair version] and [user, key pair version, file]. */
  readonly fileKeys: Database<FileKeyRecord, [number, number, string]>
  readonly userFileKeys: Database<number, [number, string, number]>
  /** [room, file] for files in encrypted rooms. */
  readonly encryptedFiles: Database<number, [number, number]>
  /** SHA-256 of a token to what it grants, and [family, SHA-256]. */
  readonly tokens: Database<TokenRecord, string>
  readonly families: Database<number, [string, string]>
  readonly finished: Database<FinishedUpload, string>
  readonly #root: RootDatabase
  #queue: Job[] = []
  #draining = false
  #inFlight = 0
  #idle: (() => void)[] = []

  constructor(root: RootDatabase) {
    this.#root = root
    const table = <V, K extends Key>(name: string): Database<V, K> => root.openDB<V, K>({ name })
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
    this.contents = table('contents')
    this.strays = table('strays')
    this.fileKeys = table('fileKeys')
    this.userFileKeys = table('userFileKeys')
    this.encryptedFiles = table('encryptedFiles')
    this.tokens = table('tokens')
    this.families = table('families')
    this.finished = table('finished')
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
        await this.#root.transaction(() => {
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
        })
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

  /** The next id for nodes or users; only inside a unit of work. */
  nextId(tx: Tx, kind: 'node' | 'user'): number {
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
    await this.#root.close()
  }
}

/** Opens, or makes, the store below `dataDir`. Several processes may have it open. */
export async function openStore(dataDir: string): Promise<Store> {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 })
  chmodSync(dataDir, 0o700)
  const { open } = await import('lmdb')
  return new Store(open({ path: join(dataDir, 'db'), maxDbs: 24, noSubdir: false }))
}
