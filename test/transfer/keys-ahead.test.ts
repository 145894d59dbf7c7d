import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { KEYS_AHEAD, KEYS_AT_ONCE } from '../../src/transfer/keys-ahead.ts'
import { createWorld, makeTree, snapshot, type World } from '../support/cli.ts'

let keysAsked = 0
let contentsAsked = 0
let onContent: (() => void) | undefined
let onKey: (() => void) | undefined
let world: World
const FILES = 100
beforeAll(async () => {
  world = await createWorld({
    recorder: {
      onRequest({ method, path }) {
        if (path.endsWith('/user_file_key')) {
          keysAsked++
          onKey?.()
        }
        if (method !== 'GET' || !path.includes('/downloads/')) return
        contentsAsked++
        onContent?.()
      },
    },
  })
  const files = Array.from({ length: FILES }, (_, i) => [`f${String(i).padStart(3, '0')}`, `content ${i}`])
  makeTree(world.path('src'), Object.fromEntries(files))
  await (await world.client()).upload([world.path('src')], '/room')
})
afterAll(() => world.close())
afterEach(() => {
  onContent = undefined
  onKey = undefined
  world.server.faults.clear()
})

const on = { method: 'GET', path: '/downloads/' }

/** By the time that it resolves the client would have asked for another key, if it wanted to: it has had time for this. */
async function otherRequests(): Promise<void> {
  for (let i = 0; i < 5; i++) await world.list('/room')
}

test('file keys are fetched while content keeps us waiting, and not without bound', async () => {
  world.server.faults.add({ on, do: { hold: true } })
  const held = world.server.faults.until(world.server.faults.hits.length + 1)
  const enough = new Promise<void>((resolve) => {
    onKey = () => keysAsked >= KEYS_AHEAD && resolve()
  })
  ;[keysAsked, contentsAsked] = [0, 0]
  const target = world.path('out')
  const run = (await world.client()).download(['/room/src'], target, { jobs: 1 })
  await Promise.all([held, enough])
  await otherRequests()
  expect(contentsAsked).toBe(1)
  expect(keysAsked).toBeLessThanOrEqual(KEYS_AHEAD + 1)
  world.server.faults.clear()
  expect(await run).toMatchObject({ transferred: FILES, failed: [] })
  expect(keysAsked).toBe(FILES)
  expect(snapshot(`${target}/src`)).toEqual(snapshot(world.path('src')))
})

test('a key that cannot be had costs its own file only, although it was asked for early', async () => {
  const answer = {
    status: 404,
    headers: { 'Content-Type': 'application/json' },
    body: '{"code":404,"errorCode":-40761}',
  }
  world.server.faults.add({ on: { path: '/user_file_key$' }, after: 30, do: answer })
  const summary = await (await world.client()).download(['/room/src'], world.path('one-missing'), { jobs: 4 })
  expect(summary.transferred).toBe(FILES - 1)
  expect(summary.failed.map(({ error }) => error.code)).toEqual(['FILE_KEY_MISSING'])
})

test('stopped, it asks for no more', async () => {
  world.server.faults.add({ on, times: 99, do: { hold: true } })
  // Some come through, and then as many as may be on their way.
  world.server.faults.add({ on: { path: '/user_file_key$' }, after: 10, times: 99, do: { hold: true } })
  ;[keysAsked, contentsAsked] = [0, 0]
  let asked = 0
  const stop = new AbortController()
  onContent = () => {
    if (contentsAsked !== 2) return
    asked = keysAsked
    stop.abort(new Error('enough'))
  }
  const run = (await world.client()).download(['/room/src'], world.path('stopped'), { jobs: 2, signal: stop.signal })
  expect((await run).stoppedBy).toBeDefined()
  expect(contentsAsked).toBe(2)
  expect(asked).toBeLessThan(KEYS_AHEAD - KEYS_AT_ONCE)
  world.server.faults.clear()
  await otherRequests()
  // What had been sent when it was stopped may still arrive.
  expect(keysAsked).toBeLessThanOrEqual(asked + KEYS_AT_ONCE)
})
