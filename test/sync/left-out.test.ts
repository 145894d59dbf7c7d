/** What is not sent without being named: junk, caches; and how open the files are that come from the server. */
import { chmodSync, mkdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Client } from '../../src/client.ts'
import { createWorld, makeTree, type World } from '../support/cli.ts'

const JUNK = { '.DS_Store': 'x', 'Thumbs.db': 'x', 'desktop.ini': 'x', '~$report.docx': 'x', 'movie.part': 'x' }

let world: World
let client: Client
const ignored: string[] = []
beforeAll(async () => {
  world = await createWorld()
  client = await world.openClient({
    directory: world.path('kept'),
    onEvent: (event) => event.type === 'ignored' && ignored.push(event.path),
  })
})
afterAll(async () => {
  await client.close()
  await world.close()
})

const names = async (path: string) => (await world.list(path)).map(({ name }) => name)
const modeOf = (...path: string[]) => statSync(world.path(...path)).mode & 0o777

test('junk stays here, unless it is wanted', async () => {
  makeTree(world.path('tree'), { ...JUNK, a: 'a', 'sub/DESKTOP.INI': 'x', 'sub/b': 'b', part: 'p' })
  expect(await client.upload([world.path('tree')], '/room')).toMatchObject({ transferred: 3, ignored: 6 })
  expect(await names('/room/tree')).toEqual(['a', 'part', 'sub'])
  expect(ignored).toContain('tree/movie.part')
  expect(ignored).toContain('tree/sub/DESKTOP.INI')
  const wanted = { patterns: ['!*.part'] }
  await client.upload([world.path('tree')], '/room', { selection: wanted })
  expect(await names('/room/tree')).toEqual(['a', 'movie.part', 'part', 'sub'])
  writeFileSync(world.path('tree', '.syncignore'), '!Thumbs.db\n')
  await client.upload([world.path('tree')], '/room')
  expect(await names('/room/tree')).toContain('Thumbs.db')
  await client.upload([world.path('tree')], '/room', { selection: { paths: ['.DS_Store'] } })
  expect(await names('/room/tree')).toContain('.DS_Store')
  await client.upload([world.path('tree')], '/room', { selection: { defaultExcludes: false } })
  expect(await names('/room/tree')).toHaveLength(9)
  // What is named is meant, as long as no rule is against it.
  await client.upload([world.path('tree', 'movie.part')], '/room')
  expect(await names('/room')).toContain('movie.part')
  const out = { patterns: ['*.part'] }
  expect(await client.upload([world.path('tree', 'movie.part')], '/room/not', { selection: out })).toMatchObject({
    transferred: 0,
    ignored: 1,
  })
  // What comes from the server comes whole.
  expect(await client.download(['/room/tree'], world.path('back'))).toMatchObject({ ignored: 0, transferred: 10 })
})

test('a mirror deletes no junk that is there, and a pair leaves it alone on both sides', async () => {
  const local = world.path('mirror')
  makeTree(local, { a: 'a', '.DS_Store': 'mine' })
  await client.push(local, '/room/mirror')
  for (const name of ['.DS_Store', 'other.part']) await client.put(`/room/mirror/${name}`, Buffer.from('theirs'))
  const options = { delete: true, acceptRoots: true }
  makeTree(local, { b: 'b' })
  expect((await client.push(local, '/room/mirror', options)).failed).toEqual([])
  expect(await names('/room/mirror')).toEqual(expect.arrayContaining(['.DS_Store', 'other.part', 'a', 'b']))
  // Also where the tree is known and not listed.
  expect(await client.push(local, '/room/mirror', options)).toMatchObject({ transferred: 0, deleted: 0 })
  expect(await client.both(local, '/room/mirror')).toMatchObject({ transferred: 0 })
  // What was sent and is remembered is left out again.
  writeFileSync(world.path('mirror', 'mine.part'), 'mine')
  await client.push(local, '/room/mirror', { selection: { patterns: ['!mine.part'] } })
  expect(await names('/room/mirror')).toContain('mine.part')
  writeFileSync(world.path('mirror', 'mine.part'), 'changed meanwhile')
  expect(await client.push(local, '/room/mirror', options)).toMatchObject({ transferred: 0, deleted: 0 })
  rmSync(world.path('mirror', 'mine.part'))
  expect(await client.push(local, '/room/mirror', options)).toMatchObject({ transferred: 0, deleted: 0 })
  expect(await names('/room/mirror')).toContain('mine.part')
  expect(await client.diff(local, '/room/mirror')).toMatchObject({ differences: [] })
  expect(
    (await client.diff(local, '/room/mirror', { selection: { defaultExcludes: false } })).differences,
  ).toHaveLength(3)
})

test('caches stay here on request, but for their tag', async () => {
  const tag = 'Signature: 8a477f597d28d172789f06886806bc55\n# whose it is'
  makeTree(world.path('work'), {
    'cache/CACHEDIR.TAG': tag,
    'cache/deep/x': 'x',
    'cache/y': 'y',
    'no/CACHEDIR.TAG': 'other',
    'no/z': 'z',
  })
  const selection = { excludeCaches: true }
  expect(await client.push(world.path('work'), '/room/work', { selection })).toMatchObject({ transferred: 3 })
  expect(await names('/room/work/cache')).toEqual(['CACHEDIR.TAG'])
  expect(await names('/room/work/no')).toEqual(['CACHEDIR.TAG', 'z'])
  await client.put('/room/work/cache/theirs', Buffer.from('x'))
  const mirror = { selection, delete: true }
  expect(await client.push(world.path('work'), '/room/work', mirror)).toMatchObject({ deleted: 0 })
  await client.push(world.path('work'), '/room/work')
  expect(await names('/room/work/cache')).toEqual(['CACHEDIR.TAG', 'deep', 'theirs', 'y'])
})

test('a backup leaves the same out, by its configuration', async () => {
  makeTree(world.path('source'), {
    ...JUNK,
    a: 'a',
    'cache/CACHEDIR.TAG': 'Signature: 8a477f597d28d172789f06886806bc55',
    'cache/x': 'x',
  })
  const set = {
    name: 'set',
    target: '/room/sets',
    sources: [world.path('source')],
    exclude: [],
    oneFileSystem: false,
    keep: {},
  }
  expect(await client.backups.run(set)).toMatchObject({ files: 3 })
  expect(await client.backups.run({ ...set, excludeCaches: true })).toMatchObject({ files: 2 })
  expect(await client.backups.run({ ...set, defaultExcludes: false })).toMatchObject({ files: 8 })
})

test('-v names what is left out', async () => {
  makeTree(world.path('told'), { a: 'a', 'x.part': 'x', 'skip.log': 'x' })
  symlinkSync('a', world.path('told', 'link'))
  const run = await world.cli([
    'upload',
    world.path('told'),
    '/room',
    '-v',
    '--exclude',
    '*.log',
    '--key-password-file',
    world.keyPasswordFile,
  ])
  expect(run.code).toBe(0)
  for (const name of ['x.part', 'skip.log', 'link']) expect(run.stderr).toContain(`left out: told/${name}`)
})

test.skipIf(process.platform === 'win32')(
  'files and directories that come are as open as others that are made here',
  async () => {
    makeTree(world.path('open'), { small: 's', large: Buffer.alloc(20_000_000, 'x'), 'dir/f': 'f' })
    await client.upload([world.path('open')], '/room')
    await client.download(['/room/open'], world.path('opened'))
    const file = 0o666 & ~process.umask()
    for (const name of ['small', 'large', 'dir/f']) expect([name, modeOf('opened/open', name)]).toEqual([name, file])
    expect(modeOf('opened/open/dir')).toBe(0o777 & ~process.umask())
    // One that is replaced is no more open than it was.
    chmodSync(world.path('opened/open/small'), 0o600)
    writeFileSync(world.path('open', 'small'), 'changed')
    await client.upload([world.path('open')], '/room')
    await client.download(['/room/open'], world.path('opened'), { onConflict: 'overwrite' })
    expect(modeOf('opened/open/small')).toBe(0o600)
    mkdirSync(world.path('secret'))
    writeFileSync(world.path('secret', 'key'), 'k', { mode: 0o400 })
    writeFileSync(world.path('secret', 'tool'), 't', { mode: 0o700 })
    await client.push(world.path('secret'), '/room/secret')
    await client.pull('/room/secret', world.path('pulled'))
    expect([modeOf('pulled/key'), modeOf('pulled/tool')]).toEqual([0o400, 0o700])
  },
)
