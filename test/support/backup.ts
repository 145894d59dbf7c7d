/** A backup set over real files and a real server. @module */
import { join } from 'node:path'
import { deleteNode } from '../../src/api/nodes.ts'
import { systemRandom } from '../../src/environment.ts'
import type { HttpRequest } from '../../src/http/types.ts'
import { setDirectory } from '../../src/sync/backup/memory.ts'
import { type RestoreOptions, restoreBackup } from '../../src/sync/backup/restore.ts'
import { type BackupOptions, runBackup } from '../../src/sync/backup/run.ts'
import { readManifest } from '../../src/sync/backup/runs.ts'
import type { BackupSet } from '../../src/sync/backup/set.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import type { RunContext, RunEvent } from '../../src/sync/run.ts'
import type { World } from './cli.ts'

export interface Backup {
  readonly set: BackupSet
  readonly context: RunContext
  readonly events: RunEvent[]
  readonly source: string
  readonly state: { directory: string; account: string }
  /** Where the state of the set is. */
  readonly directory: string
  run(options?: Partial<BackupOptions>): ReturnType<typeof runBackup>
  /** Restores below a fresh directory; returns where the source's content is in it. */
  restore(
    run?: string,
    options?: Partial<RestoreOptions>,
  ): Promise<{
    summary: Awaited<ReturnType<typeof restoreBackup>>
    root: string
    content: string
  }>
  manifest(run: string): ReturnType<typeof readManifest>
  remote(path: string): Promise<{ id: number; size?: number | undefined }>
  remove(path: string): Promise<void>
  /** Changes what the server is asked, as if it took one thing for another. */
  through(change: (request: HttpRequest) => HttpRequest): RunContext
}

let count = 0

export async function createBackup(world: World, more: Partial<BackupSet> = {}): Promise<Backup> {
  const name = `set${++count}`
  const source = world.path(name)
  const set: BackupSet = {
    name,
    target: `/room/backups/${name}`,
    sources: [source],
    exclude: [],
    oneFileSystem: false,
    keep: {},
    ...more,
  }
  const { api, keyring, clock } = await world.client()
  const events: RunEvent[] = []
  const context: RunContext = { api, keyring, clock, random: systemRandom, onEvent: (event) => void events.push(event) }
  const state = { directory: world.path('states'), account: 'anna' }
  let restored = 0
  const node = async (path: string) => (await requireRemote(api, `${set.target}/${path}`)).node
  return {
    set,
    context,
    events,
    source,
    state,
    directory: setDirectory(state, set),
    run: (options) => runBackup(context, set, { state, ...options }),
    async restore(run = 'latest', options = {}) {
      const root = world.path(`${name}-back${++restored}`)
      const summary = await restoreBackup(context, set, root, { state, run, ...options })
      return { summary, root, content: join(root, source) }
    },
    manifest: async (run) =>
      readManifest(context, set, run, await node(`runs/${run}.json.gz`), undefined, new AbortController().signal),
    remote: node,
    remove: async (path) => deleteNode(api, (await node(path)).id),
    through: (change) => ({ ...context, api: { ...api, send: (request) => api.send(change(request)) } }),
  }
}

/** Requests that made or replaced content. */
export const uploadsIn = (events: readonly RunEvent[]): string[] =>
  events.flatMap((event) => (event.type === 'file-done' ? [event.path] : []))
