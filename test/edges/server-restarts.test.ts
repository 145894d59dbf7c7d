/** A server that goes away in the middle of a run and comes back: everything waits for it, and everything arrives. */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createClient } from '../../src/client.ts'
import { passwordAuthorizer } from '../../src/session/authorizers/password.ts'
import type { RunEvent } from '../../src/sync/run.ts'
import { accountPassword, createWorld, KEY_PASSWORD, makeTree, snapshot, user1, type World } from '../support/cli.ts'
import { freePort } from '../support/ports.ts'

let world: World
beforeAll(async () => {
  world = await createWorld({ storage: 'classic' })
})
afterAll(() => world.close())

/** The server at an address of its own, which can be taken away with all its connections. */
async function front() {
  const target = Number(new URL(world.server.url).port)
  const sockets = new Set<Socket>()
  const open = async (port: number) => {
    const listener = createServer((socket) => {
      const inner = connect(target, '127.0.0.1')
      for (const one of [socket, inner]) {
        sockets.add(one)
        one.on('error', () => {})
        one.on('close', () => {
          sockets.delete(one)
          socket.destroy()
          inner.destroy()
        })
      }
      socket.pipe(inner).pipe(socket)
    })
    await once(listener.listen(port, '127.0.0.1'), 'listening')
    return listener
  }
  const port = await freePort()
  let listener = await open(port)
  const stop = async () => {
    const closed = once(listener, 'close')
    listener.close()
    for (const socket of sockets) socket.destroy()
    await closed
  }
  return {
    url: `http://127.0.0.1:${port}`,
    stop,
    async start() {
      listener = await open(port)
    },
  }
}

/** @param awayMs - From the moment that somebody was told of it. */
async function interrupted(awayMs: number, direction: 'up' | 'down', name: string) {
  const place = await front()
  let tellWaiting = () => {}
  const waiting = new Promise<void>((resolve) => {
    tellWaiting = resolve
  })
  const goAway = async () => {
    await place.stop()
    await waiting
    await new Promise((resolve) => setTimeout(resolve, awayMs))
    await place.start()
  }
  const events: RunEvent[] = []
  let gone: Promise<void> | undefined
  const client = createClient(place.url, {
    authorizer: (origin) =>
      passwordAuthorizer(origin, { userName: user1, password: async () => accountPassword(user1) }),
    keyPassword: async () => KEY_PASSWORD,
    onEvent(event) {
      events.push(event)
      if (event.type === 'waiting') tellWaiting()
      if (event.type === 'file-done') gone ??= goAway()
    },
  })
  try {
    await client.session.login()
    const files = Object.fromEntries(
      Array.from({ length: 40 }, (_, at) => [`d${at % 4}/f${at}`, randomBytes(2_000 + at)] as const),
    )
    makeTree(world.path(name), files)
    const direct = await world.client()
    if (direction === 'down') await direct.upload([world.path(name)], '/room')
    const done =
      direction === 'up'
        ? await client.upload([world.path(name)], '/room')
        : await client.download([`/room/${name}`], `${world.path(`${name}-back`)}/`)
    await gone
    expect(done).toMatchObject({ files: 40, failed: [], transferred: 40 })
    expect(done.stoppedBy).toBeUndefined()
    expect(events.map(({ type }) => type)).toContain('waiting')
    if (direction === 'up') await direct.download([`/room/${name}`], `${world.path(`${name}-back`)}/`)
    expect(snapshot(world.path(`${name}-back`, name))).toEqual(snapshot(world.path(name)))
  } finally {
    await client.close()
    await place.stop()
  }
}

test('in an upload', () => interrupted(300, 'up', 'up'))
test('in a download', () => interrupted(300, 'down', 'down'))

test.runIf(process.env.SEALSYNC_FULL)(
  'for 6 and for 60 seconds',
  async () => {
    await interrupted(6_000, 'up', 'up6')
    await interrupted(60_000, 'down', 'down60')
  },
  240_000,
)
