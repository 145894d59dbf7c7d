/**
 * What a login leaves for later commands: server, client and where the grant is kept; never a secret. Settings in it are the
 * last but one place that options are looked for (flag, `SEALSYNC_*`, profile, default).
 * @module
 */
import { unlink } from 'node:fs/promises'
import { join } from 'node:path'
import envPaths from 'env-paths'
import { SyncError, systemCode } from '../errors.ts'
import { readPrivateFile, writePrivateFile } from '../local/atomic-file.ts'
import type { StoreKind } from '../session/grant-store.ts'

export interface Profile {
  readonly v: 1
  readonly server: string
  readonly user: string
  readonly userId: number
  readonly method: 'password' | 'browser'
  readonly clientId?: string
  readonly clientSecretFile?: string
  readonly redirectUri?: string
  readonly caFile?: string
  readonly store: StoreKind
  /** Defaults for options of other commands, by their long names: `{"jobs": 4, "key-password-file": "/etc/…"}`. */
  readonly options?: Readonly<Record<string, string | number | boolean>>
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

function parseProfile(text: string, path: string): Profile {
  let value: Record<string, unknown>
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw damaged(path, cause)
  }
  const right =
    value !== null &&
    value.v === 1 &&
    typeof value.server === 'string' &&
    typeof value.user === 'string' &&
    Number.isSafeInteger(value.userId) &&
    (value.method === 'password' || value.method === 'browser') &&
    (value.store === 'keyring' || value.store === 'file')
  if (!right) throw damaged(path)
  return value as unknown as Profile
}

/** @returns `undefined` when there is no such profile. */
export async function loadProfile(name: string): Promise<Profile | undefined> {
  const path = pathOf(name)
  const bytes = await readPrivateFile(path)
  return bytes === undefined ? undefined : parseProfile(Buffer.from(bytes).toString('utf8'), path)
}

export const saveProfile = (name: string, profile: Profile): Promise<void> =>
  writePrivateFile(pathOf(name), `${JSON.stringify(profile, null, 2)}\n`)

export async function deleteProfile(name: string): Promise<void> {
  await unlink(pathOf(name)).catch((error) => {
    if (systemCode(error) !== 'ENOENT') throw error
  })
}
