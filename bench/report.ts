/** What becomes of a run: a file, a plot, a comparison with the run before it, and which goals were met. @module */
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join, resolve } from 'node:path'
import { renderPlot } from './plot.ts'
import { parseRun, type Run, regressions, showChanges, showGoals } from './results.ts'

export interface ReportOptions {
  /** Under which the cases ran. */
  readonly node: string
  readonly root: string
  /** A stored run, or `baseline`. */
  readonly against?: string | undefined
  /** Directory of stored runs; `baseline.json` is the one that is kept with the source. */
  readonly results: string
  readonly out?: string | undefined
  /** Make this run the baseline. */
  readonly store: boolean
}

const BASELINE = 'baseline.json'
const PROGRAMS: Readonly<Record<string, readonly string[]>> = {
  openssl: ['version'],
  curl: ['--version'],
  age: ['--version'],
  rclone: ['version'],
  restic: ['version'],
}

function firstLine(program: string, args: readonly string[]): string | undefined {
  const { status, stdout } = spawnSync(program, args, { encoding: 'utf8' })
  return status === 0 ? stdout.split('\n')[0] : undefined
}

function commitOf(root: string): string {
  try {
    const git = (...args: string[]) => execFileSync('git', ['-C', root, ...args], { encoding: 'utf8' }).trim()
    return `${git('rev-parse', '--short', 'HEAD')}${git('status', '--porcelain', '-uno') === '' ? '' : ' with changes'}`
  } catch {
    return 'unknown commit'
  }
}

/** The newest stored run; the baseline when there is none. */
function lastRun(results: string): string | undefined {
  const names = existsSync(results) ? readdirSync(results).filter((name) => name.endsWith('.json')) : []
  const newest = names
    .filter((name) => name !== BASELINE)
    .sort()
    .at(-1)
  const name = newest ?? names.find((found) => found === BASELINE)
  return name === undefined ? undefined : join(results, name)
}

/**
 * @param lines - Entries as JSON, one a line.
 * @returns how much got worse than in the run that it was to be compared with.
 */
export function report(lines: string, options: ReportOptions): number {
  const { node, root, results, store } = options
  const versions = JSON.parse(execFileSync(node, ['-p', 'JSON.stringify(process.versions)'], { encoding: 'utf8' }))
  const known = Object.entries(PROGRAMS).map(([name, args]) => [name, firstLine(name, args)] as const)
  const run: Run = {
    v: 1,
    at: new Date().toISOString().slice(0, 19),
    node: versions.node,
    openssl: versions.openssl,
    processors: `${cpus().length} x ${cpus()[0]?.model.trim() ?? 'unknown'}`,
    commit: commitOf(root),
    programs: Object.fromEntries(known.filter((entry): entry is [string, string] => entry[1] !== undefined)),
    entries: lines
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line)),
  }
  const print = (line: string) => process.stdout.write(`${line}\n`)
  print('')
  for (const line of showGoals(run)) print(line)
  const against = options.against === 'baseline' ? join(results, BASELINE) : options.against
  const path = against ?? lastRun(results)
  const before = path === undefined ? undefined : parseRun(readFileSync(path, 'utf8'))
  if (before !== undefined) for (const line of showChanges(before, run)) print(line)
  mkdirSync(results, { recursive: true })
  const file = resolve(options.out ?? join(results, `${run.at.replaceAll(':', '')}-node${run.node}.json`))
  const files = store ? [file, join(results, BASELINE)] : [file]
  for (const path of files) {
    writeFileSync(path, `${JSON.stringify(run, null, 1)}\n`)
    writeFileSync(path.replace(/(\.json)?$/, '.svg'), renderPlot(run))
    print(`stored: ${path} and the plot beside it`)
  }
  return against === undefined ? 0 : regressions(before!, run).length
}
