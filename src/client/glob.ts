/** Remote paths with wildcards, as shells have them for local ones. @module */
import { SyncError } from '../errors.ts'
import { escapeName, sameNameKey } from '../local/names.ts'
import { nameMatcher } from '../sync/ignore-rules.ts'
import { parseRemotePath, resolveRemote } from '../sync/remote-path.ts'
import type { Abortable, ClientContext } from './context.ts'
import { list, pathOf } from './entries.ts'

const WILD = /[*?[]/

/** Whether a path may stand for several. */
export const isPattern = (path: string): boolean => WILD.test(path)

/** What a component of a pattern fits. As in a shell, what begins with a dot is meant only where that is written. */
function fitterOf(component: string): (name: string) => boolean {
  if (!WILD.test(component)) {
    const keys = [sameNameKey(component), sameNameKey(escapeName(component))]
    return (name) => keys.includes(sameNameKey(name))
  }
  const fits = nameMatcher(sameNameKey(component))
  return (name) => fits !== undefined && (component.startsWith('.') || !name.startsWith('.')) && fits(sameNameKey(name))
}

async function expandOne(context: ClientContext, path: string, signal?: AbortSignal): Promise<string[]> {
  const names = parseRemotePath(path)
  // Something that is really called so is meant.
  const { missing } = await resolveRemote(context.api, path, signal)
  if (missing.length === 0) return [path]
  const first = names.findIndex((name) => WILD.test(name))
  let found = [pathOf(names.slice(0, first))]
  for (const [index, name] of names.entries()) {
    if (index < first) continue
    const fits = fitterOf(name)
    const isLast = index === names.length - 1
    const next: string[] = []
    for (const place of found) {
      for await (const entry of list(context, place, { signal })) {
        // A file lists itself.
        if (entry.path === place || !fits(entry.name)) continue
        if (isLast || entry.type !== 'file') next.push(entry.path)
      }
    }
    found = next
  }
  if (found.length > 0) return found
  throw new SyncError('not_found', 'REMOTE_MISSING', `Nothing on the server matches ${path}`, {
    hint: 'List what is there: sync ls',
  })
}

/**
 * The paths that patterns stand for, in the order of the patterns and by name: `*` for any letters, `?` for one, `[…]` for one of
 * some, each within one name. A path without any of these is passed on and not looked up; one that names something that is there is
 * taken for that.
 *
 * @throws {SyncError} `REMOTE_MISSING` for a pattern that nothing fits; as `list`.
 */
export async function glob(
  context: ClientContext,
  patterns: readonly string[],
  { signal }: Abortable,
): Promise<string[]> {
  const paths = new Set<string>()
  for (const pattern of patterns) {
    const found = isPattern(pattern) ? await expandOne(context, pattern, signal) : [pattern]
    for (const path of found) paths.add(path)
  }
  return [...paths]
}
