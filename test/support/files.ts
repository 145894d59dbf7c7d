/** Directories that end with the test, and children that run our sources with other rights. */
import { spawn } from 'node:child_process'
import { watch } from 'node:fs'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { onTestFinished } from 'vitest'

export async function freshDirectory(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'sealsync-test-'))
  onTestFinished(() => rm(path, { recursive: true, force: true }))
  return path
}

/** Resolves when `holds`, which is looked at now and after whatever the system tells of the directory. */
export function untilDirectory(path: string, holds: () => boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    const watcher = watch(path, () => look())
    const look = () => {
      if (!holds()) return
      watcher.close()
      resolve()
    }
    watcher.on('error', reject)
    look()
  })
}

const SOURCES = fileURLToPath(new URL('../../', import.meta.url))

/**
 * A script for children: `source` is the body of an async function; what it imports comes first, as `import` lines with
 * paths from the project's root (`./src/local/lock.ts`). It may use `say(value)`, which prints one line of JSON.
 */
export async function buildScript(directory: string, imports: string, source: string): Promise<string> {
  const outfile = join(directory, `script-${globalThis.crypto.randomUUID()}.cjs`)
  await build({
    stdin: {
      contents: `${imports}
        const say = (value) => require('node:fs').writeSync(1, JSON.stringify(value) + '\\n')
        ;(async () => { ${source} })()
          .catch((error) => say({ error: error.code ?? String(error), class: error.class }))
          .then(() => process.exit(0))`,
      resolveDir: SOURCES,
      loader: 'ts',
    },
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node20',
    external: ['@napi-rs/keyring'],
    outfile,
    logLevel: 'silent',
  })
  await chmod(directory, 0o755)
  await chmod(outfile, 0o644)
  return outfile
}

export interface Child {
  /** Parsed lines of its standard output. */
  readonly lines: Promise<Line[]>
  /** The first line, as soon as it is there. */
  readonly first: Promise<Line>
  readonly pid: number
  /** Resolves when that many lines are there, or the child has ended. */
  until(count: number): Promise<void>
  kill(): void
  /** Writes to its standard input. */
  tell(text: string): void
}

// biome-ignore lint/suspicious/noExplicitAny: what a child prints is checked by the assertions of the tests.
export type Line = any

export function runScript(script: string, args: string[] = [], options: { uid?: number } = {}): Child {
  const ids = options.uid === undefined ? {} : { uid: options.uid, gid: options.uid }
  const child = spawn(process.execPath, [script, ...args], { stdio: ['pipe', 'pipe', 'inherit'], cwd: '/', ...ids })
  const parsed: Line[] = []
  let rest = ''
  let sawFirst: (line: Line) => void = () => {}
  const waiting = new Set<{ count: number; end: () => void }>()
  const first = new Promise<Line>((resolve) => {
    sawFirst = resolve
  })
  const lines = new Promise<Line[]>((resolve, reject) => {
    child.on('error', reject)
    child.stdout.on('data', (data: Buffer) => {
      rest += data.toString()
      for (let end = rest.indexOf('\n'); end !== -1; end = rest.indexOf('\n')) {
        parsed.push(JSON.parse(rest.slice(0, end)))
        rest = rest.slice(end + 1)
        if (parsed.length === 1) sawFirst(parsed[0])
        for (const one of waiting) if (parsed.length >= one.count) one.end()
      }
    })
    child.on('close', () => {
      sawFirst(parsed[0])
      for (const one of waiting) one.end()
      resolve(parsed)
    })
  })
  child.stdin.on('error', () => {})
  onTestFinished(() => void child.kill('SIGKILL'))
  return {
    lines,
    first,
    pid: child.pid ?? 0,
    until: (count) =>
      new Promise((end) => {
        if (parsed.length >= count || child.exitCode !== null) end()
        else waiting.add({ count, end })
      }),
    kill: () => void child.kill('SIGKILL'),
    tell: (text) => void child.stdin.write(text),
  }
}

export const isRoot = process.getuid?.() === 0
/** Nobody: modes count for this user even where the tests run as root. */
export const NOBODY = 65_534

/** A file that everybody may read, in a directory that everybody may enter. */
export async function writeOpenFile(path: string, content: string, mode = 0o644): Promise<void> {
  await writeFile(path, content)
  await chmod(path, mode)
}
