/** Plans as people and programs read them, and as files that can be looked at first and applied later. @module */
import type { RemoteNode } from '../api/wire.ts'
import { SyncError } from '../errors.ts'
import { bytesOf, type Direction, type SyncStep } from './reconcile.ts'
import type { Pair } from './state.ts'
import { showPath } from './tree.ts'

/** One line of a plan. */
export interface PlanLine {
  readonly do: SyncStep['do']
  readonly path: string
  /** Of moves: from where; of conflicts that are kept twice: the name of the copy; of what goes beside something: its name. */
  readonly other?: string
  readonly bytes: number
  readonly reason: string
  /** What it was planned for; anything else is another plan. */
  readonly of: string
}

interface CommonPlan {
  readonly format: 'sealsync-plan'
  readonly version: 1
  readonly createdAt: string
  readonly options: Readonly<Record<string, unknown>>
  readonly steps: readonly PlanLine[]
}

export interface PairPlan extends CommonPlan {
  readonly direction: Direction
  readonly local: string
  readonly remote: string
}

export interface TransferPlan extends CommonPlan {
  readonly direction: 'upload' | 'download'
  readonly sources: readonly string[]
  readonly target: string
  /** What the only source is called there; absent: as it is. */
  readonly as?: string
}

/** Of a backup set: a run of it, or a restore of one. */
export interface SetPlan extends CommonPlan {
  readonly direction: 'backup' | 'restore'
  readonly set: string
  /** Of a restore: the directory; of a run: the sources, in words. */
  readonly local: string
  readonly remote: string
}

/** A plan that can be kept as JSON, looked at, and applied later. */
export type PlanFile = PairPlan | TransferPlan | SetPlan

const isTransferPlan = (plan: PlanFile): plan is TransferPlan =>
  plan.direction === 'upload' || plan.direction === 'download'
const isSetPlan = (plan: PlanFile): plan is SetPlan => plan.direction === 'backup' || plan.direction === 'restore'

/** The places of a plan, of an account that is not known yet. */
export function pairIn(plan: PlanFile): Pair {
  if (isSetPlan(plan)) {
    const { direction, set, local, remote } = plan
    return { account: '', local, remote, backup: { direction, set } }
  }
  if (!isTransferPlan(plan)) return { account: '', local: plan.local, remote: plan.remote }
  const { direction, sources, target, as } = plan
  const places = direction === 'upload' ? [sources.join(' '), target] : [target, sources.join(' ')]
  return {
    account: '',
    local: places[0]!,
    remote: places[1]!,
    transfer: { direction, sources, ...(as === undefined ? {} : { as }) },
  }
}

/** Steps that change something. */
export const isChange = ({ do: action }: Pick<SyncStep, 'do'>): boolean =>
  action !== 'adopt' && action !== 'forget' && action !== 'keep'

/** A step as people and programs read it. */
export function planLine(step: SyncStep): PlanLine {
  const other = otherOf(step)
  return {
    do: step.do,
    path: showPath(step.path),
    ...(other === undefined ? {} : { other }),
    bytes: bytesOf(step),
    reason: step.reason,
    of: identify(step),
  }
}

function otherOf(step: SyncStep): string | undefined {
  if ('from' in step) return showPath(step.from)
  if ('copy' in step) return showPath(step.copy)
  return 'beside' in step && step.beside !== undefined ? showPath(step.beside.path) : undefined
}

function identify(step: SyncStep): string {
  const local = 'local' in step ? step.local : step.do === 'download' ? (step.replaces ?? step.beside) : undefined
  const remote = 'remote' in step ? step.remote : step.do === 'upload' ? (step.replaces ?? step.beside) : undefined
  return identity(local, remote?.node)
}

function identity(local: { size: number; mtimeMs: number } | undefined, node: RemoteNode | undefined): string {
  const parts: string[] = []
  if (local !== undefined) parts.push(`local ${local.size} ${local.mtimeMs}`)
  // A folder is as large as what is in it, which has steps of its own.
  if (node !== undefined) parts.push(`remote ${node.id} ${(node.type === 'file' && node.size) || 0}`)
  return parts.join(', ')
}

/** A plan with all it needs to be made again. */
export function planFileOf(
  { local, remote, transfer, backup }: Pair,
  direction: PlanFile['direction'],
  options: Recordable,
  steps: readonly SyncStep[],
  now: number,
): PlanFile {
  const common = {
    format: 'sealsync-plan',
    version: 1,
    createdAt: new Date(now).toISOString(),
    options: recordedOf(options),
    steps: steps.filter(isChange).map(planLine),
  } as const
  if (direction === 'upload' || direction === 'download') {
    const target = direction === 'upload' ? remote : local
    const { sources = [], as } = transfer ?? {}
    return { ...common, direction, sources, target, ...(as === undefined ? {} : { as }) }
  }
  if (direction === 'backup' || direction === 'restore')
    return { ...common, direction, set: backup?.set ?? '', local, remote }
  return { ...common, direction, local, remote }
}

/** The options that decide what a run does. */
export interface Recordable {
  readonly delete?: boolean | undefined
  readonly checksum?: boolean | undefined
  readonly contents?: boolean | undefined
  readonly onConflict?: string | undefined
  readonly prefer?: string | undefined
  readonly oneFileSystem?: boolean | undefined
  readonly names?: string | undefined
  readonly manifest?: boolean | undefined
  readonly keepShareLinks?: boolean | undefined
  readonly selection?: object | undefined
  /** Of backups: the set as it was configured. */
  readonly set?: object | undefined
  /** Of restores. */
  readonly run?: string | undefined
  readonly paths?: readonly string[] | undefined
  readonly trustTimes?: boolean | undefined
}

/** What another run has to be told to do the same. */
export function recordedOf(options: Recordable): Readonly<Record<string, unknown>> {
  const { checksum = false, oneFileSystem = false, names = 'report', manifest = true, selection = {} } = options
  const { delete: deletes, contents, onConflict, prefer, set, run, paths, trustTimes, keepShareLinks } = options
  const given = { delete: deletes, contents, onConflict, prefer, set, run, paths, trustTimes }
  return {
    checksum,
    oneFileSystem,
    names,
    selection,
    ...(manifest ? {} : { manifest }),
    ...(keepShareLinks === true ? { keepShareLinks } : {}),
    ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)),
  }
}

/**
 * Compares what was planned with what would be done now.
 *
 * @throws {SyncError} `PLAN_DRIFTED` (class `safety`), naming the first places that differ.
 */
export function requireSamePlan(planned: readonly PlanLine[], steps: readonly PlanLine[]): void {
  const show = ({ do: action, path, other, of }: PlanLine) => JSON.stringify([action, path, other ?? '', of])
  const [before, now] = [planned, steps].map((lines) => new Map(lines.map((line) => [show(line), line])))
  const drifted = new Set<string>()
  for (const [key, { path }] of before!) if (!now!.has(key)) drifted.add(path)
  for (const [key, { path }] of now!) if (!before!.has(key)) drifted.add(path)
  if (drifted.size === 0) return
  const some = [...drifted].slice(0, 3).join(', ')
  throw new SyncError(
    'safety',
    'PLAN_DRIFTED',
    `Something has changed since this was planned: ${some}${drifted.size > 3 ? ', …' : ''}`,
    {
      hint: 'Nothing was done. Make a new plan.',
    },
  )
}

const isTexts = (value: unknown): value is readonly string[] =>
  Array.isArray(value) && value.every((one) => typeof one === 'string')

/** True for what a set is, apart from its name and place. */
function isSetOptions(value: unknown): boolean {
  const { sources, exclude, oneFileSystem, maxSize } = (value ?? {}) as Record<string, unknown>
  const isSized = maxSize === undefined || Number.isSafeInteger(maxSize)
  return isTexts(sources) && sources.length > 0 && isTexts(exclude) && typeof oneFileSystem === 'boolean' && isSized
}

/** @throws {SyncError} `PLAN_INVALID` (class `usage`). */
export function parsePlan(text: string): PlanFile {
  const invalid = (why: string) =>
    new SyncError('usage', 'PLAN_INVALID', `This is no plan: ${why}`, { hint: 'Make one with: sync plan … -o FILE' })
  let value: Partial<PairPlan & Omit<TransferPlan, 'direction'> & Omit<SetPlan, 'direction'>>
  try {
    value = JSON.parse(text)
  } catch {
    throw invalid('not JSON')
  }
  if (value?.format !== 'sealsync-plan' || value.version !== 1) throw invalid('unknown format')
  const { local, remote, sources, target, as, steps, options, set } = value
  const direction = String(value.direction)
  const isTransfer = ['upload', 'download'].includes(direction)
  const isSet = ['backup', 'restore'].includes(direction)
  if (!isTransfer && !isSet && !['push', 'pull', 'both'].includes(direction)) throw invalid('unknown direction')
  if (isSet && typeof set !== 'string') throw invalid('incomplete')
  const isPlaced = isTransfer
    ? isTexts(sources) && sources.length > 0 && typeof target === 'string'
    : typeof local === 'string' && typeof remote === 'string'
  const isNamed = as === undefined || (isTransfer && typeof as === 'string' && as !== '' && sources?.length === 1)
  if (!isPlaced || !isNamed || !Array.isArray(steps)) throw invalid('incomplete')
  if (typeof options !== 'object' || options === null) throw invalid('incomplete')
  if (direction === 'backup' && !isSetOptions((options as Recordable).set)) throw invalid('the set makes no sense')
  for (const step of steps) {
    if (typeof step?.do !== 'string' || typeof step.path !== 'string' || typeof step.of !== 'string')
      throw invalid('a step makes no sense')
  }
  // A plan says what is done, and nothing about what is allowed.
  return { ...value, options: recordedOf(options) } as PlanFile
}
