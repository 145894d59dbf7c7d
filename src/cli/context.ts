/** What a command works with: output, flags, settings, the signal of Ctrl-C, and the profile. @module */
import { join } from 'node:path'
import type { Command } from 'commander'
import { SyncError } from '../errors.ts'
import { homePaths } from '../local/home.ts'
import type { Names } from '../local/names.ts'
import { type Log, logged, openLog } from './log-file.ts'
import { createOutput, type Output } from './output.ts'
import { homeDirectory, loadProfile, type Profile, profileOptions } from './profile.ts'
import { getSecret } from './secrets.ts'
import { camelCase, readSettings, type Settings, settingsError } from './settings.ts'

export type Options = Readonly<Record<string, unknown>>

export interface Context {
  readonly output: Output
  /** Flags and arguments, as commander has read them. */
  readonly options: Options
  /** Of them, what the call itself gives. */
  readonly given: Options
  readonly settings: Settings
  /** What is wrong with the settings; only commands that show them run in spite of it. */
  readonly problems: readonly string[]
  /** The error of the disk among them, if there is one: the settings may be right. */
  readonly unread?: SyncError | undefined
  readonly profileName: string
  /** How long a server that is away is waited for, in milliseconds. Default: as the client has it. */
  readonly retryForMs: number | undefined
  readonly signal: AbortSignal
  /** What is written down of the command. */
  readonly log: Log
}

/** Where settings of this process come from. */
export const settingSources = (flags: Options) => ({
  flags,
  environment: process.env,
  directory: process.cwd(),
  home: homeDirectory(),
  profile: profileOptions,
  file: text(flags, 'config'),
})

/** Nobody waits for a backup, and the next one may be a day away. */
const BACKUP_RETRY_FOR_MS = 15 * 60_000

const isBackup = (command: Command) => command.name() === 'drill' || command.parent?.name() === 'backup'

export async function createContext(command: Command, signal: AbortSignal): Promise<Context> {
  // What stands beside the command is nearer than what stands before its name.
  const options: Options = { ...command.optsWithGlobals(), ...command.opts() }
  const flags = Object.fromEntries(
    Object.entries(options).filter(([name]) => command.getOptionValueSourceWithGlobals(name) === 'cli'),
  )
  const { settings, problems, unread } = await readSettings(settingSources(flags))
  const output = outputOf(options)
  const log = await openLog(settings, output)
  return {
    log,
    options,
    given: flags,
    settings,
    problems,
    unread,
    signal,
    profileName: settings.text('profile') ?? 'default',
    retryForMs: settings.number('retry-for') ?? (isBackup(command) ? BACKUP_RETRY_FOR_MS : undefined),
    output: logged(output, log),
  }
}

export const outputOf = (options: Options): Output =>
  createOutput({ json: options.json === true, quiet: options.quiet === true, verbose: options.verbose === true })

/** @throws {SyncError} `OPTION_INVALID`, `CONFIG_INVALID` for wrong settings; class `local_io` when a file of them cannot be read. */
export function requireSettings({ problems, unread }: Context): void {
  if (unread !== undefined) throw unread
  if (problems.length > 0) throw settingsError(problems)
}

/** The number of a flag that is no setting. */
export function integerOption(options: Options, flag: string, range: { min: number; max: number }): number | undefined {
  const value = text(options, camelCase(flag))
  if (value === undefined) return undefined
  if (!/^\d+$/.test(value) || Number(value) < range.min || Number(value) > range.max) {
    throw new SyncError('usage', 'OPTION_INVALID', `--${flag} takes a whole number from ${range.min} to ${range.max}`)
  }
  return Number(value)
}

/** The number that a flag gives. */
export function measured(
  { options }: Pick<Context, 'options'>,
  flag: string,
  parse: (text: string) => number | undefined,
  example: string,
): number | undefined {
  const value = text(options, camelCase(flag))
  if (value === undefined) return undefined
  const number = parse(value)
  if (number !== undefined) return number
  throw new SyncError('usage', 'OPTION_INVALID', `--${flag} takes a value such as ${example}`)
}

/** What `--names` says. */
export const namesOf = ({ settings }: Context): Names | undefined => settings.text('names') as Names | undefined

export const text = (options: Options, name: string): string | undefined =>
  typeof options[name] === 'string' ? options[name] : undefined

export async function requireProfile(context: Context): Promise<Profile> {
  const profile = await loadProfile(context.profileName)
  if (profile === undefined) {
    throw new SyncError('auth', 'LOGIN_NEEDED', 'Not logged in', { hint: 'Log in first: sync login URL' })
  }
  return profile
}

/** Unique name of a login: server, client and user. */
export const accountName = ({ server, user, login }: Pick<Profile, 'server' | 'user' | 'login'>): string =>
  `${server} ${login?.['client-id'] ?? ''} ${user}`

/**
 * Under which name a login is kept. Its way belongs to it: another may mean another OAuth client, which cannot renew the
 * tokens of this one.
 */
export const grantName = (login: Pick<Profile, 'server' | 'user' | 'login' | 'method'>): string =>
  `${accountName(login)} ${login.method}`

/** Under which name the keyring keeps the encryption password. */
export const keyPasswordAccount = (profile: Profile): string => `encryption password, ${accountName(profile)}`

/** Where the encryption password may come from besides the keyring and a person; the first one counts. */
const KEY_PASSWORD_SOURCES = [
  'key-password-file',
  'key-password-command',
  'key-password-credential',
  'key-password-sealed',
] as const

/** The source that is set; one given as a flag goes before those from the environment or the profile. */
function keyPasswordSource({ settings }: Context) {
  const given = KEY_PASSWORD_SOURCES.filter((name) => settings.text(name) !== undefined)
  const name = given.find((one) => settings.isFlag(one)) ?? given[0]
  return name === undefined ? undefined : { name, value: settings.text(name)! }
}

export const keyPassword =
  (context: Context, profile: Profile | undefined, confirm = false) =>
  async (): Promise<Uint8Array> => {
    const source = keyPasswordSource(context)
    if (source?.name === 'key-password-credential')
      return (await import('./credential.ts')).readCredential(source.value)
    if (source?.name === 'key-password-sealed' && profile !== undefined) {
      const { openSealedPassword } = await import('./sealed-password.ts')
      const kind = source.value === 'tpm2' ? 'tpm2' : 'fido2'
      return openSealedPassword(homeDirectory(), keyPasswordAccount(profile), kind, context.output.info)
    }
    return getSecret({
      file: source?.name === 'key-password-file' ? source.value : undefined,
      command: source?.name === 'key-password-command' ? source.value : undefined,
      keyring: profile === undefined || confirm ? undefined : keyPasswordAccount(profile),
      variable: 'SEALSYNC_KEY_PASSWORD',
      question: 'Encryption password',
      confirm,
      missing: new SyncError(
        'key',
        'PASSWORD_NEEDED',
        'The encryption password is needed, and there is no terminal to ask',
        {
          hint: 'Give it with --key-password-file or --key-password-command.',
        },
      ),
    })
  }

const home = () => homePaths(homeDirectory())

export const lockPath = (name: string): string => join(home().locks, name)

/** States of synchronized pairs. */
export const statesPath = (): string => home().states

/** Which rules came from servers and wait for somebody. */
export const rulesPath = (): string => home().rules

/** What a client is told of the log. */
export const loggingOf = ({ log: { logger, trace } }: Pick<Context, 'log'>) => ({
  ...(logger === undefined ? {} : { logger }),
  ...(trace === undefined ? {} : { trace }),
})
