/** docs/options.md against the help of each command, in both directions; and what of the commands is made when. */
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

/** All commands but groups, which take no option and do nothing. */
function leavesOf(command: Command, path: string): { path: string; help: string }[] {
  const own = command.options.length > 0 ? [{ path, help: command.helpInformation() }] : []
  return [...own, ...command.commands.flatMap((child) => leavesOf(child, `${path} ${child.name()}`.trim()))]
}

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

const leaves = createWhole().commands.flatMap((command) => leavesOf(command, command.name()))

test('the page is that of the tables (npm run docs:options writes it anew)', () => {
  expect(written).toBe(optionTables())
})

test('the page has the options that the help of each command has, and no others', () => {
  expect(leaves.length).toBeGreaterThan(60)
  for (const { path, help } of leaves) {
    const shared = NOT_CONNECTED.includes(path) ? COMMON : [...COMMON, ...CONNECTION]
    expect(sorted([...shared, ...flagsOfTable(section(`### \`${path}\``))]), path).toEqual(sorted(flagsOfHelp(help)))
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
    const { help } = leaves.find((leaf) => leaf.path === path)!
    expect(sorted(ticked), path).toEqual(sorted(flagsOfHelp(help).filter((flag) => !shared.includes(flag))))
  })
})

test('only what a command line names is made whole, and the help lists the same', () => {
  const program = createProgram(['keys', 'list'], async () => {})
  const find = (parent: Command, name: string) => parent.commands.find((command) => command.name() === name)!
  expect(find(find(program, 'keys'), 'list').options.length).toBeGreaterThan(20)
  expect(find(find(program, 'keys'), 'create').options.length).toBe(1)
  expect(find(program, 'push').options.length).toBe(1)
  expect(find(program, 'serve').commands).toEqual([])
  expect(program.helpInformation()).toBe(createWhole().helpInformation())
  expect(find(program, 'keys').helpInformation()).toBe(find(createWhole(), 'keys').helpInformation())
})
