import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { describe, expect, test } from 'vitest'
import { withRetry } from '../../src/http/retry.ts'
import type { HttpRequest, Send } from '../../src/http/types.ts'
import { fakeClock, steadyRandom } from '../support/clock.ts'
import { freshDirectory } from '../support/files.ts'
import { dialer, errorOf, httpServer, json, rawServer, type TestServer } from '../support/servers.ts'

const get = (server: { origin: string }, path = '/', more: Partial<HttpRequest> = {}): HttpRequest => ({
  method: 'GET',
  url: server.origin + path,
  ...more,
})
const retrying = (send: Send) => withRetry(send, { clock: fakeClock(), random: steadyRandom() })
const text = (bytes: Uint8Array) => Buffer.from(bytes).toString()

const hasOpenssl = (() => {
  try {
    execFileSync('openssl', ['version'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
})()

describe('requests', () => {
  test('go out as asked, once, without asking for compression', async () => {
    const server = await httpServer(({ method, body }, response) => json(response, { method, body }))
    const send = dialer({ userAgent: 'tester|1' })
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE'] as const) {
      const body = Buffer.from('hello')
      const answer = await send({ method, url: `${server.origin}/p?q=1`, body, headers: { 'x-own': 'yes' } })
      expect(JSON.parse(text(answer.body))).toEqual({ method, body: 'hello' })
    }
    expect(server.seen).toHaveLength(4)
    expect(server.seen[0]).toMatchObject({
      path: '/p?q=1',
      headers: { 'accept-encoding': 'identity', 'user-agent': 'tester|1', 'x-own': 'yes', 'content-length': '5' },
    })
    expect((await send({ method: 'HEAD', url: server.origin })).body).toHaveLength(0)
    await send({ method: 'PUT', url: server.origin, body: new Uint8Array() })
    expect(server.seen.at(-1)?.headers['content-length']).toBe('0')
  })

  test('every status is an answer, redirects too, and nobody follows them', async () => {
    const server = await httpServer(({ path }, response) => {
      response.writeHead(Number(path.slice(1)), { location: '/200' }).end()
    })
    const send = dialer()
    for (const status of [200, 204, 301, 302, 303, 307, 308, 400, 401, 403, 404, 418, 429, 500, 503]) {
      expect((await send(get(server, `/${status}`))).status).toBe(status)
    }
    expect(server.seen).toHaveLength(15)
  })

  test('repeated headers are joined, and none reaches a prototype', async () => {
    const server = await httpServer((_request, response) => {
      response
        .writeHead(
          200,
          [
            ['x-a', '1'],
            ['X-A', '2'],
            ['__proto__', 'bad'],
            ['constructor', 'bad'],
          ].flat(),
        )
        .end()
    })
    const { headers } = await dialer()(get(server))
    expect(headers['x-a']).toBe('1, 2')
    expect(Object.getPrototypeOf(headers)).toBeNull()
    expect(({} as Record<string, unknown>).bad).toBeUndefined()
  })

  test('a URL is refused unread above 8 KiB, counted as it would be sent', async () => {
    const server = await httpServer((_request, response) => response.end())
    const send = dialer()
    const room = 8192 - server.origin.length - 1
    expect((await send(get(server, `/${'a'.repeat(room)}`))).status).toBe(200)
    for (const path of [`/${'a'.repeat(room + 1)}`, `/${'ü'.repeat(2000)}`]) {
      expect(await errorOf(send(get(server, path)))).toMatchObject({ class: 'limit', code: 'URL_TOO_LONG' })
    }
    expect(server.seen).toHaveLength(1)
  })

  test('what is no URL, or carries a password, is the server’s mistake and not a defect of ours', async () => {
    const send = dialer()
    for (const url of ['', 'nonsense', 'http://', 'http://127.0.0.1:99999/', 'http://u:canary@127.0.0.1:9/']) {
      const error = await errorOf(send({ method: 'GET', url }))
      expect(error).toMatchObject({ class: 'server', code: 'URL_INVALID', retryable: false })
      expect(inspect(error, { depth: 9 })).not.toContain('canary')
    }
  })
})

describe('answers that are wrong', () => {
  test('compressed although not asked for: content never, all else if it is what it says', async () => {
    const server = await httpServer(({ path }, response) => {
      response.writeHead(200, { 'content-encoding': path.slice(1) }).end(Buffer.alloc(100_000))
    })
    const send = dialer()
    for (const [path, stream, code] of [
      ['/gzip', true, 'ENCODING_UNEXPECTED'],
      ['/zstd', true, 'ENCODING_UNEXPECTED'],
      ['/zstd', false, 'ENCODING_UNEXPECTED'],
      ['/gzip,%20gzip', false, 'ENCODING_UNEXPECTED'],
      ['/gzip', false, 'ENCODING_INVALID'],
    ] as const) {
      const error = await errorOf(send(get(server, path, { stream })))
      expect(error).toMatchObject({ class: 'server', code })
    }
    const plain = await httpServer((_request, response) => {
      response.writeHead(200, { 'content-encoding': 'identity' }).end('x')
    })
    expect((await send(get(plain))).status).toBe(200)
  })

  test('longer than 16 MiB, announced or endless', async () => {
    const chunk = Buffer.alloc(1024 * 1024, 0x20)
    const server = await httpServer(async ({ path }, response) => {
      if (path === '/announced') response.writeHead(200, { 'content-length': String(17 * chunk.length) })
      for (let i = 0; !response.destroyed && (path !== '/fits' || i < 16) && i < 10_000; i++) {
        if (!response.write(chunk)) {
          await new Promise((resolve) => response.once('drain', resolve).once('close', resolve))
        }
      }
      response.end()
    })
    const send = dialer()
    expect((await send(get(server, '/fits'))).body).toHaveLength(16 * chunk.length)
    for (const path of ['/announced', '/endless']) {
      expect(await errorOf(send(get(server, path)))).toMatchObject({ class: 'server', code: 'ANSWER_TOO_LARGE' })
    }
  })

  test('an endless error page is cut, its status counts', async () => {
    const server = await httpServer(async (_request, response) => {
      response.writeHead(500)
      while (!response.destroyed) {
        if (!response.write(Buffer.alloc(65_536, 0x21))) {
          await new Promise((resolve) => response.once('drain', resolve).once('close', resolve))
        }
      }
    })
    const { status, body } = await dialer()(get(server))
    expect(status).toBe(500)
    expect(body.length).toBeLessThanOrEqual(128 * 1024)
  })

  test('a body that only trickles has stalled', async () => {
    const server = await httpServer(async (_request, response) => {
      response.writeHead(200)
      while (!response.destroyed) {
        response.write('.')
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
    })
    const send = dialer({ stallMs: 100 })
    expect(await errorOf(send(get(server)))).toMatchObject({ class: 'network', code: 'STALLED', retryable: true })
    const { stream } = await send(get(server, '/', { stream: true }))
    const read = (async () => {
      for await (const _ of stream!);
    })()
    expect(await errorOf(read)).toMatchObject({ class: 'network', code: 'STALLED' })
  })

  test('a slow reader is not a slow server', async () => {
    const server = await httpServer((_request, response) => response.end(Buffer.alloc(200_000)))
    const { stream } = await dialer({ stallMs: 20 })(get(server, '/', { stream: true }))
    let length = 0
    for await (const chunk of stream!) {
      length += chunk.length
      await new Promise((resolve) => setTimeout(resolve, 15))
    }
    expect(length).toBe(200_000)
  })

  test('silence: before the headers, and in the middle', async () => {
    const server = await httpServer(({ path }, response) => {
      if (path === '/headers') return
      response.writeHead(200, { 'content-length': '10' }).write('12345')
    })
    const send = dialer({ headersTimeoutMs: 100, bodyTimeoutMs: 100 })
    for (const path of ['/headers', '/body']) {
      expect(await errorOf(send(get(server, path)))).toMatchObject({ class: 'network', retryable: true })
    }
  })

  test.each([
    ['no HTTP at all', 'SSH-2.0-OpenSSH_9.6\r\n'],
    ['binary', '\x00\x01\x02\x03\xff\xfe'],
    ['a status that is none', 'HTTP/1.1 abc OK\r\n\r\n'],
    ['nothing', ''],
    ['half a header', 'HTTP/1.1 200 OK\r\nContent-Le'],
    ['a length that is none', 'HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n'],
    ['two lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab'],
    ['less than announced', 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort'],
    ['a broken chunk', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n'],
    ['chunks without an end', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n'],
  ])('%s', async (_what, bytes) => {
    const server = await rawServer((socket) => socket.end(bytes, 'latin1'))
    const error = await errorOf(dialer()(get(server, '/', { label: '/shown' })))
    expect(error).toMatchObject({ class: 'network', code: 'NETWORK', retryable: true })
    expect(error.message).toContain('GET /shown')
  })

  test('headers above 32 KiB', async () => {
    const server = await rawServer((socket) => {
      socket.end(`HTTP/1.1 200 OK\r\nx-long: ${'a'.repeat(33 * 1024)}\r\ncontent-length: 0\r\n\r\n`)
    })
    expect(await errorOf(dialer()(get(server)))).toMatchObject({ class: 'network' })
    const fine = await rawServer((socket) => {
      socket.end(`HTTP/1.1 200 OK\r\nx-long: ${'a'.repeat(30 * 1024)}\r\ncontent-length: 0\r\n\r\n`)
    })
    expect((await dialer()(get(fine))).headers['x-long']).toHaveLength(30 * 1024)
  })
})

describe('connections that break', () => {
  test('in the middle of a stream: what came is delivered, then the error', async () => {
    let cut = () => {}
    const server = await httpServer((_request, response) => {
      response.writeHead(200, { 'content-length': '1000' })
      cut = () => response.destroy()
      response.write('x'.repeat(400))
    })
    const { status, stream } = await dialer()(get(server, '/', { stream: true }))
    expect(status).toBe(200)
    let length = 0
    const error = await errorOf(
      (async () => {
        for await (const chunk of stream!) {
          length += chunk.length
          if (length === 400) cut()
        }
      })(),
    )
    expect(length).toBe(400)
    expect(error).toMatchObject({ class: 'network', retryable: true })
  })

  test('a stream left early lets its connection go', async () => {
    const closed: string[] = []
    const server = await httpServer((_request, response) => {
      response.on('close', () => closed.push('closed'))
      response.writeHead(200).write('x'.repeat(100_000))
    })
    const send = dialer({ connections: 1 })
    for (let i = 0; i < 3; i++) {
      const { stream } = await send(get(server, '/', { stream: true }))
      for await (const _ of stream!) break
    }
    await expect.poll(() => closed.length).toBe(3)
  })

  test('an error answer never streams', async () => {
    const server = await httpServer((_request, response) => response.writeHead(404).end('gone'))
    const answer = await dialer()(get(server, '/', { stream: true }))
    expect(answer.stream).toBeUndefined()
    expect(text(answer.body)).toBe('gone')
  })

  const resets = async (times: number): Promise<TestServer & { tries: () => number }> => {
    let tries = 0
    const server = await rawServer((socket) => {
      if (++tries <= times) socket.resetAndDestroy()
      else socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
    })
    return { ...server, tries: () => tries }
  }

  test('GET is tried again, POST is not, unless it may be', async () => {
    const reading = await resets(2)
    expect(text((await retrying(dialer())(get(reading))).body)).toBe('ok')
    expect(reading.tries()).toBe(3)

    const writing = await resets(2)
    const post = (more: Partial<HttpRequest> = {}): HttpRequest =>
      get(writing, '/', { method: 'POST', body: Buffer.from('once'), ...more })
    expect(await errorOf(retrying(dialer())(post()))).toMatchObject({ class: 'network' })
    expect(writing.tries()).toBe(1)

    const declared = await resets(2)
    const again = { method: 'POST', body: Buffer.from('b'), repeatable: true } as const
    expect((await retrying(dialer())(get(declared, '/', again))).status).toBe(200)
    expect(declared.tries()).toBe(3)

    const never = await resets(2)
    expect(await errorOf(retrying(dialer())(get(never, '/', { repeatable: false })))).toMatchObject({
      class: 'network',
    })
    expect(never.tries()).toBe(1)
  })

  test('POST is tried again after 429 and 503, which mean that nothing was done', async () => {
    let tries = 0
    const server = await httpServer((_request, response) => {
      const status = [429, 503, 200][tries++] ?? 200
      response.writeHead(status, { 'retry-after': '1' }).end()
    })
    const post = { method: 'POST', body: Buffer.from('body') } as const
    expect((await retrying(dialer())(get(server, '/', post))).status).toBe(200)
    expect(server.seen.map(({ body }) => body)).toEqual(['body', 'body', 'body'])

    tries = 1
    expect((await retrying(dialer())(get(server, '/', { ...post, repeatable: false }))).status).toBe(503)
    tries = 0
    const limited = await retrying(dialer())(get(server, '/', { ...post, repeatable: false }))
    expect(limited.status).toBe(503)
  })

  test('nobody listens', async () => {
    const server = await rawServer(() => {})
    const port = await new Promise<number>((resolve) => {
      const socket: Socket = connect(server.port, '127.0.0.1', () => {
        resolve(socket.localPort!)
        socket.destroy()
      })
    })
    // The other end's port: used a moment ago, listened on by nobody.
    const error = await errorOf(dialer()({ method: 'GET', url: `http://127.0.0.1:${port}/` }))
    expect(error).toMatchObject({ class: 'network', message: expect.stringContaining('ECONNREFUSED') })
  })
})

describe('the signal', () => {
  test('ends a request before, during and after its headers, with its own reason', async () => {
    const server = await httpServer(({ path }, response) => {
      if (path === '/body') response.writeHead(200).write('x')
    })
    const send = dialer()
    const reason = new Error('enough')
    expect(await errorOf(send(get(server, '/', { signal: AbortSignal.abort(reason) })))).toBe(reason)
    expect(server.connections()).toBe(0)
    for (const path of ['/silent', '/body']) {
      const stop = new AbortController()
      const seen = server.seen.length
      const waiting = send(get(server, path, { signal: stop.signal }))
      waiting.catch(() => {})
      await expect.poll(() => server.seen.length).toBeGreaterThan(seen)
      stop.abort(reason)
      expect(await errorOf(waiting)).toBe(reason)
    }
    const stop = new AbortController()
    const { stream } = await send(get(server, '/body', { signal: stop.signal, stream: true }))
    const read = (async () => {
      for await (const _ of stream!) stop.abort(reason)
    })()
    expect(await errorOf(read)).toBe(reason)
  })

  test('without an error as reason it is one of ours', async () => {
    const server = await httpServer(() => {})
    const error = await errorOf(dialer()(get(server, '/', { signal: AbortSignal.abort('text') })))
    expect(error).toMatchObject({ class: 'cancelled', code: 'CANCELLED' })
  })
})

describe('addresses', () => {
  test('plain http beyond literal loopback is refused without dialling', async () => {
    const server = await rawServer((socket) => socket.end())
    const send = dialer()
    for (const host of ['localhost', '10.0.0.1', 'example.org', '[fe80::1]', '0.0.0.0']) {
      const error = await errorOf(send({ method: 'GET', url: `http://${host}:${server.port}/` }))
      expect(error).toMatchObject({ class: 'tls', code: 'URL_INSECURE', retryable: false })
    }
    expect(server.connections()).toBe(0)
  })

  test('a storage dialer refuses what is near: literal addresses and names that resolve to them', async () => {
    const server = await rawServer((socket) => socket.end())
    const send = dialer({ allow: (reach) => reach === 'public' })
    for (const url of [
      `http://127.0.0.1:${server.port}/`,
      `https://127.0.0.1:${server.port}/`,
      `https://2130706433:${server.port}/`,
      `https://0x7f.1:${server.port}/`,
      `https://[::1]:${server.port}/`,
      `https://[::ffff:127.0.0.1]:${server.port}/`,
      `https://localhost:${server.port}/`,
      'https://10.0.0.1/',
      'https://192.168.0.1/',
      'https://169.254.169.254/latest/meta-data/',
      'https://[fe80::1]/',
      'https://[::]/',
      'https://0.0.0.0/',
    ]) {
      const error = await errorOf(retrying(send)({ method: 'GET', url, repeatable: true }))
      expect(error, url).toMatchObject({ class: 'safety', code: 'ADDRESS_REFUSED', retryable: false })
    }
    expect(server.connections()).toBe(0)
  })

  test('private ones are refused where only loopback is allowed, and the other way round', async () => {
    const server = await httpServer((_request, response) => response.end())
    const near = dialer({ allow: (reach) => reach === 'loopback' })
    expect((await near(get(server))).status).toBe(200)
    expect(await errorOf(near({ method: 'GET', url: 'https://10.0.0.1/' }))).toMatchObject({ code: 'ADDRESS_REFUSED' })
    const away = dialer({ allow: (reach) => reach === 'private' })
    expect(await errorOf(away(get(server)))).toMatchObject({ code: 'ADDRESS_REFUSED' })
    expect(server.seen).toHaveLength(1)
  })

  test('a name that does not resolve is a network error', async () => {
    const error = await errorOf(dialer()({ method: 'GET', url: 'https://no-such-host.invalid/' }))
    expect(error).toMatchObject({ class: 'network', retryable: true })
  })
})

describe.skipIf(!hasOpenssl)('TLS (needs openssl)', () => {
  /** A certificate for 127.0.0.1, signed by itself. */
  async function certificate(subject = 'IP:127.0.0.1', days = '2') {
    const directory = await freshDirectory()
    const [cert, key] = [join(directory, 'cert.pem'), join(directory, 'key.pem')]
    execFileSync(
      'openssl',
      ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=test']
        .concat(['-addext', `subjectAltName=${subject}`, '-days', days])
        .concat(['-keyout', key, '-out', cert]),
      { stdio: 'ignore' },
    )
    return { cert: readFileSync(cert, 'utf8'), key: readFileSync(key, 'utf8') }
  }
  const tlsFailure = (code: string) => ({ class: 'tls', code, retryable: false })

  test('an unknown authority is refused at the first try; named, it is accepted', async () => {
    const tls = await certificate()
    const server = await httpServer((_request, response) => response.end('secret'), tls)
    expect(await errorOf(retrying(dialer())(get(server)))).toMatchObject(tlsFailure('CERT_UNTRUSTED'))
    expect(server.connections()).toBe(1)
    expect(server.seen).toHaveLength(0)
    expect(text((await dialer({ ca: [tls.cert] })(get(server))).body)).toBe('secret')
  })

  test('the wrong name, the wrong authority', async () => {
    const [other, mine] = [await certificate('DNS:elsewhere.test'), await certificate()]
    const cases: [{ cert: string; key: string }, string[], string][] = [
      [other, [other.cert], 'CERT_NAME'],
      [mine, [other.cert], 'CERT_UNTRUSTED'],
    ]
    for (const [tls, ca, code] of cases) {
      const server = await httpServer((_request, response) => response.end(), tls)
      const send = retrying(dialer({ ca }))
      expect(await errorOf(send(get(server)))).toMatchObject(tlsFailure(code))
      expect(server.connections()).toBe(1)
      expect(server.seen).toHaveLength(0)
    }
  })

  test('a server without TLS behind https', async () => {
    const server = await httpServer((_request, response) => response.end())
    const url = server.origin.replace('http:', 'https:')
    expect(await errorOf(dialer()({ method: 'GET', url }))).toMatchObject(tlsFailure('TLS_FAILED'))
  })

  test('TLS 1.1 is too old', async () => {
    const { createServer } = await import('node:tls')
    const tls = await certificate()
    const server = createServer({
      ...tls,
      minVersion: 'TLSv1',
      maxVersion: 'TLSv1.1',
      ciphers: 'DEFAULT@SECLEVEL=0',
    })
    server.on('tlsClientError', () => {})
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as { port: number }
    try {
      const error = await errorOf(dialer({ ca: [tls.cert] })({ method: 'GET', url: `https://127.0.0.1:${port}/` }))
      expect(error).toMatchObject(tlsFailure('TLS_VERSION'))
    } finally {
      server.close()
    }
  })
})
