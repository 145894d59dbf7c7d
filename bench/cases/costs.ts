/**
 * What each safeguard costs, on an upload of 512 MiB, with --full 1 GiB (BENCH_MIB): the program as it is against itself without
 * one of them, and without its thread. None can be switched off in the program, so each is taken out of a copy of the build. A
 * ratio of 0.9 means that the safeguard takes 10 %.
 * @module
 */
import { join } from 'node:path'
import { compare, isFull, type Side, skip } from '../harness.ts'
import { runProgram, throughput } from '../processes.ts'
import { buildVariant, createWorkbench, MiB, type Variant } from '../workbench.ts'

const SIZE = Number(process.env.BENCH_MIB ?? (isFull ? 1024 : 512)) * MiB

const VARIANTS: readonly Variant[] = [
  {
    name: 'without the check of its own output',
    file: 'src/transfer/encryption-worker.js',
    find: '{ checkOutput: true }',
    replace: '{ checkOutput: false }',
  },
  {
    name: 'without the journal',
    file: 'src/transfer/upload.js',
    find: 'const journal = size > partSize ? resume?.journal : undefined',
    replace: 'const journal = undefined',
  },
  {
    name: 'without the digests of the journal',
    file: 'src/transfer/encryption-worker.js',
    find: 'encryptor.digest(number, target)',
    replace: 'new Uint8Array(16)',
  },
  {
    name: 'without the encryption thread',
    file: 'src/sync/upload-run.js',
    find: 'needsThread ? startEncryptionThread() : undefined',
    replace: 'undefined',
  },
]

const bench = await createWorkbench()
const unlocked = await createWorkbench()
try {
  await unlocked.useQuickKeyPair()
  const file = bench.makeFile('source', SIZE, { sparse: true })
  const upload =
    (main?: string, at = bench) =>
    async () => {
      const how = main === undefined ? { expect: 1 } : { expect: 1, main }
      return throughput(SIZE, at.sync(['upload', file, await at.newRoom()], how))
    }
  const without: Side[] = []
  for (const variant of VARIANTS) {
    const main = buildVariant(bench, variant)
    if (main === undefined) skip(`cost: ${variant.name}`, `${variant.file} has no such place any more`)
    else without.push({ name: variant.name, run: upload(main) })
  }
  const streaming = join(process.env.BENCH_PROGRAMS!, 'streaming-upload.mjs')
  await compare([
    {
      name: `cost: upload ${SIZE / MiB} MiB`,
      unit: 'GB/s',
      sides: [
        { name: 'ours', run: upload() },
        ...without,
        { name: 'with a key pair of 2,048 iterations', run: upload(undefined, unlocked) },
        {
          name: 'one request, nothing kept, no login or key',
          run: () => throughput(SIZE, runProgram([process.execPath, streaming, file, `${bench.url}/plain/x`])),
        },
      ],
    },
  ])
} finally {
  await bench.close()
  await unlocked.close()
}
