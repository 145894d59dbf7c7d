/** Renewals that go wrong halfway, and grants that cannot be renewed: nothing gets lost, and nothing ends before its time. */
import { expect, test } from 'vitest'
import { SyncError } from '../../src/errors.ts'
import type { Authorizer, Grant } from '../../src/session/authorizer.ts'
import { withApiKey } from '../../src/session/authorizers/api-key.ts'
import { authorizationCodeAuthorizer } from '../../src/session/authorizers/authorization-code.ts'
import { clientCredentialsAuthorizer } from '../../src/session/authorizers/client-credentials.ts'
import { accessTokenAuthorizer } from '../../src/session/authorizers/token.ts'
import { type GrantStore, memoryGrantStore } from '../../src/session/grant-store.ts'
import { createGrantSession } from '../../src/session/session.ts'
import { fakeClock } from '../support/clock.ts'
import { expectNoSecret, grantOf, tokenServer } from '../support/oauth.ts'
import { dialer, errorOf, httpServer } from '../support/servers.ts'

const HOUR = 3_600_000
const client = { id: 'app', secret: 'canary-client' }

/** A session whose store is `store` and whose clock is under control; the API notes the stamps. */
async function world(makeStore: (clock: ReturnType<typeof fakeClock>) => GrantStore, authorizer?: Authorizer) {
  const clock = fakeClock()
  const auth = await tokenServer()
  const api = await httpServer((_request, response) => response.end())
  const store = makeStore(clock)
  const session = createGrantSession({
    origin: api.origin,
    authorizer: authorizer ?? authorizationCodeAuthorizer(auth.origin, { client }),
    store,
    send: dialer(),
    clock,
  })
  const call = () => session.send({ method: 'GET', url: `${api.origin}/api/x` })
  const stamps = () => api.seen.map(({ headers }) => headers.authorization)
  return { clock, auth, api, store, session, call, stamps }
}

/** The same grant without what would renew it. */
const alone = ({ refreshToken: _, ...grant }: Grant): Grant => grant

test('a renewal that could not be stored is kept, and stored at the next call: its refresh token is not sent twice', async () => {
  let full = true
  const made = await world((clock) => {
    const inner = memoryGrantStore(grantOf(clock, '0', 0))
    const save = async (grant: Grant) => {
      if (full) throw new SyncError('local_io', 'LOCAL_ENOSPC', 'Cannot write')
      await inner.save(grant)
    }
    return { ...inner, save }
  })
  for (let i = 0; i < 3; i++) expect(await errorOf(made.call())).toMatchObject({ code: 'LOCAL_ENOSPC' })
  full = false
  await made.call()
  expect(made.auth.tokenCalls).toHaveLength(1)
  expect(made.stamps()).toEqual(['Bearer access-1'])
  expect(await made.store.load()).toMatchObject({ refreshToken: 'refresh-1' })
})

test('a renewal that could not be stored is what a logout revokes; after another login it is forgotten', async () => {
  let full = true
  const makeStore = (clock: ReturnType<typeof fakeClock>) => {
    const inner = memoryGrantStore(grantOf(clock, '0', 0))
    const save = (grant: Grant) => (full ? Promise.reject(new Error('full')) : inner.save(grant))
    return { ...inner, save }
  }
  const left = await world(makeStore)
  await errorOf(left.call())
  await left.session.logout()
  expect(left.auth.revoked).toEqual(['refresh-1', 'access-1'])

  full = true
  const renewed = await world(makeStore)
  await errorOf(renewed.call())
  full = false
  await renewed.session.adopt(grantOf(renewed.clock, 'other', 0))
  await renewed.call()
  expect(renewed.auth.tokenCalls.map((form) => form.get('refresh_token'))).toEqual(['refresh-0', 'refresh-other'])
})

test('what another process renewed long ago is not taken over but renewed', async () => {
  const made = await world((clock) => memoryGrantStore(grantOf(clock, '0')))
  await made.call()
  made.clock.advance(HOUR)
  // Another process renewed at once and then slept for two hours, like this one.
  await made.store.save(grantOf(made.clock, 'other'))
  made.clock.advance(2 * HOUR)
  await made.call()
  expect(made.auth.tokenCalls.map((form) => form.get('refresh_token'))).toEqual(['refresh-other'])
  expect(made.stamps()).toEqual(['Bearer access-0', 'Bearer access-1'])
})

test('what another process renewed serves its last minute where it cannot be renewed again', async () => {
  const down = await httpServer((_request, response) => response.destroy())
  const made = await world(
    (clock) => memoryGrantStore(grantOf(clock, '0')),
    authorizationCodeAuthorizer(down.origin, { client, endpoints: { token: `${down.origin}/token` } }),
  )
  await made.call()
  made.clock.advance(HOUR)
  await made.store.save(grantOf(made.clock, 'other'))
  made.clock.advance(HOUR - 30_000)
  for (let i = 0; i < 3; i++) await made.call()
  expect(made.stamps().slice(1)).toEqual(Array(3).fill('Bearer access-other'))
  expect(down.seen).toHaveLength(1)

  await made.store.save(alone(grantOf(made.clock, 'alone', 90_000)))
  made.clock.advance(60_000)
  await made.call()
  expect(made.stamps().at(-1)).toBe('Bearer access-alone')
  expect(down.seen).toHaveLength(1)
})

test('a grant that nothing can renew serves until its very end', async () => {
  const made = await world((clock) => memoryGrantStore(alone(grantOf(clock, '0'))))
  made.clock.advance(HOUR - 1)
  await made.call()
  expect(await made.session.check()).toMatchObject({ valid: true })
  made.clock.advance(1)
  expect(await errorOf(made.call())).toMatchObject({ class: 'auth' })
  expect(await made.session.check()).toEqual({ valid: false, reason: 'expired' })
  expect(made.stamps()).toEqual(['Bearer access-0'])
  expect(made.auth.tokenCalls).toHaveLength(0)
})

test.each<[string, (origin: string) => Authorizer]>([
  ['asking again', (origin) => clientCredentialsAuthorizer(origin, { client })],
  ['a file', () => accessTokenAuthorizer(async () => 'access-file')],
  [
    'asking again, with an API key',
    (origin) => withApiKey(clientCredentialsAuthorizer(origin, { client }), { header: 'x-key', value: 'k' }),
  ],
])('an expired grant without a refresh token is good where %s brings the next', async (_name, authorizer) => {
  const auth = await tokenServer()
  const made = await world((clock) => memoryGrantStore(alone(grantOf(clock, '0', 0))), authorizer(auth.origin))
  expect(await made.session.check()).toMatchObject({ valid: true })
  await made.call()
  expect(made.stamps()).toEqual([expect.stringMatching(/^Bearer access-(1|file)$/)])
})

test('without a refresh token, an API key changes nothing about the end', async () => {
  const keyed = withApiKey(authorizationCodeAuthorizer('https://auth.example', { client }), { header: 'x', value: 'k' })
  const made = await world((clock) => memoryGrantStore(alone(grantOf(clock, '0', 0))), keyed)
  expect(await made.session.check()).toEqual({ valid: false, reason: 'expired' })
})

test('logout forgets a grant that cannot even be read', async () => {
  let cleared = 0
  const damaged = new SyncError('auth', 'STORE_KEY_WRONG', 'It does not open')
  const made = await world(() => ({
    ...memoryGrantStore(),
    load: () => Promise.reject(damaged),
    clear: async () => {
      cleared++
    },
  }))
  const error = await errorOf(made.session.logout())
  expect(error).toBe(damaged)
  expectNoSecret(error, 'canary')
  expect(cleared).toBe(1)
})
