/**
 * The order of the test files: those that take long first, so that none of them runs alone at the end. vitest does so itself once it has
 * seen them; a fresh clone has not. With a seed of its own (seed.ts) a run has an order of its own, because none may matter.
 * @module
 */
import { createHash } from 'node:crypto'
import { BaseSequencer, type TestSpecification } from 'vitest/node'

/** Files of more than about 20 seconds, the longest first. The others come behind them in any order. */
const LONG = [
  'share-page/upload',
  'share-page/download',
  'share-page/elsewhere',
  'edges/killed-again',
  'cli/canaries',
  'transfer/upload-faults',
  'cli/resume-upload',
  'sync/kill',
  'edges/fault-sweep',
  'contract/peer',
  'edges/backup-restore',
  'sync/push-manifest',
  'cli/faults',
  'transfer/download-faults',
  'edges/disk',
  'docs',
  'cli/kill-download',
  'sync/known-tree',
  'transfer/trust',
  'server/s3-client-faults',
  'cli/bench',
  'library/package',
  'cli/login',
  'local/tidy',
  'cli/package',
  'cli/watch',
  'edges/places',
  'cli/login-faults',
  'server/s3-faults',
  'cli/round-trip',
  'edges/without-links',
].map((name) => `/test/${name}.test.ts`)

export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const seed = process.env.SEALSYNC_SEED
    const rank = ({ moduleId }: TestSpecification) => {
      if (seed !== undefined) return createHash('sha256').update(`${seed} ${moduleId}`).digest().readUInt32BE()
      const at = LONG.findIndex((name) => moduleId.endsWith(name))
      return at === -1 ? LONG.length : at
    }
    // A process goes on with the next file only when that one is of its own project, so projects are not mixed.
    const group = ({ project: { config, name } }: TestSpecification) => (config.isolate ? '' : name)
    return (await super.sort(files)).sort(
      (a, b) => Number(group(a) > group(b)) - Number(group(a) < group(b)) || rank(a) - rank(b),
    )
  }
}
