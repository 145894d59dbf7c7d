/** The manifest of a pushed tree at the command line: options, exit codes, what is said. */
import { chmodSync, readFileSync, readlinkSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { deleteNode } from '../../src/api/nodes.ts'
import { systemClock, systemRandom } from '../../src/environment.ts'
import { SyncError } from '../../src/errors.ts'
import { MANIFEST_NAME } from '../../src/local/atomic-file.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import { createWorld, makeTree, type World } from '../support/cli.ts'

let world: World
beforeAll(async () => {
  world = await createWorld()
})
afterAll(() => world.close())

const cli = (...args: string[]) => world.cli([...args, '--key-password-file', world.keyPasswordFile, '--json'])
/** As a machine that knows nothing of any pair. */
async function elsewhere(...args: string[]) {
  const states = join(world.home, 'sync')
  rmSync(states, { recursive: true })
  return cli(...args)
}
const summary = (result: { json: Record<string, unknown>[] }) => result.json.at(-1)!

test('a tree that is pushed comes to another machine with permissions and links; verify holds the server to it', async () => {
  const [tree, copy, bare, remote] = [world.path('tree'), world.path('copy'), world.path('bare'), '/room/tree']
  const large = Buffer.alloc(20 * 2 ** 20, 'x')
  makeTree(tree, { a: 'a', 'bin/run': '#!/bin/sh', large })
  chmodSync(join(tree, 'bin/run'), 0o755)
  symlinkSync('bin/run', join(tree, 'run'))
  symlinkSync('/etc/hosts', join(tree, 'out'))
  const pushed = await cli('push', tree, remote)
  expect(pushed.code).toBe(0)
  expect(pushed.stdout).not.toContain(MANIFEST_NAME)
  expect(summary(pushed)).toMatchObject({ files: 3, transferred: 3 })

  const pulled = await elsewhere('pull', remote, copy)
  expect(pulled.code).toBe(0)
  expect(pulled.stderr).toContain('The link out to /etc/hosts was passed over: it may lead out of the directory')
  expect(readlinkSync(join(copy, 'run'))).toBe('bin/run')
  expect(statSync(join(copy, 'bin/run')).mode & 0o111).not.toBe(0)
  expect((await cli('pull', remote, bare, '--no-manifest')).code).toBe(0)
  expect(statSync(join(bare, 'bin/run')).mode & 0o777).toBe(0o666 & ~process.umask())

  // Also the large file, which another thread has read, is right by its SHA-256.
  const right = await elsewhere('verify', remote)
  expect(right.code).toBe(0)
  expect(summary(right)).toMatchObject({ files: 3, verified: 3, compared: 3, failed: [] })
  expect(right.stderr).toContain('an older one could not be noticed')

  const client = await world.client()
  const node = async (path: string) => (await requireRemote(client.api, `${remote}/${path}`)).node.id
  await deleteNode(client.api, await node('a'))
  const dropped = await cli('verify', remote)
  expect(dropped.code).toBe(7)
  expect(summary(dropped)).toMatchObject({ exitCode: 7, failed: [{ path: 'a', code: 'CONTENT_DROPPED' }] })
})

test('names that were escaped are known again on another machine whose settings say so', async () => {
  const [tree, remote] = [world.path('named'), '/room/named']
  makeTree(tree, { ['x'.repeat(200)]: 'long', a: 'a' })
  expect((await cli('push', tree, remote, '--names', 'escape')).code).toBe(0)
  expect((await cli('verify', remote)).code).toBe(0)
  expect((await elsewhere('verify', remote)).code).toBe(7)
  const env = { SEALSYNC_NAMES: 'escape' }
  const args = ['verify', remote, '--key-password-file', world.keyPasswordFile, '--json']
  const right = await world.cli(args, { env })
  expect([right.code, summary(right)]).toMatchObject([0, { files: 2, verified: 2, compared: 2, failed: [] }])
})

test('a manifest that is gone ends verify and the next push with 7, and is there again', async () => {
  const [tree, remote] = [world.path('gone'), '/room/gone']
  makeTree(tree, { a: 'a' })
  expect((await cli('push', tree, remote, '--no-manifest')).code).toBe(0)
  expect((await world.list(remote)).map(({ name }) => name)).toEqual(['a'])
  expect((await cli('push', tree, remote)).code).toBe(0)
  const client = await world.client()
  await deleteNode(client.api, (await requireRemote(client.api, `${remote}/${MANIFEST_NAME}`)).node.id)
  const gone = { path: MANIFEST_NAME, code: 'MANIFEST_DROPPED' }
  const verified = await cli('verify', remote)
  expect([verified.code, summary(verified).failed]).toMatchObject([7, [gone]])
  const pushed = await cli('push', tree, remote)
  expect([pushed.code, summary(pushed).failed]).toMatchObject([7, [gone]])
  expect((await cli('retry')).code).toBe(0)
  expect((await cli('verify', remote)).code).toBe(0)
  // A plan remembers that none is wanted.
  writeFileSync(join(tree, 'b'), 'b')
  const plan = world.path('plan.json')
  expect((await cli('plan', 'push', tree, remote, '--no-manifest', '-o', plan)).code).toBe(0)
  expect(JSON.parse(readFileSync(plan, 'utf8')).steps.map(({ path }: { path: string }) => path)).toEqual(['b'])
  const before = (await world.list(remote)).find(({ name }) => name === MANIFEST_NAME)?.id
  expect((await cli('apply', plan)).code).toBe(0)
  expect((await world.list(remote)).find(({ name }) => name === MANIFEST_NAME)?.id).toBe(before)
})

test('a run that sends nothing does without the encryption password, and so does its manifest where the own key was proven', async () => {
  const [tree, remote] = [world.path('waits'), '/room/waits']
  makeTree(tree, { a: 'a', b: 'b' })
  expect((await cli('push', tree, remote)).code).toBe(0)
  rmSync(join(tree, 'b'))
  const deleted = await world.cli(['push', tree, remote, '--delete', '--json'])
  expect(deleted.code).toBe(0)
  expect(summary(deleted)).toMatchObject({ deleted: 1, failed: [] })
  expect(deleted.stderr).toBe('')
  expect((await elsewhere('verify', remote)).code).toBe(0)
})

test('where nobody has proven the own key for a month, the manifest waits for a run with the password', async () => {
  const [local, remote, directory] = [world.path('month'), '/room/month', world.path('month-home')]
  makeTree(local, { a: 'a', b: 'b' })
  const first = await world.openClient({ directory })
  expect(await first.push(local, remote)).toMatchObject({ transferred: 2, failed: [] })
  await first.close()
  rmSync(join(local, 'b'))
  const told: string[] = []
  const later = await world.openClient({
    directory,
    keyPassword: () => Promise.reject(new SyncError('usage', 'PASSWORD_NEEDED', 'Nobody knows it')),
    environment: { clock: { ...systemClock, now: () => Date.now() + 31 * 24 * 3_600_000 }, random: systemRandom },
    onEvent: (event) => void (event.type === 'warning' && told.push(event.message)),
  })
  expect(await later.push(local, remote, { delete: true })).toMatchObject({ deleted: 1, failed: [] })
  expect(told).toContain('The manifest waits for a run with the password')
  await later.close()
})
