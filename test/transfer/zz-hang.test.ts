import { afterAll, beforeAll, expect, test } from 'vitest'
import { createWorld, makeTree, type World } from '/work/main/test/support/cli.ts'
let world: World
beforeAll(async () => { world = await createWorld({}) })
afterAll(() => world.close())
test.each([{ status: 503 }, { cutRequestAfterBytes: 0 }])('lost %o', async (action) => {
  const client = await world.client()
  makeTree(world.path('src'), { open: 'for everybody' })
  world.server.faults.add({ on: { method: 'PUT', path: '/s3$' }, do: action as never })
  const begun = performance.now()
  const stop = AbortSignal.timeout(15000)
  const s = await client.upload([world.path('src')], `/room/x${Object.keys(action)[0]}`, { signal: stop })
  console.log(performance.now() - begun, s)
}, 20000)
