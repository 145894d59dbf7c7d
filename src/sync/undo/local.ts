/** Takes back what a run did on this disk. @module */
import { readlinkSync, renameSync, rmdirSync, type Stats, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import { localError, systemCode } from '../../errors.ts'
import type { SafeTree } from '../../local/safe-tree.ts'
import { sameTime } from '../conflicts.ts'
import { createLocalBin, dropCopy } from '../local-bin.ts'
import { carryOutMove, finishMove, lookAt, markOf, move } from '../local-move.ts'
import { localChange, type SyncRecord } from '../records.ts'
import { keyOf, lookLocal } from '../scan.ts'
import type { LocalMark, Origin } from '../state.ts'
import type { LocalEntry } from '../tree.ts'
import { changed, type DeedOf } from './deed.ts'

/**
 * @param tree - Below the local root.
 * @param runId - Of the undo, whose bin takes what is removed.
 * @param freed - Gets the places in bins that are free again; their directories may go when the tree is closed.
 */
export function createLocalTaker(
  root: string,
  tree: SafeTree,
  records: ReadonlyMap<string, SyncRecord>,
  runId: string,
  freed: string[],
) {
  const bin = createLocalBin(tree, runId)
  const parts = (path: string) => path.split('/')

  function requireUntouched(components: readonly string[], origin: Origin | undefined): void {
    const [entry, record] = [lookLocal(root, components), records.get(keyOf(components))]
    const isAsMade = (now: LocalEntry) =>
      record === undefined
        ? origin !== undefined && now.size === origin.node.size && sameTime(origin.node.modified, now.mtimeMs)
        : localChange(record, now) === 'same'
    if (entry === undefined || !isAsMade(entry)) throw changed('It was changed on this disk since')
  }
  /** Puts something back that a bin holds; never over anything. */
  function putBack(binPath: string, components: readonly string[], was: LocalMark): void {
    const [source, now] = [lookAt(join(root, binPath)), lookAt(join(root, ...components))]
    if (source === undefined) {
      if (isSame(now, was)) return
      throw changed('The bin does not have it any more')
    }
    if (now !== undefined && !(now.ino === source.ino && now.isFile())) throw changed('Something else has its name')
    const place = parts(binPath)
    try {
      tree.within(place.slice(0, -1), (bin) =>
        tree.within(components.slice(0, -1), (directory) => {
          const [kept, target] = [bin.at(place.at(-1)!), directory.at(components.at(-1)!)]
          if (!source.isFile()) renameSync(kept, target)
          else if (now === undefined) move(kept, target)
        }),
      )
    } catch (error) {
      throw systemCode(error) === 'EEXIST' ? changed('Something else has its name') : localError(error, 'put it back')
    }
    dropCopy(root, binPath)
    freed.push(binPath)
  }

  function removeDirectory(path: readonly string[]): void {
    try {
      tree.within(path.slice(0, -1), (directory) => rmdirSync(directory.at(path.at(-1)!)))
    } catch (error) {
      if (systemCode(error) === 'ENOTEMPTY') throw changed('Something is in it')
      if (systemCode(error) !== 'ENOENT') throw localError(error, 'remove it')
    }
  }

  return {
    'created-local'({ path: name, isDirectory, origin }: DeedOf<'created-local'>): void {
      const path = parts(name)
      tree.check(path.slice(0, -1))
      if (isDirectory) {
        removeDirectory(path)
      } else if (lookAt(join(root, ...path)) !== undefined) {
        requireUntouched(path, origin)
        bin.take(path)
      }
    },
    'replaced-local'(deed: DeedOf<'replaced-local'>): void {
      const path = parts(deed.path)
      const [now, kept] = [lookAt(join(root, ...path)), lookAt(join(root, deed.bin))]
      // Back already, or nearly: then it has two names.
      const isNew = now !== undefined && records.get(keyOf(path))?.local?.ino === now.ino
      const isBack = now !== undefined && (kept === undefined ? !isNew && isSame(now, deed.was) : kept.ino === now.ino)
      if (now !== undefined && !isBack) {
        if (kept === undefined) throw changed('The bin does not have it any more')
        requireUntouched(path, deed.origin)
        bin.take(path)
      }
      putBack(deed.bin, path, deed.was)
    },
    'deleted-local'({ path, bin: place, was }: DeedOf<'deleted-local'>): void {
      if (place === undefined) tree.ensureDirectory(parts(path))
      else putBack(place, parts(path), was)
    },
    'linked-local'({ path: name, target }: DeedOf<'linked-local'>): void {
      const path = parts(name)
      try {
        tree.within(path.slice(0, -1), (directory) => {
          const place = directory.at(path.at(-1)!)
          if (readlinkSync(place) !== target) throw changed('It leads somewhere else')
          unlinkSync(place)
        })
      } catch (error) {
        if (systemCode(error) === 'EINVAL') throw changed('It is no link any more')
        if (systemCode(error) !== 'ENOENT') throw localError(error, 'remove it')
      }
    },
    'moved-local'(deed: DeedOf<'moved-local'>): void {
      const from = parts(deed.from)
      tree.check(parts(deed.path).slice(0, -1))
      tree.ensureDirectory(from.slice(0, -1))
      const back = { ...deed, path: deed.from, from: deed.path }
      try {
        const outcome = finishMove(root, back)
        if (outcome === undefined) throw changed('It was moved on since')
        if (outcome === 'moved') return
        if (deed.via === undefined && lookAt(join(root, ...from)) !== undefined) {
          throw changed('Something else has its name')
        }
        carryOutMove(tree, back)
      } catch (error) {
        throw localError(error, 'move it back')
      }
    },
  }
}

/** True for the file that it was, or its copy from a bin on a disk without second names, as far as can be told. */
const isSame = (now: Stats | undefined, was: LocalMark): boolean => {
  if (now === undefined) return false
  const { ino, size, mtimeMs } = markOf(now)
  // A copy has its time to the microsecond.
  return now.isFile() ? size === was.size && Math.abs(mtimeMs - was.mtimeMs) < 0.002 : ino === was.ino
}
