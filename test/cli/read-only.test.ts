/** A login that only reads: every command that talks to a server is run with it, and the server sees nothing that changes something. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import type { CommandSpec } from '../../src/cli/nouns/command.ts'
import { COMMANDS } from '../../src/cli/nouns/index.ts'
import { longFlag } from '../../src/cli/options/option.ts'
import { createWorld, giveKeyPair, makeTree, runCli, user1 } from '../support/cli.ts'
import { freshDirectory } from '../support/files.ts'
import { errorOf, recorder } from '../support/servers.ts'

/** Commands that do something at a server: those with options for connections. */
const online = (commands: readonly CommandSpec[], prefix = ''): string[] =>
  commands.flatMap(({ name, action, options = [], commands: below = [] }) => {
    const path = `${prefix}${name}`
    const isOnline = action !== undefined && options.some((option) => longFlag(option) === '--proxy')
    return [...(isOnline ? [path] : []), ...online(below, `${path} `)]
  })

/** POST calls that a login that only reads may make: its own, and two that only read. */
const ALLOWED =
  /^(GET|HEAD) |^POST \/oauth\/(token|revoke)$|^POST \/api\/v4\/nodes\/files\/\d+\/downloads$|^POST \/api\/v4\/public\/shares\/downloads\/\w+$/

test('every command: what reads works, what changes is refused before it is sent', async () => {
  const world = await createWorld({ users: [user1, 'bob'] })
  onTestFinished(() => world.close())
  const front = await recorder(world.server.url)
  const home = join(world.base, 'reading')
  const password = ['--password-file', join(world.base, `password-${user1}`)]
  const keyPassword = ['--key-password-file', world.keyPasswordFile]
  const rescue = [...keyPassword, '--paper', world.path('paper')]
  const tree = world.path('tree')
  makeTree(tree, { 'a.txt': 'first', 'b.txt': 'second' })
  await giveKeyPair(await world.client('bob'))

  // What there is to read, and to go on with, made by a login that may change things, from the same home.
  const prepare = async (...args: string[]) => {
    const { code, stderr } = await runCli(home, [...args, '--profile', 'writing'])
    expect([args[0], code, stderr]).toEqual([args[0], 0, expect.anything()])
  }
  await prepare('login', front.origin, '--user', user1, ...password)
  writeFileSync(
    world.path('set.toml'),
    `target = "/room/set"\nsources = [${JSON.stringify(tree)}]\n[keep]\nlast = 1\n`,
    { mode: 0o600 },
  )
  const set = ['--set-file', world.path('set.toml')]
  await prepare('push', tree, '/room/tree', ...keyPassword)
  await prepare('backup', 'run', 'set', ...set, ...keyPassword)
  await prepare('upload', '--from-command', 'printf a', '/room/gone', ...keyPassword)
  await prepare('rm', '/room/gone')
  await prepare('upload', '--from-command', 'printf b', '/room/tree/b.txt', ...keyPassword)
  makeTree(tree, { 'a.txt': 'changed', 'c.txt': 'new' })
  await prepare('backup', 'run', 'set', ...set, ...keyPassword)
  const linkPassword = ['--password-file', world.keyPasswordFile]
  await prepare('share', 'create', '/room/tree/a.txt', ...linkPassword, ...keyPassword)
  await prepare('request', 'create', '/room/tree')
  const linkOf = async (noun: string) =>
    String((await runCli(home, [noun, 'list', '--json', '--profile', 'writing'])).json[0]?.link)
  const [link, request] = [await linkOf('share'), await linkOf('request')]
  const before = front.seen.length
  const plan = (name: string) => ['--output', world.path(`${name}.plan`)]
  const down = async () => join(await freshDirectory(), 'down')
  const { json: runs } = await runCli(home, ['runs', '--json', '--profile', 'writing'])
  const run = String(runs.find(({ command }) => command === 'push')?.id)
  const listed = await runCli(home, ['backup', 'list', 'set', ...set, ...keyPassword, '--json', '--profile', 'writing'])
  const point = String(listed.json[0]?.id ?? listed.json[0]?.run)

  /** How each command is called, and what its exit code is. */
  const calls: Record<string, readonly [code: number | readonly number[], ...calls: (readonly string[])[]]> = {
    login: [0, [front.origin, '--user', user1, ...password, '--read-only']],
    whoami: [0, []],
    'config show': [0, []],
    'config check': [0, []],
    'session show': [0, ['--online']],
    'session renew': [0, []],
    'session export': [0, [world.path('login.json'), '--keep']],
    'session import': [0, [world.path('login.json'), '--profile', 'other']],
    doctor: [0, []],
    bench: [6, ['--room', '/room', '--size', '1', ...keyPassword]],
    'keys create': [[6, 12], [...keyPassword]],
    'keys status': [0, []],
    'keys distribute': [[0, 6], [...keyPassword]],
    'keys remember': [[0, 2, 13], [...keyPassword]],
    'keys list': [0, []],
    'keys audit': [0, []],
    'keys passwd': [6, [...keyPassword, '--new-key-password-file', world.keyPasswordFile]],
    'keys replace': [0, ['-n']],
    'keys seal': [2, ['paper']],
    'keys export-public': [0, [world.path('anna.key'), ...keyPassword]],
    'keys pin-public': [9, [world.path('anna.key')]],
    'keys verify': [
      [2, 7],
      ['bob', '0'.repeat(64)],
    ],
    'keys trust': [[0, 2], ['--all']],
    'keys forget': [0, ['--room', '/room']],
    'keys rescue create': [0, [...rescue, '--container', world.path('box.json')]],
    'keys rescue restore': [2, ['--paper', world.path('none')]],
    'keys rescue list': [0, []],
    'keys rescue trust': [2, ['0'.repeat(64)]],
    'keys rescue revoke': [2, ['0'.repeat(64)]],
    'keys drill': [2, ['--paper', world.path('none')]],
    'keys serve': [2, ['--interval', '0s']],
    'room create': [6, ['/another']],
    'room members': [[0, 6], ['/room', '--add', 'bob'], ['/room']],
    'room rename': [6, ['/room', 'other']],
    'room delete': [6, ['/room', '--force']],
    'room quota': [[0, 6], ['/room', '1G'], ['/room']],
    'room history': [0, ['/room']],
    ls: [0, ['-R', '/room']],
    tree: [0, ['/room']],
    find: [0, ['*', '/room']],
    du: [0, ['/room']],
    about: [0, ['/room']],
    mv: [6, ['/room/tree/a.txt', '/room/moved', ...keyPassword]],
    cp: [6, ['/room/tree/a.txt', '/room/copied', ...keyPassword]],
    'trash list': [0, ['/room']],
    'trash restore': [6, ['/room/gone']],
    'trash empty': [6, ['/room', '--force']],
    'share create': [6, ['/room/tree/b.txt', ...linkPassword, ...keyPassword]],
    'share list': [0, []],
    'share show': [0, ['/room/tree/a.txt']],
    'share update': [6, ['/room/tree/a.txt', '--max-downloads', '3']],
    'share revoke': [6, ['/room/tree/a.txt']],
    'share mail-text': [0, ['/room/tree/a.txt']],
    'share trust': [0, ['/room/tree/a.txt', ...linkPassword]],
    'share info': [0, [link]],
    'request create': [6, ['/room']],
    'request list': [0, []],
    'request show': [0, ['/room/tree']],
    'request update': [6, ['/room/tree', '--max-files', '3']],
    'request revoke': [6, ['/room/tree']],
    'request mail-text': [0, ['/room/tree']],
    'versions list': [0, ['/room/tree/a.txt']],
    'versions restore': [6, ['/room/tree/b.txt']],
    mkdir: [6, ['/room/folder']],
    rm: [6, ['-r', '/room/tree']],
    stat: [0, ['/room/tree/a.txt']],
    cat: [0, ['/room/tree/a.txt', ...keyPassword]],
    upload: [
      6,
      [tree, '/room/elsewhere', ...keyPassword],
      [join(tree, 'c.txt'), '/room', ...keyPassword],
      ['--from-command', 'printf x', '/room/piped', ...keyPassword],
      ['--to-request', request, join(tree, 'c.txt')],
    ],
    download: [0, ['/room/tree', await down(), ...keyPassword], [link, await down(), ...linkPassword]],
    push: [6, [tree, '/room/tree', ...keyPassword]],
    pull: [0, ['/room/tree', await down(), ...keyPassword]],
    both: [6, [tree, '/room/tree', ...keyPassword]],
    'plan upload': [0, [tree, '/room/elsewhere', ...keyPassword]],
    'plan download': [0, ['/room/tree', await down(), ...keyPassword]],
    'plan push': [0, [tree, '/room/tree', ...plan('push'), ...keyPassword]],
    'plan pull': [0, ['/room/tree', await down(), ...keyPassword]],
    'plan both': [0, [tree, '/room/tree', ...keyPassword]],
    'plan backup': [0, ['set', ...set, ...keyPassword]],
    'plan restore': [0, ['set', await down(), ...set, ...keyPassword]],
    apply: [6, [world.path('push.plan'), ...keyPassword]],
    diff: [11, [tree, '/room/tree', ...keyPassword]],
    check: [11, [tree, '/room/tree', ...keyPassword]],
    // 7 unless `both` had fetched the newer version before it was refused.
    verify: [
      [0, 7],
      ['/room/tree', ...keyPassword],
    ],
    resume: [
      [0, 6],
      [tree, '/room/tree', ...keyPassword],
    ],
    retry: [
      [0, 6],
      [tree, '/room/tree', ...keyPassword],
    ],
    undo: [6, [run]],
    'backup run': [6, ['set', ...set, ...keyPassword]],
    'backup list': [0, ['set', ...set, ...keyPassword]],
    'backup show': [0, ['set', point, ...set, ...keyPassword]],
    'backup restore': [0, ['set', await down(), ...set, ...keyPassword]],
    'backup prune': [6, ['set', ...set, ...keyPassword]],
    drill: [0, ['set', ...set, ...keyPassword]],
    update: [2, ['--check']],
    logout: [0, []],
  }
  expect(Object.keys(calls).sort()).toEqual(expect.arrayContaining(online(COMMANDS)))

  const wrong: unknown[] = []
  for (const [path, [expected, ...several]] of Object.entries(calls)) {
    for (const args of several) {
      const { code, json, stdout, stderr } = await runCli(home, [...path.split(' '), ...args, '--json'])
      const codes = [expected].flat()
      const isRefused = `${stdout}${stderr}`.includes('READ_ONLY')
      if (!codes.includes(code as number) || (code === 6) !== isRefused) {
        wrong.push({ path, code, expected, last: json.at(-1), stderr: stderr.slice(0, 300) })
      }
    }
  }
  expect(wrong).toEqual([])
  expect(front.seen.slice(before).filter((one) => !ALLOWED.test(one))).toEqual([])
  expect(front.seen.slice(before).filter((one) => one.endsWith('/downloads')).length).toBeGreaterThan(0)
})

test('a client of the library that only reads: storage gets nothing either', async () => {
  const world = await createWorld({ keyPair: false })
  onTestFinished(() => world.close())
  const client = await world.openClient({ readOnly: true })
  onTestFinished(() => client.close())
  const body = Buffer.from('x')
  for (const method of ['PUT', 'POST', 'DELETE', 'PATCH'] as const) {
    const refused = { class: 'permission', code: 'READ_ONLY', retryable: false }
    expect(
      await errorOf(client.api.sendPlain({ method, url: `${world.server.url}/presigned?x=y`, body })),
    ).toMatchObject(refused)
    expect(await errorOf(client.session.raw(method, '/api/v4/nodes/rooms'))).toMatchObject(refused)
  }
  // Ways around it.
  for (const [method, path, headers] of [
    ['POST', '/api/v4/nodes/files/1/downloads/x', {}],
    ['POST', '/api/v4/nodes/files/1/2/downloads', {}],
    ['POST', '/api/v4/nodes/files//downloads', {}],
    ['PUT', '/api/v4/nodes/files/1/downloads', {}],
    ['GET', '/api/v4/nodes/rooms', { 'X-HTTP-Method-Override': 'DELETE' }],
  ] as const) {
    const request = { method, url: `${world.server.url}${path}`, headers }
    expect(await errorOf(client.session.send(request))).toMatchObject({ code: 'READ_ONLY' })
  }
  const { status } = await client.session.raw('POST', '/api/v4/nodes/files/1/downloads')
  expect(status).toBe(404)
  expect((await client.whoami()).userName).toBe(user1)
  await client.session.renew()
  await client.session.logout()
})
