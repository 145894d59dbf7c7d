/** Large files made and compared piece by piece. @module */
import { randomBytes } from 'node:crypto'
import { closeSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs'

const MIB = 1024 * 1024

/**
 * (Over)writes a file: random bytes here and there, holes in between, so that a large one takes little of the disk.
 *
 * @returns its first 64 bytes.
 */
export function writeLarge(file: string, size: number): Uint8Array {
  const fd = openSync(file, 'w')
  ftruncateSync(fd, size)
  for (let at = 0; at < size; at += 3 * MIB) writeSync(fd, randomBytes(Math.min(4096, size - at)), 0, undefined, at)
  const head = new Uint8Array(64)
  closeSync(fd)
  const reading = openSync(file, 'r')
  readSync(reading, head)
  closeSync(reading)
  return head
}

export function isSameFile(a: string, b: string): boolean {
  const files = [openSync(a, 'r'), openSync(b, 'r')]
  const buffers = [Buffer.alloc(MIB), Buffer.alloc(MIB)]
  try {
    for (;;) {
      const [x, y] = files.map((fd, index) => buffers[index]!.subarray(0, readSync(fd, buffers[index]!)))
      if (!x!.equals(y!)) return false
      if (x!.length === 0) return true
    }
  } finally {
    for (const fd of files) closeSync(fd)
  }
}
