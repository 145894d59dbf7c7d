/** One option of a command, as a row of a table. What commander makes of it is in commander.ts. @module */

export interface OptionSpec {
  /** Names and argument as in the help: `-j, --jobs <n>`. */
  readonly flags: string
  readonly summary: string
  /** Nothing else is taken. */
  readonly choices?: readonly string[]
  readonly fallback?: string
  /** Variable that stands for it. */
  readonly variable?: string
  /** May be given several times; all values count. */
  readonly repeats?: true
  /** Each value goes, behind this sign, into one list with those of its like, in the order in which they were given. */
  readonly patternSign?: '' | '!'
  /** Heading in the help. */
  readonly group?: string
}

export const option = (
  flags: string,
  summary: string,
  more: Omit<OptionSpec, 'flags' | 'summary'> = {},
): OptionSpec => ({ flags, summary, ...more })

/** Puts options under a heading of the help. */
export const grouped = (group: string, options: readonly OptionSpec[]): OptionSpec[] =>
  options.map((one) => ({ ...one, group }))

/** The long name, as people write it: `--jobs`. */
export const longFlag = ({ flags }: OptionSpec): string => /--[a-z0-9-]+/.exec(flags)![0]

/** True when a word of a command line is a name of this option. */
export const isNamed = ({ flags }: OptionSpec, word: string): boolean => flags.split(/[ ,]+/).includes(word)
