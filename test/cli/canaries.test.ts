/** One sweep for secrets: passwords, tokens and keys in everything the command line prints, passes on and leaves behind. */
import { chmodSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { CommandSpec } from '../../src/cli/nouns/command.ts'
import { COMMANDS } from '../../src/cli/nouns/index.ts'
import { createWorld, KEY_PASSWORD, makeTree, type World } from '../support/cli.ts'

let world: World
beforeAll(async () => {
  world = await createWorld()
})
afterAll(() => world.close())

const filesBelow = (directory: string): string[] =>
  readdirSync(directory).flatMap((name) => {
    const path = join(directory, name)
    return statSync(path).isDirectory() ? filesBelow(path) : [path]
  })

/** All commands that do something, with those below others. */
const allCommands = (commands: readonly CommandSpec[] = COMMANDS, prefix = ''): string[] =>
  commands.flatMap(({ name, action, commands: below = [] }) => [
    ...(action === undefined ? [] : [`${prefix}${name}`]),
    ...allCommands(below, `${prefix}${name} `),
  ])

/** The secret letters of rescue papers, line by line, as they are printed and without spaces, and the password made of them. */
function lettersOn(...papers: string[]): string[] {
  const texts = papers.filter((paper) => existsSync(paper)).map((paper) => readFileSync(paper, 'utf8'))
  const lines = texts.flatMap((text) =>
    [...text.matchAll(/\d: ((?:[0-9A-Z]{4} )+)[0-9A-Z]{2}/g)].map(([, line]) => line!.trim()),
  )
  const passwords = texts.flatMap((text) => [...text.matchAll(/(?:[0-9A-Z]{4}-){8}rk1/g)].map(([password]) => password))
  return [...lines, ...lines.map((line) => line.replaceAll(' ', '')), ...passwords]
}

test('verbose runs of all commands: nothing secret in output, arguments, or any file but the login itself', async () => {
  const grantFile = () => filesBelow(world.home).find((path) => /grant-[0-9a-f]+\.json$/.test(path))
  const tokens = () => {
    const file = grantFile()
    if (file === undefined) return []
    const { accessToken, refreshToken } = JSON.parse(readFileSync(file, 'utf8'))
    return [accessToken, refreshToken] as string[]
  }
  const linkPassword = 'Tulpe-92-Kegel-Brot'
  writeFileSync(world.path('link-password'), linkPassword, { mode: 0o600 })
  const secrets = new Set(['account password of anna', KEY_PASSWORD, linkPassword, ...tokens()])
  const path = world.path
  makeTree(path('src'), { a: 'small', b: Buffer.alloc(9_000_000, 'b') })
  makeTree(path('tree'), { a: 'a', '.syncignore': 'x\n' })
  const set = `target = "/room/sets"\nsources = [${JSON.stringify(path('tree'))}]\n[keep]\nlast = 1\n`
  makeTree(world.home, { 'backups/set.toml': set })
  chmodSync(path('home/backups/set.toml'), 0o600)
  const key = ['--key-password-file', world.keyPasswordFile]
  const login = ['login', world.server.url, '--user', 'anna']
  const password = ['--password-file', path('password-anna')]
  const linkOf = async (noun: string) => String((await world.cli([noun, 'list', '--json'])).json[0]?.link)
  const lastPush = async () => (await world.cli(['runs', '--json'])).json.find(({ command }) => command === 'push')?.id
  /** Each at least once, as people start it: in a process of its own. With its exit code where that is not 0. */
  const commands: [args: string[], code?: number][] = [
    [[...login, ...password]],
    [['whoami']],
    [['session', 'show', '--online']],
    [['session', 'renew']],
    [['session', 'export', path('moved')]],
    [['session', 'import', path('moved')]],
    [['profile', 'list']],
    [['profile', 'show']],
    [['profile', 'rename', 'default', 'other']],
    [['profile', 'rename', 'other', 'default']],
    [['completion', 'bash']],
    [['man']],
    [['man', path('man')]],
    [['config', 'show', '--origin']],
    [['config', 'check']],
    [['config', 'path']],
    [['doctor']],
    [['bench', '--size', '0'], 2],
    [['keys', 'status']],
    [['keys', 'create'], 12],
    [['keys', 'list']],
    [['keys', 'servers']],
    [['keys', 'distribute', ...key]],
    [['keys', 'export-public', path('anna.key'), ...key]],
    [['keys', 'pin-public', path('anna.key')], 9],
    [['keys', 'audit']],
    [['keys', 'passwd', ...key, '--new-key-password-file', world.keyPasswordFile]],
    [['keys', 'replace', '-n']],
    [['keys', 'seal', 'paper', ...key], 2],
    [['keys', 'trust', 'bob'], 2],
    [['keys', 'verify', 'bob', 'abcd'], 2],
    [['keys', 'forget', 'bob'], 2],
    [['keys', 'remember', ...key], 2],
    [['keys', 'rescue', 'create', '--container', path('box.json'), '--paper', path('paper.html'), ...key]],
    [['keys', 'rescue', 'list']],
    // There are no files yet, so it proves nothing.
    [['keys', 'drill', '--paper', path('paper.html')], 3],
    [['keys', 'rescue', 'restore', '--paper', path('paper.html'), '--new-key-password-file', world.keyPasswordFile]],
    [['keys', 'rescue', 'trust', '0'.repeat(64)], 2],
    [['keys', 'rescue', 'revoke', '0'.repeat(64)], 2],
    [['keys', 'serve', '--interval', '0s'], 2],
    [['room', 'create', '/guarded', '--rescue', 'paper', '--paper', path('guarded.txt')]],
    [['room', 'create', '/second']],
    [['room', 'create', '/second/inner']],
    [['room', 'rename', '/second/inner', 'renamed']],
    [['room', 'quota', '/second', '10G']],
    [['room', 'history', '/second']],
    [['room', 'members', '/second', '--csv'], 2],
    [['room', 'members', '/second']],
    [['room', 'delete', '/second/renamed', '--force']],
    [['mkdir', '/second/folder']],
    [['ls', '/second']],
    [['tree', '/second']],
    [['find', 'f*', '/second']],
    [['du', '/second']],
    [['about', '/second']],
    [['cp', '/second/folder', '/second/copy', ...key]],
    [['mv', '/second/copy', '/second/moved', ...key]],
    [['stat', '/second/folder']],
    [['rm', '/second/folder', '-r']],
    [['trash', 'list', '/second']],
    [['trash', 'restore', '/second/folder']],
    [['trash', 'empty', '/second', '--force']],
    [['plan', 'upload', path('src'), '/room', '-o', path('plan.json')]],
    [['apply', path('plan.json'), ...key]],
    [['upload', path('src'), '/room', ...key]],
    [['plan', 'download', '/room/src', path('out')]],
    [['download', '/room/src', path('out'), ...key]],
    [['cat', '/room/src/a', ...key]],
    [['upload', '--from-command', 'printf dumped', '/room/dump', ...key]],
    [['upload', '--from-command', 'printf again', '/room/dump', ...key]],
    [['share', 'create', '/room/dump', '--password-file', path('link-password'), ...key]],
    [['share', 'list']],
    [['share', 'show', '/room/dump']],
    [['share', 'update', '/room/dump', '--max-downloads', '9']],
    [['share', 'mail-text', '/room/dump']],
    [['share', 'trust', '/room/dump', '--password-file', path('link-password')]],
    [['share', 'info', '{link}']],
    [['download', '{link}', path('by-link'), '--password-file', path('link-password')]],
    [['cat', '{link}', '--password-file', path('password-anna')], 13],
    [['share', 'revoke', '/room/dump']],
    [['request', 'create', '/room', '--password-file', path('link-password')]],
    [['request', 'list']],
    [['request', 'show', '/room']],
    [['request', 'update', '/room', '--max-files', '9']],
    [['request', 'mail-text', '/room']],
    [['upload', '--to-request', '{request}', path('src/b'), '--password-file', path('link-password')]],
    [['request', 'revoke', '/room']],
    [['versions', 'list', '/room/dump']],
    [['versions', 'restore', '/room/dump']],
    [['download', '/room/dump', '-', ...key], 2],
    [['verify', '/room/src', ...key]],
    [['plan', 'push', path('tree'), '/room/tree']],
    [['push', path('tree'), '/room/tree', ...key]],
    [['plan', 'pull', '/room/tree', path('pulled')]],
    [['pull', '/room/tree', path('pulled'), ...key], 3],
    [['rules', 'list', path('pulled')], 3],
    [['rules', 'accept', path('pulled')]],
    [['plan', 'both', path('tree'), '/room/tree']],
    [['both', path('tree'), '/room/tree', ...key]],
    [['diff', path('tree'), '/room/tree']],
    [['check', path('tree'), '/room/tree', ...key]],
    [['runs']],
    [['status']],
    [['resume', ...key]],
    [['retry', ...key]],
    [['undo']],
    [['forget', path('tree'), '/room/tree']],
    [['plan', 'backup', 'set', ...key]],
    [['backup', 'run', 'set', ...key]],
    [['backup', 'list', 'set', ...key]],
    [['backup', 'show', 'set', 'latest', ...key]],
    [['plan', 'restore', 'set', path('restored'), ...key]],
    [['backup', 'restore', 'set', path('restored'), ...key]],
    [['drill', 'set', ...key]],
    [['backup', 'prune', 'set', ...key]],
    [['keys', 'cache', 'clear']],
    [['serve', 'user', 'add', 'carl', '--data', path('data'), ...password]],
    [['serve', 'user', 'list', '--data', path('data')]],
    [['serve', 'user', 'passwd', 'carl', '--password-file', path('password-anna'), '--data', path('data')]],
    [['serve', 'user', 'admin', 'carl', 'on', '--data', path('data')]],
    [['serve', 'user', 'quota', 'carl', '10G', '--data', path('data')]],
    [['serve', 'user', 'quota', 'carl', '--data', path('data')]],
    [['serve', 'user', 'show', 'carl', '--data', path('data')]],
    [['serve', 'user', 'disable', 'carl', '--data', path('data')]],
    [['serve', 'user', 'enable', 'carl', '--data', path('data')]],
    [['serve', 'group', 'add', 'staff', 'carl', '--data', path('data')]],
    [['serve', 'group', 'list', '--data', path('data')]],
    [['serve', 'group', 'members', 'staff', '--data', path('data')]],
    [['serve', 'group', 'members', 'staff', '--remove', 'carl', '--data', path('data')]],
    [['serve', 'group', 'remove', 'staff', '--data', path('data')]],
    [['serve', 'client', 'list', '--data', path('data')]],
    [
      [
        'serve',
        'client',
        'add',
        'app',
        '--redirect-uri',
        'https://app.example.org/done',
        '--secret-to',
        path('client-secret'),
        '--data',
        path('data'),
      ],
    ],
    [['serve', 'client', 'remove', 'app', '--data', path('data')]],
    [['serve', 'stats', '--data', path('data')]],
    [['serve', 'audit', '--data', path('data')]],
    [['serve', 'gc', '--data', path('data')]],
    [['serve', 'user', 'remove', 'carl', '--dry-run', '--data', path('data')]],
    [['serve', 'user', 'remove', 'carl', '--data', path('data')]],
    [['serve', 'check', '--data', path('data')]],
    [['serve', 'room', 'list', '--data', path('server')]],
    [['serve', 'room', 'owner', '/room', 'anna', '--data', path('server')]],
    [['serve', 'room', 'quota', '/room', 'none', '--data', path('server')]],
    [['serve', 'room', 'recycle-period', '/room', '30', '--data', path('server')]],
    [['setup', '--print', '--shell', 'bash'], 2],
    [['update', '--check'], 2],
    [['uninstall', '--data', '-n']],
    [[...login, '--password-file', world.keyPasswordFile], 4],
    [['upload', path('src'), '/room', '--key-password-file', path('password-anna'), '--checksum'], 13],
    [['profile', 'remove', 'nobody'], 2],
    [['logout']],
  ]
  // The server itself runs until it is stopped; commands.test.ts has it.
  const names = allCommands().filter((name) => name !== 'serve')
  const isGiven = (name: string) => commands.some(([args]) => `${args.join(' ')} `.startsWith(`${name} `))
  expect(names.filter((name) => !isGiven(name))).toEqual([])
  const seen: string[] = []
  for (const [given, code = 0] of commands) {
    const args: string[] = []
    for (const word of given[0] === 'undo' ? ['undo', String(await lastPush())] : given) {
      args.push(word === '{link}' ? await linkOf('share') : word === '{request}' ? await linkOf('request') : word)
    }
    const run = await world.cli([...args, '-v', '--json'], {
      async during({ pid }) {
        // Linux shows every process's arguments to everybody.
        if (process.platform === 'linux') seen.push(readFileSync(`/proc/${pid}/cmdline`, 'utf8'))
      },
    })
    expect(run.code, `${args.join(' ')}\n${run.stderr}\n${run.stdout}`).toBe(code)
    seen.push(run.stdout, run.stderr)
    for (const token of tokens()) secrets.add(token)
    for (const letters of lettersOn(path('paper.html'), path('guarded.txt'))) secrets.add(letters)
    for (const path of filesBelow(world.home)) {
      if (args[0] === 'logout' || path !== grantFile()) seen.push(readFileSync(path, 'latin1'))
    }
  }
  expect(lettersOn(path('paper.html')).length).toBeGreaterThanOrEqual(10)
  expect(secrets.size).toBeGreaterThanOrEqual(6 + 18)
  expect(seen.join('').length).toBeGreaterThan(3_000)
  for (const secret of secrets) {
    for (const form of [secret, encodeURIComponent(secret), Buffer.from(secret).toString('base64')]) {
      expect(seen.filter((text) => text.includes(form))).toEqual([])
    }
  }
})
