/** What the harness concludes from numbers: medians, pair-wise ratios, and whether a goal is met. Measures nothing. @module */

export const median = (values: readonly number[]): number => {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

export interface Goal {
  readonly atLeast?: number
  readonly atMost?: number
  /** Bound of the same kind that would be better still. */
  readonly stretch?: number
}

/** How quiet the machine was: idle shares before and after, and how many rounds were measured. */
export interface Conditions {
  readonly idle: readonly [before: number, after: number]
  readonly rounds: number
}

export type Verdict = '' | 'met' | 'met, stretch too' | 'MISSED' | 'not judged: busy' | 'not judged: few rounds'

/** Idle share of the processors below which nothing is judged. */
export const QUIET = 0.85
export const ENOUGH_ROUNDS = 5

/** Whether a value keeps to a goal; busy machines and few rounds are no judges. */
export function judge(value: number, goal: Goal | undefined, { idle, rounds }: Conditions): Verdict {
  if (goal === undefined) return ''
  if (Math.min(...idle) < QUIET) return 'not judged: busy'
  if (rounds < ENOUGH_ROUNDS) return 'not judged: few rounds'
  const { atLeast, atMost, stretch } = goal
  const keepsTo = (bound: number) => (atMost === undefined ? value >= bound : value <= bound)
  if (!(value >= (atLeast ?? Number.NEGATIVE_INFINITY) && value <= (atMost ?? Number.POSITIVE_INFINITY)))
    return 'MISSED'
  return stretch !== undefined && keepsTo(stretch) ? 'met, stretch too' : 'met'
}

export const showGoal = (goal: Goal | undefined): string => {
  if (goal === undefined) return '-'
  const bound = goal.atMost === undefined ? `≥ ${goal.atLeast}` : `≤ ${goal.atMost}`
  return goal.stretch === undefined ? bound : `${bound} (${goal.stretch})`
}

export interface Ratio {
  readonly median: number
  readonly min: number
  readonly max: number
}

/** Ratios round by round: what disturbs a round disturbs both of its sides. */
export function pairwise(ours: readonly number[], other: readonly number[]): Ratio {
  const ratios = ours.map((value, round) => value / other[round]!)
  return { median: median(ratios), min: Math.min(...ratios), max: Math.max(...ratios) }
}

/** For tables: three digits, or all that are before the point; two of small values. */
export function short(value: number): string {
  if (Math.abs(value) >= 100) return value.toFixed(0)
  if (Math.abs(value) >= 10) return value.toFixed(1)
  return Math.abs(value) >= 0.1 || value === 0 ? value.toFixed(2) : value.toPrecision(2)
}
