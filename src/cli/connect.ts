/** Clients for the login of a profile, and where logins are kept. @module */
import type { Client, GrantStore, RunEvent, StoreKind } from '../client/index.ts'
import { systemClock, type Ui } from '../environment.ts'
import { SyncError } from '../errors.ts'
import { openBrowser } from './browser.ts'
import { accountName, type Context, grantName, keyPassword, loggingOf, requireProfile } from './context.ts'
import { display } from './display.ts'
import { type Output, waitingLine } from './output.ts'
import { homeDirectory, listProfiles, loadProfile, type Profile } from './profile.ts'
import { confirm, getSecret, isInteractive, prompt, readCode } from './secrets.ts'
import { parseRates, type Settings } from './settings.ts'
import { write } from './streams.ts'
import { transportOf } from './transport.ts'

/**
 * A person at a terminal.
 *
 * @param codeFile - Where the code that the login page shows comes from instead of a prompt; `-` is standard input.
 */
export function terminalUi(output: Output, launch: boolean, codeFile?: string): Ui {
  return {
    async openUrl(url) {
      const opened = launch && (await openBrowser(url))
      if (opened) output.info('Waiting for the login in the browser. If it did not open, visit:')
      else output.info('To log in, visit:')
      write(process.stderr, url)
    },
    async showCode({ userCode, verificationUri, verificationUriComplete, expiresInMs }) {
      const minutes = Math.max(1, Math.round(expiresInMs / 60_000))
      output.info(`To log in, visit this address on any device and type the code, within ${minutes} min:`)
      write(process.stderr, `${display(verificationUri, 500)}\n${display(userCode, 60)}`)
      if (verificationUriComplete !== undefined) {
        write(process.stderr, `or, with the code in it: ${display(verificationUriComplete, 500)}`)
      }
    },
    async askSecret(question, signal) {
      if (codeFile !== undefined) return readCode(codeFile, signal)
      if (isInteractive()) return prompt(question, signal)
      throw new SyncError('auth', 'CODE_NEEDED', `${question}: there is no terminal to ask`, {
        hint: 'A login that asks needs a terminal; a code can also come from --code FILE.',
      })
    },
  }
}

/** Opens the place where the login of an account is kept; the best there is, unless a kind is given. */
export async function openStore(
  login: Pick<Profile, 'server' | 'user' | 'login' | 'method'>,
  settings: Settings,
  kind?: StoreKind,
): Promise<{ store: GrantStore; kind: StoreKind }> {
  const command = settings.text('session-key-command')
  const key = () => getSecret({ command })
  const { openGrantStore } = await import('../client/index.ts')
  return openGrantStore({
    directory: homeDirectory(),
    account: grantName(login),
    clock: systemClock,
    ...(command === undefined ? {} : { key }),
    ...(kind === undefined ? {} : { kind }),
  })
}

/**
 * Removes the login that a profile names, as long as no other profile uses the same. The server is not told.
 *
 * @param name - Of the profile: it does not count as another.
 * @param now - What the profile is about to name instead.
 */
export async function forgetLogin(name: string, profile: Profile, settings: Settings, now?: Profile): Promise<void> {
  const placeOf = (one: Profile) => `${one.store} ${grantName(one)}`
  const others = (await listProfiles()).filter((other) => other !== name)
  const used = await Promise.all(others.map((other) => loadProfile(other).catch(() => undefined)))
  if ([...used, now].some((one) => one !== undefined && placeOf(one) === placeOf(profile))) return
  const { store } = await openStore(profile, settings, profile.store)
  await store.exclusive(() => store.clear())
}

/** A client for the stored login. */
export async function connect(
  context: Context,
  onEvent?: (event: RunEvent) => void,
): Promise<{ client: Client; profile: Profile; store: GrantStore }> {
  const { settings, output, retryForMs } = context
  const maxEntries = settings.number('max-entries')
  const profile = await requireProfile(context)
  const { store } = await openStore(profile, settings, profile.store)
  const [{ createClient }, { createAuthorizer }] = await Promise.all([
    import('../client/index.ts'),
    import('./authorizers.ts'),
  ])
  const client = createClient(profile.server, {
    authorizer: await createAuthorizer(profile.method, profile.login ?? {}),
    store,
    async keyPassword() {
      const password = await keyPassword(context, profile)()
      onEvent?.({ type: 'phase', text: 'Unlocking the key' })
      return password
    },
    directory: homeDirectory(),
    account: accountName(profile),
    keyCache: settings.text('key-cache') !== 'off',
    trustNewMembers: settings.flag('trust-new-members') || (isInteractive() && !output.json),
    transport: await transportOf(settings, profile.server),
    readOnly: settings.flag('read-only'),
    writeOnly: settings.flag('write-only'),
    ...(retryForMs === undefined ? {} : { retryForMs }),
    ...(maxEntries === undefined ? {} : { maxEntries }),
    limitRate: parseRates(settings.text('limit-rate') ?? '0') ?? {},
    ...(isInteractive() && !output.json ? { confirm } : {}),
    ...loggingOf(context),
    onEvent(event) {
      context.log.event(event)
      if (onEvent !== undefined) return onEvent(event)
      if (event.type === 'retry') output.detail(`trying again: ${event.reason}`)
      if (event.type === 'waiting') output.info(waitingLine(event))
      if (event.type === 'warning') output.warn(event.message)
    },
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
