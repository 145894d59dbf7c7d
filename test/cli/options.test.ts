/** docs/options.md against the options and the help of each command, in both directions; and what of the commands is made when. */
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Command } from 'commander'
import { expect, test } from 'vitest'
import { createProgram } from '../../src/cli/commander.ts'
import type { CommandSpec } from '../../src/cli/nouns/command.ts'
import { COMMANDS } from '../../src/cli/nouns/index.ts'
import { optionTables } from '../../src/cli/option-tables.ts'

const written = readFileSync(fileURLToPath(new URL('../../docs/options.md', import.meta.url)), 'utf8')

const namesOf = (specs: readonly CommandSpec[]): string[] =>
  specs.flatMap(({ name, commands = [] }) => [name, ...namesOf(commands)])

const createWhole = () => createProgram(namesOf(COMMANDS), async () => {})

const find = (parent: Command, path: string): Command =>
  path.split(' ').reduce((command, name) => command.commands.find((one) => one.name() === name)!, parent)

/** Commands that do something. */
const pathsOf = (specs: readonly CommandSpec[], prefix = ''): string[] =>
  specs.flatMap(({ name, action, commands = [] }) => [
    ...(action === undefined ? [] : [`${prefix}${name}`]),
    ...pathsOf(commands, `${prefix}${name} `),
  ])

/** Flags at the beginning of a line of the help. */
const flagsOfHelp = (help: string) =>
  [...help.matchAll(/^ {2}(?:-\w, )?(--[a-z0-9-]+)/gm)].map((match) => match[1]!).filter((flag) => flag !== '--help')

/** The part of the page below a heading. */
function section(heading: string): string {
  const from = written.indexOf(`\n${heading}\n`)
  if (from === -1) return ''
  const text = written.slice(from + heading.length + 2)
  const end = text.search(/^#{2,3} /m)
  return end === -1 ? text : text.slice(0, end)
}

const rowsOf = (text: string) =>
  text
    .split('\n')
    .filter((line) => line.startsWith('| '))
    .map((line) => line.slice(2, -2).split(/ \| /))

const flagsOfTable = (text: string) => rowsOf(text).flatMap(([first]) => /--[a-z][a-z0-9-]+/.exec(first!)?.[0] ?? [])

const sorted = (flags: Iterable<string>) => [...new Set(flags)].sort()

const COMMON = flagsOfTable(section('## Of every command'))
const CONNECTION = flagsOfTable(section('## Of every command that talks to a server'))
const NOT_CONNECTED = [...section('## Of every command that talks to a server').matchAll(/^Not of these: (.*)$/gm)]
  .flatMap(([, list]) => list!.match(/`[^`]+`/g)!)
  .map((name) => name.slice(1, -1))

const whole = createWhole()
const leaves = pathsOf(COMMANDS).map((path) => {
  const command = find(whole, path)
  return { path, flags: command.options.map(({ long }) => long!), help: command.helpInformation() }
})

test('the page is that of the tables (npm run docs:options writes it anew)', () => {
  expect(written).toBe(optionTables())
})

test('the page has the options that the help of each command has, and no others', () => {
  expect(leaves.length).toBeGreaterThan(60)
  for (const { path, flags, help } of leaves) {
    const own = [...COMMON, ...flagsOfTable(section(`### \`${path}\``))]
    const isConnected = !NOT_CONNECTED.includes(path)
    expect(sorted([...own, ...(isConnected ? CONNECTION : [])]), path).toEqual(sorted(flags))
    // Those for connections are in a help of their own.
    const isShown = (flag: string) => !CONNECTION.includes(flag)
    expect(sorted(own.filter(isShown)), path).toEqual(sorted(flagsOfHelp(help)))
  }
  const headings = [...written.matchAll(/^### `(.*)`$/gm)].map((match) => match[1]!)
  const paths = leaves.map(({ path }) => path)
  expect([...headings, ...NOT_CONNECTED].filter((name) => !paths.includes(name))).toEqual([])
})

test('the table of what moves and compares content says what the help of each says', () => {
  const [head, , ...rows] = rowsOf(section('## What moves and compares content'))
  const columns = head!.slice(1).map((name) => name.replaceAll('`', ''))
  expect(columns.length).toBeGreaterThanOrEqual(20)
  const shared = [...COMMON, ...CONNECTION]
  columns.forEach((path, index) => {
    const ticked = rows.filter((cells) => cells[index + 1]!.trim() === '✓').map(([flag]) => flag!.replaceAll('`', ''))
    const { flags } = leaves.find((leaf) => leaf.path === path)!
    expect(sorted(ticked), path).toEqual(sorted(flags.filter((flag) => !shared.includes(flag))))
  })
})

test('only what a command line names is made whole, and the help lists the same', () => {
  const program = createProgram(['keys', 'list'], async () => {})
  expect(find(program, 'keys list').options.length).toBeGreaterThan(20)
  expect(find(program, 'keys create').options.length).toBe(0)
  expect(find(program, 'push').options.length).toBe(0)
  expect(find(program, 'serve').commands).toEqual([])
  expect(program.helpInformation()).toBe(createWhole().helpInformation())
  expect(find(program, 'keys').helpInformation()).toBe(find(createWhole(), 'keys').helpInformation())
})
