/** Some places of a tree by their keys, with all that is below them. Pure. @module */

/** Places that are looked at, when nothing is known to have changed elsewhere. */
export interface Scope {
  /** True for what is at one of the places, or below it. */
  covers(key: string): boolean
  /** Keys of the directories that lead to them, without the root. */
  readonly above: ReadonlySet<string>
  /** True for what is covered, and for what leads there. */
  has(key: string): boolean
}

/** True for what a key of a set is, or is above. */
export function isAtOrBelowAny(keys: Pick<ReadonlySet<string>, 'has'>, key: string): boolean {
  for (let end = key.length; end > 0; end = key.lastIndexOf('/', end - 1)) if (keys.has(key.slice(0, end))) return true
  return false
}

/** @param keys - Of places, as `keyOf` makes them; the empty one is the root, which covers everything. */
export function createScope(keys: Iterable<string>): Scope {
  const places = new Set(keys)
  const isAll = places.has('')
  const covers = (key: string) => isAll || isAtOrBelowAny(places, key)
  const above = new Set<string>()
  for (const key of places)
    for (let at = key.lastIndexOf('/'); at > 0; at = key.lastIndexOf('/', at - 1)) {
      const up = key.slice(0, at)
      if (!covers(up)) above.add(up)
    }
  return { covers, above, has: (key) => above.has(key) || covers(key) }
}
