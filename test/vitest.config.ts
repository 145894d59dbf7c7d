import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url))
const engine = (name: string) => ({ alias: { '#primitives': path(`../crypto/primitives/${name}.ts`) } })

// crypto/ runs on both engines; everything else on the native one.
export default defineConfig({
  test: {
    // More only makes tests wait for each other: they start processes and servers of their own.
    maxWorkers: 2,
    projects: [
      {
        root: path('..'),
        resolve: engine('node'),
        test: { name: 'native', include: ['test/**/*.test.ts'], testTimeout: 120_000, hookTimeout: 120_000 },
      },
      {
        root: path('..'),
        resolve: engine('portable'),
        test: {
          name: 'portable',
          include: ['test/crypto/**/*.test.ts'],
          // These compare the two engines, or are about one; they run in the other project.
          exclude: ['browser', 'engines', 'release'].map((name) => `test/crypto/${name}.test.ts`),
          testTimeout: 120_000,
          hookTimeout: 120_000,
        },
      },
    ],
  },
})
