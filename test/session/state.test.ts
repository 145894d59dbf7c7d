/** What a session keeps and moves beside its tokens: names, cookies, keys of servers; and codes for logins that nobody attends. */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, describe, expect, onTestFinished, test } from 'vitest'
import {
  type Authorizer,
  filePinStore,
  memoryPinStore,
  oneTimeCode,
  oneTimeCodes,
  protonSrpAuthorizer,
  Session,
  type SessionSettings,
  type TransportOptions,
} from '../../src/session/index.ts'
import { withKnownPins } from '../../src/session/open.ts'
import { fakeClock } from '../support/clock.ts'
import { freshDirectory } from '../support/files.ts'
import { expectNoSecret, grantOf } from '../support/oauth.ts'
import { protonServer } from '../support/proton-server.ts'
import { type Answer, dialer, errorOf, httpServer, json } from '../support/servers.ts'
import { createAuthority } from '../support/tls.ts'

const CANARY = 'canary-c00c1e'
const way: Authorizer = { name: 'test', unattended: 'again', authorize: async ({ clock }) => grantOf(clock, 'x') }

function open(origin: string, settings: SessionSettings = {}) {
  const session = Session.create(origin, way, { retryForMs: 0, ...settings })
  onTestFinished(() => session.close())
  return session
}

describe('what the client calls itself', () => {
  test('goes with a dump, and is taken over where none was chosen', async () => {
    const server = await protonServer()
    const options = { userName: 'ann', password: async () => 'the right one', modulusKey: server.modulusKey }
    const first = Session.create(
      server.origin,
      protonSrpAuthorizer(server.origin, { ...options, appVersion: 'Test_1.0', userAgent: 'Test/1.0 (x)' }),
    )
    await first.adopt(server.seat())
    const dump = JSON.parse(JSON.stringify(await first.dump()))
    expect(dump).toMatchObject({ appVersion: 'Test_1.0', userAgent: 'Test/1.0 (x)' })
    const second = await Session.load(dump, server.origin, protonSrpAuthorizer(server.origin, options))
    await second.get('/x')
    expect(server.seen.at(-1)?.headers).toMatchObject({ 'x-pm-appversion': 'Test_1.0', 'user-agent': 'Test/1.0 (x)' })
    const own = protonSrpAuthorizer(server.origin, { ...options, appVersion: 'Own_2.0' })
    const third = await Session.load(dump, server.origin, own)
    await third.get('/x')
    expect(server.seen.at(-1)?.headers['x-pm-appversion']).toBe('Own_2.0')
    for (const session of [first, second, third]) await session.close()
  })

  test('the user agent of others, too; one that is no header is refused', async () => {
    const api = await httpServer((_seen, response) => json(response, {}))
    const dump = await open(api.origin, { transport: { userAgent: 'tool/1' } }).dump()
    expect(dump).toMatchObject({ userAgent: 'tool/1' })
    const moved = await Session.load(dump, api.origin, way)
    await moved.get('/x')
    expect(api.seen.at(-1)?.headers['user-agent']).toBe('tool/1')
    await moved.close()
    for (const name of ['a\r\nx: y', 7, '', 'x'.repeat(1_000)]) {
      const bad = { ...dump, userAgent: name } as never
      expect(await errorOf(Session.load(bad, api.origin, way))).toMatchObject({ code: 'SESSION_INVALID' })
    }
  })
})

describe('cookies', () => {
  const answer: Answer = ({ path, headers }, response) => {
    if (path === '/set')
      response.setHeader('set-cookie', [`one=${CANARY}; Path=/; Expires=Wed, 21 Oct 2099 07:28:00 GMT`, 'two=2'])
    if (path === '/gone') response.setHeader('set-cookie', 'one=; Max-Age=0; Path=/')
    json(response, { cookie: headers.cookie ?? null })
  }

  test('are kept only where somebody asks for them', async () => {
    const api = await httpServer(answer)
    const session = open(api.origin)
    await session.get('/set')
    expect(await session.get('/x')).toEqual({ cookie: null })
    expect(await session.dump()).not.toHaveProperty('cookies')
  })

  test('go to their own server only, end, and move with a dump', async () => {
    const api = await httpServer(answer)
    const other = await httpServer(answer)
    const session = open(api.origin, { cookies: true })
    await session.get('/set')
    expect(await session.get('/x')).toEqual({ cookie: `one=${CANARY}; two=2` })
    await session.send({ method: 'GET', url: `${other.origin}/set` })
    await session.send({ method: 'GET', url: `${other.origin}/x` })
    expect(other.seen.every(({ headers }) => headers.cookie === undefined)).toBe(true)
    const dump = JSON.parse(JSON.stringify(await session.dump()))
    expect(dump.cookies).toHaveLength(2)
    const moved = await Session.load(dump, api.origin, way, { cookies: true })
    expect(await moved.get('/x')).toEqual({ cookie: `one=${CANARY}; two=2` })
    await moved.get('/gone')
    expect(await moved.get('/x')).toEqual({ cookie: 'two=2' })
    await moved.close()
    const without = await Session.load(dump, api.origin, way)
    expect(await without.get('/x')).toEqual({ cookie: null })
    await without.close()
  })

  test('of others, broken or too many: left out, and bounded', async () => {
    const set = [
      'a=1; Domain=example.org',
      'b=2; Domain=com',
      `c=${'x'.repeat(5_000)}`,
      '=;;;',
      'd=3',
      ...Array.from({ length: 100 }, (_, n) => `n${n}=1`),
    ]
    const api = await httpServer(({ path }, response) => {
      if (path === '/set') response.setHeader('set-cookie', set)
      json(response, {})
    })
    const session = open(api.origin, { cookies: true })
    for (let i = 0; i < 3; i++) await session.get('/set')
    const { cookies = [] } = await session.dump()
    expect(cookies.length).toBeLessThanOrEqual(50)
    expect(cookies.map(({ key }) => key)).toContain('d')
    expect(cookies.map(({ key }) => key)).not.toContain('a')
  })

  test.each([[{}], ['x'], [[1]], [[{ value: 'x'.repeat(9_000) }]], [Array(60).fill({})]])(
    'damaged ones in a dump are refused: %#',
    async (cookies) => {
      const dump = { ...(await open('http://127.0.0.1:1').dump()), cookies } as never
      expect(await errorOf(Session.load(dump, 'http://127.0.0.1:1', way, { cookies: true }))).toMatchObject({
        code: 'SESSION_INVALID',
      })
    },
  )
})

describe('the key that is seen first', () => {
  const authority = createAuthority()
  afterAll(() => authority.remove())
  const [one, two] = [authority.issue(), authority.issue()]

  /** A server with a key that can be changed, at one origin. */
  async function world(transport: TransportOptions) {
    let key = one
    const server = await httpServer((_seen, response) => json(response, {}), {
      cert: one.cert,
      key: one.key,
    })
    return {
      server,
      change: () => {
        key = key === one ? two : one
        server.setKey(key)
      },
      visit: async () => {
        const session = Session.create(server.origin, way, {
          retryForMs: 0,
          transport: { ca: [authority.cert], pins: 'first-use', ...transport },
        })
        try {
          return await session.get('/x')
        } finally {
          await session.close()
        }
      },
    }
  }

  test('is kept, and must stay; nothing is sent to another one', async () => {
    const path = join(await freshDirectory(), 'pins.json')
    const { server, change, visit } = await world({ pinStore: filePinStore(path) })
    await visit()
    await visit()
    expect(Object.keys(JSON.parse(await readFile(path, 'utf8')))).toEqual([server.origin])
    change()
    expect(await errorOf(visit())).toMatchObject({ class: 'tls', code: 'PIN_MISMATCH', retryable: false })
    expect(server.seen).toHaveLength(2)
    change()
    await visit()
    await writeFile(path, '{"x":', { mode: 0o600 })
    expect(await errorOf(visit())).toMatchObject({ code: 'PINS_LOST' })
    expect(server.seen).toHaveLength(3)
  })

  test('may be followed by a backup pin, which then counts', async () => {
    const { readServerPins } = await import('../../src/session/index.ts')
    const other = await httpServer((_seen, response) => json(response, {}), { cert: two.cert, key: two.key })
    const [leaf] = await readServerPins(other.origin, { ca: [authority.cert] })
    const pinStore = memoryPinStore()
    const { change, visit } = await world({ pinStore, backupPins: [leaf!.pin] })
    await visit()
    change()
    await visit()
    change()
    expect(await errorOf(visit())).toMatchObject({ code: 'PIN_MISMATCH' })
  })

  test('is asked for without being told to at known servers only, and not where it is switched off', () => {
    const asked = (host: string, options: TransportOptions = {}) => withKnownPins(`https://${host}`, options).pins
    for (const host of ['proton.me', 'mail.proton.me', 'api.protonmail.ch', 'api.protonvpn.ch:8443']) {
      expect(asked(host)).toBe('first-use')
      expect(asked(host, { pins: 'off' })).toBe('off')
      expect(asked(host, { pins: ['sha256/x'] })).toEqual(['sha256/x'])
      expect(asked(host, { acceptCertificate: 'x' })).toBeUndefined()
    }
    for (const host of ['notproton.me', 'proton.me.example.org', 'files.example.org', '127.0.0.1']) {
      expect(asked(host)).toBeUndefined()
    }
  })

  test('several checks of one certificate all see it', async () => {
    const server = await httpServer((_seen, response) => json(response, {}), one)
    const chains: number[] = []
    const send = dialer({
      ca: [authority.cert],
      pins: 'first-use',
      acceptCertificate: one.cert,
      checkServer: (chain) => void chains.push(chain.length),
    })
    expect((await send({ method: 'GET', url: server.origin })).status).toBe(200)
    expect(chains[0]).toBeGreaterThan(0)
  })

  test.each<TransportOptions>([
    { pins: 'first-use', backupPins: ['x'] },
    { backupPins: [] },
    { pinStore: {} as never },
    { pins: 'always' as never },
  ])('settings that do not fit are refused: %#', (transport) => {
    expect(() => Session.create('https://x.example', way, { transport })).toThrow(/[pP]ins/)
  })
})

describe('one-time codes', () => {
  // RFC 6238 appendix B.
  const SEED = Buffer.from('12345678901234567890')
  const base32 = 'GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ'
  const uri = (more: string) => `otpauth://totp/x:ann?secret=${base32}&${more}`

  test.each([
    [59, '94287082'],
    [1_111_111_109, '07081804'],
    [1_111_111_111, '14050471'],
    [1_234_567_890, '89005924'],
    [2_000_000_000, '69279037'],
    [20_000_000_000, '65353130'],
  ])('of RFC 6238 at %i s', async (seconds, code) => {
    const clock = fakeClock('auto', seconds * 1000)
    expect(SEED.toString()).toBe('12345678901234567890')
    expect(await oneTimeCode(uri('digits=8'), clock)).toBe(code)
    expect(await oneTimeCode(base32, clock)).toBe(code.slice(2))
    expect(await oneTimeCode(` ${base32.toLowerCase().replace(/(.{4})/g, '$1 ')}\n`, clock)).toBe(code.slice(2))
  })

  test('with SHA-256 and another period', async () => {
    const long = 'GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZA'
    const at = fakeClock('auto', 59_000)
    expect(await oneTimeCode(`otpauth://totp/x?secret=${long}&algorithm=SHA256&digits=8`, at)).toBe('46119246')
    const [early, late] = [fakeClock('auto', 60_000), fakeClock('auto', 119_000)]
    expect(await oneTimeCode(uri('period=60'), early)).toBe(await oneTimeCode(uri('period=60'), late))
  })

  test.each([
    '',
    ' ',
    `${CANARY}!`,
    `otpauth://hotp/x?secret=${base32}&counter=1`,
    'otpauth://totp/x',
    'A'.repeat(2_000),
    uri('digits=99'),
  ])('a secret that is none is refused and not shown: %#', async (secret) => {
    const error = await errorOf(oneTimeCode(secret))
    expect(error).toMatchObject({ class: 'usage', code: 'OTP_SECRET_INVALID' })
    expectNoSecret(error, CANARY, base32)
  })

  test('each is given once: the next login waits for the next one', async () => {
    const clock = fakeClock('auto', 60_000)
    const code = oneTimeCodes(() => base32, clock)
    const first = await code()
    const second = await code()
    expect(second).not.toBe(first)
    expect(clock.monotonic()).toBe(30_000)
    expect(second).toBe(await oneTimeCode(base32, clock))
  })
})
