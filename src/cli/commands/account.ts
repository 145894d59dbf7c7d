/** login, logout, whoami. @module */
import { resolve } from 'node:path'
import { getAccount, getServerVersion } from '../../api/account.ts'
import { createClient } from '../../client.ts'
import { SyncError, toSyncError } from '../../errors.ts'
import { memoryGrantStore } from '../../session/grant-store.ts'
import {
  type Context,
  connect,
  createAuthorizer,
  openStore,
  readAuthorities,
  readClient,
  requireProfile,
  setting,
  terminalUi,
  text,
  withClient,
} from '../context.ts'
import { display } from '../display.ts'
import { deleteProfile, loadProfile, type Profile, saveProfile } from '../profile.ts'
import { getSecret } from '../secrets.ts'

export async function login(context: Context, url: string): Promise<void> {
  const { options, output } = context
  const user = text(options, 'user')
  const clientId = text(options, 'clientId')
  const secretFile = text(options, 'clientSecretFile')
  const redirectUri = text(options, 'redirectUri')
  const caFile = text(options, 'caFile')
  if (user === undefined && (text(options, 'passwordFile') ?? text(options, 'passwordCommand')) !== undefined) {
    throw new SyncError('usage', 'USER_MISSING', '--password-file and --password-command need --user', {
      hint: 'Without --user the login happens in the browser.',
    })
  }
  const password = async () => {
    const secret = await getSecret({
      file: text(options, 'passwordFile'),
      command: text(options, 'passwordCommand'),
      variable: 'SEALSYNC_PASSWORD',
      question: `Password of ${display(user ?? '', 60)}`,
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
  const method: Profile['method'] = user === undefined ? 'browser' : 'password'
  const ca = await readAuthorities(caFile)
  const memory = memoryGrantStore()
  const client = createClient(url, {
    authorizer: await createAuthorizer({
      method,
      client: await readClient(clientId, secretFile),
      redirectUri,
      ...(user === undefined ? {} : { user }),
      password,
    }),
    store: memory,
    environment: { ui: terminalUi(output, options.browser !== false) },
    ...(ca === undefined ? {} : { transport: { ca } }),
  })
  try {
    await client.session.login(context.signal)
    const account = await getAccount(client.api, context.signal)
    const previous = await loadProfile(context.profileName).catch(() => undefined)
    const identity = {
      server: client.origin,
      user: account.userName,
      ...(clientId === undefined ? {} : { clientId }),
    }
    const { store, kind } = await openStore(identity)
    const grant = await memory.load()
    if (grant !== undefined) await store.exclusive(() => store.save(grant))
    await saveProfile(context.profileName, {
      v: 1,
      ...identity,
      userId: account.id,
      method,
      store: kind,
      ...(secretFile === undefined ? {} : { clientSecretFile: resolve(secretFile) }),
      ...(redirectUri === undefined ? {} : { redirectUri }),
      ...(caFile === undefined ? {} : { caFile: resolve(caFile) }),
      ...(previous?.options === undefined ? {} : { options: previous.options }),
    })
    if (kind === 'file') output.warn(`no keyring found: the login is kept in plain text in ${store.place}`)
    output.result(`Logged in to ${client.origin} as ${display(account.userName)}`, {
      type: 'login',
      server: client.origin,
      user: account.userName,
      userId: account.id,
      store: kind,
    })
  } finally {
    await client.close()
  }
}

export async function logout(context: Context): Promise<void> {
  const profile = await loadProfile(context.profileName)
  if (profile === undefined) {
    context.output.result('Not logged in', { type: 'logout', revoked: false })
    return
  }
  const { client } = await connect(context)
  let failure: SyncError | undefined
  try {
    await client.session.logout(context.signal)
  } catch (error) {
    failure = toSyncError(error)
  } finally {
    await client.close()
  }
  await deleteProfile(context.profileName)
  if (failure !== undefined) {
    context.output.warn('the login was removed here, but the server could not be told')
    throw failure
  }
  context.output.result('Logged out', { type: 'logout', revoked: true })
}

export async function whoami(context: Context): Promise<void> {
  const profile = await requireProfile(context)
  await withClient(context, async (client) => {
    const account = await getAccount(client.api, context.signal)
    const version = await getServerVersion(client.api, context.signal).catch(() => undefined)
    const place = (await openStore(profile, profile.store)).store.place
    const keys = account.isEncryptionEnabled === true ? 'has a key pair' : 'no key pair yet (sync keys create)'
    output(
      context,
      profile,
      account.userName,
      keys,
      place,
      version?.sdsServerVersion,
      account.isEncryptionEnabled === true,
    )
  })
}

function output(
  context: Context,
  profile: Profile,
  user: string,
  keys: string,
  place: string,
  serverVersion: string | undefined,
  hasKeyPair: boolean,
): void {
  context.output.result(
    [
      `user     ${display(user)}`,
      `server   ${profile.server}${serverVersion === undefined ? '' : ` (${display(serverVersion, 40)})`}`,
      `keys     ${keys}`,
      `login    kept in ${place}`,
      `profile  ${context.profileName}`,
    ].join('\n'),
    {
      type: 'whoami',
      user,
      userId: profile.userId,
      server: profile.server,
      serverVersion,
      hasKeyPair,
      store: profile.store,
      profile: context.profileName,
      caFile: setting(context, profile, 'ca-file'),
    },
  )
}
