/** Makes commander's commands and options from the tables in nouns/ and options/. @module */
import { Argument, Command, Option } from 'commander'
import { VERSION } from '../version.ts'
import { EXIT } from './exit-codes.ts'
import type { CommandSpec } from './nouns/command.ts'
import { COMMANDS } from './nouns/index.ts'
import type { OptionSpec } from './options/option.ts'

const EXIT_TABLE = `
Exit codes: 0 done · 1 bug · 2 usage or configuration · 3 some entries failed · 4 login needed · 5 network or server,
try later · 6 refused or quota · 7 integrity · 8 another run holds the lock · 9 safety stop · 10 local disk ·
11 differences found ·
12 conflicts left for a person · 13 key problem · 129/130/143 signals`

/** What a command does once its arguments are read. */
export type Run = (spec: CommandSpec, command: Command, args: readonly unknown[]) => Promise<void>

const collect = (value: string, previous: string[] | undefined): string[] => [...(previous ?? []), value]

function addOption(target: Command, spec: OptionSpec): void {
  const { flags, summary, choices, fallback, variable, repeats, patternSign, group } = spec
  const option = new Option(flags, summary)
  if (choices !== undefined) option.choices(choices)
  if (fallback !== undefined) option.default(fallback)
  if (variable !== undefined) option.env(variable)
  if (group !== undefined) option.helpGroup(group)
  // Not a variadic option: that would swallow the arguments behind it.
  if (repeats || patternSign !== undefined) option.argParser(collect)
  target.addOption(option)
  if (patternSign === undefined) return
  target.on(`option:${option.name()}`, (pattern: string) => {
    const before: string[] = target.getOptionValue('patterns') ?? []
    target.setOptionValue('patterns', [...before, `${patternSign}${pattern}`])
  })
}

/**
 * Adds a command and those below it.
 *
 * @param mentions - True for names that this call may mean. Others are listed in the help of their parent, and no more.
 */
function addCommand(parent: Command, spec: CommandSpec, run: Run, mentions: (name: string) => boolean): void {
  const { name, summary, usage, argumentNote, options = [], commands = [], action, check } = spec
  const target = parent.command(name).description(summary)
  for (const text of spec.arguments?.match(/<[^>]+>|\[[^\]]+\]/g) ?? []) {
    target.addArgument(new Argument(text, argumentNote))
  }
  // The help of the parent says whether there are any.
  for (const option of mentions(name) ? options : options.slice(0, 1)) addOption(target, option)
  if (!mentions(name)) return
  if (usage !== undefined) target.usage(`[options] ${usage}`)
  if (action !== undefined) {
    target.action(async (...args: unknown[]) => {
      const given = args.slice(0, -2)
      const problem = check?.(given)
      if (problem !== undefined) target.error(`error: ${problem}`, { exitCode: EXIT.usage })
      await run(spec, target, given)
    })
  }
  for (const one of commands) addCommand(target, one, run, mentions)
}

/**
 * The program with all its commands; only those that `words` mention are made whole, which is most of the time of a start.
 *
 * @param words - Of the command line, without the program itself.
 */
export function createProgram(words: readonly string[], run: Run): Command {
  const program = new Command('sync')
    .description('End-to-end encrypted file transfer with DRACOON-compatible servers')
    .version(VERSION, '-V, --version')
    .addHelpText('after', EXIT_TABLE)
    .showHelpAfterError('(see --help)')
    .exitOverride()
    .enablePositionalOptions()
  const mentioned = new Set(words)
  for (const spec of COMMANDS) addCommand(program, spec, run, (name) => mentioned.has(name))
  return program
}
