/** How many files this process may have open. Node asks for as many as the system gives when it starts. @module */
import { readFileSync } from 'node:fs'

/** Files, threads and libraries that are open besides. */
const OTHERS = 48

/** Connections that leave room for a file each; as many as are wanted where the system does not tell. */
export function connectionsWithin(wanted: number): number {
  let limits: string
  try {
    limits = readFileSync('/proc/self/limits', 'utf8')
  } catch {
    return wanted
  }
  const most = Number(/^Max open files\s+(\d+)/m.exec(limits)?.[1] ?? Number.POSITIVE_INFINITY)
  return Math.max(4, Math.min(wanted, Math.floor((most - OTHERS) / 2)))
}
