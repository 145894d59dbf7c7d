/** mkdir, rm, mv, cp: changing what is at the server. @module */
import type { Arrangement, MoveOptions } from '../../client/index.ts'
import { SyncError, toSyncError } from '../../errors.ts'
import { withClient } from '../connect.ts'
import type { Context } from '../context.ts'
import { display } from '../display.ts'
import { describe } from '../entry-text.ts'
import { EXIT, exitCodeOf as exitCodeOfError } from '../exit-codes.ts'

export async function mkdir(context: Context, path: string): Promise<void> {
  const { options, output, signal } = context
  await withClient(context, async (client) => {
    const entry = await client.mkdir(path, { parents: options.parents === true, signal })
    output.done(`Made ${display(path)}`, describe(entry))
  })
}

export async function rm(context: Context, given: readonly string[]): Promise<void> {
  const { options, output, signal } = context
  await withClient(context, async (client) => {
    const back: string[] = []
    await client.remove(await client.glob(given, { signal }), {
      recursive: options.recursive === true,
      rooms: options.force === true,
      signal,
      onRemoved(path, { id, type }) {
        output.done(`Deleted ${display(path)}`, { type: 'deleted', path, id })
        if (type !== 'room') back.push(path)
      },
    })
    if (back.length > 0 && !output.json) {
      const [first = ''] = back
      output.info(`To put it back: sync trash restore ${quoted(first)}${back.length > 1 ? ' …' : ''}`)
    }
  })
}

/** As a shell takes it. */
const quoted = (path: string): string => (/^[\w@%+=:,./-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`)

const arrange =
  (verb: 'Moved' | 'Copied', call: 'moveAll' | 'copyAll') =>
  async (context: Context, given: readonly string[]): Promise<number> => {
    const { output, settings, signal } = context
    const [sources, target] = [given.slice(0, -1), given.at(-1)!]
    if (sources.length === 0) throw new SyncError('usage', 'OPTION_INVALID', 'A source and a target are needed')
    const how: MoveOptions = {
      signal,
      keepShareLinks: context.options.keepShareLinks === true,
      onConflict: settings.text('on-conflict') as MoveOptions['onConflict'],
      onDone: ({ from, entry, isSkipped }) =>
        output.done(`${isSkipped ? 'Left' : verb} ${display(from)}${isSkipped ? '' : ` to ${display(entry.path)}`}`, {
          ...describe(entry),
          type: isSkipped ? 'skipped' : verb.toLowerCase(),
          from,
        }),
    }
    return withClient(context, async (client) => {
      const paths = await client.glob(sources, { signal })
      return exitCodeOf(context, await client[call](paths, target, how))
    })
  }

/** Who has no keys is told; the files are where they were to go. */
function exitCodeOf({ output }: Context, { refused, keysSkipped, keysPending }: Arrangement): number {
  for (const hint of new Set(refused.map(({ error }) => error.hint))) if (hint !== undefined) output.info(`  ${hint}`)
  if (keysPending !== undefined || keysSkipped > 0) output.info('  Hand them out later with: sync keys distribute')
  if (refused.some(({ error }) => error.class === 'integrity')) return EXIT.integrity
  if (refused.some(({ error }) => error.class === 'safety')) return EXIT.safety
  if (keysPending !== undefined) return exitCodeOfError(toSyncError(keysPending))
  return refused.length + keysSkipped > 0 ? EXIT.partial : EXIT.done
}

export const mv = arrange('Moved', 'moveAll')
export const cp = arrange('Copied', 'copyAll')
