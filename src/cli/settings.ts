/**
 * Settings and where they come from: flag, environment, project file, profile, user file, system file, default; the first that
 * has one wins. A file that is named (`--config`) takes the place of the three that are looked for, and of the first of them in that order. What there is says the table in options/settings.ts; whatever is wrong, in any place, is reported together.
 * @module
 */
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { parse as parseToml } from 'smol-toml'
import type { RateEntry, RateLimits, RatePlan } from '../client/index.ts'
import { localError, SyncError, systemCode, toSyncError } from '../errors.ts'
import { camelCase, SETTINGS, type SettingSpec, variableOf } from './options/settings.ts'

export { camelCase, SETTINGS, variableOf } from './options/settings.ts'

const MiB = 1024 * 1024
const MIN_RATE = 1024

const BY_NAME: ReadonlyMap<string, SettingSpec> = new Map(SETTINGS.map((spec) => [spec.name, spec]))

type Value = string | number | boolean | readonly string[]

export interface Setting {
  readonly name: string
  readonly value: Value | undefined
  /** For people: `--jobs`, `SEALSYNC_JOBS`, a file, `profile default`, `default`. */
  readonly origin: string
  /** What is wrong with it. Only the value in force counts: a flag helps over a broken file. */
  readonly problem?: string
}

export interface Settings {
  text(name: string): string | undefined
  number(name: string): number | undefined
  flag(name: string): boolean
  list(name: string): readonly string[]
  /** True when a flag gave it. */
  isFlag(name: string): boolean
  /** Everything, for `config show`. */
  readonly all: readonly Setting[]
}

const SIZE_UNITS: Readonly<Record<string, number>> = { '': 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3, T: 1024 ** 4 }
const TIME_UNITS: Readonly<Record<string, number>> = {
  ms: 1,
  '': 1_000,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
}

export function parseSize(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?$/i.exec(text.trim())
  const bytes = match === null ? Number.NaN : Math.round(Number(match[1]) * SIZE_UNITS[match[2]!.toUpperCase()]!)
  return Number.isSafeInteger(bytes) ? bytes : undefined
}

export function parseDuration(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)$/.exec(text.trim())
  return match === null ? undefined : Math.round(Number(match[1]) * TIME_UNITS[match[2]!]!)
}

function parseFlag(value: unknown): boolean | undefined {
  if (typeof value === 'boolean') return value
  const text = String(value).toLowerCase()
  if (['1', 'true', 'yes', 'on'].includes(text)) return true
  return ['0', 'false', 'no', 'off'].includes(text) ? false : undefined
}

/** Bytes per second up and down from `2M` or `500K:10M`; 0 means no limit. */
function parseLimits(text: string): RateLimits | undefined {
  const rates = text.split(':').map(parseSize)
  if (rates.length > 2 || !rates.every((rate) => rate === 0 || (rate ?? 0) >= MIN_RATE)) return undefined
  const [up, down = up] = rates
  return { ...(up ? { up } : {}), ...(down ? { down } : {}) }
}

const DAYS = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat']

/** One entry of a timetable: `08:00,500K:2M` or `Mon-08:00,0`. */
function parseRateEntry(text: string): RateEntry | undefined {
  const match = /^(?:([a-z]{3})-)?([01]\d|2[0-3]):([0-5]\d),(.+)$/i.exec(text)
  const limits = match === null ? undefined : parseLimits(match[4]!)
  if (match === null || limits === undefined) return undefined
  const minute = Number(match[2]) * 60 + Number(match[3])
  if (match[1] === undefined) return { ...limits, minute }
  const day = DAYS.indexOf(match[1].toLowerCase())
  return day === -1 ? undefined : { ...limits, minute, day }
}

/** Limits, or a timetable of them; `undefined` for what is neither. */
export function parseRates(text: string): RatePlan | undefined {
  if (!text.includes(',')) return parseLimits(text)
  const entries = text.trim().split(/\s+/).map(parseRateEntry)
  const times = new Set(entries.map((entry) => `${entry?.day} ${entry?.minute}`))
  if (times.size < entries.length) return undefined
  return entries.every((entry) => entry !== undefined) ? entries : undefined
}

const inRange = ({ min = Number.NEGATIVE_INFINITY, max = Number.POSITIVE_INFINITY }: SettingSpec, value: number) =>
  value >= min && value <= max

const bytesText = (bytes: number) => (bytes % MiB === 0 ? `${bytes / MiB}M` : String(bytes))
const timeText = (ms: number) => (ms % 1_000 === 0 ? `${ms / 1_000}s` : `${ms}ms`)

/** True for settings whose value is not for everybody's eyes. */
export const isSecret = (name: string): boolean => BY_NAME.get(name)?.kind === 'secret-url'

/** A value as people write it. */
export function showValue({ name, value }: Setting): string {
  const { kind } = BY_NAME.get(name)!
  if (value === undefined) return '-'
  if (Array.isArray(value)) return value.join(', ')
  // Who knows its path may use it.
  if (kind === 'secret-url') return `${new URL(String(value)).origin}/…`
  if (kind === 'size') return bytesText(Number(value))
  return kind === 'duration' ? timeText(Number(value)) : String(value)
}

/** The value in its normal form, or what it should have been. */
function readValue(spec: SettingSpec, raw: unknown, base: string): { value: Value } | { wanted: string } {
  const scalar = typeof raw === 'string' || typeof raw === 'number' || typeof raw === 'boolean'
  const text = scalar ? String(raw) : undefined
  const texts = Array.isArray(raw) && raw.every((one) => typeof one === 'string') ? (raw as string[]) : undefined
  switch (spec.kind) {
    case 'flag': {
      const value = scalar ? parseFlag(raw) : undefined
      return value === undefined ? { wanted: 'true or false' } : { value }
    }
    case 'integer': {
      const ok = text !== undefined && /^\d+$/.test(text) && inRange(spec, Number(text))
      return ok ? { value: Number(text) } : { wanted: `a whole number from ${spec.min} to ${spec.max}` }
    }
    case 'size': {
      const value = text === undefined ? undefined : parseSize(text)
      const ok = value !== undefined && inRange(spec, value)
      return ok ? { value } : { wanted: `a size such as 8M, from ${bytesText(spec.min!)} to ${bytesText(spec.max!)}` }
    }
    case 'rate': {
      return text !== undefined && parseRates(text) !== undefined
        ? { value: text }
        : { wanted: 'a rate such as 2M or 500K:10M, from 1K, or a timetable such as "08:00,500K Sat-00:00,0"' }
    }
    case 'secret-url': {
      const url = text !== undefined && URL.canParse(text) ? new URL(text) : undefined
      const ok = url !== undefined && /^https?:$/.test(url.protocol) && url.username + url.password === ''
      return ok ? { value: url.href } : { wanted: 'an https URL without user name and password' }
    }
    case 'duration': {
      const value = text === undefined ? undefined : parseDuration(text)
      const ok = value !== undefined && inRange(spec, value)
      const range = `from ${timeText(spec.min!)} to ${timeText(spec.max!)}`
      return ok ? { value } : { wanted: `a time such as 30s or 2m, ${range}` }
    }
    case 'list':
    case 'files': {
      const list = texts ?? (text === undefined ? undefined : [text])
      if (list === undefined) return { wanted: 'a text, or a list of texts' }
      return { value: spec.kind === 'files' ? list.map((path) => resolvePath(base, path)) : list }
    }
    default:
      if (text === undefined || typeof raw === 'boolean') return { wanted: 'a text' }
      if (spec.choices !== undefined && !spec.choices.includes(text)) {
        return { wanted: `one of ${spec.choices.join(', ')}` }
      }
      if (spec.url && URL.canParse(text) && new URL(text).password !== '') {
        return { wanted: `a URL without a password, which goes into --${spec.name}-password-file` }
      }
      return { value: spec.kind === 'file' ? resolvePath(base, text) : text }
  }
}

/** `-` is standard input; everything else is relative to where it was written. */
const resolvePath = (base: string, path: string) => (path === '-' ? path : resolve(base, path))

/** One place that settings come from. */
interface Layer {
  readonly origin: (name: string) => string
  readonly values: Readonly<Record<string, unknown>>
  /** Relative paths start here. */
  readonly base: string
  readonly isProject?: boolean
}

const MAX_FILE = 64 * 1024

/** Says what waits to be accepted; loaded where there is a project file. */
async function isHeld(path: string, home: string): Promise<boolean> {
  const { createHeldRules } = await import('../client/index.ts')
  return createHeldRules(join(home, 'rules')).list(path).length > 0
}

/** The text of a settings file, or what is wrong with it. What was looked at is what is read, whoever changes the name meanwhile. */
async function readTrusted(path: string): Promise<{ text: string } | { problem: string }> {
  // A pipe of that name would hang us.
  const file = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0))
  try {
    const info = await file.stat()
    if (!info.isFile() || info.size > MAX_FILE) return { problem: `${path} is not a file of at most 64 KiB` }
    if (process.platform !== 'win32') {
      const trusted = info.uid === process.getuid?.() || info.uid === 0
      if (!trusted || (info.mode & 0o022) !== 0) {
        return { problem: `${path} can be changed by other users (chmod go-w, or remove it)` }
      }
    }
    return { text: await file.readFile('utf8') }
  } finally {
    await file.close()
  }
}

/** Whoever has named a file has made a mistake there; a disk that fails is another thing. */
const MISTAKES = new Set(['ENOENT', 'ENOTDIR', 'EISDIR', 'EACCES', 'EPERM', 'ELOOP', 'ENAMETOOLONG', 'ENXIO'])

/**
 * Reads a settings file; others must not be able to write it. What the disk does not give is a problem too, and goes into `unread`.
 *
 * @param kind - `named`: somebody has said that it is to be read.
 */
async function readFileLayer(
  path: string,
  kind: 'project' | 'own' | 'named',
  problems: string[],
  unread: SyncError[],
): Promise<Layer | undefined> {
  // What comes with the files of a project stays that, whoever names it.
  const isProject = kind === 'project' || (kind === 'named' && basename(path) === PROJECT_FILE)
  let text: string
  try {
    const read = await readTrusted(path)
    if ('problem' in read) {
      problems.push(read.problem)
      return undefined
    }
    text = read.text
  } catch (error) {
    const system = systemCode(error) ?? ''
    if (kind === 'named' && MISTAKES.has(system)) {
      problems.push(`--config: ${path} cannot be read (${system})`)
      return undefined
    }
    if (['ENOENT', 'ENOTDIR'].includes(system)) return undefined
    const wrapped = toSyncError(localError(error, `read ${path}`))
    problems.push(wrapped.message)
    unread.push(wrapped)
    return undefined
  }
  try {
    return { origin: () => path, values: parseToml(text), base: dirname(path), isProject }
  } catch (error) {
    // The parser quotes the line; settings hold no secrets, but the first line of its message is enough.
    problems.push(`${path}: ${error instanceof Error ? error.message.split('\n')[0] : 'not TOML'}`)
    return undefined
  }
}

export interface SettingSources {
  /** Values of flags, by their names in camel case. */
  readonly flags: Readonly<Record<string, unknown>>
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Where the project file is looked for. */
  readonly directory: string
  /** Where the user's file is. */
  readonly home: string
  /** The one file to read, in place of those that are looked for. */
  readonly file?: string | undefined
  /** Gets the options of the profile with this name. */
  readonly profile: (name: string) => Promise<Readonly<Record<string, unknown>> | undefined>
}

export const PROJECT_FILE = 'sealsync.toml'
export const USER_FILE = 'config.toml'
const SYSTEM_FILE = '/etc/sealsync/config.toml'

/** The files that are looked at, in order. */
export function settingFiles(sources: Pick<SettingSources, 'directory' | 'home' | 'environment' | 'file'>) {
  const { directory, home, environment } = sources
  const named = sources.file ?? environment.SEALSYNC_CONFIG
  if (named !== undefined && named !== '') return { named: resolve(directory, named) }
  return {
    project: join(directory, PROJECT_FILE),
    user: join(home, USER_FILE),
    system: environment.SEALSYNC_SYSTEM_CONFIG || SYSTEM_FILE,
  }
}

const known = (values: Readonly<Record<string, unknown>>, key: (name: string) => string) =>
  Object.fromEntries(
    SETTINGS.map(({ name }) => [name, values[key(name)]] as const).filter(
      ([, value]) => value !== undefined && value !== '',
    ),
  )

/** Names that somebody may have meant. */
const similar = (name: string) =>
  SETTINGS.find((spec) => spec.name.replaceAll('-', '') === name.toLowerCase().replace(/[-_]/g, ''))?.name

/** Reads one layer; keys that must not be there are added to `problems`. */
function readLayer(layer: Layer, problems: string[]): Map<string, Setting> {
  const found = new Map<string, Setting>()
  for (const [name, raw] of Object.entries(layer.values)) {
    const spec = BY_NAME.get(name)
    const origin = layer.origin(name)
    if (spec === undefined) {
      const meant = similar(name)
      problems.push(
        `${origin}: there is no setting "${name}"${meant === undefined ? '' : `; did you mean "${meant}"?`}`,
      )
    } else if (layer.isProject && !spec.project) {
      problems.push(`${origin}: "${name}" must not be set by a project; put it into the user's file`)
    } else {
      const read = readValue(spec, raw, layer.base)
      const isOn = 'value' in read && read.value !== false && read.value !== 'off'
      if (layer.isProject && typeof spec.project === 'string' && 'value' in read && isOn !== (spec.project === 'on')) {
        problems.push(`${origin}: "${name}" must not be switched ${isOn ? 'on' : 'off'} by a project`)
      } else if ('wanted' in read) {
        const where = origin === `--${name}` ? '' : `${origin}: `
        found.set(name, { name, value: undefined, origin, problem: `${where}--${name} takes ${read.wanted}` })
      } else {
        found.set(name, { name, value: read.value, origin })
      }
    }
  }
  return found
}

/**
 * Reads all places.
 *
 * @returns the settings, what is wrong with them in words for people, and the first error of the disk among that.
 */
export async function readSettings(
  sources: SettingSources,
): Promise<{ settings: Settings; problems: string[]; unread: SyncError | undefined }> {
  const problems: string[] = []
  const unread: SyncError[] = []
  const { directory, environment } = sources
  const files = settingFiles(sources)
  const flags: Layer = { origin: (name) => `--${name}`, values: known(sources.flags, camelCase), base: directory }
  const variables: Layer = { origin: variableOf, values: known(environment, variableOf), base: directory }
  const layers = [flags, variables]
  const fromFile = async (path: string, kind: 'project' | 'own' | 'named') => {
    const layer = await readFileLayer(path, kind, problems, unread)
    if (layer === undefined) return []
    if (!layer.isProject || !(await isHeld(path, sources.home))) return [layer]
    problems.push(`${path} came from a server, or was changed from there, and nobody has accepted it: see sync rules`)
    return []
  }
  const isNamed = 'named' in files
  const project = isNamed ? await fromFile(files.named!, 'named') : await fromFile(files.project, 'project')
  const user = isNamed ? [] : await fromFile(files.user, 'own')
  const system = isNamed || files.system === files.user ? [] : await fromFile(files.system, 'own')
  const outer = [...layers, ...project, ...user, ...system].map((layer) => readLayer(layer, problems))
  const first = (name: string) => outer.find((layer) => layer.has(name))?.get(name)
  const profileName = String(first('profile')?.value ?? 'default')
  const options = await sources.profile(profileName)
  const profile: Layer = { origin: () => `profile ${profileName}`, values: options ?? {}, base: sources.home }
  // After flags, environment and project file, before the user's and the system's.
  outer.splice(2 + project.length, 0, readLayer(profile, problems))

  const all = SETTINGS.map((spec): Setting => {
    const fallback = spec.fallback === undefined ? undefined : readValue(spec, spec.fallback, directory)
    const value = fallback !== undefined && 'value' in fallback ? fallback.value : undefined
    return first(spec.name) ?? { name: spec.name, value, origin: 'default' }
  })
  problems.push(...all.flatMap(({ problem }) => problem ?? []))
  const byName = new Map(all.map((setting) => [setting.name, setting]))
  const valueFor = (name: string) => {
    const setting = byName.get(name)
    if (setting === undefined) throw new RangeError(`no setting ${name}`)
    return setting.value
  }
  return {
    problems,
    unread: unread[0],
    settings: {
      text: (name) => (valueFor(name) === undefined ? undefined : String(valueFor(name))),
      number: (name) => valueFor(name) as number | undefined,
      flag: (name) => valueFor(name) === true,
      list: (name) => (valueFor(name) as readonly string[] | undefined) ?? [],
      isFlag: (name) => byName.get(name)?.origin === `--${name}`,
      all,
    },
  }
}

/** One error for everything that is wrong. */
export function settingsError(problems: readonly string[]): SyncError {
  const [only] = problems
  if (problems.length === 1) return new SyncError('usage', 'OPTION_INVALID', only!)
  return new SyncError('usage', 'CONFIG_INVALID', `${problems.length} settings are wrong: ${problems.join('; ')}`, {
    hint: 'See all of them and where they come from: sync config show',
  })
}
