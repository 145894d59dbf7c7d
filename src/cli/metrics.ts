/** Figures of the last run of each pair of places, as a file for the textfile collector of Prometheus' node_exporter. @module */
import { createHash } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { systemClock } from '../environment.ts'
import { localError, systemCode } from '../errors.ts'
import { createAtomicFile } from '../local/atomic-file.ts'
import { takeLock } from '../local/lock.ts'
import { lockPath } from './context.ts'

/** What runs, and between which places. */
export interface RunPlaces {
  readonly command: string
  readonly local: string
  readonly remote: string
}

/** How a run ended. */
export interface RunEnd {
  readonly exitCode: number
  /** As `--json` prints it. */
  readonly summary: object
}

/** A run, as far as there are figures of it. */
export interface Figures extends RunEnd {
  readonly seconds: number
  /** Milliseconds since the epoch. */
  readonly endedAt: number
}

const of = (name: string) => (run: Figures) => countOf(run.summary, name)

/** Of commands that say it, and no others. */
const only = (name: string) => (run: Figures) => (name in run.summary ? countOf(run.summary, name) : undefined)

/** All of them are gauges: each run writes its own anew. Without a value the old one stays. */
const METRICS: readonly (readonly [name: string, help: string, value: (run: Figures) => number | undefined])[] = [
  ['sealsync_run_last_end_timestamp_seconds', 'When the last run ended.', ({ endedAt }) => endedAt / 1_000],
  [
    'sealsync_run_last_success_timestamp_seconds',
    'When the last run with exit code 0 ended.',
    ({ exitCode, endedAt }) => (exitCode === 0 ? endedAt / 1_000 : undefined),
  ],
  ['sealsync_run_exit_code', 'Exit code of the last run.', ({ exitCode }) => exitCode],
  ['sealsync_run_duration_seconds', 'How long the last run took.', ({ seconds }) => seconds],
  ['sealsync_run_transferred_files', 'Files that the last run transferred.', of('transferred')],
  ['sealsync_run_transferred_bytes', 'Bytes that the last run transferred.', of('bytes')],
  ['sealsync_run_failed_files', 'Files and folders that the last run failed at.', of('failed')],
  ['sealsync_run_deleted_files', 'Files and folders that the last run deleted.', of('deleted')],
  ['sealsync_run_moved_files', 'Files and folders that the last run moved.', of('moved')],
  ['sealsync_run_conflicts', 'Files that the last run kept twice, since both sides had changed them.', of('conflicts')],
  ['sealsync_keys_handed_out', 'File keys that the last round handed out.', only('handedOut')],
  [
    'sealsync_keys_handed_out_since_start',
    'File keys that were handed out since the start.',
    only('handedOutSinceStart'),
  ],
  ['sealsync_keys_refused', 'Members and rescue keys that get none, since nobody trusts their keys.', only('refused')],
  ['sealsync_keys_skipped', 'File keys that could not be handed out in the last round.', only('skipped')],
]

/** Prometheus text format: backslash, quote and line feed are escaped in label values, nothing else. */
const labelText = (value: string) => value.replace(/[\\"\n]/g, (char) => (char === '\n' ? '\\n' : `\\${char}`))

const labelsOf = (places: RunPlaces): string =>
  `{${(['command', 'local', 'remote'] as const).map((name) => `${name}="${labelText(places[name])}"`).join(',')}}`

/** A number of the summary, or the length of its list. */
function countOf(summary: object, name: string): number {
  const value: unknown = (summary as Record<string, unknown>)[name]
  if (Array.isArray(value)) return value.length
  return typeof value === 'number' ? value : 0
}

const MAX_FILE = 1024 * 1024

/** Values by metric, then by labels. */
type Metrics = Map<string, Map<string, string>>

const noMetrics = (): Metrics => new Map(METRICS.map(([name]) => [name, new Map<string, string>()]))

function setFigures(metrics: Metrics, places: RunPlaces, run: Figures): void {
  const labels = labelsOf(places)
  for (const [metric, , figure] of METRICS) {
    const value = figure(run)
    if (value !== undefined) metrics.get(metric)!.set(labels, String(value))
  }
}

function textOf(metrics: Metrics): string {
  const lines = METRICS.flatMap(([metric, help]) => {
    const samples = [...metrics.get(metric)!].map(([label, value]) => `${metric}${label} ${value}`)
    return samples.length === 0 ? [] : [`# HELP ${metric} ${help}`, `# TYPE ${metric} gauge`, ...samples]
  })
  return `${lines.join('\n')}\n`
}

/** Figures that nobody writes to a file: as text, for whoever asks. */
export function createMetrics(places: RunPlaces): { set(run: Figures): void; text(): string } {
  const metrics = noMetrics()
  return { set: (run) => setFigures(metrics, places, run), text: () => textOf(metrics) }
}

/** What the file says. */
async function readMetrics(path: string): Promise<Metrics> {
  const found = noMetrics()
  let text = ''
  try {
    const info = await stat(path)
    // What else there is, is told when it is to be written.
    if (!info.isFile() || info.size > MAX_FILE) return found
    text = await readFile(path, 'utf8')
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw localError(error, `read ${path}`)
  }
  for (const line of text.split('\n')) {
    const match = /^([a-z_]+)(\{.*\}) ([\d.e+-]+)$/s.exec(line)
    if (match !== null) found.get(match[1]!)?.set(match[2]!, match[3]!)
  }
  return found
}

/**
 * Puts the figures of a run into the file; those of other places stay, and so does the time of the last success when this was
 * none.
 *
 * @throws {SyncError} of class `local_io`; `LOCKED` when others keep writing it.
 */
export async function writeMetrics(path: string, places: RunPlaces, run: Figures): Promise<void> {
  const name = `metrics-${createHash('sha256').update(path).digest('hex').slice(0, 32)}.lock`
  const lock = await takeLock(lockPath(name), { clock: systemClock, waitMs: 30_000 })
  try {
    const metrics = await readMetrics(path)
    setFigures(metrics, places, run)
    await writeForAll(path, textOf(metrics))
  } finally {
    await lock.release()
  }
}

/** The collector is another user. */
async function writeForAll(path: string, text: string): Promise<void> {
  const file = await createAtomicFile(path)
  try {
    await file.handle.chmod(0o644)
    await file.handle.writeFile(text)
    await file.commit()
  } catch (error) {
    throw localError(error, `write ${path}`)
  } finally {
    await file.discard()
  }
}
