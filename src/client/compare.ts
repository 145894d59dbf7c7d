/** Comparing sides, and reading what is stored to its end, without changing anything. @module */
import type { Names } from '../local/names.ts'
import { type CompareRunOptions, type Comparison, compareTrees } from '../sync/compare.ts'
import type { SyncRecord } from '../sync/records.ts'
import { parseRemotePath } from '../sync/remote-path.ts'
import { listPairs, type ManifestPin, openState, stateDirectory } from '../sync/state.ts'
import { type Verification, type VerifyOptions, verifyRemote } from '../sync/verify.ts'
import type { ClientContext } from './context.ts'

/** How trees are compared; see `CompareRunOptions`. */
export type DiffOptions = Omit<CompareRunOptions, 'contents'>

/** How what is stored is read; see `VerifyOptions`. What is known of it comes from the client's directory. */
export type VerifyRunOptions = Omit<VerifyOptions, 'known' | 'pin'>

/** What differs between a local and a remote directory by size and time. See `compareTrees`. */
export const diff = (
  context: ClientContext,
  local: string,
  remote: string,
  options: DiffOptions,
): Promise<Comparison> => compareTrees(context, local, remote, { ...options, contents: false })

/** As `diff`, by content: local files are read and their tags recomputed, nothing is transferred. */
export const check = (
  context: ClientContext,
  local: string,
  remote: string,
  options: DiffOptions,
): Promise<Comparison> => compareTrees(context, local, remote, { ...options, contents: true })

/**
 * Downloads and checks all files below a remote path, or a share of them, and keeps nothing. What runs of pairs have found there
 * before is held against it.
 */
export async function verify(context: ClientContext, remote: string, options: VerifyRunOptions): Promise<Verification> {
  const known = await knownOf(context, remote, options.signal)
  // A machine without runs over it has what it was told only.
  return verifyRemote(context, remote, { ...options, ...known, names: known.names ?? options.names })
}

interface KnownPlace {
  readonly known: ReadonlyMap<string, SyncRecord>
  readonly names: Names | undefined
  readonly pin: ManifestPin | undefined
}

/** Runs of pairs, which say how they treated names. */
const isPairRun = (command: string) => command === 'push' || command === 'pull' || command === 'both'

/** What is known of a remote place from runs over it. */
async function knownOf(
  { home, clock, onEvent }: ClientContext,
  remote: string,
  signal: AbortSignal | undefined,
): Promise<KnownPlace> {
  const wanted = `/${parseRemotePath(remote).join('/')}`
  const known = new Map<string, SyncRecord>()
  let names: Names | undefined
  let pin: ManifestPin | undefined
  for (const pair of await listPairs(home.states, await home.account(signal))) {
    if (pair.transfer !== undefined || pair.remote !== wanted) continue
    const state = await openState(stateDirectory(home.states, pair), pair, clock.now(), (keptAs) => {
      const message = `damaged state was put aside as ${keptAs}`
      onEvent?.({ type: 'warning', code: 'STATE_DAMAGED', message })
    })
    try {
      for (const [key, record] of state.records()) known.set(key, record)
      const last = state.runs().find(({ command }) => isPairRun(command))
      if (last?.options?.names === 'escape') names = 'escape'
      const { manifest } = state
      if (manifest !== undefined && manifest.sequence > (pin?.sequence ?? 0)) pin = manifest
    } finally {
      await state.close()
    }
  }
  return { known, names, pin }
}
