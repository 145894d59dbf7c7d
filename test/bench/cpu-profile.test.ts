import { expect, test } from 'vitest'
import { type CpuProfile, showSummary, summarize } from '../../bench/cpu-profile.ts'

const frame = (id: number, functionName: string, url = '', lineNumber = 0) => ({
  id,
  callFrame: { functionName, url, lineNumber },
})

const profile: CpuProfile = {
  nodes: [
    frame(1, '(idle)'),
    frame(2, '(garbage collector)'),
    frame(3, 'update', 'file:///home/x/dist/crypto/file-cipher.js', 41),
    frame(4, '', 'file:///home/x/node_modules/undici/lib/client.js', 9),
    frame(5, 'writev', 'node:internal/streams/writable'),
  ],
  samples: [3, 1, 3, 4, 2, 5],
  timeDeltas: [500, 4000, 6000, 2000, 1000, 1000],
}

test('time after a sample is spent in it, and shares leave idle time out', () => {
  const { totalMs, idleMs, functions } = summarize(profile)
  expect(totalMs).toBe(14)
  expect(idleMs).toBe(6)
  expect(functions.map(({ name, ms }) => [name, ms])).toEqual([
    ['update crypto/file-cipher.js:42', 6],
    ['(anonymous) undici/lib/client.js:10', 1],
    ['(garbage collector)', 1],
    ['writev node:internal/streams/writable:1', 0],
  ])
  expect(functions[0]!.share).toBe(0.75)
})

test('places are directories of ours, packages, parts of node and of the engine', () => {
  const names = summarize(profile).places.map(({ name }) => name)
  expect(names).toEqual(['crypto', 'undici', '(garbage collector)', 'node:internal/streams'])
})

test('an empty profile is summed up too', () => {
  expect(showSummary(summarize({ nodes: [], samples: [], timeDeltas: [] }))[0]).toContain('0 ms')
})
