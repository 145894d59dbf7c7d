/** Draws a run as SVG: bars for comparisons with a goal, lines for curves. Knows nothing of measuring. @module */
import type { Row, Run, Series } from './results.ts'
import { rowsOf } from './results.ts'
import { short, showGoal } from './statistics.ts'

const WIDTH = 900
const BAR = 22
const LABEL = 420
const CHART = 240
const COLOURS = { met: '#2a7f4f', missed: '#b3372f', open: '#5b6b7f', line: '#27408b' } as const

const escapes: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' }
const escapeXml = (text: string) => text.replace(/[&<>"]/g, (char) => escapes[char]!)

const text = (x: number, y: number, what: string, anchor = 'start') =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" text-anchor="${anchor}">${escapeXml(what)}</text>`

const colourOf = ({ verdict }: Row) =>
  verdict === 'MISSED' ? COLOURS.missed : verdict.startsWith('met') ? COLOURS.met : COLOURS.open

/** Bars as long as the ratio is of the goal; the line marks the goal. */
function bars(rows: readonly Row[], top: number): string[] {
  const right = WIDTH - 150
  const scale = (share: number) => (right - LABEL) * Math.min(1, share / 2)
  const goalAt = LABEL + scale(1)
  const height = rows.length * BAR
  return [
    ...rows.flatMap((row, index) => {
      const y = top + index * BAR
      const bound = row.goal!.atMost ?? row.goal!.atLeast!
      const figure = row.ratio?.median ?? row.ours
      const share = row.goal!.atMost === undefined ? figure / bound : bound / figure
      const label = `${row.name}${row.other === undefined ? '' : ` to ${row.other.name}`}`
      return [
        text(LABEL - 8, y + 15, label, 'end'),
        `<rect x="${LABEL}" y="${y + 3}" width="${Math.max(1, scale(share)).toFixed(1)}" height="${BAR - 6}" fill="${colourOf(row)}"/>`,
        text(LABEL + scale(share) + 6, y + 15, `${short(figure)}, goal ${showGoal(row.goal)}`),
      ]
    }),
    `<line x1="${goalAt}" x2="${goalAt}" y1="${top}" y2="${top + height}" stroke="#000" stroke-dasharray="4 3"/>`,
  ]
}

/** One curve; the horizontal axis is logarithmic, because sizes and counts double. */
function curve({ name, x, y, points }: Series, top: number): string[] {
  const [left, right, high, low] = [70, WIDTH - 40, top + 34, top + CHART - 36]
  const logs = points.map((point) => Math.log2(point.x))
  const [from, to] = [Math.min(...logs), Math.max(...logs)]
  const most = Math.max(...points.map((point) => point.y)) || 1
  const place = (index: number) => ({
    px: left + ((right - left) * (logs[index]! - from)) / (to - from || 1),
    py: low - ((low - high) * points[index]!.y) / most,
  })
  const places = points.map((_, index) => place(index))
  return [
    text(left, top + 18, `${name} (${y})`),
    `<line x1="${left}" x2="${right}" y1="${low}" y2="${low}" stroke="#888"/>`,
    `<polyline points="${places.map(({ px, py }) => `${px.toFixed(1)},${py.toFixed(1)}`).join(' ')}" fill="none" stroke="${COLOURS.line}" stroke-width="2"/>`,
    ...places.flatMap(({ px, py }, index) => [
      `<circle cx="${px.toFixed(1)}" cy="${py.toFixed(1)}" r="3" fill="${COLOURS.line}"/>`,
      text(px, py - 7, short(points[index]!.y), 'middle'),
      text(px, low + 15, String(points[index]!.x), 'middle'),
    ]),
    text(right, low + 30, x, 'end'),
  ]
}

export function renderPlot(run: Run): string {
  const rows = rowsOf(run).filter(({ goal }) => goal !== undefined)
  const curves = run.entries.filter((entry): entry is Series => entry.kind === 'series' && entry.points.length > 0)
  const barsTop = 60
  const curvesTop = barsTop + rows.length * BAR + 20
  const height = curvesTop + curves.length * CHART + 10
  const body = [
    text(16, 24, `sealsync against its goals: Node ${run.node}, OpenSSL ${run.openssl}, ${run.processors}, ${run.at}`),
    text(16, 44, 'Ratio to the other side as a share of the goal; green: met, red: missed, grey: not judged.'),
    ...bars(rows, barsTop),
    ...curves.flatMap((series, index) => curve(series, curvesTop + index * CHART)),
  ]
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" font-family="sans-serif" font-size="12" role="img">`,
    '<title>Results of a benchmark run</title>',
    `<rect width="${WIDTH}" height="${height}" fill="#fff"/>`,
    ...body,
    '</svg>',
    '',
  ].join('\n')
}
