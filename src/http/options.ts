/**
 * The options of a dialer: what they are, and the reading of them. Everything is checked before the first connection, and all
 * problems are told at once.
 * @module
 */
import { X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import { createSecureContext, type SecureContext, type SecureContextOptions } from 'node:tls'
import { SyncError, type SyncErrorCode } from '../errors.ts'
import type { Reach } from './addresses.ts'
import { authorities, certificatesOf, readDirectory } from './authorities.ts'
import { type FirstUse, isPin, isPinnedHost, memoryPinStore, type PinStore, type ServerPin } from './pins.ts'
import { type Exception, PROXY_FORM, type ProxyServer, parseException, parseProxy, splitExceptions } from './proxy.ts'
import type { TraceHooks } from './trace.ts'

/** A certificate for us, with its key: PEM texts, or PKCS#12. */
export type ClientCertificate =
  | { readonly cert: string; readonly key: string; readonly passphrase?: string }
  /** PKCS#12: bytes, or their base64. */
  | { readonly pfx: Uint8Array | string; readonly passphrase?: string }

/** How connections are made. All values but functions and `pinStore` are plain, so that a file can
 * hold them. */
export interface DialerOptions {
  /** Connections per origin. Default 16. */
  readonly connections?: number
  /** From the first packet to the end of TLS, proxy included. Default 10 s. */
  readonly connectTimeoutMs?: number
  /**
   * From the request, or the end of a large body, to the end of the answer's headers. Default 60 s. The HTTP library looks at this and
   * at `bodyTimeoutMs` once a second; `answerTimeoutMs` and `totalTimeoutMs` are exact.
   */
  readonly headersTimeoutMs?: number
  /** Longest pause inside a body. Default 60 s. */
  readonly bodyTimeoutMs?: number
  /**
   * Bodies that stay below 1 KiB/s over this much waiting count as stalled; so do large ones that are sent when the next 512 KiB do
   * not leave within it. Default 2 minutes.
   */
  readonly stallMs?: number
  /**
   * One request from its start to the end of its answer's body, waiting for a connection included; with a body of 1 MiB or more,
   * from its turn on. Default: no limit.
   */
  readonly totalTimeoutMs?: number
  /** An answer that is read at once, from the moment its request is sent to its end. Default 5 minutes. */
  readonly answerTimeoutMs?: number
  /** How long an idle connection is kept for the next request; 0: one connection per request. Default 20 s. */
  readonly keepAliveMs?: number
  /** Silence on a connection after which the system asks whether the other end is there; 0: never. Default 60 s. */
  readonly tcpKeepAliveMs?: number
  /**
   * Let own servers compress answers that are read at once (gzip, Brotli, zstd): unpacked they have the same limit, and at most 200 times
   * their packed size. Streams, and so content, are never compressed. Default false.
   */
  readonly compression?: boolean
  /**
   * Offer HTTP/2 beside HTTP/1.1 to servers with TLS, for requests with bodies below 1 MiB: they share one connection, `connections` of
   * them at once. Default false.
   */
  readonly http2?: boolean
  /** Largest answer read at once. Default 16 MiB. Streams have no limit here. */
  readonly maxBodyBytes?: number
  /** Error answers are cut there. Default 64 KiB. */
  readonly maxErrorBytes?: number

  /**
   * `http://`, `https://`, `socks5://` (names resolved here) or `socks5h://` (by the proxy), with or without user name and
   * password. Literal loopback targets go through a proxy on literal loopback only.
   */
  readonly proxy?: string
  readonly proxyUser?: string
  readonly proxyPassword?: string
  /**
   * Targets reached directly: `*`, names with all below them, `.suffix`, IP addresses, networks (CIDR), `host:port`. One text
   * is split at commas and white space.
   */
  readonly noProxy?: string | readonly string[]
  /**
   * Where `allow` is given: true lets an http, https or socks5h proxy resolve names unchecked, so that it must refuse private
   * addresses itself. Default: names are resolved here, and the proxy is asked for the address that was checked.
   */
  readonly proxyResolves?: boolean

  /**
   * Asked once for each connection to an HTTP proxy: the value of `Proxy-Authorization` (`Negotiate …` from a Kerberos library, say).
   * In place of `proxyUser` and `proxyPassword`.
   */
  readonly proxyAuthorization?: (proxyHost: string) => string | Promise<string>

  /**
   * PEM of additional certificate authorities, one or more in each. They come beside the usual ones and those that
   * `NODE_EXTRA_CA_CERTS` and `SSL_CERT_DIR` name.
   */
  readonly ca?: readonly string[]
  /** A directory with more of them, a file each (`.pem`, `.crt`, `.cer`); others are passed over. */
  readonly caDirectory?: string
  /**
   * The one certificate that the server may have: its SHA-256 fingerprint in hexadecimal, or its PEM. It is compared before anything is
   * sent, in place of authority, name and validity.
   */
  readonly acceptCertificate?: string
  /** Looks at the chain that a server presents, its own certificate first, after all other checks; throws to refuse it. */
  readonly checkServer?: (chain: readonly ServerPin[], origin: string) => void | Promise<void>
  /** TLS 1.2 ciphers and TLS 1.3 suites, in OpenSSL's form. Default: Node's. */
  readonly ciphers?: string
  /** Groups for the key exchange, in OpenSSL's form: `X25519:P-256`. Default: OpenSSL's. */
  readonly groups?: string
  /** PEM of certificate revocation lists: then the server's chain must have one, and not be on it. */
  readonly crl?: string
  readonly clientCertificate?: ClientCertificate
  /**
   * Two or more `sha256/BASE64` of public keys; the server's own certificate must have one of them. Or `first-use`: the key that is
   * seen first is kept in `pinStore`, and must stay. A session of a server of Proton's has that by default; `off`: it has not.
   */
  readonly pins?: readonly string[] | 'first-use' | 'off'
  /** For `first-use`; without that, of no use. Default: in memory. */
  readonly pinStore?: PinStore
  /** For `first-use`: keys that may follow the one that was seen first. */
  readonly backupPins?: readonly string[]
  /** Default TLSv1.2. */
  readonly minTls?: 'TLSv1.2' | 'TLSv1.3'
  /** Local address to connect from. */
  readonly bindAddress?: string
  readonly family?: 4 | 6

  /** Sent with every request; a header of the request itself wins. */
  readonly headers?: Readonly<Record<string, string>>
  readonly userAgent?: string
  /** Appended to `userAgent` after a `|`. */
  readonly userAgentSuffix?: string
  /** Origins that `clientCertificate`, `pins` and `headers` are for; others never see them. Default: every origin. */
  readonly ownOrigins?: readonly string[]
  /** Addresses this dialer may connect to; checked on the address actually used. Default: all. */
  readonly allow?: (reach: Reach) => boolean
  /** Told of connections, and of TLS. */
  readonly trace?: TraceHooks
}

/** Options as they are used. */
export interface Transport {
  readonly connections: number
  readonly connectTimeoutMs: number
  readonly headersTimeoutMs: number
  readonly bodyTimeoutMs: number
  readonly stallMs: number
  readonly totalTimeoutMs: number | undefined
  readonly answerTimeoutMs: number
  readonly keepAliveMs: number | undefined
  readonly maxBodyBytes: number
  readonly maxErrorBytes: number
  readonly proxy: ProxyServer | undefined
  readonly exceptions: readonly Exception[]
  readonly proxyResolves: boolean
  /** With the client certificate, and without; made when asked for, since to read all authorities takes long. */
  readonly contexts: { readonly own: SecureContext; readonly other: SecureContext }
  readonly pins: ReadonlySet<string> | undefined
  readonly firstUse: FirstUse | undefined
  readonly bindAddress: string | undefined
  readonly family: 4 | 6 | undefined
  readonly headers: Readonly<Record<string, string>>
  readonly userAgent: string | undefined
  readonly isOwn: (origin: string) => boolean
  readonly accepted: string | undefined
  readonly checkServer: DialerOptions['checkServer']
  readonly proxyAuthorization: DialerOptions['proxyAuthorization']
  readonly tcpKeepAliveMs: number
  readonly compression: boolean
  readonly http2: boolean
  readonly allow: ((reach: Reach) => boolean) | undefined
  readonly trace: TraceHooks | undefined
}

/** Collects what is wrong. */
type Report = (code: SyncErrorCode, text: string) => void

const MAX_MS = 86_400_000
const MAX_BYTES = 1024 ** 3

const NUMBERS = [
  ['connections', 1, 1_000],
  ['connectTimeoutMs', 1, MAX_MS],
  ['headersTimeoutMs', 1, MAX_MS],
  ['bodyTimeoutMs', 1, MAX_MS],
  ['stallMs', 1, MAX_MS],
  ['totalTimeoutMs', 1, MAX_MS],
  ['answerTimeoutMs', 1, MAX_MS],
  ['keepAliveMs', 0, MAX_MS],
  ['tcpKeepAliveMs', 0, MAX_MS],
  ['maxBodyBytes', 1, MAX_BYTES],
  ['maxErrorBytes', 1, MAX_BYTES],
] as const

function checkNumbers(options: DialerOptions, report: Report): void {
  for (const [name, least, most] of NUMBERS) {
    const value = options[name]
    if (value === undefined || (Number.isInteger(value) && value >= least && value <= most)) continue
    report('TRANSPORT_INVALID', `${name} must be a whole number from ${least} to ${most}`)
  }
}

/** A list of texts, or nothing when it is something else, which is reported. */
function listOf(name: 'ca' | 'noProxy' | 'pins' | 'backupPins' | 'ownOrigins', options: DialerOptions, report: Report) {
  const value: unknown = options[name]
  if (value === undefined) return undefined
  if (Array.isArray(value) && value.every((entry) => typeof entry === 'string')) return value as string[]
  report('TRANSPORT_INVALID', `${name} must be a list of texts`)
  return undefined
}

function readProxy(options: DialerOptions, report: Report): ProxyServer | undefined {
  const { proxy, proxyUser, proxyPassword } = options
  if (proxy === undefined) {
    if (proxyUser !== undefined || proxyPassword !== undefined) {
      report('PROXY_INVALID', 'proxyUser and proxyPassword need proxy')
    }
    return undefined
  }
  const read = typeof proxy === 'string' ? parseProxy(proxy, proxyUser, proxyPassword) : PROXY_FORM
  if (typeof read !== 'string') return read
  report('PROXY_INVALID', read)
  return undefined
}

function readExceptions(options: DialerOptions, report: Report): Exception[] {
  const { noProxy } = options
  const listed = typeof noProxy === 'string' ? splitExceptions(noProxy) : listOf('noProxy', options, report)
  return (listed ?? []).flatMap((text, at) => {
    const exception = parseException(text)
    if (exception === undefined) {
      report('PROXY_INVALID', `noProxy entry ${at + 1} is no name, suffix, IP address, network or host:port`)
    }
    return exception ?? []
  })
}

function readFirstUse(options: DialerOptions, report: Report): FirstUse | undefined {
  const { pins, pinStore, backupPins } = options
  if (pinStore !== undefined && (typeof pinStore?.load !== 'function' || typeof pinStore.save !== 'function')) {
    report('PINS_INVALID', 'pins need a pinStore with load and save')
  }
  if (pins !== 'first-use') {
    if (backupPins !== undefined) report('PINS_INVALID', 'backupPins need pins: first-use')
    return undefined
  }
  const backup = listOf('backupPins', options, report) ?? []
  if (!backup.every(isPin)) report('PINS_INVALID', 'backupPins must look like sha256/BASE64, with 32 bytes in base64')
  return { store: pinStore ?? memoryPinStore(), backup: new Set(backup) }
}

function readPins(options: DialerOptions, report: Report): Set<string> | undefined {
  if (options.pins === 'first-use' || options.pins === 'off') return undefined
  const pins = listOf('pins', options, report)
  if (pins === undefined) return undefined
  if (!pins.every(isPin)) report('PINS_INVALID', 'pins must look like sha256/BASE64, with 32 bytes in base64')
  if (new Set(pins).size < 2) {
    report('PINS_INVALID', 'pins must be two or more: one in use, and one of a key kept as a backup')
  }
  return new Set(pins)
}

function readAuthorities(options: DialerOptions, report: Report): () => string[] | undefined {
  const { caDirectory } = options
  const given = listOf('ca', options, report)?.flatMap((text, at) => {
    const found = certificatesOf(text)
    if (found === undefined) report('CA_INVALID', `ca entry ${at + 1} is not one or more certificates in PEM form`)
    return found ?? []
  })
  if (caDirectory === undefined) return () => authorities(given)
  const found = typeof caDirectory === 'string' ? readDirectory(caDirectory) : undefined
  if (found === undefined || found.length === 0) report('CA_INVALID', 'caDirectory is no directory with certificates')
  return () => authorities([...(given ?? []), ...(found ?? [])])
}

/** The fingerprint of the one certificate that is accepted, as Node writes it. */
function readAccepted({ acceptCertificate: given }: DialerOptions, report: Report): string | undefined {
  if (given === undefined) return undefined
  const pem = typeof given === 'string' ? certificatesOf(given) : undefined
  if (pem?.length === 1) return new X509Certificate(pem[0]!).fingerprint256
  const hex =
    typeof given === 'string'
      ? given
          .replace(/^sha256[:/]/i, '')
          .replaceAll(':', '')
          .toUpperCase()
      : ''
  if (/^[0-9A-F]{64}$/.test(hex)) return hex.match(/../g)!.join(':')
  report('CA_INVALID', 'acceptCertificate must be a SHA-256 fingerprint in hexadecimal, or one certificate in PEM form')
  return undefined
}

/** Options that OpenSSL reads: what it does not understand must not come to nothing. */
function readTlsTexts(options: DialerOptions, report: Report): SecureContextOptions {
  const { ciphers, groups, crl } = options
  const texts: SecureContextOptions = {
    ...(ciphers === undefined ? {} : { ciphers }),
    ...(groups === undefined ? {} : { ecdhCurve: groups }),
    ...(crl === undefined ? {} : { crl }),
  }
  for (const [name, value] of Object.entries(texts)) {
    try {
      if (typeof value === 'string' && value !== '') {
        createSecureContext({ [name]: value })
        continue
      }
    } catch {}
    const shown = name === 'ecdhCurve' ? 'groups' : name
    report('TRANSPORT_INVALID', `${shown} must be a text in the form of OpenSSL, of what it has`)
    delete texts[name as keyof SecureContextOptions]
  }
  return texts
}

const CERTIFICATE_FORM = 'clientCertificate must have cert and key (PEM), or pfx (PKCS#12, bytes or base64)'

function certificateParts(certificate: ClientCertificate): SecureContextOptions | undefined {
  if (typeof certificate !== 'object' || certificate === null) return undefined
  const { passphrase } = certificate
  if (passphrase !== undefined && typeof passphrase !== 'string') return undefined
  const secret = passphrase === undefined ? {} : { passphrase }
  if ('pfx' in certificate) {
    const { pfx } = certificate
    if (typeof pfx === 'string') return { pfx: Buffer.from(pfx, 'base64'), ...secret }
    return pfx instanceof Uint8Array ? { pfx: Buffer.from(pfx), ...secret } : undefined
  }
  const { cert, key } = certificate
  return typeof cert === 'string' && cert !== '' && typeof key === 'string' && key !== ''
    ? { cert, key, ...secret }
    : undefined
}

/** What OpenSSL says, in words of ours: its own name functions and files. */
function certificateProblem(error: unknown): [code: SyncErrorCode, text: string] {
  const said = error instanceof Error ? `${'code' in error ? error.code : ''} ${error.message}` : ''
  if (/bad decrypt|mac verify failure|empty password|password/i.test(said)) {
    return ['CLIENT_CERT_PASSPHRASE', 'the passphrase of clientCertificate is wrong or missing']
  }
  if (/key.values.mismatch|key.type.mismatch/i.test(said)) {
    return ['CLIENT_CERT_MISMATCH', 'the key of clientCertificate is not the key of its certificate']
  }
  if (/Unsupported PKCS12/i.test(said)) {
    return [
      'CLIENT_CERT_INVALID',
      'clientCertificate is PKCS#12 with ciphers that are no longer supported: export it again',
    ]
  }
  return ['CLIENT_CERT_INVALID', 'clientCertificate cannot be read: it needs a certificate and its key']
}

function readContexts(options: DialerOptions, report: Report): Transport['contexts'] {
  const { minTls = 'TLSv1.2', clientCertificate } = options
  if (minTls !== 'TLSv1.2' && minTls !== 'TLSv1.3') report('TRANSPORT_INVALID', 'minTls must be TLSv1.2 or TLSv1.3')
  const ca = readAuthorities(options, report)
  const texts = readTlsTexts(options, report)
  const certificate = readCertificate(clientCertificate, report)
  let base: SecureContextOptions | undefined
  const baseOf = () => {
    base ??= { minVersion: minTls === 'TLSv1.3' ? minTls : 'TLSv1.2', ...texts, ca: ca() }
    return base
  }
  let [own, other]: (SecureContext | undefined)[] = []
  return {
    get other() {
      other ??= createSecureContext(baseOf())
      return other
    },
    get own() {
      own ??= certificate === undefined ? this.other : createSecureContext({ ...baseOf(), ...certificate })
      return own
    },
  }
}

function readCertificate(certificate: ClientCertificate | undefined, report: Report): SecureContextOptions | undefined {
  if (certificate === undefined) return undefined
  const parts = certificateParts(certificate)
  if (parts === undefined) {
    report('CLIENT_CERT_INVALID', CERTIFICATE_FORM)
    return undefined
  }
  try {
    createSecureContext({ ca: [], ...parts })
    return parts
  } catch (error) {
    report(...certificateProblem(error))
    return undefined
  }
}

/** Headers that have an owner: the login, the proxy, the HTTP library, or an option of their own. */
const RESERVED =
  /^(authorization|cookie2?|set-cookie|host|user-agent|accept-encoding|content-.*|transfer-encoding|connection|keep-alive|te|trailer|upgrade|expect|range|date|proxy-.*|http2-settings|x-(http-)?method(-override)?|__proto__)$/

function readHeaders(options: DialerOptions, report: Report): Record<string, string> {
  const headers: Record<string, string> = Object.create(null)
  const given: unknown = options.headers ?? {}
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    report('HEADERS_INVALID', 'headers must be names with texts')
    return headers
  }
  for (const [at, [name, value]] of Object.entries(given).entries()) {
    const key = name.toLowerCase()
    if (!/^[!#$%&'*+.^_`|~0-9a-z-]{1,100}$/.test(key)) {
      report('HEADERS_INVALID', `header ${at + 1} has a name that HTTP does not allow`)
    } else if (RESERVED.test(key)) {
      report('HEADERS_INVALID', `header ${key} cannot be set`)
    } else if (typeof value !== 'string' || !/^[\t\x20-\x7e\x80-\xff]{0,4096}$/.test(value)) {
      report('HEADERS_INVALID', `header ${key} must be a text of at most 4096 characters that HTTP allows`)
    } else if (key in headers) {
      report('HEADERS_INVALID', `header ${key} is there twice`)
    } else {
      headers[key] = value
    }
  }
  return headers
}

function readUserAgent({ userAgent, userAgentSuffix }: DialerOptions, report: Report): string | undefined {
  const parts: unknown[] = [userAgent, userAgentSuffix].filter((part) => part !== undefined)
  if (!parts.every((part) => typeof part === 'string' && /^[\x20-\x7e]{1,256}$/.test(part))) {
    report('HEADERS_INVALID', 'userAgent and userAgentSuffix must have 1 to 256 printable ASCII characters')
  }
  return parts.length === 0 ? undefined : parts.join('|')
}

function readOwnOrigins(options: DialerOptions, report: Report): Transport['isOwn'] {
  const listed = listOf('ownOrigins', options, report)
  if (listed === undefined) return () => true
  if (!listed.every((text) => URL.canParse(text) && /^https?:/.test(text))) {
    report('TRANSPORT_INVALID', 'ownOrigins must be origins like https://files.example.org')
    return () => false
  }
  const own = new Set(listed.map((text) => new URL(text).origin))
  return (origin) => own.has(origin)
}

function readHook<K extends 'checkServer' | 'proxyAuthorization'>(name: K, options: DialerOptions, report: Report) {
  const hook: DialerOptions[K] = options[name]
  if (hook === undefined || typeof hook === 'function') return hook
  report('TRANSPORT_INVALID', `${name} must be a function`)
  return undefined
}

function readSwitch(name: 'compression' | 'http2', options: DialerOptions, report: Report): boolean {
  const value: unknown = options[name] ?? false
  if (typeof value !== 'boolean') report('TRANSPORT_INVALID', `${name} must be true or false`)
  return value === true
}

function checkAddresses({ bindAddress, family, proxyResolves }: DialerOptions, report: Report): void {
  const bound = bindAddress === undefined ? 0 : isIP(bindAddress)
  if (bindAddress !== undefined && bound === 0) report('TRANSPORT_INVALID', 'bindAddress must be an IP address')
  if (family !== undefined && family !== 4 && family !== 6) report('TRANSPORT_INVALID', 'family must be 4 or 6')
  else if (family !== undefined && bound !== 0 && bound !== family) {
    report('TRANSPORT_INVALID', 'bindAddress is not of the chosen family')
  }
  if (proxyResolves !== undefined && typeof proxyResolves !== 'boolean') {
    report('TRANSPORT_INVALID', 'proxyResolves must be true or false')
  }
}

/** The options with what a session of that server has without being asked to: see `pins`. */
export function withKnownPins(origin: string, options: DialerOptions = {}): DialerOptions {
  const { hostname } = new URL(origin)
  if (options.pins !== undefined || options.acceptCertificate !== undefined || !isPinnedHost(hostname)) return options
  return { ...options, pins: 'first-use' }
}

/**
 * Reads options.
 *
 * @throws {SyncError} class `usage`, all problems in one message: `PROXY_INVALID`, `PINS_INVALID`, `CA_INVALID`,
 * `CLIENT_CERT_PASSPHRASE`, `CLIENT_CERT_MISMATCH`, `CLIENT_CERT_INVALID`, `HEADERS_INVALID`; `TRANSPORT_INVALID` for the rest,
 * and for several at once.
 */
export function parseTransport(options: DialerOptions): Transport {
  const problems: { code: SyncErrorCode; text: string }[] = []
  const report: Report = (code, text) => void problems.push({ code, text })
  checkNumbers(options, report)
  checkAddresses(options, report)
  const { bindAddress } = options
  const transport: Transport = {
    connections: options.connections ?? 16,
    connectTimeoutMs: options.connectTimeoutMs ?? 10_000,
    headersTimeoutMs: options.headersTimeoutMs ?? 60_000,
    bodyTimeoutMs: options.bodyTimeoutMs ?? 60_000,
    stallMs: options.stallMs ?? 120_000,
    totalTimeoutMs: options.totalTimeoutMs,
    answerTimeoutMs: options.answerTimeoutMs ?? 300_000,
    keepAliveMs: options.keepAliveMs,
    maxBodyBytes: options.maxBodyBytes ?? 16 * 1024 * 1024,
    maxErrorBytes: options.maxErrorBytes ?? 64 * 1024,
    proxy: readProxy(options, report),
    exceptions: readExceptions(options, report),
    proxyResolves: options.proxyResolves ?? false,
    contexts: readContexts(options, report),
    pins: readPins(options, report),
    firstUse: readFirstUse(options, report),
    bindAddress,
    // A local address can reach its own family only, so the lookup must not offer the other.
    family: options.family ?? (bindAddress === undefined ? undefined : isIP(bindAddress) === 6 ? 6 : 4),
    headers: readHeaders(options, report),
    userAgent: readUserAgent(options, report),
    isOwn: readOwnOrigins(options, report),
    accepted: readAccepted(options, report),
    checkServer: readHook('checkServer', options, report),
    proxyAuthorization: readHook('proxyAuthorization', options, report),
    tcpKeepAliveMs: options.tcpKeepAliveMs ?? 60_000,
    compression: readSwitch('compression', options, report),
    http2: readSwitch('http2', options, report),
    allow: options.allow,
    trace: options.trace,
  }
  if (problems.length === 0) return transport
  const codes = new Set(problems.map(({ code }) => code))
  const code = codes.size === 1 ? problems[0]!.code : 'TRANSPORT_INVALID'
  const what = problems.map(({ text }) => text).join('; ')
  throw new SyncError('usage', code, `The connection settings cannot be used: ${what}`, {
    hint: 'Correct these settings; nothing has been sent.',
  })
}
