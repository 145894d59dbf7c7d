/**
 * The page as files on a host that is not the server: it goes where its configuration says, and nowhere that a link or a server would
 * like it to go.
 */
import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { extname } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createWorld, makeRoom, type World } from '../support/cli.ts'
import {
  hasChromium,
  heading,
  launch,
  type Made,
  requestFiles,
  saved,
  shareEncrypted,
  sharePlain,
  unlock,
  visit,
} from '../support/share-page.ts'

const BUNDLE = fileURLToPath(new URL('../../dist/share-page/', import.meta.url))
const PASSWORD = 'five random words are long'
const TYPES: Record<string, string> = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.json': 'application/json',
}

/** A host of files, and everything that it was asked for. */
async function startHost(config: () => unknown, policy: () => string) {
  const asked: { url: string; headers: object; body: string }[] = []
  const server: Server = createServer((request, response) => {
    let body = ''
    request.on('data', (chunk) => {
      body += chunk
    })
    request.on('end', () => {
      const { url = '/', headers } = request
      asked.push({ url, headers, body })
      const name = url.replace(/\?.*/, '').slice(1) || 'index.html'
      try {
        const data = name === 'config.json' ? JSON.stringify(config()) : readFileSync(BUNDLE + name)
        response.writeHead(200, { 'content-type': TYPES[extname(name)] ?? '', 'content-security-policy': policy() })
        response.end(data)
      } catch {
        response.writeHead(404).end()
      }
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { server, asked, origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
}

type Host = Awaited<ReturnType<typeof startHost>>

describe.skipIf(!hasChromium)('the page on another host, in Chromium', () => {
  let world: World
  let browser: Browser
  let host: Host
  /** Somebody who would like to get passwords. */
  let thief: Host
  let config: unknown
  let made: Made
  const content = randomBytes(70_001)

  const policy = () =>
    `default-src 'none'; script-src 'self'; style-src 'self'; worker-src 'self'; connect-src 'self' ${world.server.url}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types sealsync-worker`

  beforeAll(async () => {
    world = await createWorld()
    writeFileSync(world.path('file.bin'), content)
    const client = await world.client()
    await client.upload([world.path('file.bin')], '/room')
    await makeRoom(client, 'plain', false)
    await client.upload([world.path('file.bin')], '/plain', { allowPlain: true })
    made = await shareEncrypted(world, '/room/file.bin', PASSWORD)
    host = await startHost(() => config, policy)
    // As open as can be, so that only the page itself holds back.
    thief = await startHost(
      () => ({}),
      () => 'default-src *',
    )
    browser = await launch()
  })

  afterAll(async () => {
    await browser?.close()
    host?.server.close()
    thief?.server.close()
    await world?.close()
    expect(thief.asked).toEqual([])
  })

  test('downloads and sends at the server that it is for, without a breach of its policy', async () => {
    config = { api: world.server.url }
    const one = await visit(browser, [host.origin, world.server.url])
    await one.page.goto(`${host.origin}/#/download-shares/${made.key}`)
    const { data } = await saved(one.page, () => unlock(one.page, PASSWORD))
    expect(data.equals(content)).toBe(true)

    const request = await requestFiles(world, '/room')
    await one.page.goto(`${host.origin}/?again#/upload-shares/${request.key}`)
    await one.page.waitForSelector('.drop')
    await one.page.setInputFiles('#files', [{ name: 'sent.bin', mimeType: '', buffer: content }])
    await one.page.getByRole('button', { name: /^Send \d/ }).click()
    await one.page.waitForSelector('section[aria-label=Receipt]')
    await (await world.client()).download(['/room/sent.bin'], world.path('back'))
    expect(readFileSync(world.path('back')).equals(content)).toBe(true)
    expect(one.wrong).toEqual([])
    // The host of the page has heard of no key and no password.
    expect(JSON.stringify(host.asked)).not.toContain(made.key)
    await one.context.close()
  })

  test('a link that names another place leads nowhere else', async () => {
    config = { api: world.server.url }
    const evil = encodeURIComponent(thief.origin)
    for (const address of [
      `/?api=${evil}#/download-shares/${made.key}`,
      `/#/download-shares/${made.key}?api=${evil}`,
      `/#/download-shares/..%2f..%2f${evil}`,
      `/#//${thief.origin.replace('http://', '')}/download-shares/${made.key}`,
      `/#/download-shares/${evil}/${made.key}`,
    ]) {
      const one = await visit(browser, [host.origin, world.server.url])
      await one.page.goto(`${host.origin}${address}`)
      await one.page.waitForSelector('main h1')
      expect(one.wrong).toEqual([])
      await one.context.close()
    }
  })

  test('a server that names another place for content and parts is not followed, nor one that redirects', async () => {
    config = { api: world.server.url }
    const download = await visit(browser, [host.origin, world.server.url])
    await download.page.route('**/api/v4/public/shares/downloads/*', async (route) => {
      const response = await route.fetch()
      const json = await response.json()
      await route.fulfill({ response, json: 'downloadUrl' in json ? { downloadUrl: `${thief.origin}/x` } : json })
    })
    await download.page.goto(`${host.origin}/#/download-shares/${made.key}`)
    await unlock(download.page, PASSWORD)
    await download.page.waitForSelector('.heading.bad')
    expect(await heading(download.page)).toBe('The content is in a place that this page is not made for')
    expect(download.downloads).toEqual([])
    await download.context.close()

    const redirected = await visit(browser, [host.origin, world.server.url])
    await redirected.page.route('**/api/v4/public/shares/downloads/*', (route) =>
      route.fulfill({ status: 302, headers: { location: `${thief.origin}/x`, 'access-control-allow-origin': '*' } }),
    )
    await redirected.page.goto(`${host.origin}/#/download-shares/${made.key}`)
    await redirected.page.waitForSelector('.waiting, .heading.bad, main p')
    await redirected.context.close()

    // Parts then go through the server itself.
    const request = await requestFiles(world, '/room')
    const upload = await visit(browser, [host.origin, world.server.url])
    await upload.page.route('**/s3_urls', (route) =>
      route.fulfill({
        status: 201,
        headers: { 'access-control-allow-origin': '*' },
        json: { urls: [{ partNumber: 1, url: `${thief.origin}/part` }] },
      }),
    )
    await upload.page.goto(`${host.origin}/#/upload-shares/${request.key}`)
    await upload.page.waitForSelector('.drop')
    await upload.page.setInputFiles('#files', [{ name: 'around.bin', mimeType: '', buffer: content }])
    await upload.page.getByRole('button', { name: /^Send \d/ }).click()
    await upload.page.waitForSelector('section[aria-label=Receipt]')
    await (await world.client()).download(['/room/around.bin'], world.path('around'))
    expect(readFileSync(world.path('around')).equals(content)).toBe(true)
    await upload.context.close()
  })

  test('for encrypted shares only: one that says it is not gets no password', async () => {
    config = { api: world.server.url, encryptedOnly: true }
    const plain = await sharePlain(world, '/plain/file.bin', { password: 'Classic-12' })
    const one = await visit(browser, [host.origin, world.server.url])
    await one.page.goto(`${host.origin}/#/download-shares/${plain.key}`)
    await one.page.waitForSelector('.heading.bad')
    expect(await heading(one.page)).toBe('This share is not encrypted')
    expect(await one.page.locator('input').count()).toBe(0)
    await one.context.close()
  })

  test.each([
    { api: 'http://files.example.com' },
    { api: 'https://files.example.com/path' },
    { api: 'javascript:alert(1)' },
    { aip: 'https://files.example.com' },
    { storage: 'https://objects.example.com' },
    { encryptedOnly: 'yes' },
    { list: true },
  ])('a configuration that is none stops it: %j', async (bad) => {
    config = bad
    const one = await visit(browser, [host.origin])
    await one.page.goto(`${host.origin}/#/download-shares/${made.key}`)
    await one.page.waitForSelector('.heading.bad')
    expect(await heading(one.page)).toBe('This page is not set up rightly')
    expect(one.wrong).toEqual([])
    await one.context.close()
  })
})
