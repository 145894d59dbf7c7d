import { expect, test } from 'vitest'
import { renderPlot } from '../../bench/plot.ts'
import {
  changes,
  type Entry,
  parseRun,
  type Row,
  type Run,
  regressions,
  showChanges,
  showGoals,
} from '../../bench/results.ts'

const row = (name: string, ratio: number, more: Partial<Row> = {}): Row => ({
  kind: 'row',
  case: 'large',
  name,
  unit: 'GB/s',
  better: 'more',
  ours: ratio * 2,
  other: { name: 'curl -T', value: 2 },
  ratio: { median: ratio, min: ratio, max: ratio },
  goal: { atLeast: 0.6 },
  verdict: 'met',
  idle: [1, 1],
  rounds: 5,
  ...more,
})

const runOf = (...entries: Entry[]): Run => ({
  v: 1,
  at: '2025-01-01T00:00:00',
  node: '20.0.0',
  openssl: '3.0',
  processors: '2 x CPU',
  commit: 'abc',
  programs: {},
  entries,
})

test('a run comes back from its file as it was, and other files are refused', () => {
  const run = runOf(row('upload', 0.6))
  expect(parseRun(JSON.stringify(run))).toEqual(run)
  expect(() => parseRun('{"v":2,"entries":[]}')).toThrow('not a stored run')
  expect(() => parseRun('{"v":1}')).toThrow('not a stored run')
})

test('a ratio that fell by more than the slack is a regression, one within it is not', () => {
  const before = runOf(row('upload', 1), row('download', 1))
  const now = runOf(row('upload', 0.79), row('download', 0.81))
  expect(changes(before, now).map(({ id }) => id)).toEqual(['large / upload / curl -T'])
  expect(showChanges(before, now).join('\n')).toContain('REGRESSION: large / upload / curl -T: 1.00 -> 0.79')
})

test('where less is better, more is the regression', () => {
  const time = { unit: 's', better: 'less' } as const
  const before = runOf(row('rescan', 2, time), row('start', 2, time))
  const now = runOf(row('rescan', 3, time), row('start', 1, time))
  const [worse, better] = showChanges(before, now).slice(1)
  expect(worse).toContain('REGRESSION: large / rescan')
  expect(better).toContain('better: large / start')
})

test('the ratio counts, not the absolute figure: a slower machine is no regression', () => {
  const before = runOf(row('upload', 0.6, { ours: 1.2, other: { name: 'curl -T', value: 2 } }))
  const now = runOf(row('upload', 0.6, { ours: 0.3, other: { name: 'curl -T', value: 0.5 } }))
  expect(changes(before, now)).toEqual([])
  expect(showChanges(before, now)[1]).toContain('nothing changed')
})

test('what changed while the machine was busy is shown, and not called a regression', () => {
  const now = runOf(row('upload', 0.1, { idle: [0.5, 1] }))
  const [, line] = showChanges(runOf(row('upload', 1)), now)
  expect(line).toContain('the machine was busy: large / upload / curl -T: 1.00 -> 0.10')
  expect(line).not.toContain('REGRESSION')
})

test('rows that only one run has are not compared; values without a ratio are', () => {
  const { other: _, ratio: __, ...alone } = row('memory', 1, { better: 'less', ours: 100 })
  const before = runOf(alone, row('gone', 1))
  const now = runOf({ ...alone, ours: 130 }, row('new', 0.1))
  expect(changes(before, now).map(({ id }) => id)).toEqual(['large / memory / '])
})

test('goals are counted, and missed ones named', () => {
  const run = runOf(
    row('a', 1, { verdict: 'met, stretch too' }),
    row('b', 0.1, { verdict: 'MISSED' }),
    row('c', 1, { verdict: 'not judged: busy' }),
    row('d', 1, { goal: undefined, verdict: '' }),
  )
  expect(showGoals(run)).toEqual(['goals: 1 met, 1 missed, 1 not judged', '  missed: large / b / curl -T: 0.10'])
})

/** All attributes that hold lengths or places are numbers, and tags are balanced. */
function checkSvg(svg: string): void {
  for (const [, value] of svg.matchAll(/ (?:x|y|x1|x2|y1|y2|cx|cy|r|width|height)="([^"]*)"/g)) {
    expect(Number.isFinite(Number(value)), value).toBe(true)
  }
  expect(svg).not.toMatch(/NaN|undefined|Infinity/)
  const open = [...svg.matchAll(/<(\w+)(?:\s[^>]*[^/])?>/g)].map((match) => match[1])
  const closed = [...svg.matchAll(/<\/(\w+)>/g)].map((match) => match[1])
  expect(closed.sort()).toEqual(open.sort())
}

test('the plot has a bar for each goal and a line for each curve', () => {
  const points = [1, 16, 1024].map((x) => ({ x, y: x / 10 }))
  const series = { kind: 'series', case: 'scaling', name: 'upload', x: 'MiB', y: 'GB/s', points } as const
  const svg = renderPlot(runOf(row('up', 0.7), row('free', 1, { goal: undefined }), series))
  checkSvg(svg)
  expect(svg.match(/<rect /g)).toHaveLength(2) // the ground and one bar
  expect(svg.match(/<circle /g)).toHaveLength(3)
})

test('the plot escapes names and survives empty, single and zero points', () => {
  const lone = { kind: 'series', case: 'x', name: '<a> & "b"', x: 'MiB', y: 'MB', points: [{ x: 1, y: 0 }] } as const
  const svg = renderPlot(runOf(lone, { ...lone, points: [] }, row('zero', 0, { goal: { atMost: 2 } })))
  checkSvg(svg)
  expect(svg).toContain('&lt;a&gt; &amp;')
  checkSvg(renderPlot(runOf()))
})

test('what got worse counts as such, unless the machine was busy; what got better does not', () => {
  const before = runOf(row('slower', 1), row('busy', 1), row('faster', 1), row('the same', 1))
  const busy = row('busy', 0.5, { idle: [0.2, 1] })
  const now = runOf(row('slower', 0.5), busy, row('faster', 2), row('the same', 0.95))
  expect(regressions(before, now).map(({ id }) => id)).toEqual(['large / slower / curl -T'])
})
