/** Storage that misbehaves while it delivers, at several positions: the file arrives as it is, or not at all. */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createDownload } from '../../src/api/downloads.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import { createWorld, makeTree, type World } from '../support/cli.ts'

const SIZE = 3_000_001
const content = randomBytes(SIZE)

interface Ask {
  readonly start: number
  /** Behind the last byte. */
  readonly end: number
  /** Counts from 0. */
  readonly index: number
  readonly response: ServerResponse
}

let world: World
let ciphertext: Uint8Array
/** What the storage does; asked for each request. */
let answer: (ask: Ask) => void = right
let asked: { start: number }[] = []

const storage = createServer((request, response) => {
  const match = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? 'bytes=0-')!
  const start = Number(match[1])
  const end = match[2] === '' ? SIZE : Number(match[2]) + 1
  response.on('error', () => {})
  answer({ start, end, index: asked.push({ start }) - 1, response })
})

function head({ start, end, response }: Ask, more: Record<string, string | number> = {}): void {
  response.writeHead(206, {
    'content-length': end - start,
    'content-range': `bytes ${start}-${end - 1}/${SIZE}`,
    ...more,
  })
}
function right(ask: Ask): void {
  head(ask)
  ask.response.end(ciphertext.subarray(ask.start, ask.end))
}
/** Sends what is wrong once, to the request that covers `at`. */
const once1 = (at: number, wrong: (ask: Ask) => void) => {
  let done = false
  return (ask: Ask) => {
    if (done || ask.start > at || ask.end <= at) return right(ask)
    done = true
    wrong(ask)
  }
}
const cutAt = (at: number) => (ask: Ask) => {
  head(ask)
  ask.response.write(ciphertext.subarray(ask.start, at), () => setTimeout(() => ask.response.destroy(), 100))
}
/** Cut at a position, then something wrong for the request that goes on from there. */
const cutThen = (at: number, wrong: (ask: Ask) => void, times = 1) => {
  let left = times
  let cut = false
  return (ask: Ask) => {
    if (!cut && ask.start <= at && at < ask.end) {
      cut = true
      return cutAt(at)(ask)
    }
    return cut && left-- > 0 ? wrong(ask) : right(ask)
  }
}
const status = (code: number) => (ask: Ask) => ask.response.writeHead(code).end()
/** The bytes of a request, with something done to them from `at` on. */
const altered = (at: number, alter: (bytes: Buffer, at: number) => Uint8Array) =>
  once1(at, (ask) => {
    const bytes = alter(Buffer.from(ciphertext.subarray(ask.start, ask.end)), at - ask.start)
    head(ask, { 'content-length': bytes.length })
    ask.response.end(bytes)
  })

beforeAll(async () => {
  world = await createWorld()
  await once(storage.listen(0, '127.0.0.1'), 'listening')
  makeTree(world.path('src'), { file: content })
  const client = await world.client()
  await client.upload([world.path('src')], '/room')
  const { node } = await requireRemote(client.api, '/room/src/file')
  ciphertext = (await client.api.sendPlain({ method: 'GET', url: await createDownload(client.api, node.id) })).body
  const { port } = storage.address() as AddressInfo
  world.server.faults.add({
    on: { method: 'POST', path: '/downloads$' },
    times: 100_000,
    do: {
      status: 200,
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ downloadUrl: `http://127.0.0.1:${port}/content` }),
    },
  })
})
afterAll(async () => {
  storage.closeAllConnections()
  storage.close()
  await world.close()
})

let counter = 0
async function outcome(how: (ask: Ask) => void): Promise<string> {
  const target = world.path(`out${++counter}`)
  makeTree(target, { file: 'good old content' })
  ;[answer, asked] = [how, []]
  const summary = await (await world.client()).download(['/room/src/file'], target, { onConflict: 'overwrite' })
  expect(readdirSync(target)).toEqual(['file'])
  const now = readFileSync(join(target, 'file'))
  if (summary.transferred === 1) {
    expect(now.equals(content)).toBe(true)
    return 'delivered'
  }
  expect(now.toString()).toBe('good old content')
  return summary.failed[0]!.error.code
}

const POSITIONS = [1, 1_500_000, SIZE - 1]

describe.each(POSITIONS)('at byte %i of a download', (at) => {
  test.each<[string, (ask: Ask) => void, string]>([
    ['nothing wrong', right, 'delivered'],
    ['cut', once1(at, cutAt(at)), 'delivered'],
    [
      'cut, then everything from the start',
      cutThen(at, (ask) => {
        ask.response.writeHead(200, { 'content-length': SIZE }).end(ciphertext)
      }),
      'delivered',
    ],
    ['cut, then a busy storage', cutThen(at, status(503), 2), 'delivered'],
    [
      'cut, then too many requests',
      cutThen(at, (ask) => ask.response.writeHead(429, { 'retry-after': '0' }).end()),
      'delivered',
    ],
    ['cut, then an expired address', cutThen(at, status(403)), 'delivered'],
    ['cut, then an address that is gone', cutThen(at, status(404)), 'delivered'],
    ['cut, then no such range', cutThen(at, status(416), 99), 'REQUEST_REFUSED'],
    [
      'cut, then a range that begins one byte late',
      cutThen(at, (ask) => {
        head(ask, { 'content-range': `bytes ${ask.start + 1}-${ask.end - 1}/${SIZE}` })
        ask.response.end(ciphertext.subarray(ask.start + 1, ask.end))
      }),
      'RANGE_WRONG',
    ],
    [
      'cut, then a range of another file',
      cutThen(at, (ask) => {
        head(ask, { 'content-range': `bytes ${ask.start}-${ask.end - 1}/${SIZE + 5}` })
        ask.response.end(ciphertext.subarray(ask.start, ask.end))
      }),
      'RANGE_WRONG',
    ],
    [
      'cut, then no word about the range',
      cutThen(at, (ask) => {
        ask.response.writeHead(206, { 'content-length': ask.end - ask.start })
        ask.response.end(ciphertext.subarray(ask.start, ask.end))
      }),
      'RANGE_WRONG',
    ],
    ['ends early, as if that were all', altered(at, (bytes, i) => bytes.subarray(0, i)), 'delivered'],
    [
      'more bytes than there are',
      altered(at, (bytes) => Buffer.concat([bytes, randomBytes(10)])),
      'CONTENT_LENGTH_WRONG',
    ],
    [
      'bytes twice',
      altered(at, (bytes, i) => Buffer.concat([bytes.subarray(0, i), bytes.subarray(Math.max(0, i - 1))])),
      'CONTENT_LENGTH_WRONG',
    ],
    [
      'a bit changed',
      altered(at, (bytes, i) => {
        bytes[i]! ^= 0x80
        return bytes
      }),
      'CONTENT_TAMPERED',
    ],
    [
      'two bytes in the wrong order',
      altered(at, (bytes, i) => {
        bytes[i] = bytes[i]! ^ 1
        bytes[i - 1] = bytes[i - 1]! ^ 2
        return bytes
      }),
      'CONTENT_TAMPERED',
    ],
    ['zeros from there on', altered(at, (bytes, i) => bytes.fill(0, i)), 'CONTENT_TAMPERED'],
  ])('%s', async (_what, how, expected) => {
    expect(await outcome(how)).toBe(expected)
  })
})

test('always fewer bytes than the file has: refused in the end', async () => {
  expect(
    await outcome((ask) => {
      const stop = Math.min(ask.end, SIZE - 10)
      head(ask, { 'content-length': Math.max(0, stop - ask.start) })
      ask.response.end(ciphertext.subarray(ask.start, Math.max(stop, ask.start)))
    }),
  ).toBe('CONTENT_LENGTH_WRONG')
})
