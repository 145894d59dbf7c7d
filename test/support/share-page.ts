/**
 * The page behind links in a real Chromium: a browser that notes every breach of the policy and every request to another place, shares made by
 * way of the API, and what a browser has in its private storage.
 * @module
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { type Browser, type BrowserContext, chromium, type Download, type Page } from 'playwright-core'
import { formatFileKey, unwrapFileKey, wrapFileKey } from '../../crypto/index.ts'
import { lockWith } from '../../crypto/key-pair.ts'
import { call, callFor } from '../../src/api/api.ts'
import { getFileKey } from '../../src/api/file-keys.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import { unlockFixture } from '../crypto/support.ts'
import type { World } from './cli.ts'

const executablePath = process.env.SEALSYNC_CHROMIUM ?? '/usr/bin/chromium'
export const hasChromium = existsSync(executablePath)
if (!hasChromium) console.warn(`SKIPPED, not installed: Chromium (${executablePath})`)

export const launch = (args: readonly string[] = []): Promise<Browser> =>
  chromium.launch({
    executablePath,
    timeout: 0,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      ...args,
    ],
  })

export interface Visit {
  readonly context: BrowserContext
  readonly page: Page
  /** What must stay empty: breaches of the policy, errors of scripts, requests to other origins. */
  readonly wrong: string[]
  /** Downloads that the browser has begun. */
  readonly downloads: Download[]
}

/**
 * A browser window of its own, with storage of its own.
 *
 * @param origins - Where requests may go to.
 */
export async function visit(browser: Browser, origins: readonly string[], context?: BrowserContext): Promise<Visit> {
  const own = context ?? (await browser.newContext({ acceptDownloads: true }))
  const wrong: string[] = []
  const downloads: Download[] = []
  const page = await own.newPage()
  page.setDefaultTimeout(0)
  await page.exposeFunction('tellBreach', (text: string) => wrong.push(text))
  await page.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) => {
      ;(globalThis as unknown as { tellBreach(text: string): void }).tellBreach(`${violatedDirective} ${blockedURI}`)
    })
  })
  page.on('pageerror', (error) => wrong.push(String(error)))
  page.on('console', (message) => {
    // Answers that are no 2xx are told there too, and meant.
    if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) wrong.push(message.text())
  })
  own.on('request', (request) => {
    const url = new URL(request.url())
    if (url.protocol.startsWith('http') && !origins.includes(url.origin)) wrong.push(`request to ${url.href}`)
  })
  page.on('download', (download) => downloads.push(download))
  page.on('dialog', (dialog) => {
    // A question before leaving is meant; anything else would be a script of somebody else's.
    if (dialog.type() !== 'beforeunload') wrong.push(`dialog: ${dialog.message()}`)
    void dialog.accept().catch(() => {})
  })
  return { context: own, page, wrong, downloads }
}

/** Saves the next download and returns its bytes. */
export async function saved(
  page: Page,
  work: () => Promise<unknown>,
): Promise<{ name: string; data: Buffer; path: string }> {
  const [download] = await Promise.all([page.waitForEvent('download'), work()])
  const path = await download.path()
  return { name: download.suggestedFilename(), data: readFileSync(path), path }
}

/** Types the password and goes on. */
export async function unlock(page: Page, password: string): Promise<void> {
  await page.fill('#password', password)
  await page.click('form button.primary')
}

export const heading = (page: Page): Promise<string> => page.locator('main h1').innerText()

/** Names of what lies in the private storage of the page's origin. */
export const privateFiles = (page: Page): Promise<string[]> =>
  page.evaluate(async () => {
    const root = await navigator.storage.getDirectory()
    const directory = await root.getDirectoryHandle('sealsync-share', { create: true })
    const names: string[] = []
    for await (const name of (directory as unknown as { keys(): AsyncIterable<string> }).keys()) names.push(name)
    return names
  })

/** As in a browser whose private storage has no room: what the browser says of it is another thing, and nothing else. */
export async function withoutRoom(page: Page): Promise<void> {
  await page.route('**/worker-*.js', async (route) => {
    const response = await route.fetch()
    const full = 'StorageManager.prototype.estimate = async () => ({ quota: 1024, usage: 0 })\n'
    await route.fulfill({ response, body: full + (await response.text()) })
  })
}

export interface Made {
  readonly id: number
  readonly key: string
  readonly link: string
}

const random = (length: number) => globalThis.crypto.getRandomValues(new Uint8Array(length))

/** Posts a share and returns its key. */
async function post(world: World, kind: 'downloads' | 'uploads', json: object): Promise<Made> {
  const { api } = await world.client()
  const made = await callFor(api, { method: 'POST', path: `/v4/shares/${kind}`, json }, (value) => value)
  const { id, accessKey } = made as { id: number; accessKey: string }
  const page = kind === 'downloads' ? 'download-shares' : 'upload-shares'
  return { id, key: accessKey, link: `${world.server.url}/public/${page}/${accessKey}` }
}

/** Shares an encrypted file under a password, with a key pair of its own. */
export async function shareEncrypted(
  world: World,
  path: string,
  password: string,
  { iterations = 1000, ...more }: { iterations?: number; [field: string]: unknown } = {},
): Promise<Made> {
  const { api } = await world.client()
  const { node } = await requireRemote(api, path)
  const [owner, pair] = await Promise.all([unlockFixture('RSA-4096'), unlockFixture('RSA-4096')])
  const fileKey = await unwrapFileKey(await getFileKey(api, node.id), owner)
  const keyPair = await lockWith(pair, password, { prf: 'SHA-1', iterations, salt: random(20), iv: random(16) })
  const wrapped = formatFileKey(await wrapFileKey(fileKey, pair.publicKey))
  return post(world, 'downloads', { nodeId: node.id, keyPair, fileKey: wrapped, ...more })
}

/** Shares what is not encrypted. */
export async function sharePlain(world: World, path: string, more: object = {}): Promise<Made> {
  const { node } = await requireRemote((await world.client()).api, path)
  return post(world, 'downloads', { nodeId: node.id, ...more })
}

/** A file request for a room or folder. */
export async function requestFiles(world: World, path: string, more: object = {}): Promise<Made> {
  const { node } = await requireRemote((await world.client()).api, path)
  return post(world, 'uploads', { targetId: node.id, ...more })
}

export async function revoke(world: World, kind: 'downloads' | 'uploads', { id }: Made): Promise<void> {
  const { api } = await world.client()
  await call(api, { method: 'DELETE', path: `/v4/shares/${kind}/${id}` })
}

/**
 * Most memory that all processes below one had since they began, together, in bytes: by Linux' own measure (VmHWM), so nothing is missed
 * between two looks.
 */
export function peakMemory(rootPid: number): number {
  const parents = new Map<number, number>()
  const peaks = new Map<number, number>()
  for (const name of readdirSync('/proc').filter((one) => /^\d+$/.test(one))) {
    try {
      const status = readFileSync(`/proc/${name}/status`, 'utf8')
      parents.set(Number(name), Number(/^PPid:\s*(\d+)/m.exec(status)?.[1]))
      peaks.set(Number(name), 1024 * Number(/^VmHWM:\s*(\d+)/m.exec(status)?.[1] ?? 0))
    } catch {
      // It has ended meanwhile.
    }
  }
  const isOurs = (pid: number): boolean => pid === rootPid || (pid > 1 && isOurs(parents.get(pid) ?? 0))
  return [...peaks].filter(([pid]) => pid !== rootPid && isOurs(pid)).reduce((sum, [, bytes]) => sum + bytes, 0)
}
