/**
 * Names in remote folders, for completion: kept for a short time in the private directory, so that not every key asks the server. A
 * process of its own asks and writes them; whoever completes waits for it as long as a person would, and else does without. It only
 * reads at the server, asks nobody, and may take its time to renew a login, which must not be cut off.
 * @module
 */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readdir, stat, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { readPrivateFile, writePrivateFile } from '../../local/atomic-file.ts'
import { homePaths } from '../../local/home.ts'
import type { createProgram } from '../commander.ts'
import { accountName, type Context, createContext } from '../context.ts'
import { homeDirectory, loadProfile, type Profile } from '../profile.ts'

/** How long names count as fresh, and how long they are better than none. */
const FRESH_MS = 60_000
const USABLE_MS = 10 * 60_000

/** Nobody asks for the same again before this time. */
const ASKED_MS = 10_000

const MOST_NAMES = 1_000
const MOST_FILES = 32

/** From the start of this process until there is an answer. */
const PATIENCE_MS = 900

const ASKING_MS = 20_000

interface Listing {
  /** When it was asked for, and when it came; milliseconds since the epoch. */
  readonly asked: number
  readonly at: number
  readonly names: readonly string[]
}

interface Place {
  readonly path: string
  readonly context: Context
  readonly profile: Profile
}

/** Makes commander's program: it is there already, and here it would have to be found and loaded once more. */
export type Parser = typeof createProgram

/** @param folder - Remote path. */
async function placeOf(
  parser: Parser,
  folder: string,
  connection: readonly string[],
  signal: AbortSignal,
): Promise<Place | undefined> {
  const args = ['ls', ...connection, '--read-only', '--retry-for', '0', '-q', '--', folder]
  let context: Context | undefined
  const program = parser(args, async (_spec, command) => {
    context = await createContext(command, signal)
  })
  await program.parseAsync(args, { from: 'user' })
  if (context === undefined || context.problems.length > 0) return undefined
  const profile = await loadProfile(context.profileName)
  // The key of an encrypted login comes from a program, which may ask somebody for it.
  if (profile === undefined || profile.store === 'encrypted') return undefined
  const name = createHash('sha256')
    .update(JSON.stringify([accountName(profile), profile.method, folder]))
    .digest('hex')
  return { path: join(homePaths(homeDirectory()).listings, `${name.slice(0, 32)}.json`), context, profile }
}

async function read(path: string): Promise<Listing | undefined> {
  const bytes = await readPrivateFile(path).catch(() => undefined)
  if (bytes === undefined) return undefined
  const { asked, at, names } = JSON.parse(Buffer.from(bytes).toString('utf8')) as Partial<Listing>
  const isRight = Number.isFinite(asked) && Number.isFinite(at) && Array.isArray(names)
  return isRight ? { asked: asked!, at: at!, names: names!.filter((name) => typeof name === 'string') } : undefined
}

const write = (path: string, listing: Listing) => writePrivateFile(path, JSON.stringify(listing))

const within = (time: number, ms: number) => Math.abs(Date.now() - time) < ms

/**
 * Names in a remote folder, with a slash behind those of folders and rooms; none where nothing is known in time.
 *
 * @param folder - Remote path that ends with a slash.
 * @param connection - Options of the command line that say how to reach the server.
 */
export async function remoteNames(
  parser: Parser,
  folder: string,
  connection: readonly string[],
): Promise<readonly string[]> {
  const place = await placeOf(parser, folder, connection, new AbortController().signal)
  if (place === undefined) return []
  const known = await read(place.path)
  if (known !== undefined && within(known.at, FRESH_MS)) return known.names
  if (known === undefined || !within(known.asked, ASKED_MS)) {
    await write(place.path, { asked: Date.now(), at: known?.at ?? 0, names: known?.names ?? [] })
    await startAsking(folder, connection)
  }
  const found = (await read(place.path)) ?? known
  return found !== undefined && within(found.at, USABLE_MS) ? found.names : []
}

/** Resolves when the names have come, or when it has taken too long. */
function startAsking(folder: string, connection: readonly string[]): Promise<void> {
  const args = [process.argv[1]!, '__complete', '--fill', ...connection, '--', folder]
  const child = spawn(process.execPath, args, { stdio: 'ignore', detached: true })
  child.unref()
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, Math.max(0, PATIENCE_MS - performance.now()))
    const end = () => {
      clearTimeout(timer)
      resolve()
    }
    child.once('error', end)
    child.once('exit', end)
  })
}

/** Asks the server, and keeps what it says. @param args - Connection options, `--` and the folder. */
export async function fill(parser: Parser, args: readonly string[]): Promise<void> {
  const folder = args.at(-1)!
  setTimeout(() => process.exit(1), 2 * ASKING_MS).unref()
  const signal = AbortSignal.timeout(ASKING_MS)
  const place = await placeOf(parser, folder, args.slice(0, -2), signal)
  if (place === undefined) return
  const { connect } = await import('../connect.ts')
  const { client } = await connect(place.context, () => {})
  try {
    const names: string[] = []
    for await (const { name, type } of client.list(folder, { signal })) {
      names.push(type === 'file' ? name : `${name}/`)
      if (names.length >= MOST_NAMES) break
    }
    await write(place.path, { asked: Date.now(), at: Date.now(), names: names.sort((a, b) => a.localeCompare(b)) })
  } finally {
    await client.close()
  }
  await removeOld()
}

/** Removes what is of no use any more, and what is too much. */
async function removeOld(): Promise<void> {
  const directory = homePaths(homeDirectory()).listings
  const files = await Promise.all(
    (await readdir(directory)).map(async (name) => ({ name, at: (await stat(join(directory, name))).mtimeMs })),
  )
  const newest = files.sort((a, b) => b.at - a.at)
  const old = newest.filter(({ at }, index) => index >= MOST_FILES || !within(at, USABLE_MS))
  for (const { name } of old) await unlink(join(directory, name)).catch(() => {})
}
