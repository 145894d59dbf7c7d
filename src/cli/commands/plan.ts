/** plan and apply: what a run would do, kept in a file, to be carried out later. @module */
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { systemClock } from '../../environment.ts'
import { localError, SyncError } from '../../errors.ts'
import { writePrivateFile } from '../../local/atomic-file.ts'
import { isTransferPlan, type PlanFile, parsePlan, transferPlanOf } from '../../sync/plan-file.ts'
import type { Direction } from '../../sync/reconcile.ts'
import { planFileOf, type SyncOptions } from '../../sync/sync-run.ts'
import { type Context, statesPath, text } from '../context.ts'
import { camelCase } from '../settings.ts'
import { pairRunOf, runPair, syncOptions } from './sync.ts'
import { runTransfer, type TransferOptions, transferOf } from './transfer.ts'

/** Keeps a plan where `-o` says. */
async function write(context: Context, file: () => PlanFile): Promise<void> {
  const target = text(context.options, 'output')
  if (target === undefined) return
  await writePrivateFile(resolve(target), `${JSON.stringify(file(), undefined, 1)}\n`)
  context.output.info(`The plan is in ${target}. To carry it out: sync apply ${target}`)
}

/** Says what push, pull or both would do. */
export const plan =
  (direction: Direction) =>
  async (context: Context, first: string, second: string): Promise<number> => {
    const run = pairRunOf(context, direction, first, second)
    const options = run.options()
    const { outcome, exitCode } = await runPair(context, { ...run, dryRun: true, options: () => options })
    if (outcome.stoppedBy !== undefined) return exitCode
    const state = { directory: statesPath(), account: outcome.pair.account }
    await write(context, () => planFileOf(outcome.pair, { ...options, state }, outcome.steps, systemClock.now()))
    return exitCode
  }

/** Says what an upload or download would do. */
export const planTransfer =
  (direction: 'upload' | 'download') =>
  async (context: Context, paths: readonly string[]): Promise<number> => {
    const run = transferOf(context, direction, paths)
    const { outcome, exitCode } = await runTransfer(context, { ...run, dryRun: true })
    if (outcome.stoppedBy !== undefined) return exitCode
    await write(context, () => transferPlanOf(run, run.options(), outcome.steps ?? [], systemClock.now()))
    return exitCode
  }

/** Carries out a plan that somebody has looked at, as long as nothing has changed since. */
export async function apply(context: Context, path: string): Promise<number> {
  let content: string
  try {
    content = readFileSync(path, 'utf8')
  } catch (error) {
    throw localError(error, `read ${path}`)
  }
  const file = parsePlan(content)
  const planned = file.steps
  if (isTransferPlan(file)) {
    const { direction, sources, target } = file
    requireNone(context, ['max-transfer', 'max-duration'])
    const run = transferOf(context, direction, [...sources, target])
    const options = () => ({ ...run.options(), ...(file.options as TransferOptions), planned })
    return (await runTransfer(context, { ...run, options })).exitCode
  }
  const { direction, local, remote } = file
  const options = () => ({
    ...syncOptions(context, direction, local),
    ...(file.options as Partial<SyncOptions>),
    planned,
  })
  return (await runPair(context, { direction, local, remote, options })).exitCode
}

function requireNone({ options }: Context, flags: readonly string[]): void {
  const given = flags.find((flag) => options[camelCase(flag)] !== undefined)
  if (given === undefined) return
  throw new SyncError('usage', 'OPTION_INVALID', `--${given} is for plans of push, pull and both`)
}
