/**
 * What could come next in a command line, by the tables of commands and options: pure. What only a disk or a server knows is named, not
 * looked up. See answer.ts.
 * @module
 */
import { type CommandSpec, type Subject, takenBy } from '../nouns/command.ts'
import { COMMANDS } from '../nouns/index.ts'
import { isNamed, longFlag, type OptionSpec } from '../options/option.ts'
import { COMMON, CONNECTION } from '../options/shared.ts'
import { SHELLS } from '../shells.ts'
import { HELP_TOPICS } from '../topics.ts'

export interface Candidate {
  readonly value: string
  readonly about?: string
}

export interface Expected {
  /** What the tables know, whether it begins with the word or not. */
  readonly candidates: readonly Candidate[]
  /** What else may come: of the names that a disk, a server or the profiles have. */
  readonly subject: Subject
  /** The part of the word that names it; behind `--option=` only the value. */
  readonly word: string
  /** What stands before that part. */
  readonly before: string
  /** Options for the connection that stand in the line, with their values, to ask the server in the same way. */
  readonly connection: readonly string[]
}

/** Options by what their values are called. */
const SUBJECTS: Readonly<Record<string, Subject>> = Object.freeze({
  file: 'file',
  'file|sha256': 'file',
  dir: 'directory',
  directory: 'directory',
  path: 'remote',
})

/** Those whose value is called like many others. */
const BY_FLAG: Readonly<Record<string, Subject>> = Object.freeze({ '--profile': 'profile', '--path': 'none' })

const HELP_OPTION: OptionSpec = { flags: '-h, --help', summary: 'show what the command does, and its options' }

const valueName = ({ flags }: OptionSpec): string | undefined => /<([^>]+)>/.exec(flags)?.[1]?.replace(/\.+$/, '')

const valuesOf = (option: OptionSpec): readonly string[] => {
  const name = valueName(option) ?? ''
  return option.choices ?? (name.includes('|') && name !== 'file|sha256' && name !== 'n|n%' ? name.split('|') : [])
}

const valueSubject = (option: OptionSpec): Subject =>
  BY_FLAG[longFlag(option)] ?? SUBJECTS[valueName(option) ?? ''] ?? 'none'

const commandCandidates = (commands: readonly CommandSpec[]): Candidate[] =>
  commands.map(({ name, summary }) => ({ value: name, about: summary }))

/** There are many of them, and nobody looks for one without knowing how it begins. */
const SHORTEST_FOR_CONNECTION = 4

function optionCandidates(options: readonly OptionSpec[], given: ReadonlySet<OptionSpec>, word: string): Candidate[] {
  const connection = new Set(CONNECTION.map(longFlag))
  return [...options, HELP_OPTION]
    .filter((option) => option.repeats === true || option.patternSign !== undefined || !given.has(option))
    .map((option) => ({ value: longFlag(option), about: option.summary }))
    .filter(({ value }) => !connection.has(value) || word.length >= SHORTEST_FOR_CONNECTION)
}

const NONE = { candidates: [], subject: 'none', before: '', connection: [] } as const

/** Behind `help`: commands, those below them, and topics. */
function afterHelp(words: readonly string[], word: string): Expected {
  let commands = COMMANDS
  for (const name of words) commands = commands.find((spec) => spec.name === name)?.commands ?? []
  const topics = words.length === 0 ? HELP_TOPICS.map(({ name, about }) => ({ value: name, about })) : []
  return { ...NONE, candidates: [...commandCandidates(commands), ...topics], word }
}

/** @param words - Behind the name of the program; the last is the one that is being written, and may be empty. */
export function expectedAfter(words: readonly string[]): Expected {
  const before = words.slice(0, -1)
  const word = words.at(-1) ?? ''
  let spec: CommandSpec | undefined
  let commands = COMMANDS
  let argument = 0
  let wanting: OptionSpec | undefined
  let onlyArguments = false
  const given = new Set<OptionSpec>()
  const connection: string[] = []
  const options = (): readonly OptionSpec[] => spec?.options ?? COMMON
  const connecting = [...CONNECTION, ...COMMON].filter((option) => valueName(option) !== undefined)
  for (const [at, one] of before.entries()) {
    if (wanting !== undefined) {
      if (connecting.some((option) => longFlag(option) === longFlag(wanting!))) connection.push(longFlag(wanting), one)
      wanting = undefined
    } else if (onlyArguments || !/^-./.test(one)) {
      const next = argument === 0 ? commands.find(({ name }) => name === one) : undefined
      if (spec === undefined && one === 'help') return afterHelp(before.slice(at + 1), word)
      if (next === undefined) {
        if (spec === undefined) return { ...NONE, word }
        argument++
      } else {
        spec = next
        commands = next.commands ?? []
      }
    } else if (one === '--') {
      onlyArguments = true
    } else {
      const [flag = '', value] = one.startsWith('--') ? one.split(/=(.*)/s) : [one]
      const option = options().find((candidate) => isNamed(candidate, flag))
      if (option === undefined) continue
      given.add(option)
      if (valueName(option) === undefined) continue
      if (value === undefined) wanting = option
      else if (connecting.some((other) => longFlag(other) === flag)) connection.push(flag, value)
    }
  }
  const toValue = (option: OptionSpec, value: string, behind: string): Expected => ({
    candidates: valuesOf(option).map((choice) => ({ value: choice })),
    subject: valueSubject(option),
    word: value,
    before: behind,
    connection,
  })
  if (wanting !== undefined) return toValue(wanting, word, '')
  const behindSign = onlyArguments ? null : /^(--[a-z0-9-]+)=(.*)$/s.exec(word)
  if (behindSign !== null) {
    const option = options().find((candidate) => isNamed(candidate, behindSign[1]!))
    return option === undefined ? { ...NONE, word } : toValue(option, behindSign[2]!, `${behindSign[1]}=`)
  }
  if (!onlyArguments && word.startsWith('-') && (word !== '-' || argument === 0)) {
    return { ...NONE, candidates: optionCandidates(options(), given, word), word }
  }
  const names = argument === 0 ? commandCandidates(commands) : []
  const all = spec === undefined ? [...names, { value: 'help', about: 'show what a command does' }] : names
  const subject = spec?.action === undefined ? 'none' : takenBy(spec, argument)
  const shells = subject === 'shell' ? SHELLS.map((value) => ({ value })) : []
  return { candidates: [...all, ...shells], subject, word, before: '', connection }
}
