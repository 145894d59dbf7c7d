import { execFileSync } from 'node:child_process'
import { createCipheriv } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { describe, expect, test, vi } from 'vitest'
import { primitives } from '#primitives'
import { primitives as native, release } from '../../crypto/primitives/node.ts'

const MiB = 1024 * 1024

describe.skipIf(primitives.name !== 'native')('release of spent outputs (native engine only)', () => {
  test('a buffer that owns its memory is given back', async () => {
    // The quick way opens when the event loop has turned.
    await vi.waitFor(() => {
      const out = createCipheriv('aes-256-ctr', new Uint8Array(32), new Uint8Array(16)).update(new Uint8Array(65_536))
      const { buffer } = out
      release(out)
      expect([out.byteLength, buffer.byteLength]).toEqual([0, 0])
      expect(() => release(out)).not.toThrow()
    }, 500_000)
  })

  // Before the first turn of the event loop the quick way is not open; once, all memory released in that time stayed for good.
  test('a program that encrypts before its event loop has turned once keeps its memory, too', async () => {
    const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url))
    const { outputFiles } = await build({
      stdin: {
        contents: `
          import { createFileEncryptor } from ${JSON.stringify(path('../../crypto/index.ts'))}
          const [encryptor, chunk, target] = [createFileEncryptor(), new Uint8Array(1 << 20), new Uint8Array(1 << 20)]
          const base = process.memoryUsage.rss()
          for (let i = 0; i < 768; i++) encryptor.updateInto(chunk, target, 0)
          process.stdout.write(String(process.memoryUsage.rss() - base))`,
        resolveDir: path('.'),
      },
      alias: { '#primitives': path('../../crypto/primitives/node.ts') },
      bundle: true,
      platform: 'node',
      format: 'esm',
      external: ['node-forge'],
      write: false,
    })
    const grown = Number(execFileSync(process.execPath, ['--input-type=module', '-'], { input: outputFiles[0]!.text }))
    console.info(`768 MiB before the first turn of the event loop: resident +${(grown / MiB).toFixed(0)} MiB`)
    expect(grown).toBeGreaterThan(0)
    expect(grown).toBeLessThan(256 * MiB)
  })

  test('views of larger memory, pooled buffers and shared memory are left alone', () => {
    const owner = new Uint8Array(100).fill(7)
    const views = [
      owner.subarray(1),
      owner.subarray(0, 99),
      owner.subarray(50, 60),
      Buffer.from('pooled'),
      Buffer.allocUnsafe(10),
    ]
    for (const view of views) {
      const before = [...view]
      release(view)
      expect([...view]).toEqual(before)
    }
    const shared = new Uint8Array(new SharedArrayBuffer(16)).fill(3)
    release(shared)
    expect([...shared]).toEqual(Array(16).fill(3))
    release(new Uint8Array(0))
  })

  test('2 GiB of stream leave memory flat, without any garbage collection being asked for', () => {
    const [source, target, back] = [new Uint8Array(4 * MiB).fill(9), new Uint8Array(4 * MiB), new Uint8Array(4 * MiB)]
    const [key, iv] = [native.randomBytes(32), native.randomBytes(12)]
    const [encrypt, decrypt] = [native.gcmEncrypt(key, iv), native.gcmDecrypt(key, iv)]
    const base = process.memoryUsage()
    let peak = 0
    let resident = 0
    for (let done = 0; done < 1024 * MiB; done += source.length) {
      encrypt.updateEach(source, (piece, at) => target.set(piece, at))
      peak = Math.max(peak, process.memoryUsage().arrayBuffers - base.arrayBuffers)
      decrypt.updateEach(target, (piece, at) => back.set(piece, at))
      const { arrayBuffers, rss } = process.memoryUsage()
      peak = Math.max(peak, arrayBuffers - base.arrayBuffers)
      resident = Math.max(resident, rss - base.rss)
    }
    expect(decrypt.final(encrypt.final())).toBe(true)
    console.info(
      `2 GiB of stream: array buffers +${(peak / MiB).toFixed(2)} MiB, resident +${(resident / MiB).toFixed(1)} MiB`,
    )
    // Without release each call leaves its 4 MiB of outputs behind until the next collection.
    expect(peak).toBeLessThan(2 * MiB)
    expect(resident).toBeLessThan(32 * MiB)
  })
})
