/** Connection settings at the command line, from end to end, against a server with TLS behind real proxies. */
import { X509Certificate } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { addUser, type RunningServer, startServer } from '../../src/server/index.ts'
import { runCli } from '../support/cli.ts'
import { freshDirectory } from '../support/files.ts'
import { connectProxy, socksProxy } from '../support/proxies.ts'
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
