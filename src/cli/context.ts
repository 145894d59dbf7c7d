/** What a command works with: output, options with their fallbacks, the signal of Ctrl-C, and a client for the profile. @module */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Command } from 'commander'
import type { Client } from '../client.ts'
import { systemClock, type Ui } from '../environment.ts'
import { SyncError } from '../errors.ts'
import type { Authorizer } from '../session/authorizer.ts'
import { type GrantStore, openGrantStore } from '../session/grant-store.ts'
import type { OAuthClient } from '../session/oauth.ts'
import type { RunEvent } from '../sync/run.ts'
import { openBrowser } from './browser.ts'
import { display } from './display.ts'
import { createOutput, type Output } from './output.ts'
import { homeDirectory, loadProfile, type Profile } from './profile.ts'
import { getSecret, prompt } from './secrets.ts'

export type Options = Readonly<Record<string, unknown>>

export interface Context {
  readonly output: Output
  /** Flags and environment, as commander has read them. */
  readonly options: Options
  /** Names of the options that were given as flags. */
  readonly flags: ReadonlySet<string>
  readonly profileName: string
  readonly signal: AbortSignal
}

export function createContext(command: Command, signal: AbortSignal): Context {
  const options: Options = command.optsWithGlobals()
  return {
    options,
    flags: new Set(Object.keys(options).filter((name) => command.getOptionValueSourceWithGlobals(name) === 'cli')),
    signal,
    profileName: text(options, 'profile') ?? 'default',
    output: createOutput({
      json: options.json === true,
      quiet: options.quiet === true,
      verbose: options.verbose === true,
    }),
  }
}

export const text = (options: Options, name: string): string | undefined =>
  typeof options[name] === 'string' ? options[name] : undefined

/** An option that the profile may give a default for. */
export function setting(context: Context, profile: Profile | undefined, flag: string): string | undefined {
  const camel = flag.replace(/-([a-z])/g, (_match, letter: string) => letter.toUpperCase())
  const value = context.options[camel] ?? profile?.options?.[flag]
  return value === undefined || value === false ? undefined : String(value)
}

/** A whole number in a range. */
export function integerSetting(
  context: Context,
  profile: Profile | undefined,
  flag: string,
  range: { min: number; max: number },
): number | undefined {
  const value = setting(context, profile, flag)
  if (value === undefined) return undefined
  const number = Number(value)
  if (!/^\d+$/.test(value) || number < range.min || number > range.max) {
    throw new SyncError('usage', 'OPTION_INVALID', `--${flag} takes a whole number from ${range.min} to ${range.max}`)
  }
  return number
}

const SIZE_UNITS: Readonly<Record<string, number>> = { '': 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3 }

/** `8M`, `8MiB`, `8388608`. */
export function parseSize(value: string, flag: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([KMG]?)(?:i?B)?$/i.exec(value.trim())
  const bytes = match === null ? Number.NaN : Number(match[1]) * (SIZE_UNITS[match[2]!.toUpperCase()] ?? Number.NaN)
  if (!Number.isSafeInteger(Math.round(bytes)) || bytes <= 0) {
    throw new SyncError('usage', 'OPTION_INVALID', `--${flag} takes a size such as 8M`)
  }
  return Math.round(bytes)
}

export async function requireProfile(context: Context): Promise<Profile> {
  const profile = await loadProfile(context.profileName)
  if (profile === undefined) {
    throw new SyncError('auth', 'LOGIN_NEEDED', 'Not logged in', { hint: 'Log in first: sync login URL' })
  }
  return profile
}

/** Under which name the keyring keeps the encryption password. */
export const keyPasswordAccount = (profile: Profile): string => `encryption password, ${accountName(profile)}`

export const keyPassword =
  (context: Context, profile: Profile | undefined, confirm = false) =>
  (): Promise<Uint8Array> =>
    getSecret({
      // A command given as a flag goes before a file from the environment or the profile.
      file:
        context.flags.has('keyPasswordCommand') && !context.flags.has('keyPasswordFile')
          ? undefined
          : setting(context, profile, 'key-password-file'),
      command: setting(context, profile, 'key-password-command'),
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

export async function readAuthorities(caFile: string | undefined): Promise<string[] | undefined> {
  if (caFile === undefined) return undefined
  try {
    return [await readFile(caFile, 'utf8')]
  } catch (cause) {
    throw new SyncError('usage', 'CA_FILE', `Cannot read the certificate authorities in ${caFile}`, { cause })
  }
}

/** A person at a terminal. */
export function terminalUi(output: Output, launch: boolean): Ui {
  return {
    async openUrl(url) {
      const opened = launch && (await openBrowser(url))
      if (opened) output.info('Waiting for the login in the browser. If it did not open, visit:')
      else output.info('To log in, visit:')
      process.stderr.write(`${url}\n`)
    },
    async showCode({ userCode, verificationUri, verificationUriComplete, expiresInMs }) {
      const minutes = Math.max(1, Math.round(expiresInMs / 60_000))
      output.info(`To log in, visit the first address on any device and type the code (within ${minutes} min):`)
      process.stderr.write(`${display(verificationUri, 500)}\n${display(userCode, 60)}\n`)
      if (verificationUriComplete !== undefined) process.stderr.write(`${display(verificationUriComplete, 500)}\n`)
    },
    askSecret: prompt,
  }
}

export interface LoginMethod {
  readonly method: Profile['method']
  readonly client?: OAuthClient | undefined
  readonly redirectUri?: string | undefined
  /** With the password grant. */
  readonly user?: string
  readonly password?: () => Promise<string>
}

/** The authorizer behind a profile; loaded only when its kind is needed. */
export async function createAuthorizer(login: LoginMethod): Promise<(origin: string) => Authorizer> {
  const client = login.client === undefined ? {} : { client: login.client }
  if (login.method === 'password') {
    const { passwordAuthorizer } = await import('../session/authorizers/password.ts')
    const password = login.password ?? (() => Promise.reject(new SyncError('auth', 'LOGIN_NEEDED', 'Not logged in')))
    return (origin) => passwordAuthorizer(origin, { userName: login.user ?? '', password, ...client })
  }
  const { authorizationCodeAuthorizer } = await import('../session/authorizers/authorization-code.ts')
  const redirect = login.redirectUri === undefined ? {} : { redirectUri: login.redirectUri }
  return (origin) => authorizationCodeAuthorizer(origin, { ...client, ...redirect })
}

export async function readClient(
  id: string | undefined,
  secretFile: string | undefined,
): Promise<OAuthClient | undefined> {
  if (id === undefined) {
    if (secretFile === undefined) return undefined
    throw new SyncError('usage', 'CLIENT_ID_MISSING', '--client-secret-file needs --client-id')
  }
  if (secretFile === undefined) {
    const { SCRIPTING_CLIENT } = await import('../session/oauth.ts')
    return id === SCRIPTING_CLIENT.id ? SCRIPTING_CLIENT : { id }
  }
  const secret = await getSecret({ file: secretFile, question: '', missing: new SyncError('usage', 'INTERNAL', '') })
  return { id, secret: Buffer.from(secret).toString('utf8') }
}

export const accountName = (profile: Pick<Profile, 'server' | 'user' | 'clientId'>): string =>
  `${profile.server} ${profile.clientId ?? ''} ${profile.user}`

export const openStore = (profile: Pick<Profile, 'server' | 'user' | 'clientId'>, kind?: Profile['store']) =>
  openGrantStore({
    directory: homeDirectory(),
    account: accountName(profile),
    clock: systemClock,
    ...(kind === undefined ? {} : { kind }),
  })

/** A client for the stored login. */
export async function connect(
  context: Context,
  onEvent?: (event: RunEvent) => void,
): Promise<{ client: Client; profile: Profile; store: GrantStore }> {
  const profile = await requireProfile(context)
  const { store } = await openStore(profile, profile.store)
  const ca = await readAuthorities(setting(context, profile, 'ca-file') ?? profile.caFile)
  const { createClient } = await import('../client.ts')
  const client = createClient(profile.server, {
    authorizer: await createAuthorizer({
      method: profile.method,
      client: await readClient(profile.clientId, profile.clientSecretFile),
      redirectUri: profile.redirectUri,
      user: profile.user,
    }),
    store,
    keyPassword: keyPassword(context, profile),
    onEvent: onEvent ?? ((event) => event.type === 'retry' && context.output.detail(`trying again: ${event.reason}`)),
    ...(ca === undefined ? {} : { transport: { ca } }),
  })
  return { client, profile, store }
}

/** Runs `work` with a client and closes it, whatever happens. */
export async function withClient<T>(
  context: Context,
  work: (client: Client, profile: Profile) => Promise<T>,
): Promise<T> {
  const { client, profile } = await connect(context)
  try {
    return await work(client, profile)
  } finally {
    await client.close()
  }
}

export const lockPath = (name: string): string => join(homeDirectory(), 'locks', name)
