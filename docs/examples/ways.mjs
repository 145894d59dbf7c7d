/**
 * Ways to log in, by name, with settings from the environment and secrets from files. The other examples take theirs from here.
 *
 * SERVER is the API, ISSUER the authorization server (default: SERVER). USER, CLIENT_ID, SCOPE as they are needed; PASSWORD_FILE,
 * CLIENT_SECRET_FILE, KEY_FILE, TOKEN_FILE and OTP_SECRET_FILE hold secrets.
 */
import { readFile } from 'node:fs/promises'
import * as ways from 'sealsync/session'

const { env } = process

/** A setting that has to be there. */
export function need(name) {
  if (env[name]) return env[name]
  console.error(`Set ${name}.`)
  process.exit(2)
}

/** What a file holds, without the line end. */
const fileOf = (name) => async () => (await readFile(need(name), 'utf8')).trim()

const issuer = () => env.ISSUER ?? need('SERVER')
const scope = () => (env.SCOPE ? { scope: env.SCOPE } : {})
const code = () => (env.OTP_SECRET_FILE ? { code: ways.oneTimeCodes(fileOf('OTP_SECRET_FILE')) } : {})

async function client() {
  const secret = env.CLIENT_SECRET_FILE ? { secret: await fileOf('CLIENT_SECRET_FILE')() } : {}
  return { id: need('CLIENT_ID'), ...secret }
}

export const WAYS = {
  browser: async () => ways.authorizationCodeAuthorizer(issuer(), { client: await client(), ...scope() }),
  device: async () => ways.deviceCodeAuthorizer(issuer(), { client: await client(), ...scope() }),
  password: async () =>
    ways.passwordAuthorizer(issuer(), {
      userName: need('USER'),
      password: fileOf('PASSWORD_FILE'),
      ...code(),
      ...(env.CLIENT_ID ? { client: await client() } : {}),
      ...scope(),
    }),
  'client-credentials': async () => ways.clientCredentialsAuthorizer(issuer(), { client: await client(), ...scope() }),
  jwt: async () =>
    ways.jwtBearerAuthorizer(issuer(), {
      issuer: need('CLIENT_ID'),
      ...(env.USER ? { subject: env.USER } : {}),
      // Read for each signature, so that the file can be replaced.
      key: async () => ({ pem: await fileOf('KEY_FILE')() }),
    }),
  'refresh-token': async () =>
    ways.refreshTokenAuthorizer(issuer(), { client: await client(), refreshToken: fileOf('TOKEN_FILE') }),
  'access-token': async () => ways.accessTokenAuthorizer(fileOf('TOKEN_FILE')),
  proton: async () =>
    ways.protonSrpAuthorizer(need('SERVER'), {
      userName: need('USER'),
      password: fileOf('PASSWORD_FILE'),
      ...code(),
      ...(env.APP_VERSION ? { appVersion: env.APP_VERSION } : {}),
      // Only for servers that are not Proton’s: who signs the modulus.
      ...(env.MODULUS_KEY_FILE ? { modulusKey: JSON.parse(await fileOf('MODULUS_KEY_FILE')()) } : {}),
    }),
  'user-pool': async () =>
    ways.cognitoSrpAuthorizer({
      poolId: need('POOL_ID'),
      clientId: need('CLIENT_ID'),
      userName: need('USER'),
      password: fileOf('PASSWORD_FILE'),
      ...code(),
      ...(env.ISSUER ? { endpoint: env.ISSUER } : {}),
    }),
  // Keys come from ovh.conf and OVH_* variables; ENDPOINT is for compatible servers.
  ovh: async () => {
    const explicit = env.ENDPOINT ? { explicit: { endpoint: env.ENDPOINT } } : {}
    const config = await ways.loadOvhConfig(explicit)
    if (config.kind === 'oauth2') return ways.ovhOAuth2Authorizer(config)
    return ways.ovhSignatureAuthorizer({ ...config, accessRules: ways.accessRules('/me', 'read-only') })
  },
}

/** Questions to a person, by this terminal. */
export const ui = {
  async openUrl(url) {
    console.log(`Open ${url}`)
  },
  async showCode({ userCode, verificationUri }) {
    console.log(`Type ${userCode} at ${verificationUri}`)
  },
  async askSecret(question) {
    const { password } = await import('@inquirer/prompts')
    return password({ message: question })
  },
}

/** A session that logs in as WAY says; its login is kept in STORE_FILE, if there is one. */
export async function openSession(settings = {}) {
  const name = need('WAY')
  if (!Object.hasOwn(WAYS, name)) {
    console.error(`WAY is one of ${Object.keys(WAYS).join(', ')}.`)
    process.exit(2)
  }
  const store = env.STORE_FILE ? { store: ways.fileGrantStore(env.STORE_FILE) } : {}
  return ways.Session.create(need('SERVER'), await WAYS[name](), {
    ui,
    onWarning: (message) => console.error(message),
    ...store,
    ...settings,
  })
}
