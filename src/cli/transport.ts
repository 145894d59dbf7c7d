/** Connection settings as the dialer wants them: files are read here, and the usual proxy variables. @module */
import { readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { filePinStore, proxyFromEnvironment, type TransportOptions, withKnownPins } from '../client/index.ts'
import { SyncError } from '../errors.ts'
import { homePaths } from '../local/home.ts'
import { homeDirectory } from './profile.ts'
import { getSecret } from './secrets.ts'
import type { Settings } from './settings.ts'

async function readSettingFile(path: string, name: string): Promise<Buffer> {
  try {
    return await readFile(path)
  } catch (cause) {
    const code = name === 'ca-file' ? 'CA_FILE' : 'OPTION_INVALID'
    throw new SyncError('usage', code, `Cannot read the file of --${name}: ${path}`, { cause })
  }
}

/** A secret that a setting names the file of. */
async function secretOf(settings: Settings, name: string): Promise<string | undefined> {
  const file = settings.text(name)
  return file === undefined ? undefined : Buffer.from(await getSecret({ file })).toString('utf8')
}

async function textOf(settings: Settings, name: string): Promise<string | undefined> {
  const path = settings.text(name)
  return path === undefined ? undefined : String(await readSettingFile(path, name))
}

/** A fingerprint is taken for a file's name in the working directory at first. */
async function acceptedCertificate(given: string | undefined): Promise<string | undefined> {
  if (given === undefined) return undefined
  const name = basename(given)
  if (/^(sha256:)?([0-9a-f]{2}:?){32}$/i.test(name)) return name
  return String(await readSettingFile(given, 'accept-cert'))
}

async function clientCertificate(settings: Settings): Promise<TransportOptions['clientCertificate']> {
  const path = settings.text('client-cert')
  if (path === undefined) return undefined
  const keyPath = settings.text('client-key')
  const cert = await readSettingFile(path, 'client-cert')
  // Certificate and key may share a file.
  const keyFile = keyPath ?? path
  // Through the same door as any secret: a key that others can read is refused.
  const key = await getSecret({ file: cert.includes('-----BEGIN') ? keyFile : path, binary: true })
  const passphrase = await secretOf(settings, 'client-key-password-file')
  const common = passphrase === undefined ? {} : { passphrase }
  if (!cert.includes('-----BEGIN')) return { pfx: key, ...common }
  return { cert: cert.toString('utf8'), key: Buffer.from(key).toString('utf8'), ...common }
}

function parseHeaders(lines: readonly string[]): Record<string, string> | undefined {
  if (lines.length === 0) return undefined
  return Object.fromEntries(
    lines.map((line) => {
      const at = line.indexOf(':')
      if (at < 1) throw new SyncError('usage', 'OPTION_INVALID', '--header takes "Name: value"')
      return [line.slice(0, at).trim().toLowerCase(), line.slice(at + 1).trim()]
    }),
  )
}

/** `--proxy none` switches off what the environment says; user name and password mean nothing without a proxy. */
async function proxyOf(settings: Settings, origin: string): Promise<Partial<TransportOptions>> {
  const proxy = settings.text('proxy')
  if (proxy === 'none') return {}
  const found = proxy === undefined ? proxyFromEnvironment(process.env, origin) : { proxy }
  if (found.proxy === undefined) return {}
  const except = settings.text('proxy-except')
  const user = settings.text('proxy-user')
  const password = await secretOf(settings, 'proxy-password-file')
  const command = settings.text('proxy-auth-command')
  return {
    ...found,
    proxyResolves: settings.flag('proxy-resolves'),
    ...(command === undefined
      ? {}
      : { proxyAuthorization: async () => Buffer.from(await getSecret({ command })).toString('latin1') }),
    ...(except === undefined ? {} : { noProxy: except }),
    ...(user === undefined ? {} : { proxyUser: user }),
    ...(password === undefined ? {} : { proxyPassword: password }),
  }
}

/** Keys that the server may have: given ones, else the one that was seen first. */
function pinsOf(settings: Settings, origin: string, enrols: boolean): Partial<TransportOptions> {
  const given = settings.list('pinned-key')
  if (given.length > 0) return { pins: given }
  const { pins } = withKnownPins(origin, {
    ...(settings.text('pins') === undefined ? {} : { pins: settings.text('pins') as 'first-use' | 'off' }),
  })
  const backup = settings.list('backup-pin')
  if (pins === 'first-use') {
    return { pins, pinStore: filePinStore(homePaths(homeDirectory()).serverKeys), backupPins: backup }
  }
  if (backup.length > 0 && !enrols) {
    throw new SyncError('usage', 'PINS_INVALID', '--backup-pin is of use only with --pins first-use')
  }
  return pins === undefined ? {} : { pins }
}

/**
 * Reads what the settings name.
 *
 * @param origin - Of the server that they are for.
 * @param options.enrols - Backup pins are for later.
 */
export async function transportOf(
  settings: Settings,
  origin: string,
  { enrols = false } = {},
): Promise<TransportOptions> {
  // The HTTP parser is WebAssembly. To compile it a second time, for speed, takes 30 MB (Node 20) and saves nothing measurable. Not
  // before anything is to be connected: what the engine keeps compiled of Node's own modules does not fit other flags.
  setFlagsFromString('--liftoff-only')
  // The young generation stays as small as it is. It would grow to three times 16 MB, of which little outlives a scavenge here.
  setFlagsFromString('--semi-space-growth-factor=1')
  const caFiles = settings.list('ca-file')
  const family = settings.text('ip')
  const options = {
    ...(await proxyOf(settings, origin)),
    ca:
      caFiles.length === 0
        ? undefined
        : await Promise.all(caFiles.map(async (path) => String(await readSettingFile(path, 'ca-file')))),
    caDirectory: settings.text('ca-dir'),
    acceptCertificate: await acceptedCertificate(settings.text('accept-cert')),
    crl: await textOf(settings, 'crl-file'),
    ciphers: settings.text('tls-ciphers'),
    groups: settings.text('tls-groups'),
    tcpKeepAliveMs: settings.number('tcp-keep-alive'),
    clientCertificate: await clientCertificate(settings),
    ...pinsOf(settings, origin, enrols),
    minTls: `TLSv${settings.text('min-tls')}`,
    bindAddress: settings.text('bind-address'),
    family: family === undefined ? undefined : Number(family),
    connectTimeoutMs: settings.number('connect-timeout'),
    headersTimeoutMs: settings.number('headers-timeout'),
    bodyTimeoutMs: settings.number('idle-timeout'),
    answerTimeoutMs: settings.number('answer-timeout'),
    totalTimeoutMs: settings.number('total-timeout'),
    stallMs: settings.number('stall-timeout'),
    http2: settings.flag('http2'),
    compression: settings.flag('compression'),
    keepAliveMs: settings.number('keep-alive'),
    connections: settings.number('connections'),
    maxBodyBytes: settings.number('max-answer'),
    headers: parseHeaders(settings.list('header')),
    userAgentSuffix: settings.text('user-agent'),
  }
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as TransportOptions
}
