/** A small Proton-style server on loopback: SRP with node:crypto and BigInt, sessions, a second factor, and faults by script. */
import { createHash, randomBytes } from 'node:crypto'
import { encodeBase64, hashSync } from 'bcryptjs'
import type { Grant } from '../../src/session/authorizer.ts'
import type { PinnedKey } from '../../src/session/pgp-signed-message.ts'
import { httpServer, type Seen, type TestServer } from './servers.ts'
import { fromBytes, pgpKey, power, RFC5054_2048, toBytes } from './srp.ts'

export interface ProtonAnswer {
  status?: number
  // biome-ignore lint/suspicious/noExplicitAny: tests put anything at all into an answer.
  body: any
  headers?: Record<string, string>
}

export type ProtonStep = 'info' | 'login' | '2fa' | 'refresh' | 'logout' | 'api'

export interface ProtonServerOptions {
  readonly password?: string
  /** Digits that the second factor wants; absent: none. */
  readonly code?: string
  /** `2FA.Enabled` in the answer; absent: only the scope tells. */
  readonly factors?: number
  /** Routes' prefix. Default `/auth`. */
  readonly authPath?: string
  /** Signs and names the modulus otherwise than in order. */
  readonly modulus?: (key: ReturnType<typeof pgpKey>) => string
  /** Last word on every answer. */
  readonly alter?: (step: ProtonStep, answer: ProtonAnswer, request: Seen) => ProtonAnswer | undefined
}

export interface ProtonServer extends TestServer {
  readonly modulusKey: PinnedKey
  /** Steps in order. */
  readonly steps: () => ProtonStep[]
  /** Sessions that have not been ended. */
  readonly live: () => number
  /** A session as a login would have made it, for tests of what comes after: a login's hash takes its time. */
  seat(): Grant
  /** Makes all access tokens invalid, as time does. */
  expire(): void
  /** Makes all refresh tokens invalid. */
  forget(): void
}

export const N = RFC5054_2048
const le = (number: bigint) => toBytes(number, 256).reverse()
const num = (bytes: Uint8Array) => fromBytes(Buffer.from(bytes).reverse())

export const expand = (...parts: Uint8Array[]) =>
  Buffer.concat(
    [0, 1, 2, 3].map((counter) =>
      createHash('sha512').update(Buffer.concat(parts)).update(Uint8Array.of(counter)).digest(),
    ),
  )

/** v = g^x for a password. */
export function protonVerifier(password: string, salt: Buffer): bigint {
  const salt16 = Buffer.concat([salt, Buffer.from('proton')]).subarray(0, 16)
  const hashed = hashSync(password, `$2b$10$${encodeBase64(salt16, 16)}`).replace(/^\$2b/, '$2y')
  return power(2n, num(expand(Buffer.from(hashed), le(N))), N)
}

const verifiers = new Map<string, { salt: Buffer; v: bigint }>()

/** bcrypt takes its time; one password is registered once for all tests. */
function register(password: string) {
  const known = verifiers.get(password)
  if (known !== undefined) return known
  const salt = randomBytes(10)
  const made = { salt, v: protonVerifier(password, salt) }
  verifiers.set(password, made)
  return made
}

const FULL = 'full self loggedin'

export async function protonServer(options: ProtonServerOptions = {}): Promise<ProtonServer> {
  const { password = 'the right one', code, factors, authPath = '/auth', alter } = options
  const key = pgpKey()
  const { salt, v } = register(password)
  const k = num(expand(le(2n), le(N)))
  const pending = new Map<string, { b: bigint; B: bigint }>()
  const sessions = new Map<string, { access: string; refresh: string; scope: string }>()
  const steps: ProtonStep[] = []
  let made = 0

  const tokens = () => ({ access: `access-${++made}`, refresh: `refresh-${made}` })
  const fail = (status: number, Code: number): ProtonAnswer => ({ status, body: { Code, Error: 'Text for people' } })

  const routes: Record<Exclude<ProtonStep, 'api'>, (body: Record<string, string>, seen: Seen) => ProtonAnswer> = {
    info() {
      const b = num(randomBytes(32))
      const B = (k * v + power(2n, b, N)) % N
      const id = randomBytes(16).toString('hex')
      pending.set(id, { b, B })
      const text = le(N).toString('base64')
      return {
        body: {
          Code: 1000,
          Modulus: options.modulus?.(key) ?? key.message(text),
          ServerEphemeral: le(B).toString('base64'),
          Salt: salt.toString('base64'),
          Version: 4,
          SRPSession: id,
        },
      }
    },
    login(body) {
      const challenge = pending.get(body.SRPSession ?? '')
      pending.delete(body.SRPSession ?? '')
      if (challenge === undefined) return fail(422, 2001)
      const bytesA = Buffer.from(body.ClientEphemeral ?? '', 'base64')
      const A = num(bytesA)
      if (bytesA.length !== 256 || A % N === 0n) return fail(422, 2001)
      const { b, B } = challenge
      const u = num(expand(bytesA, le(B)))
      const K = le(power((A * power(v, u, N)) % N, b, N))
      const M1 = expand(bytesA, le(B), K)
      if (body.Username !== 'ann' || M1.toString('base64') !== body.ClientProof) return fail(422, 8002)
      const uid = `uid-${++made}`
      const session = { ...tokens(), scope: code === undefined ? FULL : 'twofactor' }
      sessions.set(uid, session)
      return {
        body: {
          Code: 1000,
          ServerProof: expand(bytesA, M1, K).toString('base64'),
          UID: uid,
          AccessToken: session.access,
          RefreshToken: session.refresh,
          PasswordMode: 1,
          Scope: session.scope,
          UserID: 'user-1',
          ...(factors === undefined ? {} : { '2FA': { Enabled: factors } }),
        },
      }
    },
    '2fa'(body, seen) {
      const session = stamped(seen)
      if (session === undefined) return fail(401, 401)
      if (body.TwoFactorCode !== code) return fail(422, 8002)
      session.scope = FULL
      return { body: { Code: 1000, Scopes: FULL.split(' ') } }
    },
    refresh(body, seen) {
      const session = sessions.get(String(seen.headers['x-pm-uid']))
      const hasToken = /^Bearer \S+$/.test(seen.headers.authorization ?? '')
      const right = body.ResponseType === 'token' && body.GrantType === 'refresh_token' && hasToken
      if (!right) return fail(422, 2001)
      if (session === undefined || session.refresh !== body.RefreshToken) return fail(422, 10_013)
      Object.assign(session, tokens())
      return { body: { Code: 1000, AccessToken: session.access, RefreshToken: session.refresh, Scope: session.scope } }
    },
    logout(_body, seen) {
      if (stamped(seen) === undefined) return fail(401, 401)
      sessions.delete(String(seen.headers['x-pm-uid']))
      return { body: { Code: 1000 } }
    },
  }

  function stamped({ headers }: Seen) {
    const session = sessions.get(String(headers['x-pm-uid']))
    return session !== undefined && headers.authorization === `Bearer ${session.access}` ? session : undefined
  }

  function stepOf({ method, path }: Seen): ProtonStep {
    if (path === authPath) return method === 'DELETE' ? 'logout' : 'login'
    const rest = path.startsWith(`${authPath}/`) ? path.slice(authPath.length + 1) : ''
    return rest === 'info' || rest === '2fa' || rest === 'refresh' ? rest : 'api'
  }

  function serve(step: ProtonStep, seen: Seen): ProtonAnswer {
    if (seen.headers['x-pm-appversion'] === undefined) return fail(400, 5001)
    if (step !== 'api') return routes[step](seen.body === '' ? {} : JSON.parse(seen.body), seen)
    const session = stamped(seen)
    if (session === undefined) return fail(401, 401)
    return session.scope === FULL ? { body: { Code: 1000, Path: seen.path } } : fail(403, 403)
  }

  const server = await httpServer((seen, response) => {
    const step = stepOf(seen)
    steps.push(step)
    const plain = serve(step, seen)
    const { status = 200, body, headers = {} } = alter?.(step, plain, seen) ?? plain
    response.writeHead(status, { 'content-type': 'application/json', ...headers })
    response.end(typeof body === 'string' ? body : JSON.stringify(body))
  })
  return {
    ...server,
    modulusKey: key.pin,
    steps: () => steps,
    live: () => sessions.size,
    seat() {
      const uid = `uid-${++made}`
      const { access, refresh } = tokens()
      sessions.set(uid, { access, refresh, scope: FULL })
      return { v: 1, accessToken: access, refreshToken: refresh, scope: FULL, extra: { uid, passwordMode: '1' } }
    },
    expire() {
      for (const session of sessions.values()) session.access = `expired-${++made}`
    },
    forget() {
      for (const session of sessions.values()) Object.assign(session, { access: 'gone', refresh: 'gone' })
    },
  }
}
