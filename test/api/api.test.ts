import { describe, expect, test } from 'vitest'
import { getAccount, getKeyPairs, getStorage } from '../../src/api/account.ts'
import { type Api, call, failureOf } from '../../src/api/api.ts'
import { createDownload, openDownload } from '../../src/api/downloads.ts'
import { listMissingFileKeys } from '../../src/api/file-keys.ts'
import { listChildren, listRoomUsers } from '../../src/api/nodes.ts'
import {
  cancelUpload,
  completeChunks,
  completeParts,
  createUpload,
  getPartUrls,
  getUploadStatus,
  postChunk,
  putPart,
} from '../../src/api/uploads.ts'
import { expectNoSecret } from '../support/oauth.ts'
import { type Answer, dialer, errorOf, httpServer, json } from '../support/servers.ts'

const CANARY = 'canary-e81b4'

/** The endpoint functions against a server of our making. Both senders dial plainly, so that every request shows. */
async function world(answer: Answer) {
  const server = await httpServer(answer)
  const send = dialer()
  const api: Api = { origin: server.origin, send, sendPlain: send }
  return { server, api }
}
const always = (body: unknown, status = 200, headers: Record<string, string> = {}): Answer => {
  return (_request, response) =>
    response.writeHead(status, headers).end(typeof body === 'string' ? body : JSON.stringify(body))
}
const node = (id: number) => ({ id, type: 'file', name: `n${id}` })
const read = async <T>(items: AsyncIterable<T>): Promise<T[]> => {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}

const whole = { start: 0, end: 7, size: 7 }

describe('failures', () => {
  test.each([
    [400, undefined, 'permission', 'REQUEST_REFUSED'],
    [401, undefined, 'auth', 'UNAUTHORIZED'],
    [402, undefined, 'permission', 'PAYMENT'],
    [403, undefined, 'permission', 'FORBIDDEN'],
    [404, undefined, 'not_found', 'NOT_FOUND'],
    [409, undefined, 'conflict', 'EXISTS'],
    [410, undefined, 'not_found', 'NOT_FOUND'],
    [412, undefined, 'permission', 'PRECONDITION'],
    [413, undefined, 'limit', 'TOO_LARGE'],
    [422, undefined, 'permission', 'REQUEST_REFUSED'],
    [429, undefined, 'rate_limit', 'RATE_LIMITED'],
    [500, undefined, 'server', 'SERVER'],
    [502, undefined, 'server', 'SERVER'],
    [503, undefined, 'server', 'SERVER'],
    [504, undefined, 'server', 'SERVER'],
    [507, undefined, 'quota', 'QUOTA'],
    [901, undefined, 'permission', 'MALICIOUS'],
    [301, undefined, 'server', 'REDIRECT'],
    [302, undefined, 'server', 'REDIRECT'],
    [307, undefined, 'server', 'REDIRECT'],
    [401, -10006, 'permission', 'NOT_AUTHORIZED'],
    [403, -10003, 'auth', 'ACCOUNT_LOCKED'],
    [403, -10007, 'auth', 'ACCOUNT_LOCKED'],
    [403, -10005, 'auth', 'ACCOUNT_LOCKED'],
    [403, -10004, 'auth', 'ACCOUNT_EXPIRED'],
    [403, -10103, 'auth', 'ACCOUNT_PENDING'],
    [403, -10104, 'auth', 'ACCOUNT_PENDING'],
    [403, -10106, 'auth', 'ACCOUNT_PENDING'],
    [404, -20501, 'changed', 'UPLOAD_GONE'],
    [409, -20503, 'changed', 'UPLOAD_GONE'],
    [404, -90034, 'changed', 'UPLOAD_GONE'],
    [404, -20502, 'changed', 'TOKEN_GONE'],
    [404, -40761, 'key', 'FILE_KEY_MISSING'],
    [404, -70020, 'key', 'NO_KEY_PAIR'],
    [409, -70021, 'conflict', 'KEY_PAIR_EXISTS'],
    [400, -40755, 'usage', 'NAME_REFUSED'],
    [400, -41200, 'usage', 'PATH_TOO_LONG'],
    [409, -40010, 'conflict', 'EXISTS'],
    [409, -41001, 'conflict', 'EXISTS'],
    [400, -80037, 'limit', 'FILE_TOO_LARGE'],
    [507, -40200, 'quota', 'QUOTA'],
    [507, -90200, 'quota', 'QUOTA'],
    [507, -90201, 'quota', 'QUOTA'],
    [403, -40764, 'server', 'SCAN_RUNNING'],
    [403, -40765, 'permission', 'MALICIOUS'],
    [404, -41000, 'not_found', 'NOT_FOUND'],
    [403, -99999, 'permission', 'FORBIDDEN'],
  ])('%i with %s is %s %s', async (status, errorCode, kind, code) => {
    const expected = { class: kind, code, status, errorCode, name: 'SyncError' }
    expect(failureOf(status, errorCode === undefined ? {} : { errorCode }, 'label')).toMatchObject(expected)
    const body = errorCode === undefined ? '' : { code: status, errorCode, message: `${CANARY} \u001b[2J` }
    const { api } = await world(always(body, status))
    const error = await errorOf(getAccount(api))
    expect(error).toMatchObject(expected)
    // Only what a second try can mend says so.
    expect(error.retryable).toBe(errorCode === undefined && (status === 429 || (status >= 500 && status < 507)))
    expectNoSecret(error, CANARY)
  })

  test.each([
    ['HTML', '<html>'],
    ['XML', '<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'],
    ['nothing', ''],
    ['a list', '[]'],
    ['null', 'null'],
    ['a code that is text', '{"errorCode":"-40761"}'],
    ['a code that is no integer', '{"errorCode":-40761.5}'],
    ['one too deep', '['.repeat(100)],
    ['an inherited code', '{"__proto__":{"errorCode":-40761}}'],
    ['endless', 'x'.repeat(200_000)],
  ])('with %s in the body the status decides', async (_what, body) => {
    const { api } = await world(always(body, 403))
    const error = await errorOf(getAccount(api))
    expect(error).toMatchObject({ class: 'permission', code: 'FORBIDDEN' })
    expect(error.errorCode).toBeUndefined()
  })

  test('words of the server are shown where nothing else says what is wrong, and do no harm', async () => {
    const words = `The name \u001b[2J\u202e"a.txt" is\r\ntoo long ${'Zm9v'.repeat(10)} ${'x '.repeat(500)}`
    const { api } = await world(always({ code: 400, errorCode: -12345, message: words }, 400))
    const error = await errorOf(getAccount(api))
    expect(error).toMatchObject({ class: 'permission', code: 'REQUEST_REFUSED', status: 400, errorCode: -12345 })
    expect(error.message).toMatch(/: 400, -12345\); it says: The name \[2J "a\.txt" is too long \[…\] x x .*…$/)
    expect(error.message.length).toBeLessThan(300)
    const status = await world(always({ status: 'error', errorDetails: { code: 400, message: 'Not like this' } }))
    expect(await errorOf(getUploadStatus(status.api, 'u'))).toMatchObject({
      class: 'permission',
      message: expect.stringContaining('it says: Not like this'),
    })
  })

  test('Retry-After is passed on; a redirect is named and not followed', async () => {
    const limited = await world(always('', 429, { 'retry-after': '7' }))
    expect(await errorOf(getAccount(limited.api))).toMatchObject({ retryAfterMs: 7000 })
    const moved = await world(always('', 302, { location: '/api/v4/elsewhere' }))
    expect(await errorOf(getAccount(moved.api))).toMatchObject({ code: 'REDIRECT', class: 'server' })
    expect(moved.server.seen).toHaveLength(1)
  })

  test('messages show templates: no ids, queries or tokens', async () => {
    const { api } = await world(always('', 500))
    const id = 'A'.repeat(20)
    const error = await errorOf(call(api, { method: 'GET', path: `/v4/x/1234567890/y/${id}`, query: { q: CANARY } }))
    expect(error.message).toContain('/api/v4/x/{id}/y/{id}')
    expectNoSecret(error, CANARY, '1234567890')
    const how = { resolution: 'fail', fileName: CANARY } as const
    const upload = { uploadId: 'up', token: `${CANARY}-token` }
    expectNoSecret(await errorOf(completeChunks(api, upload, how)), CANARY)
    expectNoSecret(await errorOf(postChunk(api, upload, new Uint8Array(2), 0, 2)), CANARY)
    expectNoSecret(await errorOf(putPart(api, `${api.origin}/part?sig=${CANARY}`, new Uint8Array(1))), CANARY)
    expectNoSecret(await errorOf(openDownload(api, `${api.origin}/d?sig=${CANARY}`, whole)), CANARY)
  })
})

describe('success that is none', () => {
  test.each([
    '',
    '<html>login here</html>',
    '{',
    'null',
    '[]',
    '{}',
    '{"id":"1","userName":"a"}',
    '{"id":1e99,"userName":"a"}',
  ])('200 with %s', async (body) => {
    const { api } = await world(always(body))
    const error = await errorOf(getAccount(api))
    expect(error).toMatchObject({ class: 'server', code: expect.stringMatching(/^ANSWER_/) })
  })

  test('a login portal is named as a possible reason', async () => {
    const { api } = await world(always('<html>'))
    expect((await errorOf(getAccount(api))).hint).toContain('proxy')
  })
})

describe('lists', () => {
  /** A server that lists `all`, and may lie about its total. */
  const listing = (all: object[], totalAt: (page: number) => number): Answer => {
    let page = 0
    return ({ path }, response) => {
      const query = new URL(path, 'http://x').searchParams
      const [offset, limit] = [Number(query.get('offset')), Number(query.get('limit'))]
      json(response, { range: { offset, limit, total: totalAt(page++) }, items: all.slice(offset, offset + limit) })
    }
  }
  const many = (count: number) => Array.from({ length: count }, (_, i) => node(i + 10))

  test.each([0, 1, 499, 500, 501, 1234])('%i entries come complete and in order', async (count) => {
    const { api, server } = await world(listing(many(count), () => count))
    expect((await read(listChildren(api, 5))).map(({ id }) => id)).toEqual(many(count).map(({ id }) => id))
    expect(server.seen).toHaveLength(Math.max(1, Math.ceil(count / 500)))
    expect(new URL(server.seen[0]!.path, 'http://x').searchParams.get('parent_id')).toBe('5')
  })

  test('a page that brings nothing before the end is an error, never the end', async () => {
    const { api } = await world(listing(many(600), () => 700))
    expect(await errorOf(read(listChildren(api, 5)))).toMatchObject({ class: 'server', code: 'LIST_CUT' })
    const empty = await world(listing([], () => 1))
    expect(await errorOf(read(listRoomUsers(empty.api, 5, true)))).toMatchObject({ code: 'LIST_CUT' })
  })

  test('a total that grows is followed to its end', async () => {
    const { api } = await world(listing(many(1100), (page) => (page === 0 ? 600 : 1100)))
    expect(await read(listChildren(api, 5))).toHaveLength(1100)
  })

  test('a total that shrinks means that entries may have been passed over', async () => {
    const { api } = await world(listing(many(1100), (page) => (page === 0 ? 1100 : 800)))
    expect(await errorOf(read(listChildren(api, 5)))).toMatchObject({ class: 'changed', code: 'LIST_CHANGED' })
  })

  test('more than anybody has is not believed; more than asked for is refused', async () => {
    const { api } = await world(listing(many(10), () => 10_000_001))
    expect(await errorOf(read(listChildren(api, 5)))).toMatchObject({ class: 'limit', code: 'LIST_TOO_LONG' })
    const greedy = await world((_request, response) =>
      json(response, { range: { offset: 0, limit: 501, total: 501 }, items: many(501) }),
    )
    expect(await errorOf(read(listChildren(greedy.api, 5)))).toMatchObject({ code: 'ANSWER_INVALID' })
  })

  test('an error on a later page is an error', async () => {
    let page = 0
    const list = listing(many(1000), () => 1000)
    const { api } = await world((request, response, raw) =>
      page++ === 1 ? response.writeHead(500).end() : list(request, response, raw),
    )
    expect(await errorOf(read(listChildren(api, 5)))).toMatchObject({ class: 'server', status: 500 })
  })

  test('missing keys without a range', async () => {
    const { api, server } = await world(always({ items: [], users: [], files: [] }))
    expect(await listMissingFileKeys(api, { roomId: 3, offset: 100 })).toMatchObject({ items: [] })
    expect(server.seen[0]?.path).toBe('/api/v4/nodes/missingFileKeys?room_id=3&offset=100&limit=100')
  })
})

describe('uploads and downloads', () => {
  test('create: the body the server gets', async () => {
    const { api, server } = await world(always({ uploadUrl: 'u', uploadId: 'i', token: 't', extra: 1 }, 201))
    const target = { parentId: 5, name: 'ü', size: 3, modifiedAt: 0 }
    expect(await createUpload(api, target, true)).toEqual({ uploadUrl: 'u', uploadId: 'i', token: 't' })
    expect(JSON.parse(server.seen[0]!.body)).toEqual({
      parentId: 5,
      name: 'ü',
      size: 3,
      directS3Upload: true,
      timestampModification: '1970-01-01T00:00:00.000Z',
    })
  })

  test('ids and tokens cannot leave their place in the path', async () => {
    const { api, server } = await world(always('', 204))
    for (const id of ['a/b', 'a?b', 'a#b', 'a b', 'ü', '%2e', 'a\\b']) {
      await cancelUpload(api, id)
      expect(server.seen.at(-1)?.path).toBe(`/api/v4/nodes/files/uploads/${encodeURIComponent(id)}`)
    }
  })

  test('part URLs: those asked for, the first among them', async () => {
    const urls = [1, 2, 4, 9].map((partNumber) => ({ url: `https://s/${partNumber}`, partNumber }))
    const { api, server } = await world(always({ urls }, 201))
    const found = await getPartUrls(api, 'u', { first: 2, last: 5, size: 5 })
    expect([...found]).toEqual([
      [2, 'https://s/2'],
      [4, 'https://s/4'],
    ])
    expect(JSON.parse(server.seen[0]!.body)).toEqual({ size: 5, firstPartNumber: 2, lastPartNumber: 5 })
    expect(await errorOf(getPartUrls(api, 'u', { first: 3, last: 4, size: 5 }))).toMatchObject({
      code: 'ANSWER_INVALID',
    })
  })

  test.each([
    ['"abc"', 'abc'],
    ['abc', 'abc'],
    ['', undefined],
    ['""', undefined],
    ['x'.repeat(257), undefined],
  ])('a part with the ETag %s', async (etag, expected) => {
    const { api } = await world(always('', 200, { etag }))
    const sent = putPart(api, `${api.origin}/part`, new Uint8Array(3))
    if (expected === undefined) expect(await errorOf(sent)).toMatchObject({ class: 'server', code: 'ANSWER_INVALID' })
    else expect(await sent).toBe(expected)
  })

  test('a part URL that ran out, and one that is no URL', async () => {
    const { api } = await world(always('<Error/>', 403))
    expect(await errorOf(putPart(api, `${api.origin}/part`, new Uint8Array(1)))).toMatchObject({
      class: 'changed',
      code: 'URL_EXPIRED',
    })
    for (const url of ['', 'nonsense', 'http://', 'https://u:p@s.test/x']) {
      expect(await errorOf(putPart(api, url, new Uint8Array(1))), url).toMatchObject({ code: 'URL_INVALID' })
    }
    expect(await errorOf(putPart(api, 'ftp://s.test/x', new Uint8Array(1)))).toMatchObject({ code: 'URL_INSECURE' })
    expect(await errorOf(putPart(api, 'http://s.test/x', new Uint8Array(1)))).toMatchObject({ code: 'URL_INSECURE' })
  })

  test('a chunk says where it belongs; its receipt has types', async () => {
    const { api, server } = await world(always({ size: 4, hash: 'h' }, 201))
    expect(await postChunk(api, { uploadId: 'up', token: 'tok' }, new Uint8Array(4), 6, 10)).toEqual({
      size: 4,
      hash: 'h',
    })
    expect(server.seen[0]).toMatchObject({ method: 'POST', path: '/api/v4/uploads/tok' })
    expect(server.seen[0]?.headers['content-range']).toBe('bytes 6-9/10')
    await postChunk(api, { uploadId: 'up', token: 'tok' }, new Uint8Array(0), 0, 0)
    expect(server.seen[1]?.headers['content-range']).toBeUndefined()
  })

  test('completing sends what was decided', async () => {
    const { api, server } = await world(always(node(9), 201))
    const how = { resolution: 'overwrite', fileName: 'f' } as const
    expect(await completeChunks(api, { uploadId: 'up', token: 'tok' }, how)).toMatchObject({ id: 9 })
    await completeParts(api, 'up', [{ partNumber: 1, partEtag: 'e' }], how)
    expect(JSON.parse(server.seen[1]!.body)).toEqual({
      parts: [{ partNumber: 1, partEtag: 'e' }],
      resolutionStrategy: 'overwrite',
      keepShareLinks: false,
      fileName: 'f',
    })
  })

  test.each([
    [{ status: 'done', node: node(1) }, 1],
    [{ status: 'transfer' }, undefined],
    [{ status: 'finishing' }, undefined],
  ])('status %j', async (body, id) => {
    const { api } = await world(always(body))
    expect((await getUploadStatus(api, 'u'))?.id).toBe(id)
  })

  test.each([
    [{ status: 'error', errorDetails: { code: 409, errorCode: -40010 } }, 'conflict', 'EXISTS'],
    [{ status: 'error', errorDetails: { code: 507 } }, 'quota', 'QUOTA'],
    [{ status: 'error' }, 'server', 'SERVER'],
    [{ status: 'error', errorDetails: 'text' }, 'server', 'SERVER'],
    [{ status: 'error', errorDetails: { code: 200 } }, 'server', 'SERVER'],
    [{ status: 'error', errorDetails: { code: -1 } }, 'server', 'SERVER'],
    [{ status: 'done' }, 'server', 'ANSWER_INVALID'],
    [{ status: 'finished' }, 'server', 'ANSWER_INVALID'],
  ])('status %j is an error', async (body, kind, code) => {
    const { api } = await world(always(body))
    expect(await errorOf(getUploadStatus(api, 'u'))).toMatchObject({ class: kind, code })
  })

  test('a download: relative or absolute URL, with and without a range', async () => {
    const { api, server } = await world(({ path }, response) =>
      path.endsWith('/downloads') ? json(response, { downloadUrl: '/d/1' }) : response.end('content'),
    )
    const url = await createDownload(api, 3)
    for (const [start, end] of [
      [0, 7],
      [5, 7],
      [0, 2],
    ] as const) {
      const { stream } = await openDownload(api, url, { start, end, size: 7 })
      expect(Buffer.concat(await read(stream!)).toString()).toBe('content')
    }
    expect(server.seen.map(({ headers }) => headers.range)).toEqual([undefined, undefined, 'bytes=5-', 'bytes=0-1'])
    for (const odd of ['http://[', 'https://u:p@s.test/']) {
      expect(await errorOf(openDownload(api, odd, whole))).toMatchObject({ class: 'server', code: 'URL_INVALID' })
    }
    expect(await errorOf(openDownload(api, 'file:///etc/passwd', whole))).toMatchObject({ code: 'URL_INSECURE' })
  })
})

describe('the account', () => {
  test('storage kind: only a plain true counts', async () => {
    for (const [body, expected] of [
      [{ useS3Storage: true }, true],
      [{ useS3Storage: false }, false],
      [{}, false],
      [{ useS3Storage: null }, false],
    ] as const) {
      expect((await getStorage((await world(always(body))).api)).isObjectStorage).toBe(expected)
    }
  })

  test('no key pair is none; another failure is not', async () => {
    const none = await world(always({ errorCode: -70020 }, 404))
    expect(await getKeyPairs(none.api)).toEqual([])
    expect(none.server.seen).toHaveLength(1)
    expect(await getKeyPairs((await world(always([], 200))).api)).toEqual([])
    const old = await world(always('', 404))
    expect(await getKeyPairs(old.api)).toEqual([])
    expect(old.server.seen.map(({ path }) => path)).toEqual([
      '/api/v4/user/account/keypairs',
      '/api/v4/user/account/keypair',
    ])
    for (const status of [401, 403, 429, 500]) {
      const { api } = await world(always('', status))
      expect(await errorOf(getKeyPairs(api))).toMatchObject({ status })
    }
  })

  test('more key pairs than versions exist, or one that is none', async () => {
    expect(await errorOf(getKeyPairs((await world(always(Array(17).fill({})))).api))).toMatchObject({
      code: 'ANSWER_INVALID',
    })
    expect(await errorOf(getKeyPairs((await world(always([{}])))!.api))).toMatchObject({ name: 'SyncError' })
  })
})
