/** What the embedded server says where something is missing or in the way, and what the client makes of it. */
import { randomBytes } from 'node:crypto'
import { chmodSync, cpSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { addUser, startServer } from '../../src/server/index.ts'
import { takeInstanceLock } from '../../src/server/instance-lock.ts'
import { ask, download, freshDir, makeRoom, signUp, startWorld, uploadClassic } from '../server/support.ts'
import { createWorld, makeTree, runCli } from '../support/cli.ts'
import { startS3Server } from '../support/s3-server.ts'

test.each(['classic', 's3'] as const)('content that is gone is told at once, others go on (%s)', async (storage) => {
  const store = storage === 's3' ? await startS3Server() : undefined
  const world = await createWorld({ ...(store === undefined ? {} : { s3: store.options }) })
  onTestFinished(async () => {
    await world.close()
    await store?.stop()
  })
  makeTree(world.path('dir'), { a: randomBytes(40_000), b: randomBytes(40_001), c: randomBytes(9_000_000) })
  expect((await world.transfer(['upload', world.path('dir'), '/room'])).summary).toMatchObject({ exitCode: 0 })
  const blobs = world.path('server', 'blobs')
  if (store !== undefined) store.objects.clear()
  for (const name of readdirSync(blobs)) if (!name.startsWith('.')) rmSync(join(blobs, name))
  makeTree(world.path('more'), { d: randomBytes(40_002) })
  expect((await world.transfer(['upload', world.path('more', 'd'), '/room/dir'])).summary).toMatchObject({
    exitCode: 0,
  })
  const run = await world.transfer(['download', '/room/dir', world.path('back'), '-v'])
  expect(run.summary, run.stderr).toMatchObject({ exitCode: 3, transferred: 1 })
  expect(run.summary.failed.map(({ path, code }) => [path, code]).sort()).toEqual(
    ['a', 'b', 'c'].map((name) => [expect.stringMatching(new RegExp(`${name}$`)), 'CONTENT_GONE']),
  )
  expect(run.stdout + run.stderr).not.toMatch(/No answer/)
  expect(readdirSync(world.path('back', 'dir'))).toEqual(['d'])
})

test('a data directory, or a part of it, that is a file: what it is and what to do', async () => {
  for (const name of ['', 'db', 'blobs']) {
    const dir = await freshDir()
    const path = name === '' ? join(dir, 'data') : join(dir, name)
    writeFileSync(path, 'a file')
    const data = name === '' ? path : dir
    const expected = { class: 'usage', code: 'NOT_A_DIRECTORY', message: expect.stringContaining(path) }
    await expect(startServer({ data: data }), name).rejects.toMatchObject(expected)
    await expect(addUser(data, { name: 'x', password: 'x' }), name).rejects.toMatchObject(expected)
  }
  const dir = await freshDir()
  writeFileSync(join(dir, 'db'), 'a file')
  const run = await runCli(dir, ['serve', '--data', dir])
  expect([run.code, run.stderr]).toEqual([2, expect.stringContaining(`${join(dir, 'db')} is not a directory`)])
  expect(run.stderr).not.toContain('defect')
})

test('files of the metadata that cannot be opened are named; nothing ends without a word', async () => {
  const good = await freshDir()
  await addUser(good, { name: 'x', password: 'x' })
  for (const name of ['data.mdb', 'lock.mdb']) {
    for (const what of ['directory', 'link', 'forbidden']) {
      const dir = await freshDir()
      cpSync(good, dir, { recursive: true })
      const path = join(dir, 'db', name)
      if (what !== 'forbidden') rmSync(path)
      if (what === 'directory') mkdirSync(path)
      else if (what === 'link') symlinkSync(join(dir, 'nowhere'), path)
      else if (process.getuid?.() === 0 || process.platform === 'win32') continue
      else chmodSync(path, 0o400)
      const expected = { message: expect.stringContaining(path), hint: expect.any(String) }
      await expect(startServer({ data: dir }), `${name} ${what}`).rejects.toMatchObject(expected)
      await expect(addUser(dir, { name: 'y', password: 'y' }), `${name} ${what}`).rejects.toMatchObject(expected)
    }
  }
})

test('a lock of another machine: the file is named, and left', async () => {
  const dir = await freshDir()
  const lock = join(dir, 'server.lock')
  writeFileSync(lock, JSON.stringify({ pid: 1, host: 'another-machine', started: 'x', id: 'y' }))
  await expect(startServer({ data: dir })).rejects.toMatchObject({
    code: 'SERVER_RUNNING',
    message: expect.stringContaining('another-machine'),
    hint: expect.stringContaining(lock),
  })
  expect(readdirSync(dir)).toContain('server.lock')
  // One of this machine whose process is gone is no hindrance; one being written just now is not taken for such.
  writeFileSync(lock, '')
  const [first, second] = await Promise.allSettled([takeInstanceLock(dir), takeInstanceLock(dir)])
  const outcomes = [first, second].map(({ status }) => status).sort()
  expect(outcomes).toEqual(['fulfilled', 'rejected'])
  for (const taken of [first, second]) if (taken.status === 'fulfilled') await taken.value.release()
})

test('times of the file are those of the server unless given; no limit is the largest number', async () => {
  const now = Date.UTC(2026, 2, 3, 4, 5, 6, 789)
  const world = await startWorld({ clock: { now: () => now } })
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  const here = new Date(now).toISOString()
  const times = (node: Record<string, unknown>) => [node.timestampCreation, node.timestampModification]
  expect(times((await ann.call('GET', `/v4/nodes/${room}`)).json)).toEqual([here, here])
  const folder = await ann.call('POST', '/v4/nodes/folders', { parentId: room, name: 'd' })
  expect(times(folder.json)).toEqual([here, here])
  const file = await uploadClassic(
    ann,
    room,
    'f',
    Buffer.from('f'),
    {},
    { timestampModification: '2001-02-03T04:05:06Z' },
  )
  expect(times(file.json)).toEqual([here, '2001-02-03T04:05:06.000Z'])
  expect(times((await ann.call('GET', `/v4/nodes?parent_id=${room}`)).json.items[1])).toEqual(times(file.json))
  expect((await download(ann, file.json.id)).body.toString()).toBe('f')
  const { json } = await ask(`${world.api}/v4/user/account/customer`, { token: ann.token })
  expect(json).toMatchObject({ spaceLimit: Number.MAX_SAFE_INTEGER, accountsLimit: 2 ** 31 - 1 })
})
