/**
 * Tells that something has changed below a directory, and at which place as far as the system says that: whoever is told looks there.
 * One `fs.watch` per directory where the system has no recursive kind of its own (Linux), one for all elsewhere.
 *
 * A watch is bound to a directory, not to a path. So what was renamed, moved in or made anew is not found by following events,
 * which come late and in any order, but by looking: `refresh` compares the directories that are there with those that are
 * watched. A directory that appears is told by the one it appears in; refreshed before each look, no change is missed.
 * @module
 */
import { type BigIntStats, type FSWatcher, lstatSync, readdirSync, realpathSync, watch } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { systemCode } from '../errors.ts'
import { BIN_NAME, isTemporaryName } from './atomic-file.ts'

export interface TreeWatcherOptions {
  /**
   * Called for every event; nothing that programs of ours leave beside files counts. `place` is a path below the root, whose kind may
   * have changed, too; empty: anything may have.
   */
  readonly onChange: (place: string) => void
  /** Absolute real paths of directories that are left out, with all that is below them. */
  readonly passOver?: readonly string[]
}

export interface TreeWatcher {
  /**
   * Watches all directories that are there now. One call at a time.
   *
   * @param places - As told: nothing has changed elsewhere since the last call. Default: everywhere.
   * @returns why not all of them, where the system refuses (`ENOSPC`: no more watches); the others are watched.
   */
  refresh(places?: readonly string[]): Promise<unknown>
  close(): void
}

/** Directories that are looked at in one go. */
const BATCH = 200
/** One watch sees everything below. */
const IS_RECURSIVE = process.platform === 'darwin' || process.platform === 'win32'
/** Gone since its directory was listed, or not ours to read: whoever looks at everything is told that. */
const UNSEEN: readonly (string | undefined)[] = ['ENOENT', 'ENOTDIR', 'EACCES', 'EPERM']

interface Watch {
  /** Of the directory when it was opened. A number of an inode alone may be used again. */
  identity: string
  readonly watcher: FSWatcher
}

/** Never through a link. */
function isDirectory(path: string): boolean {
  try {
    return lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true
  } catch {
    return false
  }
}

const identityOf = ({ dev, ino, birthtimeNs }: BigIntStats): string => `${dev} ${ino} ${birthtimeNs}`

/** @param root - Absolute path; may be a link, whose target may change. */
export function createTreeWatcher(root: string, { onChange, passOver = [] }: TreeWatcherOptions): TreeWatcher {
  /** By path. */
  const watches = new Map<string, Watch>()
  let isClosed = false
  /** What the root is now, in real names. */
  let top = root

  const isOurs = (name: string) => isTemporaryName(basename(name)) || name.split(/[\\/]/).includes(BIN_NAME)
  const below = (path: string, above: string) => path === above || path.startsWith(`${above}/`)
  const placeOf = (path: string) => (!IS_RECURSIVE && below(path, top) ? path.slice(top.length + 1) : '')

  /** @throws what the system says when it refuses. */
  function open(path: string, onEvent: (name: string | null) => void): void {
    const found = lstatSync(path, { bigint: true })
    if (!found.isDirectory()) return
    const identity = identityOf(found)
    const known = watches.get(path)
    if (known?.identity === identity) return
    known?.watcher.close()
    watches.delete(path)
    const watcher = watch(path, { recursive: IS_RECURSIVE }, (event, name) => {
      if (event === 'rename' && name === basename(path)) {
        // It may be gone itself, which comes under its own name.
        opened.identity = ''
        onChange(placeOf(path))
      }
      onEvent(name)
    })
    const opened: Watch = { identity, watcher }
    watcher.on('error', () => {
      opened.identity = ''
      onChange('')
    })
    watches.set(path, opened)
  }

  /** The directory with the root's own name in it: a link may get another target, or the root be replaced. */
  function openAbove(): string | undefined {
    const above = dirname(root)
    if (above === root || IS_RECURSIVE) return undefined
    try {
      const place = realpathSync(above)
      open(place, (name) => {
        if (name === null || name === basename(root)) onChange('')
      })
      return place
    } catch {
      return undefined // it only tells of the root as a whole, and the clock tells that too
    }
  }

  function openBelow(path: string): void {
    open(path, (name) => {
      if (name === null) onChange('')
      else if (!isOurs(name)) onChange(placeOf(join(path, name)))
    })
  }

  function childrenOf(path: string): string[] {
    const children = readdirSync(path, { withFileTypes: true })
    return children.flatMap((child) => {
      if (!child.isDirectory() || isOurs(child.name)) return []
      const place = join(path, child.name)
      return passOver.includes(place) ? [] : [place]
    })
  }

  /** Where to begin: at the root, or at what may be a new directory. */
  function startsOf(places: readonly string[] | undefined): string[] {
    if (places !== undefined && !IS_RECURSIVE) {
      const isLeftOut = (path: string) => passOver.some((one) => below(one, top) && below(path, one))
      return places.map((place) => join(top, place)).filter((path) => !isLeftOut(path) && isDirectory(path))
    }
    try {
      top = realpathSync(root)
      return [top]
    } catch {
      return [] // It is gone, which a run tells.
    }
  }

  return {
    async refresh(places) {
      let refusal: unknown
      const seen = new Set<string>()
      const above = openAbove()
      if (above !== undefined) seen.add(above)
      const isEverything = places === undefined || places.includes('')
      const pending = startsOf(isEverything ? undefined : places)
      for (let count = 1; pending.length > 0; count++) {
        const path = pending.pop()!
        if (seen.has(path)) continue
        seen.add(path)
        try {
          if (refusal === undefined || watches.has(path)) openBelow(path)
        } catch (error) {
          if (!UNSEEN.includes(systemCode(error))) refusal ??= error
        }
        if (IS_RECURSIVE) break
        try {
          // One by one: a call takes some 100,000 arguments at most.
          for (const child of childrenOf(path)) pending.push(child)
        } catch {
          // Gone, not to be read, or a file.
        }
        if (count % BATCH === 0) await new Promise((resolve) => setImmediate(resolve))
        if (isClosed) return undefined
      }
      const changed = new Set(isEverything ? [top] : places.map((place) => join(top, place)))
      const isConcerned = (path: string) => {
        for (let at = path; at.length >= top.length; at = dirname(at)) {
          if (changed.has(at)) return true
          if (at === dirname(at)) break
        }
        return isEverything
      }
      for (const [path, { watcher }] of watches) {
        if (seen.has(path) || !isConcerned(path)) continue
        watcher.close()
        watches.delete(path)
      }
      return refusal
    },
    close() {
      isClosed = true
      for (const { watcher } of watches.values()) watcher.close()
      watches.clear()
    },
  }
}
