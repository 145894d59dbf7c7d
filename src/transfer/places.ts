/**
 * The one decision whether content that is not encrypted may go to a place, or come from it. A place that was ever seen as
 * encrypted is known by its id and by its path, and with it everything below, whatever the server says of it now. What is
 * remembered for later processes is kept by pins.ts.
 * @module
 */
import type { PlaceGuard, PlainPolicy, SeenNode } from '../api/api.ts'
import { SyncError } from '../errors.ts'
import { foldKey, unescapeName } from '../local/names.ts'

/** A room or folder as it was seen. */
export interface Place {
  readonly id: number
  /** Names from the top room down, in the form in which they are compared; absent where nobody has seen the way there. */
  readonly path?: string
}

/** What is remembered. */
export interface KnownPlaces {
  /** Ever seen as encrypted. */
  readonly encrypted: readonly Place[]
  /** Not encrypted, and a person has agreed to that. */
  readonly plain: readonly Place[]
  /** Since when earlier knowledge is lost: a place that is not encrypted may have been it. */
  readonly lostAt?: number
}

export interface PlaceStore {
  read(): Promise<KnownPlaces>
  add(kind: 'encrypted' | 'plain', places: readonly Place[]): Promise<void>
  /** Told what could not be kept; it protects this process at least. */
  onLoss(error: unknown): void
  /** The error for a place that is not encrypted while earlier knowledge is lost. */
  lost(): SyncError
}

export interface Places extends PlaceGuard {
  /** Forgets what this process has seen of a place and of everything below it. */
  forget(id: number | undefined, path: string): void
  /** Writes what is not written yet. */
  flush(): Promise<void>
}

const noMoreEncrypted = () =>
  new SyncError(
    'safety',
    'ROOM_NOT_ENCRYPTED',
    'The place was encrypted before, and now the server says that it is not',
    { hint: 'Ask its administrator. If that is meant to be so: sync keys forget --room /ROOM' },
  )

const notEncrypted = (shown: string, hint: string) =>
  new SyncError('safety', 'NOT_ENCRYPTED', `${shown} is not encrypted`, { hint })

/** Deeper than any tree that is listed; a chain of parents that is longer runs in a circle. */
const MAX_CHAIN = 300
/** Most ways to one place that are followed. */
const MAX_WAYS = 256

const unclear = () =>
  new SyncError('server', 'TREE_CYCLE', 'The server shows a room or folder in too many places', {
    hint: 'Ask its administrator.',
  })

/** Where a place is, or was before the server showed it somewhere else or under another name. */
interface Way {
  readonly parentId: number | undefined
  readonly key: string
}

interface Seen extends Way {
  isEncrypted: boolean
  /** Earlier ways, as long as something that was encrypted is at their end or below it. */
  readonly earlier: readonly Way[]
}

interface Link {
  readonly id: number
  readonly key: string
  readonly parentId: number | undefined
  readonly isEncrypted: boolean
}

/** One name of a path, so that joined names cannot be mistaken for others; however it is escaped. */
const nameKey = (name: string) => foldKey(unescapeName(name)).replaceAll('%', '%25').replaceAll('/', '%2F')

/** Path of a place by the names that lead to it. */
export const placePath = (names: readonly string[]): string => names.map((name) => `/${nameKey(name)}`).join('')

/** True for the place itself and what is below it. */
export const isAtOrBelow = (path: string, top: string): boolean => path === top || path.startsWith(`${top}/`)

export function createPlaces(store: PlaceStore): Places {
  /** Rooms and folders by id; files are judged by where they are. */
  const seen = new Map<number, Seen>()
  /** Ids that this process has ever seen as encrypted, and those of them that are not written yet. */
  const ever = new Set<number>()
  const fresh = new Set<number>()
  /** Below these this run may put content that is not encrypted. */
  const admitted = new Set<number>()
  let ids = new Set<number>()
  let paths = new Set<string>()
  let isLoaded = false

  /** From the top down, as far as the way is known now. */
  function chainOf(id: number): Link[] {
    const chain: Link[] = []
    for (let at: number | undefined = id; at !== undefined && at !== 0; ) {
      const node = seen.get(at)
      if (node === undefined || chain.length > MAX_CHAIN) break
      chain.push(linkOf(at, node, node))
      at = node.parentId
    }
    return chain.reverse()
  }

  const linkOf = (id: number, { isEncrypted }: Seen, { parentId, key }: Way): Link => ({
    id,
    key,
    parentId,
    isEncrypted,
  })

  /** All ways to a place: the one of now first. */
  function chainsOf(id: number): Link[][] {
    const chains = [chainOf(id)]
    const pending: { readonly at: number | undefined; readonly below: readonly Link[]; readonly isOther: boolean }[] = [
      { at: id, below: [], isOther: false },
    ]
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      const { at, below, isOther } = next
      const node = at === undefined || at === 0 || below.some(({ id }) => id === at) ? undefined : seen.get(at)
      if (node === undefined || below.length > MAX_CHAIN) {
        if (isOther) chains.push([...below].reverse())
        if (chains.length > MAX_WAYS) throw unclear()
        continue
      }
      for (const way of [node, ...node.earlier]) {
        const isEarlier = isOther || way !== node
        pending.push({ at: way.parentId, below: [...below, linkOf(at!, node, way)], isOther: isEarlier })
      }
    }
    return chains
  }

  const isWhole = (chain: readonly Link[]) => chain[0]?.parentId === 0

  const pathOf = (chain: readonly Link[]) => chain.map(({ key }) => `/${key}`).join('')

  const placeOf = (id: number): Place => {
    const chain = chainOf(id)
    return isWhole(chain) ? { id, path: pathOf(chain) } : { id }
  }

  /** The ways to keep of a place that is shown somewhere else now: those that still matter. */
  function earlierWays(id: number, before: Seen, now: Way): readonly Way[] {
    if (before.parentId === now.parentId && before.key === now.key) return before.earlier
    const others = before.earlier.filter(({ parentId, key }) => parentId !== now.parentId || key !== now.key)
    const isOfUse = chainsOf(id).some((chain) => {
      const path = isWhole(chain) && pathOf(chain)
      return path && (!isLoaded || [...paths].some((known) => isAtOrBelow(known, path)))
    })
    return isOfUse ? [{ parentId: before.parentId, key: before.key }, ...others] : others
  }

  async function load(): Promise<KnownPlaces> {
    const known = await store.read()
    ids = new Set(known.encrypted.map(({ id }) => id))
    paths = new Set(known.encrypted.flatMap(({ path }) => path ?? []))
    isLoaded = true
    return known
  }

  async function flush(): Promise<void> {
    if (fresh.size === 0) return
    const found = [...fresh].map(placeOf)
    fresh.clear()
    try {
      await store.add('encrypted', found)
    } catch (error) {
      store.onLoss(error)
    }
  }

  /** @throws {SyncError} `ROOM_NOT_ENCRYPTED` where a known place, at or above this one, is not encrypted any more. */
  function requireAsKnown(chain: readonly Link[], below: readonly string[]): void {
    let path = isWhole(chain) || chain.length === 0 ? '' : undefined
    for (const { id, key, isEncrypted } of chain) {
      if (isEncrypted) return
      if (path !== undefined) path += `/${key}`
      if (ids.has(id) || ever.has(id) || (path !== undefined && paths.has(path))) throw noMoreEncrypted()
    }
    if (path === undefined) return
    for (const name of below) {
      path += `/${nameKey(name)}`
      if (paths.has(path)) throw noMoreEncrypted()
    }
  }

  async function enter(id: number, below: readonly string[] = []): Promise<void> {
    await flush()
    const chain = chainOf(id)
    if (chain[0]?.isEncrypted === true) return
    // The root holds rooms, and what nobody has seen is judged when somebody has.
    if (chain.length === 0 && (id !== 0 || below.length === 0)) return
    const { lostAt } = await load()
    for (const way of chainsOf(id)) requireAsKnown(way, below)
    if (lostAt !== undefined && chain.length > 0 && !chain.some(({ isEncrypted }) => isEncrypted)) throw store.lost()
  }

  return {
    saw({ id, type, name, isEncrypted, parentId: told }: SeenNode, parentId) {
      if (type === 'file') return
      const before = seen.get(id)
      const above = parentId ?? before?.parentId ?? told ?? (type === 'room' ? 0 : undefined)
      const now: Way = { parentId: above, key: nameKey(name) }
      const earlier = before === undefined ? [] : earlierWays(id, before, now)
      seen.set(id, { ...now, isEncrypted: isEncrypted === true, earlier })
      if (isEncrypted !== true || ever.has(id)) return
      ever.add(id)
      // Of what is inside something encrypted the place above speaks.
      const isTop = above === 0 || (above !== undefined && seen.get(above)?.isEncrypted === false)
      if (type === 'room' || isTop) fresh.add(id)
    },
    enter,
    async admit(id, below, { shown, allowPlain, requireEncryption, confirm }: PlainPolicy) {
      await enter(id, below)
      const chain = chainOf(id)
      if (chain.some(({ isEncrypted }) => isEncrypted)) {
        // People name it again: by its id it is known also in another place.
        if (!ids.has(id)) fresh.add(id)
        return flush()
      }
      if (requireEncryption === true) {
        const hint = 'Choose an encrypted room. If this one was encrypted before, ask its administrator what happened.'
        throw notEncrypted(shown, `Encryption is required. ${hint}`)
      }
      if (allowPlain === false || (allowPlain === undefined && confirm !== undefined)) {
        const { plain } = await load()
        const isAgreed = chain.some((_, index) => {
          const { id: at, path } = placeOf(chain[index]!.id)
          return plain.some((place) => place.id === at && place.path === path)
        })
        if (!isAgreed) {
          if (
            confirm === undefined ||
            !(await confirm(`${shown} is not encrypted: the server can read what is put there. Go on?`))
          ) {
            throw notEncrypted(shown, 'If the server may read what is put there: --allow-plain')
          }
          await store.add('plain', [placeOf(id)])
        }
      }
      admitted.add(id)
    },
    async plain(direction, parentId, name) {
      if (!isLoaded) await load()
      const chain = chainOf(parentId)
      if (chain.some(({ isEncrypted }) => isEncrypted)) throw noMoreEncrypted()
      for (const way of chainsOf(parentId)) requireAsKnown(way, [name])
      if (direction === 'take' || chain.some(({ id }) => admitted.has(id)) || admitted.has(parentId)) return
      throw notEncrypted('The target', 'If the server may read what is put there: --allow-plain')
    },
    forget(id, path) {
      for (const [one] of seen) {
        const { path: at } = placeOf(one)
        if (one !== id && (at === undefined || !isAtOrBelow(at, path))) continue
        ever.delete(one)
        fresh.delete(one)
      }
      isLoaded = false
    },
    flush,
  }
}
