import { chmod, readdir, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { systemClock } from '../../src/environment.ts'
import { authorizationCodeAuthorizer } from '../../src/session/authorizers/authorization-code.ts'
import { fileGrantStore, memoryGrantStore, openGrantStore } from '../../src/session/grant-store.ts'
import { fakeClock } from '../support/clock.ts'
import { buildScript, freshDirectory, runScript } from '../support/files.ts'
import { browse, contextOf, grantOf } from '../support/oauth.ts'
import { startProvider } from '../support/provider.ts'
import { dialer, errorOf } from '../support/servers.ts'

const clock = fakeClock()

test('a file is private, replaced as a whole, and gone when cleared', async () => {
  const directory = join(await freshDirectory(), 'deep', 'er')
  const path = join(directory, 'grant.json')
  const store = fileGrantStore(path, systemClock)
  expect(store.place).toContain(path)
  expect(await store.load()).toBeUndefined()
  await store.clear()
  await store.save(grantOf(clock, '1'))
  await store.save(grantOf(clock, '2'))
  expect(((await stat(path)).mode & 0o777).toString(8)).toBe('600')
  expect(((await stat(directory)).mode & 0o777).toString(8)).toBe('700')
  expect(await fileGrantStore(path, systemClock).load()).toEqual(grantOf(clock, '2'))
  await store.clear()
  expect(await store.load()).toBeUndefined()
  expect(await readdir(directory)).toEqual([])
})

test('a file that others can read is refused, not used', async () => {
  const path = join(await freshDirectory(), 'grant.json')
  const store = fileGrantStore(path, systemClock)
  await store.save(grantOf(clock, 'canary'))
  await chmod(path, 0o644)
  const error = await errorOf(store.load())
  expect(error).toMatchObject({ class: 'usage', code: 'SECRET_FILE_OPEN' })
  expect(JSON.stringify(error) + error.message + error.hint).not.toContain('canary')
})

test('a record is copied field by field; what is not one counts as none', async () => {
  const path = join(await freshDirectory(), 'grant.json')
  const store = fileGrantStore(path, systemClock)
  const grant = grantOf(clock, '1')
  await writeFile(path, JSON.stringify({ ...grant, scope: 'all', extra: 1, refreshToken: 7 }), { mode: 0o600 })
  const { refreshToken: _, ...rest } = grant
  expect(await store.load()).toEqual({ ...rest, scope: 'all' })
  for (const broken of [
    { ...grant, v: 2 },
    { ...grant, accessToken: null },
    { ...grant, expiresAt: 'x' },
    { ...grant, lifetimeMs: undefined },
  ]) {
    await writeFile(path, JSON.stringify(broken))
    expect(await store.load()).toBeUndefined()
  }
})

test('a directory in its place is a local error on every path', async () => {
  const path = await freshDirectory()
  const store = fileGrantStore(path, systemClock)
  await expect(store.load()).rejects.toMatchObject({ class: 'local_io' })
  await expect(store.clear()).rejects.toMatchObject({ class: 'local_io' })
  await expect(store.save(grantOf(clock, '1'))).rejects.toMatchObject({ class: 'local_io' })
})

test.each([
  ['file', async () => fileGrantStore(join(await freshDirectory(), 'grant.json'), systemClock)],
  ['memory', async () => memoryGrantStore()],
])('exclusive work in a %s store never overlaps, also after a failure', async (_kind, make) => {
  const store = await make()
  let inside = 0
  let most = 0
  const work = (fails: boolean) =>
    store.exclusive(async () => {
      most = Math.max(most, ++inside)
      await new Promise((resolve) => setImmediate(resolve))
      inside--
      if (fails) throw new Error('failed')
      return 'done'
    })
  const results = await Promise.allSettled([work(false), work(true), work(false), work(true), work(false)])
  expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled', 'rejected', 'fulfilled'])
  expect(most).toBe(1)
})

test('accounts get their own files, whatever their length and case', async () => {
  const directory = await freshDirectory()
  const accounts = [
    'https://x|c|ann',
    'https://x|c|ANN',
    'https://x|c|bob',
    `https://x|c|${'u'.repeat(500)}`,
    '../..',
    '',
  ]
  for (const account of accounts) {
    const { store, kind } = await openGrantStore({ directory, account, clock, kind: 'file' })
    expect(kind).toBe('file')
    await store.save(grantOf(clock, account))
  }
  for (const account of accounts) {
    const { store } = await openGrantStore({ directory, account, clock, kind: 'file' })
    expect(await store.load()).toEqual(grantOf(clock, account))
  }
  const names = (await readdir(directory)).map((name) => name.toLowerCase())
  expect(new Set(names).size).toBe(accounts.length)
})

test.skipIf(process.platform !== 'linux')(
  'without a session bus there is no keyring, only the file (Linux)',
  async () => {
    const bus = process.env.DBUS_SESSION_BUS_ADDRESS
    delete process.env.DBUS_SESSION_BUS_ADDRESS
    try {
      const directory = await freshDirectory()
      const { kind } = await openGrantStore({ directory, account: 'a', clock })
      expect(kind).toBe('file')
      const error = await errorOf(openGrantStore({ directory, account: 'a', clock, kind: 'keyring' }))
      expect(error).toMatchObject({ class: 'auth', code: 'KEYRING_MISSING' })
    } finally {
      if (bus !== undefined) process.env.DBUS_SESSION_BUS_ADDRESS = bus
    }
  },
)

test('eight processes share one rotating refresh token: one renewal per expiry', async () => {
  const directory = await freshDirectory()
  const path = join(directory, 'store', 'grant.json')
  const provider = await startProvider()
  // The children's clock stands still and is moved for each round, so that all see the end at the same time.
  const script = await buildScript(
    directory,
    `import { systemClock } from './src/environment.ts'
     import { createDialer } from './src/http/undici.ts'
     import { authorizationCodeAuthorizer } from './src/session/authorizers/authorization-code.ts'
     import { fileGrantStore } from './src/session/grant-store.ts'
     import { createGrantSession } from './src/session/session.ts'`,
    `const [origin, path] = process.argv.slice(2)
     const start = Number(process.argv[4])
     let moved = 0
     const clock = { now: () => start + moved, monotonic: () => moved, sleep: systemClock.sleep }
     const dialer = createDialer()
     let token
     const send = async (request) => {
       if (!request.url.includes('/api/')) return dialer.send(request)
       token = request.headers.authorization
       return { status: 200, headers: {}, body: new Uint8Array() }
     }
     const session = createGrantSession({
       origin, send, clock, authorizer: authorizationCodeAuthorizer(origin), store: fileGrantStore(path, clock),
     })
     say('ready')
     for await (const data of process.stdin) for (const round of data.toString().trim().split('\\n')) {
       if (round === 'end') process.exit(0)
       moved = Number(round)
       await session.send({ method: 'GET', url: origin + '/api/x' })
       say(token)
     }`,
  )
  const send = dialer()
  const ui = {
    openUrl: async (url: string) => {
      const back = await browse(url, { login: 'ann', password: 'any' }, (at) => at.includes('/callback'))
      void fetch(back)
    },
    askSecret: () => Promise.reject(new Error('not asked')),
  }
  const start = Date.now()
  const still = { ...systemClock, now: () => start }
  const grant = await authorizationCodeAuthorizer(provider.origin).authorize(contextOf(send, still, ui))
  await fileGrantStore(path, still).save(grant)
  expect(provider.granted).toEqual(['authorization_code'])

  const children = Array.from({ length: 8 }, () => runScript(script, [provider.origin, path, String(start)]))
  for (const child of children) expect(await child.first).toBe('ready')
  const rounds = 4
  for (let round = 1; round <= rounds; round++) {
    // Each token lives an hour from the moment of its renewal on the children's clock.
    const at = round * 3_600_000
    for (const child of children) child.tell(`${at}\n`)
    await expect.poll(() => provider.granted.length, { timeout: 10_000 }).toBeGreaterThanOrEqual(1 + round)
    await Promise.all(children.map((child) => child.until(1 + round)))
  }
  for (const child of children) child.tell('end\n')
  const tokens = await Promise.all(children.map((child) => child.lines))
  for (const lines of tokens) {
    expect(lines).toHaveLength(1 + rounds)
    // Everybody used the token that the one renewal of the round brought.
    expect(lines).toEqual(tokens[0])
  }
  expect(new Set(tokens[0]).size).toBe(1 + rounds)
  expect(provider.granted).toEqual(['authorization_code', ...Array(rounds).fill('refresh_token')])
  expect(provider.revoked()).toBe(0)
})
