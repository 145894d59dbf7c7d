/** The tables of docs/options.md, made from those of the program. `npm run docs:options` writes them. @module */
import type { CommandSpec } from './nouns/command.ts'
import { COMMANDS } from './nouns/index.ts'
import { longFlag, type OptionSpec } from './options/option.ts'
import { COMMON, CONNECTION } from './options/shared.ts'

interface Leaf {
  /** As it is called: `backup run`. */
  readonly path: string
  readonly spec: CommandSpec
}

/** Commands that do something, with all that stand above them in their names. */
const leavesOf = (commands: readonly CommandSpec[], prefix = ''): Leaf[] =>
  commands.flatMap((spec) => {
    const path = `${prefix}${spec.name}`
    return [...(spec.action === undefined ? [] : [{ path, spec }]), ...leavesOf(spec.commands ?? [], `${path} `)]
  })

/** What moves content, or compares it: columns of one table, so that what one takes and another does not is seen. */
const JOBS: readonly string[] = [
  'upload',
  'download',
  'push',
  'pull',
  'both',
  'plan upload',
  'plan download',
  'plan push',
  'plan pull',
  'plan both',
  'apply',
  'resume',
  'retry',
  'backup run',
  'backup restore',
  'backup prune',
  'drill',
  'diff',
  'check',
  'verify',
]

const cell = (text: string) => text.replaceAll('|', '\\|')
const row = (...cells: readonly string[]) => `| ${cells.join(' | ')} |`
const table = (head: readonly string[], rows: readonly (readonly string[])[]) =>
  [row(...head), row(...head.map(() => '---')), ...rows.map((cells) => row(...cells))].join('\n')

const described = (options: readonly OptionSpec[]) =>
  table(
    ['option', 'what it does'],
    options.map(({ flags, summary, choices, fallback }) => {
      const more = [
        ...(choices === undefined ? [] : [`choices: ${choices.join(', ')}`]),
        ...(fallback === undefined ? [] : [`default: ${fallback}`]),
      ]
      return [`\`${cell(flags)}\``, cell(more.length === 0 ? summary : `${summary} (${more.join(', ')})`)]
    }),
  )

const namesOf = (options: readonly OptionSpec[]): ReadonlySet<string> => new Set(options.map(longFlag))

const has = ({ spec }: Leaf, options: readonly OptionSpec[]) => {
  const names = namesOf(spec.options ?? [])
  return options.every((option) => names.has(longFlag(option)))
}

function jobTable(jobs: readonly Leaf[], options: (leaf: Leaf) => readonly OptionSpec[]): string {
  const flags = [...new Set(jobs.flatMap((job) => options(job).map(longFlag)))].sort()
  return table(
    ['option', ...jobs.map(({ path }) => `\`${path}\``)],
    flags.map((flag) => [`\`${flag}\``, ...jobs.map((job) => (namesOf(options(job)).has(flag) ? '✓' : ''))]),
  )
}

/** The whole of docs/options.md. */
export function optionTables(): string {
  const leaves = leavesOf(COMMANDS)
  const online = leaves.filter((leaf) => has(leaf, CONNECTION))
  const offline = leaves.filter((leaf) => !online.includes(leaf))
  const shared = namesOf([...COMMON, ...CONNECTION])
  const ownOptions = (leaf: Leaf) => {
    const common = online.includes(leaf) ? shared : namesOf(COMMON)
    return (leaf.spec.options ?? []).filter((option) => !common.has(longFlag(option)))
  }
  const jobs = JOBS.map((path) => leaves.find((leaf) => leaf.path === path)!)
  const sections = leaves
    .filter((leaf) => ownOptions(leaf).length > 0)
    .map((leaf) => `### \`${leaf.path}\`\n\n${described(ownOptions(leaf))}`)
  const list = (some: readonly Leaf[]) => some.map(({ path }) => `\`${path}\``).join(', ')
  return `# Commands and their options

Written by \`npm run docs:options\` from the tables that the program itself works with (\`src/cli/nouns/\`, \`src/cli/options/\`);
\`sync COMMAND --help\` says the same.

## Of every command

${described(COMMON)}

## Of every command that talks to a server

${described(CONNECTION)}

Not of these: ${list(offline)}.

## What moves and compares content

Besides those above.

${jobTable(jobs, ownOptions)}

## Each command

Besides those above. Commands without a part here have no more: ${list(leaves.filter((leaf) => ownOptions(leaf).length === 0))}.

${sections.join('\n\n')}
`
}
