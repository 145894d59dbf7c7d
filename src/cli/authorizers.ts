/** The authorizer behind a login of the command line; each is loaded only when it is needed. @module */
import { loginWays } from '../client/index.ts'
import { SyncError } from '../errors.ts'
import type { Authorizer, ClientAuthMethod, OAuthClient, SigningKey, SigningKeySource } from '../session/index.ts'
import type { MethodName } from './methods.ts'
import { getSecret } from './secrets.ts'

/** Values by flag name. */
type Values = Readonly<Record<string, string>>

const secretText = async (file: string) => Buffer.from(await getSecret({ file })).toString('utf8')

const CLIENT_AUTH: Readonly<Record<string, ClientAuthMethod>> = Object.freeze({
  basic: 'client_secret_basic',
  'raw-basic': 'raw_basic',
  post: 'client_secret_post',
  'private-key-jwt': 'private_key_jwt',
})

/** Reads a private key at each signature, so that its file can be replaced. */
function keySource(
  file: string,
  passwordFile: string | undefined,
  more: Pick<SigningKey, 'kid' | 'algorithm'> = {},
): SigningKeySource {
  return async () => {
    // Through the same door as any secret: a key that others can read is refused.
    const bytes = await getSecret({ file, binary: true })
    const passphrase = passwordFile === undefined ? undefined : await secretText(passwordFile)
    const text = Buffer.from(bytes).toString('utf8')
    if (text.includes('-----BEGIN')) return { pem: text, ...more, ...(passphrase === undefined ? {} : { passphrase }) }
    if (text.trimStart().startsWith('{')) return { jwk: parseJwk(text), ...more }
    return { pkcs12: bytes, passphrase: passphrase ?? '', ...more }
  }
}

function parseJwk(text: string) {
  try {
    return JSON.parse(text)
  } catch {
    throw new SyncError('key', 'KEY_INVALID', 'The private key looks like a JWK and is not JSON')
  }
}

async function clientOf(values: Values): Promise<OAuthClient | undefined> {
  const id = values['client-id']
  if (id === undefined) return undefined
  const secretFile = values['client-secret-file']
  const keyFile = values['client-key-file']
  const auth = values['client-auth'] === undefined ? {} : { auth: CLIENT_AUTH[values['client-auth']]! }
  if (keyFile !== undefined) return { id, key: keySource(keyFile, undefined), ...auth }
  if (secretFile !== undefined) return { id, secret: await secretText(secretFile), ...auth }
  const scripting = await loginWays.scriptingClient()
  return id === scripting.id ? scripting : { id }
}

const notLoggedIn = async (): Promise<never> => {
  throw new SyncError('auth', 'LOGIN_NEEDED', 'Not logged in', { hint: 'Log in first: sync login URL' })
}

/** What only a new login needs. */
export interface Secrets {
  readonly password?: () => Promise<string>
  /** The browser may run on another machine: its last address is asked for, too. */
  readonly pastes?: boolean
  /** One-time code; only called when the server wants one. */
  readonly code?: () => Promise<string>
}

/** Options that all OAuth methods share. Strict servers grant nothing to a login that asks for no scope. */
function serverOptions(values: Values, origin: string) {
  const token = values['token-url']
  const issuer = values.issuer ?? origin
  const scope = values.scope ?? 'all'
  return {
    issuer,
    options: {
      scope,
      ...(token === undefined ? {} : { endpoints: { token } }),
      ...(values.introspect === undefined ? {} : { introspect: true }),
    },
  }
}

const need = (client: OAuthClient | undefined): OAuthClient => client ?? { id: 'sealsync' }

async function byMethod(method: MethodName, values: Values, secrets: Secrets): Promise<(origin: string) => Authorizer> {
  const client = await clientOf(values)
  const known = client === undefined ? {} : { client }
  const of = (origin: string) => serverOptions(values, origin)
  switch (method) {
    case 'password': {
      const passwordAuthorizer = await loginWays.password()
      const code = secrets.code === undefined ? {} : { code: secrets.code }
      const user = { userName: values.user ?? '', password: secrets.password ?? notLoggedIn, ...code }
      return (origin) => passwordAuthorizer(of(origin).issuer, { ...user, ...known, ...of(origin).options })
    }
    case 'browser': {
      const authorizationCodeAuthorizer = await loginWays.authorizationCode()
      const redirect = values['redirect-uri'] === undefined ? {} : { redirectUri: values['redirect-uri'] }
      return (origin) =>
        authorizationCodeAuthorizer(of(origin).issuer, {
          ...known,
          ...redirect,
          ask: secrets.pastes === true,
          ...of(origin).options,
        })
    }
    case 'device': {
      const deviceCodeAuthorizer = await loginWays.deviceCode()
      return (origin) => deviceCodeAuthorizer(of(origin).issuer, { client: need(client), ...of(origin).options })
    }
    case 'client-credentials': {
      const clientCredentialsAuthorizer = await loginWays.clientCredentials()
      return (origin) => clientCredentialsAuthorizer(of(origin).issuer, { client: need(client), ...of(origin).options })
    }
    case 'jwt': {
      const jwtBearerAuthorizer = await loginWays.jwtBearer()
      const key = keySource(values['jwt-key-file']!, values['jwt-key-password-file'], {
        ...(values['jwt-key-id'] === undefined ? {} : { kid: values['jwt-key-id'] }),
        ...(values['jwt-algorithm'] === undefined ? {} : { algorithm: values['jwt-algorithm'] as 'RS256' }),
      })
      const claims = {
        issuer: values['jwt-issuer']!,
        ...(values['jwt-subject'] === undefined ? {} : { subject: values['jwt-subject'] }),
        ...(values['jwt-audience'] === undefined ? {} : { audience: values['jwt-audience'] }),
      }
      return (origin) => jwtBearerAuthorizer(of(origin).issuer, { key, ...claims, ...known, ...of(origin).options })
    }
    case 'access-token': {
      const accessTokenAuthorizer = await loginWays.accessToken()
      return () => accessTokenAuthorizer(() => secretText(values['access-token-file']!))
    }
    case 'refresh-token': {
      const refreshTokenAuthorizer = await loginWays.refreshToken()
      const scripting = await loginWays.scriptingClient()
      const file = values['refresh-token-file']
      const refreshToken = file === undefined ? notLoggedIn : () => secretText(file)
      return (origin) =>
        refreshTokenAuthorizer(of(origin).issuer, {
          client: client ?? scripting,
          refreshToken,
          ...of(origin).options,
        })
    }
  }
}

/** Makes the authorizer of a login from its method and the values of its options. */
export async function createAuthorizer(
  method: MethodName,
  values: Values,
  secrets: Secrets = {},
): Promise<(origin: string) => Authorizer> {
  const make = await byMethod(method, values, secrets)
  const { 'api-key-header': header, 'api-key-file': file } = values
  if (header === undefined || file === undefined) return make
  const withApiKey = await loginWays.apiKey()
  const value = await secretText(file)
  return (origin) => withApiKey(make(origin), { header, value })
}
