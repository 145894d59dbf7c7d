/**
 * A disk that takes names for one that differ in case only, for processes of their own; see folding.c. Compiled once for a test file, and
 * what uses it is skipped by name where there is no compiler or no Linux.
 * @module
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

function compile(): { readonly path?: string; readonly problem?: string } {
  if (process.platform !== 'linux') return { problem: 'it needs Linux' }
  const directory = mkdtempSync(join(tmpdir(), 'sealsync-folding-'))
  process.once('exit', () => rmSync(directory, { recursive: true, force: true }))
  const [source, path] = [fileURLToPath(new URL('folding.c', import.meta.url)), join(directory, 'folding.so')]
  for (const compiler of ['cc', 'gcc', 'clang']) {
    const made = spawnSync(compiler, ['-shared', '-fPIC', '-O2', '-w', '-o', path, source, '-ldl'], {
      encoding: 'utf8',
    })
    if (made.error !== undefined) continue
    if (made.status !== 0) throw new Error(`folding.c: ${made.stderr}`)
    return { path }
  }
  return { problem: 'there is no C compiler' }
}

const library = compile()

/** Empty where there is such a disk, else why not. */
export const noFolding: string = library.problem === undefined ? '' : ` (skipped: ${library.problem})`

/** Environment of a process for which everything below `root` is on such a disk. */
export const foldingEnv = (root: string): Record<string, string> => ({
  LD_PRELOAD: library.path!,
  UV_USE_IO_URING: '0',
  FOLD_ROOT: realpathSync(root),
})
