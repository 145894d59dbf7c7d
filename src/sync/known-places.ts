/** What the pairs of an account remember of remote places, for whoever fetches something without a pair of their own. @module */
import type { RemoteNode } from '../api/wire.ts'
import { localName, type Names, sameNameKey } from '../local/names.ts'
import { createKnownContents, type KnownContents } from './known-contents.ts'
import { parseRemotePath } from './remote-path.ts'
import type { StatePlace } from './run.ts'
import { keyOf } from './scan.ts'
import { listPairs, openState, type Pair, stateDirectory } from './state.ts'

export interface KnownPlaces {
  /**
   * @param path - Components of the remote path, from the room on.
   * @param seal - IV and tag, base64; `undefined` for a plain file.
   * @throws {SyncError} as `KnownContents.judge`.
   */
  judge(path: readonly string[], node: RemoteNode, seal: string | undefined): void
}

interface Known {
  readonly root: readonly string[]
  readonly names: Names | undefined
  readonly contents: KnownContents
}

const isAt = (path: readonly string[], root: readonly string[]): boolean =>
  root.every((name, index) => path[index] !== undefined && sameNameKey(path[index]) === sameNameKey(name))

/**
 * Reads what is remembered of these remote paths and what is below them.
 *
 * @param onDamaged - Told where a state that could not be read was put.
 */
export async function readKnownPlaces(
  { directory, account }: StatePlace,
  remotes: readonly string[],
  now: number,
  onDamaged: (keptAs: string) => void,
): Promise<KnownPlaces> {
  const wanted = remotes.map((remote) => parseRemotePath(remote))
  const known: Known[] = []
  for (const pair of await listPairs(directory, account)) {
    if (pair.transfer !== undefined || pair.backup !== undefined) continue
    const root = parseRemotePath(pair.remote)
    if (wanted.some((path) => isAt(path, root) || isAt(root, path))) known.push(await read(directory, pair, root))
  }
  return {
    judge(path, node, seal) {
      for (const { root, names, contents } of known) {
        if (path.length <= root.length || !isAt(path, root)) continue
        const here = path.slice(root.length).map((name) => nameHere(name, names))
        contents.judge(keyOf(here), node, seal)
      }
    },
  }

  async function read(states: string, pair: Pair, root: readonly string[]): Promise<Known> {
    const state = await openState(stateDirectory(states, pair), pair, now, onDamaged)
    try {
      const [records, superseded] = [state.records(), state.superseded()]
      const last = state.runs().find(({ options }) => options?.names !== undefined)
      const names = last?.options?.names === 'escape' ? 'escape' : undefined
      return { root, names, contents: createKnownContents({ records: () => records, superseded }) }
    } finally {
      await state.close()
    }
  }
}

/** The name that a remote one has on this disk. */
export function nameHere(remote: string, names: Names | undefined): string {
  try {
    return localName(remote, { names })
  } catch {
    return remote
  }
}
