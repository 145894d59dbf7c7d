/** Content without files: every kind of source and sink, both storage routes, known and unknown lengths, aborts and lies. */
import { createHash, randomBytes } from 'node:crypto'
import { existsSync, readdirSync } from 'node:fs'
import { PassThrough, Readable } from 'node:stream'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Client } from '../../src/client.ts'
import { createWorld, makeRoom, type World } from '../support/cli.ts'
import { errorOf } from '../support/servers.ts'

const MiB = 1024 * 1024
/** Fewest bytes of a part where the length is unknown: 64 GiB in 10,000 parts. */
const PART = Math.ceil(2 ** 36 / 10_000)
const digest = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

async function* pieces(content: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < content.length; at += size) yield content.subarray(at, at + size)
}

async function read(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  for await (const chunk of source) chunks.push(chunk)
  return Buffer.concat(chunks)
}

describe.each(['s3', 'classic'] as const)('content over %s', (storage) => {
  let world: World
  let client: Client
  beforeAll(async () => {
    world = await createWorld({ storage })
    client = await world.client()
    await makeRoom(client, 'plain', false)
  })
  afterAll(() => world.close())

  const temporary = () => {
    const { temporary: directory } = client.context.home
    return existsSync(directory) ? readdirSync(directory) : []
  }

  // Below, exactly one part, exactly two, and two and a bit.
  test.each([0, 1, PART - 1, PART, 2 * PART, 2 * PART + 7])(
    '%d bytes of unknown length arrive as they were',
    async (length) => {
      const content = randomBytes(length)
      const told: number[] = []
      const { bytes, entry } = await client.put(`/room/unknown-${length}`, pieces(content, 777_777), {
        partSize: 5 * MiB,
        onProgress: (count) => told.push(count),
      })
      expect([bytes, entry.size, entry.path]).toEqual([length, length, `/room/unknown-${length}`])
      expect(told.at(-1)).toBe(length)
      expect(told).toEqual([...told].sort((a, b) => a - b))
      const back = await (await client.get(entry.path)).bytes()
      expect(digest(back)).toBe(digest(content))
    },
  )

  test.each([5 * MiB - 1, 5 * MiB, 10 * MiB + 1])('%d bytes of known length arrive as they were', async (size) => {
    const content = randomBytes(size)
    const { entry } = await client.put(`/room/known-${size}`, pieces(content, 777_777), { size, partSize: 5 * MiB })
    expect(digest(await (await client.get(entry.path)).bytes())).toBe(digest(content))
  })

  test('bytes, iterables, Node streams and web streams are content', async () => {
    const content = randomBytes(300_000)
    const sources = {
      array: content,
      iterable: [content.subarray(0, 5), content.subarray(5)],
      readable: Readable.from(pieces(content, 65_536)),
      web: new Blob([content]).stream(),
    }
    for (const [name, source] of Object.entries(sources)) {
      const { entry } = await client.put(`/room/${name}`, source)
      expect(digest(await (await client.get(entry.path)).bytes()), name).toBe(digest(content))
    }
    expect(await errorOf(client.put('/room/none', 'text' as never))).toBeInstanceOf(TypeError)
    expect(await errorOf(client.put('/room/none', Readable.from(['text']) as never))).toBeInstanceOf(TypeError)
  })

  test('content is read as bytes, an iterable, or into a stream, once; large content leaves no file behind', async () => {
    const content = randomBytes(MiB)
    await client.put('/room/read', content)
    for (const memory of [2 * MiB, 1000]) {
      const get = () => client.get('/room/read', { memory })
      expect(digest(await (await get()).bytes())).toBe(digest(content))
      expect(digest(await read(await get()))).toBe(digest(content))
      const through = new PassThrough()
      const [, node] = await Promise.all([(await get()).writeTo(through), read(through)])
      expect(digest(node)).toBe(digest(content))
      const web = new TransformStream<Uint8Array, Uint8Array>()
      const [, fromWeb] = await Promise.all([(await get()).writeTo(web.writable), read(web.readable as never)])
      expect(digest(fromWeb)).toBe(digest(content))
      const once = await get()
      for await (const chunk of once) if (chunk.length > 0) break
      expect(await errorOf(once.bytes())).toBeInstanceOf(TypeError)
      const closed = await get()
      await closed.close()
      expect(await errorOf(closed.bytes())).toBeInstanceOf(TypeError)
    }
    expect(temporary()).toEqual([])
  })

  test('forged content is not to be had, not even its beginning', async () => {
    await client.put('/room/forged', randomBytes(200_000))
    for (const memory of [MiB, 1000]) {
      world.server.faults.add({ on: { method: 'GET', path: '/downloads/' }, do: { flipByteAt: 150_000 } })
      const error = await errorOf(client.get('/room/forged', { memory }))
      expect(error).toMatchObject({ class: 'integrity', code: 'CONTENT_TAMPERED' })
    }
    expect(temporary()).toEqual([])
  })

  test('a limit holds before anything is fetched', async () => {
    await client.put('/room/limited', randomBytes(1000))
    expect(await errorOf(client.get('/room/limited', { limit: 999 }))).toMatchObject({ code: 'CONTENT_TOO_LARGE' })
    expect((await (await client.get('/room/limited', { limit: 1000 })).bytes()).length).toBe(1000)
    expect(await errorOf(client.get('/room'))).toMatchObject({ code: 'NOT_A_FILE' })
  })

  test('more or fewer bytes than announced are not stored', async () => {
    for (const size of [999, 1001, 0]) {
      const error = await errorOf(client.put('/room/announced', pieces(randomBytes(1000), 100), { size }))
      expect(error).toMatchObject({ code: 'CONTENT_SIZE_WRONG' })
    }
    expect(await errorOf(client.stat('/room/announced'))).toMatchObject({ code: 'REMOTE_MISSING' })
    await client.put('/room/announced', pieces(randomBytes(1000), 100), { size: 1000 })
  })

  test('what the source throws is thrown, and nothing is stored', async () => {
    const mine = new Error('the camera is gone')
    async function* broken() {
      yield randomBytes(6 * MiB)
      throw mine
    }
    expect(await errorOf(client.put('/room/broken', broken(), { partSize: 5 * MiB }))).toBe(mine)
    expect(await errorOf(client.stat('/room/broken'))).toMatchObject({ code: 'REMOTE_MISSING' })
  })

  test('an abort ends the source and rejects with its reason, also while the source is silent', async () => {
    const stop = new AbortController()
    const reason = new Error('enough')
    let isEnded = false
    const silent = {
      async next(): Promise<IteratorResult<Uint8Array>> {
        stop.abort(reason)
        return new Promise(() => {})
      },
      async return(): Promise<IteratorResult<Uint8Array>> {
        isEnded = true
        return { done: true, value: undefined }
      },
    }
    const content = { [Symbol.asyncIterator]: () => silent }
    expect(await errorOf(client.put('/room/silent', content, { signal: stop.signal }))).toBe(reason)
    expect(isEnded).toBe(true)
    expect(await errorOf(client.get('/room/read', { signal: stop.signal }))).toBe(reason)
    expect(await errorOf(client.stat('/room/silent'))).toMatchObject({ code: 'REMOTE_MISSING' })
  })

  test('an abort while parts are on their way cancels the upload, and one of a fetch leaves nothing', async () => {
    const { faults } = world.server
    const reason = new Error('enough')
    const aborted = async (on: { method: string; path: string }, work: (signal: AbortSignal) => Promise<unknown>) => {
      const stop = new AbortController()
      const before = faults.hits.length
      faults.add({ on, do: { hold: true } })
      const error = errorOf(work(stop.signal))
      await faults.until(before + 1)
      stop.abort(reason)
      expect(await error).toBe(reason)
    }
    const part = storage === 's3' ? { method: 'PUT', path: '^/s3/' } : { method: 'POST', path: '/uploads/[^/]{30,}$' }
    await aborted(part, (signal) => client.put('/room/held', pieces(randomBytes(20 * MiB), MiB), { signal }))
    expect(await errorOf(client.stat('/room/held'))).toMatchObject({ code: 'REMOTE_MISSING' })
    await client.put('/room/fetched', randomBytes(100_000))
    const download = { method: 'GET', path: '/downloads/' }
    await aborted(download, (signal) => client.get('/room/fetched', { signal, memory: 1000 }))
    expect(temporary()).toEqual([])
  })

  test('what is there is replaced, or not, or only if it is what was seen', async () => {
    const first = (await client.put('/room/replaced', randomBytes(10))).entry
    expect(await errorOf(client.put('/room/replaced', randomBytes(11), { onConflict: 'fail' }))).toMatchObject({
      code: 'EXISTS',
    })
    const second = (await client.put('/room/replaced', randomBytes(12), { replaces: first })).entry
    expect(await errorOf(client.put('/room/replaced', randomBytes(13), { replaces: first }))).toMatchObject({
      code: 'REMOTE_CHANGED',
    })
    expect((await client.stat('/room/replaced')).id).toBe(second.id)
    await client.mkdir('/room/folder')
    expect(await errorOf(client.put('/room/folder', randomBytes(1)))).toMatchObject({ code: 'EXISTS' })
    expect(await errorOf(client.put('/room/not/there', randomBytes(1)))).toMatchObject({ code: 'REMOTE_MISSING' })
    expect((await client.put('/room/made/there', randomBytes(1), { parents: true })).entry.path).toBe(
      '/room/made/there',
    )
  })

  test('content goes to a plain room only where that is allowed', async () => {
    expect(await errorOf(client.put('/plain/a', randomBytes(5), { requireEncryption: true }))).toMatchObject({
      class: 'safety',
      code: 'NOT_ENCRYPTED',
    })
    await client.put('/plain/a', randomBytes(5), { allowPlain: true })
    expect((await (await client.get('/plain/a')).bytes()).length).toBe(5)
    expect(await errorOf(client.get('/plain/a', { requireEncryption: true }))).toMatchObject({ code: 'NOT_ENCRYPTED' })
  })
})
