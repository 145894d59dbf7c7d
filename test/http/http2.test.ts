/** HTTP/2 against Node's own server: what holds over HTTP/1.1 holds over it, and what only it has ends well. */
import { X509Certificate } from 'node:crypto'
import { constants, type ServerHttp2Stream } from 'node:http2'
import { gzipSync } from 'node:zlib'
import { afterAll, describe, expect, test } from 'vitest'
import { isUnsent } from '../../src/http/failures.ts'
import { pinOf } from '../../src/http/pins.ts'
import { withRetry } from '../../src/http/retry.ts'
import type { ConnectTrace, TlsTrace } from '../../src/http/trace.ts'
import { createDialer, type DialerOptions } from '../../src/http/undici.ts'
import { fakeClock, steadyRandom } from '../support/clock.ts'
import { connectProxy, socksProxy } from '../support/proxies.ts'
import { dialer, errorOf, http2Server, httpServer, json } from '../support/servers.ts'
import { createAuthority, tlsServer } from '../support/tls.ts'

const authority = createAuthority()
afterAll(() => authority.remove())
const issued = authority.issue()
const ca = [authority.cert]
const text = (bytes: Uint8Array) => Buffer.from(bytes).toString()

/** Our dialer with HTTP/2, and what it tells of its connections. */
function http2Dialer(options: DialerOptions = {}) {
  const tls: TlsTrace[] = []
  const connects: ConnectTrace[] = []
  const send = dialer({
    ca,
    http2: true,
    ...options,
    trace: { onTls: (event) => tls.push(event), onConnect: (event) => connects.push(event) },
  })
  const get = (url: string, more: object = {}) => send({ method: 'GET', url, ...more })
  return { send, get, tls, connects, protocols: () => tls.map(({ alpn }) => alpn) }
}

function respond(stream: ServerHttp2Stream, body: string | Uint8Array): void {
  stream.respond({ ':status': 200 })
  stream.end(body)
}
const fine = (stream: ServerHttp2Stream) => respond(stream, 'fine')
/** A gate that a test opens. */
function gate() {
  let open = () => {}
  const opened = new Promise<void>((resolve) => {
    open = resolve
  })
  return { opened, open: () => open() }
}

/** A frame of HTTP/2 (RFC 9113 §4.1). */
function frame(type: number, flags: number, stream: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9)
  head.writeUIntBE(payload.length, 0, 3)
  head.set([type, flags], 3)
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}

/** A header block: status 200, from HPACK's table. */
const OK = Buffer.of(0x88)
/** The same with a length of 10. */
const OK_TEN = Buffer.concat([OK, Buffer.of(0x0f, 0x0d, 2), Buffer.from('10')])

/** A server that writes its frames itself: what `answer` returns for each request, by the id of its stream and its number. */
function framesServer(answer: (id: number, count: number) => readonly Uint8Array[]) {
  return tlsServer({ ...issued, ALPNProtocols: ['h2'] }, (socket) => {
    let [received, count] = [Buffer.alloc(0), 0]
    let isGreeted = false
    socket.on('data', (data) => {
      received = Buffer.concat([received, data])
      if (!isGreeted && received.length >= 24) {
        isGreeted = true
        received = received.subarray(24)
        socket.write(frame(4, 0, 0))
      }
      while (isGreeted && received.length >= 9 && received.length >= 9 + received.readUIntBE(0, 3)) {
        const [length, type, flags, id] = [
          received.readUIntBE(0, 3),
          received[3],
          received[4]!,
          received.readUInt32BE(5),
        ]
        received = received.subarray(9 + length)
        if (type === 4 && (flags & 1) === 0) socket.write(frame(4, 1, 0))
        if (type === 1) for (const one of answer(id, ++count)) socket.write(one)
      }
    })
  })
}

async function readAll(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  for await (const chunk of stream) chunks.push(chunk)
  return Buffer.concat(chunks)
}

describe('requests', () => {
  test('many at once on one connection, with methods, headers, bodies and queries as they were given', async () => {
    const server = await http2Server(issued, (stream, headers, body) => {
      const { ':method': method, ':path': path, ':authority': authority, 'x-mine': mine, cookie } = headers
      stream.respond({ ':status': 201, 'content-type': 'application/json', 'set-cookie': ['a=1', 'b=2'], 'x-is': 'so' })
      stream.end(JSON.stringify({ method, path, authority, mine, cookie, body, length: headers['content-length'] }))
    })
    const { send, protocols } = http2Dialer()
    const answers = await Promise.all(
      ['POST', 'PUT', 'DELETE', 'PATCH', 'GET', 'HEAD'].map((method) =>
        send({
          method: method as 'POST',
          url: `${server.origin}/a%20b?c=d&e`,
          headers: { 'x-mine': 'ä', connection: 'keep-alive' },
          ...(method.startsWith('P') ? { body: Buffer.from(`body of ${method}`) } : {}),
        }),
      ),
    )
    for (const { status, headers } of answers) {
      expect([status, headers['set-cookie'], headers['x-is']]).toEqual([201, 'a=1\nb=2', 'so'])
      expect(Object.keys(headers).filter((name) => name.startsWith(':'))).toEqual([])
    }
    expect(JSON.parse(text(answers[0]!.body))).toEqual({
      method: 'POST',
      path: '/a%20b?c=d&e',
      authority: new URL(server.origin).host,
      mine: 'ä',
      body: 'body of POST',
      length: '12',
    })
    expect(answers[5]!.body).toHaveLength(0)
    expect([server.connections(), server.seen.length, protocols()]).toEqual([1, 6, ['h2']])
  })

  test('answers as streams, larger than every window, at the pace of the reader', async () => {
    const sent = Buffer.alloc(12 * 1024 * 1024, 'content ')
    const server = await http2Server(issued, (stream) => respond(stream, sent), {
      maxSessionMemory: 100,
    })
    const { get, send } = http2Dialer()
    const slow = await get(server.origin, { stream: true })
    // Another request is not held up by one whose answer nobody reads yet.
    expect(Buffer.compare((await send({ method: 'GET', url: `${server.origin}/other` })).body, sent)).toBe(0)
    expect((await readAll(slow.stream!)).equals(sent)).toBe(true)
    expect(server.connections()).toBe(1)
  })

  test('a stream that is left ends at the server, and the connection goes on', async () => {
    const closed = gate()
    const server = await http2Server(issued, (stream, { ':path': path }) => {
      if (path === '/fine') return fine(stream)
      stream.respond({ ':status': 200 })
      stream.write('x')
      stream.on('close', closed.open)
    })
    const { get } = http2Dialer()
    const { stream } = await get(server.origin, { stream: true })
    for await (const _chunk of stream!) break
    await closed.opened
    expect(text((await get(`${server.origin}/fine`)).body)).toBe('fine')
    expect(server.connections()).toBe(1)
  })

  test('bodies of 1 MiB and more go over HTTP/1.1, beside', async () => {
    const server = await http2Server(issued, fine, { allowHTTP1: true })
    const { send, get, protocols } = http2Dialer()
    await get(server.origin)
    const answer = await send({ method: 'PUT', url: server.origin, body: Buffer.alloc(1024 * 1024) })
    expect([text(answer.body), protocols()]).toEqual(['one', ['h2', 'http/1.1']])
  })

  test('no header gets in by another, and none is sent that HTTP does not allow', async () => {
    const server = await http2Server(issued, fine)
    const { get } = http2Dialer()
    for (const headers of [
      { 'x-a': 'b\r\nx-c: d' },
      { 'x-a': 'b\0' },
      { 'x a': 'b' },
      { ':path': '/other' },
      { 'x-a': 'b\n' },
    ]) {
      const error = await errorOf(get(server.origin, { headers }))
      expect(error).toMatchObject({ name: 'SyncError' })
    }
    expect(server.seen).toEqual([])
  })
})

describe('what a server agrees to', () => {
  test('only HTTP/1.1: the connection that was made is used, and the next one does not ask again', async () => {
    const server = await httpServer((_seen, response) => json(response, { fine: true }), issued)
    const { get, protocols } = http2Dialer()
    const answers = await Promise.all([1, 2, 3].map(() => get(server.origin)))
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200])
    await get(server.origin)
    expect(server.connections()).toBe(3)
    expect(protocols()[0]).toBe('http/1.1')
  })

  test('nothing at all (no ALPN): HTTP/1.1', async () => {
    const server = await tlsServer({ ...issued })
    const { get, protocols } = http2Dialer()
    expect(text((await get(server.origin)).body)).toBe('ok')
    expect([server.connections(), protocols()]).toEqual([1, [undefined]])
  })

  test('without the option HTTP/1.1 is all that is offered; plain http is never HTTP/2', async () => {
    const server = await http2Server(issued, fine)
    expect(await errorOf(http2Dialer({ http2: false }).get(server.origin))).toMatchObject({ class: 'tls' })
    const plain = await httpServer((_seen, response) => json(response, {}))
    expect((await http2Dialer().get(plain.origin)).status).toBe(200)
    expect(() => dialer({ http2: 'yes' as never })).toThrow(/http2 must be true or false/)
  })

  test('HTTP/1.1 after all, for one request: all others go that way, too', async () => {
    const server = await http2Server(issued, (stream) => stream.close(constants.NGHTTP2_HTTP_1_1_REQUIRED), {
      allowHTTP1: true,
    })
    const { get, protocols } = http2Dialer()
    const error = await errorOf(get(server.origin))
    expect([error.message, isUnsent(error)]).toEqual([expect.stringContaining('HTTP_1_1_REQUIRED'), true])
    expect(text((await get(server.origin)).body)).toBe('one')
    expect(protocols()).toEqual(['h2', 'http/1.1'])
  })
})

describe('who it is talked to', () => {
  const pin = pinOf(new X509Certificate(issued.cert))
  const strange = `sha256/${Buffer.alloc(32, 7).toString('base64')}`

  test('is checked as ever: authority, name, pins, keys seen first, one certificate, a check of one’s own', async () => {
    const server = await http2Server(issued, fine)
    const named = await http2Server(authority.issue({ names: 'DNS:elsewhere.test' }), fine)
    const refusing = () => {
      throw new Error('no')
    }
    const code = async (options: DialerOptions, url = server.origin) =>
      (await errorOf(http2Dialer(options).get(url))).code
    expect(await code({ ca: [] })).toBe('CERT_UNTRUSTED')
    expect(await code({}, named.origin)).toBe('CERT_NAME')
    expect(await code({ pins: [strange, `sha256/${Buffer.alloc(32, 8).toString('base64')}`] })).toBe('PIN_MISMATCH')
    expect(await code({ acceptCertificate: 'ab'.repeat(32) })).toBe('CERT_OTHER')
    expect(await code({ checkServer: refusing })).toBe('SERVER_NOT_TRUSTED')
    const pinStore = { load: async () => strange, save: async () => {} }
    expect(await code({ pins: 'first-use', pinStore })).toBe('PIN_MISMATCH')
    expect([server.seen, server.sessions.length]).toEqual([[], 0])
    const asked: unknown[] = []
    const { get, protocols } = http2Dialer({
      pins: [pin, strange],
      checkServer: (chain) => void asked.push(chain[0]?.pin),
    })
    expect((await get(server.origin)).status).toBe(200)
    expect([asked, protocols()]).toEqual([[pin], ['h2']])
  })

  test('shows a client certificate to own servers only', async () => {
    const asking = { requestCert: true, rejectUnauthorized: false, ca: authority.cert }
    const answer = (stream: ServerHttp2Stream) => {
      const socket = stream.session!.socket as unknown as { getPeerX509Certificate(): unknown }
      stream.respond({ ':status': 200 })
      stream.end(socket.getPeerX509Certificate() === undefined ? 'none' : 'some')
    }
    const [own, foreign] = [await http2Server(issued, answer, asking), await http2Server(issued, answer, asking)]
    const { cert, key } = authority.issue({ names: 'email:client@example.org' })
    const { get } = http2Dialer({ clientCertificate: { cert, key }, ownOrigins: [own.origin] })
    expect([text((await get(own.origin)).body), text((await get(foreign.origin)).body)]).toEqual(['some', 'none'])
  })

  test('through proxies', async () => {
    const server = await http2Server(issued, fine)
    const [http, socks] = [await connectProxy({ login: 'user:secret' }), await socksProxy()]
    for (const options of [
      { proxy: `http://127.0.0.1:${http.port}`, proxyUser: 'user', proxyPassword: 'secret' },
      { proxy: `socks5://127.0.0.1:${socks.port}` },
    ]) {
      const { get, connects, protocols } = http2Dialer(options)
      await Promise.all([get(server.origin), get(server.origin)])
      expect([connects.map(({ proxied }) => proxied), protocols()]).toEqual([[true], ['h2']])
    }
    expect([http.asked.length, socks.asked.length]).toEqual([1, 1])
  })

  test('only where it is allowed to', async () => {
    const server = await http2Server(issued, fine)
    const { get } = http2Dialer({ allow: (reach) => reach === 'public' })
    expect(await errorOf(get(server.origin))).toMatchObject({ code: 'ADDRESS_REFUSED' })
    expect(server.connections()).toBe(0)
  })

  test('redirects are answers: none is followed', async () => {
    const server = await http2Server(issued, (stream) => {
      stream.respond({ ':status': 302, location: 'https://elsewhere.example/' }, { endStream: true })
    })
    const { status, headers } = await http2Dialer().get(server.origin)
    expect([status, headers.location, server.seen.length]).toEqual([302, 'https://elsewhere.example/', 1])
  })
})

describe('ends', () => {
  test('GOAWAY: what is under way ends, what the server did not take is sent again, whatever its method', async () => {
    const [going, told] = [gate(), gate()]
    const server = await http2Server(issued, async (stream, { ':path': path }) => {
      if (path === '/next') return fine(stream)
      going.open()
      await told.opened
      fine(stream)
    })
    const { get, send } = http2Dialer()
    const first = get(`${server.origin}/first`)
    await going.opened
    // As a server does that has seen enough requests on a connection: those up to the first are taken.
    server.sessions[0]!.goaway(constants.NGHTTP2_NO_ERROR, 1)
    const retrying = withRetry(send, { clock: fakeClock(), random: steadyRandom() })
    const next = await retrying({ method: 'POST', url: `${server.origin}/next`, body: Buffer.from('x') })
    expect([next.status, server.connections()]).toEqual([200, 2])
    told.open()
    expect(text((await first).body)).toBe('fine')
    expect(server.seen.filter((one) => one.startsWith('POST'))).toEqual(['POST /next'])
  })

  test('GOAWAY with an error: a request that was taken fails, and is not sent again by itself', async () => {
    const server = await http2Server(issued, (stream) => stream.session!.goaway(constants.NGHTTP2_INTERNAL_ERROR, 1))
    const { send } = http2Dialer()
    const retrying = withRetry(send, { clock: fakeClock(), random: steadyRandom() })
    const error = await errorOf(retrying({ method: 'POST', url: server.origin, body: Buffer.from('x') }))
    expect(error).toMatchObject({ class: 'network', code: 'NETWORK' })
    expect([server.seen, isUnsent(error)]).toEqual([['POST /'], false])
  })

  test('a refused stream was not processed: every method is sent again', async () => {
    let count = 0
    const server = await http2Server(issued, (stream) => {
      if (++count === 1) stream.close(constants.NGHTTP2_REFUSED_STREAM)
      else fine(stream)
    })
    const retrying = withRetry(http2Dialer().send, { clock: fakeClock(), random: steadyRandom() })
    expect((await retrying({ method: 'POST', url: server.origin })).status).toBe(200)
    expect([server.seen, server.connections()]).toEqual([['POST /', 'POST /'], 1])
  })

  test.each([
    ['before an answer', 'CANCEL', false],
    ['before an answer', 'INTERNAL_ERROR', false],
    ['in the middle of one', 'CANCEL', true],
    ['in the middle of one', 'INTERNAL_ERROR', true],
    ['in the middle of one', 'NO_ERROR', true],
  ] as const)('a stream that is reset %s (%s): no half answer counts as whole', async (_when, name, isBegun) => {
    // Frame by frame: Node's own server ends a stream before it resets it.
    const server = await framesServer((id, count) => {
      const reset = frame(3, 0, id, Buffer.of(0, 0, 0, constants[`NGHTTP2_${name}`]))
      if (count > 2) return [frame(1, 4, id, OK), frame(0, 1, id, Buffer.from('fine'))]
      return isBegun ? [frame(1, 4, id, OK_TEN), frame(0, 0, id, Buffer.from('half')), reset] : [reset]
    })
    const { get, send } = http2Dialer()
    const error = await errorOf(send({ method: 'POST', url: server.origin }))
    expect(error).toMatchObject({ class: 'network', code: 'NETWORK' })
    expect(isUnsent(error)).toBe(false)
    const { stream } = await get(server.origin, { stream: true }).catch(() => ({ stream: undefined }))
    if (stream !== undefined) expect(await errorOf(readAll(stream))).toMatchObject({ class: 'network' })
    expect(text((await get(`${server.origin}/fine`)).body)).toBe('fine')
    expect(server.connections()).toBe(1)
  })

  test('a connection that is cut, at rest and in the middle of an answer', async () => {
    const server = await http2Server(issued, (stream, { ':path': path }) => {
      if (path === '/fine') return fine(stream)
      stream.respond({ ':status': 200 })
      stream.write('half', () => stream.session!.destroy())
    })
    const { get } = http2Dialer()
    await get(`${server.origin}/fine`)
    const gone = new Promise((resolve) => server.sessions[0]!.once('close', resolve))
    server.sessions[0]!.destroy()
    await gone
    const retrying = withRetry((request) => get(request.url), { clock: fakeClock(), random: steadyRandom() })
    expect((await retrying({ method: 'GET', url: `${server.origin}/fine` })).status).toBe(200)
    expect(await errorOf(get(server.origin))).toMatchObject({ class: 'network', retryable: true })
    expect((await retrying({ method: 'GET', url: `${server.origin}/fine` })).status).toBe(200)
  })

  test('an idle connection is closed in its time, or after each request', async () => {
    const server = await http2Server(issued, fine)
    const { get } = http2Dialer({ keepAliveMs: 20 })
    await get(server.origin)
    await expect.poll(() => server.sessions[0]!.destroyed).toBe(true)
    await get(server.origin)
    expect(server.connections()).toBe(2)
    const each = http2Dialer({ keepAliveMs: 0 })
    await Promise.all([each.get(server.origin), each.get(server.origin), each.get(server.origin)])
    expect(server.connections()).toBe(5)
  })

  test('closing a dialer waits for what is under way, and leaves nothing open', async () => {
    const [going, told] = [gate(), gate()]
    const server = await http2Server(issued, async (stream) => {
      going.open()
      await told.opened
      fine(stream)
    })
    const { send, close } = createDialer({ ca, http2: true })
    const answer = send({ method: 'GET', url: server.origin })
    await going.opened
    const closed = close()
    told.open()
    expect(text((await answer).body)).toBe('fine')
    await closed
    await expect.poll(() => server.sessions.every(({ destroyed }) => destroyed)).toBe(true)
    expect(await errorOf(send({ method: 'GET', url: server.origin }))).toMatchObject({ class: 'network' })
  })
})

describe('limits', () => {
  test('requests at once: as many as we want, and no more than the server does', async () => {
    for (const [options, most] of [
      [{}, 3],
      [{ settings: { maxConcurrentStreams: 2 } }, 2],
    ] as const) {
      let [now, highest] = [0, 0]
      const server = await http2Server(
        issued,
        (stream) => {
          highest = Math.max(highest, ++now)
          stream.on('close', () => now--)
          setImmediate(() => fine(stream))
        },
        options,
      )
      const { get } = http2Dialer({ connections: 3 })
      // The first request learns what the server allows.
      await get(server.origin)
      const answers = await Promise.all(Array.from({ length: 12 }, () => get(server.origin)))
      expect(answers.every(({ status }) => status === 200)).toBe(true)
      expect(highest).toBeLessThanOrEqual(most)
      expect(server.connections()).toBe(1)
    }
  })

  test('bodies, of answers and of errors; bombs; what nobody asked for', async () => {
    const server = await http2Server(issued, (stream, { ':path': path }) => {
      const respond = (status: number, body: Uint8Array, encoding?: string) => {
        stream.respond({ ':status': status, ...(encoding === undefined ? {} : { 'content-encoding': encoding }) })
        stream.end(body)
      }
      if (path === '/long') return respond(200, Buffer.alloc(200_000))
      if (path === '/error') return respond(404, Buffer.alloc(200_000, 'e'))
      if (path === '/bomb') return respond(200, gzipSync(Buffer.alloc(50_000_000)), 'gzip')
      return respond(200, Buffer.from('x'), 'compress')
    })
    const { get } = http2Dialer({ maxBodyBytes: 100_000, maxErrorBytes: 1_000, compression: true })
    expect(await errorOf(get(`${server.origin}/long`))).toMatchObject({ code: 'ANSWER_TOO_LARGE' })
    const { status, body } = await get(`${server.origin}/error`)
    expect([status, body.length]).toEqual([404, 1_000])
    expect(await errorOf(get(`${server.origin}/bomb`))).toMatchObject({ code: 'ANSWER_TOO_LARGE' })
    expect(await errorOf(get(`${server.origin}/encoded`))).toMatchObject({ code: 'ENCODING_UNEXPECTED' })
  })

  test('headers: too long, too many, and too many answers that say nothing', async () => {
    const server = await http2Server(issued, (stream, { ':path': path }) => {
      if (path === '/fine') return fine(stream)
      if (path === '/long') {
        stream.respond({
          ':status': 200,
          ...Object.fromEntries([1, 2, 3].map((at) => [`x-${at}`, 'y'.repeat(15_000)])),
        })
        return stream.end('x')
      }
      if (path === '/many') {
        const many = Array.from({ length: 1_000 }, (_one, at) => [`x-${at}`, 'y'])
        stream.respond({ ':status': 200, ...Object.fromEntries(many) })
        return stream.end('x')
      }
      // Each of these resets time-outs that look at silence only.
      const say = () => {
        if (stream.destroyed) return
        stream.additionalHeaders({ ':status': 103 })
        setImmediate(say)
      }
      say()
    })
    const { get } = http2Dialer()
    expect((await errorOf(get(`${server.origin}/long`))).message).toMatch(/HEADERS_OVERFLOW|HTTP2_/)
    expect((await errorOf(get(`${server.origin}/many`))).message).toMatch(/HEADERS_OVERFLOW|HTTP2_/)
    for (const stream of [false, true]) {
      expect(await errorOf(get(`${server.origin}/interim`, { stream }))).toMatchObject({ code: 'ANSWER_ENDLESS' })
    }
    expect((await get(`${server.origin}/fine`)).status).toBe(200)
  })

  test('a few 1xx answers are passed over', async () => {
    const server = await http2Server(issued, (stream) => {
      stream.additionalHeaders({ ':status': 103, link: '</a>' })
      fine(stream)
    })
    const { get } = http2Dialer()
    expect(text((await get(server.origin)).body)).toBe('fine')
    expect(text(await readAll((await get(server.origin, { stream: true })).stream!))).toBe('fine')
  })

  test('a body that is longer or shorter than it says is none', async () => {
    const server = await http2Server(issued, (stream, { ':path': path }) => {
      stream.respond({ ':status': 200, 'content-length': path === '/short' ? 10 : 2 })
      stream.end('four')
    })
    const { get } = http2Dialer()
    for (const path of ['/short', '/long']) {
      expect(await errorOf(get(server.origin + path))).toMatchObject({ class: 'network' })
    }
  })

  test('time: to the headers, in a body, in all, by the caller; a connection that was silent is not used again', async () => {
    const server = await http2Server(issued, (stream, { ':path': path }) => {
      if (path === '/fine') return fine(stream)
      if (path === '/silent') return
      stream.respond({ ':status': 200 })
      stream.write('half')
    })
    const { get, send } = http2Dialer({ headersTimeoutMs: 50, bodyTimeoutMs: 50 })
    // Where this process has to wait for its turn, a good answer may be late, too.
    const retrying = withRetry(send, { clock: fakeClock(), random: steadyRandom() })
    const getFine = () => retrying({ method: 'GET', url: `${server.origin}/fine` })
    await getFine()
    for (const [path, code] of [
      ['/silent', 'HEADERS_TIMEOUT'],
      ['/half', 'BODY_TIMEOUT'],
    ] as const) {
      const error = await errorOf(get(server.origin + path))
      const either = path === '/half' ? /BODY_TIMEOUT|HEADERS_TIMEOUT/ : new RegExp(code)
      expect(error).toMatchObject({ class: 'network', retryable: true, message: expect.stringMatching(either) })
    }
    expect((await getFine()).status).toBe(200)
    expect(server.connections()).toBeGreaterThanOrEqual(3)
    const total = http2Dialer({ totalTimeoutMs: 50 })
    expect(await errorOf(total.get(`${server.origin}/silent`))).toMatchObject({ code: 'TIMEOUT_TOTAL' })
    const answer = http2Dialer({ answerTimeoutMs: 50 })
    expect(await errorOf(answer.get(`${server.origin}/half`))).toMatchObject({ code: 'TIMEOUT_ANSWER' })
    const stop = new AbortController()
    const own = http2Dialer()
    const waiting = own.get(`${server.origin}/silent`, { signal: stop.signal })
    const reason = new Error('enough')
    stop.abort(reason)
    expect(await errorOf(waiting)).toBe(reason)
    expect((await own.get(`${server.origin}/fine`)).status).toBe(200)
  })

  test('an answer before all was sent ends the request', async () => {
    const server = await http2Server(
      issued,
      (stream) => {
        stream.respond({ ':status': 413 })
        stream.end('too large')
      },
      { whileSending: true, settings: { initialWindowSize: 1_000 } },
    )
    const { send } = http2Dialer()
    const { status, body } = await send({ method: 'POST', url: server.origin, body: Buffer.alloc(500_000) })
    expect([status, text(body)]).toEqual([413, 'too large'])
  })

  test('a server that speaks something else than it agreed to', async () => {
    const server = await tlsServer({ ...issued, ALPNProtocols: ['h2'] }, (socket) => {
      socket.on('data', () => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'))
    })
    expect(await errorOf(http2Dialer().get(server.origin))).toMatchObject({ class: 'network' })
    const silent = await tlsServer({ ...issued, ALPNProtocols: ['h2'] }, () => {})
    expect(await errorOf(http2Dialer({ headersTimeoutMs: 50 }).get(silent.origin))).toMatchObject({
      message: expect.stringContaining('HEADERS_TIMEOUT'),
    })
    const rude = await tlsServer({ ...issued, ALPNProtocols: ['h2'] }, (socket) => socket.destroy())
    expect(await errorOf(http2Dialer().get(rude.origin))).toMatchObject({ class: 'network' })
  })
})
