/** Programs in a terminal of their own, for what is only done for people: bars, questions, the cursor. See terminal.py. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

const SCRIPT = fileURLToPath(new URL('terminal.py', import.meta.url))

export const hasPty = process.platform !== 'win32' && spawnSync('python3', ['-c', 'import pty']).status === 0

export interface PtyRun {
  /** What has come so far, with all that a terminal obeys. */
  output(): string
  /** Resolves when what has come is what is waited for. */
  until(isThere: (output: string) => boolean): Promise<void>
  tell(command: {
    readonly send?: string
    readonly hidden?: string
    readonly resize?: readonly [columns: number, rows: number]
    readonly signal?: number
  }): void
  ended(): Promise<{ readonly code: number; readonly echo: boolean }>
}

/** @param size - Columns and rows. */
export function runInPty(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  size: readonly [columns: number, rows: number] = [80, 24],
): PtyRun {
  const child = spawn('python3', [SCRIPT, ...size.map(String), ...args], {
    env: { PATH: process.env.PATH ?? '', TERM: 'xterm-256color', LANG: 'C.UTF-8', ...env },
  })
  let [output, end] = ['', '']
  const watchers = new Set<() => void>()
  child.stdout.setEncoding('utf8').on('data', (chunk) => {
    output += chunk
    for (const look of watchers) look()
  })
  child.stderr.setEncoding('utf8').on('data', (chunk) => {
    end += chunk
  })
  const closed = once(child, 'close').then(() => {
    for (const look of watchers) look()
  })
  return {
    output: () => output,
    until: (isThere) =>
      new Promise((resolve, reject) => {
        const look = () => {
          if (isThere(output)) resolve()
          else if (child.exitCode !== null) reject(new Error(`ended without it: ${output.slice(-2_000)}${end}`))
          else return
          watchers.delete(look)
        }
        watchers.add(look)
        look()
      }),
    tell: (command) => void child.stdin.write(`${JSON.stringify(command)}\n`),
    async ended() {
      await closed
      return JSON.parse(end)
    },
  }
}
