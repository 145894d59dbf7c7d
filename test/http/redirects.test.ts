/** Redirects of presigned addresses: which are followed, and what goes along. */
import { describe, expect, test } from 'vitest'
import { withRedirects } from '../../src/http/redirects.ts'
import type { HttpRequest } from '../../src/http/types.ts'
import { type Answer, dialer, errorOf, httpServer } from '../support/servers.ts'

const stored: Answer = (_seen, response) => response.end('content')

/** A store that redirects to wherever `to` says. */
async function world(to: (path: string, other: string) => string, status = 307) {
  const other = await httpServer(stored)
  const store = await httpServer(({ path }, response) =>
    path === '/end' ? response.end('here') : response.writeHead(status, { location: to(path, other.origin) }).end(),
  )
  const send = withRedirects(dialer())
  return {
    other,
    store,
    ask: (more: Partial<HttpRequest> = {}) => send({ method: 'GET', url: `${store.origin}/start`, ...more }),
  }
}

describe('followed', () => {
  test.each([301, 302, 303, 307, 308])('a GET at %i, with its range and nothing else', async (status) => {
    const { other, ask } = await world(
      (_path, origin) => `${origin}/file?X-Amz-SignedHeaders=host%3Bx-amz-meta`,
      status,
    )
    const headers = {
      range: 'bytes=0-3',
      authorization: 'Bearer canary',
      cookie: 'a=canary',
      'x-own': 'canary',
      'x-amz-meta': 'signed',
    }
    expect(Buffer.from((await ask({ headers })).body).toString()).toBe('content')
    expect(other.seen[0]!.headers).toMatchObject({ range: 'bytes=0-3', 'x-amz-meta': 'signed' })
    expect(JSON.stringify(other.seen)).not.toContain('canary')
  })

  test('a PUT at 307, with the same bytes; a relative address', async () => {
    const { other, ask } = await world((_path, origin) => `${origin}/part`)
    await ask({ method: 'PUT', body: Buffer.from('the part'), headers: { 'content-type': 'application/octet-stream' } })
    expect(other.seen[0]).toMatchObject({ method: 'PUT', body: 'the part' })
    const relative = await world(() => '/end')
    expect(Buffer.from((await relative.ask()).body).toString()).toBe('here')
  })
})

describe('not followed', () => {
  test.each([
    ['a PUT at 302', 302, 'PUT'],
    ['a POST', 307, 'POST'],
    ['a DELETE', 307, 'DELETE'],
  ] as const)('%s: its answer is what came', async (_name, status, method) => {
    const { other, ask } = await world((_path, origin) => `${origin}/x`, status)
    expect((await ask({ method })).status).toBe(status)
    expect(other.seen).toHaveLength(0)
  })

  test('more than three', async () => {
    const { store, ask } = await world((path) => `${path}x`)
    expect(await errorOf(ask())).toMatchObject({ class: 'server', code: 'REDIRECT' })
    expect(store.seen).toHaveLength(4)
  })

  test.each([
    ['plain http elsewhere', 'http://files.example.org/x', 'URL_INSECURE'],
    ['another scheme', 'file:///etc/passwd', 'URL_INSECURE'],
    ['a login in the address', 'https://a:b@files.example.org/x', 'URL_INVALID'],
    ['no address', 'http://', 'URL_INVALID'],
  ])('%s', async (_name, location, code) => {
    const { ask } = await world(() => location)
    expect(await errorOf(ask())).toMatchObject({ code })
  })

  test('from https to plain http, be it on this machine', async () => {
    const send = withRedirects(async () => ({
      status: 302,
      headers: { location: 'http://127.0.0.1:1/x' },
      body: new Uint8Array(0),
    }))
    expect(await errorOf(send({ method: 'GET', url: 'https://store.example/x' }))).toMatchObject({ code: 'REDIRECT' })
  })

  test('to an address that may not be connected to', async () => {
    const other = await httpServer(stored)
    const store = await httpServer((_seen, response) => response.writeHead(302, { location: other.origin }).end())
    let hops = 0
    const send = withRedirects(dialer({ allow: () => ++hops < 2, connections: 1 }))
    expect(await errorOf(send({ method: 'GET', url: store.origin }))).toMatchObject({ code: 'ADDRESS_REFUSED' })
    expect(other.seen).toHaveLength(0)
  })
})
