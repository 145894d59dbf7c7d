/** The help and the manual: everything that there is, as it is, in windows of any width; and what is said of mistakes in a command line. */
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Command } from 'commander'
import { describe, expect, test } from 'vitest'
import { createProgram } from '../../src/cli/commander.ts'
import { manPages, roff } from '../../src/cli/man.ts'
import { type CommandSpec, GROUPS } from '../../src/cli/nouns/command.ts'
import { COMMANDS } from '../../src/cli/nouns/index.ts'
import { longFlag } from '../../src/cli/options/option.ts'
import { CONNECTION } from '../../src/cli/options/shared.ts'
import { splitCommand } from '../../src/cli/secrets.ts'
import { EXIT_ROWS, HELP_TOPICS } from '../../src/cli/topics.ts'
import { closest, distance } from '../../src/cli/usage.ts'
import { runCli } from '../support/cli.ts'
import { freshDirectory } from '../support/files.ts'

const allBelow = (commands: readonly CommandSpec[], prefix: readonly string[] = []): (readonly string[])[] =>
  commands.flatMap(({ name, commands: below = [] }) => [[...prefix, name], ...allBelow(below, [...prefix, name])])

/** What `help` prints in a window of this width. */
async function helpOf(words: readonly string[], width: number): Promise<string> {
  let text = ''
  const program = createProgram(['help', ...words], async () => {})
  const output = {
    getOutHelpWidth: () => width,
    writeOut: (more: string) => {
      text += more
    },
  }
  const configure = (command: Command): void => {
    command.configureOutput(output)
    command.commands.forEach(configure)
  }
  configure(program)
  await program.parseAsync(['help', ...words], { from: 'user' })
  return text
}

test('every command at the top is in a group, with examples that the program understands', async () => {
  const wrong: unknown[] = []
  for (const { name, group, examples = [] } of COMMANDS) {
    if (group === undefined || examples.length < 1 || examples.length > 4) wrong.push([name, group, examples.length])
    for (const [line] of examples) {
      const words = splitCommand(line)
      let ran: CommandSpec | undefined
      const program = createProgram(words, async (spec) => {
        ran = spec
      })
      const error = await program.parseAsync(words, { from: 'user' }).then(
        () => undefined,
        (thrown) => String(thrown.message),
      )
      if (ran === undefined) wrong.push([line, error])
    }
  }
  expect(wrong).toEqual([])
})

describe.each([24, 40, 80, 200])('in a window of %i columns', (width) => {
  test('no line is wider, but for words that are', async () => {
    const topics = HELP_TOPICS.map(({ name }) => [name])
    for (const words of [[], ...topics, ...allBelow(COMMANDS)]) {
      const text = await helpOf(words, width)
      // Examples can be copied, and the first line of the help, too.
      const lines = text.split('\n').filter((line) => !/^ {2}sync |^Usage: /.test(line))
      const tooWide = lines.filter((line) => line.length > width && /^ *\S+ +\S/.test(line.slice(0, width)))
      const terms = tooWide.filter((line) => !/^ {2}(-|[A-Za-z]|\.|~|\/)/.test(line))
      expect(terms, words.join(' ')).toEqual([])
      expect(text.length).toBeGreaterThan(30)
    }
  })
})

test('the help lists commands by what they are about, and says where the rest is', async () => {
  const text = await helpOf([], 80)
  for (const heading of Object.values(GROUPS)) expect(text).toContain(`\n${heading}\n`)
  for (const { name } of COMMANDS) expect(text).toMatch(new RegExp(`^  ${name}( |$)`, 'm'))
  for (const { name } of HELP_TOPICS) expect(text).toContain(`help ${name}`)
  expect(text).toContain('Exit codes: 0 done')
})

test('options for connections are in a help of their own', async () => {
  const connection = await helpOf(['connection'], 80)
  const upload = await helpOf(['upload'], 80)
  for (const option of CONNECTION) {
    expect(connection).toContain(longFlag(option))
    expect(upload).not.toMatch(new RegExp(`^ +${longFlag(option)}\\b(?!-)`, 'm'))
  }
  expect(upload).toContain('sync help connection')
  expect(await helpOf(['completion'], 80)).not.toContain('help connection')
})

test('help of what there is not says so, and what was meant', async () => {
  const home = await freshDirectory()
  const said = async (...args: string[]) => {
    const { code, stdout, stderr } = await runCli(home, args)
    expect([code, stdout]).toEqual([2, ''])
    return stderr
  }
  expect(await said('help', 'uplaod')).toMatch(/^error: unknown command 'uplaod'\n {2}Did you mean upload\?/)
  expect(await said('help', 'keys', 'lits')).toMatch(/Did you mean list\? See: sync help keys\n$/)
  expect(await said('help', 'qwertyuiop')).toBe("error: unknown command 'qwertyuiop'\n  See: sync --help\n")
  expect(await said('help', 'connection', 'x')).toContain("unknown command 'connection'")
  expect((await runCli(home, ['help', 'keys', 'cache', 'clear'])).stdout).toContain('Usage: sync keys cache clear')
})

test('a mistake in a command line: what it is, what was meant, and where an option belongs', async () => {
  const home = await freshDirectory()
  const said = async (...args: string[]) => {
    const { code, stdout, stderr, json } = await runCli(home, args)
    expect(code).toBe(2)
    expect(stderr).not.toContain('defect')
    expect(args.includes('--json') ? json.length : stdout).toBe(args.includes('--json') ? 1 : '')
    return args.includes('--json') ? json[0] : stderr
  }
  expect(await said('uplaod', 'a', '/b')).toContain('Did you mean upload?')
  expect(await said('push', 'a', '/b', '--detele')).toContain('Did you mean --delete? See: sync help push')
  expect(await said('--jobs', '4', 'upload', 'a', '/b')).toContain(
    '--jobs is an option of `upload`: write it behind that.',
  )
  expect(await said('keys', '--fingerprint', 'x', 'trust')).toContain('is an option of `keys trust`: write it behind')
  expect(await said('ls', '--delete')).toMatch(/--delete is an option of `push`, `pull`, .* and/)
  expect(await said('logout', '--no-browser')).toContain('--no-browser is an option of `login`.')
  expect(await said('distribute')).toContain('Did you mean `keys distribute`?')
  expect(await said('stat', 'a', 'b')).toContain('too many arguments')
  expect(await said('completion', 'tcsh')).toContain('the shells are bash, zsh, fish')
  expect(await said('upload', '/a')).toContain('A source and a target are needed')
  expect(await said('upload', 'a', '/b', '--prefer', 'newer', '--json')).toMatchObject({
    type: 'error',
    exitCode: 2,
    code: 'USAGE',
    message: "unknown option '--prefer'",
    hint: expect.stringContaining('--prefer is an option of `both`'),
  })
  expect(await said('mkdir', '--jason', '/x', '--json')).toMatchObject({ hint: expect.stringContaining('--json') })
})

test('options of every command may stand before its name, too', async () => {
  const home = await freshDirectory()
  for (const args of [
    ['--json', 'profile', 'list'],
    ['profile', '--json', 'list'],
    ['profile', 'list', '--json'],
    ['-q', '--json', 'profile', 'list'],
  ]) {
    expect(await runCli(home, args), args.join(' ')).toMatchObject({ code: 0, stdout: '' })
  }
  expect((await runCli(home, ['--json', 'whoami'])).json[0]).toMatchObject({ code: 'LOGIN_NEEDED' })
  expect((await runCli(home, ['--profile', '../x', 'whoami'])).stderr).toContain('profile name')
  // The one beside the command is nearer.
  const both = await runCli(home, ['--profile', '../x', 'whoami', '--profile', 'y'])
  expect(both.stderr).toContain('Not logged in')
})

test('how far words are from each other', () => {
  expect(distance('', 'abc')).toBe(3)
  expect(distance('uplaod', 'upload')).toBe(1)
  expect(distance('kitten', 'sitting')).toBe(3)
  expect(closest('listt', ['list', 'lists', 'ls'])).toEqual(['list', 'lists'])
  expect(closest('x'.repeat(100_000), ['list'])).toEqual([])
  expect(closest('zzz', ['list'])).toEqual([])
})

describe('the manual', () => {
  test('a page for each command, with all its options; two for the rest', () => {
    const pages = new Map(manPages(COMMANDS).map(({ name, section, text }) => [`${name}.${section}`, text]))
    expect([...pages.keys()].sort()).toEqual(
      ['sealsync.1', 'sealsync-connection.7', ...COMMANDS.map(({ name }) => `sealsync-${name}.1`)].sort(),
    )
    const main = pages.get('sealsync.1')!
    for (const [code, text] of EXIT_ROWS)
      expect(main).toContain(`${roff(code)}\\fR\n${roff(text.charAt(0).toUpperCase())}`)
    for (const part of ['FILES', 'ENVIRONMENT', 'EXIT STATUS', 'not affiliated']) expect(main).toContain(part)
    for (const option of CONNECTION) expect(pages.get('sealsync-connection.7')).toContain(roff(longFlag(option)))
    expect(pages.get('sealsync-push.1')).toContain(roff('--max-delete'))
    expect(pages.get('sealsync-keys.1')).toContain('.SS keys trust')
  })

  test('nothing in a text is taken for a command of roff', () => {
    expect(roff(".TH 'x'\n\\fB-a~^`\"ü’")).toBe('\\&.TH \\(aqx\\(aq \\efB\\-a\\(ti\\(ha\\(ga\\(dq\\[u00FC]\\[u2019]')
  })

  test('the command writes it below a directory, and groff has nothing to say against it', async () => {
    const home = await freshDirectory()
    const directory = join(home, 'man')
    const { code, stdout } = await runCli(home, ['man', directory])
    expect([code, stdout]).toEqual([0, `Wrote ${COMMANDS.length + 2} manual pages into ${directory}\n`])
    expect((await runCli(home, ['man', directory, '-q'])).stdout).toBe('')
    expect((await runCli(home, ['man'])).stdout).toBe(readFileSync(join(directory, 'man1/sealsync.1'), 'utf8'))
    expect((await runCli(home, ['man', '/dev/null/x'])).code).toBe(10)
    if (spawnSync('groff', ['--version']).status !== 0) {
      console.log('skipped: there is no groff here')
      return
    }
    for (const section of [1, 7]) {
      const files = readdirSync(join(directory, `man${section}`)).map((name) => join(directory, `man${section}`, name))
      for (const file of files) {
        const { status, stderr } = spawnSync('groff', ['-ww', '-man', '-Tutf8', '-z', file], { encoding: 'utf8' })
        expect([file, status, stderr]).toEqual([file, 0, ''])
      }
    }
  })
})
