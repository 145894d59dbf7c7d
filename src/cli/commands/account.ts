/** login, logout, whoami. @module */
import { rm } from 'node:fs/promises'
import { createClient, memoryGrantStore, parseBaseUrl, type StoreKind } from '../../client/index.ts'
import { SyncError, toSyncError } from '../../errors.ts'
import { homePaths } from '../../local/home.ts'
import { createAuthorizer } from '../authorizers.ts'
import { connect, forgetLogin, openStore, terminalUi, withClient } from '../connect.ts'
import { type Context, loggingOf, requireProfile } from '../context.ts'
import { display } from '../display.ts'
import { chooseMethod, LOGIN_OPTIONS, type LoginChoice } from '../methods.ts'
import { waitingLine } from '../output.ts'
import { deleteProfile, homeDirectory, loadProfile, type Profile, saveProfile } from '../profile.ts'
import { getSecret, isInteractive } from '../secrets.ts'
import { camelCase, SETTINGS } from '../settings.ts'
import { transportOf } from '../transport.ts'

/** The login options that were given, by flag name. */
function givenOptions({ options }: Context): Record<string, string> {
  const given: Record<string, string> = {}
  for (const { name } of [...LOGIN_OPTIONS, { name: 'method' }]) {
    const value = name === 'no-browser' ? options.browser === false || undefined : options[camelCase(name)]
    if (value !== undefined && value !== '') given[name] = String(value)
  }
  return given
}

/** Connection settings given at the login hold for later commands too. */
function connectionFlags({ settings }: Context): NonNullable<Profile['options']> {
  const names = SETTINGS.filter(({ connection, name }) => connection && settings.isFlag(name)).map(({ name }) => name)
  const pairs = settings.all.filter(({ name, value }) => names.includes(name) && value !== undefined)
  return Object.fromEntries(
    pairs.map(({ name, value }) => {
      // Durations are kept in milliseconds inside; written, they need their unit.
      const isTime = SETTINGS.some((spec) => spec.name === name && spec.kind === 'duration')
      return [name, isTime ? `${value}ms` : value!]
    }),
  )
}

const askPassword = (user: string, values: LoginChoice['values']) => async () => {
  const secret = await getSecret({
    file: values['password-file'],
    command: values['password-command'],
    variable: 'SEALSYNC_PASSWORD',
    question: `Password of ${display(user, 60)}`,
    missing: new SyncError(
      'auth',
      'PASSWORD_NEEDED',
      'The account password is needed, and there is no terminal to ask',
      {
        hint: 'Give it with --password-file.',
      },
    ),
  })
  return Buffer.from(secret).toString('utf8')
}

/** Codes of a second factor from a file or a program, where nobody attends. */
function oneTimeCodeOf(values: LoginChoice['values']): (() => Promise<string>) | undefined {
  const { 'otp-secret-file': file, 'otp-command': command } = values
  if (file === undefined && command === undefined) return undefined
  return async () => {
    const said = Buffer.from(await getSecret({ file, command })).toString('utf8')
    if (file === undefined) return said
    const { oneTimeCode } = await import('../../session/index.ts')
    return oneTimeCode(said)
  }
}

export async function login(context: Context, url: string): Promise<void> {
  const { output, settings, signal, profileName } = context
  const { method, values, kept } = chooseMethod(givenOptions(context))
  const { origin } = parseBaseUrl(url)
  const memory = memoryGrantStore()
  const user = values.user ?? ''
  const ui = terminalUi(output, values['no-browser'] === undefined, values.code)
  const code = oneTimeCodeOf(values) ?? (() => ui.askSecret('One-time code'))
  const client = createClient(origin, {
    authorizer: await createAuthorizer(method, values, {
      password: askPassword(user, values),
      code,
      // Where nobody can be asked, the browser is on this machine, or there is none.
      pastes: values.code !== undefined || (values['no-browser'] !== undefined && isInteractive()),
    }),
    store: memory,
    environment: { ui },
    transport: await transportOf(settings, origin),
    ...loggingOf(context),
    readOnly: settings.flag('read-only'),
    ...(context.retryForMs === undefined ? {} : { retryForMs: context.retryForMs }),
    onEvent: (event) => {
      if (event.type === 'warning') output.warn(event.message)
      if (event.type === 'waiting') output.info(waitingLine(event))
    },
  })
  try {
    await client.session.login(signal)
    const account = await client.whoami({ signal })
    const previous = await loadProfile(profileName).catch(() => undefined)
    const identity = { server: client.origin, user: account.userName, login: kept, method }
    const { store, kind } = await openStore(identity, settings, settings.text('session-store') as StoreKind | undefined)
    const grant = await memory.load()
    if (grant !== undefined) await store.exclusive(() => store.save(grant))
    const profile: Profile = {
      v: 1,
      ...identity,
      userId: account.id,
      store: kind,
      options: { ...previous?.options, ...connectionFlags(context) },
    }
    await saveProfile(profileName, profile)
    // Nothing would lead to the tokens of the login before any more.
    if (previous !== undefined) {
      await forgetLogin(profileName, previous, settings, profile).catch(() => {
        output.warn('the login that was in this profile before could not be removed from its place')
      })
    }
    if (kind === 'file')
      output.warn(
        `${settings.text('session-store') === 'file' ? '' : 'no keyring found: '}the login is kept in plain text in ${store.place}`,
      )
    output.done(`Logged in to ${client.origin} as ${display(account.userName)}`, {
      type: 'login',
      server: client.origin,
      user: account.userName,
      userId: account.id,
      method,
      store: kind,
    })
  } finally {
    await client.close()
  }
}

export async function logout(context: Context): Promise<void> {
  const profile = await loadProfile(context.profileName)
  if (profile === undefined) {
    context.output.done('Not logged in', { type: 'logout', revoked: false })
    return
  }
  const { client, store } = await connect(context)
  let failure: SyncError | undefined
  try {
    await client.session.logout(context.signal)
  } catch (error) {
    failure = toSyncError(error)
    const isLeft = await store.load().then(
      (grant) => grant !== undefined,
      () => true,
    )
    // Without its profile, nothing would lead to it.
    if (isLeft) throw failure
  } finally {
    await client.close()
  }
  await deleteProfile(context.profileName)
  await rm(homePaths(homeDirectory()).listings, { recursive: true, force: true }).catch(() => {})
  if (failure !== undefined) {
    context.output.warn('the login was removed here, but the server could not be told')
    throw failure
  }
  context.output.done('Logged out', { type: 'logout', revoked: true })
}

export async function whoami(context: Context): Promise<void> {
  const { output, settings, signal, profileName } = context
  const profile = await requireProfile(context)
  await withClient(context, async (client) => {
    const account = await client.whoami({ signal })
    const server = await client.serverInfo({ signal }).catch(() => undefined)
    const { place } = (await openStore(profile, settings, profile.store)).store
    const { hasKeyPair } = account
    const serverVersion = server?.serverVersion
    output.result(
      [
        `user     ${display(account.userName)}`,
        `server   ${profile.server}${serverVersion === undefined ? '' : ` (${display(serverVersion, 40)})`}`,
        `keys     ${hasKeyPair ? 'has a key pair' : 'no key pair yet (sync keys create)'}`,
        `login    by ${profile.method}, kept in ${place}`,
        `profile  ${profileName}`,
      ].join('\n'),
      {
        type: 'whoami',
        user: account.userName,
        userId: profile.userId,
        server: profile.server,
        serverVersion,
        hasKeyPair,
        method: profile.method,
        store: profile.store,
        profile: profileName,
      },
    )
  })
}
