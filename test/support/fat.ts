/** A disk like FAT over FUSE, where this machine lets us mount one; see fat.py. @module */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const PYTHON = '/usr/bin/python3'
const PROGRAM = fileURLToPath(new URL('fat.py', import.meta.url))
const imports = 'try:\n import fusepy\nexcept ImportError:\n import fuse; fuse.Operations'

/** Why there is none, for the name of a test; empty where there is. */
export const noFat = ((): string => {
  if (process.platform !== 'linux' || !existsSync('/dev/fuse')) return ' (skipped: no FUSE)'
  if (process.getuid?.() !== 0) return ' (skipped: only root may mount)'
  return spawnSync(PYTHON, ['-c', imports]).status === 0 ? '' : ' (skipped: no python3-fusepy, libfuse2)'
})()

export interface Disk {
  readonly root: string
  unmount(): Promise<void>
}

const isMounted = (root: string) => readFileSync('/proc/mounts', 'utf8').includes(` ${root} `)

/** Mounts an empty one at a new directory. */
export async function mountFat(root: string): Promise<Disk> {
  const backing = `${root}.backing`
  mkdirSync(root)
  mkdirSync(backing)
  const child = spawn(PYTHON, [PROGRAM, backing, root], { stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text) => {
    said += text
  })
  const ended = once(child, 'exit')
  // The kernel tells of mounts by an event on this file only to those who poll it; it is short, and this is a start.
  while (!isMounted(root)) {
    const over = await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 20))])
    if (over !== undefined) throw new Error(`no disk: ${said}`)
  }
  return {
    root,
    async unmount() {
      spawnSync('umount', ['-l', root])
      await ended
    },
  }
}
