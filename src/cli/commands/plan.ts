/** plan and apply: what a run would do, kept in a file, to be carried out later. @module */
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import {
  type Direction,
  type PlacedCommand,
  type PlanFile,
  pairIn,
  parsePlan,
  planFileOf,
  type Told,
} from '../../client/index.ts'
import { systemClock } from '../../environment.ts'
import { localError } from '../../errors.ts'
import { writePrivateFile } from '../../local/atomic-file.ts'
import { type Context, text } from '../context.ts'
import { type JobRun, runAgain, runOf, runOne } from './sync.ts'

/** Keeps a plan where `-o` says. */
async function write(context: Context, file: () => PlanFile): Promise<void> {
  const target = text(context.options, 'output')
  if (target === undefined) return
  await writePrivateFile(resolve(target), `${JSON.stringify(file(), undefined, 1)}\n`)
  context.output.info(`The plan is in ${target}. To carry it out: sync apply ${target}`)
}

/** Says what a run would do, and keeps that. */
async function planRun(context: Context, run: JobRun): Promise<number> {
  const told: { options?: Told } = {}
  const options = () => {
    told.options = run.options()
    return told.options
  }
  const { outcome, exitCode } = await runOne(context, { ...run, dryRun: true, options })
  if (outcome.stoppedBy !== undefined) return exitCode
  const { pair, steps } = outcome
  await write(context, () => planFileOf(pair, run.command, told.options ?? {}, steps, systemClock.now()))
  return exitCode
}

const plan = (command: PlacedCommand) => (context: Context, places: readonly string[]) =>
  planRun(context, runOf(context, command, places))

export const planPair = (direction: Direction) => (context: Context, first: string, second: string) =>
  plan(direction)(context, [first, second])

export const planTransfer = plan

export const planBackup = async (context: Context, name: string): Promise<number> =>
  planRun(context, (await import('./backup.ts')).backupRun(context, name))

export const planRestore = async (context: Context, name: string, places: readonly string[]): Promise<number> =>
  planRun(context, (await import('./backup.ts')).restoreRun(context, name, places))

/** Carries out a plan that somebody has looked at, as long as nothing has changed since. */
export async function apply(context: Context, path: string): Promise<number> {
  let content: string
  try {
    content = readFileSync(path, 'utf8')
  } catch (error) {
    throw localError(error, `read ${path}`)
  }
  const file = parsePlan(content)
  const run = runAgain(context, file.direction, pairIn(file), (client, how) => client.apply(file, how))
  return (await runOne(context, run)).exitCode
}
