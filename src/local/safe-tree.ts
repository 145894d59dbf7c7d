/**
 * Writing below one directory without ever leaving it: directories are made one by one, never through a link, and before each
 * write every one of them must still be what it was. (`O_NOFOLLOW` alone guards only the last step of a path.)
 * @module
 */
import { lstatSync, mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { localError, SyncError, systemCode } from '../errors.ts'
import { temporaryName } from './atomic-file.ts'

export interface SafeTree {
  readonly root: string
  /** Makes the directory (components below the root, each from `localName`) and all above it; returns its path. */
  ensureDirectory(components: readonly string[]): string
  /** Throws unless all directories on the way are still the ones that were made or found. */
  check(components: readonly string[]): void
}

const swapped = (path: string) =>
  new SyncError('safety', 'PATH_SWAPPED', `A directory on the way was replaced: ${path}`, {
    hint: 'Somebody changes the target while files are written; nothing was written there.',
  })

/** What is said of a path that a directory is needed at, and something else has. */
export const inTheWay = (path: string) =>
  new SyncError('conflict', 'PATH_BLOCKED', `Something that is not a directory is in the way: ${path}`, {
    hint: 'Move it away, then run again.',
  })

/** @param root - Exists or is made; may itself be reached through links, since the user named it. */
export function createSafeTree(root: string): SafeTree {
  const known = new Map<string, string>()
  const identity = (path: string) => {
    const info = lstatSync(path, { bigint: true })
    return info.isDirectory() ? `${info.dev}:${info.ino}` : undefined
  }
  const rootIdentity = () => {
    const info = statSync(root, { bigint: true })
    return `${info.dev}:${info.ino}`
  }
  let rootAtStart: string
  try {
    mkdirSync(root, { recursive: true })
    rootAtStart = rootIdentity()
  } catch (error) {
    throw localError(error, `create ${root}`)
  }
  function checkRoot(): void {
    try {
      if (rootIdentity() === rootAtStart) return
    } catch (error) {
      if (systemCode(error) !== 'ENOENT') throw localError(error, `read ${root}`)
    }
    throw swapped(root)
  }

  function step(path: string): void {
    const before = known.get(path)
    try {
      if (before === undefined) {
        try {
          mkdirSync(path)
        } catch (error) {
          if (systemCode(error) !== 'EEXIST') throw error
        }
      }
      const now = identity(path)
      if (now === undefined) throw before === undefined ? inTheWay(path) : swapped(path)
      if (before !== undefined && before !== now) throw swapped(path)
      known.set(path, now)
    } catch (error) {
      if (before !== undefined && systemCode(error) === 'ENOENT') throw swapped(path)
      throw localError(error, `create ${path}`)
    }
  }

  const walk = (components: readonly string[]): string => {
    checkRoot()
    let path = root
    for (const component of components) {
      path = join(path, component)
      step(path)
    }
    return path
  }
  return { root, ensureDirectory: walk, check: (components) => void walk(components) }
}

/** What can be said of that without writing. */
export const usuallyFoldsCase = (platform: NodeJS.Platform = process.platform): boolean =>
  platform === 'darwin' || platform === 'win32'

/** True when this directory's file system takes `a` and `A` for one name. Finds out by making a file. */
export function foldsCase(directory: string): boolean {
  const name = temporaryName()
  const path = join(directory, name)
  try {
    writeFileSync(path, '', { flag: 'wx', mode: 0o600 })
    try {
      lstatSync(join(directory, name.toUpperCase()))
      return true
    } catch {
      return false
    }
  } catch (error) {
    throw localError(error, `write to ${directory}`)
  } finally {
    rmSync(path, { force: true })
  }
}
