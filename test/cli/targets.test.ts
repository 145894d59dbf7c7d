/** Where uploads and downloads go: into a folder, or to a file of another name. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createWorld, makeTree, snapshot, type World } from '../support/cli.ts'

let world: World
beforeAll(async () => {
  world = await createWorld()
  makeTree(world.path('in'), { 'a.txt': 'A', 'b.txt': 'BB', 'dir/x': 'X' })
})
afterAll(() => world.close())

const source = (name: string) => world.path('in', name)
const names = async (path: string) =>
  (await world.list(path)).map(({ name, type }) => `${name}${type === 'file' ? '' : '/'}`)
const textOf = async (path: string) => Buffer.from(await (await (await world.client()).get(path)).bytes()).toString()
/** A folder of its own for each test. */
async function folder(name: string): Promise<string> {
  await (await world.client()).mkdir(`/room/${name}`)
  return `/room/${name}`
}

test('a file goes to a name that nothing has, into a folder that is there, and over a file', async () => {
  const top = await folder('up')
  const renamed = await world.transfer(['upload', source('a.txt'), `${top}/new-name`])
  expect(renamed).toMatchObject({ code: 0, summary: { transferred: 1 } })
  expect(await names(top)).toEqual(['new-name'])
  expect(await textOf(`${top}/new-name`)).toBe('A')
  expect((await world.transfer(['upload', source('a.txt'), `${top}/new-name`])).summary).toMatchObject({ skipped: 1 })
  expect((await world.transfer(['upload', source('b.txt'), `${top}/new-name`])).summary).toMatchObject({
    transferred: 1,
  })
  expect(await textOf(`${top}/new-name`)).toBe('BB')
  const kept = await world.transfer(['upload', source('a.txt'), `${top}/new-name`, '--on-conflict', 'fail'])
  expect(kept.code).toBe(12)
  expect((await world.transfer(['upload', source('a.txt'), `${top}/made/`])).code).toBe(0)
  expect(await names(`${top}/made`)).toEqual(['a.txt'])
  expect((await world.transfer(['upload', source('b.txt'), `${top}/made`])).code).toBe(0)
  expect(await names(`${top}/made`)).toEqual(['a.txt', 'b.txt'])
  // Folders on the way are made.
  expect((await world.transfer(['upload', source('b.txt'), `${top}/deep/er/c.txt`])).code).toBe(0)
  expect(await names(`${top}/deep/er`)).toEqual(['c.txt'])
})

test('a directory goes into its target, which may be new; several sources need one that is there, or a slash', async () => {
  const top = await folder('many')
  expect((await world.transfer(['upload', source('dir'), `${top}/new`])).code).toBe(0)
  expect(await names(`${top}/new`)).toEqual(['dir/'])
  const several = ['upload', source('a.txt'), source('b.txt')]
  const refused = await world.transfer([...several, `${top}/x.pdf`])
  expect(refused.json.at(-1)).toMatchObject({ exitCode: 2, stoppedBy: { code: 'TARGET_AMBIGUOUS' } })
  expect(refused.stderr).toContain(`write ${top}/x.pdf/`)
  expect(await names(top)).toEqual(['new/'])
  expect((await world.transfer([...several, `${top}/both/`])).code).toBe(0)
  expect(await names(`${top}/both`)).toEqual(['a.txt', 'b.txt'])
  expect((await world.transfer([...several, `${top}/both/a.txt`])).json.at(-1)).toMatchObject({
    stoppedBy: { code: 'TARGET_IS_FILE' },
  })
  expect((await world.transfer(['upload', source('dir'), `${top}/both/a.txt`])).json.at(-1)).toMatchObject({
    stoppedBy: { code: 'TARGET_IS_FILE' },
  })
  expect((await world.transfer(['upload', source('a.txt'), `${top}/both/a.txt/x`])).json.at(-1)).toMatchObject({
    stoppedBy: { code: 'TARGET_IS_FILE' },
  })
  expect((await world.transfer(['upload', source('a.txt'), '/nowhere/x'])).json.at(-1)).toMatchObject({
    stoppedBy: { code: 'REMOTE_MISSING' },
  })
})

test('downloads do the same', async () => {
  const top = await folder('down')
  await (await world.client()).upload([source('a.txt'), source('b.txt'), source('dir')], top)
  const down = (...args: string[]) => world.transfer(['download', ...args])
  expect((await down(`${top}/a.txt`, world.path('renamed'))).code).toBe(0)
  expect(readFileSync(world.path('renamed'), 'utf8')).toBe('A')
  expect((await down(`${top}/a.txt`, world.path('renamed'))).summary).toMatchObject({ skipped: 1 })
  expect((await down(`${top}/b.txt`, world.path('renamed'))).code).toBe(12)
  expect((await down(`${top}/b.txt`, world.path('renamed'), '--on-conflict', 'overwrite')).code).toBe(0)
  expect(readFileSync(world.path('renamed'), 'utf8')).toBe('BB')
  expect((await down(`${top}/a.txt`, `${world.path('slash')}/`)).code).toBe(0)
  expect(snapshot(world.path('slash'))).toEqual({ 'a.txt': 'A' })
  mkdirSync(world.path('there'))
  expect((await down(`${top}/a.txt`, world.path('there'))).code).toBe(0)
  expect(snapshot(world.path('there'))).toEqual({ 'a.txt': 'A' })
  expect((await down(`${top}/dir`, world.path('restored'))).code).toBe(0)
  expect(snapshot(world.path('restored'))).toEqual({ 'dir/': '', 'dir/x': 'X' })
  const refused = await down(`${top}/a.txt`, `${top}/b.txt`, world.path('nothing'))
  expect(refused.json.at(-1)).toMatchObject({ exitCode: 2, stoppedBy: { code: 'TARGET_AMBIGUOUS' } })
  expect(snapshot(world.path('nothing'))).toEqual({})
  expect((await down(`${top}/a.txt`, `${top}/b.txt`, `${world.path('nothing')}/`)).code).toBe(0)
  expect((await down(`${top}/dir`, world.path('renamed'))).json.at(-1)).toMatchObject({
    stoppedBy: { code: 'TARGET_IS_FILE' },
  })
  // A name that the server has escaped is what was typed here.
  expect((await down(`${top}/a.txt`, world.path('a%41:b'))).code).toBe(0)
  expect(readFileSync(world.path('a%41:b'), 'utf8')).toBe('A')
})

test('a pattern stands for what it fits; a name with a star in it is that name', async () => {
  const top = await folder('patterns')
  writeFileSync(world.path('s*r'), 'star')
  writeFileSync(world.path('sugar'), 'sugar')
  await (await world.client()).upload([source('a.txt'), source('b.txt'), world.path('s*r'), world.path('sugar')], top)
  expect((await world.transfer(['download', `${top}/*.txt`, `${world.path('globbed')}/`])).code).toBe(0)
  expect(snapshot(world.path('globbed'))).toEqual({ 'a.txt': 'A', 'b.txt': 'BB' })
  expect((await world.cli(['cat', `${top}/s*r`, '--key-password-file', world.keyPasswordFile])).stdout).toBe('star')
  const all = await world.cli(['cat', `${top}/[ab].t?t`, '--key-password-file', world.keyPasswordFile])
  expect([all.code, all.stdout]).toEqual([0, 'ABB'])
  expect(await world.cli(['rm', `${top}/*.nothing`])).toMatchObject({ code: 2 })
  expect((await world.cli(['ls', '/ro*/pat*'])).stdout).toBe('a.txt\nb.txt\ns%2Ar\nsugar\n')
})

test('plan, apply, status, undo and forget know the name', async () => {
  const top = await folder('later')
  const plan = world.path('plan.json')
  const target = `${top}/planned`
  expect((await world.cli(['plan', 'upload', source('a.txt'), target, '-o', plan])).code).toBe(0)
  expect(await names(top)).toEqual([])
  expect((await world.transfer(['apply', plan])).code).toBe(0)
  expect(await names(top)).toEqual(['planned'])
  const status = await world.cli(['status', source('a.txt'), target, '--json'])
  expect(status.json).toMatchObject([{ remote: target, lastRun: { outcome: 'done' } }])
  const { id } = status.json[0]!.lastRun as { id: string }
  expect((await world.cli(['undo', id])).code).toBe(0)
  expect(await names(top)).toEqual([])
  const local = world.path('fetched')
  await (await world.client()).upload([source('a.txt')], `${top}/back`)
  expect((await world.cli(['plan', 'download', `${top}/back`, local, '-o', plan])).code).toBe(0)
  const done = await world.transfer(['apply', plan])
  expect(done.code).toBe(0)
  expect(readFileSync(local, 'utf8')).toBe('A')
  expect((await world.cli(['undo', String((done.summary as unknown as { run: string }).run)])).code).toBe(0)
  expect(() => readFileSync(local)).toThrow('ENOENT')
  expect((await world.cli(['forget', local, `${top}/back`])).code).toBe(0)
  expect((await world.cli(['status', local, `${top}/back`])).code).toBe(2)
})

test('the library does the same, and says it by an option', async () => {
  const top = await folder('library')
  const client = await world.client()
  await client.upload([source('a.txt')], `${top}/one`)
  await client.upload([source('a.txt')], top, { as: 'two' })
  await client.upload([source('a.txt')], `${top}/three`, { as: false })
  expect(await names(top)).toEqual(['one', 'three/', 'two'])
  await expect(client.upload([source('dir')], top, { as: 'x' })).rejects.toMatchObject({ code: 'OPTION_INVALID' })
  await client.download([`${top}/one`], world.path('lib'), { as: 'here' })
  expect(snapshot(world.path('lib'))).toEqual({ here: 'A' })
  await expect(client.download([top], world.path('lib'), { as: 'x' })).rejects.toMatchObject({ code: 'OPTION_INVALID' })
})
