/** What killed runs left in the directories of a tree, so that this one can go on with it or tidy up. @module */
import type { Clock } from '../environment.ts'
import { type Leftover, removeLeftover, sweepDirectory } from './partial-file.ts'
import type { SafeTree } from './safe-tree.ts'

/** What may be continued, and in which directory. */
export interface LeftBehind {
  readonly path: readonly string[]
  readonly left: Leftover
}

/** Holds a directory while something is done in it; `work` gets its path, see `HeldDirectory`. */
export async function inDirectory<T>(
  tree: SafeTree,
  path: readonly string[],
  work: (path: string) => Promise<T>,
): Promise<T> {
  const directory = tree.hold(path)
  try {
    return await work(directory.path)
  } finally {
    directory.release()
  }
}

/** Tidies up directories, which are made if missing; passes over those that cannot be. Never fails. */
export async function sweepTree(
  tree: SafeTree,
  directories: Iterable<readonly string[]>,
  clock: Clock,
): Promise<LeftBehind[]> {
  const leftovers: LeftBehind[] = []
  for (const path of directories) {
    try {
      const found = await inDirectory(tree, path, (directory) => sweepDirectory(directory, clock))
      for (const left of found) leftovers.push({ path, left })
    } catch {
      // That is told of what is to be in it.
    }
  }
  return leftovers
}

export const bytesLeft = (leftovers: readonly LeftBehind[]): number =>
  leftovers.reduce((sum, { left }) => sum + left.bytes, 0)

/** Removes what was left of files that are complete now, in this version or another. `settled` has their paths. */
export async function removeSettled(
  tree: SafeTree,
  leftovers: readonly LeftBehind[],
  settled: ReadonlySet<string>,
  clock: Clock,
): Promise<void> {
  for (const { path, left } of leftovers) {
    if (!settled.has([...path, left.name].join('/'))) continue
    try {
      await inDirectory(tree, path, (directory) => removeLeftover(directory, left, clock))
    } catch {
      // A later run looks again.
    }
  }
}
