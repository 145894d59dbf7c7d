/** Plans longer than a call takes arguments. */
import { expect, test } from 'vitest'
import type { RemoteNode } from '../../src/api/wire.ts'
import { reconcile } from '../../src/sync/reconcile.ts'
import { createBlocked, type RemoteItem } from '../../src/sync/scan.ts'
import type { LocalEntry } from '../../src/sync/tree.ts'

const FILES = 300_000

test.each(['push', 'pull'] as const)('%s of 300,000 files, and as many deletions', (direction) => {
  const local = new Map<string, LocalEntry>()
  const remote = new Map<string, RemoteItem>()
  for (let id = 1; id <= FILES; id++) {
    const [here, there] = [`here ${id}`, `there ${id}`]
    const times = { size: 1, mtimeMs: 1, ctimeMs: 1, ino: id, dev: 1 }
    local.set(here, { kind: 'file', path: [here], source: here, ...times })
    const node = { id, type: 'file', name: there, size: 1, timestampModification: 1 } as RemoteNode
    remote.set(there, { kind: 'file', path: [there], node, roomId: 1 })
  }
  const trees = { local, remote, records: new Map(), blocked: createBlocked(), isFirst: false, isIncomplete: false }
  const steps = reconcile(trees, { direction, delete: true, checksum: false, conflictName: (name) => `${name}2` })
  const counts = new Map<string, number>()
  for (const step of steps) counts.set(step.do, (counts.get(step.do) ?? 0) + 1)
  const [transfer, removal] = direction === 'push' ? ['upload', 'delete-remote'] : ['download', 'delete-local']
  expect(Object.fromEntries(counts)).toEqual({ [transfer]: FILES, [removal]: FILES })
})
