/**
 * Writing below one directory without ever leaving it: directories are made one by one, never through a link, and each must still be
 * what it was when something is written in it. (`O_NOFOLLOW` alone guards only the last step of a path.)
 *
 * On Linux each directory is opened from the one above it, and what is done in it goes through that open directory: whoever puts
 * another one, or a link, in its place changes nothing about where it leads. Elsewhere there are only names, looked at before and after.
 * @module
 */
import { closeSync, constants, fstatSync, lstatSync, mkdirSync, openSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { localError, SyncError, systemCode } from '../errors.ts'

/** A directory in use. What is called by `at` is in it and nowhere else, until it is released. */
export interface HeldDirectory {
  /** The directory itself. */
  readonly path: string
  /** For opening `path`. */
  readonly flags: number
  /** An entry of it, for functions of the file system; not to be shown. */
  at(name: string): string
  /**
   * Throws unless the file that was opened as `name` is really in it. There is nothing to find out where directories are open; where
   * there are only names, this comes before anything is written.
   */
  confirm(fd: number, name: string): void
  /** Harmless when it was released already. */
  release(): void
}

export interface SafeTree {
  readonly root: string
  /** Makes the directory (components below the root, each from `localName`) and all above it; returns its path, to be shown. */
  ensureDirectory(components: readonly string[]): string
  /** As `ensureDirectory`, and opens it for use. */
  hold(components: readonly string[]): HeldDirectory
  /** Holds a directory while something is done in it, without waiting. */
  within<T>(components: readonly string[], work: (directory: HeldDirectory) => T): T
  /** Throws unless all directories on the way are still the ones that were made or found. */
  check(components: readonly string[]): void
  /** Gives up what is open, or when it is released what is held; nothing else works any more then. */
  close(): void
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

interface Identified {
  readonly dev: bigint
  readonly ino: bigint
}
const identityOf = ({ dev, ino }: Identified) => `${dev}:${ino}`

/** Of a directory that a name leads to without a link; `undefined` for anything else. */
function identify(path: string): string | undefined {
  const info = lstatSync(path, { bigint: true })
  return info.isDirectory() ? identityOf(info) : undefined
}

/** `O_PATH`: it can be gone through, whatever may be read or written in it. Node does not name it. */
const OPEN_DIRECTORY = 0o10000000 | constants.O_DIRECTORY
/** Directories that stay open though nobody holds them. */
const KEPT_OPEN = 64

/** How an open directory is called. */
const pathOf = (fd: number) => `/proc/self/fd/${fd}`

/**
 * @param root - Exists or is made; may itself be reached through links, since the user named it.
 * @param how - `names`: as where directories cannot be gone through when they are open.
 */
export function createSafeTree(root: string, how: 'open' | 'names' = 'open'): SafeTree {
  let rootIdentity: string
  try {
    mkdirSync(root, { recursive: true })
    rootIdentity = identityOf(statSync(root, { bigint: true }))
  } catch (error) {
    throw localError(error, `create ${root}`)
  }
  function checkRoot(): void {
    try {
      if (identityOf(statSync(root, { bigint: true })) === rootIdentity) return
    } catch (error) {
      if (systemCode(error) !== 'ENOENT') throw localError(error, `read ${root}`)
    }
    throw swapped(root)
  }
  const fd = how === 'open' ? openRoot(root, rootIdentity) : undefined
  const below = fd === undefined ? walkByName(root) : walkOpen(root, fd)
  const walk = (components: readonly string[]) => {
    checkRoot()
    return below.walk(components)
  }
  const hold = (components: readonly string[]) => {
    checkRoot()
    return below.hold(components)
  }
  return {
    root,
    ensureDirectory: (components) => walk(components),
    check: (components) => void walk(components),
    hold,
    within(components, work) {
      const directory = hold(components)
      try {
        return work(directory)
      } finally {
        directory.release()
      }
    },
    close: below.close,
  }
}

/** The open root, where open directories can be gone through. */
function openRoot(root: string, identity: string): number | undefined {
  if (process.platform !== 'linux') return undefined
  let fd: number | undefined
  try {
    fd = openSync(root, OPEN_DIRECTORY)
    if (identityOf(statSync(`${pathOf(fd)}/.`, { bigint: true })) === identity) return fd
  } catch {
    // No /proc here.
  }
  if (fd !== undefined) closeSync(fd)
  return undefined
}

interface Walker {
  /** Makes what is missing, checks the rest; returns the path by name. */
  walk(components: readonly string[]): string
  hold(components: readonly string[]): HeldDirectory
  close(): void
}

/** Throws what is to be said of a failed step. */
function failStep(error: unknown, path: string, isKnown: boolean): never {
  if (isKnown && ['ENOENT', 'ENOTDIR', 'ELOOP'].includes(systemCode(error) ?? '')) throw swapped(path)
  throw localError(error, `create ${path}`)
}

function makeDirectory(path: string): void {
  try {
    mkdirSync(path)
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw error
  }
}

/** Each step looks at what a path leads to now. */
function walkByName(root: string): Walker {
  const known = new Map<string, string>()
  function step(path: string): void {
    const before = known.get(path)
    try {
      if (before === undefined) makeDirectory(path)
      const now = identify(path)
      if (now === undefined) throw before === undefined ? inTheWay(path) : swapped(path)
      if (before !== undefined && before !== now) throw swapped(path)
      known.set(path, now)
    } catch (error) {
      failStep(error, path, before !== undefined)
    }
  }
  function walk(components: readonly string[]): string {
    let path = root
    for (const component of components) {
      path = join(path, component)
      step(path)
    }
    return path
  }
  return {
    walk,
    hold(components) {
      const path = walk(components)
      return {
        path,
        flags: constants.O_DIRECTORY | (constants.O_NOFOLLOW ?? 0),
        at: (name) => join(path, name),
        confirm(fd, name) {
          walk(components)
          const [file, there] = [fstatSync(fd, { bigint: true }), lstatSync(join(path, name), { bigint: true })]
          if (identityOf(file) !== identityOf(there)) throw swapped(path)
        },
        release: () => {},
      }
    },
    close: () => {},
  }
}

interface Opened {
  readonly fd: number
  readonly identity: string
  users: number
}

/** Each step goes from an open directory to one in it, which is opened, too. */
function walkOpen(root: string, rootFd: number): Walker {
  const known = new Map<string, string>()
  const top: Opened = { fd: rootFd, identity: '', users: 0 }
  /** By path; those that were used last are at the end. */
  const opened = new Map<string, Opened>()
  let isClosed = false

  function closeIdle(most: number): void {
    for (const [path, one] of opened) {
      if (opened.size <= most) return
      if (one.users > 0) continue
      opened.delete(path)
      closeSync(one.fd)
    }
  }

  function endUse(one: Opened): void {
    one.users--
    if (!isClosed) return
    closeIdle(0)
    if (one === top && top.users === 0) closeSync(rootFd)
  }

  function open(path: string): number {
    try {
      return openSync(path, OPEN_DIRECTORY | constants.O_NOFOLLOW)
    } catch (error) {
      if (systemCode(error) !== 'EMFILE') throw error
      closeIdle(0)
      return openSync(path, OPEN_DIRECTORY | constants.O_NOFOLLOW)
    }
  }

  function step(above: Opened, component: string, shown: string): Opened {
    const path = `${pathOf(above.fd)}/${component}`
    const before = known.get(shown)
    const there = opened.get(shown)
    let fd: number | undefined
    try {
      if (there !== undefined) {
        if (identify(path) !== there.identity) throw swapped(shown)
        opened.delete(shown)
        opened.set(shown, there)
        return there
      }
      if (before === undefined) {
        makeDirectory(path)
        if (identify(path) === undefined) throw inTheWay(shown)
      }
      fd = open(path)
      const identity = identityOf(fstatSync(fd, { bigint: true }))
      if (before !== undefined && before !== identity) throw swapped(shown)
      known.set(shown, identity)
      const made: Opened = { fd, identity, users: 0 }
      opened.set(shown, made)
      return made
    } catch (error) {
      if (fd !== undefined) closeSync(fd)
      failStep(error, shown, before !== undefined)
    }
  }

  /** What `use` gets stays open while it runs, and all above it. */
  function walkTo<T>(components: readonly string[], use: (path: string, last: Opened) => T): T {
    if (isClosed) throw new Error('The tree is closed')
    top.users++
    const held = [top]
    let path = root
    try {
      for (const component of components) {
        path = join(path, component)
        const next = step(held.at(-1)!, component, path)
        next.users++
        held.push(next)
      }
      return use(path, held.at(-1)!)
    } finally {
      for (const one of held) endUse(one)
      if (opened.size > KEPT_OPEN) closeIdle(KEPT_OPEN)
    }
  }

  return {
    walk: (components) => walkTo(components, (path) => path),
    hold: (components) =>
      walkTo(components, (_path, last) => {
        last.users++
        let isHeld = true
        const path = pathOf(last.fd)
        return {
          path,
          // What stands for an open directory is a link.
          flags: constants.O_DIRECTORY,
          at: (name) => `${path}/${name}`,
          confirm: () => {},
          release() {
            if (isHeld) endUse(last)
            isHeld = false
          },
        }
      }),
    close() {
      if (isClosed) return
      // The root goes as soon as nobody uses it.
      top.users++
      isClosed = true
      endUse(top)
    },
  }
}
