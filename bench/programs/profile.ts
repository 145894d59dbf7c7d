/**
 * Runs our program once under node's profiler against the discarding server and says where each of its threads spent its time:
 * `profile upload|download|small-up|small-down|rescan [DIRECTORY for the .cpuprofile files]`, or sums up such files. BENCH_TLS=1: over TLS.
 * @module
 */
import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { type CpuProfile, showSummary, summarize } from '../cpu-profile.ts'
import { createWorkbench, MiB, type Workbench } from '../workbench.ts'

const SIZE = Number(process.env.BENCH_MIB ?? 1024) * MiB
const FILES = Number(process.env.BENCH_FILES ?? 5000)
const TREE = Number(process.env.BENCH_TREE ?? 100_000)

/** What to run, and how many files it has to transfer. */
type Job = (bench: Workbench) => Promise<{ args: string[]; expect: number }>
const JOBS: Readonly<Record<string, Job>> = {
  upload: async (bench) => ({
    args: ['upload', bench.makeFile('source', SIZE, { sparse: true }), await bench.newRoom()],
    expect: 1,
  }),
  download: async (bench) => ({
    args: ['download', await bench.seed({ count: 1, size: SIZE, withKeys: true }), `${join(bench.base, 'target')}/`],
    expect: 1,
  }),
  'small-up': async (bench) => ({
    args: ['upload', '--contents', bench.makeTree('tree', FILES, 4096, 1000), await bench.newRoom()],
    expect: FILES,
  }),
  'small-down': async (bench) => ({
    args: [
      'download',
      await bench.seed({ count: FILES, size: 4096, perFolder: 1000, withKeys: true }),
      join(bench.base, 'target'),
    ],
    expect: FILES,
  }),
  rescan: async (bench) => ({
    args: [
      'upload',
      '--contents',
      bench.makeTree('tree', TREE, 1, 500),
      await bench.seed({ count: TREE, size: 1, perFolder: 500, withKeys: false }),
    ],
    expect: 0,
  }),
}

const print = (line: string) => process.stdout.write(`${line}\n`)

function show(file: string): void {
  const profile: CpuProfile = JSON.parse(readFileSync(file, 'utf8'))
  print(`\n${file.split('/').at(-1)}`)
  for (const line of showSummary(summarize(profile))) print(line)
}

const [what = 'upload', ...rest] = process.argv.slice(2)
const job = JOBS[what]
if (what.endsWith('.cpuprofile')) {
  for (const file of [what, ...rest]) show(file)
} else if (job === undefined) {
  process.stderr.write(`no such job: ${what}; there are: ${Object.keys(JOBS).join(', ')}\n`)
  process.exitCode = 2
} else {
  const bench = await createWorkbench({ tls: process.env.BENCH_TLS === '1' })
  try {
    const profiles = resolve(rest[0] ?? join(bench.base, 'profiles'))
    mkdirSync(profiles, { recursive: true })
    const { args, expect } = await job(bench)
    const { seconds, cpuSeconds, peakMB } = bench.sync(args, {
      expect,
      node: ['--cpu-prof', '--cpu-prof-dir', profiles],
    })
    const used = cpuSeconds === undefined ? '' : `, ${cpuSeconds.toFixed(2)} CPU s, peak ${peakMB?.toFixed(0)} MB`
    print(`${what}: ${seconds.toFixed(2)} s${used}; one profile for each thread`)
    for (const name of readdirSync(profiles).sort()) if (name.endsWith('.cpuprofile')) show(join(profiles, name))
  } finally {
    await bench.close()
  }
}
