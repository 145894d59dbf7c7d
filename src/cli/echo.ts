/**
 * What somebody types before a question for a password may be that password: as long as one may come, the terminal does not show what
 * is typed. It keeps it for whoever reads next, the question or the shell.
 * @module
 */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'

/** How the terminal was, in the words of `stty`. */
let before: string | undefined

function stty(...args: string[]): string | undefined {
  const { status, stdout } = spawnSync('stty', args, { stdio: ['inherit', 'pipe', 'ignore'], encoding: 'utf8' })
  return status === 0 ? stdout.trim() : undefined
}

/** Whoever is in the background gets stopped for touching the terminal. */
function isInForeground(): boolean {
  try {
    // Behind the name, which may hold anything: state, parent, group, session, terminal, group in its foreground.
    const [, , group, , , front] = readFileSync('/proc/self/stat', 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ')
    return group === front
  } catch {
    const args = ['-o', 'pgid=,tpgid=', '-p', String(process.pid)]
    const [group, front] = spawnSync('ps', args, { encoding: 'utf8' }).stdout?.trim().split(/\s+/) ?? []
    return group !== undefined && group === front
  }
}

/** Stops showing what is typed, until `showTyping` or the end of the process. Only where standard input is a terminal. */
export function hideTyping(): void {
  if (before !== undefined || process.stdin.isTTY !== true || process.platform === 'win32') return
  if (!isInForeground()) return
  const saved = stty('-g')
  if (saved === undefined || stty('-echo') === undefined) return
  before = saved
  process.once('exit', showTyping)
}

export function showTyping(): void {
  if (before === undefined) return
  if (isInForeground()) stty(before)
  before = undefined
  process.off('exit', showTyping)
}
