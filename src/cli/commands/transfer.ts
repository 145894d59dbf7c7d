/** upload and download. @module */
import { createHash } from 'node:crypto'
import { resolve } from 'node:path'
import type { Client } from '../../client.ts'
import { systemClock } from '../../environment.ts'
import { cancelled, SyncError, toSyncError } from '../../errors.ts'
import { takeLock } from '../../local/lock.ts'
import type { RunSummary } from '../../sync/outcome.ts'
import { MIN_PART } from '../../transfer/upload-channel.ts'
import { accountName, type Context, connect, integerSetting, lockPath, parseSize, setting } from '../context.ts'
import { exitCodeOf, exitCodeOfRun, signalExit } from '../exit-codes.ts'
import { createProgress, printSummary } from '../output.ts'
import type { Profile } from '../profile.ts'

/** Runs one transfer under the lock of its account, direction and places, and prints the summary, whatever happens. */
async function transfer(
  context: Context,
  direction: 'upload' | 'download',
  places: readonly string[],
  work: (client: Client, profile: Profile) => Promise<RunSummary>,
): Promise<number> {
  const verb = direction === 'upload' ? 'Uploaded' : 'Downloaded'
  const begun = performance.now()
  const progress = await createProgress(context.output, direction === 'upload' ? 'Uploading' : 'Downloading')
  let summary: RunSummary
  let exitCode: number
  try {
    const { client, profile } = await connect(context, (event) => progress.onEvent(event))
    try {
      const id = createHash('sha256')
        .update([accountName(profile), direction, ...places].join('\0'))
        .digest('hex')
      const lock = await takeLock(lockPath(`${id.slice(0, 32)}.lock`), { clock: systemClock, waitMs: 0 })
      try {
        summary = await work(client, profile)
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
  return exitCode
}

const common = (context: Context, profile: Profile) => {
  const jobs = integerSetting(context, profile, 'jobs', { min: 1, max: 64 })
  return {
    signal: context.signal,
    contents: context.options.contents === true,
    checksum: context.options.checksum === true,
    ...(jobs === undefined ? {} : { jobs }),
  }
}

export async function upload(context: Context, paths: readonly string[]): Promise<number> {
  const sources = paths.slice(0, -1).map((path) => resolve(path))
  const target = paths.at(-1)!
  return transfer(context, 'upload', [...sources, target], async (client, profile) => {
    const size = setting(context, profile, 'part-size')
    const partSize = size === undefined ? undefined : parseSize(size, 'part-size')
    if (partSize !== undefined && (partSize < MIN_PART || partSize > 256 * 1024 * 1024)) {
      throw new SyncError('usage', 'OPTION_INVALID', '--part-size must be from 5M to 256M')
    }
    return client.upload(sources, target, {
      ...common(context, profile),
      requireEncryption: setting(context, profile, 'require-encryption') !== undefined,
      ...(partSize === undefined ? {} : { partSize }),
    })
  })
}

export async function download(context: Context, paths: readonly string[]): Promise<number> {
  const sources = paths.slice(0, -1)
  const target = resolve(paths.at(-1)!)
  return transfer(context, 'download', [...sources, target], (client, profile) =>
    client.download(sources, target, {
      ...common(context, profile),
      overwrite: setting(context, profile, 'on-conflict') === 'overwrite',
    }),
  )
}
