import { describe, expect, test } from 'vitest'
import type { Api } from '../../src/api/api.ts'
import { createPartUrls } from '../../src/transfer/part-urls.ts'
import { fakeClock } from '../support/clock.ts'
import { dialer, errorOf, httpServer, json } from '../support/servers.ts'

interface Question {
  readonly firstPartNumber: number
  readonly lastPartNumber: number
  readonly size: number
}

/** A server that hands out URLs, and what it was asked for. */
async function world(answer: (question: Question, serial: number) => unknown = urlsOf) {
  const questions: Question[] = []
  const server = await httpServer(({ body }, response) => {
    questions.push(JSON.parse(body))
    const found = answer(questions.at(-1)!, questions.length)
    if (typeof found === 'number') json(response, { code: found }, found)
    else json(response, { urls: found }, 201)
  })
  const send = dialer()
  const api: Api = { origin: server.origin, send, sendPlain: send }
  return { api, questions, clock: fakeClock() }
}

const urlsOf = ({ firstPartNumber, lastPartNumber, size }: Question, serial: number) =>
  Array.from({ length: lastPartNumber - firstPartNumber + 1 }, (_, index) => ({
    partNumber: firstPartNumber + index,
    url: `https://s/${firstPartNumber + index}/${size}/${serial}`,
  }))

const range = (first: number, last: number, size: number): Question => ({
  size,
  firstPartNumber: first,
  lastPartNumber: last,
})

describe('part URLs', () => {
  test('200 MB take two questions: all parts but the last, and the last, which is shorter', async () => {
    const { api, clock, questions } = await world()
    const urls = createPartUrls(api, 'u', { partSize: 8, size: 8 * 23 + 5 }, clock)
    urls.begin()
    const taken = await Promise.all(
      Array.from({ length: 24 }, (_, index) => urls.take(index + 1, index === 23 ? 5 : 8)),
    )
    expect(taken.map(({ url }) => url.split('/').slice(3, 5).map(Number))).toEqual(
      Array.from({ length: 24 }, (_, index) => [index + 1, index === 23 ? 5 : 8]),
    )
    expect(questions.toSorted((a, b) => a.firstPartNumber - b.firstPartNumber)).toEqual([
      range(1, 23, 8),
      range(24, 24, 5),
    ])
  })

  test('what divides evenly takes one, and so does an empty file', async () => {
    const { api, clock, questions } = await world()
    const even = createPartUrls(api, 'u', { partSize: 8, size: 32 }, clock)
    even.begin()
    await even.take(4, 8)
    const empty = createPartUrls(api, 'u', { partSize: 8, size: 0 }, clock)
    empty.begin()
    await empty.take(1, 0)
    expect(questions).toEqual([range(1, 4, 8), range(1, 1, 0)])
  })

  test('a large file asks again and again; a resumed one only for what is taken', async () => {
    const { api, clock, questions } = await world()
    const urls = createPartUrls(api, 'u', { partSize: 8, size: 8 * 1000 }, clock)
    for (let number = 301; number <= 1000; number++) await urls.take(number, 8)
    expect(questions).toHaveLength(11)
    expect(questions[0]).toEqual(range(301, 364, 8))
    expect(questions.at(-1)).toEqual(range(941, 1000, 8))
  })

  test('while nobody knows how many parts there are, a few are asked for', async () => {
    const { api, clock, questions } = await world()
    const urls = createPartUrls(api, 'u', { partSize: 8 }, clock)
    urls.begin()
    for (let number = 1; number <= 5; number++) await urls.take(number, 8)
    await urls.take(6, 3)
    expect(questions).toEqual([range(1, 4, 8), range(5, 8, 8), range(6, 6, 3)])
  })

  test('one that was refused, or is old, is not handed out again, nor are those that came with it', async () => {
    const { api, clock, questions } = await world()
    const urls = createPartUrls(api, 'u', { partSize: 8, size: 80 }, clock)
    const first = await urls.take(1, 8)
    first.refused()
    expect((await urls.take(1, 8)).url).toBe('https://s/1/8/2')
    expect((await urls.take(2, 8)).url).toBe('https://s/2/8/2')
    first.refused() // of what came later it says nothing
    expect((await urls.take(3, 8)).url).toBe('https://s/3/8/2')
    clock.advance(5 * 60_000)
    expect((await urls.take(4, 8)).url).toBe('https://s/4/8/3')
    expect(questions).toEqual([range(1, 10, 8), range(1, 10, 8), range(4, 10, 8)])
  })

  test('a server that sends fewer is asked for the others; one that sends none says so', async () => {
    const one = await world((question, serial) => urlsOf(question, serial).slice(0, 1))
    const urls = createPartUrls(one.api, 'u', { partSize: 8, size: 24 }, one.clock)
    expect((await Promise.all([1, 2, 3].map((number) => urls.take(number, 8)))).map(({ url }) => url)).toEqual([
      'https://s/1/8/1',
      'https://s/2/8/2',
      'https://s/3/8/3',
    ])
    const none = await world(() => [])
    const missing = createPartUrls(none.api, 'u', { partSize: 8, size: 24 }, none.clock)
    expect(await errorOf(missing.take(1, 8))).toMatchObject({ code: 'ANSWER_INVALID' })
  })

  test('a question that failed is asked again by who comes next', async () => {
    const { api, clock, questions } = await world((question, serial) => (serial === 1 ? 507 : urlsOf(question, serial)))
    const urls = createPartUrls(api, 'u', { partSize: 8, size: 24 }, clock)
    urls.begin()
    expect(await errorOf(urls.take(1, 8))).toMatchObject({ code: 'QUOTA' })
    expect((await urls.take(1, 8)).url).toBe('https://s/1/8/2')
    expect(questions).toHaveLength(2)
  })
})
