/** Speeds that the OpenSSL command line reports of itself. @module */
import { execFileSync } from 'node:child_process'
import { availableParallelism } from 'node:os'
import type { Side } from './harness.ts'

const openssl = (...args: string[]) =>
  execFileSync('openssl', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })

/** GB/s of `openssl speed` with 64 KiB blocks. */
export const opensslGcm = (...extra: string[]): Side => ({
  name: `openssl speed${extra.length > 0 ? ' -decrypt' : ''}`,
  run() {
    const out = openssl('speed', '-elapsed', '-seconds', '1', '-bytes', '65536', ...extra, '-evp', 'aes-256-gcm')
    return Number(/AES-256-GCM\s+([\d.]+)k/i.exec(out)![1]) / 1e6
  },
})

/** Operations a second of `openssl speed rsa4096`: private ones on all processors, public ones on one. */
export const opensslRsa = (which: 'private' | 'public'): Side => ({
  name: which === 'private' ? `openssl -multi ${availableParallelism()}` : 'openssl, one core',
  run() {
    const multi = which === 'private' ? ['-multi', String(availableParallelism())] : []
    const out = openssl('speed', '-elapsed', '-seconds', '1', ...multi, 'rsa4096')
    const [, signs, verifies] = /rsa\s+4096 bits\s+\S+\s+\S+\s+([\d.]+)\s+([\d.]+)/.exec(out)!
    return Number(which === 'private' ? signs : verifies)
  },
})
