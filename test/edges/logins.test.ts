/** Logins of the command line at strict and busy servers: the scope that the help promises, and patience. */

import { generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { createAuthorizer } from '../../src/cli/authorizers.ts'
import { LOGIN_OPTIONS } from '../../src/cli/methods.ts'
import type { Ui } from '../../src/environment.ts'
import { Session } from '../../src/session/open.ts'
import { fakeClock, steadyRandom } from '../support/clock.ts'
import { errorOf, httpServer, json } from '../support/servers.ts'

const directory = mkdtempSync(join(tmpdir(), 'sealsync-logins-'))
afterAll(() => rmSync(directory, { recursive: true }))
const file = (name: string, text: string) => {
  writeFileSync(join(directory, name), text, { mode: 0o600 })
  return join(directory, name)
}
const KEY = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({
  type: 'pkcs8',
  format: 'pem',
}) as string

const UI: Ui = {
  openUrl: () => Promise.reject(new Error('nobody looks')),
  showCode: async () => {},
  askSecret: () => Promise.reject(new Error('nobody asks')),
}

const WAYS = {
  device: () => ({}),
  password: () => ({ user: 'ann' }),
  'client-credentials': () => ({ 'client-id': 'app', 'client-secret-file': file('secret', 'x') }),
  jwt: () => ({ 'jwt-key-file': file('key', KEY), 'jwt-issuer': 'app' }),
} as const
type Way = keyof typeof WAYS

/** A server whose first answers to each endpoint are those given, and whose later ones are good. */
async function login(way: Way, more: Record<string, string> = {}, first: [status: number, after?: string][] = []) {
  const tries: Record<string, number> = {}
  const server = await httpServer(({ path, headers }, response) => {
    const origin = `http://${headers.host}`
    if (path.startsWith('/.well-known/')) {
      return json(response, {
        issuer: origin,
        token_endpoint: `${origin}/oauth/token`,
        device_authorization_endpoint: `${origin}/device`,
      })
    }
    tries[path] = (tries[path] ?? 0) + 1
    const refusal = first[tries[path] - 1]
    if (refusal !== undefined)
      return response.writeHead(refusal[0], refusal[1] === undefined ? {} : { 'retry-after': refusal[1] }).end()
    if (path === '/device') {
      return json(response, {
        device_code: 'd',
        user_code: 'AB',
        verification_uri: `${origin}/page`,
        expires_in: 86_400,
      })
    }
    return json(response, { access_token: 'a', token_type: 'bearer', expires_in: 3600 })
  })
  const make = await createAuthorizer(way, { ...WAYS[way](), ...more }, { password: async () => 'secret' })
  const clock = fakeClock()
  const session = Session.create(server.origin, make(server.origin), { clock, random: steadyRandom(), ui: UI })
  const done = session.login().finally(() => session.close())
  return { server, clock, done }
}

test.each(Object.keys(WAYS) as Way[])('%s: asks for all, or for what it is told to', async (way) => {
  const [option] = LOGIN_OPTIONS.filter(({ name }) => name === 'scope')
  expect(option!.methods).toContain(way)
  for (const [more, scope] of [
    [{}, 'all'],
    [{ scope: 'files' }, 'files'],
  ] as const) {
    const { server, done } = await login(way, more)
    await done
    const first = server.seen.find(({ method }) => method === 'POST')!
    expect(new URLSearchParams(first.body).get('scope')).toBe(scope)
  }
})

test.each(Object.keys(WAYS) as Way[])(
  '%s: waits out a server that is busy, and sends nothing more often than that',
  async (way) => {
    const { server, clock, done } = await login(way, {}, [[503, '1'], [429, '2'], [503]])
    await done
    expect(clock.monotonic()).toBeGreaterThanOrEqual(3_000)
    const tokens = server.seen.filter(({ path }) => path === '/oauth/token')
    expect(tokens).toHaveLength(4)
  },
)

test.each(['password', 'jwt'] as const)('%s: no other failure is tried again', async (way) => {
  for (const status of [400, 401, 500, 502, 504]) {
    const { server, done } = await login(way, {}, [[status], [status], [status]])
    expect(await errorOf(done), String(status)).toMatchObject({ name: 'SyncError' })
    const tokens = server.seen.filter(({ path }) => path === '/oauth/token')
    expect(tokens.length, String(status)).toBe(1)
  }
})

test('a server that is busy for longer than anybody waits, or says so, is an outage', async () => {
  const forever = Array.from({ length: 500 }, (): [number, string] => [503, '30'])
  const { clock, done } = await login('password', {}, forever)
  expect(await errorOf(done)).toMatchObject({ class: 'server', code: 'SERVER', status: 503 })
  expect(clock.monotonic()).toBeLessThan(500_000)
  const late = await login('password', {}, [[503, '301']])
  expect(await errorOf(late.done)).toMatchObject({ class: 'server', retryAfterMs: 301_000 })
  expect(late.clock.monotonic()).toBe(0)
})
