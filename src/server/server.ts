/**
 * The embedded server: opens the data directory, wires the parts together and listens. It stores ciphertext and wrapped
 * keys and has no code to open either.
 * @module
 */

import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SyncError } from '../../crypto/errors.ts'
import { systemCode } from '../errors.ts'
import { BlobFiles } from './blob-files.ts'
import type { BlobStore } from './blobs.ts'
import type { App, Handler } from './call.ts'
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
import { createListener } from './plumbing.ts'
import type { Recorder } from './recorder.ts'
import { Router } from './router.ts'
import { addRoutes } from './routes/index.ts'
import { S3Blobs } from './s3/blobs.ts'
import type { S3Options } from './s3/client.ts'
import { ObjectStore } from './s3/objects.ts'
import { SharePasswords } from './share-passwords.ts'
import { sweepRedeemed } from './shares.ts'
import { Signer } from './signing.ts'
import { openStore, type Store, usesObjects } from './store.ts'
import { Uploads } from './uploads.ts'
import { addUser, type NewAccount } from './users.ts'

/** Where a server keeps its data, where it listens, and for whom. */
export interface ServerOptions {
  /** Directory of all data; made, with mode 0700, if it does not exist. Default: a temporary one, removed by `close`. */
  data?: string
  /** Another name of `data`. */
  dataDir?: string
  /** Accounts to make, unless there are accounts of these names. */
  users?: readonly NewAccount[]
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
  /** Told of unexpected errors, which clients see as status 500 or a broken connection. */
  onError?: (error: unknown) => void
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
async function addUsers(dataDir: string, users: readonly NewAccount[]): Promise<void> {
  for (const user of users) {
    await addUser(dataDir, user).catch((error) => {
      if (!(error instanceof SyncError) || error.code !== 'USER_EXISTS') throw error
    })
  }
}

async function start(dataDir: string, options: ServerOptions): Promise<RunningServer> {
  const host = options.host ?? '127.0.0.1'
  if (options.tls === undefined && !isLoopback(host)) {
    throw new SyncError('usage', 'TLS_REQUIRED', 'Listening beyond loopback needs TLS', {
      hint: 'Give a certificate and a key, or listen on 127.0.0.1.',
    })
  }
  await addUsers(dataDir, options.users ?? [])
  const lock = await takeInstanceLock(dataDir)
  const undo: (() => unknown)[] = [() => lock.release()]
  try {
    const files = new BlobFiles(dataDir)
    const store = await openStore(dataDir, files, { isServed: false })
    undo.unshift(() => store.close())
    const { app, places } = await createApp(store, files, options)
    undo.unshift(() => app.blobs.close())
    const faults = new FaultPlan(options.faults)
    const connections = new Connections({ ...CONNECTION_LIMITS, ...options.connectionLimits })
    undo.unshift(() => connections.close())
    const router = new Router<Handler>()
    addRoutes(router)
    const listener = createListener({
      app,
      router,
      scheme: options.tls === undefined ? 'http' : 'https',
      isHostAllowed: hostFilter(host, options.allowedHosts ?? []),
      connections,
      faults,
      recorder: options.recorder,
      onError: options.onError,
    })
    const often = { connectionsCheckingInterval: HEADERS_CHECK_MS }
    const server =
      options.tls === undefined
        ? createServer(often, listener)
        : createTlsServer({ ...options.tls, ...often, handshakeTimeout: 30_000 }, listener)
    configure(server)
    connections.attach(server)
    const port = await listen(server, options.port ?? 0, host)
    const tellError = (error: unknown): void => options.onError?.(error)
    const sweeper = setInterval(() => void sweep(app, places).catch(tellError), SWEEP_MS)
    sweeper.unref()
    let closing: Promise<void> | undefined
    const close = async (): Promise<void> => {
      clearInterval(sweeper)
      await shutDown(server, connections)
      connections.close()
      await markPlaces(store, places).catch(tellError)
      await app.blobs.close()
      // A read while it closes, or after, would end the process.
      await listener.idle()
      await store.close()
      await lock.release()
    }
    const name = host.includes(':') ? `[${host}]` : host
    return {
      url: `${options.tls === undefined ? 'http' : 'https'}://${name}:${port}`,
      port,
      faults,
      close: () => (closing ??= close()),
      [Symbol.asyncDispose]: () => (closing ??= close()),
    }
  } catch (error) {
    for (const step of undo) await step()
    throw error
  }
}

async function createApp(
  store: Store,
  files: BlobFiles,
  options: ServerOptions,
): Promise<{ app: App; places: readonly Place[] }> {
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
      onError: (error) => options.onError?.(error),
    }
    await sweep(app, [])
    return { app, places }
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

async function sweep(app: App, places: readonly Place[]): Promise<void> {
  await app.grants.sweep()
  await app.uploads.sweep()
  await sweepRedeemed(app.store, app.now())
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

function cannotListen(host: string, port: number, cause: unknown): SyncError {
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

/** Lets answers under way finish for a moment, then ends all connections. */
async function shutDown(server: Server, connections: Connections): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()))
  server.closeIdleConnections()
  const timer = setTimeout(() => connections.destroy(), 500)
  await closed
  clearTimeout(timer)
}
