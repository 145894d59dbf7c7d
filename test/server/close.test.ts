/** What is still at work when a server closes: nothing may look into a store that is gone. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import type { App, Handler } from '../../src/server/call.ts'
import { CONNECTION_LIMITS, Connections } from '../../src/server/connections.ts'
import { FaultPlan } from '../../src/server/faults.ts'
import { startServer } from '../../src/server/index.ts'
import { createListener } from '../../src/server/plumbing.ts'
import { Proxies } from '../../src/server/proxies.ts'
import { Router } from '../../src/server/router.ts'
import { freshDirectory } from '../support/files.ts'
import { signUp, startWorld } from './support.ts'

test('requests whose clients have gone are waited for', async () => {
  let open = () => {}
  const gate = new Promise<void>((resolve) => {
    open = resolve
  })
  let begin = () => {}
  const begun = new Promise<void>((resolve) => {
    begin = resolve
  })
  const router = new Router<Handler>()
  router.add('GET', '/slow', async () => {
    begin()
    await gate
    return { status: 204 }
  })
  const listener = createListener({
    app: { now: () => 0 } as App,
    router,
    scheme: 'http',
    isHostAllowed: () => true,
    connections: new Connections(CONNECTION_LIMITS, new Proxies([])),
    faults: new FaultPlan(),
    recorder: undefined,
    onError: undefined,
    proxies: new Proxies([]),
    rates: undefined,
    isDraining: () => false,
    onRequest: () => {},
  })
  await listener.idle()
  const server = createServer(listener)
  await once(server.listen(0, '127.0.0.1'), 'listening')
  onTestFinished(() => void server.close())
  const asked = fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/slow`)
  await begun
  server.closeAllConnections()
  await expect(asked).rejects.toThrow()
  let isIdle = false
  const idle = listener.idle().then(() => {
    isIdle = true
  })
  await new Promise((resolve) => setImmediate(resolve))
  expect(isIdle).toBe(false)
  open()
  await idle
})

test.each([{ hold: true } as const, { delayMs: 600_000 }])(
  'a request that %j keeps waiting does not keep the server',
  async (fault) => {
    const world = await startWorld()
    const ann = await signUp(world, 'ann')
    world.server.faults.add({ on: { path: '/account$' }, do: fault })
    const asked = ann.call('GET', '/v4/user/account')
    asked.catch(() => {})
    await world.server.faults.until(1)
    await world.server.close()
    await expect(asked).rejects.toThrow()
  },
)

test('a port that another program uses: said so, with what to do', async () => {
  const taken = createServer()
  await once(taken.listen(0, '127.0.0.1'), 'listening')
  onTestFinished(() => void taken.close())
  const { port } = taken.address() as AddressInfo
  await expect(startServer({ data: await freshDirectory(), port })).rejects.toMatchObject({
    class: 'usage',
    code: 'CANNOT_LISTEN',
    message: expect.stringContaining('EADDRINUSE'),
    hint: expect.stringContaining('--port'),
  })
})
