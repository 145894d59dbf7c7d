/** `-q`: every command that has done what it should says nothing but the results that were asked for, so that cron has nothing to mail. */
import { chmodSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { CommandSpec } from '../../src/cli/nouns/command.ts'
import { COMMANDS } from '../../src/cli/nouns/index.ts'
import { createWorld, giveKeyPair, makeTree, type World } from '../support/cli.ts'

let world: World
let fingerprint: string
beforeAll(async () => {
  world = await createWorld({ users: ['anna', 'bob'] })
  fingerprint = (await giveKeyPair(await world.client('bob'))).publicKey.fingerprint
})
afterAll(() => world.close())

const leaves = (commands: readonly CommandSpec[] = COMMANDS, prefix = ''): string[] =>
  commands.flatMap(({ name, action, commands: below = [] }) => [
    ...(action === undefined ? [] : [`${prefix}${name}`]),
    ...leaves(below, `${prefix}${name} `),
  ])

/** Not tried here: they need what is not here, or another test has them. */
const ELSEWHERE = [
  'setup',
  'update',
  'keys create',
  'keys rescue restore',
  'keys serve',
  'keys remember',
  'keys seal',
  'bench',
  'uninstall',
]

test('every command that succeeds', async () => {
  const path = world.path
  makeTree(path('src'), { a: 'small', b: Buffer.alloc(9_000_000, 'b') })
  makeTree(path('tree'), { a: 'a', '.syncignore': 'x\n' })
  const set = `target = "/room/sets"\nsources = [${JSON.stringify(path('tree'))}]\n[keep]\nlast = 1\n`
  makeTree(world.home, { 'backups/set.toml': set })
  chmodSync(path('home/backups/set.toml'), 0o600)
  const key = ['--key-password-file', world.keyPasswordFile]
  const password = ['--password-file', path('password-anna')]
  const link = ['--password-file', path('key-password')]
  const linkOf = async (noun: string) => String((await world.cli([noun, 'list', '--json'])).json[0]?.link)
  const login = ['login', world.server.url, '--user', 'anna', ...password]
  const runs = async (command: string) =>
    String((await world.cli(['runs', '--json'])).json.find((run) => run.command === command)?.id)

  const rescueKey = async () =>
    String((await world.cli(['keys', 'rescue', 'list', '--json'])).json.find(({ of }) => of === 'room')?.fingerprint)

  /** What they do, `silent`; what they were asked for, `asked`, on standard output only. With an exit code that is not 0. */
  const calls: [kind: 'silent' | 'asked', args: string[], code?: number][] = [
    ['asked', ['whoami']],
    ['asked', ['session', 'show', '--online']],
    ['silent', ['session', 'renew']],
    ['silent', ['session', 'export', path('moved')]],
    ['asked', ['profile', 'list']],
    ['silent', ['profile', 'rename', 'default', 'other']],
    ['silent', ['profile', 'rename', 'other', 'default']],
    ['asked', ['profile', 'show']],
    ['silent', ['profile', 'remove', 'default']],
    ['asked', ['completion', 'bash']],
    ['silent', ['man', path('man')]],
    ['asked', ['config', 'show']],
    ['silent', ['config', 'check']],
    ['asked', ['config', 'path']],
    ['asked', ['doctor']],
    ['asked', ['keys', 'status']],
    ['asked', ['keys', 'list']],
    ['asked', ['keys', 'audit']],
    ['silent', ['keys', 'passwd', ...key, '--new-key-password-file', world.keyPasswordFile]],
    ['asked', ['keys', 'replace', '-n']],
    ['silent', ['keys', 'export-public', path('anna.key'), ...key]],
    ['silent', ['keys', 'pin-public', path('anna.key'), '--fingerprint', fingerprint]],
    ['silent', ['room', 'create', '/second']],
    ['silent', ['room', 'create', '/second/inner']],
    ['silent', ['room', 'rename', '/second/inner', 'renamed']],
    ['asked', ['room', 'quota', '/second', '10G']],
    ['asked', ['room', 'history', '/second']],
    ['asked', ['room', 'members', '/room', '--add', 'bob']],
    ['silent', ['keys', 'trust', 'bob']],
    ['asked', ['keys', 'verify', 'bob', '{key}']],
    ['silent', ['keys', 'distribute', ...key]],
    ['silent', ['keys', 'forget', 'bob']],
    ['silent', ['keys', 'trust', '--all']],
    ['silent', ['keys', 'servers']],
    ['silent', ['keys', 'rescue', 'create', '--container', path('box.json'), '--paper', path('paper'), ...key]],
    ['asked', ['keys', 'rescue', 'list']],
    ['silent', ['room', 'create', '/guarded', '--rescue', 'paper', '--paper', path('guarded')]],
    ['silent', ['keys', 'rescue', 'trust', '{rescue}']],
    ['silent', ['keys', 'rescue', 'revoke', '{rescue}']],
    ['silent', ['room', 'delete', '/second/renamed', '--force']],
    ['silent', ['mkdir', '/second/folder']],
    ['asked', ['ls', '/second']],
    ['asked', ['tree', '/second']],
    ['asked', ['find', 'f*', '/second']],
    ['asked', ['du', '/second']],
    ['asked', ['about', '/second']],
    ['silent', ['cp', '/second/folder', '/second/copy', ...key]],
    ['silent', ['mv', '/second/copy', '/second/moved', ...key]],
    ['asked', ['stat', '/second/folder']],
    ['silent', ['rm', '/second/folder', '-r']],
    ['asked', ['trash', 'list', '/second']],
    ['silent', ['trash', 'restore', '/second/folder']],
    ['silent', ['trash', 'empty', '/second', '--force']],
    ['silent', ['plan', 'upload', path('src'), '/room', '-o', path('plan.json')]],
    ['asked', ['plan', 'upload', path('src'), '/room']],
    ['silent', ['apply', path('plan.json'), ...key]],
    ['silent', ['upload', path('src'), '/room', ...key]],
    ['silent', ['upload', path('tree/a'), '/room/one', ...key]],
    ['silent', ['keys', 'drill', '--paper', path('paper')]],
    ['asked', ['plan', 'download', '/room/src', path('out')]],
    ['silent', ['download', '/room/src', path('out'), ...key]],
    ['asked', ['cat', '/room/src/a', ...key]],
    ['silent', ['upload', '--from-command', 'printf dumped', '/room/dump', ...key]],
    ['silent', ['upload', '--from-command', 'printf again', '/room/dump', ...key]],
    ['asked', ['share', 'create', '/room/dump', ...link, ...key]],
    ['asked', ['share', 'list']],
    ['asked', ['share', 'show', '/room/dump']],
    ['silent', ['share', 'update', '/room/dump', '--max-downloads', '9']],
    ['asked', ['share', 'mail-text', '/room/dump']],
    ['silent', ['share', 'trust', '/room/dump', ...link]],
    ['asked', ['share', 'info', '{share}']],
    ['silent', ['download', '{share}', path('by-link'), ...link]],
    ['asked', ['cat', '{share}', ...link]],
    ['silent', ['share', 'revoke', '/room/dump']],
    ['asked', ['request', 'create', '/room']],
    ['asked', ['request', 'list']],
    ['asked', ['request', 'show', '/room']],
    ['silent', ['request', 'update', '/room', '--max-files', '9']],
    ['asked', ['request', 'mail-text', '/room']],
    ['asked', ['upload', '--to-request', '{request}', path('src/a')]],
    ['silent', ['request', 'revoke', '/room']],
    ['asked', ['versions', 'list', '/room/dump']],
    ['silent', ['versions', 'restore', '/room/dump']],
    ['asked', ['download', '/room/dump', '-', ...key]],
    ['silent', ['verify', '/room/src', ...key]],
    ['asked', ['plan', 'push', path('tree'), '/room/tree']],
    ['silent', ['push', path('tree'), '/room/tree', ...key]],
    ['silent', ['push', path('tree'), '/room/tree', ...key]],
    ['asked', ['plan', 'pull', '/room/src', path('pulled')]],
    ['silent', ['pull', '/room/src', path('pulled'), ...key]],
    ['silent', ['rules', 'list', path('pulled')]],
    ['silent', ['rules', 'accept', path('pulled')]],
    ['silent', ['plan', 'both', path('tree'), '/room/tree']],
    ['silent', ['both', path('tree'), '/room/tree', ...key]],
    ['silent', ['diff', path('tree'), '/room/tree']],
    ['silent', ['check', path('tree'), '/room/tree', ...key]],
    ['asked', ['runs']],
    ['asked', ['status']],
    ['silent', ['resume', ...key]],
    ['silent', ['retry', ...key]],
    ['silent', ['undo', '{push}']],
    ['silent', ['forget', path('tree'), '/room/tree']],
    ['asked', ['plan', 'backup', 'set', ...key]],
    ['silent', ['backup', 'run', 'set', ...key]],
    ['asked', ['backup', 'list', 'set', ...key]],
    ['asked', ['backup', 'show', 'set', 'latest', ...key]],
    ['asked', ['plan', 'restore', 'set', path('restored'), ...key]],
    ['silent', ['backup', 'restore', 'set', path('restored'), ...key]],
    ['silent', ['drill', 'set', ...key]],
    ['silent', ['backup', 'prune', 'set', ...key]],
    ['silent', ['keys', 'cache', 'clear']],
    ['silent', ['serve', 'user', 'add', 'carl', '--data', path('data'), ...password]],
    ['asked', ['serve', 'user', 'list', '--data', path('data')]],
    ['silent', ['serve', 'user', 'passwd', 'carl', '--password-file', path('password-anna'), '--data', path('data')]],
    ['silent', ['serve', 'user', 'admin', 'carl', 'on', '--data', path('data')]],
    ['silent', ['serve', 'user', 'quota', 'carl', '10G', '--data', path('data')]],
    ['asked', ['serve', 'user', 'quota', 'carl', '--data', path('data')]],
    ['asked', ['serve', 'user', 'show', 'carl', '--data', path('data')]],
    ['silent', ['serve', 'user', 'disable', 'carl', '--data', path('data')]],
    ['silent', ['serve', 'user', 'enable', 'carl', '--data', path('data')]],
    ['silent', ['serve', 'group', 'add', 'staff', 'carl', '--data', path('data')]],
    ['asked', ['serve', 'group', 'list', '--data', path('data')]],
    ['asked', ['serve', 'group', 'members', 'staff', '--data', path('data')]],
    ['silent', ['serve', 'group', 'members', 'staff', '--remove', 'carl', '--data', path('data')]],
    ['silent', ['serve', 'group', 'remove', 'staff', '--data', path('data')]],
    ['asked', ['serve', 'client', 'list', '--data', path('data')]],
    [
      'silent',
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
    ['silent', ['serve', 'client', 'remove', 'app', '--data', path('data')]],
    ['asked', ['serve', 'stats', '--data', path('data')]],
    ['asked', ['serve', 'audit', '--data', path('data')]],
    ['silent', ['serve', 'gc', '--data', path('data')]],
    ['asked', ['serve', 'user', 'remove', 'carl', '--dry-run', '--data', path('data')]],
    ['silent', ['serve', 'user', 'remove', 'carl', '--data', path('data')]],
    ['silent', ['serve', 'check', '--data', path('data')]],
    ['asked', ['serve', 'room', 'list', '--data', path('server')]],
    ['silent', ['serve', 'room', 'owner', '/room', 'bob', '--data', path('server')]],
    ['silent', ['serve', 'room', 'quota', '/room', 'none', '--data', path('server')]],
    ['silent', ['serve', 'room', 'recycle-period', '/room', '30', '--data', path('server')]],
    ['silent', ['logout']],
  ]
  const names = calls.map(([, args]) => args.join(' '))
  const missing = leaves().filter((name) => !names.some((one) => `${one} `.startsWith(`${name} `)))
  expect(missing.sort()).toEqual([...ELSEWHERE, 'login', 'session import'].sort())

  const wrong: unknown[] = []
  for (const [kind, given, expected = 0] of calls) {
    const args = given.map((word) => (word === '{key}' ? fingerprint : word))
    if (args.at(-1) === '{rescue}') args.splice(-1, 1, await rescueKey())
    if (args[1] === '{push}') args[1] = await runs('push')
    for (const noun of ['share', 'request']) {
      if (args.includes(`{${noun}}`)) args[args.indexOf(`{${noun}}`)] = await linkOf(noun)
    }
    const { code, stdout, stderr } = await world.cli([...args, '-q'])
    const isRight = code === expected && stderr === '' && (stdout !== '') === (kind === 'asked')
    if (!isRight) wrong.push({ args: args.join(' '), kind, code, stdout: stdout.slice(0, 200), stderr })
    if (given[1] === 'export') {
      const { code, stdout, stderr } = await world.cli(['session', 'import', path('moved'), '-q'])
      // What is a risk is told whoever is asked to be quiet.
      if (code !== 0 || stdout !== '' || !/^(warning: .*\n)?$/.test(stderr))
        wrong.push({ import: code, stdout, stderr })
    }
    if (given[1] === 'remove') {
      const { code, stdout, stderr } = await world.cli([...login, '-q'])
      if (code !== 0 || stdout !== '' || !/^(warning: .*\n)?$/.test(stderr)) wrong.push({ login: code, stdout, stderr })
    }
  }
  expect(wrong).toEqual([])
})
