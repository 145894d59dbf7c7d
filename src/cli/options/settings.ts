/** What settings there are: the name of each is its flag, its key in files and, in capitals, its variable. @module */
import { type OptionSpec, option } from './option.ts'

type Kind = 'rate' | 'secret-url' | 'text' | 'file' | 'files' | 'list' | 'integer' | 'size' | 'duration' | 'flag'

export interface SettingSpec {
  /** The long flag, and the key in files. */
  readonly name: string
  readonly kind: Kind
  readonly summary: string
  /** What its argument is called in the help. */
  readonly argument?: string
  readonly choices?: readonly string[]
  readonly min?: number
  readonly max?: number
  readonly fallback?: string | number
  /**
   * May stand in the project file, which comes with the files of a project: nothing that chooses a login or leads it astray. `on`,
   * `off`: only with this value, since the other would undo a protection of the user's.
   */
  readonly project?: true | 'on' | 'off'
  /** A URL; a password in it would be seen by others. */
  readonly url?: true
  /** May hold a secret: no other program gets to see it. */
  readonly secret?: true
  /** Concerns connections: kept in the profile when given at the login. */
  readonly connection?: true
}

const MiB = 1024 * 1024

export const SETTINGS: readonly SettingSpec[] = Object.freeze([
  { name: 'profile', kind: 'text', summary: 'which login to use', argument: 'name', fallback: 'default' },
  { name: 'jobs', kind: 'integer', summary: 'files in flight; unless it is set, more of small ones where the server is far away', argument: 'n', min: 1, max: 64, fallback: 16, project: true },
  { name: 'part-size', kind: 'size', summary: 'bytes per part', argument: 'size', min: 5 * MiB, max: 256 * MiB, project: true },
  { name: 'memory', kind: 'size', summary: 'content held in memory at once, at least 16M (default 48M)', argument: 'size', min: 16 * MiB, max: 16_384 * MiB, project: true },
  { name: 'check-output', kind: 'text', summary: 'how the ciphertext of large files is checked before it counts: proven to be under its tag, and some pieces decrypted again, or all of it', choices: ['proof', 'full'], fallback: 'proof' },
  { name: 'require-encryption', kind: 'flag', summary: 'refuse what is not encrypted, whatever was agreed to before', project: 'on' },
  { name: 'allow-plain', kind: 'flag', summary: 'content may go where it is not encrypted; without it only where a person at a terminal has agreed to that' },
  { name: 'on-conflict', kind: 'text', summary: 'what to do with a target that differs (default: upload overwrite, download fail)', choices: ['skip', 'overwrite', 'rename', 'fail', 'newer'] },
  { name: 'names', kind: 'text', summary: 'what to do with names that the other side cannot hold', choices: ['report', 'escape'], fallback: 'report' },
  { name: 'limit-rate', kind: 'rate', summary: 'bytes per second for file content, UP:DOWN or one for both; 0 for no limit; or a timetable: "08:00,500K:2M 18:00,0"', argument: 'rate', project: true },
  { name: 'events', kind: 'file', summary: 'append what happens in runs to this file, one JSON object per line; - for standard output', argument: 'file' },
  { name: 'metrics-file', kind: 'file', summary: 'write figures of the last run for Prometheus, for the textfile collector', argument: 'file' },
  { name: 'ping-url', kind: 'secret-url', summary: 'tell this address of each run: URL/start, URL after a success, URL/EXITCODE after a failure', argument: 'url' },
  { name: 'log-file', kind: 'file', summary: 'append what is done to this file, one JSON object per line', argument: 'file' },
  { name: 'log-level', kind: 'text', summary: 'how much of it', choices: ['error', 'warn', 'info', 'debug'], fallback: 'info' },
  { name: 'log-redact', kind: 'text', summary: 'what is left out of the log besides secrets: names of files, folders and rooms', choices: ['names', 'nothing'], fallback: 'nothing' },
  { name: 'trace-http', kind: 'flag', summary: 'tell of each request, its headers without what might be secret, and of connections: in the log, or on standard error' },
  { name: 'key-password-file', kind: 'file', summary: 'file that holds the encryption password', argument: 'file' },
  { name: 'key-password-command', kind: 'text', summary: 'program that prints the encryption password', argument: 'command' },
  { name: 'key-password-credential', kind: 'text', summary: 'credential of systemd that holds the encryption password', argument: 'name' },
  { name: 'key-password-sealed', kind: 'text', summary: 'open the encryption password that was sealed with keys seal', choices: ['tpm2', 'fido2'] },
  { name: 'key-cache', kind: 'text', summary: 'keep file keys on this disk, sealed, so that files open quickly', choices: ['on', 'off'], fallback: 'on', project: 'off' },
  { name: 'trust-new-members', kind: 'flag', summary: 'hand file keys also to members whose keys were never seen before; without it only a person at a terminal does' },
  { name: 'read-only', kind: 'flag', summary: 'send nothing that changes something at the server, but login and logout', project: 'on', connection: true },
  { name: 'write-only', kind: 'flag', summary: 'never unlock the key pair: upload with the public key that was brought here (keys pin-public), and refuse all that would need the private one', project: 'on', connection: true },
  { name: 'session-store', kind: 'text', summary: 'where a new login is kept', choices: ['keyring', 'file', 'encrypted'] },
  { name: 'session-key-command', kind: 'text', summary: 'program that prints the key of an encrypted login', argument: 'command' },
  { name: 'update-url', kind: 'text', summary: 'where update --check asks for the newest release', argument: 'url', url: true },
  { name: 'update-key', kind: 'text', summary: 'public key that releases are signed with: Ed25519, 32 bytes in base64', argument: 'key' },
  { name: 'ca-file', kind: 'files', summary: 'PEM file of an additional certificate authority', argument: 'file', connection: true },
  { name: 'ca-dir', kind: 'file', summary: 'directory with more of them, a file each; those of NODE_EXTRA_CA_CERTS and SSL_CERT_DIR count, too', argument: 'directory', connection: true },
  { name: 'accept-cert', kind: 'file', summary: 'accept exactly one certificate, whoever made it: its PEM file, or its SHA-256 fingerprint', argument: 'file|sha256', connection: true },
  { name: 'crl-file', kind: 'file', summary: 'PEM file with lists of revoked certificates', argument: 'file', connection: true },
  { name: 'client-cert', kind: 'file', summary: 'PEM certificate, or PKCS#12 file, of this client', argument: 'file', connection: true },
  { name: 'client-key', kind: 'file', summary: 'PEM key of that certificate', argument: 'file', connection: true },
  { name: 'client-key-password-file', kind: 'file', summary: 'file that holds the password of that key', argument: 'file', connection: true },
  { name: 'pinned-key', kind: 'list', summary: 'accept only servers with one of these keys (sha256/BASE64); two or more, one as backup', argument: 'pin', connection: true },
  { name: 'pins', kind: 'text', summary: 'first-use: the key that a server shows first has to stay; off: not even that of servers where this is the default (Proton’s). Where there are pinned keys, those count', choices: ['first-use', 'off'], connection: true },
  { name: 'backup-pin', kind: 'list', summary: 'key that may take the place of the one seen first', argument: 'pin', connection: true },
  { name: 'min-tls', kind: 'text', summary: 'lowest version of TLS', choices: ['1.2', '1.3'], fallback: '1.2', connection: true },
  { name: 'tls-ciphers', kind: 'text', summary: 'ciphers to offer, in the form of OpenSSL', argument: 'list', connection: true },
  { name: 'tls-groups', kind: 'text', summary: 'groups for the key exchange, in the form of OpenSSL', argument: 'list', connection: true },
  { name: 'proxy', kind: 'text', summary: 'http://, https://, socks5:// or socks5h:// URL, or none', argument: 'url', url: true, secret: true, connection: true },
  { name: 'proxy-user', kind: 'text', summary: 'user name for the proxy', argument: 'name', connection: true },
  { name: 'proxy-password-file', kind: 'file', summary: 'file that holds the password for the proxy', argument: 'file', connection: true },
  { name: 'proxy-auth-command', kind: 'text', summary: 'program that prints what the proxy wants to see as Proxy-Authorization, such as "Negotiate …"', argument: 'command', connection: true },
  { name: 'proxy-resolves', kind: 'flag', summary: 'let the proxy look up where storage is; it must then refuse private addresses itself', connection: true },
  { name: 'proxy-except', kind: 'text', summary: 'hosts, .suffixes and networks to reach directly, with commas', argument: 'list', connection: true },
  { name: 'bind-address', kind: 'text', summary: 'local address to connect from', argument: 'address', connection: true },
  { name: 'ip', kind: 'text', summary: 'use IPv4 or IPv6 only', choices: ['4', '6'], connection: true },
  { name: 'connect-timeout', kind: 'duration', summary: 'longest wait for a connection', argument: 'time', min: 100, max: 600_000, fallback: '10s', connection: true },
  { name: 'headers-timeout', kind: 'duration', summary: 'longest wait for an answer to begin', argument: 'time', min: 100, max: 3_600_000, fallback: '60s', connection: true },
  { name: 'idle-timeout', kind: 'duration', summary: 'longest pause inside an answer', argument: 'time', min: 100, max: 3_600_000, fallback: '60s', connection: true },
  { name: 'answer-timeout', kind: 'duration', summary: 'longest time for an answer that is no file content', argument: 'time', min: 1_000, max: 86_400_000, fallback: '5m', connection: true },
  { name: 'stall-timeout', kind: 'duration', summary: 'longest time for 1 KiB/s not to come, or for 512 KiB not to leave', argument: 'time', min: 1_000, max: 3_600_000, fallback: '2m', connection: true },
  { name: 'retry-for', kind: 'duration', summary: 'how long to wait for a server that is away (default 2m, for backups 15m); 0 for not at all', argument: 'time', min: 0, max: 86_400_000, connection: true },
  { name: 'max-entries', kind: 'integer', summary: 'most entries of a remote tree that are believed', argument: 'n', min: 1_000, max: 100_000_000, fallback: 2_000_000, connection: true },
  { name: 'total-timeout', kind: 'duration', summary: 'longest time for one request', argument: 'time', min: 1_000, max: 86_400_000, connection: true },
  { name: 'keep-alive', kind: 'duration', summary: 'how long idle connections are kept; 0 for not at all', argument: 'time', min: 0, max: 600_000, fallback: '20s', connection: true },
  { name: 'tcp-keep-alive', kind: 'duration', summary: 'silence after which the system asks whether the server is there; 0 for never', argument: 'time', min: 0, max: 600_000, fallback: '60s', connection: true },
  { name: 'connections', kind: 'integer', summary: 'most connections per server', argument: 'n', min: 1, max: 256, fallback: 128, connection: true },
  { name: 'http2', kind: 'flag', summary: 'offer HTTP/2 to servers, for everything but file content', connection: true },
  { name: 'compression', kind: 'flag', summary: 'let servers compress what is no file content', connection: true },
  { name: 'max-answer', kind: 'size', summary: 'largest answer that is read into memory', argument: 'size', min: MiB, max: 1024 * MiB, fallback: '16M', connection: true },
  { name: 'header', kind: 'list', summary: 'further header for every request: "Name: value"', argument: 'header', secret: true, connection: true },
  { name: 'user-agent', kind: 'text', summary: 'added to the User-Agent header', argument: 'text', connection: true },
]) // biome-ignore format: a table

export const variableOf = (name: string): string => `SEALSYNC_${name.toUpperCase().replaceAll('-', '_')}`
export const camelCase = (name: string): string =>
  name.replace(/-([a-z])/g, (_match, letter: string) => letter.toUpperCase())

const SPECS: ReadonlyMap<string, SettingSpec> = new Map(SETTINGS.map((spec) => [spec.name, spec]))

function optionOf(name: string): OptionSpec {
  const { kind, argument, summary, choices, fallback } = SPECS.get(name)!
  const isMany = kind === 'list' || kind === 'files'
  const short = name === 'jobs' ? '-j, ' : ''
  const value = kind === 'flag' ? '' : ` <${choices?.join('|') ?? argument}>`
  const notes = [
    ...(isMany ? ['may be repeated'] : []),
    ...(fallback === undefined ? [] : [`default ${fallback}`]),
    `env ${variableOf(name)}`,
  ].join(', ')
  return option(`${short}--${name}${value}`, `${summary} (${notes})`, isMany ? { repeats: true } : {})
}

/** The options of settings. */
export const settings = (...names: readonly string[]): OptionSpec[] => names.map(optionOf)
