/**
 * Another name for something in a synchronized directory, never over anything. A file gets its second name before it loses its
 * first; where only the case of a name changes, and the disk takes both for one, it goes by way of a third. Whoever calls has
 * written down before what is to be done, so that `finishMove` can end what a killed process began.
 * @module
 */
import { randomBytes } from 'node:crypto'
import { linkSync, lstatSync, readdirSync, renameSync, type Stats, unlinkSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { localError, SyncError, systemCode } from '../errors.ts'
import { TEMP_MARK } from '../local/atomic-file.ts'
import { foldKey } from '../local/names.ts'
import type { SafeTree } from '../local/safe-tree.ts'
import { isWithoutLinks } from '../local/target.ts'
import type { Deed, LocalMark } from './state.ts'

export type MovedLocal = Extract<Deed, { do: 'moved-local' }>

export const changedHere = () =>
  new SyncError('changed', 'LOCAL_CHANGED', 'It was changed on this disk meanwhile', { hint: 'Run again.' })

/**
 * What is at a place; `undefined` for nothing.
 *
 * @throws {SyncError} class `local_io`.
 */
export function lookAt(path: string): Stats | undefined {
  try {
    return lstatSync(path)
  } catch (error) {
    if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ENOTDIR') return undefined
    throw localError(error, `look at ${basename(path)}`)
  }
}

export const markOf = ({ ino, size, mtimeMs }: LocalMark): LocalMark => ({ ino, size, mtimeMs })

/** True when names differ, though a disk that folds case takes them for one. */
export const isCaseOnly = (from: readonly string[], to: readonly string[]): boolean => {
  const [a, b] = [from.join('/'), to.join('/')]
  return a !== b && foldKey(a) === foldKey(b)
}

/**
 * What moving something will be.
 *
 * @throws {SyncError} `LOCAL_CHANGED` when it is not there, or something else has the name.
 */
export function planMove(root: string, from: readonly string[], to: readonly string[]): MovedLocal {
  const source = lookAt(join(root, ...from))
  const inTheWay = lookAt(join(root, ...to))
  if (source === undefined) throw changedHere()
  const isOneName = inTheWay !== undefined && inTheWay.ino === source.ino && isCaseOnly(from, to)
  if (inTheWay !== undefined && !isOneName) throw changedHere()
  const via = isOneName ? { via: [...from.slice(0, -1), viaName()].join('/') } : {}
  return { do: 'moved-local', path: to.join('/'), from: from.join('/'), ...via, was: markOf(source) }
}

const viaName = () => `${TEMP_MARK}${randomBytes(9).toString('base64url')}.moving`

/** Carries it out, in directories that are there. Errors are those of the system. */
export function carryOutMove(tree: SafeTree, { path, from, via }: MovedLocal): void {
  const [old, now] = [from.split('/'), path.split('/')]
  tree.within(old.slice(0, -1), (source) =>
    tree.within(now.slice(0, -1), (target) =>
      move(source.at(old.at(-1)!), target.at(now.at(-1)!), via && source.at(via.split('/').at(-1)!)),
    ),
  )
}

/** From one path to another, never over anything, by way of `via` if given. Errors are those of the system. */
export function move(source: string, target: string, via?: string): void {
  if (via !== undefined) {
    renameSync(source, via)
    // Not by a look at it: that the name is gone is news that some file systems hear late.
    if (!answers(target)) {
      renameSync(via, target)
      return
    }
    renameSync(via, source)
    throw changedHere()
  }
  if (lstatSync(source).isFile()) {
    if (giveName(source, target)) {
      try {
        unlinkSync(source)
      } catch (error) {
        // Not moved: with two names the next run would take it for two files.
        try {
          unlinkSync(target)
        } catch {
          // What went wrong first is told.
        }
        throw error
      }
      return
    }
  }
  renameOver(source, target)
}

/** A second name; false where the file system has none. */
function giveName(source: string, target: string): boolean {
  try {
    linkSync(source, target)
    return true
  } catch (error) {
    if (!isWithoutLinks(error)) throw error
    return false
  }
}

/** To a name that nothing has. */
function renameOver(source: string, target: string): void {
  if (lookAt(target) !== undefined) throw changedHere()
  renameSync(source, target)
}

/** True when an entry of the directory has the name, in whatever case. */
function answers(path: string): boolean {
  const name = foldKey(basename(path))
  return readdirSync(dirname(path)).some((entry) => foldKey(entry) === name)
}

/**
 * Ends a move that may have been interrupted at any point.
 *
 * @returns whether it stands under the new name, or still under the old one; `undefined` when nobody can tell.
 */
export function finishMove(root: string, { path, from, via, was }: MovedLocal): 'moved' | 'not moved' | undefined {
  const [source, target] = [join(root, from), join(root, path)]
  if (via !== undefined) {
    const between = join(root, via)
    if (lookAt(between) !== undefined) {
      if (lookAt(target) !== undefined) return undefined
      renameSync(between, target)
    }
    // The disk answers to both names: its list says which it has.
    if (isListed(target)) return 'moved'
    return isListed(source) ? 'not moved' : undefined
  }
  const [old, now] = [lookAt(source), lookAt(target)]
  if (old !== undefined && now !== undefined && old.ino === now.ino && old.ino === was.ino && old.isFile()) {
    unlinkSync(source)
    return 'moved'
  }
  if (old?.ino === was.ino) return 'not moved'
  return now?.ino === was.ino ? 'moved' : undefined
}

function isListed(path: string): boolean {
  const name = path.slice(path.lastIndexOf('/') + 1)
  try {
    return readdirSync(dirname(path)).includes(name)
  } catch (error) {
    if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ENOTDIR') return false
    throw error
  }
}
