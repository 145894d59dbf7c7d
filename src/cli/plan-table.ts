/** What a run would do, as people and programs read it. @module */
import type { EntryFailure, Pending, PlanFile, PlanLine } from '../client/index.ts'
import type { Context } from './context.ts'
import { display, showBytes } from './display.ts'
import { EXIT } from './exit-codes.ts'
import { summaryFields } from './output.ts'

const ACTIONS: Readonly<Record<PlanLine['do'], string>> = {
  'move-remote': 'move there',
  'move-local': 'move here',
  'make-folder': 'make folder there',
  'make-directory': 'make directory here',
  upload: 'upload',
  download: 'download',
  adopt: 'remember',
  'keep-both': 'keep both',
  conflict: 'conflict',
  'move-aside': 'move aside',
  'take-link': 'remove link',
  'delete-remote': 'delete there',
  'delete-local': 'delete here',
  keep: 'keep',
  forget: 'forget',
}

const ARROWS: Readonly<Record<PlanFile['direction'], string>> = {
  push: '→',
  pull: '←',
  both: '↔',
  upload: '→',
  download: '←',
  backup: '→',
  restore: '←',
}

export interface Planned {
  readonly direction: PlanFile['direction']
  readonly local: string
  readonly remote: string
  /** Those that change something. */
  readonly steps: readonly PlanLine[]
  /** Places that are gone on one side and left on the other. */
  readonly kept: number
  readonly failed: readonly EntryFailure[]
  readonly pending?: readonly Pending[] | undefined
  /** More, for programs. */
  readonly fields?: object | undefined
}

/**
 * Prints a plan.
 *
 * @param code - Exit code of what was found wrong on the way.
 * @returns the exit code: 11 where something is to be done and `--detailed-exitcode` asks for that.
 */
export function printPlan({ output, options }: Context, planned: Planned, code: number): number {
  const { direction, local, remote, steps, kept, failed, pending, fields: more } = planned
  const isDifferent = code === EXIT.done && options.detailedExitcode === true && steps.length > 0
  const exitCode = isDifferent ? EXIT.differences : code
  const bytes = steps.reduce((sum, line) => sum + line.bytes, 0)
  // It is in the file, for whoever wants to read it.
  const say = options.output === undefined ? output.result : output.done
  for (const line of steps) {
    const name = line.other === undefined ? line.path : `${line.other} → ${line.path}`
    const size = line.bytes > 0 ? showBytes(line.bytes) : ''
    say(`${ACTIONS[line.do].padEnd(19)} ${size.padStart(9)}  ${display(name)}  (${display(line.reason)})`, {
      type: 'step',
      ...line,
    })
  }
  const counts: Record<string, number> = {}
  for (const { do: action } of steps) counts[action] = (counts[action] ?? 0) + 1
  const parts = Object.entries(counts).map(([action, count]) => `${count} ${ACTIONS[action as PlanLine['do']]}`)
  const said = steps.length === 0 ? 'nothing to do' : `${parts.join(', ')}; ${showBytes(bytes)} to transfer`
  if (output.json) {
    const fields = {
      direction,
      local,
      remote,
      counts,
      bytes,
      kept,
      ...summaryFields({ failed, ...(pending && { pending }) }),
      ...more,
    }
    output.result('', { type: 'summary', exitCode, ...fields })
  } else {
    output.info(`${local} ${ARROWS[direction]} ${remote}: ${said}${kept > 0 ? `; ${kept} kept (see --delete)` : ''}`)
  }
  return exitCode
}
