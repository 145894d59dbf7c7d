/**
 * What a login leaves for later commands: server, account, way to log in and where the grant is kept; never a secret. Settings
 * in it come after flags, environment and project file.
 * @module
 */
import { readdir, rename, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import envPaths from 'env-paths'
import type { StoreKind } from '../client/index.ts'
import { localError, SyncError, systemCode } from '../errors.ts'
import { readPrivateFile, writePrivateFile } from '../local/atomic-file.ts'
import { isMethod, type MethodName } from './methods.ts'

export interface Profile {
  readonly v: 1
  readonly server: string
  readonly user: string
  readonly userId: number
  readonly method: MethodName
  /** What the method needs besides, by the names of the flags: ids and names of files. */
  readonly login?: Readonly<Record<string, string>>
  readonly store: StoreKind
  /** Settings of other commands, by their names: `{"jobs": 4, "key-password-file": "/etc/…"}`. */
  readonly options?: Readonly<Record<string, string | number | boolean | readonly string[]>>
}

/** The directory of everything this program keeps for its user. */
export const homeDirectory = (): string => process.env.SEALSYNC_HOME || envPaths('sealsync', { suffix: '' }).config

const checkName = (name: string) => {
  if (/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(name)) return name
  throw new SyncError('usage', 'PROFILE_NAME', 'A profile name has letters, digits, dots, dashes and underscores only')
}

const pathOf = (name: string) => join(homeDirectory(), `profile-${checkName(name)}.json`)

const damaged = (path: string, cause?: unknown) =>
  new SyncError('usage', 'PROFILE_DAMAGED', `The profile ${path} cannot be read`, {
    hint: 'Log in again: sync login URL',
    cause,
  })

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

export function parseProfile(text: string, path: string): Profile {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw damaged(path, cause)
  }
  if (!isRecord(value)) throw damaged(path)
  const { v, server, user, userId, method, store } = value
  const right =
    v === 1 &&
    typeof server === 'string' &&
    typeof user === 'string' &&
    Number.isSafeInteger(userId) &&
    isMethod(method) &&
    ['keyring', 'file', 'encrypted'].includes(store as string) &&
    (value.login === undefined || isRecord(value.login)) &&
    (value.options === undefined || isRecord(value.options))
  if (!right) throw damaged(path)
  // Earlier profiles kept these beside each other.
  const { clientId, clientSecretFile, redirectUri, caFile, login, options, ...rest } = value
  const texts = {
    'client-id': clientId,
    'client-secret-file': clientSecretFile,
    'redirect-uri': redirectUri,
    ...(login ?? {}),
  }
  const all = { ...(caFile === undefined ? {} : { 'ca-file': caFile }), ...(options ?? {}) }
  return {
    ...(rest as unknown as Profile),
    login: Object.fromEntries(
      Object.entries(texts).filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
    ),
    options: all as NonNullable<Profile['options']>,
  }
}

/** @returns `undefined` when there is no such profile. */
export async function loadProfile(name: string): Promise<Profile | undefined> {
  const path = pathOf(name)
  const bytes = await readPrivateFile(path)
  return bytes === undefined ? undefined : parseProfile(Buffer.from(bytes).toString('utf8'), path)
}

/**
 * Settings that a profile keeps; a damaged one has none here, and says so when it is used.
 *
 * @throws {SyncError} class `local_io` when the disk does not give it: a run without its settings would be another one.
 */
export async function profileOptions(name: string): Promise<Profile['options']> {
  const profile = await loadProfile(name).catch((error) => {
    if (error instanceof SyncError && error.class === 'local_io') throw error
    return undefined
  })
  return profile?.options
}

export const saveProfile = (name: string, profile: Profile): Promise<void> =>
  writePrivateFile(pathOf(name), `${JSON.stringify(profile, null, 2)}\n`)

export async function deleteProfile(name: string): Promise<void> {
  await unlink(pathOf(name)).catch((error) => {
    if (systemCode(error) !== 'ENOENT') throw localError(error, `remove the profile ${name}`)
  })
}

/** Names of all profiles, sorted. */
export async function listProfiles(): Promise<string[]> {
  const names = await readdir(homeDirectory()).catch((error) => {
    if (systemCode(error) === 'ENOENT') return []
    throw localError(error, 'list the profiles')
  })
  return names.flatMap((name) => /^profile-(.+)\.json$/.exec(name)?.[1] ?? []).sort()
}

/** @throws {SyncError} `PROFILE_MISSING`, `PROFILE_EXISTS`. */
export async function renameProfile(from: string, to: string): Promise<void> {
  if ((await loadProfile(from)) === undefined) throw profileMissing(from)
  if ((await listProfiles()).includes(checkName(to))) {
    throw new SyncError('usage', 'PROFILE_EXISTS', `There is a profile ${to} already`)
  }
  await rename(pathOf(from), pathOf(to)).catch((error) => {
    throw localError(error, `rename the profile ${from}`)
  })
}

export const profileMissing = (name: string) =>
  new SyncError('usage', 'PROFILE_MISSING', `There is no profile ${name}`, { hint: 'See them with: sync profile list' })
