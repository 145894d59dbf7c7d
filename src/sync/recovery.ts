/**
 * Puts in order what a run left on this disk when it was killed. Whatever a run does to a local name it writes down before, so
 * the deeds of a run that never ended say what may be half done: it is finished, or taken back, and what is remembered of the
 * place becomes true again. Nothing here asks the server, and nothing that somebody else did meanwhile is touched.
 * @module
 */
import { join } from 'node:path'
import { localError } from '../errors.ts'
import { sameTime } from './conflicts.ts'
import { dropFromBin } from './local-bin.ts'
import { finishMove, lookAt, type MovedLocal } from './local-move.ts'
import { localIdentity, type SyncRecord } from './records.ts'
import { keyOf, lookLocal } from './scan.ts'
import type { Deed, LocalMark, Origin, SyncState } from './state.ts'

/**
 * Ends the runs of a pair that never came to their end, and what they were doing. The caller holds the lock of the pair, so none
 * of them lives.
 *
 * @param now - Milliseconds since the epoch.
 * @returns true when there was one.
 */
export function recover(state: SyncState, now: number): boolean {
  const killed = state.runs().filter(({ endedAt }) => endedAt === undefined)
  if (killed.length === 0) return false
  const found = state.current()
  const root = state.pair.local
  for (const { id } of killed) {
    for (const { number, deed } of state.deeds(id)) {
      if (!(lookAt(root)?.isDirectory() ?? false)) break
      try {
        if (!settle(state, root, deed)) state.dropDeed(id, number)
      } catch (error) {
        throw localError(error, `put ${deed.path} in order`)
      }
    }
  }
  if (state.isSettingAttributes) {
    for (const [key, record] of found) settleAttributes(state, root, key, record)
    state.setAttributesBegun(false)
  }
  for (const { id } of killed) {
    const error = { code: 'KILLED', message: 'It was killed before its end' }
    state.endRun(id, { endedAt: now, outcome: 'stopped', error })
  }
  state.rebase()
  return true
}

/** @returns false when it was not done. */
function settle(state: SyncState, root: string, deed: Deed): boolean {
  const { path } = deed
  const key = keyOf(path.split('/'))
  switch (deed.do) {
    case 'created-local': {
      const now = lookAt(join(root, path))
      if (now === undefined) return false
      if (deed.origin !== undefined) learn(state, root, key, path, deed.origin)
      return true
    }
    case 'replaced-local': {
      const now = lookAt(join(root, path))
      if (now?.ino === deed.was.ino) {
        dropFromBin(root, deed.bin)
        settleTouched(state, root, key, deed.was)
        return false
      }
      if (lookAt(join(root, deed.bin)) === undefined) {
        dropFromBin(root, deed.bin)
        return false
      }
      learn(state, root, key, path, deed.origin)
      return true
    }
    case 'deleted-local': {
      const place = deed.bin ?? path
      const isDone =
        deed.bin === undefined ? lookAt(join(root, path)) === undefined : lookAt(join(root, place)) !== undefined
      if (!isDone && deed.bin !== undefined) dropFromBin(root, deed.bin)
      if (isDone && lookAt(join(root, path)) === undefined) forgetBelow(state, key)
      return isDone
    }
    case 'moved-local':
      return settleMove(state, root, deed)
    case 'linked-local':
      return lookAt(join(root, path))?.isSymbolicLink() ?? false
    default:
      return true
  }
}

function settleMove(state: SyncState, root: string, deed: MovedLocal): boolean {
  const outcome = finishMove(root, deed)
  const [from, to] = [keyOf(deed.from.split('/')), keyOf(deed.path.split('/'))]
  if (outcome !== 'moved') {
    settleTouched(state, root, from, deed.was)
    return outcome === undefined
  }
  if (deed.isAside === true) forgetBelow(state, from)
  else if (state.current().has(from) && !state.current().has(to)) moveRecords(state, from, deed.path.split('/'))
  settleTouched(state, root, to, deed.was)
  return true
}

/** Everything that is remembered at and below a key, under another path. */
export function moveRecords(state: SyncState, from: string, to: readonly string[]): void {
  const depth = from.split('/').length
  for (const [key, record] of [...state.current()]) {
    if (key !== from && !key.startsWith(`${from}/`)) continue
    state.remove(key)
    const path = [...to, ...record.path.split('/').slice(depth)].join('/')
    state.put(keyOf(to) + key.slice(from.length), { ...record, path })
  }
}

/** Forgets a place, and what is below it. */
export function forgetBelow(state: SyncState, key: string): void {
  const isDirectory = state.current().get(key)?.kind === 'directory'
  if (isDirectory) for (const one of [...state.current().keys()]) if (one.startsWith(`${key}/`)) state.remove(one)
  state.remove(key)
}

/** A file that arrived and is not remembered: it is what it was made from if size and time are. */
function learn(state: SyncState, root: string, key: string, path: string, { node, seal }: Origin): void {
  const known = state.current().get(key)
  if (known?.remote.id === node.id) return
  const now = lookLocal(root, path.split('/'))
  if (now?.kind !== 'file' || now.size !== node.size || !sameTime(node.modified, now.mtimeMs)) return
  state.put(key, {
    kind: 'file',
    path,
    local: localIdentity(now),
    remote: node,
    ...(seal === undefined ? {} : { seal }),
  })
}

/** A second name, and another one, change what a file system says of a file without anybody having changed it. */
export function settleTouched(state: SyncState, root: string, key: string, was: LocalMark): void {
  const record = state.current().get(key)
  if (record?.kind !== 'file') return
  const { ino, size, mtimeMs } = record.local
  const now = lookLocal(root, record.path.split('/'))
  const isSame = (one: LocalMark | undefined) => one?.ino === ino && one.size === size && one.mtimeMs === mtimeMs
  if (now?.kind !== 'file' || !isSame(now) || !isSame(was) || now.ctimeMs === record.local.ctimeMs) return
  state.put(key, { ...record, local: localIdentity(now) })
}

/** The same for a file whose mode and exact time were about to be set. */
function settleAttributes(state: SyncState, root: string, key: string, record: SyncRecord): void {
  if (record.kind !== 'file') return
  const { ino, size, mtimeMs, ctimeMs } = record.local
  const now = lookLocal(root, record.path.split('/'))
  if (now?.kind !== 'file' || now.ino !== ino || now.size !== size || !sameTime(now.mtimeMs, mtimeMs)) return
  if (now.mtimeMs !== mtimeMs || now.ctimeMs !== ctimeMs) state.put(key, { ...record, local: localIdentity(now) })
}
