/**
 * Answers as proxies and hostile servers send them: compressed though nobody asked, announced again and again, or without an
 * end. What is read is bounded, what is waited for has an end.
 */
import type { ServerResponse } from 'node:http'
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { dialer, errorOf, httpServer } from '../support/servers.ts'

const JSON_TEXT = JSON.stringify({ range: { offset: 0, limit: 500, total: 0 }, items: [] })
const LARGE = new Uint8Array(1024 * 1024)

describe('compressed answers', () => {
  test.each([
    ['gzip', gzipSync],
    ['x-gzip', gzipSync],
    ['GZIP', gzipSync],
    ['deflate', deflateSync],
    ['br', brotliCompressSync],
  ])('%s: JSON is read, also as the answer to a large body, and its headers tell of it no more', async (name, pack) => {
    const server = await httpServer((_request, response) => {
      const body = pack(JSON_TEXT)
      response.writeHead(200, { 'content-encoding': name, 'content-length': body.length }).end(body)
    })
    const send = dialer()
    for (const request of [{ method: 'GET' }, { method: 'POST', body: LARGE }] as const) {
      const { status, headers, body } = await send({ ...request, url: server.origin })
      expect([status, Buffer.from(body).toString()]).toEqual([200, JSON_TEXT])
      expect(headers['content-encoding'] ?? headers['content-length']).toBeUndefined()
    }
  })

  test('are bounded by what they become', async () => {
    const bomb = gzipSync(Buffer.alloc(64 * 1024 * 1024))
    const server = await httpServer(({ path }, response) => {
      response.writeHead(path === '/error' ? 400 : 200, { 'content-encoding': 'gzip' }).end(bomb)
    })
    const send = dialer()
    const error = await errorOf(send({ method: 'GET', url: server.origin }))
    expect(error).toMatchObject({ class: 'server', code: 'ANSWER_TOO_LARGE' })
    // What is said of a failure does not matter; that there was one does.
    expect(await send({ method: 'GET', url: `${server.origin}/error` })).toMatchObject({
      status: 400,
      body: { length: 0 },
    })
  })

  test('of failures keep what they say; those without a body have none', async () => {
    const server = await httpServer(({ path }, response) => {
      if (path === '/none') return response.writeHead(204, { 'content-encoding': 'gzip' }).end()
      return response.writeHead(404, { 'content-encoding': 'gzip' }).end(gzipSync('{"errorCode":-41000}'))
    })
    const send = dialer()
    const { body } = await send({ method: 'GET', url: server.origin, stream: true })
    expect(Buffer.from(body).toString()).toBe('{"errorCode":-41000}')
    expect(await send({ method: 'GET', url: `${server.origin}/none` })).toMatchObject({
      status: 204,
      body: { length: 0 },
    })
  })
})

describe('answers that never come', () => {
  /** Goes on announcing as fast as it can be heard. */
  const announce = (response: ServerResponse) => {
    const { socket } = response
    const go = () => {
      if (socket?.writable) socket.write('HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n', () => setImmediate(go))
    }
    go()
  }

  test('endless interim answers end the request, whatever it is', async () => {
    const server = await httpServer((_request, response) => announce(response))
    const send = dialer({ headersTimeoutMs: 1_000 })
    for (const stream of [false, true]) {
      const error = await errorOf(send({ method: 'GET', url: server.origin, stream }))
      expect(error).toMatchObject({ class: 'server', code: 'ANSWER_ENDLESS' })
    }
    const large = await errorOf(send({ method: 'POST', url: server.origin, body: LARGE }))
    expect(large).toMatchObject({ class: 'network', message: expect.stringContaining('HEADERS_TIMEOUT') })
  })

  test('a few interim answers do no harm', async () => {
    const server = await httpServer((_request, response) => {
      for (let i = 0; i < 10; i++) response.writeEarlyHints({ link: '</x>; rel=preload' })
      response.end('ok')
    })
    const send = dialer()
    expect(Buffer.from((await send({ method: 'GET', url: server.origin })).body).toString()).toBe('ok')
  })

  test('a body that flows without an end has one time limit; content has none', async () => {
    const server = await httpServer((_request, response) => {
      response.writeHead(200)
      const timer = setInterval(() => response.write(Buffer.alloc(2048, 0x20)), 5)
      response.on('close', () => clearInterval(timer))
    })
    const send = dialer({ answerTimeoutMs: 150 })
    const late = { class: 'network', code: 'TIMEOUT_ANSWER', retryable: true }
    expect(await errorOf(send({ method: 'GET', url: server.origin }))).toMatchObject(late)
    const { stream } = await send({ method: 'GET', url: server.origin, stream: true })
    const begun = performance.now()
    for await (const _chunk of stream!) if (performance.now() - begun > 400) break
  })

  test('waiting for a connection is not waiting for the server', async () => {
    const answers: ServerResponse[] = []
    // The second is answered at once, when it is there at last.
    const server = await httpServer((_request, response) => void (answers.push(response) > 1 && response.end('ok')))
    const send = dialer({ connections: 1, answerTimeoutMs: 1_000 })
    const first = await (async () => {
      const content = send({ method: 'GET', url: server.origin, stream: true })
      await expect.poll(() => answers.length).toBe(1)
      answers[0]!.writeHead(200).write('x')
      return content
    })()
    const second = send({ method: 'GET', url: server.origin })
    second.catch(() => {})
    await new Promise((resolve) => setTimeout(resolve, 1_200))
    answers[0]!.end()
    for await (const _chunk of first.stream!);
    expect((await second).status).toBe(200)
  })
})
