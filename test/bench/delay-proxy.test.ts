import { randomBytes } from 'node:crypto'
import { createServer } from 'node:http'
import { type AddressInfo, connect, createServer as createRawServer } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { expect, onTestFinished, test } from 'vitest'
import { type Link, startDelayProxy } from '../../bench/server/delay-proxy.ts'
import { createRequestCounter } from '../../bench/server/request-counter.ts'

const LINK: Link = { oneWayMs: 1, bytesPerSecond: 0, windowBytes: 64 * 1024 }

async function proxyTo(server: ReturnType<typeof createRawServer>, link: Link = LINK) {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const proxy = await startDelayProxy((server.address() as AddressInfo).port, link)
  onTestFinished(async () => {
    await proxy.close()
    await new Promise((resolve) => server.close(resolve))
  })
  return proxy
}

test('what goes through the proxy arrives as it was sent, both ways, within the window', async () => {
  const echo = createRawServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket))
  const proxy = await proxyTo(echo, { ...LINK, bytesPerSecond: 50e6 })
  const sent = randomBytes(1_000_000)
  const answers = Array.from({ length: 3 }, () => {
    const socket = connect({ port: proxy.port, host: '127.0.0.1', allowHalfOpen: true })
    socket.end(sent)
    return buffer(socket)
  })
  for (const answer of await Promise.all(answers)) expect(answer.equals(sent)).toBe(true)
  const { connections, atOnce, bytesUp, bytesDown, mostInFlight } = proxy.takeCounts()
  expect({ connections, atOnce, bytesUp, bytesDown }).toEqual({
    connections: 3,
    atOnce: 3,
    bytesUp: 3_000_000,
    bytesDown: 3_000_000,
  })
  // It stops reading when the window is full, which is known after what was read at once.
  expect(mostInFlight).toBeLessThanOrEqual(2 * LINK.windowBytes)
})

test('requests are counted by what they ask for, with and without bodies', async () => {
  const server = createServer((request, response) => request.resume().on('end', () => response.end('here')))
  const proxy = await proxyTo(server)
  const origin = `http://127.0.0.1:${proxy.port}`
  for (let i = 0; i < 2; i++) {
    const body = i === 0 ? randomBytes(100_000) : 'GET /not/a/request HTTP/1.1\r\n\r\n'
    expect(await (await fetch(`${origin}/nodes/${i}17/part`, { method: 'PUT', body })).text()).toBe('here')
    expect(await (await fetch(`${origin}/list?offset=0`)).text()).toBe('here')
  }
  expect(proxy.takeCounts()).toMatchObject({
    requests: ['PUT /nodes/*/part', 'GET /list', 'PUT /nodes/*/part', 'GET /list'],
  })
  expect(proxy.takeCounts().requests).toEqual([])
})

test('a connection that the server cuts is cut for the client', async () => {
  const server = createRawServer((socket) => socket.once('data', () => socket.resetAndDestroy()))
  const proxy = await proxyTo(server)
  await expect(fetch(`http://127.0.0.1:${proxy.port}/`)).rejects.toThrow()
})

test('requests are found however they are cut into pieces, and nothing is found in what is no HTTP', () => {
  const text =
    'POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nGET \r\n0\r\n\r\nPUT /b HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /c HTTP/1.1\r\n\r\n'
  for (const size of [1, 7, text.length]) {
    const found: string[] = []
    const count = createRequestCounter((request) => found.push(request))
    for (let at = 0; at < text.length; at += size) count(Buffer.from(text.slice(at, at + size)))
    expect(found).toEqual(['POST /a', 'PUT /b', 'GET /c'])
  }
  const found: string[] = []
  const count = createRequestCounter((request) => found.push(request))
  count(Buffer.from('\x16\x03\x01\x02GET / HTTP/1.1\r\n\r\n', 'latin1'))
  count(Buffer.from('GET / HTTP/1.1\r\n\r\n'))
  expect(found).toEqual([])
})
