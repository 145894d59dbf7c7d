/** Storage that misbehaves while it delivers, at several positions: the file arrives as it is, or not at all. */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createDownload } from '../../src/api/downloads.ts'
import { exitCodeOfRun } from '../../src/cli/exit-codes.ts'
import { type Client, createClient } from '../../src/client.ts'
import { passwordAuthorizer } from '../../src/session/authorizers/password.ts'
import { memoryGrantStore } from '../../src/session/grant-store.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import { accountPassword, createWorld, KEY_PASSWORD, makeTree, user1, type World } from '../support/cli.ts'
import { fakeClock, steadyRandom } from '../support/clock.ts'

/** One request is enough for the first; for the second, several ranges are in flight. */
const SIZES = { small: 3_000_001, large: 10 * 1024 * 1024 + 5 }
type Name = keyof typeof SIZES
const contents = { small: randomBytes(SIZES.small), large: randomBytes(SIZES.large) }
const ciphertexts: Record<Name, Uint8Array> = { small: contents.small, large: contents.large }

/** The file that is being asked for. */
let name: Name = 'small'
let SIZE = SIZES.small
let ciphertext: Uint8Array

interface Ask {
  readonly start: number
  /** Behind the last byte. */
  readonly end: number
  /** Counts from 0. */
  readonly index: number
  readonly response: ServerResponse
}

let world: World
let client: Client
/** What the storage does; asked for each request. */
let answer: (ask: Ask) => void = right
let asked: { start: number }[] = []
const covers = ({ start, end }: Ask, at: number) => start <= at && at < end

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
    if (done || !covers(ask, at)) return right(ask)
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
    if (!covers(ask, at)) return right(ask)
    if (!cut) {
      cut = true
      return cutAt(at)(ask)
    }
    return left-- > 0 ? wrong(ask) : right(ask)
  }
}
/** Sends what comes before `at`, and then nothing, with the connection open. */
const stallAt = (at: number) => (ask: Ask) => {
  head(ask)
  ask.response.write(ciphertext.subarray(ask.start, at))
}
const never = () => {}
const hangUp = (ask: Ask) => ask.response.destroy()
/** The same wrong answer to every request that covers `at`. */
const always = (at: number, wrong: (ask: Ask) => void) => (ask: Ask) => (covers(ask, at) ? wrong(ask) : right(ask))
const times = (at: number, count: number, wrong: (ask: Ask) => void) => {
  let left = count
  return (ask: Ask) => (covers(ask, at) && left-- > 0 ? wrong(ask) : right(ask))
}
const whole = (ask: Ask) => void ask.response.writeHead(200, { 'content-length': SIZE }).end(ciphertext)
const status =
  (code: number, headers: Record<string, string> = {}) =>
  (ask: Ask) =>
    void ask.response.writeHead(code, headers).end()
/** The bytes of a request, with something done to them from `at` on. */
const altered = (at: number, alter: (bytes: Buffer, at: number) => Uint8Array) =>
  once1(at, (ask) => {
    const bytes = alter(Buffer.from(ciphertext.subarray(ask.start, ask.end)), at - ask.start)
    head(ask, { 'content-length': bytes.length })
    ask.response.end(bytes)
  })

const store = memoryGrantStore()

/**
 * Each has a budget of its own for repeating requests, of which only what it waits between them is taken: how fast the machine is does not
 * count. A hasty one does not wait long for a server that has gone silent.
 */
async function freshClient(isHasty = false): Promise<Client> {
  const made = createClient(world.server.url, {
    authorizer: (origin) =>
      passwordAuthorizer(origin, { userName: user1, password: async () => accountPassword(user1) }),
    keyPassword: async () => KEY_PASSWORD,
    store,
    transport: isHasty ? { bodyTimeoutMs: 400, headersTimeoutMs: 1_000 } : {},
    environment: { clock: fakeClock('auto', Date.now()), random: steadyRandom() },
    retryForMs: 5_000,
  })
  if (!(await store.load())) await made.session.login()
  return made
}

beforeAll(async () => {
  world = await createWorld()
  await once(storage.listen(0, '127.0.0.1'), 'listening')
  client = await freshClient()
  for (const one of ['small', 'large'] as const) {
    makeTree(world.path(one), { file: contents[one] })
    await client.upload([world.path(one)], '/room')
    const { node } = await requireRemote(client.api, `/room/${one}/file`)
    const { body } = await client.api.sendPlain({ method: 'GET', url: await createDownload(client.api, node.id) })
    ciphertexts[one] = body
  }
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
  await client.close()
  await world.close()
})

const download = (target: string) => client.download([`/room/${name}/file`], `${target}/`, { onConflict: 'overwrite' })

let counter = 0
/** The file arrives as it is, or what was there stays, with the right exit code; then the next run makes it right. */
async function outcome(of: Name, how: (ask: Ask) => void, isHasty = false): Promise<string> {
  ;[name, SIZE, ciphertext] = [of, SIZES[of], ciphertexts[of]]
  const target = world.path(`out${++counter}`)
  makeTree(target, { file: 'good old content' })
  ;[answer, asked] = [how, []]
  await client.close()
  client = await freshClient(isHasty)
  const summary = await download(target)
  storage.closeAllConnections()
  const now = readFileSync(join(target, 'file'))
  if (summary.transferred === 1) {
    expect(readdirSync(target)).toEqual(['file'])
    expect(now.equals(contents[name])).toBe(true)
    expect(exitCodeOfRun(summary, 'download')).toBe(0)
    return 'delivered'
  }
  expect(now.toString()).toBe('good old content')
  // Only what the next run can go on with may stay.
  const left = readdirSync(target).filter((entry) => entry !== 'file')
  expect(left.every((entry) => name === 'large' && /^\.sealsync-[\w-]{22}\.(part|info)$/.test(entry))).toBe(true)
  const { code } = summary.failed[0]!.error
  const exitCode = exitCodeOfRun(summary, 'download')
  answer = right
  expect(await download(target)).toMatchObject({ transferred: 1 })
  expect(readFileSync(join(target, 'file')).equals(contents[name])).toBe(true)
  expect(readdirSync(target)).toEqual(['file'])
  return `${code}, ${exitCode}`
}

const MIB = 1024 * 1024
const isFull = process.env.SEALSYNC_FULL === '1'
const POSITIONS: readonly (readonly [Name, number])[] = [
  ...[1, 1_500_000, SIZES.small - 1].map((at) => ['small', at] as const),
  // In the first segment, in those beside each other, in the last one; at their borders.
  ...[1, 6 * MIB + 7, SIZES.large - 1].map((at) => ['large', at] as const),
  ...(isFull ? [4 * MIB - 1, 4 * MIB, 8 * MIB - 1, 8 * MIB + 1, 9 * MIB] : []).map((at) => ['large', at] as const),
]

describe.each(POSITIONS)('a %s file, at byte %i', (of, at) => {
  test.each<[string, (ask: Ask) => void, string]>([
    ['nothing wrong', right, 'delivered'],
    ['cut', once1(at, cutAt(at)), 'delivered'],
    ['cut, then everything from the start', cutThen(at, whole), 'delivered'],
    ['stalled', once1(at, stallAt(at)), 'delivered'],
    ['cut, then no answer', cutThen(at, never), 'delivered'],
    ['cut, then lost answers', cutThen(at, hangUp, 3), 'delivered'],
    ['lost answers', times(at, 3, hangUp), 'delivered'],
    ['lost answers without end', always(at, hangUp), 'NETWORK, 5'],
    ['cut, then a busy storage', cutThen(at, status(503), 2), 'delivered'],
    ['a storm of 503', times(at, 6, status(503)), 'delivered'],
    ['a storm of 500 without end', always(at, status(500)), 'SERVER, 5'],
    ['a storm of 429', times(at, 6, status(429, { 'retry-after': '0' })), 'delivered'],
    ['a storm of 429 without end', always(at, status(429, { 'retry-after': '0' })), 'RATE_LIMITED, 5'],
    ['a storm of expired addresses', times(at, 3, status(403)), 'delivered'],
    ['expired addresses without end', always(at, status(403)), 'STORAGE_REFUSED, 3'],
    ['a bad request', once1(at, status(400)), 'STORAGE_REFUSED, 3'],
    ['whole files instead of ranges, always', whole, 'delivered'],
    [
      'cut, then too many requests',
      cutThen(at, (ask) => ask.response.writeHead(429, { 'retry-after': '0' }).end()),
      'delivered',
    ],
    ['cut, then an expired address', cutThen(at, status(403)), 'delivered'],
    ['cut, then an address that is gone', cutThen(at, status(404)), 'delivered'],
    ['cut, then no such range', cutThen(at, status(416), 99), 'STORAGE_REFUSED, 3'],
    [
      'cut, then a range that begins one byte late',
      cutThen(at, (ask) => {
        head(ask, { 'content-range': `bytes ${ask.start + 1}-${ask.end - 1}/${SIZE}` })
        ask.response.end(ciphertext.subarray(ask.start + 1, ask.end))
      }),
      'RANGE_WRONG, 3',
    ],
    [
      'cut, then a range of another file',
      cutThen(at, (ask) => {
        head(ask, { 'content-range': `bytes ${ask.start}-${ask.end - 1}/${SIZE + 5}` })
        ask.response.end(ciphertext.subarray(ask.start, ask.end))
      }),
      'RANGE_WRONG, 3',
    ],
    [
      'cut, then no word about the range',
      cutThen(at, (ask) => {
        ask.response.writeHead(206, { 'content-length': ask.end - ask.start })
        ask.response.end(ciphertext.subarray(ask.start, ask.end))
      }),
      'RANGE_WRONG, 3',
    ],
    ['ends early, as if that were all', altered(at, (bytes, i) => bytes.subarray(0, i)), 'delivered'],
    [
      'more bytes than there are',
      altered(at, (bytes) => Buffer.concat([bytes, randomBytes(10)])),
      'CONTENT_LENGTH_WRONG, 7',
    ],
    [
      'bytes twice',
      altered(at, (bytes, i) => Buffer.concat([bytes.subarray(0, i + 1), bytes.subarray(i)])),
      'CONTENT_LENGTH_WRONG, 7',
    ],
    [
      'a bit changed',
      altered(at, (bytes, i) => {
        bytes[i]! ^= 0x80
        return bytes
      }),
      'CONTENT_TAMPERED, 7',
    ],
    [
      'two bytes in the wrong order',
      altered(at, (bytes, i) => {
        bytes[i] = bytes[i]! ^ 1
        bytes[i - 1] = bytes[i - 1]! ^ 2
        return bytes
      }),
      'CONTENT_TAMPERED, 7',
    ],
    // Not zeros: the content is random, and its last byte may be one.
    ['one value from there on', altered(at, (bytes, i) => bytes.fill(bytes[i]! ^ 0xff, i)), 'CONTENT_TAMPERED, 7'],
  ])('%s', async (what, how, expected) => {
    expect(await outcome(of, how, /stalled|no answer/.test(what))).toBe(expected)
  })
})

test.each(['small', 'large'] as const)('always fewer bytes than a %s file has: refused in the end', async (of) => {
  expect(
    await outcome(of, (ask) => {
      const stop = Math.min(ask.end, SIZE - 10)
      head(ask, { 'content-length': Math.max(0, stop - ask.start) })
      ask.response.end(ciphertext.subarray(ask.start, Math.max(stop, ask.start)))
    }),
  ).toBe('CONTENT_LENGTH_WRONG, 7')
})
