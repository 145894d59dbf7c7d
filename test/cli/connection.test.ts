/** Connection settings at the command line, from end to end, against a server with TLS behind real proxies. */
import { X509Certificate } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { addUser, type RunningServer, startServer } from '../../src/server/index.ts'
import { runCli } from '../support/cli.ts'
import { freshDirectory } from '../support/files.ts'
import { connectProxy, socksProxy } from '../support/proxies.ts'
import { recorder } from '../support/servers.ts'
import { createAuthority, hasProgram, type Issued, type TestAuthority, tlsServer } from '../support/tls.ts'

const PASSWORD = 'account password of anna'
const hasOpenssl = hasProgram('openssl')

describe.skipIf(!hasOpenssl)('over TLS (needs openssl)', () => {
  let authority: TestAuthority
  let issued: Issued
  let server: RunningServer
  let base: string
  let login: (...more: string[]) => string[]

  beforeAll(async () => {
    authority = createAuthority()
    issued = authority.issue()
    base = join(issued.certPath, '..')
    const dataDir = join(base, 'data')
    server = await startServer({ data: dataDir, storage: 's3', tls: { cert: issued.cert, key: issued.key } })
    await addUser(dataDir, { name: 'anna', password: PASSWORD })
    writeFileSync(join(base, 'password'), PASSWORD, { mode: 0o600 })
    const who = ['--user', 'anna', '--password-file', join(base, 'password'), '--ca-file', authority.certPath]
    login = (...more) => ['login', server.url, ...who, ...more]
  })
  afterAll(async () => {
    await server?.close()
    authority?.remove()
  })
  const home = async () => join(await freshDirectory(), 'home')
  const secret = (name: string, content: string | Uint8Array) => {
    writeFileSync(join(base, name), content, { mode: 0o600 })
    return join(base, name)
  }

  test('an HTTP proxy with a password: remembered from the login, and nowhere shown', async () => {
    const proxy = await connectProxy({ login: 'user:canary-proxy' })
    const at = await home()
    const through = ['--proxy', `http://127.0.0.1:${proxy.port}`, '--proxy-user', 'user']
    const password = ['--proxy-password-file', secret('proxy-password', 'canary-proxy\n')]
    const done = await runCli(at, login(...through, ...password))
    expect(done.code, done.stderr).toBe(0)
    const before = proxy.asked.length
    expect(before).toBeGreaterThan(0)
    expect((await runCli(at, ['whoami'])).code).toBe(0)
    expect(proxy.asked.length).toBeGreaterThan(before)
    expect(new Set(proxy.asked)).toEqual(new Set([new URL(server.url).host]))
    // A nearer setting wins over the profile's.
    const direct = proxy.asked.length
    expect((await runCli(at, ['whoami', '--proxy', 'none'])).code).toBe(0)
    expect((await runCli(at, ['whoami', '--proxy-except', '10.0.0.0/8,127.0.0.0/8'])).code).toBe(0)
    expect(proxy.asked).toHaveLength(direct)
    const wrong = await runCli(at, ['whoami', '--json', '--proxy-password-file', secret('wrong', 'canary-wrong')])
    expect([wrong.code, wrong.json.at(-1)?.code]).toEqual([5, 'PROXY_AUTH'])
    expect(wrong.stdout + wrong.stderr).not.toContain('canary')
  })

  test('a SOCKS proxy, and the proxy variables that everybody knows', async () => {
    const socks = await socksProxy({ login: 'user:canary-socks' })
    const at = await home()
    const password = ['--proxy-user', 'user', '--proxy-password-file', secret('socks-password', 'canary-socks')]
    expect((await runCli(at, login('--proxy', `socks5://127.0.0.1:${socks.port}`, ...password))).code).toBe(0)
    expect(socks.asked.length).toBeGreaterThan(0)

    const http = await connectProxy()
    const other = await home()
    const env = { https_proxy: `http://127.0.0.1:${http.port}` }
    expect((await runCli(other, login(), { env })).code).toBe(0)
    expect(http.asked.length).toBeGreaterThan(0)
    const asked = http.asked.length
    expect((await runCli(other, ['whoami'], { env: { ...env, NO_PROXY: '127.0.0.1' } })).code).toBe(0)
    expect(http.asked).toHaveLength(asked)
  })

  test('doctor shows the pins and keeps them with a backup; another key is then refused', async () => {
    const at = await home()
    expect((await runCli(at, login())).code).toBe(0)
    const shown = await runCli(at, ['doctor', '--pin', '--json'])
    expect(shown.code, shown.stderr).toBe(0)
    expect(shown.json.find(({ name }) => name === 'tls')).toMatchObject({ state: 'warn' }) // a day to live
    const pins = shown.json.filter(({ type }) => type === 'pin').map(({ pin }) => String(pin))
    expect(pins.length).toBeGreaterThan(0)
    expect(shown.stderr).toContain('--backup-pin')
    const backup = `sha256/${Buffer.alloc(32, 7).toString('base64')}`
    for (const bad of ['sha256/short', pins[0]!]) {
      const run = await runCli(at, ['doctor', '--pin', '--backup-pin', bad, '--json'])
      expect([run.code, run.json.at(-1)?.code], bad).toEqual([2, 'OPTION_INVALID'])
    }
    expect((await runCli(at, ['doctor', '--pin', '--backup-pin', backup])).code).toBe(0)
    expect((await runCli(at, ['whoami'])).code).toBe(0)
    const profile = JSON.parse(readFileSync(join(at, 'profile-default.json'), 'utf8'))
    expect(profile.options['pinned-key']).toEqual([pins[0], backup])
    const others = [backup, `sha256/${Buffer.alloc(32, 8).toString('base64')}`]
    const refused = await runCli(at, ['whoami', '--json', ...others.flatMap((pin) => ['--pinned-key', pin])])
    expect([refused.code, refused.json.at(-1)?.code]).toEqual([5, 'PIN_MISMATCH'])
    const single = await runCli(at, ['whoami', '--json', '--pinned-key', pins[0]!])
    expect([single.code, single.json.at(-1)?.code]).toEqual([2, 'PINS_INVALID'])
  })

  test('the key that is seen first has to stay: kept from the login on, shown, replaced by a backup, forgotten', async () => {
    const at = await home()
    expect((await runCli(at, login('--pins', 'first-use'))).code).toBe(0)
    const list = async () => (await runCli(at, ['keys', 'servers', '--json'])).json
    const known = await list()
    expect(known).toEqual([
      { type: 'server-key', server: server.url, pin: expect.stringMatching(/^sha256\/[A-Za-z0-9+/]{43}=$/) },
    ])
    expect((await runCli(at, ['whoami'])).code).toBe(0)
    // As if another key had been seen first.
    const strange = `sha256/${Buffer.alloc(32, 9).toString('base64')}`
    const store = join(at, 'server-keys.json')
    writeFileSync(store, JSON.stringify({ [server.url]: strange }), { mode: 0o600 })
    const refused = await runCli(at, ['whoami', '--json'])
    expect([refused.code, refused.json.at(-1)?.code]).toEqual([5, 'PIN_MISMATCH'])
    expect(refused.json.at(-1)?.hint).toContain('keys forget --server')
    expect((await runCli(at, ['whoami', '--pins', 'off'])).code).toBe(0)
    expect((await runCli(at, ['whoami'], { env: { SEALSYNC_PINS: 'off' } })).code).toBe(0)
    expect((await runCli(at, ['whoami', '--backup-pin', String(known[0]!.pin)])).code).toBe(0)
    expect(await list()).toEqual(known)

    writeFileSync(store, JSON.stringify({ [server.url]: strange }), { mode: 0o600 })
    const forgotten = await runCli(at, ['keys', 'forget', '--server', server.url, '--json'])
    expect(forgotten.json).toEqual([{ type: 'server-key-forgotten', server: server.url, wasKnown: true }])
    expect(await list()).toEqual([])
    expect((await runCli(at, ['keys', 'forget', '--server', server.url])).stdout).toContain('No key was known')
    expect((await runCli(at, ['whoami'])).code).toBe(0)
    expect(await list()).toEqual(known)

    // What cannot be meant, and a store that is damaged: never an empty slate.
    for (const [code, args] of [
      ['PINS_INVALID', ['whoami', '--pins', 'off', '--backup-pin', strange]],
      ['PINS_INVALID', ['whoami', '--backup-pin', 'x']],
      ['OPTION_INVALID', ['whoami', '--pins', 'always']],
      ['USAGE', ['keys', 'forget', 'anna', '--server', server.url]],
      ['URL_INVALID', ['keys', 'forget', '--server', 'ftp://x.example']],
    ] as const) {
      const run = await runCli(at, [...args, '--json'])
      expect([args.join(' '), run.code, run.json.at(-1)?.code]).toEqual([args.join(' '), 2, code])
    }
    writeFileSync(store, 'nonsense', { mode: 0o600 })
    for (const args of [['whoami'], ['keys', 'servers']]) {
      const run = await runCli(at, [...args, '--json'])
      expect([run.code, run.json.at(-1)?.code]).toEqual([9, 'PINS_LOST'])
    }
  })

  test('HTTP/2, from the login on; a proxy that wants to be told by a program; a server without it', async () => {
    const plain = await startServer({ data: join(base, 'plain'), storage: 's3' })
    onTestFinished(() => plain.close())
    await addUser(join(base, 'plain'), { name: 'anna', password: PASSWORD })
    const front = await recorder(plain.url, issued)
    const at = await home()
    const who = ['--user', 'anna', '--password-file', join(base, 'password'), '--ca-file', authority.certPath]
    const done = await runCli(at, ['login', front.origin, ...who, '--http2'])
    expect(done.code, done.stderr).toBe(0)
    const sessions = front.sessions.length
    expect([sessions, front.connections()]).toEqual([1, 1])
    expect((await runCli(at, ['room', 'create', '/one', '--plain'])).code).toBe(0)
    // One process, one connection for all that is no content.
    const local = await freshDirectory()
    writeFileSync(join(local, 'a.txt'), 'a')
    const upload = await runCli(at, ['upload', join(local, 'a.txt'), '/one', '--allow-plain'], { fresh: true })
    expect(upload.code, upload.stderr).toBe(0)
    expect((await runCli(at, ['cat', '/one/a.txt'])).stdout).toBe('a')
    expect(front.sessions.length).toBe(sessions + 3)
    const off = await runCli(at, ['ls'], { env: { SEALSYNC_HTTP2: 'off' } })
    expect([off.code, front.sessions.length]).toEqual([0, sessions + 3])
    // The server of all other tests here has HTTP/1.1 only.
    expect((await runCli(await home(), login('--http2'))).code).toBe(0)

    const proxy = await connectProxy({ login: 'user:canary-hook' })
    const script = secret('token.mjs', `console.log('Basic ${Buffer.from('user:canary-hook').toString('base64')}')`)
    const command = `${process.execPath} ${script}`
    const through = ['--proxy', `http://127.0.0.1:${proxy.port}`, '--proxy-auth-command', command]
    const asked = await runCli(at, ['whoami', ...through])
    expect([asked.code, proxy.logins]).toEqual([0, ['user:canary-hook']])
    const wrong = await runCli(at, ['whoami', '--json', ...through.slice(0, 3), `${process.execPath} -e 0`])
    expect(wrong.code).not.toBe(0)
  })

  test('a client certificate, as PEM and as PKCS#12, for a server that wants one', async () => {
    const mine = authority.issue()
    const demanding = await tlsServer({
      cert: issued.cert,
      key: issued.key,
      ca: authority.cert,
      requestCert: true,
      rejectUnauthorized: true,
    })
    const at = await home()
    const ask = (...more: string[]) =>
      runCli(at, ['doctor', demanding.origin, '--ca-file', authority.certPath, '--json', ...more])
    const tlsOf = (run: { json: Record<string, unknown>[] }) => run.json.find(({ name }) => name === 'server')
    expect((await ask()).code).toBe(5)
    const pem = await ask('--client-cert', mine.certPath, '--client-key', mine.keyPath)
    // It is no room server, but it answered: the certificate was accepted.
    expect(tlsOf(pem)).toMatchObject({ state: 'fail', code: expect.not.stringMatching(/CERT|TLS|NETWORK/) })
    const p12 = ['--client-cert', secret('client.p12', mine.p12)]
    const right = await ask(...p12, '--client-key-password-file', secret('p12-password', 'p12-canary'))
    expect(tlsOf(right)).toMatchObject({ code: tlsOf(pem)?.code })
    const wrong = await ask(...p12, '--client-key-password-file', secret('wrong-password', 'canary-wrong'))
    expect([wrong.code, JSON.stringify(wrong.json).includes('canary')]).toEqual([2, false])
    expect(wrong.json.find(({ state }) => state === 'fail')).toMatchObject({ code: 'CLIENT_CERT_PASSPHRASE' })
  })

  test('a directory of authorities, exactly one certificate, revocation lists and ciphers that are none', async () => {
    const server = await tlsServer({ cert: issued.cert, key: issued.key })
    const at = await home()
    const ask = async (...more: string[]) => (await runCli(at, ['doctor', server.origin, '--json', ...more])).json
    const tlsOf = (json: Record<string, unknown>[]) => json.find(({ name }) => name === 'tls')
    expect(tlsOf(await ask())).toMatchObject({ state: 'fail', code: 'CERT_UNTRUSTED' })
    const fingerprint = new X509Certificate(issued.cert).fingerprint256
    for (const more of [
      ['--ca-dir', dirname(authority.certPath)],
      ['--accept-cert', fingerprint],
      ['--accept-cert', issued.certPath],
    ]) {
      expect(tlsOf(await ask(...more)), more.join(' ')).toMatchObject({
        state: expect.not.stringMatching('fail'),
      })
    }
    expect(tlsOf(await ask('--accept-cert', 'ab'.repeat(32)))).toMatchObject({ state: 'fail', code: 'CERT_OTHER' })
    for (const more of [
      ['--accept-cert', secret('none.pem', 'x')],
      ['--crl-file', secret('none.crl', 'x')],
      ['--tls-ciphers', 'nonsense'],
      ['--tls-groups', 'nonsense'],
    ]) {
      const run = await runCli(at, ['doctor', server.origin, '--json', ...more])
      expect(run.code, more.join(' ')).toBe(2)
    }
  })

  test('TLS 1.2 is refused where 1.3 is asked for; headers and user agent arrive', async () => {
    const old = await tlsServer({ cert: issued.cert, key: issued.key, maxVersion: 'TLSv1.2' })
    const at = await home()
    const run = await runCli(at, ['doctor', old.origin, '--ca-file', authority.certPath, '--min-tls', '1.3', '--json'])
    expect(run.code).toBe(5)
    expect(run.json.find(({ name }) => name === 'tls')).toMatchObject({ state: 'fail', code: 'TLS_VERSION' })
    const bad = await runCli(at, ['doctor', old.origin, '--header', 'Authorization: x', '--json'])
    expect(bad.code).toBe(2)
  })
})
