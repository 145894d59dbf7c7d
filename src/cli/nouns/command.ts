/** One command, as a row of a table. What commander makes of it is in commander.ts. @module */
import type { Context } from '../context.ts'
import type { OptionSpec } from '../options/option.ts'

export type Action = (context: Context, ...args: never[]) => Promise<number | undefined> | Promise<void>

/** Headings of the help, in its order. */
export const GROUPS = Object.freeze({
  files: 'Files:',
  sync: 'Keeping in sync:',
  backup: 'Backups:',
  keys: 'Keys:',
  rooms: 'Rooms:',
  login: 'Login:',
  server: 'Embedded server:',
  program: 'This program:',
})

/** What an argument, or the value of an option, names; completion goes by it. `either`: a local or a remote path. */
export type Subject = 'file' | 'directory' | 'remote' | 'either' | 'profile' | 'set' | 'shell' | 'none'

/** A command line without the name of the program, and what it does. */
export type Example = readonly [line: string, what: string]

export interface CommandSpec {
  readonly name: string
  /** Where the help lists it; only commands at the top are in a group. */
  readonly group?: keyof typeof GROUPS
  /** As in the help: `<local> <remote>`, `[path]`. */
  readonly arguments?: string
  readonly summary: string
  /** What the help calls the arguments instead. */
  readonly usage?: string
  /** Explains the arguments in a part of the help of its own. */
  readonly argumentNote?: string
  /** What each argument names; the last stands for all behind it. Default: by what the arguments are called. */
  readonly takes?: readonly Subject[]
  /** Two or three for each command at the top, or for those below it. */
  readonly examples?: readonly Example[]
  readonly options?: readonly OptionSpec[]
  readonly commands?: readonly CommandSpec[]
  /** Loads what carries it out. */
  readonly action?: () => Promise<Action>
  /** Wrong settings do not stop it: it shows them, or tells of them in its summary. */
  readonly withProblems?: true
  /** It runs until it is stopped, ends by itself when it is, and takes its time for that; without a terminal, SIGHUP is for it to see to. */
  readonly isServer?: true
  /** Says what is wrong with the arguments, before anything is done. */
  readonly check?: (args: readonly unknown[]) => string | undefined
}

/** What arguments are called, and what they name. */
const SUBJECTS: Readonly<Record<string, Subject>> = Object.freeze({
  local: 'directory',
  directory: 'directory',
  remote: 'remote',
  path: 'remote',
  file: 'file',
  plan: 'file',
})

/** Of a command, what its argument at a place names, from 0; `none` where there is none. */
export function takenBy({ arguments: text = '', takes }: CommandSpec, place: number): Subject {
  const all = text.match(/<[^>]+>|\[[^\]]+\]/g) ?? []
  const isEndless = all.at(-1)?.includes('...') === true
  const at = isEndless ? Math.min(place, all.length - 1) : place
  const argument = all[at]
  if (argument === undefined) return 'none'
  // Of an endless one, the first may be something else than those behind it.
  if (takes !== undefined) return takes[Math.min(place, takes.length - 1)]!
  return SUBJECTS[argument.replace(/[<>[\].]/g, '')] ?? 'none'
}
