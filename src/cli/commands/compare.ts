/** diff, check and verify: looking without changing anything. @module */
import { resolve } from 'node:path'
import { SyncError } from '../../errors.ts'
import { connect } from '../connect.ts'
import { type Context, namesOf, text } from '../context.ts'
import { display, plural, showBytes } from '../display.ts'
import { EXIT, exitCodeOfRun } from '../exit-codes.ts'
import { createProgress, summaryFields } from '../output.ts'
import { requireAcceptedLists, selectionOf } from './sync.ts'

/** @param contents - Compare contents by their tags, which needs all local files to be read and nothing to be transferred. */
const compare =
  (contents: boolean) =>
  async (context: Context, local: string, remote: string): Promise<number> => {
    const { output, settings, signal, options } = context
    const isDeep = contents || options.checksum === true
    const jobs = settings.number('jobs')
    await requireAcceptedLists(context, resolve(local))
    const progress = await createProgress(output, 'Comparing')
    const { client } = await connect(context, (event) => progress.onEvent(event))
    const result = await client[isDeep ? 'check' : 'diff'](resolve(local), remote, {
      selection: selectionOf(context, resolve(local)),
      names: namesOf(context),
      signal,
      ...(jobs === undefined ? {} : { jobs }),
    }).finally(async () => {
      progress.stop()
      await client.close()
    })
    const { compared, differences, failed, pending = [], stoppedBy } = result
    for (const { path, what } of differences)
      output.result(`${what.padEnd(11)} ${display(path)}`, { type: 'difference', path, what })
    const code = exitCodeOfRun(result, 'upload')
    const exitCode = code === EXIT.done && differences.length > 0 ? EXIT.differences : code
    for (const { path, error } of failed) output.warn(`${path}: ${error.message}`)
    for (const { name, error } of pending) output.warn(`${name}: ${error.message}`)
    if (stoppedBy !== undefined) output.error(stoppedBy, exitCode, { plain: true })
    if (output.json) {
      const fields = summaryFields({ failed, ...(pending.length === 0 ? {} : { pending }) })
      output.result('', { type: 'summary', exitCode, compared, differences: differences.length, ...fields })
    } else {
      const how = isDeep ? 'by content' : 'by size and time'
      output.info(
        `${plural(compared, 'file')} compared ${how}; ${plural(differences.length, 'difference')}, ${failed.length} failed`,
      )
    }
    return exitCode
  }

export const diff = compare(false)
export const check = compare(true)

/** Downloads and checks everything, or a sample, and keeps nothing. */
export async function verify(context: Context, path: string): Promise<number> {
  const { output, settings, signal } = context
  const share = parseShare(text(context.options, 'sample'))
  const jobs = settings.number('jobs')
  const begun = performance.now()
  const progress = await createProgress(output, 'Verifying')
  const { client } = await connect(context, (event) => progress.onEvent(event))
  const result = await client
    .verify(path, { share, signal, names: namesOf(context), ...(jobs === undefined ? {} : { jobs }) })
    .finally(async () => {
      progress.stop()
      await client.close()
    })
  const { files, verified, bytes, compared, tally } = result
  const exitCode = exitCodeOfRun(tally, 'download')
  if (tally.stoppedBy !== undefined) output.error(tally.stoppedBy, exitCode, { plain: true })
  if (output.json) {
    const failed = tally.failed.map(({ path: shown, error }) => ({
      path: shown,
      code: error.code,
      message: error.message,
    }))
    output.result('', { type: 'summary', exitCode, files, verified, bytes, compared, failed })
  } else {
    const seconds = ((performance.now() - begun) / 1000).toFixed(1)
    const held = compared > 0 ? `, ${compared} compared with what is known of them` : ''
    output.info(
      `${verified} of ${plural(files, 'file')} read and checked (${showBytes(bytes)}) in ${seconds} s${held}; ${tally.failed.length} failed`,
    )
  }
  return exitCode
}

function parseShare(sample: string | undefined): number {
  if (sample === undefined) return 1
  const match = /^(\d+(?:\.\d+)?)%$/.exec(sample)
  const share = match === null ? Number.NaN : Number(match[1]) / 100
  if (!(share > 0 && share <= 1)) throw new SyncError('usage', 'OPTION_INVALID', '--sample takes a share such as 5%')
  return share
}
