/** Processes that share one refresh token which works once: they must renew it once, whatever happens to them meanwhile. */
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { systemClock } from '../../src/environment.ts'
import { authorizationCodeAuthorizer } from '../../src/session/authorizers/authorization-code.ts'
import { fileGrantStore } from '../../src/session/grant-store.ts'
import { buildScript, freshDirectory, runScript } from '../support/files.ts'
import { browse, contextOf } from '../support/oauth.ts'
import { startProvider } from '../support/provider.ts'
import { dialer } from '../support/servers.ts'

const HOUR = 3_600_000
const [PROCESSES, EXPIRIES] = process.env.SEALSYNC_FULL === '1' ? [16, 200] : [16, 8]

const buildChild = async () =>
  // The children's clock stands still and is moved for each round, so that all see the end at the same time. A child can be
  // told to hang before its renewal leaves, after the answer has come, or after it was stored.
  buildScript(
    await freshDirectory(),
    `import { systemClock } from './src/environment.ts'
     import { createDialer } from './src/http/undici.ts'
     import { authorizationCodeAuthorizer } from './src/session/authorizers/authorization-code.ts'
     import { fileGrantStore } from './src/session/grant-store.ts'
     import { createGrantSession } from './src/session/session.ts'`,
    `const [origin, path] = process.argv.slice(2)
     const start = Number(process.argv[4])
     const hangAt = process.argv[5]
     const hang = (place) => place === hangAt && (say('hangs'), new Promise(() => setInterval(() => {}, 1000)))
     let moved = 0
     const clock = { now: () => start + moved, monotonic: () => moved, sleep: systemClock.sleep }
     const dialer = createDialer()
     const inner = fileGrantStore(path, clock)
     const store = { ...inner, save: async (grant) => { await inner.save(grant); await hang('stored') } }
     let token
     const send = async (request) => {
       if (request.url.includes('/api/')) {
         token = request.headers.authorization
         return { status: 200, headers: {}, body: new Uint8Array() }
       }
       const isRenewal = String(request.body ?? '').includes('refresh_token')
       if (isRenewal) await hang('asking')
       const answer = await dialer.send(request)
       if (isRenewal) await hang('answered')
       return answer
     }
     const session = createGrantSession({ origin, send, clock, authorizer: authorizationCodeAuthorizer(origin), store })
     say('ready')
     for await (const data of process.stdin) for (const round of data.toString().trim().split('\\n')) {
       if (round === 'end') process.exit(0)
       moved = Number(round)
       try {
         await session.send({ method: 'GET', url: origin + '/api/x' })
         say(token)
       } catch (error) {
         say(error.code)
       }
     }`,
  )

async function world() {
  const script = await buildChild()
  const path = join(await freshDirectory(), 'store', 'grant.json')
  const provider = await startProvider()
  const ui = {
    openUrl: async (url: string) => {
      const back = await browse(url, { login: 'ann', password: 'any' }, (at) => at.includes('/callback'))
      void fetch(back)
    },
    askSecret: () => Promise.reject(new Error('not asked')),
  }
  const start = Date.now()
  const still = { ...systemClock, now: () => start }
  const store = fileGrantStore(path, still)
  await store.save(await authorizationCodeAuthorizer(provider.origin).authorize(contextOf(dialer(), still, ui)))
  const child = async (hangAt = '') => {
    const made = runScript(script, [provider.origin, path, String(start), hangAt])
    expect(await made.first).toBe('ready')
    return made
  }
  return { provider, store, child }
}

test(`${PROCESSES} processes, ${EXPIRIES} expiries: one renewal per expiry, no token revoked`, {
  timeout: 900_000,
}, async () => {
  const { provider, child } = await world()
  const children = await Promise.all(Array.from({ length: PROCESSES }, () => child()))
  for (let round = 1; round <= EXPIRIES; round++) {
    // Each token lives an hour from the moment of its renewal on the children's clock.
    for (const one of children) one.tell(`${round * HOUR}\n`)
    await Promise.all(children.map((one) => one.until(1 + round)))
  }
  for (const one of children) one.tell('end\n')
  const tokens = await Promise.all(children.map((one) => one.lines))
  // Everybody used the token that the one renewal of the round brought.
  for (const lines of tokens) expect(lines).toEqual(tokens[0])
  expect(new Set(tokens[0]).size).toBe(1 + EXPIRIES)
  expect(provider.granted).toEqual(['authorization_code', ...Array(EXPIRIES).fill('refresh_token')])
  expect(provider.revoked()).toBe(0)
})

describe('killed with the lock in its hands', () => {
  test.each([
    ['before its renewal left', 'asking', /^Bearer /],
    ['after it stored the new pair', 'stored', /^Bearer /],
    // The one place where a rotating token can be lost: the server has spent the old one and nobody has the new one.
    ['between the answer and the disk', 'answered', /^LOGIN_NEEDED$/],
  ])('%s: the next process goes on with what is true', async (_name, hangAt, outcome) => {
    const { provider, store, child } = await world()
    const victim = await child(hangAt)
    victim.tell(`${HOUR}\n`)
    await victim.until(2)
    victim.kill()
    const heirs = [await child(), await child()]
    for (const heir of heirs) heir.tell(`${HOUR}\n`)
    await Promise.all(heirs.map((heir) => heir.until(2)))
    for (const heir of heirs) heir.tell('end\n')
    const said = (await Promise.all(heirs.map((heir) => heir.lines))).map((lines) => lines[1])
    for (const line of said) expect(line).toMatch(outcome)
    expect(new Set(said).size).toBe(1)
    const renewals = provider.granted.filter((type) => type === 'refresh_token').length
    expect(renewals).toBe(1)
    expect((await store.load()) === undefined).toBe(hangAt === 'answered')
  })
})
