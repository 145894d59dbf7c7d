/** What the command line says, and does not say, at its edges: lists, rules of others, `-q`, and summaries. */
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { getAccount } from '../../src/api/account.ts'
import { putRoomMembers } from '../../src/api/nodes.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import { createWorld, giveKeyPair, MAIN, makeRoom, makeTree, runProgram, snapshot, type World } from '../support/cli.ts'

let world: World
beforeAll(async () => {
  world = await createWorld({ users: ['anna', 'bob'] })
  await makeRoom(await world.client(), 'plain', false)
})
afterAll(() => world.close())

const cli = (args: readonly string[], input?: string) =>
  world.cli([...args, '--key-password-file', world.keyPasswordFile], input === undefined ? {} : { input })
const codes = (list: unknown) =>
  (list as { code: string; path?: string; name?: string }[] | undefined)?.map(({ code, path, name }) => [
    name ?? path,
    code,
  ])

describe('lists', () => {
  test('with a byte order mark, CRLF, NUL bytes, absolute paths, from standard input; what is missing: 3', async () => {
    const tree = world.path('listed')
    makeTree(tree, { a: '1', b: '2', c: '3', 'd.tmp': '4', e: '5' })
    const list = (name: string, content: string) => {
      writeFileSync(world.path(name), content)
      return world.path(name)
    }
    const push = (...more: string[]) => cli(['push', tree, '/room/listed', '--json', ...more])
    const lines = await push('--files-from', list('lines', `\ufeffa\r\n\r\n${tree}/b\r\n`))
    expect([lines.code, lines.json.at(-1)!.transferred]).toEqual([0, 2])
    const rules = list('rules', '\ufeff*.tmp\r\n')
    const nul = await cli(
      ['push', tree, '/room/listed', '--json', '--filter-from', rules, '--files-from0', '-'],
      'c\0missing\0',
    )
    expect([nul.code, nul.json.at(-1)!.transferred, codes(nul.json.at(-1)!.failed)]).toEqual([
      3,
      1,
      [['missing', 'PATH_MISSING']],
    ])
    const all = await push('--filter-from', rules)
    expect([all.code, all.json.at(-1)!.transferred]).toEqual([0, 1])

    const wrong = [
      ['--files-from', list('nul', 'a\0b\0')],
      ['--filter-from', list('utf16', '\ufffe*\0')],
      ['--filter-from', '-', '--files-from0', '-'],
    ]
    const refused = await Promise.all(wrong.map((more) => push(...more)))
    expect(refused.map(({ code }) => code)).toEqual([2, 2, 2])
    const empty = await cli(['diff', tree, '/room/listed', '--files-from', list('empty', '\n')])
    expect([empty.code, empty.stderr]).toEqual([0, expect.stringContaining('names nothing')])
    const looked = await cli(['diff', tree, '/room/listed', '--files-from', list('gone', 'gone\n')])
    expect([looked.code, looked.stderr]).toEqual([3, expect.stringContaining('gone: There is no file')])
  })

  test('of rules that came from the server: shown, accepted; also settings and lists that options name', async () => {
    const [tree, anna] = [world.path('ruled'), await world.client()]
    makeTree(tree, { a: 'a', filter: 'x\n' })
    expect((await cli(['both', tree, '/room/ruled', '--filter-from', join(tree, 'filter')])).code).toBe(0)
    makeTree(world.path('theirs'), { '.syncignore': '*.new\n', filter: 'x\na\n', 'sealsync.toml': 'jobs = 1\n' })
    await anna.upload([world.path('theirs')], '/room/ruled', { contents: true })
    const arrived = await cli(['both', tree, '/room/ruled', '--json'])
    expect(arrived.code).toBe(3)
    expect(codes(arrived.json.at(-1)!.pending)).toEqual(
      expect.arrayContaining([
        ['.syncignore', 'RULES_NOT_ACCEPTED'],
        ['filter', 'RULES_NOT_ACCEPTED'],
        ['sealsync.toml', 'RULES_NOT_ACCEPTED'],
      ]),
    )
    const stopped = await cli(['push', tree, '/room/ruled', '--filter-from', join(tree, 'filter')])
    expect([stopped.code, stopped.stderr]).toEqual([3, expect.stringContaining('sync rules accept')])
    const main = `cd ${tree} && exec ${process.execPath} ${MAIN}`
    const env = { PATH: process.env.PATH ?? '', SEALSYNC_HOME: world.home }
    const settings = await runProgram('sh', ['-c', `${main} config check`], env)
    expect([settings.code, settings.stderr]).toEqual([2, expect.stringContaining('sealsync.toml came from a server')])

    const shown = await world.cli(['rules', 'list', tree, '--json'])
    expect(shown.code).toBe(3)
    expect(shown.json).toContainEqual({
      type: 'rules',
      path: join(tree, 'filter'),
      what: 'changed',
      before: ['x'],
      now: ['x', 'a'],
    })
    expect((await world.cli(['rules', 'list', tree])).stdout).toMatch(/^new +.*\.syncignore\n {2}\+ \*\.new$/m)
    expect((await world.cli(['rules', 'accept', tree, '--json'])).json).toHaveLength(3)
    expect((await world.cli(['rules', 'list'])).code).toBe(0)
    writeFileSync(join(tree, 'x.new'), 'x')
    const after = await cli(['push', tree, '/room/ruled', '--filter-from', join(tree, 'filter'), '--json'])
    expect([after.code, after.json.at(-1)!.transferred]).toEqual([0, 0])
  })

  test('of a backup set that a run has changed: nothing is backed up before somebody has looked', async () => {
    const [tree, anna] = [world.path('sets'), await world.client()]
    const set = (target: string) => `target = "${target}"\nsources = ["${tree}"]\n`
    makeTree(tree, { 'set.toml': set('/room/backup') })
    const run = () => cli(['backup', 'run', 'set', '--set-file', join(tree, 'set.toml')])
    expect((await run()).code).toBe(0)
    expect((await cli(['both', tree, '/room/sets'])).code).toBe(0)
    makeTree(world.path('their set'), { 'set.toml': set('/plain/backup') })
    await anna.upload([world.path('their set')], '/room/sets', { contents: true })
    await cli(['both', tree, '/room/sets'])
    const second = await run()
    expect([second.code, second.stderr]).toEqual([3, expect.stringContaining('until somebody accepts')])
  })
})

describe('what is said', () => {
  test('with -q: nothing, unless somebody asked for it', async () => {
    const tree = world.path('quiet')
    makeTree(tree, { a: 'a' })
    const commands = [
      ['mkdir', '/room/quiet'],
      ['upload', tree, '/room/quiet'],
      ['keys', 'distribute'],
      ['rm', '-r', '/room/quiet'],
    ]
    const said = []
    const env = { SEALSYNC_KEY_PASSWORD_FILE: world.keyPasswordFile }
    for (const command of commands) {
      const { code, stdout, stderr } = await world.cli([...command, '-q'], { env })
      said.push([command.join(' '), code, stdout + stderr])
    }
    expect(said).toEqual(commands.map((command) => [command.join(' '), 0, '']))
  })

  test('of plain files: no key pair is needed for them, with the cache of file keys on', async () => {
    const keyless = await createWorld({ keyPair: false })
    try {
      const client = await keyless.client()
      await makeRoom(client, 'plain', false)
      makeTree(keyless.path('up'), { a: 'a', 'sub/b': 'b' })
      await client.upload([keyless.path('up')], '/plain', { contents: true })
      const done = await keyless.cli(['download', '--contents', '/plain', keyless.path('down')])
      expect([done.code, done.stderr]).toEqual([0, expect.stringContaining('2 files: 2 transferred')])
      expect(snapshot(keyless.path('down'))).toEqual({ a: 'a', 'sub/': '', 'sub/b': 'b' })
      expect((await keyless.cli(['pull', '/plain', keyless.path('pulled')])).code).toBe(0)
    } finally {
      await keyless.close()
    }
  })

  test('of members who get no keys: they are no failed files', async () => {
    const [anna, bob] = [await world.client(), await world.client('bob')]
    await giveKeyPair(bob)
    const room = await makeRoom(anna, 'shared')
    const rights = { read: true, create: false, change: false, delete: false, manage: false }
    const bobId = (await getAccount(bob.api)).id
    await putRoomMembers(anna.api, room.id, 'users', [{ id: bobId, permissions: { ...NOTHING, ...rights } }])
    const tree = world.path('shared')
    makeTree(tree, { a: 'a' })
    for (const command of ['upload', 'push'] as const) {
      writeFileSync(join(tree, command), command)
      const run = await cli([command, tree, '/shared', '--json'])
      expect(run.code).toBe(3)
      const pending = [{ what: 'member', name: `bob (user ${bobId})`, code: 'MEMBER_NEW', message: expect.any(String) }]
      expect(run.json.at(-1)).toMatchObject({ exitCode: 3, failed: [], pending })
      expect(Number(run.json.at(-1)!.transferred)).toBeGreaterThan(0)
    }
    writeFileSync(join(tree, 'b'), 'b')
    const text = await cli(['push', tree, '/shared'])
    expect(text.stderr).toMatch(/1 transferred .*, 1 member without keys$/m)
    expect(text.stderr).not.toContain('failed')
    expect((await requireRemote(anna.api, '/shared/b')).node.type).toBe('file')
  })

  test.skipIf(process.platform === 'win32')('after the disk of the state is full: what was transferred', async () => {
    const tree = world.path('full')
    makeTree(
      tree,
      Object.fromEntries(Array.from({ length: 60 }, (_, at) => [`a file with a name ${at}`, `content ${at}`])),
    )
    // Files of this process may have 8 KiB: the log of the state has no more room after some of the files.
    const args = [
      'push',
      tree,
      '/room/full',
      '-j',
      '1',
      '--json',
      '--key-cache',
      'off',
      '--key-password-file',
      world.keyPasswordFile,
    ]
    const env = { PATH: process.env.PATH ?? '', SEALSYNC_HOME: world.home, NODE_OPTIONS: '' }
    const limited = ['-c', 'ulimit -f 8; exec "$0" "$@"', process.execPath, MAIN, ...args]
    const run = await runProgram('bash', limited, env)
    const summary = JSON.parse(run.stdout.trim().split('\n').at(-1)!)
    expect(summary).toMatchObject({ type: 'summary', exitCode: 10, stoppedBy: { code: 'LOCAL_EFBIG' } })
    expect(summary.transferred).toBeGreaterThan(5)
    expect(run.code).toBe(10)
    const again = await cli(['push', tree, '/room/full', '--json'])
    expect([again.code, existsSync(join(tree, 'a file with a name 0'))]).toEqual([0, true])
  })
})

const NOTHING = {
  manage: false,
  read: false,
  create: false,
  change: false,
  delete: false,
  manageDownloadShare: false,
  manageUploadShare: false,
  readRecycleBin: false,
  restoreRecycleBin: false,
  deleteRecycleBin: false,
}
