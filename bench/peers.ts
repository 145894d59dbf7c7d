/**
 * The programs that ours is compared with, each doing the same job as well as it can; `undefined` where one is not installed.
 * curl sends no encryption, openssl encrypts without authentication, age, rclone and restic do both.
 * @module
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Side, skip } from './harness.ts'
import { isInstalled, runProgram, runShell, throughput } from './processes.ts'
import type { Workbench } from './workbench.ts'

const KEY = ['-K', '00'.repeat(32), '-iv', '01'.repeat(16)]

/** Sides whose programs are all there; the others are named as skipped. */
export function installed(sides: readonly (Side & { readonly needs: readonly string[] })[], where: string): Side[] {
  return sides.filter(({ name, needs }) => {
    const missing = needs.filter((program) => !isInstalled(program))
    if (missing.length > 0) skip(`${where} to ${name}`, `${missing.join(', ')} not installed`)
    return missing.length === 0
  })
}

type Peer = Side & { readonly needs: readonly string[] }

const curl = ({ caFile }: Workbench) => ['curl', '-sSf', ...(caFile === undefined ? [] : ['-k'])]

/** curl -T: what the connection and the server take without any encryption. */
export const curlUpload = (bench: Workbench, file: string, bytes: number): Peer => ({
  name: 'curl -T',
  needs: ['curl'],
  run: () =>
    throughput(bytes, runProgram([...curl(bench), '-T', file, '-o', '/dev/null', `${bench.url}/plain/${bytes}`])),
})

export const curlDownload = (bench: Workbench, bytes: number): Peer => ({
  name: 'curl -o',
  needs: ['curl'],
  run: () =>
    throughput(bytes, runProgram([...curl(bench), '-o', join(bench.base, 'curl'), `${bench.url}/plain/${bytes}`])),
  after: () => bench.remove(join(bench.base, 'curl')),
})

/** The rest of what 1 GiB up is compared with. */
export function uploadPeers(bench: Workbench, file: string, bytes: number): Peer[] {
  const { base, url } = bench
  const send = `curl -sSf -T - -o /dev/null ${url}/plain/${bytes}`
  const identity = join(base, 'age')
  const recipient = () => {
    if (!isInstalled('age-keygen')) return ''
    runProgram(['age-keygen', '-o', identity])
    return /public key: (\S+)/.exec(readFileSync(identity, 'utf8'))![1]!
  }
  const to = recipient()
  return [
    {
      name: 'openssl enc | curl',
      needs: ['openssl', 'curl'],
      run: () => throughput(bytes, runShell(`openssl enc -aes-256-ctr ${KEY.join(' ')} -in "$1" | ${send}`, [file])),
    },
    {
      name: 'age | curl',
      needs: ['age', 'age-keygen', 'curl'],
      run: () => throughput(bytes, runShell(`age -r ${to} "$1" | ${send}`, [file])),
    },
    {
      name: 'rclone crypt -> local',
      needs: ['rclone'],
      run: () => throughput(bytes, runProgram(['rclone', 'copyto', file, 'bench:file'], rcloneOptions(bench))),
      after: () => bench.remove(join(base, 'rclone')),
    },
    {
      name: 'restic -> local',
      needs: ['restic'],
      run() {
        resticInit(bench)
        return throughput(bytes, runProgram(['restic', '-q', 'backup', file], resticOptions(bench)))
      },
      after: () => bench.remove(join(base, 'restic')),
    },
  ]
}

/** What a download is compared with; both keep their copy of `file` on the disk until `close`. */
export function downloadPeers(bench: Workbench, file: string, bytes: number): { sides: Peer[]; close(): void } {
  const { base, url } = bench
  const target = join(base, 'peer-target')
  const after = () => bench.remove(target)
  if (isInstalled('rclone')) runProgram(['rclone', 'copyto', file, 'bench:file'], rcloneOptions(bench))
  if (isInstalled('restic')) {
    resticInit(bench)
    runProgram(['restic', '-q', 'backup', file], resticOptions(bench))
  }
  return {
    sides: [
      {
        name: 'curl | openssl enc -d',
        needs: ['openssl', 'curl'],
        after,
        run: () =>
          throughput(
            bytes,
            runShell(`curl -sSf ${url}/plain/${bytes} | openssl enc -d -aes-256-ctr ${KEY.join(' ')} -out "$1"`, [
              target,
            ]),
          ),
      },
      {
        name: 'rclone crypt <- local',
        needs: ['rclone'],
        after,
        run: () => throughput(bytes, runProgram(['rclone', 'copyto', 'bench:file', target], rcloneOptions(bench))),
      },
      {
        name: 'restic restore',
        needs: ['restic'],
        after,
        run: () =>
          throughput(
            bytes,
            runProgram(['restic', '-q', 'restore', 'latest', '--target', target], resticOptions(bench)),
          ),
      },
    ],
    close() {
      for (const name of ['rclone', 'restic']) bench.remove(join(base, name))
    },
  }
}

/** A crypt remote over a local directory, told by the environment alone. */
export function rcloneOptions({ base }: Workbench): { env: NodeJS.ProcessEnv } {
  const password = isInstalled('rclone') ? runProgram(['rclone', 'obscure', 'a password']).stdout.trim() : ''
  return {
    env: {
      ...process.env,
      RCLONE_CONFIG: join(base, 'rclone.conf'),
      RCLONE_CONFIG_BENCH_TYPE: 'crypt',
      RCLONE_CONFIG_BENCH_REMOTE: join(base, 'rclone'),
      RCLONE_CONFIG_BENCH_PASSWORD: password,
    },
  }
}

export const resticOptions = ({ base }: Workbench) => ({
  env: {
    ...process.env,
    RESTIC_REPOSITORY: join(base, 'restic'),
    RESTIC_PASSWORD: 'x',
    RESTIC_CACHE_DIR: join(base, 'cache'),
  },
})

export function resticInit(bench: Workbench): void {
  bench.remove(join(bench.base, 'restic'))
  bench.remove(join(bench.base, 'cache'))
  runProgram(['restic', '-q', 'init'], resticOptions(bench))
}
