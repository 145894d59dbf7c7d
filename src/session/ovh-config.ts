/**
 * Settings for OVHcloud's API, from where its other clients take them: options, the environment, `ovh.conf` files. Each value
 * comes with its origin, because a file in the working directory may bring an endpoint and keys that nobody meant.
 * @module
 */
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { SyncError, systemCode } from '../errors.ts'
import { OVH_REGIONS, ovhEndpoint } from './authorizers/ovh-regions.ts'

/** Names as files have them. */
const VARIABLES = Object.freeze({
  endpoint: 'OVH_ENDPOINT',
  application_key: 'OVH_APPLICATION_KEY',
  application_secret: 'OVH_APPLICATION_SECRET',
  consumer_key: 'OVH_CONSUMER_KEY',
  client_id: 'OVH_CLIENT_ID',
  client_secret: 'OVH_CLIENT_SECRET',
})
type Name = keyof typeof VARIABLES
const NAMES = Object.keys(VARIABLES) as Name[]
const SECRETS: readonly Name[] = ['application_secret', 'consumer_key', 'client_secret']

/** Where keys of an application are looked for, first to last. */
export interface OvhSources {
  /** What the caller says; first of all. Only here may `endpoint` be the URL of a compatible server. */
  readonly explicit?: {
    readonly endpoint?: string
    readonly applicationKey?: string
    readonly applicationSecret?: string
    readonly consumerKey?: string
    readonly clientId?: string
    readonly clientSecret?: string
    /** Of a compatible server with OAuth2. */
    readonly tokenUrl?: string
  }
  /** Default: `process.env`, from which the secrets are then removed, so that child processes do not inherit them. */
  readonly env?: Readonly<Record<string, string | undefined>>
  /** Before the usual files, highest first. */
  readonly files?: readonly string[]
  /** Directory of `ovh.conf`. Default: the working directory. */
  readonly cwd?: string
  /** Directory of `.ovh.conf`. */
  readonly home?: string
  /** Default: `/etc/ovh.conf`. */
  readonly systemFile?: string
}

interface Found {
  /** A region, or the URL of a compatible server. */
  readonly endpoint: string
  /** Where each value is from; by its name in files. */
  readonly origins: Readonly<Record<string, string>>
  /** What somebody may want to know: values that are empty, files that were passed over. Nothing secret. */
  readonly notes: readonly string[]
}

/** For `ovhSignatureAuthorizer`. Secrets are functions, so that nothing prints them. */
export interface OvhSignatureConfig extends Found {
  readonly kind: 'signature'
  readonly applicationKey: string
  readonly applicationSecret: () => string
  readonly consumerKey?: () => string
}

/** For `ovhOAuth2Authorizer`. */
export interface OvhOAuth2Config extends Found {
  readonly kind: 'oauth2'
  readonly clientId: string
  readonly clientSecret: () => string
  readonly tokenUrl?: string
}

interface Value {
  readonly text: string
  readonly origin: string
  readonly isExplicit?: true
}
type Section = ReadonlyMap<string, Value>
type Sections = ReadonlyMap<string, Section>

/** Says what is wrong with a file without quoting it: lines hold secrets. */
class BadFile extends Error {}

/**
 * Reads an `ovh.conf`: sections, `name = value` or `name: value`, and comments in lines of their own. Everything behind the
 * first `=` or `:` is the value. No quotes, no interpolation, nothing inherited between sections.
 */
function parseIni(text: string, path: string): Sections {
  const sections = new Map<string, Map<string, Value>>()
  let section: Map<string, Value> | undefined
  text.split(/\r\n|\n|\r/).forEach((raw, index) => {
    const line = raw.trim()
    const wrong = (what: string) => new BadFile(`${path}, line ${index + 1}: ${what}`)
    if (line === '' || line.startsWith('#') || line.startsWith(';')) return
    if (line.startsWith('[')) {
      const name = /^\[([^\]]+)\]$/.exec(line)?.[1]?.trim()
      if (name === undefined) throw wrong('the section has no proper name')
      if (sections.has(name)) throw wrong('the section is there twice')
      section = new Map()
      sections.set(name, section)
      return
    }
    const at = line.search(/[=:]/)
    if (at < 1) throw wrong('neither a section, a comment nor "name = value"')
    if (section === undefined) throw wrong('a value before the first section')
    const name = line.slice(0, at).trim().toLowerCase()
    if (section.has(name)) throw wrong('the name is there twice')
    section.set(name, { text: line.slice(at + 1).trim(), origin: `${path}, line ${index + 1}` })
  })
  return sections
}

const MAX_FILE = 64 * 1024

/** The text of a file, or why it is passed over. */
async function readConfig(path: string, notes: string[]): Promise<string | undefined> {
  // O_NONBLOCK: a pipe of that name must not hang us.
  const handle = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0)).catch((error) => {
    if (systemCode(error) !== 'ENOENT') notes.push(`${path} cannot be read (${systemCode(error)}) and was passed over`)
    return undefined
  })
  if (handle === undefined) return undefined
  try {
    const info = await handle.stat()
    if (!info.isFile()) {
      notes.push(`${path} is not a regular file and was passed over`)
      return undefined
    }
    if (process.platform !== 'win32') {
      const isTrusted = info.uid === process.getuid?.() || info.uid === 0
      if (!isTrusted || (info.mode & 0o022) !== 0) {
        throw new BadFile(`${path} can be changed by other users; make it yours alone: chmod 600`)
      }
      if ((info.mode & 0o044) !== 0) notes.push(`${path} can be read by other users: chmod 600`)
    }
    if (info.size > MAX_FILE) throw new BadFile(`${path} is longer than 64 KiB`)
    const bytes = Buffer.alloc(MAX_FILE)
    const { bytesRead } = await handle.read(bytes, 0, MAX_FILE, 0)
    try {
      return new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(0, bytesRead))
    } catch {
      throw new BadFile(`${path} is not UTF-8`)
    }
  } finally {
    await handle.close()
  }
}

/** Secrets taken out of `process.env`, for the next time somebody asks. */
const taken = new Map<string, string>()

function readEnvironment(given: OvhSources['env']): Section {
  const env = given ?? process.env
  const values = new Map<string, Value>()
  for (const name of NAMES) {
    const variable = VARIABLES[name]
    const text = env[variable] ?? (given === undefined ? taken.get(variable) : undefined)
    if (text !== undefined) values.set(name, { text, origin: `the variable ${variable}` })
    if (given === undefined && SECRETS.includes(name) && text !== undefined) {
      taken.set(variable, text)
      delete process.env[variable]
    }
  }
  return values
}

function readExplicit(explicit: OvhSources['explicit'] = {}): Section {
  const values = new Map<string, Value>()
  for (const name of NAMES) {
    const option = name.replace(/_(.)/, (_all, letter: string) => letter.toUpperCase()) as keyof typeof explicit
    const text = explicit[option]
    if (text !== undefined) values.set(name, { text, origin: `the option ${option}`, isExplicit: true })
  }
  return values
}

/** The first value of that name that is not empty. */
function pick(name: Name, sources: readonly (Section | undefined)[], notes: string[]): Value | undefined {
  for (const source of sources) {
    const value = source?.get(name)
    if (value === undefined) continue
    if (value.text !== '') return value
    notes.push(`${name} is empty and counts as unset (${value.origin})`)
  }
  return undefined
}

type Values = Partial<Record<Name, Value>>

/** Everything that is wrong with the values together. */
function problemsOf(values: Values, tokenUrl: string | undefined): string[] {
  const problems: string[] = []
  const { endpoint } = values
  const known = `known are ${OVH_REGIONS.join(', ')}`
  const isCustom = endpoint !== undefined && !OVH_REGIONS.includes(endpoint.text)
  const canOAuth = (isCustom ? tokenUrl : endpointOf(endpoint)?.tokenUrl) !== undefined
  if (endpoint === undefined) problems.push(`no region is named (endpoint); ${known}`)
  else if (endpointOf(endpoint) === undefined) problems.push(`${endpoint.origin} names no region; ${known}`)

  const pairs = [
    ['application_key', 'application_secret'],
    ['client_id', 'client_secret'],
  ] as const
  const started = pairs.filter((pair) => pair.some((name) => values[name] !== undefined))
  for (const pair of started) {
    const missing = pair.find((name) => values[name] === undefined)
    const present = pair.map((name) => values[name]).find((value) => value !== undefined)
    if (missing !== undefined) problems.push(`${missing} is missing, its other half comes from ${present!.origin}`)
  }
  if (started.length === 0) {
    problems.push('there are no keys: application_key and application_secret, or client_id and client_secret')
  }
  if (started.length === 2) {
    const from = started.flat().flatMap((name) => (values[name] ? [`${name} from ${values[name].origin}`] : []))
    problems.push(`an application key and a client id are both given, and only one can be used (${from.join('; ')})`)
  }
  if (values.client_id !== undefined && endpointOf(endpoint) !== undefined && !canOAuth) {
    problems.push('client_id and client_secret (OAuth2) work in ovh-eu, ovh-ca and ovh-us only')
  }
  return problems
}

/** Custom endpoints are the caller's to give: a variable or a file must not send keys elsewhere. */
function endpointOf(value: Value | undefined) {
  if (value === undefined) return undefined
  if (!OVH_REGIONS.includes(value.text) && value.isExplicit !== true) return undefined
  try {
    return ovhEndpoint(value.text)
  } catch {
    return undefined
  }
}

/** Files from the highest to the lowest; what is wrong with them goes to `problems`. */
async function readFiles(paths: readonly string[], notes: string[], problems: string[]): Promise<Sections[]> {
  const files: Sections[] = []
  for (const path of paths) {
    try {
      const text = await readConfig(path, notes)
      if (text !== undefined) files.push(parseIni(text, path))
    } catch (error) {
      if (!(error instanceof BadFile)) throw error
      problems.push(error.message)
    }
  }
  return files
}

/**
 * Collects the settings. For each value the first of these counts: `explicit`, the environment, `files`, `ovh.conf` in the
 * working directory, `.ovh.conf` in the home directory, `/etc/ovh.conf`. What is empty counts as unset. Files that are missing
 * or cannot be read are passed over; files that other users can write are refused.
 *
 * @throws {SyncError} `CONFIG_INVALID`, with all problems at once and none of the values.
 */
export async function loadOvhConfig(sources: OvhSources = {}): Promise<OvhSignatureConfig | OvhOAuth2Config> {
  const { explicit, cwd = process.cwd(), home = homedir(), systemFile = '/etc/ovh.conf' } = sources
  const notes: string[] = []
  const problems: string[] = []
  const usual = [join(cwd, 'ovh.conf'), join(home, '.ovh.conf'), systemFile]
  const files = await readFiles([...(sources.files ?? []), ...usual], notes, problems)
  const first = [readExplicit(explicit), readEnvironment(sources.env)]
  const sectionsNamed = (name: string) => [...first, ...files.map((file) => file.get(name))]

  const values: Values = {}
  const endpoint = pick('endpoint', sectionsNamed('default'), notes)
  if (endpoint !== undefined) values.endpoint = endpoint
  for (const name of NAMES) {
    const value = name === 'endpoint' ? undefined : pick(name, sectionsNamed(endpoint?.text ?? ''), notes)
    if (value !== undefined) values[name] = value
  }
  problems.push(...problemsOf(values, explicit?.tokenUrl))
  if (problems.length > 0) {
    throw new SyncError('usage', 'CONFIG_INVALID', `The settings cannot be used: ${problems.join('; ')}`, {
      hint: 'Set OVH_ENDPOINT and the keys, or write them to ~/.ovh.conf.',
    })
  }
  const { application_key: key, application_secret: secret, consumer_key: consumer } = values
  const found: Found = {
    endpoint: endpoint!.text,
    origins: Object.fromEntries(Object.entries(values).map(([name, value]) => [name, value.origin])),
    notes,
  }
  if (key !== undefined) {
    return {
      kind: 'signature',
      ...found,
      applicationKey: key.text,
      applicationSecret: () => secret!.text,
      ...(consumer === undefined ? {} : { consumerKey: () => consumer.text }),
    }
  }
  const { client_id: id, client_secret: clientSecret } = values
  return {
    kind: 'oauth2',
    ...found,
    clientId: id!.text,
    clientSecret: () => clientSecret!.text,
    ...(explicit?.tokenUrl === undefined ? {} : { tokenUrl: explicit.tokenUrl }),
  }
}
