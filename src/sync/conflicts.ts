/** When two files are taken for the same, what becomes of a target that differs, and free names. @module */
import { wireTime } from '../api/wire.ts'

/**
 * What to do with a target that exists and differs: leave it, replace it, put the new one beside it under a free name, report
 * it, or replace it only by something that was modified later.
 */
export type ConflictAction = 'skip' | 'overwrite' | 'rename' | 'fail' | 'newer'

/**
 * The server keeps whole milliseconds, and times pass through floating-point seconds on their way to the disk and back: what
 * is less than this apart is the same.
 */
const RESOLUTION_MS = 1.001

/** Equal within the coarser of two resolutions: many servers and file systems keep whole seconds only. */
export function sameTime(one: number, other: number): boolean {
  const [a, b] = [wireTime(one), wireTime(other)]
  if (Math.abs(a - b) < RESOLUTION_MS) return true
  const [x, y] = [Math.floor(a), Math.floor(b)]
  const wholeSeconds = x % 1000 === 0 || y % 1000 === 0
  return wholeSeconds && Math.floor(x / 1000) === Math.floor(y / 1000)
}

/** As long as a name may be on a disk. */
const MOST_BYTES = 255

/** `name (1).ext`, `name (2).ext`, … */
export function freeName(name: string, isFree: (name: string) => boolean): string {
  const dot = name.lastIndexOf('.')
  const hasExtension = dot > 0 && Buffer.byteLength(name.slice(dot)) < MOST_BYTES / 2
  const [stem, extension] = hasExtension ? [name.slice(0, dot), name.slice(dot)] : [name, '']
  for (let number = 1; ; number++) {
    const end = ` (${number})${extension}`
    let short = stem
    while (Buffer.byteLength(short + end) > MOST_BYTES) short = [...short].slice(0, -1).join('')
    if (isFree(short + end)) return short + end
  }
}

/** True when a difference may be resolved by replacing. */
export function mayReplace(action: ConflictAction, fromMs: number, existingMs: number | undefined): boolean {
  return (
    action === 'overwrite' || (action === 'newer' && existingMs !== undefined && fromMs - existingMs >= RESOLUTION_MS)
  )
}
