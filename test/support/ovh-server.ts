/**
 * An API that wants signed requests. It computes each signature anew, with nothing of ours, from the request line and the body
 * bytes as they arrived.
 */
import { createHash } from 'node:crypto'
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { onTestFinished } from 'vitest'
import type { Ui } from '../../src/environment.ts'
import { accessRules } from '../../src/session/authorizers/ovh-regions.ts'
import { type OvhSignatureOptions, ovhSignatureAuthorizer } from '../../src/session/authorizers/ovh-signature.ts'
import { memoryGrantStore } from '../../src/session/grant-store.ts'
import { Session } from '../../src/session/index.ts'
import { fakeClock, steadyRandom } from './clock.ts'
import { json } from './servers.ts'

export const APPLICATION_KEY = 'appKey0001'
export const APPLICATION_SECRET = 'canary-application-secret-0001'
/** Confirmed from the start. */
export const CONSUMER_KEY = 'canary-consumer-key-0001'

export interface OvhCall {
  readonly method: string
  /** As in the request line. */
  readonly target: string
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
  /** Whether the signature over the raw request is right. */
  readonly isSigned: boolean
}

export interface OvhPlan {
  /** The server's clock, milliseconds since the epoch. */
  now(): number
  /** Answers instead of everything below when it returns true. */
  fault?(call: OvhCall, response: ServerResponse): boolean | undefined
  /** Looks at a new key before it counts as confirmed. Default 0; `Infinity`: never. */
  readonly confirmAfter?: number
  /** What `/auth/currentCredential` says once it is confirmed. */
  readonly status?: string
  readonly validationUrl?: (origin: string) => unknown
}

export interface OvhServer {
  readonly origin: string
  readonly endpoint: string
  readonly calls: OvhCall[]
  /** Calls whose path, without a query, ends like this. */
  to(path: string): OvhCall[]
  /** Keys that work now. */
  readonly keys: ReadonlySet<string>
}

const SKEW_SECONDS = 30
export const QUERY_ID = 'EU.ext-3.51c0d'

export const refuse = (response: ServerResponse, status: number, errorCode: string, message = 'No') =>
  json(response, { message, errorCode, httpCode: `${status} No` }, status, { 'x-ovh-queryid': QUERY_ID })

interface Rule {
  method: string
  path: string
}

const covers = (rules: Rule[], method: string, path: string) =>
  rules.some((rule) => {
    const pattern = rule.path.replace(/[.+?^${}()|[\]\\]/g, '\\$&').replaceAll('*', '.*')
    return rule.method === method && new RegExp(`^${pattern}$`).test(path)
  })

/** The signature of what arrived. */
export function expectedSignature(call: Pick<OvhCall, 'method' | 'target' | 'headers' | 'body'>): string {
  const { host, 'x-ovh-consumer': consumer, 'x-ovh-timestamp': timestamp } = call.headers
  const before = [APPLICATION_SECRET, consumer, call.method, `http://${host}${call.target}`, ''].join('+')
  const input = Buffer.concat([Buffer.from(before), call.body, Buffer.from(`+${timestamp}`)])
  return `$1$${createHash('sha1').update(input).digest('hex')}`
}

export async function ovhServer(plan: OvhPlan): Promise<OvhServer> {
  const calls: OvhCall[] = []
  const keys = new Set([CONSUMER_KEY])
  const pending = new Map<string, number>()
  const rulesOf = new Map<string, Rule[]>([
    [CONSUMER_KEY, ['GET', 'POST', 'PUT', 'DELETE'].map((method) => ({ method, path: '/*' }))],
  ])
  let origin = ''

  function credential(call: OvhCall, response: ServerResponse) {
    const consumerKey = `canary-consumer-key-new-${pending.size + 1}`
    pending.set(consumerKey, plan.confirmAfter ?? 0)
    rulesOf.set(consumerKey, JSON.parse(call.body.toString()).accessRules)
    const validationUrl = plan.validationUrl?.(origin) ?? `${origin}/auth/?credentialToken=canary-page`
    json(response, { validationUrl, consumerKey, state: 'pendingValidation' })
  }

  function signed(call: OvhCall, path: string, response: ServerResponse) {
    const key = String(call.headers['x-ovh-consumer'])
    const seconds = Number(call.headers['x-ovh-timestamp'])
    if (!/^\d+$/.test(String(call.headers['x-ovh-timestamp']))) return refuse(response, 400, '', 'Invalid timestamp')
    if (Math.abs(seconds - plan.now() / 1000) > SKEW_SECONDS) return refuse(response, 403, 'QUERY_TIME_OUT')
    const left = pending.get(key)
    if (left !== undefined) {
      if (left > 0) {
        pending.set(key, left - 1)
        return refuse(response, 403, 'INVALID_CREDENTIAL')
      }
      keys.add(key)
    }
    if (!keys.has(key)) return refuse(response, 403, 'NOT_CREDENTIAL')
    if (!call.isSigned) return refuse(response, 400, 'INVALID_SIGNATURE', 'Invalid signature')
    if (path === '/auth/currentCredential') return json(response, { status: plan.status ?? 'validated' })
    if (path === '/auth/logout') {
      keys.delete(key)
      pending.delete(key)
      return response.writeHead(204).end()
    }
    if (!covers(rulesOf.get(key) ?? [], call.method, path)) return refuse(response, 403, 'NOT_GRANTED_CALL')
    return json(response, { method: call.method, path, body: call.body.toString() })
  }

  const server = createServer((request, response) => {
    const parts: Buffer[] = []
    request.on('error', () => {})
    response.on('error', () => {})
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      const { method = '', url: target = '', headers } = request
      const received = { method, target, headers, body: Buffer.concat(parts) }
      const call = { ...received, isSigned: headers['x-ovh-signature'] === expectedSignature(received) }
      calls.push(call)
      if (plan.fault?.(call, response)) return
      if (headers['x-ovh-application'] !== APPLICATION_KEY) {
        refuse(response, 403, 'INVALID_KEY')
        return
      }
      const path = target.replace(/\?.*$/s, '').replace(/^\/1\.0(?=\/)/, '')
      const isPublic = headers['x-ovh-signature'] === undefined
      if (isPublic && path === '/auth/time') json(response, Math.floor(plan.now() / 1000))
      else if (isPublic && path === '/auth/credential' && method === 'POST') credential(call, response)
      else if (isPublic) refuse(response, 401, 'NOT_CREDENTIAL')
      else signed(call, path, response)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const to = (path: string) => calls.filter(({ target }) => target.replace(/\?.*$/s, '').endsWith(path))
  return { origin, endpoint: `${origin}/1.0`, calls, to, keys }
}

const HOUR = 3_600_000

interface Wanted {
  options?: Partial<OvhSignatureOptions>
  ui?: Partial<Ui>
  /** No login yet. */
  out?: boolean
  mode?: 'auto' | 'manual'
}

/** An API whose clock is an hour ahead of ours, and a session with it that has a confirmed key. */
export async function ovhWorld(plan: Partial<OvhPlan> = {}, { options, ui, out, mode }: Wanted = {}) {
  const clock = fakeClock(mode)
  const start = clock.now() + HOUR
  const server = await ovhServer({ now: () => start + clock.monotonic(), ...plan })
  const opened: string[] = []
  const warned: string[] = []
  const authorizer = ovhSignatureAuthorizer({
    endpoint: server.endpoint,
    applicationKey: APPLICATION_KEY,
    applicationSecret: () => APPLICATION_SECRET,
    accessRules: accessRules('/me', 'read-write-safe'),
    ...options,
  })
  const store = memoryGrantStore(out ? undefined : { v: 1, accessToken: CONSUMER_KEY })
  const session = Session.create(server.endpoint, authorizer, {
    store,
    clock,
    random: steadyRandom(),
    ui: { openUrl: async (url) => void opened.push(url), askSecret: async () => '', ...ui },
    onWarning: (text) => void warned.push(text),
  })
  onTestFinished(() => session.close())
  return { clock, server, session, store, opened, warned, authorizer }
}
