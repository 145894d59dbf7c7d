/** diff, check and verify: looking without changing anything. @module */
import { resolve } from 'node:path'
import { systemClock } from '../../environment.ts'
import { SyncError } from '../../errors.ts'
import type { Names } from '../../local/names.ts'
import { compareTrees } from '../../sync/compare.ts'
import { isCommand } from '../../sync/history.ts'
import type { SyncRecord } from '../../sync/records.ts'
import { parseRemotePath } from '../../sync/remote-path.ts'
import { listPairs, type ManifestPin, openState, stateDirectory } from '../../sync/state.ts'
import { type VerifyOptions, verifyRemote } from '../../sync/verify.ts'
import { connect } from '../connect.ts'
import { accountName, type Context, namesOf, statesPath, text } from '../context.ts'
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
    const result = await compareTrees(client.context, resolve(local), remote, {
      contents: isDeep,
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
  const { client, profile } = await connect(context, (event) => progress.onEvent(event))
  const result = await (async () => {
    const known = await knownOf(accountName(profile), path, (message) => output.warn(message))
    // A machine without runs over it has its settings only.
    const names = known.names ?? namesOf(context)
    return verifyRemote(client.context, path, {
      share,
      signal,
      ...known,
      names,
      ...(jobs === undefined ? {} : { jobs }),
    })
  })().finally(async () => {
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

/** What is known of a remote place from runs over it. */
async function knownOf(
  account: string,
  remote: string,
  warn: (message: string) => void,
): Promise<Required<Pick<VerifyOptions, 'known' | 'names' | 'pin'>>> {
  const wanted = `/${parseRemotePath(remote).join('/')}`
  const known = new Map<string, SyncRecord>()
  let names: Names | undefined
  let pin: ManifestPin | undefined
  for (const pair of await listPairs(statesPath(), account)) {
    if (pair.transfer !== undefined) continue
    if (pair.remote !== wanted) continue
    const directory = stateDirectory(statesPath(), pair)
    const state = await openState(directory, pair, systemClock.now(), (keptAs) =>
      warn(`damaged state was put aside as ${keptAs}`),
    )
    for (const [key, record] of state.records()) known.set(key, record)
    const last = state.runs().find(({ command }) => isCommand(command))
    if (last?.options?.names === 'escape') names = 'escape'
    const { manifest } = state
    if (manifest !== undefined && manifest.sequence > (pin?.sequence ?? 0)) pin = manifest
    await state.close()
  }
  return { known, names, pin }
}
