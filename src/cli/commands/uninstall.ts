/** uninstall --data: what this program keeps on this machine, listed and removed. Synchronized directories are not looked at. @module */
import { lstat, readdir, realpath, rm, rmdir } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join, relative } from 'node:path'
import { systemClock } from '../../environment.ts'
import { localError, SyncError, systemCode } from '../../errors.ts'
import { takeLock } from '../../local/lock.ts'
import { openSystemKeyring, type SystemKeyring } from '../../local/system-keyring.ts'
import { requireConfirmed } from '../agree.ts'
import type { Context } from '../context.ts'
import { display, plural, showBytes } from '../display.ts'
import { EXIT } from '../exit-codes.ts'
import { homeDirectory } from '../profile.ts'

interface Kind {
  readonly what: string
  /** Names in the private directory. */
  readonly names: RegExp
  /** What is gone with it. */
  readonly lost: string
}

/** Everything that we put there, by name: the directory may have been somebody's before. */
const KINDS: readonly Kind[] = [
  {
    what: 'logins',
    names: /^(?:profile-.+\.json|grant-[0-9a-f]{64}\.json(?:\.enc)?)$/,
    lost: 'you log in again; tokens that servers have given out end by themselves',
  },
  {
    what: 'known keys',
    names: /^(?:pins|key-pairs|rescue-keys|share-keys|server-keys\.json)$/,
    lost: 'keys of members and servers have to be compared again before they are trusted',
  },
  {
    what: 'sealed passwords',
    names: /^sealed-passwords$/,
    lost: 'the encryption password is not opened by hardware any more: it has to be given',
  },
  {
    what: 'known pairs',
    names: /^(?:sync|requests)$/,
    lost: 'records of pairs and runs: nothing can be undone or resumed, and the next run of a pair cannot tell deleted from new',
  },
  { what: 'rules', names: /^rules$/, lost: 'which rule files of servers were accepted' },
  {
    what: 'settings',
    names: /^(?:config\.toml|backups)$/,
    lost: 'settings and backup sets, as they were written by hand',
  },
  { what: 'reports', names: /^drills$/, lost: 'reports of restore drills' },
  {
    what: 'caches',
    names: /^(?:file-keys|listings|locks|tmp|releases\.json|\.sealsync-.+)$/,
    lost: 'nothing: it is made again',
  },
]

interface Kept {
  readonly what: string
  readonly lost: string
  readonly path: string
  readonly files: number
  readonly bytes: number
}

/** Files below a place and their bytes; links are not followed. */
async function sizeOf(path: string): Promise<{ files: number; bytes: number }> {
  const info = await lstat(path)
  if (!info.isDirectory()) return { files: 1, bytes: info.size }
  let [files, bytes] = [0, 0]
  for (const name of await readdir(path)) {
    const below = await sizeOf(join(path, name))
    files += below.files
    bytes += below.bytes
  }
  return { files, bytes }
}

/** @throws {SyncError} `LOCKED` while another run goes on. */
async function requireIdle(path: string): Promise<void> {
  const entries = await readdir(path, { withFileTypes: true }).catch(() => [])
  for (const entry of entries) {
    const place = join(path, entry.name)
    if (entry.isDirectory()) await requireIdle(place)
    else if (entry.name.endsWith('.lock')) await (await takeLock(place, { clock: systemClock, waitMs: 0 })).release()
  }
}

/** The names in the private directory; none when it is not there. */
async function namesIn(home: string): Promise<string[]> {
  return (
    await readdir(home).catch((error) => {
      if (systemCode(error) === 'ENOENT') return []
      throw localError(error, `read ${home}`)
    })
  ).sort()
}

/**
 * @throws {SyncError} `HOME_UNSAFE` for a directory that may hold the user's other things: one that we have made is private, and the
 * user's own is not in it.
 */
async function requireOwn(home: string): Promise<void> {
  const below = relative(home, homedir())
  const isAround = below === '' || !(below.startsWith('..') || below === homedir())
  const info = await lstat(home).catch(() => undefined)
  const isOpen = process.platform !== 'win32' && info !== undefined && (info.mode & 0o077) !== 0
  if (!isAround && !isOpen) return
  throw new SyncError('safety', 'HOME_UNSAFE', `${home} may not be of this program alone; nothing is removed`, {
    hint: isAround ? 'SEALSYNC_HOME names it; remove by hand what is to go.' : `If it is: chmod 700 ${home}`,
  })
}

async function findKept(home: string): Promise<{ kept: Kept[]; foreign: string[] }> {
  const kept: Kept[] = []
  const foreign: string[] = []
  for (const name of await namesIn(home)) {
    const kind = KINDS.find(({ names }) => names.test(name))
    const path = join(home, name)
    if (kind === undefined) foreign.push(path)
    else kept.push({ what: kind.what, lost: kind.lost, path, ...(await sizeOf(path)) })
  }
  return { kept, foreign }
}

/** What the keyring has of ours; `undefined` where there is none. */
async function keyringAccounts(context: Context): Promise<{ keyring: SystemKeyring; accounts: string[] } | undefined> {
  const keyring = await openSystemKeyring({ probe: false })
  if (keyring === undefined) return undefined
  try {
    return { keyring, accounts: await keyring.accounts() }
  } catch {
    context.output.warn('The keyring of the operating system cannot be opened; what it holds stays')
    return undefined
  }
}

function showKept({ output }: Context, kept: readonly Kept[], accounts: readonly string[], foreign: readonly string[]) {
  for (const { what, lost, path, files, bytes } of kept) {
    output.result(`${what.padEnd(12)} ${display(path, 300)}  (${plural(files, 'file')}, ${showBytes(bytes)})`, {
      type: 'kept',
      what,
      path,
      files,
      bytes,
      lost,
    })
  }
  for (const account of accounts) {
    output.result(`${'keyring'.padEnd(12)} ${display(account, 300)}`, { type: 'kept', what: 'keyring', account })
  }
  for (const path of foreign) output.info(`${path} is not of this program, and stays`)
  const losses = new Map(kept.map(({ what, lost }) => [what, lost]))
  for (const [what, lost] of losses) output.info(`What is lost with ${what}: ${lost}`)
  if (accounts.length > 0)
    output.info('What is lost with the keyring: logins and remembered encryption passwords; be sure to know them')
}

async function removeAll(
  home: string,
  kept: readonly Kept[],
  keyring: SystemKeyring | undefined,
  accounts: readonly string[],
) {
  for (const account of accounts) {
    await keyring?.remove(account).catch((cause) => {
      throw new SyncError('local_io', 'KEYRING_ENTRY_LEFT', 'The keyring does not let go of an entry', { cause })
    })
  }
  for (const { path } of kept) {
    await rm(path, { recursive: true, force: true }).catch((error) =>
      Promise.reject(localError(error, `remove ${path}`)),
    )
  }
  // Only when nothing else is in it.
  await rmdir(home).catch(() => {})
}

export async function uninstall(context: Context): Promise<number> {
  const { options, output } = context
  if (options.data !== true) {
    throw new SyncError('usage', 'OPTION_MISSING', 'Say what to remove: --data', {
      hint: 'The program itself goes the way it came: apt remove sealsync, npm uninstall -g sealsync.',
    })
  }
  const home = await realpath(homeDirectory()).catch(() => homeDirectory())
  await requireOwn(home)
  const { kept, foreign } = await findKept(home)
  const held = await keyringAccounts(context)
  const accounts = held?.accounts ?? []
  const totals = {
    files: kept.reduce((sum, { files }) => sum + files, 0),
    bytes: kept.reduce((sum, { bytes }) => sum + bytes, 0),
    accounts: accounts.length,
  }
  const summary = (removed: boolean) => ({ type: 'summary', directory: home, ...totals, removed })
  if (kept.length + accounts.length === 0) {
    output.done('Nothing is kept on this machine', summary(false))
    return EXIT.done
  }
  showKept(context, kept, accounts, foreign)
  if (options.dryRun === true) {
    output.done(`${plural(totals.files, 'file')}, ${showBytes(totals.bytes)}; nothing was removed`, summary(false))
    return EXIT.done
  }
  await requireIdle(home)
  await requireConfirmed(context, 'Remove all of this? Synchronized directories stay as they are.', 'yes')
  await removeAll(home, kept, held?.keyring, accounts)
  output.done(`Removed ${plural(totals.files, 'file')}, ${showBytes(totals.bytes)}`, summary(true))
  output.info('What "sealsync setup" wrote into shell profiles: sealsync setup --remove')
  return EXIT.done
}
