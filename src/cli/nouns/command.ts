/** One command, as a row of a table. What commander makes of it is in commander.ts. @module */
import type { Context } from '../context.ts'
import type { OptionSpec } from '../options/option.ts'

export type Action = (context: Context, ...args: never[]) => Promise<number | undefined> | Promise<void>

export interface CommandSpec {
  readonly name: string
  /** As in the help: `<local> <remote>`, `[path]`. */
  readonly arguments?: string
  readonly summary: string
  /** What the help calls the arguments instead. */
  readonly usage?: string
  /** Explains the arguments in a part of the help of its own. */
  readonly argumentNote?: string
  readonly options?: readonly OptionSpec[]
  readonly commands?: readonly CommandSpec[]
  /** Loads what carries it out. */
  readonly action?: () => Promise<Action>
  /** Wrong settings do not stop it: it shows them, or tells of them in its summary. */
  readonly withProblems?: true
  /** Says what is wrong with the arguments, before anything is done. */
  readonly check?: (args: readonly unknown[]) => string | undefined
}
