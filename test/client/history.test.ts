/** What runs did, read with a client and without one, and runs by the names of their commands. */
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { createClient, loginWays, openHistory } from '../../src/client/index.ts'
import { systemClock } from '../../src/environment.ts'
import { accountPassword, createWorld, KEY_PASSWORD, makeTree, user1, type World } from '../support/cli.ts'

let world: World
beforeAll(async () => {
  world = await createWorld()
})
afterAll(() => world.close())

async function openClient(directory: string, account: string) {
  const passwordAuthorizer = await loginWays.password()
  const client = createClient(world.server.url, {
    authorizer: (origin) =>
      passwordAuthorizer(origin, { userName: user1, password: async () => accountPassword(user1) }),
    keyPassword: async () => KEY_PASSWORD,
    directory,
    account,
  })
  onTestFinished(() => client.close())
  await client.session.login()
  return client
}

test('history needs no client, and what did not come to its end is done again', async () => {
  const [directory, local, account] = [world.path('history'), world.path('tree'), 'anna at work']
  const client = await openClient(directory, account)
  const history = openHistory({ directory, account, clock: systemClock })
  expect(await history.runs()).toEqual([])
  makeTree(local, { a: 'one', 'sub/b': 'two' })
  world.server.faults.add({ on: { method: 'POST', path: '/files/uploads$' }, do: { status: 403 } })
  const first = await client.run('push', [local, '/room/tree'], { jobs: 1 })
  expect(first.stoppedBy).toMatchObject({ class: 'permission' })
  expect((await history.runs()).map(({ run }) => run.id)).toEqual([first.runId])
  expect(await history.runs()).toEqual(await client.runs())
  expect(await history.status({ local, remote: '/room/tree' })).toMatchObject([{ last: { outcome: 'stopped' } }])

  const [one, ...others] = await history.repeats('resume')
  expect(others).toEqual([])
  expect(one).toMatchObject({ command: 'push', pair: { local, remote: '/room/tree' } })
  expect(await client.repeat(one!)).toMatchObject({ transferred: 2, failed: [] })
  expect(await history.repeats('resume')).toEqual([])
  expect(await history.repeats('retry')).toEqual([])

  rmSync(join(local, 'a'))
  writeFileSync(join(local, 'c'), 'three')
  expect(await client.run('upload', [local, '/room'])).toMatchObject({ transferred: 1, skipped: 1 })
  expect((await history.status()).map(({ pair }) => pair.transfer?.direction)).toContain('upload')
  expect(await openHistory({ directory, account: 'somebody', clock: systemClock }).runs()).toEqual([])
  await expect(history.runs({ local: world.path('elsewhere') })).rejects.toMatchObject({ code: 'NO_RUNS' })
  const stop = AbortSignal.abort(new Error('enough'))
  await expect(history.runs({ signal: stop })).rejects.toThrow('enough')
})

test('a run of no kind, or between too few places, is refused', async () => {
  const client = await openClient(world.path('refused'), 'anna')
  const wrong = { code: 'OPTION_INVALID' }
  await expect(client.run('upload', ['/room'])).rejects.toMatchObject(wrong)
  await expect(client.run('push', ['a', 'b', '/room'])).rejects.toMatchObject(wrong)
  await expect(client.plan('copy' as 'push', ['a', '/room'])).rejects.toMatchObject(wrong)
})
