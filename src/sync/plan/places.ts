/** Places of a tree by their keys: what is below what, free names, and other paths for what stands somewhere. @module */

import { keyOf, parentKey } from '../scan.ts'
import type { ReconcileOptions } from './steps.ts'

export const isAtOrBelow = (key: string, above: string): boolean => key === above || key.startsWith(`${above}/`)

/** Names that are not free any more. */
export type Taken = Pick<Set<string>, 'has' | 'add'>

/** A free name beside something that has to make way. */
export function nameCopy(
  key: string,
  path: readonly string[],
  mtimeMs: number,
  { conflictName }: Pick<ReconcileOptions, 'conflictName'>,
  taken: Taken,
): readonly string[] {
  const above = parentKey(key)
  const keyIn = (name: string) => keyOf([...(above === '' ? [] : [above]), name])
  const first = conflictName(path.at(-1)!, mtimeMs)
  let name = first
  for (let number = 2; taken.has(keyIn(name)); number++) name = first.replace(/(\)[^)]*)$/, ` ${number}$1`)
  taken.add(keyIn(name))
  return [...path.slice(0, -1), name]
}

/** Puts what is at a key, and for a directory below it, under another path. */
export function rekey<T extends { readonly kind: 'file' | 'directory'; readonly path: string | readonly string[] }>(
  map: Map<string, T>,
  from: string,
  to: readonly string[],
  change: (value: T, path: readonly string[]) => T,
): void {
  const top = map.get(from)
  if (top === undefined) return
  const moved: [string, T][] = [[from, top]]
  if (top.kind === 'directory') for (const one of map) if (one[0].startsWith(`${from}/`)) moved.push(one)
  for (const [key] of moved) map.delete(key)
  const depth = from.split('/').length
  for (const [key, value] of moved) {
    const components = typeof value.path === 'string' ? value.path.split('/') : value.path
    map.set(keyOf(to) + key.slice(from.length), change(value, [...to, ...components.slice(depth)]))
  }
}
