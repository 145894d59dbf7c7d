import { afterAll, beforeAll, expect, test } from 'vitest'
import { listChildren } from '../../src/api/nodes.ts'
import { type Client, createClient } from '../../src/client.ts'
import type { FaultAction } from '../../src/server/index.ts'
import { passwordAuthorizer } from '../../src/session/authorizers/password.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import { accountPassword, createWorld, KEY_PASSWORD, makeTree, snapshot, user1, type World } from '../support/cli.ts'
import { type FakeClock, fakeClock } from '../support/clock.ts'

const LAST_REQUEST = { s3: '/files/uploads/[^/]+/s3$', classic: '/v4/uploads/[^/]+$' }
type Storage = keyof typeof LAST_REQUEST

const worlds = new Map<Storage, { world: World; client: Client; clock: FakeClock }>()
beforeAll(async () => {
  const open = async (storage: Storage) => {
    const world = await createWorld({ storage })
    // Waits are counted, not sat out.
    const clock = fakeClock()
    const client = createClient(world.server.url, {
      authorizer: (origin) =>
        passwordAuthorizer(origin, { userName: user1, password: async () => accountPassword(user1) }),
      keyPassword: async () => KEY_PASSWORD,
      environment: { clock },
    })
    await client.session.login()
    worlds.set(storage, { world, client, clock })
  }
  await Promise.all([open('s3'), open('classic')])
})
afterAll(async () => {
  for (const { world, client } of worlds.values()) {
    await client.close()
    await world.close()
  }
})

/** Uploads a file, and a second version of it, one of them with a fault at the end. */
async function upload(storage: Storage, name: string, faulty: 'new' | 'replacing', fault: FaultAction): Promise<void> {
  const { world, client, clock } = worlds.get(storage)!
  for (const version of ['new', 'replacing'] as const) {
    makeTree(world.path(name), { f: `content of the ${version} version` })
    const on = { method: 'PUT', path: LAST_REQUEST[storage] }
    if (version === faulty) world.server.faults.add({ on, do: fault })
    const begun = clock.monotonic()
    expect(await client.upload([world.path(name)], '/room')).toMatchObject({ transferred: 1, failed: [] })
    // Far less than the minutes that a server may take to put a file together.
    expect(clock.monotonic() - begun).toBeLessThan(20_000)
  }
  const found: string[] = []
  const { node } = await requireRemote(client.api, `/room/${name}`)
  for await (const child of listChildren(client.api, node.id)) found.push(child.name)
  expect(found).toEqual(['f'])
  await client.download([`/room/${name}`], `${world.path('back')}/`)
  expect(snapshot(world.path('back', name))).toEqual({ f: 'content of the replacing version' })
}

test.each<[string, 'new' | 'replacing', FaultAction]>([
  ['is refused with 503', 'new', { status: 503 }],
  ['never arrives', 'replacing', { cutRequestAfterBytes: 0 }],
  ['is done but not answered', 'replacing', { loseAnswer: true }],
])('a last request that %s is settled soon: one file, the right content, no conflict', async (name, faulty, fault) => {
  await Promise.all([upload('s3', name, faulty, fault), upload('classic', name, faulty, fault)])
})
