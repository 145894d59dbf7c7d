/** What goes wrong between cipher and socket is noticed before a file becomes visible, through the whole way of an upload. */
import { randomBytes } from 'node:crypto'
import { readdirSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Client } from '../../src/client.ts'
import type { HttpRequest } from '../../src/http/types.ts'
import { createWorld, makeTree, type World } from '../support/cli.ts'

const MiB = 2 ** 20
const SIZE = 17 * MiB + 5

let world: World
beforeAll(async () => {
  world = await createWorld()
  writeFileSync(world.path('large'), randomBytes(SIZE))
})
afterAll(() => world.close())

/** Has something done around the sending of each part; what is sent is the memory of the part itself. */
function aroundParts(
  client: Client,
  around: (body: Uint8Array, send: () => Promise<unknown>) => Promise<unknown>,
): void {
  const api = client.api as { sendPlain: Client['api']['sendPlain'] }
  const { sendPlain } = api
  api.sendPlain = (async (request: HttpRequest) => {
    if (request.method !== 'PUT' || !(request.body instanceof Uint8Array)) return sendPlain(request)
    return around(request.body, () => sendPlain(request))
  }) as typeof sendPlain
}

const flip = (bytes: Uint8Array, at: number) => {
  bytes[at]! ^= 1 << (at % 8)
}

test.each([
  ['before the first byte of a part leaves', 'before', 'proof'],
  ['while a part is sent', 'after', 'proof'],
  ['before the first byte leaves, decrypted again as a whole', 'before', 'full'],
] as const)('a bit that flips %s: nothing becomes visible', async (_what, when, checkOutput) => {
  for (const part of [1, 2, 3]) {
    await using client = await world.openClient({ directory: world.path(`kept-${when}-${checkOutput}-${part}`) })
    let count = 0
    aroundParts(client, async (body, send) => {
      const isHit = ++count === part
      if (isHit && when === 'before') flip(body, 12_345)
      const answer = await send()
      if (isHit && when === 'after') flip(body, body.length - 1)
      return answer
    })
    const { failed } = await client.upload([world.path('large')], '/room', { checkOutput })
    expect(failed).toMatchObject([{ error: { class: 'integrity', code: 'OUTPUT_CHECK_FAILED' } }])
    expect(await world.list('/room')).toEqual([])
  }
})

test('a part that was damaged on its way is not taken for received by the run that goes on', async () => {
  const directory = world.path('resumed')
  {
    await using client = await world.openClient({ directory })
    let count = 0
    aroundParts(client, async (body, send) => {
      if (++count === 1) flip(body, 99)
      return send()
    })
    await client.upload([world.path('large')], '/room')
  }
  await using client = await world.openClient({ directory })
  expect(await client.upload([world.path('large')], '/room')).toMatchObject({ failed: [], transferred: 1 })
  const back = world.path('back')
  makeTree(back, {})
  expect(await client.download(['/room/large'], `${back}/`)).toMatchObject({ failed: [], transferred: 1 })
  expect(readdirSync(back)).toEqual(['large'])
})
