/**
 * What to do to bring two trees together, as a pure function of both, of what is known from earlier runs, and of the options.
 * It touches no file, no key and no network. Planning what has been carried out yields nothing. What is decided about files,
 * directories, moves and kinds is in plan/.
 *
 * Steps come in the order in which they are safe: moves and directories from the top down, contents, deletions of files, then
 * of directories from the bottom up.
 * @module
 */
import { need, planDirectories } from './plan/directories.ts'
import { createDecision } from './plan/files.ts'
import { findInTheWay, settleKinds } from './plan/kinds.ts'
import { isAnythingGone, placesToLookAt } from './plan/look.ts'
import { findCaseMoves, findMoves } from './plan/moves.ts'
import { isAtOrBelow, type Taken } from './plan/places.ts'
import { localSide, remoteSide, type View } from './plan/sides.ts'
import { byPath, deepestFirst, type ReconcileOptions, type SyncStep, type Trees } from './plan/steps.ts'
import { isAtOrBelowAny } from './scope.ts'

export { bytesOf, type Direction, type ReconcileOptions, type SyncStep, type Trees } from './plan/steps.ts'

/** Plans; see above. */
export function reconcile(trees: Trees, options: ReconcileOptions): SyncStep[] {
  const { blocked } = trees
  const steps: SyncStep[] = []
  /** Remote folders and local directories that an earlier step makes. */
  const made = new Set<string>()

  let { local, remote, records }: Pick<Trees, 'local' | 'remote' | 'records'> = trees
  const isGone = isAnythingGone(trees)
  if (isGone || trees.foldsCase) {
    // What is gone may have been moved; then the view goes on as if that were done.
    const own = { local: new Map(local), remote: new Map(remote), records: new Map(records) }
    const view: View = { ...own, blocked, steps, made, foldsCase: trees.foldsCase }
    if (isGone && options.direction !== 'pull') findMoves(view, localSide(view))
    if (isGone && options.direction !== 'push') findMoves(view, remoteSide(view))
    if (trees.foldsCase) findCaseMoves(view, options.direction)
    ;({ local, remote, records } = own)
  }
  let found = placesToLookAt({ ...trees, local, remote, records }, options)
  const reserved = new Set<string>()
  const taken: Taken = {
    has: (key) => reserved.has(key) || found.has(key) || local.has(key) || remote.has(key) || records.has(key),
    add: (key) => reserved.add(key),
  }
  const removals: SyncStep[] = []
  const contents: SyncStep[] = []
  const emptied: SyncStep[] = []
  const standing = findInTheWay({ local, remote }, found, trees.links)
  /** Places that become free last. */
  let freed: ReadonlySet<string> = new Set()
  if (standing.size > 0) {
    const own = { local: new Map(local), remote: new Map(remote), records: new Map(records) }
    const settled = settleKinds({ ...trees, ...own }, standing, options, taken)
    append(steps, settled.aside)
    append(contents, settled.conflicts)
    append(removals, settled.removals)
    append(emptied, settled.emptied)
    freed = settled.freed
    ;({ local, remote, records } = own)
    found = placesToLookAt({ ...trees, local, remote, records }, options)
    for (const key of settled.left) for (const one of found) if (isAtOrBelow(one, key)) found.delete(one)
  }
  const keys = [...found].sort(byPath)
  const decide = createDecision(trees, options, taken)
  /** Places that hold something which stays or comes: their directories are needed. */
  const needed = new Set<string>()
  const directories: string[] = []
  for (const key of keys) {
    const here = { local: local.get(key), remote: remote.get(key), record: records.get(key) }
    const kind = here.local?.kind ?? here.remote?.kind ?? here.record!.kind
    if (kind === 'directory') {
      directories.push(key)
      continue
    }
    const step = decide(key, here)
    if (step === undefined) continue
    if (step.do === 'delete-local' || step.do === 'delete-remote' || step.do === 'forget') removals.push(step)
    else contents.push(step)
    if (step.do !== 'delete-local' && step.do !== 'delete-remote' && step.do !== 'forget') need(key, needed)
  }
  const directorySteps = planDirectories({ ...trees, local, remote, records }, made, options, directories, needed)
  const isLate = ({ key }: SyncStep) => freed.size > 0 && isAtOrBelowAny(freed, key)
  const [make, late] = [directorySteps.make.filter((step) => !isLate(step)), directorySteps.make.filter(isLate)]
  for (const step of contents) if (isLate(step)) late.push(step)
  const directoriesGone = [...emptied, ...directorySteps.remove].sort(deepestFirst)
  const first = contents.filter((step) => !isLate(step))
  const last = late.map((step) => ({ ...step, isLate: true as const }))
  for (const more of [make, first, removals, directoriesGone, last]) append(steps, more)
  return steps
}

/** Not by a call with all of them: one takes some 100,000 arguments at most. */
function append(steps: SyncStep[], more: readonly SyncStep[]): void {
  for (const step of more) steps.push(step)
}
