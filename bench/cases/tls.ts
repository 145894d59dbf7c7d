/** 512 MiB (BENCH_MIB) over TLS 1.3, up and down, against curl on the same connection without encryption of its own. @module */
import { join } from 'node:path'
import { compare, type Side } from '../harness.ts'
import { curlDownload, curlUpload, installed } from '../peers.ts'
import { throughput } from '../processes.ts'
import { createWorkbench, MiB } from '../workbench.ts'

const SIZE = Number(process.env.BENCH_MIB ?? 512) * MiB

const bench = await createWorkbench({ tls: true })
try {
  const file = bench.makeFile('source', SIZE, { sparse: true })
  const room = await bench.seed({ count: 1, size: SIZE, withKeys: true })
  const up: Side = {
    name: 'ours',
    run: async () => throughput(SIZE, bench.sync(['upload', file, await bench.newRoom()], { expect: 1 })),
  }
  const down: Side = {
    name: 'ours',
    run: () =>
      throughput(SIZE, bench.sync(['download', `${room}/f000000`, bench.emptyDirectory('target')], { expect: 1 })),
    after: () => bench.remove(join(bench.base, 'target')),
  }
  await compare([
    {
      name: `upload ${SIZE / MiB} MiB, TLS`,
      unit: 'GB/s',
      sides: [up, ...installed([{ ...curlUpload(bench, file, SIZE), name: 'curl -k -T' }], 'TLS upload')],
      goals: { 'curl -k -T': { atLeast: 0.9 } },
    },
    {
      name: `download ${SIZE / MiB} MiB, TLS`,
      unit: 'GB/s',
      sides: [down, ...installed([{ ...curlDownload(bench, SIZE), name: 'curl -k -o' }], 'TLS download')],
    },
  ])
} finally {
  await bench.close()
}
