/**
 * The composition root: the only file that wires real parts together. One client is one account on one server.
 * @module
 */
import { randomUUID } from 'node:crypto'
import { lookup } from 'node:dns/promises'
import { rm } from 'node:fs/promises'
import { isIP } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Password } from '../crypto/index.ts'
import { ACCOUNT_PATH } from './api/account.ts'
import { type Api, judgeAnswer, READING_CALLS } from './api/api.ts'
import type { ClientContext } from './client/context.ts'
import { type Guest, type LinkPassword, requireKind } from './client/link-address.ts'
import type { DownloadLink } from './client/links.ts'
import type { RequestLink } from './client/requests.ts'
import { createRunCalls, type RunCalls } from './client/runs.ts'
import { type ClientCalls, createCalls } from './client/surface.ts'
import { type Clock, type Environment, type Random, systemClock, systemRandom, type Ui } from './environment.ts'
import { SyncError } from './errors.ts'
import { hostOf, parseBaseUrl, type Reach, reachOf } from './http/addresses.ts'
import { type Concurrency, createConcurrency } from './http/concurrency.ts'
import { withKnownPins } from './http/options.ts'
import { type RatePlan, withRate } from './http/rate.ts'
import { createReadOnly, readingOnly } from './http/read-only.ts'
import { withRedirects } from './http/redirects.ts'
import { createRetry, type Retry } from './http/retry.ts'
import { allHooks, type TraceHooks, withTrace } from './http/trace.ts'
import type { Send } from './http/types.ts'
import { createDialer, type Dialer, type DialerOptions } from './http/undici.ts'
import { type Home, homePaths } from './local/home.ts'
import { connectionsWithin } from './local/open-files.ts'
import type { Authorizer } from './session/authorizer.ts'
import type { GrantStore } from './session/grant-store.ts'
import type { Logger } from './session/log.ts'
import { type RetryEvent, requireCertificateChecks, Session } from './session/open.ts'
import { createHeldRules } from './sync/held-rules.ts'
import type { RunEvent } from './sync/run.ts'
import { createFileKeyCache } from './transfer/file-key-cache.ts'
import { createKeyring, type Keyring } from './transfer/keyring.ts'
import { createPins } from './transfer/pins.ts'
import { VERSION } from './version.ts'

export { parseBaseUrl } from './http/addresses.ts'
export type { RateEntry, RateLimits, RatePlan } from './http/rate.ts'

/** Who is logged in where, what is kept for later, and how patient a client is. */
export interface ClientOptions {
  /** How to log in. */
  readonly authorizer: (origin: string) => Authorizer
  /** Where the login is kept. Default: memory. */
  readonly store?: GrantStore
  /** The encryption password; asked for at most once, when a key pair has to be unlocked. */
  readonly keyPassword?: () => Promise<Password>
  /**
   * Private directory (made with mode 0700) of all that is kept for later clients: members' keys and encrypted rooms, rules that
   * wait for `accept`, unwrapped file keys (sealed), states of pairs and sets, journals and locks. Clients of all accounts may
   * share it. Default: nothing outlives the client; what runs need on a disk is in a temporary directory until it is closed, and there
   * is no push, pull or both, which have to remember.
   */
  readonly directory?: string
  /** Where members' keys and encrypted rooms are kept, if not in `directory`. */
  readonly pins?: { readonly directory: string }
  /** Where it is kept which rules came from servers, if not in `directory`. */
  readonly rules?: { readonly directory: string }
  /** Name of this login in that directory. Default: address of the server and id of the user, which is asked for once. */
  readonly account?: string
  /** Keep unwrapped file keys, sealed: in `directory` (default true), or in another one. */
  readonly keyCache?: boolean | { readonly directory: string }
  /**
   * Hands file keys also to members whose keys were never seen before, and pins those. Default: false, since it is the server
   * that says who is a member.
   */
  readonly trustNewMembers?: boolean
  /** How connections are made: proxy, authorities, pins, timeouts. */
  readonly transport?: DialerOptions
  /** For file content, over all transfers; a timetable has at least one entry. */
  readonly limitRate?: RatePlan
  /**
   * Send nothing that might change something at the server, or at its storage: refused with `READ_ONLY` before it is sent. Login, renewal
   * and logout go on. Default false.
   */
  readonly readOnly?: boolean
  /**
   * Upload without the private key: nothing asks for the encryption password, and what would need the private key throws
   * `PRIVATE_KEY_ELSEWHERE`. The public key has to be brought here first (`keys.pinPublic`). Default false.
   */
  readonly writeOnly?: boolean
  /** How long a request is repeated while the server is away, in milliseconds; 0: not at all. Default 2 minutes. */
  readonly retryForMs?: number
  /** Most entries of a listing, or of a tree, that are believed. Default 2,000,000. */
  readonly maxEntries?: number
  /** Asks a person, once for each place, whether content may go where it is not encrypted. See `allowPlain`. */
  readonly confirm?: (question: string) => Promise<boolean>
  /** Told what happens to the login; secrets are cut out before. */
  readonly logger?: Logger
  /** Told of requests, answers, headers, connections and TLS, by an allow-list. */
  readonly trace?: TraceHooks
  readonly environment?: Partial<Environment>
  readonly onEvent?: (event: RunEvent) => void
}

/**
 * One account on one server. Runs (`upload`, `download`, `sync`, `backups`) tell how far they came: an abort resolves with a
 * summary whose `stoppedBy` says so, once they have begun. Everything else rejects with `signal.reason`. Either way nothing
 * half-done is visible, and the same call later goes on or starts over.
 */
export interface Client extends ClientCalls, RunCalls {
  readonly origin: string
  readonly session: Session
  readonly api: Api
  readonly keyring: Keyring
  readonly clock: Clock
  /** What runs work with. */
  readonly context: ClientContext
  /** Waits for nothing: stop what runs by its signal first. Wipes keys, closes connections, removes what was temporary. */
  close(): Promise<void>
  /** As `close`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>
}

/** To one server at most; a near one gets no more than 16. */
const CONNECTIONS = 128

/** How far the API's own host is from here: storage may be as near, but not nearer. */
async function reachOfHost(host: string): Promise<Reach> {
  if (isIP(host) !== 0) return reachOf(host)
  const found = await lookup(host, { all: true }).catch(() => [])
  const reaches = found.map(({ address }) => reachOf(address))
  // The farthest counts: a server names its own addresses, and must not come closer by adding one.
  if (reaches.length === 0 || reaches.includes('public')) return 'public'
  return reaches.includes('private') ? 'private' : 'loopback'
}

const noPassword = async (): Promise<Password> => {
  throw new SyncError('key', 'PASSWORD_NEEDED', 'The encryption password is needed to unlock the key pair', {
    hint: 'Give it with --key-password-file or --key-password-command.',
  })
}

/** Repeats requests, tells of it, and tells whoever listens that the server is too busy. One for all: what waits for it waits together. */
function createPatience(
  clock: Clock,
  random: Random,
  { onEvent, retryForMs }: Pick<ClientOptions, 'onEvent' | 'retryForMs'>,
) {
  const listeners = new Set<() => void>()
  const onRetry = ({ status, ...event }: RetryEvent) => {
    if (status === 429 || status === 503) for (const listener of listeners) listener()
    onEvent?.({ type: 'retry', ...event })
  }
  const onBusy = (listener: () => void) => {
    listeners.add(listener)
    return () => void listeners.delete(listener)
  }
  const retry = createRetry({
    clock,
    random,
    onRetry,
    onWaiting: (event) => onEvent?.({ type: 'waiting', ...event }),
    ...(retryForMs === undefined ? {} : { retryForMs }),
  })
  return { retry, onBusy }
}

/**
 * Connections to where content is kept; made when the first one is needed.
 *
 * @param own - Sends what the API's own host keeps, over the connections that are there. Absent: that has connections of its own, too.
 */
function createStorage(origin: string, own: Send | undefined, { wrap }: Concurrency, options: DialerOptions): Dialer {
  let dialer: Promise<Dialer> | undefined
  let send: Send | undefined
  return {
    async send(request) {
      if (own !== undefined && request.url.startsWith(`${origin}/`)) return own(request)
      dialer ??= reachOfHost(hostOf(new URL(origin))).then((near) =>
        createDialer({ ...options, allow: (reach) => reach === 'public' || near === 'loopback' || near === reach }),
      )
      send ??= wrap(async (one) => (await dialer!).send(one))
      return send(request)
    },
    close: async () => (await dialer)?.close(),
  }
}

/** Sends without the login: to where content is, and with the tokens of single transfers. */
function plainSend(
  send: Send,
  retry: Retry,
  origin: string,
  clock: Clock,
  { limitRate = {}, readOnly }: Pick<ClientOptions, 'limitRate' | 'readOnly'>,
): Send {
  const plain = retry(withRate(withRedirects(send), limitRate, clock))
  return readOnly === true ? readingOnly(plain, createReadOnly(origin)) : plain
}

/** What a session is given only where it is there. */
const loginOf = ({ logger, store }: ClientOptions, ui: Ui | undefined) => ({
  ...(logger === undefined ? {} : { logger }),
  ...(store === undefined ? {} : { store }),
  ...(ui === undefined ? {} : { ui }),
})

/** What goes to storage passes no session, which would tell of it. */
const tracedDialer = ({ send, close }: Dialer, trace: TraceHooks, clock: Clock): Dialer => ({
  send: withTrace(send, trace, () => clock.monotonic()),
  close,
})

/** To the API and to storage, with as many requests at once as each of them bears. */
function createConnections(origin: string, options: Pick<ClientOptions, 'transport' | 'trace'>, clock: Clock) {
  const most = options.transport?.connections ?? connectionsWithin(CONNECTIONS)
  const trace = allHooks([options.trace, options.transport?.trace])
  const named = {
    userAgent: `sealsync|${VERSION}`,
    ownOrigins: [origin],
    ...options.transport,
    connections: most,
    trace,
  }
  const transport = withKnownPins(origin, named)
  const concurrency = createConcurrency(most, clock)
  const { send, close } = createDialer(transport)
  const dialer: Dialer = { send: concurrency.wrap(send), close }
  // Content goes one way at a time over each of its connections: HTTP/2 would only put windows of its own in between.
  const own = transport.http2 === true ? undefined : dialer.send
  const { onChange } = concurrency
  return {
    transport,
    dialer,
    storage: tracedDialer(createStorage(origin, own, concurrency, { ...transport, http2: false }), trace, clock),
    pace: { most, allowed: () => concurrency.allowed(origin), onChange },
  }
}

/**
 * Makes a client. Nothing is sent before the first call.
 *
 * @param baseUrl - `https://HOST`; plain http for literal loopback addresses only.
 * @throws {SyncError} `URL_INVALID`, `URL_INSECURE`, `TLS_DISABLED`.
 */
export function createClient(baseUrl: string, options: ClientOptions): Client {
  const clock = options.environment?.clock ?? systemClock
  const random = options.environment?.random ?? systemRandom
  const ui: Ui | undefined = options.environment?.ui
  const { origin } = parseBaseUrl(baseUrl)
  const { retry, onBusy } = createPatience(clock, random, options)
  const { transport, dialer, storage, pace } = createConnections(origin, options, clock)
  const session = Session.create(
    baseUrl,
    { ...options.authorizer(origin), judge: judgeAnswer },
    {
      transport,
      dialer,
      clock,
      retry,
      onWarning: (message) => options.onEvent?.({ type: 'warning', code: 'LOGIN', message }),
      probe: ACCOUNT_PATH,
      // Who uses a client logs in when it suits them: it may ask a person.
      autoLogin: false,
      readOnly: options.readOnly === true && { reads: READING_CALLS },
      ...loginOf(options, ui),
    },
  )

  // Nobody can guess a temporary one; it is made when something is put into it.
  const paths = homePaths(options.directory ?? join(tmpdir(), `sealsync-${randomUUID()}`))
  const pins = createPins({
    origin,
    clock,
    directory: options.pins?.directory ?? (options.directory && paths.pins),
    trustNew: options.trustNewMembers,
    onEvent: options.onEvent,
  })
  const api: Api = {
    origin,
    places: pins,
    send: session.send,
    sendPlain: plainSend(storage.send, retry, origin, clock, options),
    ...(options.maxEntries === undefined ? {} : { maxEntries: options.maxEntries }),
  }
  const { keyCache = options.directory !== undefined } = options
  const keysPath = typeof keyCache === 'object' ? keyCache.directory : options.directory && keyCache && paths.fileKeys
  const { writeOnly = false } = options
  const cache = keysPath && !writeOnly ? createFileKeyCache({ directory: keysPath, origin, clock }) : undefined
  const password = options.keyPassword ?? noPassword
  const keyring = createKeyring(api, password, cache, pins, options.account, writeOnly)
  const rules = createHeldRules(options.rules?.directory ?? (options.directory && paths.rules))
  const home: Home = {
    ...paths,
    isLasting: options.directory !== undefined,
    account: async (signal) => options.account ?? `${origin} ${await keyring.userId(signal)}`,
  }
  const context: ClientContext = {
    api,
    keyring,
    clock,
    random,
    rules,
    home,
    onEvent: options.onEvent,
    onBusy,
    pace,
    confirm: options.confirm,
  }
  const close = async () => {
    await keyring.close()
    await pins.close()
    await session.close()
    await storage.close()
    if (options.directory === undefined) await rm(paths.directory, { recursive: true, force: true })
  }
  return {
    ...createCalls(context, password),
    origin,
    session,
    api,
    keyring,
    clock,
    context,
    ...createRunCalls(context),
    close,
    [Symbol.asyncDispose]: close,
  }
}

/** How a link is used; nobody is logged in. */
export interface LinkOptions
  extends Pick<
    ClientOptions,
    'directory' | 'transport' | 'limitRate' | 'readOnly' | 'retryForMs' | 'trace' | 'environment' | 'onEvent'
  > {
  /** That of an encrypted file is never sent; see `LinkPassword`. */
  readonly password?: LinkPassword
}

/** A server as it is to somebody without an account. Requests of its API follow no redirects. */
function createGuest(origin: string, options: LinkOptions): Guest {
  requireCertificateChecks()
  const clock = options.environment?.clock ?? systemClock
  const random = options.environment?.random ?? systemRandom
  const { retry } = createPatience(clock, random, options)
  const { dialer, storage } = createConnections(origin, options, clock)
  const paths = homePaths(options.directory ?? join(tmpdir(), `sealsync-${randomUUID()}`))
  const send = retry(tracedDialer(dialer, options.trace ?? {}, clock).send)
  return {
    api: {
      origin,
      send: options.readOnly === true ? readingOnly(send, createReadOnly(origin, READING_CALLS)) : send,
      sendPlain: plainSend(storage.send, retry, origin, clock, options),
    },
    clock,
    random,
    home: { ...paths, isLasting: options.directory !== undefined },
    onEvent: options.onEvent,
    async close() {
      await dialer.close()
      await storage.close()
      if (options.directory === undefined) await rm(paths.directory, { recursive: true, force: true })
    },
  }
}

/**
 * Opens a link of something to fetch. Nothing is sent before the first call.
 *
 * @param link - `https://HOST/public/download-shares/KEY`; plain http for literal loopback addresses only.
 * @throws {SyncError} `LINK_INVALID`, `URL_INSECURE`, `TLS_DISABLED`.
 */
export async function openDownloadLink(link: string, options: LinkOptions = {}): Promise<DownloadLink> {
  const { origin, accessKey } = requireKind(link, 'download')
  const { createDownloadLink } = await import('./client/links.ts')
  return createDownloadLink(createGuest(origin, options), accessKey, options.password)
}

/**
 * Opens a link of a file request. Nothing is sent before the first call.
 *
 * @param link - `https://HOST/public/upload-shares/KEY`; plain http for literal loopback addresses only.
 * @throws {SyncError} as `openDownloadLink`.
 */
export async function openRequestLink(link: string, options: LinkOptions = {}): Promise<RequestLink> {
  const { origin, accessKey } = requireKind(link, 'request')
  const { createRequestLink } = await import('./client/requests.ts')
  return createRequestLink(createGuest(origin, options), accessKey, options.password)
}
