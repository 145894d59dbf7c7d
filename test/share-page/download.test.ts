/** Links in a browser: a real Chromium, the page as it is built, and the embedded server. */
import { randomBytes } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { createWorld, makeRoom, type World } from '../support/cli.ts'
import { isSameFile, writeLarge } from '../support/large-files.ts'
import {
  hasChromium,
  heading,
  launch,
  peakMemory,
  privateFiles,
  revoke,
  saved,
  shareEncrypted,
  sharePlain,
  unlock,
  type Visit,
  visit,
  withoutRoom,
} from '../support/share-page.ts'

const MIB = 1024 * 1024
const LARGE = 64 * MIB
const PASSWORD = 'five random words are long'
/** Where content comes from, as the fault plan sees it. */
const CONTENT = '/public/shares/downloads/[^/]+/.'

describe.skipIf(!hasChromium)('a link to an encrypted file, in Chromium', () => {
  let world: World
  let browser: Browser
  let small: Buffer
  const link = { small: '', large: '', empty: '' }
  const visits: Visit[] = []

  const open = async (address: string): Promise<Visit> => {
    const one = await visit(browser, [world.server.url])
    visits.push(one)
    await one.page.goto(address)
    return one
  }

  beforeAll(async () => {
    world = await createWorld()
    small = randomBytes(70_001)
    mkdirSync(world.path('up'))
    writeFileSync(world.path('up/small.bin'), small)
    writeFileSync(world.path('up/empty.txt'), '')
    writeLarge(world.path('up/large.bin'), LARGE)
    await (await world.client()).upload([world.path('up')], '/room', { contents: true })
    link.small = (await shareEncrypted(world, '/room/small.bin', PASSWORD)).link
    link.large = (await shareEncrypted(world, '/room/large.bin', PASSWORD)).link
    link.empty = (await shareEncrypted(world, '/room/empty.txt', PASSWORD)).link
    browser = await launch()
  })

  beforeEach(() => world.server.faults.clear())

  afterAll(async () => {
    await browser?.close()
    await world?.close()
    // Over all tests: no breach of the policy, no request to another place, no script of anybody else's.
    expect(visits.flatMap(({ wrong }) => wrong)).toEqual([])
  })

  test('is opened with its password, and saved as it was', async () => {
    const { page, context } = await open(link.small)
    await page.waitForSelector('#password')
    expect(await heading(page)).toBe('small.bin')
    const { name, data } = await saved(page, () => unlock(page, PASSWORD))
    expect([name, data.equals(small)]).toEqual(['small.bin', true])
    await page.waitForSelector('.actions')
    // The copy goes when it is told to.
    expect(await privateFiles(page)).toHaveLength(1)
    await page.getByRole('button', { name: 'Remove the copy' }).click()
    await expect.poll(() => privateFiles(page)).toEqual([])
    await context.close()
  })

  test('an empty file has a seal, too', async () => {
    const { page, context } = await open(link.empty)
    const { data } = await saved(page, () => unlock(page, PASSWORD))
    expect(data).toHaveLength(0)
    await context.close()
  })

  test('is opened with the iterations that everybody uses', async () => {
    const made = await shareEncrypted(world, '/room/small.bin', 'im Browser ü', { iterations: 1_300_000 })
    const { page, context } = await open(made.link)
    const { data } = await saved(page, () => unlock(page, 'im Browser ü'))
    expect(data.equals(small)).toBe(true)
    await context.close()
  })

  test('a large one: through cuts and errors, no more in memory than a few ranges', async () => {
    const { faults } = world.server
    faults.add({ on: { method: 'GET', path: CONTENT }, after: 2, times: 1, do: { cutAfterBytes: 3 * MIB } })
    faults.add({ on: { method: 'GET', path: CONTENT }, after: 4, times: 2, do: { status: 503 } })
    const { page, context } = await open(link.large)
    const { path } = await saved(page, () => unlock(page, PASSWORD))
    expect(isSameFile(path, world.path('up/large.bin'))).toBe(true)
    expect(faults.hits.length).toBeGreaterThanOrEqual(3)
    await context.close()
  })

  test('a wrong password opens nothing, asks the server nothing, and the next try has to wait', async () => {
    const { page, context } = await open(link.small)
    await page.waitForSelector('#password')
    const asked: string[] = []
    page.on('request', (request) => asked.push(request.url()))
    await unlock(page, 'five random words')
    await page.waitForSelector('#password-problem:not([hidden])')
    expect(await page.locator('#password-problem').innerText()).toContain('not the password')
    expect(await page.locator('form button.primary').isDisabled()).toBe(true)
    // It is read out, and the focus is where it is typed again.
    expect(await page.locator('#announcer').innerText()).toContain('not the password')
    expect(await page.evaluate(() => document.activeElement?.id)).toBe('password')
    expect(asked).toEqual([])
    await page.waitForSelector('form button.primary:enabled')
    const { data } = await saved(page, () => unlock(page, PASSWORD))
    expect(data.equals(small)).toBe(true)
    await context.close()
  })

  test.each([0, 35_000, 70_000])('a byte that was changed (%i): nothing is saved', async (at) => {
    world.server.faults.add({ on: { method: 'GET', path: CONTENT }, times: 100, do: { flipByteAt: at } })
    const { page, context, downloads } = await open(link.small)
    await unlock(page, PASSWORD)
    await page.waitForSelector('.heading.bad')
    expect(await heading(page)).toBe('The file was changed on its way, or at the server')
    expect(downloads).toEqual([])
    expect(await privateFiles(page)).toEqual([])
    await context.close()
  })

  test('another key, another container, another size: nothing is saved', async () => {
    const other = await shareEncrypted(world, '/room/empty.txt', PASSWORD)
    const elsewhere = await shareEncrypted(world, '/room/large.bin', 'another password')
    const answers: Record<string, Record<string, unknown>> = {}
    for (const key of [other.key, elsewhere.key]) {
      answers[key] = await (await fetch(`${world.server.url}/api/v4/public/shares/downloads/${key}`)).json()
    }
    const lies: readonly [object, RegExp][] = [
      // The key of another share with the same password: its file key does not fit the content.
      [
        { fileKey: answers[other.key]!.fileKey, privateKeyContainer: answers[other.key]!.privateKeyContainer },
        /changed/,
      ],
      // The key pair of somebody who does not know the password.
      [{ privateKeyContainer: answers[elsewhere.key]!.privateKeyContainer }, /not the password/],
      [{ fileKey: { version: 'RSA-4096/AES-256-GCM', key: 'AAAA', iv: '', tag: '' } }, /key of this share is damaged/],
      [{ privateKeyContainer: { version: 'RSA-4096', privateKey: 'x' } }, /key of this share is damaged/],
      [{ size: 70_000 }, /makes no sense|changed/],
      [{ size: 80_000 }, /makes no sense|changed/],
    ]
    for (const [lie, words] of lies) {
      const one = await visit(browser, [world.server.url])
      visits.push(one)
      await one.page.route('**/api/v4/public/shares/downloads/*', async (route) => {
        const response = await route.fetch()
        const json = await response.json()
        await route.fulfill({ response, json: 'fileName' in json ? { ...json, ...lie } : json })
      })
      await one.page.goto(link.small)
      await unlock(one.page, PASSWORD)
      await one.page.waitForSelector('.heading.bad, #password-problem:not([hidden])')
      expect(await one.page.locator('main').innerText()).toMatch(words)
      expect(one.downloads).toEqual([])
      await one.context.close()
    }
  })

  test('sizes that are none are refused', async () => {
    const one = await visit(browser, [world.server.url])
    visits.push(one)
    let size: unknown
    await one.page.route('**/api/v4/public/shares/downloads/*', async (route) => {
      const response = await route.fetch()
      await route.fulfill({ response, json: { ...(await response.json()), size } })
    })
    for (size of [-1, 1.5, 2 ** 53, 2 ** 36, '7', null]) {
      await one.page.goto(link.small)
      await one.page.waitForSelector('.heading.bad')
      expect(await heading(one.page), String(size)).toMatch(/makes no sense|too large/)
    }
    await one.context.close()
  })

  test('withdrawn in the middle: said, and nothing is saved', async () => {
    const made = await shareEncrypted(world, '/room/large.bin', PASSWORD)
    world.server.faults.add({ on: { method: 'GET', path: CONTENT }, after: 2, do: { hold: true } })
    const before = world.server.faults.hits.length
    const { page, context, downloads } = await open(made.link)
    await unlock(page, PASSWORD)
    await world.server.faults.until(before + 1)
    await revoke(world, 'downloads', made)
    world.server.faults.release()
    await page.waitForSelector('.heading.bad')
    expect(await heading(page)).toBe('This link leads nowhere')
    expect(downloads).toEqual([])
    expect(await privateFiles(page)).toEqual([])
    await context.close()
  })

  test('offline in the middle: waits, and goes on where it was', async () => {
    world.server.faults.add({ on: { method: 'GET', path: CONTENT }, after: 3, do: { hold: true } })
    const before = world.server.faults.hits.length
    const { page, context } = await open(link.large)
    const done = saved(page, () => unlock(page, PASSWORD))
    await world.server.faults.until(before + 1)
    await context.setOffline(true)
    world.server.faults.release()
    await page.waitForSelector('.waiting:not([hidden])')
    await context.setOffline(false)
    expect(isSameFile((await done).path, world.path('up/large.bin'))).toBe(true)
    await context.close()
  })

  test('used up, unknown, and cut links: said, and the page is the same for all', async () => {
    const once = await shareEncrypted(world, '/room/small.bin', PASSWORD, { maxDownloads: 1 })
    const first = await open(once.link)
    expect((await saved(first.page, () => unlock(first.page, PASSWORD))).data.equals(small)).toBe(true)
    await first.context.close()
    const second = await open(once.link)
    await second.page.waitForSelector('.heading.bad')
    expect(await heading(second.page)).toBe('This link is used up')
    await second.context.close()

    const base = `${world.server.url}/public/download-shares`
    const unknown = await open(`${base}/${'x'.repeat(32)}`)
    await unknown.page.waitForSelector('.heading.bad')
    expect(await heading(unknown.page)).toBe('This link leads nowhere')
    await unknown.context.close()
    const pages = [link.small, `${base}/${'x'.repeat(32)}`, `${world.server.url}/public/upload-shares/y`].map(
      async (url) => {
        const response = await fetch(url)
        const { date: _differs, ...headers } = Object.fromEntries(response.headers)
        return { status: response.status, headers, text: await response.text() }
      },
    )
    const [known, ...others] = await Promise.all(pages)
    for (const one of others) expect(one).toEqual(known)
    expect(known!.headers['content-security-policy']).toContain("default-src 'none'")
    expect(known!.headers).toMatchObject({
      'cross-origin-opener-policy': 'same-origin',
      'referrer-policy': 'no-referrer',
      'x-content-type-options': 'nosniff',
      'x-frame-options': 'DENY',
    })
    // No script or style in the page itself.
    expect(known!.text).not.toMatch(/<script(?![^>]* src=)|<style|\son\w+=|\sstyle=/)
  })

  test('names and notes of others are texts', async () => {
    const evil = '<img src=x onerror="alert(1)"><script>alert(2)</script>'
    const one = await visit(browser, [world.server.url])
    visits.push(one)
    await one.page.route('**/api/v4/public/shares/downloads/*', async (route) => {
      const response = await route.fetch()
      const json = { ...(await response.json()), fileName: `inv\u202Egnp.exe${evil}`, creatorName: evil, notes: evil }
      await route.fulfill({ response, json })
    })
    await one.page.goto(link.small)
    await one.page.waitForSelector('#password')
    expect(await heading(one.page)).toBe(`inv\u{FFFD}gnp.exe${evil}`)
    expect(await one.page.locator('main img, main script').count()).toBe(0)
    expect(await one.page.locator('blockquote').innerText()).toBe(evil)
    const { name } = await saved(one.page, () => unlock(one.page, PASSWORD)).catch(() => ({ name: '' }))
    expect(name).not.toMatch(/[<>"\u202E]/)
    await one.context.close()
  })

  test('a page that was closed in the middle leaves nothing behind after the next visit', async () => {
    world.server.faults.add({ on: { method: 'GET', path: CONTENT }, after: 2, do: { hold: true } })
    const before = world.server.faults.hits.length
    const { page, context, downloads } = await open(link.large)
    await unlock(page, PASSWORD)
    await world.server.faults.until(before + 1)
    // Closed as by a crash: nothing of the page runs any more.
    await page.close({ runBeforeUnload: false })
    world.server.faults.clear()
    const next = await visit(browser, [world.server.url], context)
    visits.push(next)
    await next.page.goto(link.small)
    await next.page.waitForSelector('#password')
    expect(await privateFiles(next.page)).toEqual([])
    expect(downloads).toEqual([])
    await context.close()
  })

  test('another window’s copy stays while that one is open', async () => {
    const first = await open(link.small)
    await saved(first.page, () => unlock(first.page, PASSWORD))
    const second = await visit(browser, [world.server.url], first.context)
    visits.push(second)
    await second.page.goto(link.empty)
    await second.page.waitForSelector('#password')
    expect(await privateFiles(second.page)).toHaveLength(1)
    expect(
      (await saved(first.page, () => first.page.getByRole('button', { name: 'Save again' }).click())).data.equals(
        small,
      ),
    ).toBe(true)
    await first.context.close()
  })

  test('without room in the private storage: in the file that was chosen, when all of it is right', async () => {
    // Only the dialog is another one: what it returns is a file of the browser, with its swap file.
    const choose = () => {
      const choose = async () => (await navigator.storage.getDirectory()).getFileHandle('chosen', { create: true })
      Object.assign(globalThis, { showSaveFilePicker: choose })
    }
    const chosenSize = (one: Visit) =>
      one.page.evaluate(async () => {
        const root = await navigator.storage.getDirectory()
        return (await (await root.getFileHandle('chosen')).getFile()).size
      })
    for (const isTampered of [false, true]) {
      if (isTampered) world.server.faults.add({ on: { path: CONTENT }, times: 100, do: { flipByteAt: 9 } })
      const one = await visit(browser, [world.server.url])
      visits.push(one)
      await one.page.addInitScript(choose)
      await withoutRoom(one.page)
      await one.page.goto(link.small)
      await unlock(one.page, PASSWORD)
      const button = one.page.getByRole('button', { name: 'Choose where to save' })
      await button.waitFor()
      await button.click()
      await one.page.waitForSelector(isTampered ? '.heading.bad' : '.heading:not(.bad) + p + p')
      expect(await chosenSize(one)).toBe(isTampered ? 0 : small.length)
      expect(one.downloads).toEqual([])
      await one.context.close()
    }
  })

  test('a browser that has less room than it says: nothing is saved', async () => {
    const one = await visit(browser, [world.server.url])
    visits.push(one)
    const session = await one.context.newCDPSession(one.page)
    await session.send('Storage.overrideQuotaForOrigin', { origin: world.server.url, quotaSize: 1024 })
    await one.page.goto(link.small)
    await unlock(one.page, PASSWORD)
    await one.page.waitForSelector('.heading.bad')
    expect(await heading(one.page)).toBe('There is not enough space')
    expect(one.downloads).toEqual([])
    expect(await privateFiles(one.page)).toEqual([])
    await one.context.close()
  })

  test('nor a file to choose: in memory, and what is too large for that is said before', async () => {
    const hide = () => Object.assign(globalThis, { showSaveFilePicker: undefined })
    const one = await visit(browser, [world.server.url])
    visits.push(one)
    await one.page.addInitScript(hide)
    await withoutRoom(one.page)
    await one.page.goto(link.small)
    const { data } = await saved(one.page, () => unlock(one.page, PASSWORD))
    expect(data.equals(small)).toBe(true)
    await one.page.route('**/api/v4/public/shares/downloads/*', async (route) => {
      const response = await route.fetch()
      await route.fulfill({ response, json: { ...(await response.json()), size: 600 * MIB } })
    })
    await one.page.reload()
    await one.page.waitForSelector('main [role=alert]')
    expect(await one.page.locator('main').innerText()).toContain('no place for a file of this size')
    await one.context.close()
  })

  test('of a room that is not encrypted: said, and with the password that the server checks', async () => {
    await makeRoom(await world.client(), 'plain', false)
    await (await world.client()).upload([world.path('up/small.bin')], '/plain', { allowPlain: true })
    const free = await sharePlain(world, '/plain/small.bin')
    const one = await open(free.link)
    const button = one.page.getByRole('button', { name: 'Download' })
    await button.waitFor()
    expect(await one.page.locator('main').innerText()).toContain('the server can read this file')
    expect((await saved(one.page, () => button.click())).data.equals(small)).toBe(true)
    await one.context.close()

    const closed = await sharePlain(world, '/plain/small.bin', { password: 'Classic-12' })
    const two = await open(closed.link)
    await two.page.waitForSelector('#password')
    expect(await two.page.locator('#password-hint').innerText()).toContain('The server checks this password')
    await unlock(two.page, 'wrong one')
    await two.page.waitForSelector('#password-problem:not([hidden])')
    await two.page.waitForSelector('form button.primary:enabled')
    expect((await saved(two.page, () => unlock(two.page, 'Classic-12'))).data.equals(small)).toBe(true)
    await two.context.close()

    const folder = await sharePlain(world, '/plain')
    const three = await open(folder.link)
    const zip = await saved(three.page, () => three.page.getByRole('button', { name: 'Download' }).click())
    expect(zip.data.subarray(0, 2).toString()).toBe('PK')
    await three.context.close()
  })
})

describe.skipIf(!hasChromium || !process.env.SEALSYNC_FULL || process.platform !== 'linux')('1 GiB in Chromium', () => {
  test('is not held in memory, and arrives as it was', async () => {
    const size = 1024 * MIB
    const world = await createWorld()
    const browser = await launch()
    try {
      writeLarge(world.path('large.bin'), size)
      await (await world.client()).upload([world.path('large.bin')], '/room')
      const { link } = await shareEncrypted(world, '/room/large.bin', PASSWORD)
      const one = await visit(browser, [world.server.url])
      await one.page.goto(link)
      await one.page.waitForSelector('#password')
      const before = peakMemory(process.pid)
      const { path } = await saved(one.page, () => unlock(one.page, PASSWORD))
      const grown = peakMemory(process.pid) - before
      console.info(`1 GiB in Chromium: all processes together peaked ${Math.round(grown / MIB)} MiB higher than before`)
      expect(isSameFile(path, world.path('large.bin'))).toBe(true)
      expect(grown).toBeLessThan(512 * MIB)
      expect(one.wrong).toEqual([])
    } finally {
      await browser.close()
      await world.close()
    }
  })
})
