/** The configuration of backup sets: one small TOML file each, read strictly, since nobody looks when it runs. @module */
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { parse as parseToml } from 'smol-toml'
import { type BackupSet, createHeldRules, parseRemotePath, type Retention, sourceProblem } from '../client/index.ts'
import { localError, SyncError, systemCode } from '../errors.ts'
import { rulesPath } from './context.ts'
import { homeDirectory } from './profile.ts'
import { parseSize } from './settings.ts'

const MAX_FILE = 1024 * 1024

/** @throws {SyncError} `BACKUP_NAME` (class `usage`). */
export function checkSetName(name: string): string {
  if (/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(name)) return name
  throw new SyncError('usage', 'BACKUP_NAME', 'A backup’s name has letters, digits, dots, dashes and underscores only')
}

export const setPath = (name: string): string => join(homeDirectory(), 'backups', `${checkSetName(name)}.toml`)

const invalid = (path: string, why: string) =>
  new SyncError('usage', 'BACKUP_CONFIG', `${path}: ${why}`, { hint: 'docs/backups.md says what a set has' })

/**
 * Reads the configuration of a set.
 *
 * @throws {SyncError} `BACKUP_CONFIG`, `BACKUP_MISSING` (class `usage`), `RULES_NOT_ACCEPTED`.
 */
export async function loadSet(name: string, path = setPath(name)): Promise<BackupSet> {
  checkSetName(name)
  let text: string
  try {
    const info = await stat(path)
    // Not read, a pipe of that name would hang us.
    if (!info.isFile() || info.size > MAX_FILE) throw invalid(path, 'not a file of at most 1 MiB')
    if (process.platform !== 'win32') {
      const isTrusted = info.uid === process.getuid?.() || info.uid === 0
      if (!isTrusted || (info.mode & 0o022) !== 0) throw invalid(path, 'other users can change it (chmod go-w)')
    }
    text = await readFile(path, 'utf8')
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw localError(error, `read ${path}`)
    throw new SyncError('usage', 'BACKUP_MISSING', `There is no backup ${name}: ${path} does not exist`, {
      hint: 'Write that file, or name another with --set-file. To read a backup --target is enough.',
    })
  }
  // One that others can write by a run would decide what is sent where.
  if (path !== setPath(name)) await createHeldRules(rulesPath()).requireAccepted(path)
  let values: Record<string, unknown>
  try {
    values = parseToml(text)
  } catch (error) {
    throw invalid(path, error instanceof Error ? error.message.split('\n')[0]! : 'not TOML')
  }
  return parseSet(name, values, (why) => invalid(path, why))
}

type Wrong = (why: string) => SyncError

const KEYS = [
  'target',
  'sources',
  'exclude',
  'default-excludes',
  'exclude-caches',
  'one-file-system',
  'max-size',
  'keep',
]
const KEEP_KEYS = ['last', 'daily', 'weekly', 'monthly', 'yearly'] as const

function refuseOthers(values: object, keys: readonly string[], where: string, wrong: Wrong): void {
  for (const key of Object.keys(values)) {
    if (!keys.includes(key)) throw wrong(`there is no ${where}"${key}"; there are ${keys.join(', ')}`)
  }
}

function texts(value: unknown, key: string, wrong: Wrong): string[] {
  if (Array.isArray(value) && value.every((one) => typeof one === 'string')) return value as string[]
  throw wrong(`"${key}" takes a list of texts`)
}

/** @param wrong - Makes the error for what is wrong. */
export function parseSet(name: string, values: Readonly<Record<string, unknown>>, wrong: Wrong): BackupSet {
  refuseOthers(values, KEYS, 'setting ', wrong)
  const { target, exclude = [], 'one-file-system': oneFileSystem = false, 'max-size': maxSize, keep = {} } = values
  if (typeof target !== 'string') throw wrong('"target" takes a remote path such as "/room/backups/web1"')
  for (const key of ['one-file-system', 'default-excludes', 'exclude-caches']) {
    if (values[key] !== undefined && typeof values[key] !== 'boolean') throw wrong(`"${key}" takes true or false`)
  }
  const size = typeof maxSize === 'string' || Number.isSafeInteger(maxSize) ? parseSize(String(maxSize)) : undefined
  if (maxSize !== undefined && size === undefined) throw wrong('"max-size" takes a size such as "500M"')
  return {
    name,
    target: remoteTarget(target, wrong),
    sources: parseSources(values.sources, wrong),
    exclude: texts(exclude, 'exclude', wrong),
    oneFileSystem: oneFileSystem === true,
    ...(values['default-excludes'] === false ? { defaultExcludes: false } : {}),
    ...(values['exclude-caches'] === true ? { excludeCaches: true } : {}),
    ...(size === undefined ? {} : { maxSize: size }),
    keep: parseKeep(keep, wrong),
  }
}

export function remoteTarget(target: string, wrong: Wrong): string {
  try {
    const parts = parseRemotePath(target)
    if (parts.length > 0) return `/${parts.join('/')}`
  } catch {
    // Told below.
  }
  throw wrong('"target" takes a remote path such as "/room/backups/web1"')
}

function parseSources(value: unknown, wrong: Wrong): string[] {
  const sources = texts(value, 'sources', wrong).map((one) => (one.length > 1 ? one.replace(/\/+$/, '') : one))
  const problem = sourceProblem(sources)
  if (problem !== undefined) throw wrong(problem)
  return sources
}

function parseKeep(value: unknown, wrong: Wrong): Retention {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong('"keep" is a table: [keep]')
  refuseOthers(value, KEEP_KEYS, 'keep.', wrong)
  for (const [key, count] of Object.entries(value)) {
    if (!Number.isSafeInteger(count) || count < 0 || count > 100_000) throw wrong(`"keep.${key}" takes a number`)
  }
  return { ...value }
}
