import { statSync, utimesSync, writeFileSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Api } from '../../src/api/api.ts'
import { listMissingFileKeys } from '../../src/api/file-keys.ts'
import { listRoomUsers, putRoomMembers } from '../../src/api/nodes.ts'
import { systemClock, systemRandom } from '../../src/environment.ts'
import { SyncError } from '../../src/errors.ts'
import { runDownload } from '../../src/sync/jobs/transfer.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import { createWorld, giveKeyPair, listFiles, makeRoom, makeTree, snapshot, type World } from '../support/cli.ts'

let world: World
beforeAll(async () => {
  world = await createWorld({ users: ['anna', 'bob'] })
})
afterAll(() => world.close())
afterEach(() => world.server.faults.clear())

const json = { 'Content-Type': 'application/json' }

test('after an interruption the next run hands out what the first one owed, even with nothing left to send', async () => {
  const anna = await world.client()
  const bob = await world.client('bob')
  await giveKeyPair(bob)
  const room = await makeRoom(anna, 'shared')
  for await (const { userInfo, permissions } of listRoomUsers(anna.api, room.id, false)) {
    if (userInfo.userName === 'bob')
      await putRoomMembers(anna.api, room.id, 'users', [
        { id: userInfo.id, permissions: { ...permissions!, read: true } },
      ])
  }
  makeTree(world.path('owed'), { a: 'a', b: 'b' })
  world.server.faults.add({
    on: { path: '/missingFileKeys$' },
    times: 99,
    do: { status: 404, headers: json, body: '{}' },
  })
  const first = await anna.upload([world.path('owed')], '/shared')
  expect(first).toMatchObject({ transferred: 2, stoppedBy: { code: 'NOT_FOUND' } })
  world.server.faults.clear()
  expect((await listMissingFileKeys(anna.api, { offset: 0 })).items).toHaveLength(2)
  expect(await anna.upload([world.path('owed')], '/shared')).toMatchObject({ transferred: 0, skipped: 2, failed: [] })
  expect((await listMissingFileKeys(anna.api, { offset: 0 })).items).toEqual([])
  expect(await bob.download(['/shared/owed'], world.path('bobs'))).toMatchObject({ transferred: 2, failed: [] })
})

test('a folder that the server fails to make costs its own files, not the run', async () => {
  const client = await world.client()
  makeTree(world.path('folders'), { 'bad/f': 'x', 'bad/g': 'x', 'good/f': 'x', 'fine/f': 'x', top: 'x' })
  await client.upload([world.path('folders')], '/room') // the folder above
  makeTree(world.path('folders'), { 'new1/f': 'x', 'new2/f': 'x', 'new3/f': 'x', last: 'x' })
  // Refused for good, whichever of the three comes first.
  const answer = { status: 400, headers: json, body: '{"code":400,"errorCode":-40755}' }
  world.server.faults.add({ on: { method: 'POST', path: '/nodes/folders$' }, do: answer })
  const summary = await client.upload([world.path('folders')], '/room')
  expect(summary.stoppedBy).toBeUndefined()
  expect(summary).toMatchObject({ transferred: 3, skipped: 5 })
  expect(summary.failed.map(({ error }) => error.code)).toEqual(['NAME_REFUSED', 'NAME_REFUSED'])
  expect(await client.upload([world.path('folders')], '/room')).toMatchObject({ transferred: 1, failed: [] })
})

describe('downloads', () => {
  test('a file as target is a mistake in the command: 2', async () => {
    writeFileSync(world.path('a-file'), 'x')
    const run = await world.transfer(['download', '/room', world.path('a-file')])
    expect(run.json.at(-1)).toMatchObject({ exitCode: 2, stoppedBy: { code: 'TARGET_IS_FILE' } })
    expect(run.code).toBe(2)
  })

  test.each(['1950-06-01T00:00:00.123Z', '2150-06-01T00:00:00.123Z'])(
    'a file from %s, which a disk may not be able to say, is not a conflict with itself',
    async (time) => {
      const client = await world.client()
      const name = `old ${time.slice(0, 4)}`
      makeTree(world.path(name), { f: 'x' })
      utimesSync(world.path(name, 'f'), new Date(time), new Date(time))
      expect(await client.upload([world.path(name)], '/room')).toMatchObject({ transferred: 1, failed: [] })
      const target = world.path(`${name} back`)
      expect(await client.download([`/room/${name}`], `${target}/`)).toMatchObject({ transferred: 1, failed: [] })
      expect(await client.download([`/room/${name}`], `${target}/`)).toMatchObject({ skipped: 1, failed: [] })
      expect(statSync(`${target}/${name}/f`).size).toBe(1)
    },
  )

  test('a storage that refuses one file’s content fails that file, and is not taken for a lost login', async () => {
    const client = await world.client()
    makeTree(world.path('refused'), { a: 'a', b: 'b', c: 'c' })
    await client.upload([world.path('refused')], '/room')
    const { node } = await requireRemote(client.api, '/room/refused/b')
    const downloads = `/files/${node.id}/downloads$`
    const url = `${client.origin}/storage/none`
    const body = JSON.stringify({ downloadUrl: url })
    world.server.faults.add({ on: { path: downloads }, times: 99, do: { status: 200, headers: json, body } })
    world.server.faults.add({ on: { path: '/storage/none' }, times: 99, do: { status: 403 } })
    const summary = await client.download(['/room/refused'], world.path('refused back'))
    expect(summary.stoppedBy).toBeUndefined()
    expect(summary).toMatchObject({ transferred: 2, failed: [{ error: { code: 'STORAGE_REFUSED' } }] })
    expect(listFiles(world.path('refused back'))).toEqual(['refused/a', 'refused/c'])
  })

  test('what an encrypted room holds is never taken as it is, whatever the server says of the file', async () => {
    const client = await world.client()
    makeTree(world.path('sealed'), { f: 'content' })
    await client.upload([world.path('sealed')], '/room')
    const { node: dir } = await requireRemote(client.api, '/room/sealed')
    const { node } = await requireRemote(client.api, '/room/sealed/f')
    const lying: Api = {
      ...client.api,
      async send(request) {
        const response = await client.api.send(request)
        if (!request.url.includes(`parent_id=${dir.id}`)) return response
        const page = JSON.parse(Buffer.from(response.body).toString())
        for (const item of page.items) item.isEncrypted = false
        return { ...response, body: Buffer.from(JSON.stringify(page)) }
      },
    }
    const context = { api: lying, keyring: client.keyring, clock: systemClock, random: systemRandom }
    const summary = await runDownload(context, ['/room/sealed'], world.path('sealed back'))
    expect(summary).toMatchObject({ transferred: 1, failed: [] })
    expect(snapshot(world.path('sealed back', 'sealed'))).toEqual({ f: 'content' })
    // Without a key there is none to take.
    world.server.faults.add({
      on: { path: `/files/${node.id}/user_file_key$` },
      do: { status: 404, headers: json, body: '{"code":404,"errorCode":-40761}' },
    })
    const second = await runDownload(context, ['/room/sealed'], world.path('sealed again'))
    expect(second.failed).toMatchObject([{ error: { code: 'FILE_KEY_MISSING' } }])
    expect(listFiles(world.path('sealed again'))).toEqual([])
  })

  test('a signal during --checksum ends the comparing; no file is blamed', async () => {
    const client = await world.client()
    makeTree(world.path('sums'), Object.fromEntries(Array.from({ length: 20 }, (_, at) => [`f${at}`, `${at}`])))
    await client.upload([world.path('sums')], '/room')
    const stop = new AbortController()
    const events: string[] = []
    const context = {
      api: client.api,
      keyring: client.keyring,
      clock: systemClock,
      random: systemRandom,
      onEvent: ({ type }: { type: string }) => void events.push(type),
    }
    const target = world.path('sums back')
    await client.download(['/room/sums'], target)
    const api: Api = {
      ...client.api,
      send(request) {
        if (request.url.endsWith('user_file_key')) stop.abort(new SyncError('cancelled', 'SIGINT', 'Stopped by SIGINT'))
        return client.api.send(request)
      },
    }
    const run = runDownload({ ...context, api }, ['/room/sums'], target, { checksum: true, signal: stop.signal })
    expect(await run).toMatchObject({ failed: [], stoppedBy: { code: 'SIGINT' } })
    expect(events.filter((type) => type === 'file-failed').length).toBeLessThan(2)
  })
})
