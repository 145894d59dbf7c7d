/** Plans as people and programs read them, and as files that can be looked at first and applied later. @module */
import { SyncError } from '../errors.ts'
import { bytesOf, type Direction, type SyncStep } from './reconcile.ts'
import { showPath } from './tree.ts'

/** One line of a plan. */
export interface PlanLine {
  readonly do: SyncStep['do']
  readonly path: string
  /** Of moves: from where; of conflicts that are kept twice: the name of the copy. */
  readonly other?: string
  readonly bytes: number
  readonly reason: string
  /** What it was planned for; anything else is another plan. */
  readonly of: string
}

export interface PlanFile {
  readonly format: 'sealsync-plan'
  readonly version: 1
  readonly createdAt: string
  readonly direction: Direction
  readonly local: string
  readonly remote: string
  readonly options: Readonly<Record<string, unknown>>
  readonly steps: readonly PlanLine[]
}

/** Steps that change something. */
export const isChange = ({ do: action }: Pick<SyncStep, 'do'>): boolean =>
  action !== 'adopt' && action !== 'forget' && action !== 'keep'

export function planLine(step: SyncStep): PlanLine {
  const other = 'from' in step ? showPath(step.from) : step.do === 'keep-both' ? showPath(step.copy) : undefined
  return {
    do: step.do,
    path: showPath(step.path),
    ...(other === undefined ? {} : { other }),
    bytes: bytesOf(step),
    reason: step.reason,
    of: identify(step),
  }
}

function identify(step: SyncStep): string {
  const parts: string[] = []
  const local = 'local' in step ? step.local : 'replaces' in step && step.do === 'download' ? step.replaces : undefined
  const remote = 'remote' in step ? step.remote : 'replaces' in step && step.do === 'upload' ? step.replaces : undefined
  if (local !== undefined) parts.push(`local ${local.size} ${local.mtimeMs}`)
  // A folder is as large as what is in it, which has steps of its own.
  if (remote !== undefined) parts.push(`remote ${remote.node.id} ${(remote.kind === 'file' && remote.node.size) || 0}`)
  return parts.join(', ')
}

/**
 * Compares what was planned with what would be done now.
 *
 * @throws {SyncError} `PLAN_DRIFTED` (class `safety`), naming the first places that differ.
 */
export function requireSamePlan(planned: readonly PlanLine[], steps: readonly SyncStep[]): void {
  const show = ({ do: action, path, other, of }: PlanLine) => JSON.stringify([action, path, other ?? '', of])
  const [before, now] = [planned, steps.filter(isChange).map(planLine)].map(
    (lines) => new Map(lines.map((line) => [show(line), line])),
  )
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

/** @throws {SyncError} `PLAN_INVALID` (class `usage`). */
export function parsePlan(text: string): PlanFile {
  const invalid = (why: string) =>
    new SyncError('usage', 'PLAN_INVALID', `This is no plan: ${why}`, { hint: 'Make one with: sync plan … -o FILE' })
  let value: Partial<PlanFile>
  try {
    value = JSON.parse(text)
  } catch {
    throw invalid('not JSON')
  }
  if (value?.format !== 'sealsync-plan' || value.version !== 1) throw invalid('unknown format')
  const { direction, local, remote, steps, options } = value
  if (!['push', 'pull', 'both'].includes(direction as string)) throw invalid('unknown direction')
  if (typeof local !== 'string' || typeof remote !== 'string' || !Array.isArray(steps)) throw invalid('incomplete')
  if (typeof options !== 'object' || options === null) throw invalid('incomplete')
  for (const step of steps) {
    if (typeof step?.do !== 'string' || typeof step.path !== 'string' || typeof step.of !== 'string')
      throw invalid('a step makes no sense')
  }
  return value as PlanFile
}
