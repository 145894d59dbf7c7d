/**
 * The embedded server: opens the data directory, wires the parts together and listens. It stores ciphertext and wrapped
 * keys and has no code to open either.
 * @module
 */

import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import { createServer as createTlsServer, Server as TlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SyncError } from '../../crypto/errors.ts'
import { systemCode } from '../errors.ts'
import type { LiveServer } from './admin/operations.ts'
import { sweepBins } from './admin/retention.ts'
import { offerSetup } from './admin/setup.ts'
import { listenForAdmin } from './admin/socket.ts'
import { addUser, hashNewPassword, type NewAccount } from './admin/users.ts'
import { BlobFiles } from './blob-files.ts'
import type { BlobStore } from './blobs.ts'
import type { App } from './call.ts'
import { CONNECTION_LIMITS, type ConnectionLimits, Connections, Shares } from './connections.ts'
import { DiskBlobs, usesFiles } from './disk-blobs.ts'
import { FaultPlan, type FaultRule } from './faults.ts'
import { Grants } from './grants.ts'
import { hostFilter, isLoopback } from './hosts.ts'
import { beginGeneration, checkPlace, identityOf, markPlaces } from './identity.ts'
import { takeInstanceLock } from './instance-lock.ts'
import { ListingCache } from './listing.ts'
import { LoginLimits } from './login-limits.ts'
import type { Place } from './mark.ts'
import type { Gauge } from './metrics.ts'
import { type ObserveOptions, Observers } from './observe.ts'
import { createListener, type Listener } from './plumbing.ts'
import { Proxies } from './proxies.ts'
import { Rates } from './rates.ts'
import type { Recorder } from './recorder.ts'
import { createRouter } from './routes/index.ts'
import { S3Blobs } from './s3/blobs.ts'
import type { S3Options } from './s3/client.ts'
import { ObjectStore } from './s3/objects.ts'
import { SharePasswords } from './share-passwords.ts'
import { sweepRedeemed } from './shares.ts'
import { Signer } from './signing.ts'
import { dataFileOf, openStore, type Store, sizeOfFile, usesObjects } from './store.ts'
import { Uploads } from './uploads.ts'

/** Where a server keeps its data, where it listens, and for whom. */
export interface ServerOptions extends ObserveOptions {
  /** Directory of all data; made, with mode 0700, if it does not exist. Default: a temporary one, removed by `close`. */
  data?: string
  /** Another name of `data`. */
  dataDir?: string
  /** Accounts to make, unless there are accounts of these names. */
  users?: readonly NewAccount[]
  /** Where there is no account at all: offer to make the first one, an administrator's, by a link that is good once. */
  offerSetup?: boolean
  /** 0 or absent: any free port. */
  port?: number
  /** Address to listen on; 127.0.0.1 by default. Anything but loopback needs `tls`. */
  host?: string
  /** `s3`: clients send parts to presigned URLs. `classic` (default): chunks through the API. */
  storage?: 'classic' | 's3'
  /** An object store for content, to which clients then talk directly; goes with `storage: 's3'`. Default: `data`. */
  s3?: S3Options
  /** PEM texts. */
  tls?: { cert: string | Buffer; key: string | Buffer }
  /** Host names served besides loopback names and `host`. */
  allowedHosts?: readonly string[]
  /** Test mode: rules for misbehaving. */
  faults?: readonly FaultRule[]
  /** Test mode: sees everything received. */
  recorder?: Recorder
  /** Default 28800. */
  accessTokenLifetimeS?: number
  /** Lifetime of presigned URLs (default 900) and of download URLs (default 3600). */
  urlLifetimeS?: number
  /** Bytes of the disk that visitors of file requests cannot fill. Default: 256 MiB. */
  reserveBytes?: number
  /**
   * Addresses and networks of proxies in front, whose word is taken for where a request comes from and how. Without TLS, nobody else but
   * this machine is let in then, and `host` may be any.
   */
  trustProxy?: readonly string[]
  /** Requests per second of one user, or of one address without a login; ten seconds' worth may come at once. Default: any number. */
  requestsPerSecond?: number
  /** How long `close` waits for requests under way, in milliseconds. Default 500. */
  drainMs?: number
  /** Other limits than CONNECTION_LIMITS. */
  connectionLimits?: Partial<ConnectionLimits>
  /** Time of day in ms since the epoch; for tests. */
  clock?: { now(): number }
}

/** A server that takes requests. */
export interface RunningServer {
  /** Base URL without a slash at the end. */
  readonly url: string
  readonly port: number
  readonly faults: FaultPlan
  /** With `offerSetup`: where the first account is made, good once and for a day. */
  readonly setupUrl?: string
  /** With `metricsPort`. */
  readonly metricsUrl?: string
  /** Takes another certificate for connections from now on, where there is one, and opens the access log anew. */
  reload(tls?: { cert: string | Buffer; key: string | Buffer }): void
  /** Stops listening, ends connections and closes the store. */
  close(): Promise<void>
  /** As `close`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>
}

const SWEEP_MS = 600_000
const HEADERS_CHECK_MS = 5000
/** Bytes of JSON and forms of one user, or one address, that are held at a time. */
const MAX_TEXT = 64 * 1024 * 1024
const MAX_ARCHIVES_PER_ADDRESS = 4
/** Bytes. The metadata needs room to grow when visitors have sent all they could. */
const RESERVE = 256 * 1024 * 1024

/**
 * Starts a server on a data directory, for use or for tests.
 *
 * @throws {SyncError} `TLS_REQUIRED` beyond loopback without a certificate; `SERVER_RUNNING` when the directory is in
 * use; `CANNOT_LISTEN` when the address is not to be had; `S3_OPTIONS`, `S3_BUCKET_MISSING`, `S3_REFUSED`,
 * `S3_UNREACHABLE` and `S3_NEEDED` about the object store.
 */
export async function startServer(options: ServerOptions = {}): Promise<RunningServer> {
  const data = options.data ?? options.dataDir
  if (data !== undefined) return start(data, options)
  const directory = await mkdtemp(join(tmpdir(), 'sealsync-server-'))
  const remove = () => rm(directory, { recursive: true, force: true })
  try {
    const server = await start(directory, options)
    const close = async () => {
      await server.close()
      await remove()
    }
    return { ...server, close, [Symbol.asyncDispose]: close }
  } catch (error) {
    await remove()
    throw error
  }
}

/** Makes the accounts that are not there. */
async function addUsers(store: Store, users: readonly NewAccount[], now: () => number): Promise<void> {
  for (const { password, ...user } of users) {
    const hashed = await hashNewPassword(password)
    await addUser(store, { userId: 0, now: now() }, { ...user, password: hashed }).catch((error) => {
      if (!(error instanceof SyncError) || error.code !== 'USER_EXISTS') throw error
    })
  }
}

/** Which proxies are in front; nobody may listen to the world without encryption, or one of those. */
function proxiesFor(host: string, { tls, trustProxy = [] }: ServerOptions): Proxies {
  const proxies = new Proxies(trustProxy)
  if (tls === undefined && !isLoopback(host) && !proxies.isUsed) {
    throw new SyncError('usage', 'TLS_REQUIRED', 'Listening beyond loopback needs TLS', {
      hint: 'Give a certificate and a key, or listen on 127.0.0.1, or say which proxy is in front.',
    })
  }
  return proxies
}

/** The HTTP server, with its timeouts. */
function httpServer(tls: ServerOptions['tls'], listener: Listener): Server {
  const often = { connectionsCheckingInterval: HEADERS_CHECK_MS }
  const server =
    tls === undefined
      ? createServer(often, listener)
      : createTlsServer({ ...tls, ...often, handshakeTimeout: 30_000 }, listener)
  configure(server)
  return server
}

async function start(dataDir: string, options: ServerOptions): Promise<RunningServer> {
  const host = options.host ?? '127.0.0.1'
  const proxies = proxiesFor(host, options)
  const lock = await takeInstanceLock(dataDir)
  const undo: (() => unknown)[] = [() => lock.release()]
  try {
    const files = new BlobFiles(dataDir)
    const store = await openStore(dataDir, files, { isServed: false })
    undo.unshift(() => store.close())
    const drain = { isOn: false }
    const { app, places, disk } = await createApp(store, files, options, drain)
    undo.unshift(() => app.blobs.close())
    await addUsers(store, options.users ?? [], app.now)
    const setupCode = options.offerSetup === true ? await offerSetup(store, app.now()) : undefined
    const faults = new FaultPlan(options.faults)
    const connections = new Connections({ ...CONNECTION_LIMITS, ...options.connectionLimits }, proxies)
    undo.unshift(() => connections.close())
    const tellError = (error: unknown): void => options.onError?.(error)
    const observers = new Observers(options)
    undo.unshift(() => observers.close())
    const listener = createListener({
      app,
      router: createRouter(),
      scheme: options.tls === undefined ? 'http' : 'https',
      isHostAllowed: hostFilter(host, options.allowedHosts ?? []),
      connections,
      faults,
      recorder: options.recorder,
      onError: options.onError,
      proxies,
      rates: options.requestsPerSecond === undefined ? undefined : new Rates(options.requestsPerSecond),
      isDraining: () => drain.isOn,
      onRequest: (entry) => observers.onRequest(entry),
    })
    const server = httpServer(options.tls, listener)
    connections.attach(server)
    const port = await listen(server, options.port ?? 0, host)
    const parts = { app, places, disk, connections, listener, dataDir }
    const admin = await listenBeside(parts, observers).catch(async (error: unknown) => {
      await shutDown(server, connections, 0)
      throw error
    })
    const sweeper = setInterval(() => void sweep(app, places).catch(tellError), SWEEP_MS)
    sweeper.unref()
    let closing: Promise<void> | undefined
    const close = async (): Promise<void> => {
      clearInterval(sweeper)
      drain.isOn = true
      await admin.close()
      await shutDown(server, connections, options.drainMs ?? 500)
      connections.close()
      await markPlaces(store, places).catch(tellError)
      await app.blobs.close()
      // A read while it closes, or after, would end the process.
      await listener.idle()
      await store.close()
      await observers.close()
      await lock.release()
    }
    const name = host.includes(':') ? `[${host}]` : host
    const url = `${options.tls === undefined ? 'http' : 'https'}://${name}:${port}`
    return {
      url,
      port,
      faults,
      ...(setupCode === undefined ? {} : { setupUrl: `${url}/setup?code=${setupCode}` }),
      ...(observers.metricsUrl === undefined ? {} : { metricsUrl: observers.metricsUrl }),
      reload(tls) {
        observers.reopen()
        if (tls !== undefined && server instanceof TlsServer) server.setSecureContext(tls)
      },
      close: () => (closing ??= close()),
      [Symbol.asyncDispose]: () => (closing ??= close()),
    }
  } catch (error) {
    for (const step of undo) await step()
    throw error
  }
}

/** Parts of a server that runs. */
interface Parts {
  app: App
  places: readonly Place[]
  disk: DiskBlobs
  connections: Connections
  listener: Listener
  dataDir: string
}

/** Opens what else a server listens on: the socket of its administrator, and the port for figures. */
async function listenBeside(parts: Parts, observers: Observers): Promise<{ close(): Promise<void> }> {
  const { app, places, disk, connections, listener, dataDir } = parts
  const { store, uploads, now } = app
  const startedAt = now()
  await observers
    .listen(() => gaugesOf(parts, startedAt))
    .catch((cause: unknown) => {
      throw cannotListen('127.0.0.1', 'the port for figures', cause)
    })
  const live: LiveServer = {
    openUploads: () => uploads.openIds(),
    async sweep() {
      await sweep(app, places)
      await disk.removeAsides()
    },
    setAside: (names) => disk.setAside(names, (id) => uploads.isOpen(id)),
    status: () => ({
      startedAt,
      connections: connections.count,
      requests: listener.underWay(),
      uploads: uploads.openIds().length,
    }),
  }
  return listenForAdmin({ store, dataDir, now, live })
}

const gaugesOf = ({ app, connections, listener, dataDir }: Parts, startedAt: number): Gauge[] => [
  { name: 'sealsync_connections', help: 'Connections that are open.', value: connections.count },
  { name: 'sealsync_requests_running', help: 'Requests that are worked on.', value: listener.underWay() },
  { name: 'sealsync_uploads_open', help: 'Uploads under way.', value: app.uploads.openIds().length },
  { name: 'sealsync_users', help: 'Accounts.', value: app.store.users.getCount({}) },
  { name: 'sealsync_nodes', help: 'Rooms, folders and files.', value: app.store.nodes.getCount({}) },
  {
    name: 'sealsync_metadata_bytes',
    help: 'Length of the file of the metadata.',
    value: sizeOfFile(dataFileOf(dataDir)) ?? 0,
  },
  { name: 'process_resident_memory_bytes', help: 'Memory of the process.', value: process.memoryUsage.rss() },
  { name: 'process_start_time_seconds', help: 'When the server started.', value: startedAt / 1000 },
]

/** @internal What routes work with, and where content is; without listening. */
export async function createApp(
  store: Store,
  files: BlobFiles,
  options: ServerOptions,
  drain: { readonly isOn: boolean } = { isOn: false },
): Promise<{ app: App; places: readonly Place[]; disk: DiskBlobs }> {
  const clock = options.clock ?? Date
  const now = (): number => clock.now()
  await checkPlace(store, files, () => usesFiles(store))
  await identityOf(store)
  const signer = new Signer(await store.secret())
  const disk = new DiskBlobs(files, store, signer, now, options.urlLifetimeS ?? 900)
  const objects = await openObjects(store, options, now)
  const places = objects === undefined ? [files] : [files, objects]
  const blobs = objects === undefined ? disk : overObjects(store, objects, disk, options, now)
  try {
    await beginGeneration(store, places)
    await blobs.recover()
    const app: App = {
      store,
      blobs,
      grants: new Grants(store, now, options.accessTokenLifetimeS ?? 28_800),
      logins: new LoginLimits(),
      sharePasswords: new SharePasswords(now),
      archives: new Shares(MAX_ARCHIVES_PER_ADDRESS),
      texts: new Shares(MAX_TEXT),
      uploads: new Uploads(store, blobs, now, options.reserveBytes ?? RESERVE),
      signer,
      listings: new ListingCache(now),
      storage: options.s3 === undefined ? (options.storage ?? 'classic') : 's3',
      downloadUrlLifetimeS: options.urlLifetimeS ?? 3600,
      now,
      unready: () => (drain.isOn ? 'stopping' : undefined),
      onError: (error) => options.onError?.(error),
    }
    await sweep(app, [])
    return { app, places, disk }
  } catch (error) {
    await blobs.close()
    throw error
  }
}

/** The object store that was asked for, if it belongs to this one. */
async function openObjects(store: Store, options: ServerOptions, now: () => number): Promise<ObjectStore | undefined> {
  if (options.s3 === undefined) {
    if (usesObjects(store)) {
      throw new SyncError('usage', 'S3_NEEDED', 'Content of this data directory is in an object store', {
        hint: 'Name it with --storage s3 --s3-endpoint URL --s3-bucket NAME.',
      })
    }
    return undefined
  }
  const objects = new ObjectStore(options.s3, now)
  try {
    await objects.check()
    await checkPlace(store, objects, () => usesObjects(store))
    return objects
  } catch (error) {
    objects.close()
    throw error
  }
}

const overObjects = (
  store: Store,
  objects: ObjectStore,
  before: BlobStore,
  { urlLifetimeS, onError }: ServerOptions,
  now: () => number,
): BlobStore => new S3Blobs(store, objects, { before, partUrlLifetimeS: urlLifetimeS ?? 900, now, onError })

/** @internal Removes what has run out. */
export async function sweep(app: App, places: readonly Place[]): Promise<void> {
  await app.grants.sweep()
  await app.uploads.sweep()
  await sweepRedeemed(app.store, app.now())
  await sweepBins(app)
  await app.blobs.sweep()
  await markPlaces(app.store, places)
}

/** Timeouts: content may take as long as it needs, but silence ends a connection; see connections.ts. */
function configure(server: Server): void {
  server.requestTimeout = 0
  server.headersTimeout = 30_000
  server.keepAliveTimeout = 65_000
  server.timeout = 120_000
  server.maxHeadersCount = 200
}

const LISTENING_HINTS: Readonly<Record<string, string>> = {
  EADDRINUSE: 'Another program uses the port: choose another one with --port.',
  EACCES:
    'Ports below 1024 are for root: take one from 1024 on, behind a proxy, or give the service CAP_NET_BIND_SERVICE.',
  EADDRNOTAVAIL: 'This machine does not have that address.',
  ENOTFOUND: 'This machine does not have that address.',
}

function cannotListen(host: string, port: number | string, cause: unknown): SyncError {
  const code = systemCode(cause)
  const hint = LISTENING_HINTS[code ?? '']
  return new SyncError(
    'usage',
    'CANNOT_LISTEN',
    `Cannot listen on ${host}:${port}${code === undefined ? '' : ` (${code})`}`,
    {
      cause,
      ...(hint === undefined ? {} : { hint }),
    },
  )
}

function listen(server: Server, port: number, host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause) => reject(cannotListen(host, port, cause)))
    server.listen(port, host, () => resolve((server.address() as AddressInfo).port))
  })
}

/** Lets answers under way finish for some time, then ends all connections. */
async function shutDown(server: Server, connections: Connections, waitMs: number): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()))
  server.closeIdleConnections()
  const timer = setTimeout(() => connections.destroy(), waitMs)
  await closed
  clearTimeout(timer)
}
