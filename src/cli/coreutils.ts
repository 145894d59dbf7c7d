/**
 * Linux has another `sync`, which flushes file systems. Called the way only that one is called, we hand over to it.
 * @module
 */
import { spawnSync } from 'node:child_process'
import { accessSync, closeSync, constants, openSync, readSync, realpathSync } from 'node:fs'
import { constants as osConstants } from 'node:os'
import { delimiter, join } from 'node:path'
import { childEnvironment } from './child-environment.ts'
import { display } from './display.ts'
import { EXIT } from './exit-codes.ts'

/** Where systems have theirs, whatever PATH says. */
const USUAL = process.platform === 'win32' ? [] : ['/usr/bin', '/bin']

/** What was tried before, for a program of that name that leads back to us. */
const TRIED = 'SEALSYNC_SYNC_TRIED'

/** True for this program, however it was installed: a link to it, or a script that starts it. */
function isOurs(real: string, self: string): boolean {
  if (real === self || /[\\/](?:cli|bin)[\\/](?:main|sync)\.js$/.test(real)) return true
  const fd = openSync(real, 'r')
  try {
    const head = Buffer.alloc(4_096)
    const text = head.toString('latin1', 0, readSync(fd, head))
    return text.startsWith('#!') && /(?:dist|app)[\\/]bin[\\/](?:main|sync)\.js/.test(text)
  } finally {
    closeSync(fd)
  }
}

/**
 * Runs the next `sync` that is not this program.
 *
 * @returns its exit code; that of a mistake when there is none, and says so.
 */
export function handOver(argv: readonly string[]): number {
  const self = realpathSync(argv[1]!)
  const tried = (process.env[TRIED] ?? '').split(delimiter).filter((path) => path !== '')
  const replaced: string[] = []
  for (const directory of [...(process.env.PATH ?? '').split(delimiter), ...USUAL]) {
    if (directory === '') continue
    const candidate = join(directory, 'sync')
    try {
      accessSync(candidate, constants.X_OK)
      const real = realpathSync(candidate)
      if (isOurs(real, self)) {
        if (USUAL.includes(directory)) replaced.push(candidate)
        continue
      }
      if (tried.includes(real)) continue
      tried.push(real)
    } catch {
      continue
    }
    const env = { ...childEnvironment(), [TRIED]: tried.join(delimiter) }
    const { status, signal, error } = spawnSync(candidate, argv.slice(2), { stdio: 'inherit', env })
    if (error === undefined) return signal === null ? (status ?? 1) : 128 + osConstants.signals[signal]
  }
  process.stderr.write(`${missingText(replaced[0])}\n`)
  return EXIT.usage
}

/** @param replaced - Where the system's own program was, and this one is. */
function missingText(replaced: string | undefined): string {
  const what =
    replaced === undefined
      ? 'error: nothing was flushed: there is no sync of coreutils on this machine to hand this call over to'
      : `error: nothing was flushed: the sync of coreutils has been replaced, ${display(replaced)} is sealsync`
  const back =
    replaced === undefined
      ? '  Install coreutils. '
      : '  To get it back, remove sealsync there (npm uninstall -g sealsync), then reinstall coreutils:\n' +
        '  apt-get install --reinstall coreutils, dnf reinstall coreutils, apk fix coreutils. '
  return `${what}\n${back}What sealsync does: sealsync --help`
}
