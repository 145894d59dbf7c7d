import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'
import { LongestFirst } from './sequence.ts'

const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url))
const engine = (name: string) => ({ alias: { '#primitives': path(`../crypto/primitives/${name}.ts`) } })

// These end what hangs, and nothing else: how fast the machine is must not matter. Polls end when what they wait for is there.
const patience = {
  testTimeout: 600_000,
  hookTimeout: 600_000,
  expect: { poll: { interval: 10, timeout: 500_000 } },
}

// crypto/ runs on both engines; everything else on the native one.
export default defineConfig({
  test: {
    // They start processes and servers of their own, so many only wait for each other; a third one works where two wait for time.
    maxWorkers: 3,
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        root: path('..'),
        resolve: engine('node'),
        test: { name: 'native', include: ['test/**/*.test.ts'], ...patience },
      },
      {
        root: path('..'),
        resolve: engine('portable'),
        test: {
          name: 'portable',
          include: ['test/crypto/**/*.test.ts'],
          // These compare the two engines, or are about one; they run in the other project.
          exclude: ['browser', 'engines', 'release'].map((name) => `test/crypto/${name}.test.ts`),
          ...patience,
        },
      },
    ],
  },
})
