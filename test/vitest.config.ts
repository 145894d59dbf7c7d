import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'
import { LongestFirst } from './sequence.ts'

const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url))

// These end what hangs, and nothing else: how fast the machine is must not matter. Polls end when what they wait for is there.
const patience = {
  testTimeout: 600_000,
  hookTimeout: 600_000,
  expect: { poll: { interval: 10, timeout: 500_000 } },
}

/** Changes or measures what belongs to the whole process. */
const OF_THE_PROCESS =
  /\bvi\.|process\.(?:umask|chdir|memoryUsage)\b|process\.env\.\w+ = |(?:delete |assign\()process\.env|syncBuiltinESMExports|\/proc\/self\/(?:fd|io)'/

const files = readdirSync(path('.'), { recursive: true, encoding: 'utf8' })
  .map((name) => `test/${name.replaceAll('\\', '/')}`)
  .filter((name) => name.endsWith('.test.ts'))
const alone = files.filter((name) => OF_THE_PROCESS.test(readFileSync(path(`../${name}`), 'utf8')))

/**
 * Test files on an engine. In a whole run most files are run by processes that take one after the other, because to start one and to load
 * everything takes longer than most of them; a file gets a process to itself when the next one would notice what it does.
 */
function projects(engine: 'node' | 'portable', name: string, names: readonly string[]) {
  const common = { root: path('..'), resolve: { alias: { '#primitives': path(`../crypto/primitives/${engine}.ts`) } } }
  const some = (name: string, include: string[], isolate: boolean) => ({
    ...common,
    test: { name, include, isolate, ...patience },
  })
  if (process.env.SEALSYNC_TEST_SHARED !== '1') return [some(name, [...names], true)]
  return [
    some(
      name,
      names.filter((one) => alone.includes(one)),
      true,
    ),
    some(
      `${name}, shared`,
      names.filter((one) => !alone.includes(one)),
      false,
    ),
  ]
}

// These compare the two engines, or are about one.
const onOneEngine = ['browser', 'engines', 'release'].map((name) => `test/crypto/${name}.test.ts`)

// crypto/ runs on both engines; everything else on the native one.
export default defineConfig({
  test: {
    // They start processes and servers of their own, so many only wait for each other; a third one works where two wait for time.
    maxWorkers: 3,
    sequence: { sequencer: LongestFirst },
    projects: [
      ...projects('node', 'native', files),
      ...projects(
        'portable',
        'portable',
        files.filter((name) => name.startsWith('test/crypto/') && !onOneEngine.includes(name)),
      ),
    ],
  },
})
