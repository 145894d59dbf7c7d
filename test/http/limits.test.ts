import { createServer, type Socket } from 'node:net'
import { networkInterfaces } from 'node:os'
import { describe, expect, onTestFinished, test } from 'vitest'
import { dialer, errorOf, httpServer, rawServer } from '../support/servers.ts'

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString()
const hasIpv6 = Object.values(networkInterfaces()).some((all) => all?.some(({ address }) => address === '::1'))

describe('time', () => {
  test('to connect: a server that never speaks TLS', async () => {
    const silent = await rawServer(() => {})
    const send = dialer({ connectTimeoutMs: 100 })
    const url = silent.origin.replace('http:', 'https:')
    expect(await errorOf(send({ method: 'GET', url }))).toMatchObject({
      class: 'network',
      retryable: true,
      message: expect.stringContaining('CONNECT_TIMEOUT'),
    })
  })

  test('to the headers, and between two pieces of a body', async () => {
    const server = await httpServer(({ path }, response) => {
      if (path === '/headers') return
      response.writeHead(200, { 'content-length': '10' }).write('12345')
    })
    const send = dialer({ headersTimeoutMs: 100, bodyTimeoutMs: 100 })
    for (const [path, code] of [
      ['/headers', 'HEADERS_TIMEOUT'],
      ['/body', 'BODY_TIMEOUT'],
    ]) {
      const error = await errorOf(send({ method: 'GET', url: server.origin + path }))
      expect(error).toMatchObject({ class: 'network', retryable: true, message: expect.stringContaining(code!) })
    }
  })

  test('in total: before the headers, in a body, in a stream, in the queue for a connection', async () => {
    const server = await httpServer(({ path }, response) => {
      if (path === '/silent') return
      response.writeHead(200)
      const timer = setInterval(() => response.write('x'), 5)
      response.on('close', () => clearInterval(timer))
    })
    const late = { class: 'network', code: 'TIMEOUT_TOTAL', retryable: true }
    const send = dialer({ totalTimeoutMs: 150, connections: 1 })
    const get = (path: string, stream = false) => send({ method: 'GET', url: server.origin + path, stream })
    expect(await errorOf(get('/silent'))).toMatchObject(late)
    expect(await errorOf(get('/drip'))).toMatchObject(late)
    // Where this process has to wait for its turn, even the headers may be late; that would not be the case in hand.
    let length = 0
    while (length === 0) {
      const read = (async () => {
        const { stream } = await get('/drip', true)
        for await (const chunk of stream!) length += chunk.length
      })()
      expect(await errorOf(read)).toMatchObject(late)
    }
    const both = await Promise.all([errorOf(get('/silent')), errorOf(get('/silent'))])
    expect(both).toEqual([expect.objectContaining(late), expect.objectContaining(late)])
  })

  test('in total: leaves what is done in time alone, and the caller’s own signal in force', async () => {
    const server = await httpServer(({ path }, response) => path === '/silent' || response.end('ok'))
    const send = dialer({ totalTimeoutMs: 60_000 })
    const stop = new AbortController()
    const answer = await send({ method: 'GET', url: server.origin, signal: stop.signal, stream: true })
    let body = ''
    for await (const chunk of answer.stream!) body += text(chunk)
    expect(body).toBe('ok')
    const reason = new Error('enough')
    const waiting = send({ method: 'GET', url: `${server.origin}/silent`, signal: stop.signal })
    waiting.catch(() => {})
    await expect.poll(() => server.seen.length).toBe(2)
    stop.abort(reason)
    expect(await errorOf(waiting)).toBe(reason)
  })
})

describe('connections', () => {
  test('are used again, or not, as asked', async () => {
    const server = await httpServer((_request, response) => response.end('ok'))
    const again = dialer({ keepAliveMs: 60_000, connections: 1 })
    for (let i = 0; i < 3; i++) await again({ method: 'GET', url: server.origin })
    expect(server.connections()).toBe(1)
    const once = dialer({ keepAliveMs: 0 })
    for (let i = 0; i < 3; i++) await once({ method: 'GET', url: server.origin })
    expect(server.connections()).toBe(4)
    expect(server.seen.map(({ headers }) => headers.connection)).toEqual([
      ...Array(3).fill('keep-alive'),
      ...Array(3).fill('close'),
    ])
  })

  test('are no more than asked for', async () => {
    let [open, most] = [0, 0]
    const server = await httpServer(async (_request, response) => {
      most = Math.max(most, ++open)
      await new Promise((resolve) => setImmediate(resolve))
      open--
      response.end()
    })
    const send = dialer({ connections: 2 })
    await Promise.all(Array.from({ length: 12 }, () => send({ method: 'GET', url: server.origin })))
    expect(server.connections()).toBe(2)
    expect(most).toBeLessThanOrEqual(2)
  })

  test('start at the local address that was chosen', async () => {
    const seen: (string | undefined)[] = []
    const server = await httpServer((_request, response, raw) => {
      seen.push(raw.socket.remoteAddress)
      response.end()
    })
    await dialer()({ method: 'GET', url: server.origin })
    await dialer({ bindAddress: '127.0.0.9' })({ method: 'GET', url: server.origin })
    expect(seen).toEqual(['127.0.0.1', '127.0.0.9'])
    // TEST-NET-1: no machine has it.
    const error = await errorOf(dialer({ bindAddress: '192.0.2.1' })({ method: 'GET', url: server.origin }))
    expect(error).toMatchObject({ class: 'network', message: expect.stringContaining('EADDRNOTAVAIL') })
  })

  test('an address of the other family is not dialled', async () => {
    const server = await httpServer((_request, response) => response.end())
    for (const options of [{ family: 6 }, { bindAddress: '::1' }] as const) {
      const error = await errorOf(dialer(options)({ method: 'GET', url: server.origin }))
      expect(error).toMatchObject({ class: 'network', code: 'ADDRESS_FAMILY', retryable: false })
    }
    expect((await dialer({ family: 4 })({ method: 'GET', url: server.origin })).status).toBe(200)
    expect(server.connections()).toBe(1)
  })

  test.skipIf(!hasIpv6)('names are looked up in the family that was chosen (needs ::1)', async () => {
    const families: (string | undefined)[] = []
    // Not TLS: each connection ends at its first bytes, and has told its family by then.
    const server = createServer((socket: Socket) => {
      families.push(socket.remoteAddress)
      socket.on('error', () => {}).destroy()
    })
    await new Promise<void>((resolve) => server.listen({ port: 0, host: '::', ipv6Only: false }, resolve))
    onTestFinished(() => void server.close())
    const { port } = server.address() as { port: number }
    for (const family of [4, 6] as const) {
      await errorOf(dialer({ family })({ method: 'GET', url: `https://localhost:${port}/` }))
    }
    expect(families[0]).toBe('::ffff:127.0.0.1')
    // Not every machine has ::1 in its table of names.
    expect([undefined, '::1']).toContain(families[1])
  })
})

describe('sizes', () => {
  test('of answers and of error answers', async () => {
    const server = await httpServer(({ path }, response) => {
      response.writeHead(path.startsWith('/bad') ? 500 : 200).end('x'.repeat(Number(path.replace(/\D/g, ''))))
    })
    const send = dialer({ maxBodyBytes: 1000, maxErrorBytes: 10 })
    const get = (path: string) => send({ method: 'GET', url: server.origin + path })
    expect((await get('/1000')).body).toHaveLength(1000)
    expect(await errorOf(get('/1001'))).toMatchObject({ class: 'server', code: 'ANSWER_TOO_LARGE' })
    expect((await get('/bad11')).body).toHaveLength(10)
    const { stream } = await send({ method: 'GET', url: `${server.origin}/5000`, stream: true })
    let length = 0
    for await (const chunk of stream!) length += chunk.length
    expect(length).toBe(5000)
  })
})

describe('headers', () => {
  test('of the options go with every request, to own origins only; those of a request win', async () => {
    const own = await httpServer((_request, response) => response.end())
    const foreign = await httpServer((_request, response) => response.end())
    const send = dialer({
      headers: { 'X-Team': 'blue', 'x-two': '2' },
      userAgent: 'tester',
      userAgentSuffix: 'nightly',
      ownOrigins: [own.origin],
    })
    await send({ method: 'GET', url: own.origin })
    await send({ method: 'GET', url: own.origin, headers: { 'x-team': 'red' } })
    await send({ method: 'GET', url: foreign.origin })
    const [first, second] = own.seen
    expect(first?.headers).toMatchObject({ 'x-team': 'blue', 'x-two': '2', 'user-agent': 'tester|nightly' })
    expect(second?.headers['x-team']).toBe('red')
    expect(foreign.seen[0]?.headers).not.toHaveProperty('x-team')
    expect(foreign.seen[0]?.headers['user-agent']).toBe('tester|nightly')
  })
})
