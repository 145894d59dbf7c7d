/** Looking at what is at the server, and arranging it: the commands with the names that people know. */
import { writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { addGroup } from '../../src/server/index.ts'
import { createWorld, giveKeyPair, makeTree, type World } from '../support/cli.ts'

let world: World
beforeAll(async () => {
  world = await createWorld({ users: ['anna', 'bob', 'carl'] })
  makeTree(world.path('in'), {
    'a.txt': 'A',
    'b.txt': 'BB',
    'c.pdf': 'CCC',
    'dir/x.txt': 'X',
    'dir/deep/y.txt': 'YYYYY',
  })
  await (await world.client()).upload([world.path('in')], '/room')
})
afterAll(() => world.close())

const key = () => ['--key-password-file', world.keyPasswordFile]
const run = (...args: string[]) => world.cli(args)
const lines = async (...args: string[]) => {
  const { code, stdout, stderr } = await run(...args)
  expect([code, stderr]).toEqual([0, expect.not.stringContaining('error')])
  return stdout.trimEnd().split('\n')
}
const json = async (...args: string[]) => {
  const done = await run(...args, '--json')
  expect([args, done.code, done.stderr]).toEqual([args, 0, expect.anything()])
  return done.json
}
const names = async (path: string) => (await world.list(path)).map(({ name }) => name)
const errorOf = async (...args: string[]) => {
  const done = await run(...args, '--json')
  return [done.code, (done.json.at(-1) as { code?: string })?.code]
}

test('ls: one place, all below, several, sorted', async () => {
  expect(await lines('ls', '/room/in')).toEqual(['dir/', 'a.txt', 'b.txt', 'c.pdf'])
  expect(await lines('ls', '--sort', 'size', '/room/in')).toEqual(['dir/', 'c.pdf', 'b.txt', 'a.txt'])
  expect(await lines('ls', '--sort', 'name', '-r', '/room/in')).toEqual(['dir/', 'c.pdf', 'b.txt', 'a.txt'])
  expect(await lines('ls', '-r', '/room/in')).toEqual(['dir/', 'c.pdf', 'b.txt', 'a.txt'])
  expect(await lines('ls', '-R', '/room/in/dir')).toEqual([
    '/room/in/dir:', 'deep/', 'x.txt', '', '/room/in/dir/deep:', 'y.txt',
  ]) // biome-ignore format: as it is printed
  expect(await lines('ls', '/room/in/*.txt', '/room/in/dir')).toEqual([
    '/room/in/a.txt', '/room/in/b.txt', '', '/room/in/dir:', 'deep/', 'x.txt',
  ]) // biome-ignore format: as it is printed
  const [long] = await lines('ls', '-l', '/room/in/c.pdf')
  expect(long).toMatch(/^- e +3 \d{4}-\S+Z c\.pdf$/)
  expect((await lines('ls', '-lh', '/room/in/c.pdf'))[0]).toMatch(/^- e +3 B \d{4}/)
  expect((await json('ls', '-R', '/room/in')).map(({ path }) => path)).toEqual([
    '/room/in/dir', '/room/in/a.txt', '/room/in/b.txt', '/room/in/c.pdf', '/room/in/dir/deep', '/room/in/dir/x.txt', '/room/in/dir/deep/y.txt',
  ]) // biome-ignore format: a list
})

test('tree, find, du, about', async () => {
  expect(await lines('tree', '/room/in')).toEqual([
    '/room/in', '├── dir/', '│   ├── deep/', '│   │   └── y.txt', '│   └── x.txt', '├── a.txt', '├── b.txt', '└── c.pdf',
  ]) // biome-ignore format: as it is printed
  expect(await lines('tree', '-L', '1', '-d', '/room/in')).toEqual(['/room/in', '└── dir/'])
  expect(await errorOf('tree', '/room/in/a.txt')).toEqual([2, 'NOT_A_DIRECTORY'])
  expect(await lines('find', '*.TXT', '/room/in')).toHaveLength(4)
  expect(await lines('find', '/room/in', '[xy].txt')).toEqual(['/room/in/dir/x.txt', '/room/in/dir/deep/y.txt'])
  expect(await lines('find', '/room/in', '--larger', '2')).toEqual(['/room/in/c.pdf', '/room/in/dir/deep/y.txt'])
  expect(await lines('find', '/room/in', '--type', 'd')).toEqual(['/room/in/dir', '/room/in/dir/deep'])
  expect(await json('find', '/room/in', '--newer', '1h', '--type', 'f')).toHaveLength(5)
  expect(await json('find', '/room/in', '--older', '1h')).toHaveLength(0)
  expect(await json('find', '/room/in', '--newer', '2100-01-01')).toHaveLength(0)
  expect(await errorOf('find', '/room', '--larger', 'big')).toEqual([2, 'OPTION_INVALID'])
  expect(await errorOf('find', '/room', '--newer', 'soon')).toEqual([2, 'OPTION_INVALID'])
  expect(await errorOf('find', 'a/b', 'c')).toEqual([2, 'OPTION_INVALID'])
  const sizes = async (...args: string[]) => (await json('du', ...args)).map(({ path, bytes }) => [path, bytes])
  expect(await sizes('/room/in')).toEqual([
    ['/room/in/dir/deep', 5],
    ['/room/in/dir', 6],
    ['/room/in', 12],
  ])
  expect(await sizes('-s', '/room/in')).toEqual([['/room/in', 12]])
  expect(await sizes('-d', '1', '/room/in')).toEqual([
    ['/room/in/dir', 6],
    ['/room/in', 12],
  ])
  expect((await lines('du', '-sh', '/room/in/*.txt'))[1]).toBe('         2 B  /room/in/b.txt')
  const about = (await json('about', '/room'))[0]
  expect(about).toMatchObject({
    user: 'anna',
    hasKeyPair: true,
    place: { path: '/room', encrypted: true },
    space: { accountsUsed: 3 },
  })
  expect((await run('about')).stdout).toContain('no limit')
})

test('mv and cp: under another name, into a folder, several, and what is there already', async () => {
  const client = await world.client()
  const top = '/room/arranged'
  await client.upload([world.path('in')], `${top}/`, { contents: true })
  await client.mkdir(`${top}/to`)
  expect(await lines('mv', `${top}/a.txt`, `${top}/renamed`, ...key())).toEqual([
    `Moved ${top}/a.txt to ${top}/renamed`,
  ])
  expect(await lines('cp', `${top}/*.txt`, `${top}/dir`, `${top}/to`, ...key())).toHaveLength(2)
  expect(await names(`${top}/to`)).toEqual(['b.txt', 'dir'])
  expect(await errorOf('cp', `${top}/b.txt`, `${top}/to`, ...key())).toEqual([12, 'EXISTS'])
  expect(await json('cp', `${top}/b.txt`, `${top}/to`, '--on-conflict', 'skip', ...key())).toMatchObject([
    { type: 'skipped' },
  ])
  expect(await json('cp', `${top}/b.txt`, `${top}/to`, '--on-conflict', 'newer', ...key())).toMatchObject([
    { type: 'skipped' },
  ])
  expect(await json('cp', `${top}/b.txt`, `${top}/to`, '--on-conflict', 'rename', ...key())).toMatchObject([
    { path: `${top}/to/b (1).txt` },
  ])
  expect(await json('cp', `${top}/renamed`, `${top}/to/b.txt`, '--on-conflict', 'overwrite', ...key())).toMatchObject([
    { type: 'copied', size: 1 },
  ])
  expect(await names(`${top}/to`)).toEqual(['b (1).txt', 'b.txt', 'dir'])
  expect(await errorOf('cp', `${top}/dir`, `${top}/to`, '--on-conflict', 'overwrite', ...key())).toEqual([12, 'EXISTS'])
  expect(await errorOf('cp', `${top}/b.txt`, `${top}/b.txt`, '--on-conflict', 'overwrite', ...key())).toEqual([
    12,
    'EXISTS',
  ])
  expect(await json('mv', `${top}/b.txt`, `${top}/b.txt`, ...key())).toMatchObject([{ type: 'skipped' }])
  expect(await errorOf('mv', `${top}/dir`, `${top}/dir/deep`, ...key())).toEqual([12, 'INTO_ITSELF'])
  expect(await errorOf('mv', `${top}/b.txt`, `${top}/none/`, ...key())).toEqual([2, 'REMOTE_MISSING'])
  expect(await errorOf('mv', `${top}/b.txt`, `${top}/c.pdf`, `${top}/none`, ...key())).toEqual([2, 'REMOTE_MISSING'])
  expect(await errorOf('mv', `${top}/b.txt`, `${top}/none/x`, ...key())).toEqual([2, 'REMOTE_MISSING'])
  expect(await errorOf('mv', `${top}/b.txt`, `${top}/dir`, `${top}/c.pdf`, ...key())).toEqual([2, 'TARGET_IS_FILE'])
  expect(await errorOf('mv', '/room', top, ...key())).toEqual([2, 'IS_CONTAINER'])
  expect(await errorOf('mv', `${top}/*.nothing`, top, ...key())).toEqual([2, 'REMOTE_MISSING'])
  expect(await errorOf('mv', top)).toEqual([2, 'OPTION_INVALID'])
  // Nothing was moved by what was refused.
  expect(await names(top)).toEqual(['b.txt', 'c.pdf', 'dir', 'renamed', 'to'])
  const copied = await client.get(`${top}/to/dir/deep/y.txt`)
  expect(String(Buffer.from(await copied.bytes()))).toBe('YYYYY')
})

test('into another room: its members get the keys, or it is said who does not; never out of encryption', async () => {
  const [anna, bob] = [await world.client(), await world.client('bob')]
  await giveKeyPair(bob)
  expect(await json('room', 'create', '/team')).toMatchObject([{ path: '/team', encrypted: true }])
  await anna.rooms.addMember('/team', 'bob')
  await anna.upload([world.path('in')], '/room/shared/')
  const refused = await run('cp', '/room/shared/in', '/team', '--json', ...key())
  expect(refused.code).toBe(3)
  expect(refused.stderr).toContain('bob')
  await expect(bob.get('/team/in/a.txt')).rejects.toMatchObject({ code: 'FILE_KEY_MISSING' })
  expect((await run('keys', 'trust', 'bob')).code).toBe(0)
  expect((await run('mv', '/room/shared/in', '/team/moved', ...key())).code).toBe(0)
  const content = await bob.get('/team/moved/dir/deep/y.txt')
  expect(String(Buffer.from(await content.bytes()))).toBe('YYYYY')
  // Without the password the files are moved, and somebody hands out the keys later.
  await anna.upload([world.path('in', 'a.txt')], '/room/shared/')
  const later = await run('cp', '/room/shared/a.txt', '/team/later')
  expect(later.stderr).toContain('sync keys distribute')
  expect(later.code).toBe(3)
  expect(await names('/team')).toEqual(['in', 'later', 'moved'])
  await anna.rooms.create('/open', { plain: true })
  expect(await errorOf('cp', '/room/in/a.txt', '/open', ...key())).toEqual([12, 'ENCRYPTION_DIFFERS'])
  writeFileSync(world.path('plain'), 'plain')
  await anna.upload([world.path('plain')], '/open', { allowPlain: true })
  expect(await errorOf('mv', '/open/plain', '/room', ...key())).toEqual([12, 'ENCRYPTION_DIFFERS'])
  expect(await names('/open')).toEqual(['plain'])
})

test('trash and versions', async () => {
  const client = await world.client()
  await client.upload([world.path('in')], '/room/bin/')
  await client.upload([world.path('in', 'b.txt')], '/room/bin/in/a.txt')
  const removed = await run('rm', '/room/bin/in/a.txt', '/room/bin/in/dir', '-r')
  expect(removed.stderr).toContain('sync trash restore /room/bin/in/a.txt')
  expect((await json('trash', 'list', '/room/bin')).map(({ path, versions, kind }) => [path, versions, kind])).toEqual([
    ['/room/bin/in/dir', 1, 'folder'],
    ['/room/bin/in/a.txt', 2, 'file'],
  ])
  expect(await json('trash', 'list', '/room/in')).toEqual([])
  expect(await errorOf('trash', 'list', '/room/in/a.txt')).toEqual([2, 'NOT_A_ROOM'])
  expect(await lines('trash', 'restore', '/room/bin/in/dir', '/room/bin/in/a.txt')).toHaveLength(2)
  expect(await names('/room/bin/in')).toEqual(['a.txt', 'b.txt', 'c.pdf', 'dir'])
  expect(await errorOf('trash', 'restore', '/room/bin/in/dir')).toEqual([2, 'NOT_FOUND'])
  expect(await errorOf('trash', 'restore', '/room/bin/in/a.txt')).toEqual([12, 'EXISTS'])
  const versions = await json('versions', 'list', '/room/bin/in/a.txt')
  expect(versions.map(({ size, current }) => [size, current])).toEqual([
    [2, true],
    [1, false],
  ])
  expect((await run('versions', 'restore', '/room/bin/in/a.txt')).code).toBe(0)
  expect((await client.stat('/room/bin/in/a.txt')).size).toBe(1)
  const now = await json('versions', 'list', '/room/bin/in/a.txt')
  expect((await run('versions', 'restore', '/room/bin/in/a.txt', String(now[1]!.id))).code).toBe(0)
  expect((await client.stat('/room/bin/in/a.txt')).size).toBe(2)
  expect(await errorOf('versions', 'restore', '/room/bin/in/a.txt', 'first')).toEqual([2, 'OPTION_INVALID'])
  expect(await errorOf('versions', 'restore', '/room/bin/in/a.txt', '999999')).toEqual([2, 'NOT_FOUND'])
  expect(await errorOf('versions', 'list', '/room/bin/none')).toEqual([2, 'REMOTE_MISSING'])
  expect((await run('rm', '/room/bin/in/b.txt')).code).toBe(0)
  expect((await run('trash', 'restore', '/room/bin/in/b.txt', '--into', '/room/bin')).code).toBe(0)
  expect(await names('/room/bin')).toEqual(['b.txt', 'in'])
  expect(await errorOf('trash', 'empty', '/room')).toEqual([9, 'CONFIRMATION_NEEDED'])
  expect(await json('trash', 'empty', '/room', '--force')).toMatchObject([{ type: 'emptied' }])
  expect(await json('trash', 'list', '/room')).toEqual([])
  expect(await errorOf('trash', 'empty', '/room/bin', '--force')).toEqual([2, 'NOT_A_ROOM'])
})

test('rooms: in rooms, names, quotas, history, and their end', async () => {
  expect(await json('room', 'create', '/a')).toMatchObject([{ path: '/a' }])
  expect(await json('room', 'create', '/a/b')).toMatchObject([{ path: '/a/b', encrypted: true }])
  expect(await errorOf('room', 'create', '/a/c', '--plain')).toEqual([12, 'ENCRYPTION_DIFFERS'])
  expect(await errorOf('room', 'create', '/a/b')).toEqual([12, 'EXISTS'])
  expect(await errorOf('room', 'create', '/none/b')).toEqual([2, 'REMOTE_MISSING'])
  expect((await run('mkdir', '/a/folder')).code).toBe(0)
  expect(await errorOf('room', 'create', '/a/folder/b')).toEqual([2, 'NOT_A_ROOM'])
  expect(await json('room', 'create', '/a/own', '--own-members')).toMatchObject([{ path: '/a/own' }])
  expect(await json('room', 'rename', '/a/b', 'new')).toMatchObject([{ path: '/a/new', from: '/a/b' }])
  expect(await errorOf('room', 'rename', '/a/new', 'own')).toEqual([12, 'EXISTS'])
  expect(await errorOf('room', 'rename', '/a/new', 'x/y')).toEqual([2, 'PATH_INVALID'])
  expect(await json('room', 'quota', '/a', '10K')).toMatchObject([{ quota: 10_240, used: 0 }])
  writeFileSync(world.path('large'), Buffer.alloc(20_000))
  expect((await world.transfer(['upload', world.path('large'), '/a'])).code).toBe(6)
  expect(await json('room', 'quota', '/a', 'none')).toMatchObject([{ used: 0 }])
  expect((await world.transfer(['upload', world.path('large'), '/a/new/x'])).code).toBe(0)
  expect(await errorOf('room', 'quota', '/a', 'much')).toEqual([2, 'OPTION_INVALID'])
  expect(await errorOf('room', 'quota', '/a/folder')).toEqual([2, 'NOT_A_ROOM'])
  const events = await json('room', 'history', '/a/new')
  expect(events[0]).toMatchObject({ user: 'anna', operation: 'file.create', message: 'Created file /a/new/x' })
  expect(await json('room', 'history', '/a/new', '--limit', '1', '--since', '1h')).toHaveLength(1)
  expect(await errorOf('room', 'delete', '/a/new')).toEqual([9, 'CONFIRMATION_NEEDED'])
  expect(await errorOf('room', 'delete', '/a/folder', '--force')).toEqual([2, 'NOT_A_ROOM'])
  expect((await run('room', 'delete', '/a', '--force')).code).toBe(0)
  expect(await errorOf('stat', '/a')).toEqual([2, 'REMOTE_MISSING'])
})

test('members: several at once, groups, and as a table', async () => {
  await addGroup(world.path('server'), { name: 'staff', users: ['bob', 'carl'] })
  await (await world.client()).rooms.create('/many')
  const rows = async (...args: string[]) =>
    (await json('room', 'members', '/many', ...args)).map(
      (row) => `${row.group === undefined ? row.user : `group:${row.group}`} ${row.role}`,
    )
  expect(await rows('--add', 'bob:read', '--add', 'carl', '--add', 'group:staff:admin')).toEqual([
    'anna admin', 'bob admin', 'carl admin', 'group:staff admin',
  ]) // biome-ignore format: a list
  expect((await (await world.client('carl')).stat('/many')).permissions?.manage).toBe(true)
  expect(await rows('--remove', 'group:staff', '--remove', 'carl')).toEqual(['anna admin', 'bob read'])
  expect(await errorOf('room', 'members', '/many', '--add', 'carl', '--add', 'nobody')).toEqual([2, 'USER_UNKNOWN'])
  expect(await errorOf('room', 'members', '/many', '--add', 'group:none')).toEqual([2, 'USER_UNKNOWN'])
  expect(await errorOf('room', 'members', '/many', '--add', 'bob', '--remove', 'bob')).toEqual([2, 'OPTION_INVALID'])
  expect(await errorOf('room', 'members', '/many', '--add', 'group:')).toEqual([2, 'OPTION_INVALID'])
  expect(await rows()).toEqual(['anna admin', 'bob read'])
  const { stdout } = await run('room', 'members', '/many', '--csv')
  expect(stdout).toBe('type,name,role,key pair\nuser,anna,admin,yes\nuser,bob,read,yes\n')
  const table = (content: string) => {
    writeFileSync(world.path('members.csv'), content)
    return ['--import', world.path('members.csv')]
  }
  expect(await rows(...table(`\ufeff${stdout.replace('bob,read', '"bob",edit')}group,staff,read,\r\n`))).toEqual([
    'anna admin', 'bob edit', 'carl read', 'group:staff read',
  ]) // biome-ignore format: a list
  expect(await rows(...table('name;role\nanna;admin\ncarl;edit\n'), '--exact')).toEqual(['anna admin', 'carl edit'])
  expect(await errorOf('room', 'members', '/many', ...table('name\nbob\n'), '--exact')).toEqual([9, 'WOULD_LEAVE'])
  for (const wrong of [
    'who\nbob\n',
    'name,role\nbob,king\n',
    'type,name\nrobot,bob\n',
    'name\n"bob\n',
    'name\n"b"ob\n',
    'name,role\n,edit\n',
  ]) {
    expect(await errorOf('room', 'members', '/many', ...table(wrong)), wrong).toEqual([2, 'LIST_INVALID'])
  }
  expect(await errorOf('room', 'members', '/many', '--exact')).toEqual([2, 'OPTION_INVALID'])
  expect(await rows()).toEqual(['anna admin', 'carl edit'])
})

test('forget: without the server, and only what is remembered', async () => {
  makeTree(world.path('pair'), { a: 'a' })
  expect((await world.transfer(['push', world.path('pair'), '/room/pair'])).code).toBe(0)
  const far = { env: { SEALSYNC_PROXY: 'http://127.0.0.1:1' } }
  expect((await world.cli(['forget', world.path('pair'), '/room/pair'], far)).code).toBe(0)
  expect((await world.cli(['status', world.path('pair'), '/room/pair'])).code).toBe(2)
  expect(await errorOf('forget', world.path('pair'), '/room/pair')).toEqual([2, 'NO_RUNS'])
  expect(await names('/room/pair')).toContain('a')
})
