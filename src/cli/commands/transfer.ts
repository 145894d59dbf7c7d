/** upload and download. @module */
import { createHash } from 'node:crypto'
import { resolve } from 'node:path'
import type { Client } from '../../client.ts'
import { systemClock } from '../../environment.ts'
import { cancelled, toSyncError } from '../../errors.ts'
import { takeLock } from '../../local/lock.ts'
import type { RunSummary } from '../../sync/outcome.ts'
import type { ConflictAction } from '../../sync/plan.ts'
import type { RunEvent } from '../../sync/run.ts'
import { type RunEnd, reported } from '../automation.ts'
import { connect } from '../connect.ts'
import { accountName, type Context, journalPath, lockPath, requireSettings } from '../context.ts'
import { exitCodeOf, exitCodeOfRun, signalExit } from '../exit-codes.ts'
import { createProgress, printSummary, summaryFields } from '../output.ts'

/** Runs one transfer and tells who watches over it. */
async function transfer(
  context: Context,
  direction: 'upload' | 'download',
  places: readonly string[],
  work: (client: Client, id: string) => Promise<RunSummary>,
): Promise<number> {
  const [sources, target] = [places.slice(0, -1).join(' '), places.at(-1)!]
  const [local, remote] = direction === 'upload' ? [sources, target] : [target, sources]
  const { exitCode } = await reported(context, { command: direction, local, remote }, (onEvent) =>
    runTransfer(context, direction, places, work, onEvent),
  )
  return exitCode
}

/** Runs one transfer under the lock of its account, direction and places, and prints the summary, whatever happens. */
async function runTransfer(
  context: Context,
  direction: 'upload' | 'download',
  places: readonly string[],
  work: (client: Client, id: string) => Promise<RunSummary>,
  onEvent: (event: RunEvent) => void,
): Promise<RunEnd> {
  const verb = direction === 'upload' ? 'Uploaded' : 'Downloaded'
  const begun = performance.now()
  const progress = await createProgress(context.output, direction === 'upload' ? 'Uploading' : 'Downloading')
  let summary: RunSummary
  let exitCode: number
  try {
    requireSettings(context)
    const { client, profile } = await connect(context, (event) => {
      onEvent(event)
      progress.onEvent(event)
    })
    try {
      const id = createHash('sha256')
        .update([accountName(profile), direction, ...places].join('\0'))
        .digest('hex')
        .slice(0, 32)
      const lock = await takeLock(lockPath(`${id}.lock`), { clock: systemClock, waitMs: 0 })
      try {
        summary = await work(client, id)
      } finally {
        await lock.release()
      }
    } finally {
      await client.close()
    }
    exitCode = exitCodeOfRun(summary, direction)
  } catch (thrown) {
    const error = toSyncError(context.signal.aborted ? cancelled(context.signal) : thrown)
    summary = { files: 0, bytes: 0, transferred: 0, skipped: 0, ignored: 0, failed: [], stoppedBy: error }
    exitCode = error.class === 'cancelled' ? signalExit(error) : exitCodeOf(error)
  } finally {
    progress.stop()
  }
  printSummary(context.output, verb, summary, exitCode, performance.now() - begun)
  return { exitCode, summary: summaryFields(summary) }
}

const common = ({ signal, options, settings }: Context) => {
  const jobs = settings.number('jobs')
  const memory = settings.number('memory')
  const onConflict = settings.text('on-conflict') as ConflictAction | undefined
  return {
    signal,
    contents: options.contents === true,
    checksum: options.checksum === true,
    ...(jobs === undefined ? {} : { jobs }),
    ...(memory === undefined ? {} : { memory }),
    ...(onConflict === undefined ? {} : { onConflict }),
  }
}

export async function upload(context: Context, paths: readonly string[]): Promise<number> {
  const sources = paths.slice(0, -1).map((path) => resolve(path))
  const target = paths.at(-1)!
  const partSize = context.settings.number('part-size')
  return transfer(context, 'upload', [...sources, target], (client, id) =>
    client.upload(sources, target, {
      ...common(context),
      journal: journalPath(`${id}.journal`),
      requireEncryption: context.settings.flag('require-encryption'),
      ...(partSize === undefined ? {} : { partSize }),
    }),
  )
}

export async function download(context: Context, paths: readonly string[]): Promise<number> {
  const sources = paths.slice(0, -1)
  const target = resolve(paths.at(-1)!)
  return transfer(context, 'download', [...sources, target], (client) =>
    client.download(sources, target, {
      ...common(context),
    }),
  )
}
