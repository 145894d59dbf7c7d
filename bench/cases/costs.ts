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
    find: 'checkOutput: order.checkOutput',
    replace: 'checkOutput: false',
  },
  {
    name: 'without the journal',
    file: 'src/transfer/upload.js',
    find: 'const journal = size > partSize ? resume?.journal : undefined',
    replace: 'const journal = undefined',
  },
  {
    name: 'with all of its output decrypted again (--check-output full)',
    file: 'src/transfer/encryption-worker.js',
    find: 'checkOutput: order.checkOutput',
    replace: 'checkOutput: true',
  },
  {
    name: 'without a second look at what was sent',
    file: 'src/transfer/encryption-worker.js',
    find: 'openFile(order.file).encryptor.confirm(order.number, order.target);',
    replace: '',
  },
  {
    name: 'without the encryption thread',
    file: 'src/sync/uploader.js',
    find: 'needsThread ? startEncryptionThread() : undefined',
    replace: 'undefined',
  },
]

const DOWN: readonly Variant[] = [
  {
    name: 'without the decryption thread',
    file: 'src/transfer/decryption-thread.js',
    find: 'return isThere ? startWorker(program)',
    replace: 'return isThere === undefined ? startWorker(program)',
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
  const room = await bench.seed({ count: 1, size: SIZE, withKeys: true })
  const download = (main?: string) => () => {
    const how = main === undefined ? { expect: 1 } : { expect: 1, main }
    return throughput(SIZE, bench.sync(['download', `${room}/f000000`, bench.emptyDirectory('target')], how))
  }
  const other: Side[] = []
  for (const variant of DOWN) {
    const main = buildVariant(bench, variant)
    if (main === undefined) skip(`cost: ${variant.name}`, `${variant.file} has no such place any more`)
    else other.push({ name: variant.name, run: download(main), after: () => bench.remove(join(bench.base, 'target')) })
  }
  const after = () => bench.remove(join(bench.base, 'target'))
  await compare([
    {
      name: `cost: download ${SIZE / MiB} MiB`,
      unit: 'GB/s',
      sides: [{ name: 'ours', run: download(), after }, ...other],
    },
  ])
} finally {
  await bench.close()
  await unlocked.close()
}
