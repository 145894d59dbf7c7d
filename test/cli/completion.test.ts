/** Completion: what could come next by the tables, what bash makes of it, and names of a server that are kept for a short time. */
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { parseLine } from '../../src/cli/completion/line.ts'
import { COMPLETION_SCRIPTS } from '../../src/cli/completion/scripts.ts'
import { expectedAfter } from '../../src/cli/completion/words.ts'
import { COMMANDS } from '../../src/cli/nouns/index.ts'
import { COMMON } from '../../src/cli/options/shared.ts'
import { createWorld, MAIN, makeTree, type World } from '../support/cli.ts'
import { freshDirectory } from '../support/files.ts'

const BREAKS = ' \t\n"\'@><=;|&(:'

/** What the tables offer behind a line. */
const offered = (...words: string[]) => {
  const { candidates, word } = expectedAfter(words)
  return candidates.map(({ value }) => value).filter((value) => value.startsWith(word))
}

describe('by the tables', () => {
  test('commands and those below them, with what they do', () => {
    expect(offered('')).toEqual(expect.arrayContaining([...COMMANDS.map(({ name }) => name), 'help']))
    expect(offered('up')).toEqual(['upload', 'update'])
    expect(offered('keys', '')).toEqual(expect.arrayContaining(['create', 'status', 'cache']))
    expect(offered('keys', 'cache', '')).toEqual(['clear'])
    expect(offered('serve', 'user', 'a')).toEqual(['add', 'admin'])
    expect(offered('nonsense', '')).toEqual([])
    expect(offered('help', 'keys', 'c')).toEqual(['create', 'cache'])
    expect(offered('help', '')).toEqual(expect.arrayContaining(['connection', 'upload']))
    expect(expectedAfter(['']).candidates.every(({ value, about }) => value === 'help' || about !== undefined)).toBe(
      true,
    )
  })

  test('options of the command, each once; those for connections only for who knows them', () => {
    expect(offered('upload', '--dr')).toEqual(['--dry-run'])
    expect(offered('upload', '-n', '--d')).toEqual(['--detailed-exitcode'])
    expect(offered('upload', '--exclude', 'a', '--excl')).toEqual(['--exclude', '--exclude-caches'])
    expect(offered('upload', '--')).not.toContain('--proxy')
    expect(offered('upload', '--pr')).toContain('--proxy')
    expect(offered('--')).toEqual([...COMMON.flatMap(({ flags }) => /--[\w-]+/.exec(flags) ?? []), '--help'])
    expect(offered('keys', '--q')).toEqual(['--quiet'])
    expect(offered('upload', '--', '--d')).toEqual([])
  })

  test('values of options: choices, and what they name', () => {
    expect(offered('upload', '--names', '')).toEqual(['report', 'escape'])
    expect(offered('both', 'a', '/b', '--prefer', 'n')).toEqual(['newer'])
    expect(expectedAfter(['upload', '--names=e'])).toMatchObject({ word: 'e', before: '--names=' })
    const subject = (...words: string[]) => expectedAfter(words).subject
    expect(subject('upload', '--filter-from', '')).toBe('file')
    expect(subject('upload', '--profile', '')).toBe('profile')
    expect(subject('keys', 'distribute', '--room', '/')).toBe('remote')
    expect(subject('serve', '--data=x')).toBe('directory')
    expect(subject('upload', '--jobs', '')).toBe('none')
  })

  test('arguments by their places', () => {
    const subjects = (...words: string[]) =>
      [0, 1, 2].map((more) => expectedAfter([...words, ...Array(more).fill('x'), '']).subject)
    expect(subjects('upload')).toEqual(['file', 'either', 'either'])
    expect(subjects('download')).toEqual(['remote', 'either', 'either'])
    expect(subjects('push', '-n', '--jobs', '3')).toEqual(['directory', 'remote', 'none'])
    expect(subjects('pull')).toEqual(['remote', 'directory', 'none'])
    expect(subjects('rm')).toEqual(['remote', 'remote', 'remote'])
    expect(subjects('backup', 'run')).toEqual(['set', 'none', 'none'])
    expect(subjects('backup', 'restore')).toEqual(['set', 'directory', 'directory'])
    expect(subjects('plan', 'upload')).toEqual(['file', 'either', 'either'])
    expect(subjects('apply')).toEqual(['file', 'none', 'none'])
    expect(offered('completion', '')).toEqual(['bash', 'zsh', 'fish'])
  })

  test('options for the connection go along to who asks the server', () => {
    const words = ['ls', '--profile', 'work', '--json', '--ca-file=/a', '--limit', 'x', '/']
    expect(expectedAfter(words).connection).toEqual(['--profile', 'work', '--ca-file', '/a'])
  })
})

test('a line of bash is taken apart as bash would', () => {
  const words = (line: string) => parseLine(line, BREAKS).words
  expect(words('sync ls ')).toEqual(['sync', 'ls', ''])
  expect(words('A=1 B= sync ls /a')).toEqual(['sync', 'ls', '/a'])
  expect(words(String.raw`sync cat /My\ Files/a\"b`)).toEqual(['sync', 'cat', '/My Files/a"b'])
  expect(words('sync cat "/My Fi')).toEqual(['sync', 'cat', '/My Fi'])
  expect(words(`sync cat '/it'"'"'s`)).toEqual(['sync', 'cat', "/it's"])
  expect(words('sync cat "" x')).toEqual(['sync', 'cat', '', 'x'])
  expect(parseLine('sync ls /a:b', BREAKS).kept).toBe(3)
  expect(parseLine('sync ls --room=/a', BREAKS).kept).toBe(7)
  expect(parseLine(String.raw`sync ls /a\:b`, BREAKS).kept).toBe(0)
  expect(parseLine('sync ls "/a:b', BREAKS).kept).toBe(0)
  expect(parseLine('', BREAKS).words).toEqual([''])
})

describe('in bash, with a server', () => {
  let world: World
  let bin: string
  beforeAll(async () => {
    world = await createWorld()
    bin = world.path('bin')
    mkdirSync(bin)
    writeFileSync(join(bin, 'sealsync'), `#!/bin/sh\nexec "${process.execPath}" "${MAIN}" "$@"\n`)
    chmodSync(join(bin, 'sealsync'), 0o755)
    const client = await world.client()
    for (const name of ['My Files', "it's", 'tab\there', 'plain']) await client.mkdir(`/room/${name}`)
    await client.put('/room/a=b', Buffer.from('x'))
  })
  afterAll(() => world.close())
  afterEach(() => {
    world.server.faults.clear()
    rmSync(listings(), { recursive: true, force: true })
  })

  const listings = () => join(world.home, 'listings')
  const env = () => ({ PATH: `${bin}:${process.env.PATH}`, SEALSYNC_HOME: world.home })

  /** Candidates for a line, as the function for bash has them; its options behind them. */
  function complete(line: string, shell: 'bash' = 'bash') {
    const script = `
      ${COMPLETION_SCRIPTS[shell]}
      compopt() { printf 'option %s\\n' "$*"; }
      COMP_LINE=$1 COMP_POINT=\${#1} COMP_WORDBREAKS=$2
      _sealsync sealsync "\${1##* }" ""
      [ "\${#COMPREPLY[@]}" = 0 ] || printf '%s\\n' "\${COMPREPLY[@]}"`
    const run = spawnSync('bash', ['--norc', '-c', script, 'bash', line, BREAKS], {
      env: env(),
      cwd: world.base,
      encoding: 'utf8',
    })
    expect([run.status, run.stderr]).toEqual([0, ''])
    return run.stdout.split('\n').filter((text) => text !== '')
  }
  const fill = (...args: string[]) => world.cli(['__complete', '--fill', ...args], { fresh: true })

  test('commands, options, profiles, sets, files', () => {
    makeTree(world.home, { 'backups/home.toml': '', 'backups/other.toml': '' })
    expect(complete('sealsync downl')).toEqual(['download'])
    expect(complete('sync upload --on-conflict r')).toEqual(['rename'])
    expect(complete('sync upload --on-conflict=r')).toEqual(['rename'])
    expect(complete('sync ls --profile ')).toEqual(['default'])
    expect(complete('sync backup run ')).toEqual(['home', 'other'])
    expect(complete('sync upload ke')).toEqual(['option -o filenames', 'option -o default'])
    expect(complete('sync push se')).toEqual(['option -o filenames -o plusdirs'])
    expect(complete('sync nonsense x')).toEqual([])
  })

  test('remote names: from the server, then from what is kept, privately', async () => {
    await expect.poll(() => complete('sync ls /')).toContain('/room/')
    await fill('--', '/room/')
    expect(complete('sync ls /room/')).toEqual([
      'option -o filenames',
      '/room/a=b',
      "/room/it's/",
      '/room/My Files/',
      '/room/plain/',
      '/room/tab%09here/',
    ])
    world.server.faults.add({ on: { path: '/v4/nodes' }, times: 1000, do: { status: 500 } })
    expect(complete('sync cat /room/pl')).toEqual(['option -o nospace', 'option -o filenames', '/room/plain/'])
    expect(complete('sync cat "/room/My F')).toContain('/room/My Files/')
    // What stands before the sign bash keeps.
    expect(complete('sync cat /room/a=')).toContain('b')
    expect(complete('sync download /room/plain ./x --exclude y /room/pl')).toContain('/room/plain/')
    for (const name of readdirSync(listings())) expect(statSync(join(listings(), name)).mode & 0o777).toBe(0o600)
    expect(world.server.faults.hits).toEqual([])
  })

  test('what is old is asked for again, and is better than nothing; what is very old is removed', async () => {
    await fill('--', '/room/')
    const [file] = readdirSync(listings()).map((name) => join(listings(), name)) as [string]
    const listing = JSON.parse(readFileSync(file, 'utf8'))
    const past = (ms: number) => ({ ...listing, asked: Date.now() - ms, at: Date.now() - ms })
    world.server.faults.add({ on: { path: '/v4/nodes' }, times: 1000, do: { status: 500 } })
    writeFileSync(file, JSON.stringify(past(5 * 60_000)))
    expect(complete('sync ls /room/pl')).toContain('/room/plain/')
    writeFileSync(file, JSON.stringify(past(3_600_000)))
    expect(complete('sync ls /room/pl')).toEqual(['option -o filenames'])
    world.server.faults.clear()
    for (let at = 0; at < 40; at++) writeFileSync(join(listings(), `${at}.json`), '{')
    utimesSync(join(listings(), '7.json'), 1, 1)
    await fill('--', '/room/')
    expect(readdirSync(listings()).length).toBeLessThanOrEqual(32)
    expect(readdirSync(listings())).not.toContain('7.json')
  })

  test('a server that does not answer, no login, a damaged cache: nothing is said, and nobody waits', async () => {
    world.server.faults.add({ on: { path: '/v4/nodes' }, times: 1000, do: { hold: true } })
    const begun = performance.now()
    expect(complete('sync ls /room/')).toEqual(['option -o filenames'])
    // Far less than it would wait for an answer.
    expect(performance.now() - begun).toBeLessThan(15_000)
    // Asked a moment ago: nobody asks again.
    const { hits } = world.server.faults
    await world.server.faults.until(1)
    complete('sync ls /room/')
    expect(hits.length).toBe(1)
    world.server.faults.clear()
    for (const name of readdirSync(listings())) writeFileSync(join(listings(), name), 'no JSON')
    expect(complete('sync ls /room/')).toEqual([])
    expect(complete('sync ls --profile nobody /')).toEqual(['option -o filenames'])
    expect(complete('sync ls --config /dev/null/x /')).toEqual(['option -o filenames'])
  })

  test('a login ends, and so does what is kept of its rooms', async () => {
    await fill('--', '/room/')
    expect(readdirSync(listings())).toHaveLength(1)
    await world.cli(['logout'])
    expect(() => readdirSync(listings())).toThrow('ENOENT')
    expect(complete('sync ls /room/')).toEqual(['option -o filenames'])
  })
})

/** True where a shell is; else that is said. */
function isThere(shell: string): boolean {
  const has = spawnSync(shell, ['-c', 'exit 0']).status === 0
  if (!has) console.log(`skipped: there is no ${shell} here`)
  return has
}

/** A directory with the script of a shell, and with the program as `sealsync`. */
async function withScript(shell: 'bash' | 'zsh' | 'fish'): Promise<{ script: string; path: string }> {
  const directory = await freshDirectory()
  const script = join(directory, '_sealsync')
  writeFileSync(script, COMPLETION_SCRIPTS[shell])
  writeFileSync(join(directory, 'sealsync'), `#!/bin/sh\nexec "${process.execPath}" "${MAIN}" "$@"\n`)
  chmodSync(join(directory, 'sealsync'), 0o755)
  return { script, path: `${directory}:${process.env.PATH}` }
}

test.each(['bash', 'zsh', 'fish'] as const)('the script for %s is one that it reads', async (shell) => {
  if (!isThere(shell)) return
  const { script } = await withScript(shell)
  const { status, stderr } = spawnSync(shell, ['-n', script], { encoding: 'utf8' })
  expect([status, stderr]).toEqual([0, ''])
})

test('zsh and fish hand over the words behind the name of the program', () => {
  for (const shell of ['zsh', 'fish']) {
    const ask = (...words: string[]) =>
      spawnSync(process.execPath, [MAIN, '__complete', shell, '--', ...words], { encoding: 'utf8' })
        .stdout.split('\n')
        .slice(1)
        .flatMap((line) => line.split('\t')[0] || [])
    expect(ask('trash', '')).toEqual(expect.arrayContaining(['list', 'restore', 'empty']))
    expect(ask('trash', '')).not.toContain('upload')
    expect(ask('upl')).toEqual(['upload'])
  }
})

test('fish completes commands, those below them, and options', async () => {
  if (!isThere('fish')) return
  const { script, path } = await withScript('fish')
  const complete = (line: string) => {
    const env = { ...process.env, PATH: path, HOME: join(script, '..') }
    const { stdout } = spawnSync('fish', ['-c', `source ${script}; complete -C '${line}'`], { encoding: 'utf8', env })
    return stdout.split('\n').flatMap((one) => one.split('\t')[0] || [])
  }
  expect(complete('sealsync upl')).toEqual(['upload'])
  expect(complete('sealsync trash r')).toEqual(['restore'])
  expect(complete('sealsync upload --dry')).toEqual(['--dry-run'])
})
