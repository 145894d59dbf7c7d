/** plan and apply: what a run would do, kept in a file, to be carried out later. @module */
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { type Command, type Direction, type PlanFile, parsePlan, placesIn, planFileOf } from '../../client/index.ts'
import { systemClock } from '../../environment.ts'
import { localError } from '../../errors.ts'
import { writePrivateFile } from '../../local/atomic-file.ts'
import { type Context, text } from '../context.ts'
import { runOf, runOne } from './sync.ts'

/** Keeps a plan where `-o` says. */
async function write(context: Context, file: () => PlanFile): Promise<void> {
  const target = text(context.options, 'output')
  if (target === undefined) return
  await writePrivateFile(resolve(target), `${JSON.stringify(file(), undefined, 1)}\n`)
  context.output.info(`The plan is in ${target}. To carry it out: sync apply ${target}`)
}

/** Says what a run would do. */
const plan =
  (command: Command) =>
  async (context: Context, places: readonly string[]): Promise<number> => {
    const run = runOf(context, command, places)
    const options = run.options()
    const { outcome, exitCode } = await runOne(context, { ...run, dryRun: true, options: () => options })
    if (outcome.stoppedBy !== undefined) return exitCode
    await write(context, () => planFileOf(outcome.pair, command, options, outcome.steps, systemClock.now()))
    return exitCode
  }

export const planPair = (direction: Direction) => (context: Context, first: string, second: string) =>
  plan(direction)(context, [first, second])

export const planTransfer = plan

/** Carries out a plan that somebody has looked at, as long as nothing has changed since. */
export async function apply(context: Context, path: string): Promise<number> {
  let content: string
  try {
    content = readFileSync(path, 'utf8')
  } catch (error) {
    throw localError(error, `read ${path}`)
  }
  const file = parsePlan(content)
  const run = runOf(context, file.direction, placesIn(file))
  return (await runOne(context, { ...run, dryRun: false, start: (client, how) => client.apply(file, how) })).exitCode
}
