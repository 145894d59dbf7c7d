/** The manual pages, as roff, from the same tables as the help: pure. @module */
import { VERSION } from '../version.ts'
import { type CommandSpec, type Example, GROUPS } from './nouns/command.ts'
import { longFlag, type OptionSpec } from './options/option.ts'
import { COMMON, CONNECTION, CONNECTION_GROUP } from './options/shared.ts'
import { EXIT_ROWS, HELP_TOPICS, type Row } from './topics.ts'

export interface ManPage {
  /** `sealsync-upload` */
  readonly name: string
  readonly section: 1 | 7
  readonly text: string
}

const NAMED: Readonly<Record<string, string>> = Object.freeze({
  '\\': '\\e',
  '-': '\\-',
  "'": '\\(aq',
  '`': '\\(ga',
  '^': '\\(ha',
  '~': '\\(ti',
  '"': '\\(dq',
})

/** A text in which roff sees nothing but letters. */
export function roff(text: string): string {
  const letters = Array.from(text.replace(/\s+/g, ' '), (char) => {
    if (NAMED[char] !== undefined) return NAMED[char]
    const code = char.codePointAt(0)!
    return code < 0x20 ? '' : code < 0x7f ? char : `\\[u${code.toString(16).toUpperCase().padStart(4, '0')}]`
  })
  return letters.join('').replace(/^[.]/, '\\&.')
}

const bold = (text: string) => `\\fB${roff(text)}\\fR`
const italic = (text: string) => `\\fI${roff(text)}\\fR`

/** `-j, --jobs <n>` with names in bold and the value in italics. */
const optionTerm = ({ flags }: OptionSpec): string =>
  flags
    .split(/(<[^>]+>|, )/)
    .filter((part) => part !== '')
    .map((part) =>
      part === ', '
        ? part
        : part.startsWith('<')
          ? italic(part.slice(1, -1))
          : bold(part.trimEnd()) + (part.endsWith(' ') ? ' ' : ''),
    )
    .join('')

const optionText = ({ summary, choices, fallback }: OptionSpec): string => {
  const more = [
    ...(choices === undefined ? [] : [`choices: ${choices.join(', ')}`]),
    ...(fallback === undefined ? [] : [`default: ${fallback}`]),
  ]
  return more.length === 0 ? summary : `${summary} (${more.join('; ')})`
}

const sentence = (text: string): string => {
  const first = text.charAt(0).toUpperCase() + text.slice(1)
  return /[.!?…]$/.test(first) ? first : `${first}.`
}

const tagged = (term: string, text: string): string[] => ['.TP', term, roff(sentence(text))]
const options = (list: readonly OptionSpec[]): string[] =>
  list.flatMap((option) => tagged(optionTerm(option), optionText(option)))
const rows = (list: readonly Row[]): string[] => list.flatMap(([term, text]) => tagged(bold(term.trim()), text))

const examples = (list: readonly Example[]): string[] =>
  list.flatMap(([line, what]) => [
    '.PP',
    ...(what === '' ? [] : [roff(sentence(what))]),
    '.PP',
    '.RS 4',
    '.nf',
    roff(`sealsync ${line}`),
    '.fi',
    '.RE',
  ])

/** Of a command, options that no other page has. */
const ownOptions = ({ options: all = [] }: CommandSpec): OptionSpec[] => {
  const common = new Set(COMMON.map(longFlag))
  return all.filter((option) => option.group !== CONNECTION_GROUP && !common.has(longFlag(option)))
}

const isConnected = (spec: CommandSpec): boolean =>
  spec.options?.some(({ group }) => group === CONNECTION_GROUP) === true || spec.commands?.some(isConnected) === true

const synopsis = (path: string, spec: CommandSpec): string => {
  const words = (spec.usage ?? spec.arguments ?? '').split(' ').filter((word) => word !== '')
  const given = words.map((word) => {
    const [, open = '', name = word, close = ''] = /^([[<]?)([^\]>]*)([\]>]?)$/.exec(word) ?? []
    const shown = italic(name)
    return open === '[' ? `[${shown}]` : `${shown}${close === '' ? '' : ''}`
  })
  return [bold(`sealsync ${path}`), `[${italic('options')}]`, ...given].join(' ')
}

interface Leaf {
  readonly path: string
  readonly spec: CommandSpec
}

const leaves = (spec: CommandSpec, path: string): Leaf[] => [
  ...(spec.action === undefined ? [] : [{ path, spec }]),
  ...(spec.commands ?? []).flatMap((one) => leaves(one, `${path} ${one.name}`)),
]

const reference = (name: string, section: number) => `${bold(name)}(${section})`

function page(name: string, section: 1 | 7, about: string, body: readonly string[], also: readonly string[]): ManPage {
  const lines = [
    `.\\" Made from the tables of the program (src/cli/man.ts).`,
    // Without a date: the same program has the same pages.
    `.TH "${roff(name.toUpperCase())}" "${section}" "" "sealsync ${roff(VERSION)}" "sealsync manual"`,
    // Words are not divided, and lines end where they end.
    '.nh',
    '.ad l',
    '.SH NAME',
    `${roff(name)} \\- ${roff(about)}`,
    ...body,
    '.SH SEE ALSO',
    also.join(',\n'),
  ]
  return { name, section, text: `${lines.join('\n')}\n` }
}

const pageName = ({ name }: CommandSpec) => `sealsync-${name}`

function commandPage(spec: CommandSpec, commands: readonly CommandSpec[]): ManPage {
  const all = leaves(spec, spec.name)
  const isOne = all.length === 1 && all[0]!.spec === spec
  const connected = isConnected(spec)
  const body = [
    '.SH SYNOPSIS',
    ...all.flatMap((leaf, at) => [...(at === 0 ? [] : ['.br']), synopsis(leaf.path, leaf.spec)]),
    '.SH DESCRIPTION',
    roff(sentence(spec.summary)),
    ...(isOne ? [] : all.flatMap(({ path, spec }) => tagged(bold(path), spec.summary))),
    '.SH OPTIONS',
    ...all.flatMap((leaf) => {
      const own = ownOptions(leaf.spec)
      return own.length === 0 ? [] : [...(isOne ? [] : [`.SS ${roff(leaf.path)}`]), ...options(own)]
    }),
    ...(isOne || all.every((leaf) => ownOptions(leaf.spec).length === 0) ? [] : ['.SS Of all commands']),
    '.PP',
    `Options of every command are in ${reference('sealsync', 1)}${
      connected ? `, those for how a server is reached in ${reference('sealsync-connection', 7)}` : ''
    }.`,
    ...(spec.examples === undefined ? [] : ['.SH EXAMPLES', ...examples(spec.examples)]),
    '.SH EXIT STATUS',
    `As in ${reference('sealsync', 1)}.`,
  ]
  const related = commands
    .filter((one) => one.group === spec.group && one !== spec)
    .map((one) => reference(pageName(one), 1))
  return page(pageName(spec), 1, spec.summary, body, [reference('sealsync', 1), ...related])
}

function mainPage(commands: readonly CommandSpec[]): ManPage {
  const groups = Object.entries(GROUPS).flatMap(([group, heading]) => [
    `.SS ${roff(heading.replace(/:$/, ''))}`,
    ...commands
      .filter((spec) => (spec.group ?? 'program') === group)
      .flatMap((spec) => tagged(reference(pageName(spec), 1), spec.summary)),
  ])
  const topics = HELP_TOPICS.flatMap(({ name, rows: make }) =>
    make === undefined || name === 'exit-codes' ? [] : [`.SH ${name.toUpperCase()}`, ...rows(make())],
  )
  const body = [
    '.SH SYNOPSIS',
    `${bold('sealsync')} ${italic('command')} [${italic('options')}] [${italic('arguments')}]`,
    '.br',
    `${bold('sealsync help')} [${italic('command')}]`,
    '.SH DESCRIPTION',
    roff(
      'Transfers, synchronizes and backs up files with DRACOON-compatible servers, encrypted on this machine: the server never has a key. It is called sync, too, where that name is not another program’s.',
    ),
    '.SH COMMANDS',
    ...groups,
    '.SH OPTIONS',
    roff('Of every command; they may also stand before its name.'),
    ...options(COMMON),
    ...tagged(bold('-h, --help'), 'show what a command does, and its options'),
    ...tagged(bold('-V, --version'), 'print the version'),
    '.SH EXIT STATUS',
    ...rows(EXIT_ROWS),
    ...topics,
    '.SH NOTES',
    roff('Unofficial; not affiliated with DRACOON GmbH.'),
  ]
  const also = [reference('sealsync-connection', 7), ...commands.map((spec) => reference(pageName(spec), 1))]
  return page('sealsync', 1, 'end-to-end encrypted file transfer with DRACOON-compatible servers', body, also)
}

function connectionPage(): ManPage {
  const body = [
    '.SH DESCRIPTION',
    roff(
      'Options of every command that talks to a server. Those that are given at a login hold for all that is done with it; each is also a setting and a variable, see ENVIRONMENT in sealsync(1).',
    ),
    '.SH OPTIONS',
    ...options(CONNECTION),
  ]
  return page('sealsync-connection', 7, 'how servers are reached', body, [reference('sealsync', 1)])
}

/** All pages. */
export const manPages = (commands: readonly CommandSpec[]): ManPage[] => [
  mainPage(commands),
  ...commands.map((spec) => commandPage(spec, commands)),
  connectionPage(),
]
