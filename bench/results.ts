/** What a run leaves: its form on disk, and how it compares with an earlier one. @module */
import { type Goal, QUIET, type Ratio, short, type Verdict } from './statistics.ts'

export interface Row {
  readonly kind: 'row'
  readonly case: string
  readonly name: string
  readonly unit: string
  /** Which way is better. */
  readonly better: 'more' | 'less'
  /** Median. */
  readonly ours: number
  /** Absent: ours stands alone and a goal is about its own value. */
  readonly other?: { readonly name: string; readonly value: number }
  readonly ratio?: Ratio
  readonly goal?: Goal | undefined
  readonly verdict: Verdict
  readonly idle: readonly [before: number, after: number]
  readonly rounds: number
}

/** What a side used, medians. */
export interface Use {
  readonly kind: 'use'
  readonly case: string
  readonly name: string
  readonly side: string
  readonly cpuSecondsPerGiB?: number
  readonly peakMB?: number
}

/** A curve: how one figure depends on another. */
export interface Series {
  readonly kind: 'series'
  readonly case: string
  readonly name: string
  readonly x: string
  readonly y: string
  readonly points: readonly { readonly x: number; readonly y: number }[]
}

export interface Skip {
  readonly kind: 'skip'
  readonly case: string
  readonly name: string
  readonly reason: string
}

export type Entry = Row | Use | Series | Skip

export interface Run {
  readonly v: 1
  readonly at: string
  readonly node: string
  readonly openssl: string
  readonly processors: string
  readonly commit: string
  readonly programs: Readonly<Record<string, string>>
  readonly entries: readonly Entry[]
}

/** @throws {Error} for what is not a stored run. */
export function parseRun(text: string): Run {
  const value = JSON.parse(text)
  if (value?.v !== 1 || !Array.isArray(value.entries)) throw new Error('not a stored run')
  return value
}

export const rowsOf = (run: Run): Row[] => run.entries.filter((entry): entry is Row => entry.kind === 'row')

const idOf = ({ case: from, name, other }: Row) => [from, name, other?.name ?? ''].join(' / ')
/** The figure that carries over from run to run: the ratio if there is one. */
const figureOf = (row: Row) => row.ratio?.median ?? row.ours

/** Worse by more than this is a regression; less is the machine's mood. */
export const SLACK = 0.2

export interface Change {
  readonly id: string
  readonly before: number
  readonly now: number
  /** Above 1 is better, whichever way the figure goes. */
  readonly factor: number
  /** The machine was busy during one of the runs: no proof of anything. */
  readonly busy: boolean
}

const isBusy = ({ idle }: Row) => Math.min(...idle) < QUIET

/** Figures of both runs that differ by more than the slack, the worst first. */
export function changes(before: Run, now: Run): Change[] {
  const known = new Map(rowsOf(before).map((row) => [idOf(row), row]))
  return rowsOf(now)
    .flatMap((row) => {
      const old = known.get(idOf(row))
      if (old === undefined) return []
      const [was, is] = [figureOf(old), figureOf(row)]
      return [
        {
          id: idOf(row),
          before: was,
          now: is,
          factor: row.better === 'more' ? is / was : was / is,
          busy: isBusy(old) || isBusy(row),
        },
      ]
    })
    .filter(({ factor }) => factor < 1 - SLACK || factor > 1 / (1 - SLACK))
    .sort((a, b) => a.factor - b.factor)
}

/** Those that got worse, as far as that was measured. */
export const regressions = (before: Run, now: Run): Change[] =>
  changes(before, now).filter(({ factor, busy }) => factor < 1 && !busy)

/** Lines that say how a run compares with an earlier one. */
export function showChanges(before: Run, now: Run): string[] {
  const same = before.node === now.node && before.processors === now.processors
  const head = `against the run of ${before.at} (${before.commit}${same ? '' : `; ${before.node}, ${before.processors}`}):`
  const found = changes(before, now)
  if (found.length === 0) return [head, `  nothing changed by more than ${SLACK * 100} %`]
  return [
    head,
    ...found.map(({ id, before, now, factor, busy }) => {
      const what = busy ? 'changed, but the machine was busy' : factor < 1 ? 'REGRESSION' : 'better'
      return `  ${what}: ${id}: ${short(before)} -> ${short(now)}`
    }),
  ]
}

/** Lines that say which goals were met. */
export function showGoals(run: Run): string[] {
  const withGoal = rowsOf(run).filter(({ goal }) => goal !== undefined)
  const count = (test: (verdict: Verdict) => boolean) => withGoal.filter(({ verdict }) => test(verdict)).length
  const missed = withGoal.filter(({ verdict }) => verdict === 'MISSED')
  return [
    `goals: ${count((v) => v.startsWith('met'))} met, ${missed.length} missed, ${count((v) => v.startsWith('not'))} not judged`,
    ...missed.map((row) => `  missed: ${idOf(row)}: ${short(figureOf(row))}`),
  ]
}
