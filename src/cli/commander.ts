/** Makes commander's commands, options and help from the tables in nouns/ and options/. @module */
import { Argument, Command, type CommanderError, type Help, Option } from 'commander'
import { VERSION } from '../version.ts'
import { EXIT } from './exit-codes.ts'
import { type CommandSpec, type Example, GROUPS } from './nouns/command.ts'
import { COMMANDS } from './nouns/index.ts'
import type { OptionSpec } from './options/option.ts'
import { COMMON, CONNECTION, CONNECTION_GROUP } from './options/shared.ts'
import { EXIT_ROWS, HELP_TOPICS, type Row } from './topics.ts'

/** What a command does once its arguments are read. */
export type Run = (spec: CommandSpec, command: Command, args: readonly unknown[]) => Promise<void>

/** A mistake in a command line, and the command that it was made in: `['keys', 'trust']`. */
export class UsageMistake extends Error {
  override readonly name = 'UsageMistake'
  readonly mistake: CommanderError
  readonly path: readonly string[]
  constructor(mistake: CommanderError, path: readonly string[]) {
    super(mistake.message)
    this.mistake = mistake
    this.path = path
  }
}

const collect = (value: string, previous: string[] | undefined): string[] => [...(previous ?? []), value]

function addOption(target: Command, spec: OptionSpec): void {
  const { flags, summary, choices, fallback, variable, repeats, patternSign, group } = spec
  const option = new Option(flags, summary)
  if (choices !== undefined) option.choices(choices)
  if (fallback !== undefined) option.default(fallback)
  if (variable !== undefined) option.env(variable)
  if (group !== undefined) option.helpGroup(group)
  // There are more of them than of all others together.
  if (group === CONNECTION_GROUP) option.hideHelp()
  // Not a variadic option: that would swallow the arguments behind it.
  if (repeats || patternSign !== undefined) option.argParser(collect)
  target.addOption(option)
  if (patternSign === undefined) return
  target.on(`option:${option.name()}`, (pattern: string) => {
    const before: string[] = target.getOptionValue('patterns') ?? []
    target.setOptionValue('patterns', [...before, `${patternSign}${pattern}`])
  })
}

/** Where there are fewer columns for a text, it goes below its term. */
const NARROWEST_TEXT = 30
const WIDEST_TERM = 30

/** A text, wrapped and indented. */
const indented = (text: string, width: number, indent: number, helper: Help): string =>
  helper.boxWrap(text, Math.max(10, width - indent)).replace(/^(?=.)/gm, ' '.repeat(indent))

const widthOf = (helper: Help) => Math.max(20, helper.helpWidth ?? 80)

const LAYOUT: Partial<Help> = {
  minWidthToWrap: 10,
  subcommandTerm: (command) =>
    [command.name(), command.usage().replace(/^\[options\] ?|\[command\] ?/g, '')].join(' ').trim(),
  padWidth(command, helper) {
    const widest = [
      ...helper.visibleOptions(command).map((option) => helper.optionTerm(option).length),
      ...helper.visibleCommands(command).map((one) => helper.subcommandTerm(one).length),
    ]
    return Math.max(0, ...widest.filter((length) => length <= WIDEST_TERM))
  },
  formatItem(term, termWidth, description, helper) {
    const width = widthOf(helper)
    if (description === '') return `  ${term}`
    const column = termWidth + 4
    if (width - column < NARROWEST_TEXT) return `  ${term}\n${indented(description, width, 6, helper)}`
    const text = indented(description, width, column, helper)
    return term.length > termWidth ? `  ${term}\n${text}` : `  ${term.padEnd(termWidth)}  ${text.trimStart()}`
  },
}

const rowsText = (rows: readonly Row[], helper: Help): string => {
  const widest = Math.max(...rows.map(([term]) => term.length))
  return rows.map(([term, text]) => helper.formatItem(term, Math.min(widest, WIDEST_TERM), text, helper)).join('\n')
}

const helperOf = (command: Command): Help => {
  const helper = command.createHelp()
  helper.prepareContext({ helpWidth: command.configureOutput().getOutHelpWidth?.() ?? 80 })
  return helper
}

function examplesText(examples: readonly Example[], helper: Help): string {
  const lines = examples.map(([line, what]) =>
    [`  sync ${line}`, ...(what === '' ? [] : [indented(what, widthOf(helper), 6, helper)])].join('\n'),
  )
  return `\nExamples:\n${lines.join('\n')}`
}

/** What the help of a command says behind its options. */
function afterHelp(spec: CommandSpec, command: Command): string {
  const helper = helperOf(command)
  const parts: string[] = []
  if (spec.examples !== undefined) parts.push(examplesText(spec.examples, helper))
  if (spec.options?.some(({ group }) => group === CONNECTION_GROUP)) {
    parts.push(
      `\n${indented('Options for how the server is reached: sync help connection', widthOf(helper), 0, helper)}`,
    )
  }
  return parts.join('\n')
}

/** Commands of the program itself that take options of every command, so that these may stand before a name, too. */
function addCommon(target: Command, shown: boolean): void {
  for (const { flags, summary } of COMMON) {
    const option = new Option(flags, summary)
    if (!shown) option.hideHelp()
    target.addOption(option)
  }
}

/**
 * Adds a command and those below it.
 *
 * @param mentions - True for names that this call may mean. Others are listed in the help of their parent, and no more.
 */
function addCommand(
  parent: Command,
  spec: CommandSpec,
  run: Run,
  mentions: (name: string) => boolean,
  above: readonly string[],
): void {
  const { name, group, summary, usage, argumentNote, options = [], commands = [], action, check } = spec
  const target = parent.command(name).description(summary).helpCommand(false)
  if (group !== undefined) target.helpGroup(GROUPS[group])
  for (const text of spec.arguments?.match(/<[^>]+>|\[[^\]]+\]/g) ?? []) {
    target.addArgument(new Argument(text, argumentNote))
  }
  if (usage !== undefined) target.usage(`[options] ${usage}`)
  if (!mentions(name)) return
  const path = [...above, name]
  target.exitOverride((error) => {
    throw new UsageMistake(error, path)
  })
  for (const option of options) addOption(target, option)
  if (options.length === 0) addCommon(target, false)
  target.addHelpText('after', () => afterHelp(spec, target))
  if (action !== undefined) {
    target.action(async (...args: unknown[]) => {
      const given = args.slice(0, -2)
      const problem = check?.(given)
      if (problem !== undefined) target.error(`error: ${problem}`, { exitCode: EXIT.usage })
      await run(spec, target, given)
    })
  }
  for (const one of commands) addCommand(target, one, run, mentions, path)
}

function showTopic(program: Command, { name, about, rows }: (typeof HELP_TOPICS)[number]): void {
  const helper = helperOf(program)
  const text =
    rows === undefined
      ? rowsText(
          CONNECTION.map(({ flags, summary }) => [flags, summary]),
          helper,
        )
      : rowsText(rows(), helper)
  program.configureOutput().writeOut?.(`${indented(`${name}: ${about}`, widthOf(helper), 0, helper)}\n\n${text}\n`)
}

/** Shows what there is to say of a command, or of a topic. */
function showHelp(program: Command, words: readonly string[]): void {
  const topic = words.length === 1 ? HELP_TOPICS.find(({ name }) => name === words[0]) : undefined
  if (topic !== undefined) {
    showTopic(program, topic)
    return
  }
  let command = program
  for (const word of words) {
    const next = command.commands.find((one) => one.name() === word)
    if (next === undefined) {
      command.error(`error: unknown command '${word}'`, { exitCode: EXIT.usage, code: 'commander.unknownCommand' })
    }
    command = next!
  }
  command.outputHelp()
}

/** Behind the list of commands. */
function lastHelp(program: Command): string {
  const helper = helperOf(program)
  const width = widthOf(helper)
  const topics = HELP_TOPICS.map(({ name, about }): Row => [`help ${name}`, about])
  const codes = `Exit codes: ${EXIT_ROWS.map(([code, text]) => `${code} ${text}`).join(' · ')}`
  return [
    '',
    'More help:',
    rowsText([['help COMMAND', 'a command: its options, and examples'], ...topics], helper),
    '',
    indented(codes, width, 0, helper),
  ].join('\n')
}

/**
 * The program with all its commands; only those that `words` mention are made whole, which is most of the time of a start.
 *
 * @param words - Of the command line, without the program itself.
 */
export function createProgram(words: readonly string[], run: Run): Command {
  const program = new Command('sync')
  program
    .description('End-to-end encrypted file transfer with DRACOON-compatible servers')
    .configureHelp(LAYOUT)
    // What was wrong is said by whoever runs it; see usage.ts.
    .configureOutput({ outputError: () => {} })
    .showSuggestionAfterError(false)
    .usage('[options] COMMAND')
    .version(VERSION, '-V, --version')
    .addHelpText('after', () => lastHelp(program))
    .exitOverride((error) => {
      throw new UsageMistake(error, [])
    })
    .enablePositionalOptions()
    .helpCommand(false)
  addCommon(program, true)
  const mentioned = new Set(words)
  const order = Object.keys(GROUPS)
  const place = ({ group }: CommandSpec) => order.indexOf(group ?? 'program')
  for (const spec of [...COMMANDS].sort((a, b) => place(a) - place(b))) {
    addCommand(program, spec, run, (name) => mentioned.has(name), [])
  }
  program
    .command('help', { hidden: true })
    .argument('[command...]')
    .action((path: readonly string[]) => showHelp(program, path))
  return program
}
