/** One file of 1 GiB (BENCH_MIB) up and down: whole processes, the same discarding server for both sides. @module */
import { join } from 'node:path'
import { compare, type Side } from '../harness.ts'
import { curlDownload, curlUpload, downloadPeers, installed, uploadPeers } from '../peers.ts'
import { throughput } from '../processes.ts'
import { createWorkbench, MiB } from '../workbench.ts'

const SIZE = Number(process.env.BENCH_MIB ?? 1024) * MiB
const label = `${SIZE / MiB} MiB`
/** Five part buffers of 8 MiB for one file, kept until acknowledged (transfer/upload.ts), beyond what it needs anyway. Millions of bytes. */
const KEPT_MB = 42
const MEMORY_MB = 90

const bench = await createWorkbench()
try {
  const file = bench.makeFile('source', SIZE)
  const up: Side = {
    name: 'ours',
    run: async () => throughput(SIZE, bench.sync(['upload', file, await bench.newRoom()], { expect: 1 })),
  }
  const room = await bench.seed({ count: 1, size: SIZE, withKeys: true })
  const down: Side = {
    name: 'ours',
    run: () =>
      throughput(SIZE, bench.sync(['download', `${room}/f000000`, bench.emptyDirectory('target')], { expect: 1 })),
    after: () => bench.remove(join(bench.base, 'target')),
  }
  await compare([
    {
      name: `upload ${label}`,
      unit: 'GB/s',
      sides: [up, ...installed([curlUpload(bench, file, SIZE), ...uploadPeers(bench, file, SIZE)], 'upload')],
      goals: {
        'curl -T': { atLeast: 0.6, stretch: 0.75 },
        'openssl enc | curl': { atLeast: 1.2 },
      },
      peakMB: { atMost: MEMORY_MB + KEPT_MB },
    },
  ])
  const peers = downloadPeers(bench, file, SIZE)
  bench.remove(file)
  await compare([
    {
      name: `download ${label}`,
      unit: 'GB/s',
      sides: [down, ...installed([curlDownload(bench, SIZE), ...peers.sides], 'download')],
      goals: {
        'curl -o': { atLeast: 0.5, stretch: 0.65 },
        'rclone crypt <- local': { atLeast: 2 },
        'restic restore': { atLeast: 2 },
      },
      peakMB: { atMost: MEMORY_MB + KEPT_MB },
    },
  ])
  peers.close()
} finally {
  await bench.close()
}
