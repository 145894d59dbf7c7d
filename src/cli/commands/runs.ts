/** runs, status, resume, retry and undo: what runs did, and what can still be done about it. @module */
import { resolve } from 'node:path'
import { systemClock } from '../../environment.ts'
import { SyncError } from '../../errors.ts'
import { MANIFEST_NAME } from '../../local/atomic-file.ts'
import type { Direction } from '../../sync/reconcile.ts'
import { listPairs, openState, type Pair, type RunRecord, type SyncState, stateDirectory } from '../../sync/state.ts'
import { pairOf, type SyncOptions } from '../../sync/sync-run.ts'
import { undoRun } from '../../sync/undo.ts'
import { connect } from '../connect.ts'
import { accountName, type Context, requireProfile, statesPath, text } from '../context.ts'
import { display } from '../display.ts'
import { EXIT } from '../exit-codes.ts'
import { parseDuration } from '../settings.ts'
import { locked, runPair, syncOptions } from './sync.ts'

/** The pairs of this account, or the one that was named. */
async function pairsOf(context: Context, local?: string, remote?: string): Promise<Pair[]> {
  const account = accountName(await requireProfile(context))
  const pairs = await listPairs(statesPath(), account)
  if (local === undefined) return pairs
  if (remote === undefined)
    throw new SyncError('usage', 'OPTION_INVALID', 'Name both, the local and the remote directory')
  const wanted = pairOf(account, resolve(local), remote)
  const found = pairs.filter((pair) => pair.local === wanted.local && pair.remote === wanted.remote)
  if (found.length > 0) return found
  throw new SyncError('usage', 'NO_RUNS', `Nothing is known of ${local} and ${remote}`, { hint: 'See: sync status' })
}

async function withState<T>(context: Context, pair: Pair, work: (state: SyncState) => T | Promise<T>): Promise<T> {
  const directory = stateDirectory(statesPath(), pair)
  const state = await openState(directory, pair, systemClock.now(), (keptAs) =>
    context.output.warn(`damaged state was put aside as ${keptAs}`),
  )
  try {
    return await work(state)
  } finally {
    await state.close()
  }
}

const timeOf = (ms: number) => new Date(ms).toISOString().replace('T', ' ').slice(0, 19)

function describe({ outcome, endedAt, counts = {}, error }: RunRecord): string {
  if (endedAt === undefined) return 'not ended (running, or killed)'
  const parts = Object.entries(counts).flatMap(([name, count]) =>
    count > 0 && name !== 'bytes' ? [`${count} ${name}`] : [],
  )
  return [outcome ?? '', ...(error === undefined ? [] : [`${error.code}: ${error.message}`]), ...parts].join(', ')
}

/** Lists runs, newest first. */
export async function runs(context: Context, local?: string, remote?: string): Promise<void> {
  const limit = Number(text(context.options, 'limit') ?? 20)
  if (!Number.isSafeInteger(limit) || limit < 1)
    throw new SyncError('usage', 'OPTION_INVALID', '--limit takes a number from 1')
  const found: { pair: Pair; run: RunRecord }[] = []
  const pairs = await pairsOf(context, local, remote)
  for (const pair of pairs) {
    for (const run of await withState(context, pair, (state) => state.runs())) found.push({ pair, run })
  }
  // Those of one pair are in the order in which they were made, whatever the clock said.
  if (pairs.length > 1) found.sort((a, b) => b.run.startedAt - a.run.startedAt)
  for (const { pair, run } of found.slice(0, limit)) {
    const place = `${pair.local} ${pair.remote}`
    context.output.result(
      `${run.id}  ${timeOf(run.startedAt)}  ${run.command.padEnd(5)} ${display(place)}: ${display(describe(run))}`,
      {
        type: 'run',
        local: pair.local,
        remote: pair.remote,
        ...run,
      },
    )
  }
  if (found.length === 0) context.output.info('No runs yet.')
}

/** Clocks differ, and are set; no more than that. */
const CLOCK_SKEW_MS = 3_600_000

/** How each pair stands; for monitoring, with `--max-age`, exit code 3 when the last success is too long ago. */
export async function status(context: Context, local?: string, remote?: string): Promise<number> {
  const limit = text(context.options, 'maxAge')
  const maxAge = limit === undefined ? undefined : parseDuration(limit)
  if (limit !== undefined && maxAge === undefined) {
    throw new SyncError('usage', 'OPTION_INVALID', '--max-age takes a time such as 26h')
  }
  const now = systemClock.now()
  let isOverdue = false
  const pairs = await pairsOf(context, local, remote)
  for (const pair of pairs) {
    const { all, files } = await withState(context, pair, (state) => ({
      all: state.runs().filter(({ command }) => command !== 'undo'),
      files: [...state.records().values()].filter(({ kind }) => kind === 'file').length,
    }))
    const last = all[0]
    const success = all.find(({ outcome }) => outcome === 'done')
    const ageMs = success?.endedAt === undefined ? undefined : now - success.endedAt
    // A success in the future tells of a wrong clock, not of when it was.
    const late = maxAge !== undefined && (ageMs === undefined || ageMs > maxAge || ageMs < -CLOCK_SKEW_MS)
    isOverdue ||= late
    const age = ageMs === undefined ? 'never a success' : `last success ${ageText(ageMs)} ago`
    const lastText = last === undefined ? 'no runs' : `last run ${last.id}: ${describe(last)}`
    context.output.result(
      `${display(`${pair.local} ${pair.remote}`)}: ${age}${late ? ' (overdue)' : ''}; ${files} files known; ${display(lastText)}`,
      {
        type: 'status',
        local: pair.local,
        remote: pair.remote,
        files,
        overdue: late,
        ...(success?.endedAt === undefined
          ? {}
          : { lastSuccess: new Date(success.endedAt).toISOString(), ageSeconds: Math.round(ageMs! / 1000) }),
        ...(last === undefined ? {} : { lastRun: last }),
      },
    )
  }
  if (pairs.length === 0) {
    context.output.info('Nothing is synchronized yet.')
    return maxAge === undefined ? EXIT.done : EXIT.partial
  }
  return isOverdue ? EXIT.partial : EXIT.done
}

function ageText(ms: number): string {
  const minutes = Math.floor(ms / 60_000)
  if (minutes < 1) return 'less than a minute'
  if (minutes < 120) return `${minutes} min`
  const hours = Math.floor(minutes / 60)
  return hours < 48 ? `${hours} h` : `${Math.floor(hours / 24)} days`
}

export const isDirection = (command: string): command is Direction => ['push', 'pull', 'both'].includes(command)

/** Runs again what did not come to a good end; with `paths`, only that. */
async function again(
  context: Context,
  pairs: readonly Pair[],
  choose: (run: RunRecord) => { paths?: readonly string[] } | undefined,
): Promise<number> {
  let worst: number = EXIT.done
  let isNothing = true
  for (const pair of pairs) {
    const last = await withState(context, pair, (state) => state.runs().find(({ command }) => isDirection(command)))
    const chosen = last === undefined ? undefined : choose(last)
    if (last === undefined || chosen === undefined) continue
    isNothing = false
    const options = (last.options ?? {}) as Partial<SyncOptions>
    const selection = {
      ...options.selection,
      ...(chosen.paths === undefined ? {} : { paths: chosen.paths, pathsMayBeGone: true }),
    }
    const direction = last.command as Direction
    const { exitCode } = await runPair(context, {
      direction,
      local: pair.local,
      remote: pair.remote,
      options: () => ({
        ...syncOptions(context, direction, pair.local),
        ...options,
        // A part of the tree says nothing about what is gone.
        ...(chosen.paths === undefined ? {} : { delete: false }),
        selection,
      }),
    })
    if (exitCode !== EXIT.done) worst = exitCode
  }
  if (isNothing) context.output.info('The last runs came to a good end; there is nothing to do.')
  return worst
}

/** Continues runs that were interrupted. */
export const resume = async (context: Context, local?: string, remote?: string): Promise<number> =>
  again(context, await pairsOf(context, local, remote), ({ outcome }) =>
    outcome === undefined || outcome === 'stopped' || outcome === 'partial' ? {} : undefined,
  )

/** Tries again what failed in the last run, and nothing else. */
export const retry = async (context: Context, local?: string, remote?: string): Promise<number> =>
  again(context, await pairsOf(context, local, remote), ({ failed = [] }) => {
    // The manifest waits for a run over the whole tree.
    const paths = failed.map(({ path }) => path).filter((path) => path !== MANIFEST_NAME)
    return paths.length === 0 ? undefined : { paths }
  })

/** Takes back what a run did. */
export async function undo(context: Context, runId: string): Promise<number> {
  const { output, signal } = context
  const dryRun = context.options.dryRun === true
  for (const pair of await pairsOf(context)) {
    const known = await withState(context, pair, (state) => state.runs().some(({ id }) => id === runId))
    if (!known) continue
    const { client, profile } = await connect(context)
    try {
      const { undone, skipped } = await locked(context, accountName(profile), pair.local, pair.remote, () =>
        withState(context, pair, async (state) => {
          const result = await undoRun(client.context, state, runId, { dryRun, signal })
          await state.flush()
          return result
        }),
      )
      const verb = dryRun ? 'would take back' : 'took back'
      for (const deed of undone)
        output[dryRun ? 'result' : 'done'](`${verb}: ${deed.do} ${display(deed.path)}`, { type: 'undone', ...deed })
      for (const { deed, error } of skipped) {
        output.warn(`${deed.path}: ${error.message}`)
        if (output.json)
          output.result('', { type: 'skipped', path: deed.path, code: error.code, message: error.message })
      }
      const exitCode = skipped.length > 0 ? EXIT.partial : EXIT.done
      if (output.json) output.result('', { type: 'summary', exitCode, undone: undone.length, skipped: skipped.length })
      else output.info(`${undone.length} ${dryRun ? 'to take back' : 'taken back'}, ${skipped.length} left alone`)
      return exitCode
    } finally {
      await client.close()
    }
  }
  throw new SyncError('usage', 'NO_RUNS', `No run has the id ${runId}`, { hint: 'See: sync runs' })
}
