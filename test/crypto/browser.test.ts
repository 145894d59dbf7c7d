import { existsSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'
import { type Browser, chromium, type Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { primitives } from '#primitives'
import type * as sealsync from '../../crypto/index.ts'
import {
  decryptBytes,
  encryptBytes,
  formatFileKey,
  parseFileKey,
  unwrapFileKey,
  wrapFileKey,
} from '../../crypto/index.ts'
import { base64, fileFixtures, quickFixture, SEED, seededRandom, toBase64, unlockFixture } from './support.ts'

const executablePath = process.env.SEALSYNC_CHROMIUM ?? '/usr/bin/chromium'
const present = existsSync(executablePath)
if (!present && primitives.name === 'native') console.warn(`SKIPPED, not installed: Chromium (${executablePath})`)

declare global {
  // What the page has: the bundle under this name.
  var sealsyncCrypto: typeof sealsync
}

/** The modules of the bundle by their URL path; forge is a chunk of its own, fetched only for key pairs of version A. */
async function bundle(): Promise<Map<string, string>> {
  const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url))
  const { outputFiles } = await build({
    entryPoints: { crypto: path('../../crypto/index.ts') },
    alias: { '#primitives': path('../../crypto/primitives/portable.ts') },
    bundle: true,
    minify: true,
    platform: 'browser',
    conditions: ['browser'],
    format: 'esm',
    splitting: true,
    target: 'es2023',
    outdir: '/',
    write: false,
  })
  return new Map(outputFiles.map(({ path, text }) => [path.replaceAll('\\', '/').replace(/^.*\//, '/'), text]))
}

const PAGE = `<!doctype html><meta charset="utf-8"><script type="module">
import * as sealsyncCrypto from '/crypto.js'
globalThis.sealsyncCrypto = sealsyncCrypto
</script>`

// The page runs the portable engine; the other side of the exchange is Node's native one.
describe.skipIf(!present || primitives.name !== 'native')(
  'in a browser (headless Chromium, in the native project)',
  () => {
    let server: Server
    let browser: Browser
    let page: Page
    const { bytes } = seededRandom(SEED)

    beforeAll(async () => {
      const scripts = await bundle()
      const sizes = [...scripts].map(([name, text]) => `${name} ${text.length} (${gzipSync(text).length} gzipped)`)
      console.info(`browser bundle, bytes minified: ${sizes.join(', ')}`)
      server = createServer(({ url = '/' }, response) => {
        const script = scripts.get(url)
        response.setHeader('content-type', script === undefined ? 'text/html' : 'text/javascript')
        response.end(script ?? PAGE)
      })
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      browser = await chromium.launch({
        executablePath,
        timeout: 0,
        args: [
          '--no-sandbox',
          '--disable-gpu',
          '--disable-quic',
          '--no-first-run',
          '--disable-background-networking',
          '--disable-component-update',
          '--disable-sync',
        ],
      })
      page = await browser.newPage()
      page.setDefaultTimeout(0)
      await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`)
      await page.waitForFunction(() => 'sealsyncCrypto' in globalThis)
    })

    afterAll(async () => {
      await browser?.close()
      server?.close()
    })

    test.each(['A', 'RSA-4096'] as const)('%s: opens what Node made, and Node opens what it makes', async (version) => {
      const pair = await unlockFixture(version)
      const plain = bytes(70_001)
      const { ciphertext, fileKey } = encryptBytes(plain)
      const wrapped = formatFileKey(await wrapFileKey(fileKey, pair.publicKey))
      const { container, password } = quickFixture(version)
      const result = await page.evaluate(
        async ({ container, password, wrapped, ciphertext }) => {
          const crypto = globalThis.sealsyncCrypto
          const from = (text: string) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0))
          const to = (data: Uint8Array) => {
            let text = ''
            for (const byte of data) text += String.fromCharCode(byte)
            return btoa(text)
          }
          const pair = await crypto.unlockKeyPair(crypto.parseKeyPairContainer(container), password)
          const fileKey = await crypto.unwrapFileKey(crypto.parseFileKey(wrapped), pair)
          const opened = crypto.decryptBytes(from(ciphertext), fileKey)
          const reversed = opened.toReversed()
          const made = crypto.encryptStream(new Blob([reversed]).stream())
          const body = new Uint8Array(await new Response(made.ciphertext).arrayBuffer())
          const madeKey = await made.fileKey
          const back = crypto.formatFileKey(await crypto.wrapFileKey(madeKey, pair.publicKey))
          const wrongPassword = await crypto.unlockKeyPair(container, 'wrong').catch((error) => error.code)
          body[3]! ^= 1
          let tampered = 'nothing'
          try {
            crypto.decryptBytes(body, madeKey)
          } catch (error) {
            tampered = (error as sealsync.SyncError).code
          }
          body[3]! ^= 1
          const shown = JSON.stringify([pair, madeKey])
          return { opened: to(opened), body: to(body), back, wrongPassword, tampered, shown }
        },
        { container, password, wrapped, ciphertext: toBase64(ciphertext) },
      )
      expect(result.opened).toBe(toBase64(plain))
      expect([result.wrongPassword, result.tampered]).toEqual(['KEY_PASSWORD_WRONG', 'CONTENT_TAMPERED'])
      expect(result.shown).toContain('[redacted]')
      const key = await unwrapFileKey(parseFileKey(result.back), pair)
      expect(Buffer.compare(decryptBytes(base64(result.body), key), plain.toReversed())).toBe(0)
    })

    test('a key pair made and locked there is a key pair here', async () => {
      const made = await page.evaluate(async () => {
        const crypto = globalThis.sealsyncCrypto
        const pair = await crypto.generateKeyPair('A')
        return { container: await crypto.lockKeyPair(pair, 'im Browser ü'), fingerprint: pair.publicKey.fingerprint }
      })
      const { parseKeyPairContainer, unlockKeyPair } = await import('../../crypto/index.ts')
      const pair = await unlockKeyPair(parseKeyPairContainer(made.container), 'im Browser ü')
      expect(pair.publicKey.fingerprint).toBe(made.fingerprint)
    })

    test('the fixtures open there', async () => {
      const count = await page.evaluate(
        async ({ files, pairs }) => {
          const crypto = globalThis.sealsyncCrypto
          const from = (text: string) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0))
          let good = 0
          for (const { version, container, password } of pairs) {
            const pair = await crypto.unlockKeyPair(crypto.parseKeyPairContainer(container), password)
            for (const file of files.filter(({ keyPairVersion }) => keyPairVersion === version)) {
              const key = await crypto.unwrapFileKey(crypto.parseFileKey(file.fileKey), pair).catch(() => undefined)
              if ((key === undefined) !== (file.refused === true)) throw new Error(file.name)
              if (key === undefined) continue
              const plain = crypto.decryptBytes(from(file.ciphertext), key)
              if (plain.join() === from(file.plaintext).join()) good++
            }
          }
          return good
        },
        {
          files: fileFixtures,
          pairs: (['A', 'RSA-4096'] as const).map((version) => ({ version, ...quickFixture(version) })),
        },
      )
      expect(count).toBe(fileFixtures.filter(({ refused }) => !refused).length)
    })
  },
)
