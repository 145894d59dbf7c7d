/** A small Cognito-style endpoint on loopback: SRP with node:crypto and BigInt, further challenges, and faults by script. */
import { createHash, createHmac, getDiffieHellman, hkdfSync, randomBytes } from 'node:crypto'
import { httpServer, type Seen, type TestServer } from './servers.ts'
import { fromBytes, power } from './srp.ts'

export const POOL = 'eu-test-1_TestPool1'
const POOL_NAME = 'TestPool1'
export const CLIENT_ID = 'client-of-tests'
export const USER_ID = '5b0cf5a4-0000-4000-8000-0000000000aa'
const N = fromBytes(getDiffieHellman('modp15').getPrime())
const g = 2n

export interface CognitoAnswer {
  status?: number
  // biome-ignore lint/suspicious/noExplicitAny: tests put anything at all into an answer.
  body: any
  headers?: Record<string, string>
}

/** A challenge after the password, and what answers it: true, or the name of an exception. */
export interface Challenge {
  readonly name: string
  readonly parameters?: Record<string, unknown>
  readonly accepts?: (responses: Record<string, string>) => true | string
}

export interface CognitoServerOptions {
  readonly password?: string
  readonly clientSecret?: string
  readonly challenges?: readonly Challenge[]
  /** The same numbers every time. */
  readonly fixed?: { readonly b: bigint; readonly salt: string; readonly block: Buffer }
  /** Refresh tokens change with each use. */
  readonly rotates?: boolean
  readonly revocable?: boolean
  /** Last word on every answer. */
  readonly alter?: (operation: string, answer: CognitoAnswer, request: Seen) => CognitoAnswer | undefined
}

export interface CognitoServer extends TestServer {
  readonly operations: () => string[]
  /** Bodies received, in order. */
  // biome-ignore lint/suspicious/noExplicitAny: checked by the assertions of the tests.
  readonly bodies: () => any[]
  readonly live: (accessToken: string) => boolean
  /** Ends access tokens, as time does. */
  expire(): void
  forget(): void
}

/** Java's bytes of a number: the fewest that keep its sign. */
function signed(number: bigint): Buffer {
  const digits = number.toString(16)
  const even = digits.length % 2 === 0 ? digits : `0${digits}`
  return Buffer.from(/^[89a-f]/.test(even) ? `00${even}` : even, 'hex')
}

const sha = (...parts: Buffer[]) => createHash('sha256').update(Buffer.concat(parts)).digest()

const refuse = (name: string, status = 400): CognitoAnswer => ({
  status,
  body: { __type: `com.amazonaws.test#${name}`, message: 'Text for people' },
})

const token = (name: string) =>
  // The real client wants to read its tokens, so they look like signed ones.
  ['{}', JSON.stringify({ exp: 4_000_000_000, iat: 1, origin_jti: 'x', name }), name]
    .map((part) => Buffer.from(part).toString('base64url'))
    .join('.')

export async function cognitoServer(options: CognitoServerOptions = {}): Promise<CognitoServer> {
  const { password = 'the right one', clientSecret, challenges = [], fixed, alter } = options
  const operations: string[] = []
  const bodies: unknown[] = []
  const k = fromBytes(sha(signed(N), signed(g)))
  let pending: { A: bigint; b: bigint; B: bigint; block: Buffer; v: bigint } | undefined
  let session = ''
  let at = 0
  let made = 0
  let refresh = ''
  const live = new Set<string>()

  const hashOf = (userName: string) =>
    clientSecret && createHmac('sha256', clientSecret).update(userName).update(CLIENT_ID).digest('base64')

  function tokens(withRefresh: boolean): CognitoAnswer {
    const AccessToken = token(`access-${++made}`)
    live.add(AccessToken)
    if (withRefresh) refresh = `refresh-${made}`
    const result = { AccessToken, IdToken: token(`id-${made}`), ExpiresIn: 3600, TokenType: 'Bearer' }
    const AuthenticationResult = withRefresh ? { ...result, RefreshToken: refresh } : result
    return { body: { AuthenticationResult, ChallengeParameters: {} } }
  }

  /** The next challenge, or the tokens. */
  function proceed(): CognitoAnswer {
    const challenge = challenges[at]
    if (challenge === undefined) return tokens(true)
    session = `session-${randomBytes(12).toString('hex')}`
    return {
      body: { ChallengeName: challenge.name, Session: session, ChallengeParameters: challenge.parameters ?? {} },
    }
  }

  function start(parameters: Record<string, string>): CognitoAnswer {
    if (parameters.SECRET_HASH !== hashOf(parameters.USERNAME!)) return refuse('NotAuthorizedException')
    const SALT = fixed?.salt ?? randomBytes(16).toString('hex').replace(/^0+/, '')
    const identity = sha(Buffer.from(`${POOL_NAME}${USER_ID}:${password}`))
    const v = power(g, fromBytes(sha(signed(BigInt(`0x${SALT}`)), identity)), N)
    const b = fixed?.b ?? fromBytes(randomBytes(32))
    const B = (k * v + power(g, b, N)) % N
    const block = fixed?.block ?? randomBytes(48)
    pending = { A: BigInt(`0x${parameters.SRP_A}`), b, B, block, v }
    at = 0
    session = `session-${randomBytes(12).toString('hex')}`
    return {
      body: {
        ChallengeName: 'PASSWORD_VERIFIER',
        Session: session,
        ChallengeParameters: {
          SALT,
          SRP_B: B.toString(16),
          SECRET_BLOCK: block.toString('base64'),
          USERNAME: USER_ID,
          USER_ID_FOR_SRP: USER_ID,
        },
      },
    }
  }

  function verify(responses: Record<string, string>): CognitoAnswer {
    if (pending === undefined) return refuse('NotAuthorizedException')
    const { A, b, B, block, v } = pending
    pending = undefined
    const u = fromBytes(sha(signed(A), signed(B)))
    const S = power((A * power(v, u, N)) % N, b, N)
    const key = Buffer.from(hkdfSync('sha256', signed(S), signed(u), 'Caldera Derived Key', 16))
    const claim = createHmac('sha256', key).update(`${POOL_NAME}${USER_ID}`).update(block).update(responses.TIMESTAMP!)
    const right =
      A % N !== 0n &&
      /^[A-Z][a-z]{2} [A-Z][a-z]{2} [1-9]\d? \d\d:\d\d:\d\d UTC \d{4}$/.test(responses.TIMESTAMP!) &&
      responses.PASSWORD_CLAIM_SECRET_BLOCK === block.toString('base64') &&
      responses.PASSWORD_CLAIM_SIGNATURE === claim.digest('base64')
    return right ? proceed() : refuse('NotAuthorizedException')
  }

  // biome-ignore lint/suspicious/noExplicitAny: whatever the client has sent.
  const serve: Record<string, (body: any) => CognitoAnswer> = {
    InitiateAuth({ AuthFlow, AuthParameters: parameters }) {
      if (AuthFlow === 'USER_SRP_AUTH') return start(parameters)
      if (AuthFlow !== 'REFRESH_TOKEN_AUTH') return refuse('InvalidParameterException')
      const right = parameters.REFRESH_TOKEN === refresh && parameters.SECRET_HASH === hashOf(USER_ID)
      return right ? tokens(false) : refuse('NotAuthorizedException')
    },
    RespondToAuthChallenge({ ChallengeName, Session, ChallengeResponses: responses }) {
      if (Session !== session) return refuse('InvalidParameterException')
      if (responses.USERNAME !== USER_ID || responses.SECRET_HASH !== hashOf(USER_ID)) {
        return refuse('NotAuthorizedException')
      }
      if (ChallengeName === 'PASSWORD_VERIFIER') return verify(responses)
      const challenge = challenges[at]
      if (challenge?.name !== ChallengeName) return refuse('InvalidParameterException')
      const verdict = challenge?.accepts?.(responses) ?? true
      if (verdict !== true) return refuse(verdict)
      at++
      return proceed()
    },
    GetTokensFromRefreshToken({ RefreshToken, ClientSecret }) {
      if (ClientSecret !== clientSecret) return refuse('NotAuthorizedException')
      return RefreshToken === refresh ? tokens(true) : refuse('RefreshTokenReuseException')
    },
    RevokeToken({ Token, ClientSecret }) {
      if (options.revocable === false) return refuse('UnsupportedOperationException')
      if (ClientSecret !== clientSecret) return refuse('NotAuthorizedException')
      if (Token === refresh) {
        refresh = ''
        live.clear()
      }
      return { body: {} }
    },
    GetUser: ({ AccessToken }) =>
      live.has(AccessToken) ? { body: { Username: USER_ID } } : refuse('NotAuthorizedException'),
  }

  const server = await httpServer((seen, response) => {
    const operation = /^AWSCognitoIdentityProviderService\.(\w+)$/.exec(String(seen.headers['x-amz-target']))?.[1] ?? ''
    const isCall = seen.method === 'POST' && seen.headers['content-type'] === 'application/x-amz-json-1.1'
    const body = isCall ? JSON.parse(seen.body) : {}
    operations.push(operation)
    bodies.push(body)
    const known = body.ClientId === CLIENT_ID || operation === 'GetUser'
    const plain = (known && serve[operation]?.(body)) || refuse('ResourceNotFoundException')
    const { status = 200, body: answer, headers = {} } = alter?.(operation, plain, seen) ?? plain
    response.writeHead(status, { 'content-type': 'application/x-amz-json-1.1', ...headers })
    response.end(typeof answer === 'string' ? answer : JSON.stringify(answer))
  })
  return {
    ...server,
    operations: () => operations,
    bodies: () => bodies,
    live: (accessToken) => live.has(accessToken),
    expire: () => live.clear(),
    forget() {
      refresh = ''
      live.clear()
    },
  }
}
