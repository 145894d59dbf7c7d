/** What was wrong with a command line, and what was probably meant. Loaded when there is something wrong. @module */
import type { UsageMistake } from './commander.ts'
import type { CommandSpec } from './nouns/command.ts'
import { COMMANDS } from './nouns/index.ts'
import { isNamed, longFlag } from './options/option.ts'
import { COMMON } from './options/shared.ts'
import { HELP_TOPICS } from './topics.ts'

/** How many letters have to be changed, added, left out or exchanged with their neighbour. */
export function distance(a: string, b: string): number {
  let before: number[] = []
  let row = Array.from({ length: b.length + 1 }, (_, at) => at)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const change = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      let least = Math.min(change, row[j]! + 1, next[j - 1]! + 1)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) least = Math.min(least, before[j - 2]! + 1)
      next.push(least)
    }
    before = row
    row = next
  }
  return row[b.length]!
}

/** The names that are closest to a word, if any is close at all. Nobody mistypes more letters than these. */
export function closest(word: string, names: Iterable<string>): string[] {
  if (word.length > 40) return []
  const most = Math.max(1, Math.min(3, Math.floor(word.replace(/^-+/, '').length * 0.4)))
  const found = [...new Set(names)].map((name) => ({ name, by: distance(word, name) })).filter(({ by }) => by <= most)
  const least = Math.min(...found.map(({ by }) => by))
  return found.filter(({ by }) => by === least).map(({ name }) => name)
}

interface Place {
  readonly path: string
  readonly spec: CommandSpec
}

const allBelow = (commands: readonly CommandSpec[], prefix = ''): Place[] =>
  commands.flatMap((spec) => {
    const path = `${prefix}${spec.name}`
    return [{ path, spec }, ...allBelow(spec.commands ?? [], `${path} `)]
  })

function specOf(path: readonly string[]): { spec: CommandSpec | undefined; commands: readonly CommandSpec[] } {
  let spec: CommandSpec | undefined
  let commands = COMMANDS
  for (const name of path) {
    spec = commands.find((one) => one.name === name)
    commands = spec?.commands ?? []
  }
  return { spec, commands }
}

const or = (names: readonly string[]): string =>
  names.length < 2 ? (names[0] ?? '') : `${names.slice(0, -1).join(', ')} or ${names.at(-1)}`

const MOST_NAMED = 5

/** Where an option belongs that is not one of this command. */
function aboutOption(flag: string, path: readonly string[], argv: readonly string[]): string | undefined {
  const users = allBelow(COMMANDS).filter(
    ({ spec }) => spec.action !== undefined && spec.options?.some((option) => isNamed(option, flag)),
  )
  const named = users.find(({ path: one }) => one.split(' ').every((name) => argv.includes(name)))
  if (named !== undefined && named.path !== path.join(' ') && named.path.startsWith(path.join(' '))) {
    return `${flag} is an option of \`${named.path}\`: write it behind that.`
  }
  if (users.length > 0) {
    const names = users.slice(0, MOST_NAMED).map(({ path }) => `\`${path}\``)
    const more = users.length > MOST_NAMED ? [...names, 'others'] : names
    return `${flag} is an option of ${more.length < 2 ? more[0] : `${more.slice(0, -1).join(', ')} and ${more.at(-1)}`}.`
  }
  const { spec } = specOf(path)
  const near = closest(flag, ['--help', '--version', ...(spec?.options ?? COMMON).map(longFlag)])
  return near.length === 0 ? undefined : `Did you mean ${or(near)}?`
}

function aboutCommand(word: string, path: readonly string[]): string | undefined {
  const { commands } = specOf(path)
  const topics = path.length === 0 ? ['help', ...HELP_TOPICS.map(({ name }) => name)] : []
  const near = closest(word, [...commands.map(({ name }) => name), ...topics])
  if (near.length > 0) return `Did you mean ${or(near)}?`
  const below = allBelow(COMMANDS).filter(({ path, spec }) => spec.name === word && path !== word)
  return below.length === 0
    ? undefined
    : `Did you mean ${or(below.slice(0, MOST_NAMED).map(({ path }) => `\`${path}\``))}?`
}

/**
 * @param argv - Words of the command line, without the program.
 * @returns the cause in a sentence, and what to do, in lines.
 */
export function explain(
  { mistake, path }: UsageMistake,
  argv: readonly string[],
): { message: string; hints: string[] } {
  const message = mistake.message.replace(/^error: /, '')
  const option = /^unknown option '([^'=]+)/.exec(message)?.[1]
  const command = /^unknown command '([^']*)'/.exec(message)?.[1]
  const meant =
    option !== undefined
      ? aboutOption(option, path, argv)
      : command !== undefined
        ? aboutCommand(command, path)
        : undefined
  const help = ['sync', ...(path.length === 0 ? ['--help'] : ['help', ...path])].join(' ')
  return { message: message.split('\n')[0]!, hints: [...(meant === undefined ? [] : [meant]), `See: ${help}`] }
}
