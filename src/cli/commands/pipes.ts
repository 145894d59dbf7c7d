/**
 * Content that is in no file: from standard input or a command to the server, and from there to standard output. What goes up is seen there
 * when all of it has come, and not before; what comes down is printed when all of it has been checked.
 * @module
 */
import { spawn } from 'node:child_process'
import { type Client, isLink } from '../../client/index.ts'
import { localError, SyncError, toSyncError } from '../../errors.ts'
import { childEnvironment } from '../child-environment.ts'
import { withClient } from '../connect.ts'
import { type Context, text } from '../context.ts'
import { showBytes } from '../display.ts'
import { printAll } from '../print-content.ts'
import { splitCommand } from '../secrets.ts'
import { type JobRun, limitsOf, nothing, runOne } from './sync.ts'

const wrong = (message: string, hint?: string) =>
  new SyncError('usage', 'OPTION_INVALID', message, hint === undefined ? {} : { hint })

/** What has no meaning for a single content of which nobody knows anything. */
const OF_TREES: readonly (readonly [name: string, flag: string])[] = [
  ['dryRun', '--dry-run'],
  ['contents', '--contents'],
  ['checksum', '--checksum'],
  ['filesFrom', '--files-from'],
  ['filesFrom0', '--files-from0'],
  ['filterFrom', '--filter-from'],
  ['maxSize', '--max-size'],
  ['minAge', '--min-age'],
]

function requireOnlyContent({ options }: Context): void {
  const given = OF_TREES.find(([name]) => options[name] !== undefined && options[name] !== false)
  const flag = given?.[1] ?? ((options.patterns as unknown[] | undefined)?.length ? '--exclude' : undefined)
  if (flag !== undefined) throw wrong(`${flag} means nothing for what comes through a pipe`)
}

/** Bytes that come from somewhere. */
interface Source {
  readonly chunks: AsyncIterable<Uint8Array>
  /** Ends it; harmless when it has ended. */
  stop(): void
}

/** For events and messages, as the first argument has it. */
type Named = { readonly shown: string; open(): Source }

function standardInput(): Named {
  if (process.stdin.isTTY === true) {
    throw wrong(
      'Standard input is a terminal: there is nothing to upload',
      'Use it behind a pipe: tar c dir | sync upload - /room/dir.tar',
    )
  }
  async function* read() {
    try {
      for await (const chunk of process.stdin) yield chunk as Uint8Array
    } catch (error) {
      throw localError(error, 'read standard input')
    }
  }
  return { shown: '-', open: () => ({ chunks: read(), stop: () => void process.stdin.destroy() }) }
}

const commandFailed = (how: string, cause?: unknown) =>
  new SyncError('local_io', 'SOURCE_COMMAND_FAILED', `The command ${how}, so nothing was stored`, { cause })

/**
 * What a command prints, which counts only if it ends well. Its messages go where ours go. No shell runs it: of a pipe a shell tells only
 * how its last part ended.
 */
function outputOf(command: string): Named {
  const [program, ...args] = splitCommand(command)
  const begin = () => spawn(program!, args, { stdio: ['ignore', 'pipe', 'inherit'], env: childEnvironment() })
  return {
    shown: command,
    open() {
      let child: ReturnType<typeof begin> | undefined
      // Begun when it is read: what nobody reads of a process that ends is lost.
      async function* read() {
        child = begin()
        const { stdout } = child
        const ended = new Promise<void>((resolve, reject) => {
          child?.on('error', (error) => reject(commandFailed('cannot be started', error)))
          child?.on('close', (code, signal) => {
            if (code === 0) resolve()
            else reject(commandFailed(code === null ? `was ended by ${signal}` : `ended with ${code}`))
          })
        })
        ended.catch(() => {}) // told when awaited
        for await (const chunk of stdout) yield chunk as Uint8Array
        await ended
      }
      return {
        chunks: read(),
        stop() {
          if (child === undefined) return
          // What writes to it notices that nobody reads.
          child.stdout.destroy()
          if (child.exitCode === null && child.signalCode === null) child.kill()
        },
      }
    },
  }
}

const PROGRESS_EVERY_MS = 5_000

/** A line every few seconds: nobody knows how much is still to come. */
function counting({ output }: Context): { onProgress(bytes: number): void; stop(): void } {
  let sent = 0
  const timer = setInterval(() => output.info(`Uploading: ${showBytes(sent)}`), PROGRESS_EVERY_MS).unref()
  return {
    onProgress(bytes) {
      sent = bytes
    },
    stop: () => clearInterval(timer),
  }
}

function conflictOf({ settings }: Context): 'overwrite' | 'fail' | 'skip' {
  const action = settings.text('on-conflict') ?? 'overwrite'
  if (action === 'overwrite' || action === 'fail' || action === 'skip') return action
  throw wrong(`--on-conflict ${action} means nothing for what comes through a pipe`, 'Use overwrite, fail or skip.')
}

const isThere = (client: Client, path: string, signal: AbortSignal) =>
  client.stat(path, { signal }).then(
    () => true,
    (error) => {
      if (toSyncError(error).code === 'REMOTE_MISSING') return false
      throw error
    },
  )

/** Uploads `-`, or what `--from-command` prints, under the name that the target says. */
export async function uploadPiped(context: Context, given: readonly string[]): Promise<number> {
  const command = text(context.options, 'fromCommand')
  if (given.length !== (command === undefined ? 2 : 1)) {
    throw command === undefined
      ? wrong('What comes from standard input goes alone, and to one target')
      : wrong('With --from-command there is one target, and no other source')
  }
  requireOnlyContent(context)
  const target = given.at(-1)!
  if (target.endsWith('/') || target.split('/').filter((part) => part !== '').length < 2) {
    throw wrong('What comes through a pipe has no name of its own', 'Name the file: /room/name')
  }
  const onConflict = conflictOf(context)
  const named = command === undefined ? standardInput() : outputOf(command)
  const run: JobRun = {
    command: 'upload',
    local: named.shown,
    remote: target,
    roots: [],
    options: () => limitsOf(context),
    async start(client, { signal, partSize, allowPlain, requireEncryption }) {
      const done = { ...nothing(run), files: 1 }
      if (onConflict === 'skip' && (await isThere(client, target, context.signal))) return { ...done, skipped: 1 }
      const source = named.open()
      const progress = counting(context)
      try {
        const how = { signal, partSize, allowPlain, requireEncryption, onProgress: progress.onProgress, parents: true }
        const stored = await client.put(target, source.chunks, {
          ...how,
          onConflict: onConflict === 'fail' ? 'fail' : 'overwrite',
        })
        const pending = stored.refused.map(({ member, error }) => ({ what: 'member' as const, name: member, error }))
        if (stored.keysPending !== undefined) {
          pending.push({ what: 'member', name: 'members of the room', error: toSyncError(stored.keysPending) })
        }
        const counts = { transferred: 1, bytes: stored.bytes }
        return { ...done, ...counts, ...(pending.length === 0 ? {} : { pending }) }
      } finally {
        progress.stop()
        source.stop()
      }
    },
  }
  return (await runOne(context, run)).exitCode
}

/** Files, all of which are there, in the order in which they were named. */
async function filesOf(client: Client, given: readonly string[], signal: AbortSignal): Promise<readonly string[]> {
  const paths = await client.glob(given, { signal })
  // One alone is looked up when it is fetched.
  if (paths.length === 1) return paths
  for (const path of paths) {
    const { type } = await client.stat(path, { signal })
    if (type !== 'file') throw new SyncError('usage', 'NOT_A_FILE', `Not a file: ${path}`)
  }
  return paths
}

/** Prints files, one behind the other. Nothing of one is printed before all of it is checked. */
export async function cat(context: Context, given: readonly string[]): Promise<void> {
  if (given.some(isLink)) return (await import('./links.ts')).cat(context, given)
  const { signal } = context
  await withClient(context, async (client) => {
    for (const path of await filesOf(client, given, signal)) {
      const requireEncryption = context.settings.flag('require-encryption')
      if ((await printAll(await client.get(path, { signal, requireEncryption }))) === undefined) return
    }
  })
}

/** As `cat`, with the progress and the reports of a download. */
export async function downloadPiped(context: Context, given: readonly string[]): Promise<number> {
  const { output, settings } = context
  if (output.json || settings.text('events') === '-') {
    throw wrong('Standard output is for the content here, so there is no place for JSON', 'Use --events FILE.')
  }
  requireOnlyContent(context)
  const sources = given.slice(0, -1)
  const run: JobRun = {
    command: 'download',
    local: '-',
    remote: sources.join(' '),
    roots: [],
    options: () => limitsOf(context),
    async start(client, { signal = context.signal, requireEncryption }) {
      const paths = await filesOf(client, sources, signal)
      const sizes = paths.length === 1 ? [] : await Promise.all(paths.map((path) => client.stat(path, { signal })))
      const total = sizes.reduce((sum, { size = 0 }) => sum + size, 0)
      let summary = { ...nothing(run), files: paths.length }
      const planned = (bytes: number) =>
        client.context.onEvent?.({ type: 'planned', files: paths.length, bytes, skipped: 0 })
      let isPlanned = paths.length > 1
      if (isPlanned) planned(total)
      for (const path of paths) {
        const content = await client.get(path, {
          signal,
          requireEncryption,
          onProgress(_bytes, all) {
            if (!isPlanned) planned(all)
            isPlanned = true
          },
        })
        const bytes = await printAll(content)
        if (bytes === undefined) break
        summary = { ...summary, transferred: summary.transferred + 1, bytes: summary.bytes + bytes }
      }
      return summary
    },
  }
  return (await runOne(context, run)).exitCode
}
