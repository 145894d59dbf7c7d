/** What an upload takes from the machine: threads, memory, the encryption password, RSA operations later. */
import { randomBytes } from 'node:crypto'
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createWorld, makeTree, snapshot, type World } from '../support/cli.ts'

const MiB = 1024 * 1024

let world: World
beforeAll(async () => {
  world = await createWorld()
  makeTree(world.path('large'), { one: randomBytes(17 * MiB + 3), two: randomBytes(8 * MiB), small: 'small' })
  makeTree(world.path('small'), { one: 'one', two: randomBytes(MiB) })
  writeFileSync(world.path('wrong'), 'not the password\n', { mode: 0o600 })
})
afterAll(() => world.close())

/** How many threads of ours an upload starts. */
async function threadsOf(source: string, ...args: string[]): Promise<number> {
  const [started, watch] = [world.path(`started-${source}`), world.path('watch.mjs')]
  writeFileSync(started, '')
  writeFileSync(
    watch,
    "import { appendFileSync } from 'node:fs'\nprocess.on('worker', () => appendFileSync(process.env.STARTED, 'x'))\n",
  )
  const env = { NODE_OPTIONS: `--import=${pathToFileURL(watch)}`, STARTED: started }
  const { summary } = await world.transfer(['upload', world.path(source), '/room', ...args], { env })
  expect(summary).toMatchObject({ exitCode: 0, failed: [] })
  return readFileSync(started).length
}

test('large files are encrypted in a thread of their own, small ones are not', async () => {
  expect(await threadsOf('small')).toBe(0)
  expect(await threadsOf('large', '--memory', '16M', '--part-size', '5M')).toBe(1)
  const back = world.path('back')
  for (const name of ['small', 'large']) {
    expect((await world.transfer(['download', `/room/${name}`, `${back}/`])).summary).toMatchObject({ exitCode: 0 })
    expect(snapshot(join(back, name))).toEqual(snapshot(world.path(name)))
  }
})

test('nothing to send, or the own key known: the key pair stays locked', async () => {
  const again = ['upload', world.path('small'), '/room', '--json', '--key-password-file', world.path('wrong')]
  expect((await world.cli(again)).json.at(-1)).toMatchObject({ exitCode: 0, skipped: 2, transferred: 0 })
  writeFileSync(world.path('small', 'three'), 'new')
  expect((await world.cli(again)).json.at(-1)).toMatchObject({ exitCode: 0, skipped: 2, transferred: 1 })
  rmSync(join(world.home, 'pins'), { recursive: true })
  writeFileSync(world.path('small', 'four'), 'new')
  expect((await world.cli(again)).json.at(-1)).toMatchObject({
    exitCode: 13,
    transferred: 0,
    stoppedBy: { code: 'KEY_PASSWORD_WRONG' },
  })
})

test('without a key pair nothing is made at the server', async () => {
  const other = await createWorld({ users: ['anna', 'bert'] })
  const { code, json } = await (async () => {
    const bert = join(other.base, 'password-bert')
    await other.cli(['room', 'members', '/room', '--add', 'bert', '--role', 'edit'])
    await other.cli(['login', other.server.url, '--user', 'bert', '--password-file', bert, '--profile', 'bert'])
    const args = ['upload', world.path('large'), '/room', '--profile', 'bert', '--json']
    return other.cli([...args, '--key-password-file', other.keyPasswordFile])
  })()
  expect([code, json.at(-1)]).toMatchObject([13, { stoppedBy: { code: 'NO_KEY_PAIR' } }])
  expect((await other.cli(['ls', '/room', '--json'])).json).toEqual([])
  await other.close()
})

test('parts that do not fit into the memory are refused before anything is sent', async () => {
  const { summary } = await world.transfer(
    ['upload', world.path('large'), '/room', '--part-size', '32M', '--memory', '16M'],
    {},
  )
  expect(summary).toMatchObject({ exitCode: 2, stoppedBy: { code: 'MEMORY_INVALID' } })
})

test('the keys of what was uploaded are kept, sealed, and used', async () => {
  const other = await createWorld()
  makeTree(other.path('files'), { a: 'a', b: 'b', c: randomBytes(9 * MiB) })
  await other.transfer(['upload', other.path('files'), '/room'])
  const caches = () => {
    const dir = join(other.home, 'file-keys')
    return readdirSync(dir)
      .filter((name) => name.endsWith('.keys'))
      .map((name) => statSync(join(dir, name)).size)
  }
  const [size] = caches()
  expect((await other.transfer(['download', '/room/files', other.path('back')])).summary.exitCode).toBe(0)
  expect(snapshot(other.path('back', 'files'))).toEqual(snapshot(other.path('files')))
  // A key that had to be unwrapped would have been added.
  expect(caches()).toEqual([size])
  await other.close()
})
