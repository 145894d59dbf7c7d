/**
 * Linux has another `sync`, which flushes file systems. Called the way only that one is called, we hand over to it.
 * @module
 */
import { spawnSync } from 'node:child_process'
import { accessSync, constants, realpathSync } from 'node:fs'
import { delimiter, join } from 'node:path'

/**
 * Runs the next `sync` on PATH that is not this program.
 *
 * @param env - What it gets as its environment.
 * @returns its exit code, or `undefined` when there is none.
 */
export function handOver(argv: readonly string[], env: NodeJS.ProcessEnv): number | undefined {
  const self = realpathSync(argv[1]!)
  for (const directory of (process.env.PATH ?? '').split(delimiter)) {
    if (directory === '') continue
    const candidate = join(directory, 'sync')
    try {
      accessSync(candidate, constants.X_OK)
      const real = realpathSync(candidate)
      // Not this copy of ours, nor another one.
      if (real === self || /[\\/](?:cli|bin)[\\/]main\.js$/.test(real)) continue
    } catch {
      continue
    }
    const { status, signal } = spawnSync(candidate, argv.slice(2), { stdio: 'inherit', env })
    return signal === null ? (status ?? 1) : 1
  }
  return undefined
}
