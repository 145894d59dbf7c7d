/**
 * Which process is which: pids are used again, and directories are shared between machines and containers.
 * @module
 */
import { createHash } from 'node:crypto'
import { readFileSync, readlinkSync } from 'node:fs'
import { hostname } from 'node:os'
import { systemCode } from '../errors.ts'

/** Boot id and start time of a process, so that a recycled pid does not look like the same one; `undefined` when it is gone. */
export function processStart(pid: number): string | undefined {
  try {
    process.kill(pid, 0)
  } catch (error) {
    if (systemCode(error) === 'ESRCH') return undefined
  }
  if (process.platform !== 'linux') return 'alive'
  try {
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ')
    // A zombie only waits for its parent to look at it; in a container without an init that may be for ever.
    return fields[0] === 'Z' || fields[0] === 'X' ? undefined : `${boot}/${fields[19]}`
  } catch {
    return undefined
  }
}

const digest = (text: string) => createHash('sha256').update(text).digest('base64url').slice(0, 8)

let place: string | undefined

/** This machine; with containers, this one's processes. */
function placeMark(): string {
  if (place === undefined) {
    let namespace = ''
    try {
      namespace = readlinkSync('/proc/self/ns/pid')
    } catch {
      // Not Linux, or not allowed to know.
    }
    place = digest(`${hostname()} ${namespace}`)
  }
  return place
}

let own: string | undefined

/** This process in a few characters that a file name may hold: pid, machine, start. */
export function ownerMark(): string {
  own ??= `${process.pid}.${placeMark()}.${digest(processStart(process.pid) ?? '')}`
  return own
}

/** True when the process with this mark ran on this machine and is gone. */
export function isOwnerGone(mark: string): boolean {
  const [pid, where, start] = mark.split('.')
  if (where !== placeMark() || !/^[1-9]\d{0,9}$/.test(pid ?? '')) return false
  const now = processStart(Number(pid))
  return now === undefined || digest(now) !== start
}
