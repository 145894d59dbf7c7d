/** File requests in a browser: what is sent arrives, encrypted for all, and nothing else does. */
import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import type { Browser, BrowserContext, Page } from 'playwright-core'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { addUser } from '../../src/server/index.ts'
import { accountPassword, createWorld, giveKeyPair, makeRoom, type World } from '../support/cli.ts'
import { isSameFile, writeLarge } from '../support/large-files.ts'
import {
  hasChromium,
  heading,
  launch,
  type Made,
  peakMemory,
  requestFiles,
  revoke,
  type Visit,
  visit,
} from '../support/share-page.ts'

const MIB = 1024 * 1024
const sha256 = (data: Uint8Array) => createHash('sha256').update(data).digest('hex')

const choose = async (page: Page, paths: readonly string[]): Promise<void> => {
  await page.waitForSelector('.drop')
  await page.setInputFiles('#files', [...paths])
}

const send = (page: Page) => page.getByRole('button', { name: /^Send \d/ }).click()

/** What is kept of unfinished uploads, as far as it can be shown. */
const keptUploads = (page: Page) =>
  page.evaluate(
    () =>
      new Promise<{ name: string; parts: number; keys: (boolean | undefined)[]; text: string }[]>((resolve) => {
        const opening = indexedDB.open('sealsync-share', 1)
        opening.onupgradeneeded = () => opening.result.createObjectStore('uploads', { keyPath: 'id' })
        opening.onsuccess = () => {
          const all = opening.result.transaction('uploads').objectStore('uploads').getAll()
          all.onsuccess = () => {
            opening.result.close()
            resolve(
              all.result.map(({ file, parts, encryption, ...rest }) => ({
                name: file.name,
                parts: parts.length,
                keys: [encryption?.counterKey.extractable, encryption?.macKey.extractable],
                text: JSON.stringify({ rest, encryption, parts }),
              })),
            )
          }
        }
      }),
  )

describe.skipIf(!hasChromium).each(['s3', 'classic'] as const)('a file request in Chromium, storage %s', (storage) => {
  let world: World
  let browser: Browser
  const visits: Visit[] = []
  let request: Made
  /** Where parts go, as the fault plan sees it. */
  const parts =
    storage === 's3' ? { method: 'PUT', path: '^/s3/' } : { method: 'POST', path: '/shares/uploads/[^/]+/[^/]+$' }

  const open = async (address: string, context?: BrowserContext): Promise<Visit> => {
    const one = await visit(browser, [world.server.url], context)
    visits.push(one)
    await one.page.goto(address)
    return one
  }

  /** What a member gets of a file. */
  const fetched = async (name: string, user?: string): Promise<string> => {
    const to = world.path(`back-${randomBytes(4).toString('hex')}`)
    const result = await (await world.client(user)).download([`/room/${name}`], to)
    expect(result).toMatchObject({ failed: [] })
    return to
  }

  beforeAll(async () => {
    world = await createWorld({ storage })
    await addUser(world.path('server'), { name: 'bob', password: accountPassword('bob') })
    await giveKeyPair(await world.client('bob'))
    await world.cli(['room', 'members', '/room', '--add', 'bob', '--role', 'read'])
    request = await requestFiles(world, '/room', { name: 'Contracts' })
    mkdirSync(world.path('up'))
    browser = await launch()
  })

  beforeEach(() => world.server.faults.clear())

  afterAll(async () => {
    await browser?.close()
    await world?.close()
    expect(visits.flatMap(({ wrong }) => wrong)).toEqual([])
  })

  test('files arrive for all members, and the sender has their SHA-256', async () => {
    const files = { 'a.bin': randomBytes(70_001), 'empty.txt': Buffer.alloc(0) }
    for (const [name, data] of Object.entries(files)) writeFileSync(world.path('up', name), data)
    const { page, context } = await open(request.link)
    await choose(
      page,
      Object.keys(files).map((name) => world.path('up', name)),
    )
    expect(await page.locator('main').innerText()).toContain('for 2 keys of the room')
    await send(page)
    await page.waitForSelector('section[aria-label=Receipt]')
    expect(await heading(page)).toBe('2 files sent')
    const hashes = await page.locator('.hash').allInnerTexts()
    expect(hashes).toEqual(Object.values(files).map(sha256))
    const [receipt] = await Promise.all([
      page.waitForEvent('download'),
      page.getByRole('button', { name: 'Save receipt' }).click(),
    ])
    expect(readFileSync(await receipt.path(), 'utf8')).toContain(`${hashes[0]}  a.bin`)
    for (const [name, data] of Object.entries(files)) {
      for (const user of [undefined, 'bob']) expect(readFileSync(await fetched(name, user)).equals(data)).toBe(true)
    }
    await context.close()
  })

  test('a large one, through errors and lost answers, in parts', async () => {
    writeLarge(world.path('up/large.bin'), 64 * MIB)
    const { faults } = world.server
    faults.add({ on: parts, after: 1, times: 1, do: { status: 503 } })
    faults.add({ on: parts, after: 2, times: 1, do: { loseAnswer: true } })
    faults.add({ on: parts, after: 3, times: 1, do: { cutRequestAfterBytes: MIB } })
    const { page, context } = await open(request.link)
    await choose(page, [world.path('up/large.bin')])
    await send(page)
    await page.waitForSelector('section[aria-label=Receipt]')
    expect(faults.hits.length).toBeGreaterThanOrEqual(3)
    expect(isSameFile(await fetched('large.bin', 'bob'), world.path('up/large.bin'))).toBe(true)
    expect(await keptUploads(page)).toEqual([])
    await context.close()
  })

  test('after the page was closed, the same file goes on where it was; what is kept gives no key away', async () => {
    writeFileSync(world.path('up/resumed.bin'), randomBytes(40 * MIB))
    const { faults } = world.server
    faults.add({ on: parts, after: 2, times: 100, do: { hold: true } })
    const before = faults.hits.length
    const first = await open(request.link)
    await choose(first.page, [world.path('up/resumed.bin')])
    await send(first.page)
    await faults.until(before + 1)
    await expect
      .poll(
        async () =>
          JSON.parse((await keptUploads(first.page))[0]!.text).parts.filter(
            (one: { receipt?: string }) => one.receipt !== undefined,
          ).length,
      )
      .toBe(2)
    await first.page.close({ runBeforeUnload: false })
    faults.clear()

    const sent: number[] = []
    const second = await open(request.link, first.context)
    await second.page.waitForSelector('.note')
    expect(await second.page.locator('.note').innerText()).toContain('resumed.bin, 40 MiB: 16 MiB are there')
    const [kept] = await keptUploads(second.page)
    expect(kept).toMatchObject({ name: 'resumed.bin', keys: [false, false] })
    second.context.on('request', (one) => {
      const isPart =
        storage === 's3'
          ? one.method() === 'PUT' && one.url().includes('/s3/')
          : one.method() === 'POST' && /uploads\/[^/]+\/[^/]+$/.test(one.url())
      if (isPart) sent.push(1)
    })
    await choose(second.page, [world.path('up/resumed.bin')])
    await send(second.page)
    await second.page.waitForSelector('section[aria-label=Receipt]')
    expect(await second.page.locator('.hash').innerText()).toBe(sha256(readFileSync(world.path('up/resumed.bin'))))
    expect(sent).toHaveLength(3)
    expect(isSameFile(await fetched('resumed.bin', 'bob'), world.path('up/resumed.bin'))).toBe(true)
    expect(await keptUploads(second.page)).toEqual([])
    await first.context.close()
  })

  test('another content under the same name is sent from its beginning, under another key', async () => {
    const path = world.path('up/other.bin')
    writeFileSync(path, randomBytes(24 * MIB))
    const { faults } = world.server
    faults.add({ on: parts, after: 1, times: 100, do: { hold: true } })
    const before = faults.hits.length
    const first = await open(request.link)
    await choose(first.page, [path])
    await send(first.page)
    await faults.until(before + 1)
    await first.page.close({ runBeforeUnload: false })
    faults.clear()
    // Its name, size and time are the same, so only what was sent tells.
    const { atime, mtime } = statSync(path)
    writeFileSync(path, randomBytes(24 * MIB))
    utimesSync(path, atime, mtime)
    const second = await open(request.link, first.context)
    await second.page.waitForSelector('.note')
    // A window that is closing may have the upload to itself for a while.
    const held = () => second.page.evaluate(async () => (await navigator.locks.query()).held?.length)
    await expect.poll(held).toBe(0)
    await choose(second.page, [path])
    await send(second.page)
    await second.page.waitForSelector('section[aria-label=Receipt]')
    expect(isSameFile(await fetched('other.bin', 'bob'), path)).toBe(true)
    await expect.poll(() => keptUploads(second.page)).toEqual([])
    await first.context.close()
  })

  test('offline in the middle: waits and goes on; cancelled: nothing stays', async () => {
    writeLarge(world.path('up/offline.bin'), 40 * MIB)
    const { faults } = world.server
    const hold = () => faults.add({ on: parts, after: 1, do: { hold: true } })
    hold()
    let before = faults.hits.length
    const { page, context } = await open(request.link)
    await choose(page, [world.path('up/offline.bin')])
    await send(page)
    await faults.until(before + 1)
    await context.setOffline(true)
    faults.release()
    await page.waitForSelector('.waiting:not([hidden])')
    await context.setOffline(false)
    await page.waitForSelector('section[aria-label=Receipt]')
    expect(isSameFile(await fetched('offline.bin'), world.path('up/offline.bin'))).toBe(true)

    faults.clear()
    hold()
    before = faults.hits.length
    await page.goto(request.link)
    writeLarge(world.path('up/cancelled.bin'), 40 * MIB)
    await choose(page, [world.path('up/cancelled.bin')])
    await send(page)
    await faults.until(before + 1)
    await page.getByRole('button', { name: 'Cancel' }).click()
    await page.waitForSelector('.heading.bad')
    expect(await heading(page)).toBe('1 file not sent')
    await expect.poll(() => keptUploads(page)).toEqual([])
    expect((await world.list('/room')).map(({ name }) => name)).not.toContain('cancelled.bin')
    await context.close()
  })

  test('who came while it was sent gets a key, too', async () => {
    const late = `late-${storage}`
    await addUser(world.path('server'), { name: late, password: accountPassword(late) })
    await giveKeyPair(await world.client(late))
    writeFileSync(world.path('up/joined.bin'), randomBytes(1000))
    const { page, context } = await open(request.link)
    await choose(page, [world.path('up/joined.bin')])
    await world.cli(['room', 'members', '/room', '--add', late, '--role', 'read'])
    await send(page)
    await page.waitForSelector('section[aria-label=Receipt]')
    expect(isSameFile(await fetched('joined.bin', late), world.path('up/joined.bin'))).toBe(true)
    await context.close()
  })

  test('limits are told before anything is sent, and a password is asked for', async () => {
    const bounded = await requestFiles(world, '/room', { maxSlots: 1, maxSize: 1000, password: 'Classic-12' })
    for (const [name, size] of Object.entries({ 'one.bin': 600, 'two.bin': 600, 'big.bin': 2000 })) {
      writeFileSync(world.path('up', name), randomBytes(size))
    }
    const { page, context } = await open(bounded.link)
    await page.waitForSelector('#password')
    await page.fill('#password', 'wrong one')
    await page.click('form button.primary')
    await page.waitForSelector('#password-problem:not([hidden])')
    await page.waitForSelector('form button.primary:enabled')
    await page.fill('#password', 'Classic-12')
    await page.click('form button.primary')
    await choose(page, [world.path('up/one.bin'), world.path('up/two.bin')])
    expect(await page.locator('main').innerText()).toContain('1 file at most · 1000 bytes at most')
    expect(await page.locator('main [role=alert]').innerText()).toContain('takes 1 file more')
    expect(await page.locator('button.primary').isDisabled()).toBe(true)
    await page.getByRole('button', { name: 'Remove two.bin' }).click()
    await send(page)
    await page.waitForSelector('section[aria-label=Receipt]')
    await page.goto(bounded.link)
    await page.fill('#password', 'Classic-12')
    await page.click('form button.primary')
    await choose(page, [world.path('up/big.bin')])
    await page.waitForSelector('main [role=alert]:not([hidden])')
    expect(await page.locator('button.primary').isDisabled()).toBe(true)
    await context.close()
  })

  test('withdrawn in the middle is said', async () => {
    const made = await requestFiles(world, '/room')
    writeFileSync(world.path('up/late.bin'), randomBytes(1000))
    const { page, context } = await open(made.link)
    await choose(page, [world.path('up/late.bin')])
    await revoke(world, 'uploads', made)
    await send(page)
    await page.waitForSelector('.heading.bad')
    expect(await page.locator('main').innerText()).toContain('leads nowhere')
    await context.close()
  })

  test('names are texts, wherever they come from', async () => {
    const evil = '<img src=x onerror=alert(1)>.txt'
    writeFileSync(world.path('up', evil), 'x')
    const one = await visit(browser, [world.server.url])
    visits.push(one)
    await one.page.route('**/api/v4/public/shares/uploads/*', async (route) => {
      if (route.request().method() !== 'GET') return route.fallback()
      const response = await route.fetch()
      const lie = { name: evil, creatorName: evil, notes: evil, uploadedFiles: [{ name: evil, size: 1 }] }
      await route.fulfill({ response, json: { ...(await response.json()), ...lie } })
    })
    await one.page.goto(request.link)
    await choose(one.page, [world.path('up', evil)])
    expect(await one.page.locator('.files .name').innerText()).toBe(evil)
    await send(one.page)
    await one.page.waitForSelector('section[aria-label=Receipt]')
    expect(await one.page.locator('.files .name').innerText()).toBe('_img src=x onerror=alert(1)_.txt')
    expect(await one.page.locator('main img').count()).toBe(0)
    await one.context.close()
  })

  test('a room that is not encrypted gets what it is, and the page says so', async () => {
    await makeRoom(await world.client(), 'plain', false)
    const made = await requestFiles(world, '/plain')
    writeFileSync(world.path('up/open.bin'), randomBytes(20 * MIB))
    const { page, context } = await open(made.link)
    await choose(page, [world.path('up/open.bin')])
    expect(await page.locator('main').innerText()).toContain('the server can read what you send')
    await send(page)
    await page.waitForSelector('section[aria-label=Receipt]')
    const to = world.path('plain-back')
    await (await world.client()).download(['/plain/open.bin'], to)
    expect(isSameFile(to, world.path('up/open.bin'))).toBe(true)
    await context.close()
  })
})

describe.skipIf(!hasChromium || !process.env.SEALSYNC_FULL || process.platform !== 'linux')(
  'sending 1 GiB from Chromium',
  () => {
    test('is not held in memory, and arrives as it was', async () => {
      const world = await createWorld()
      const browser = await launch()
      try {
        const { link } = await requestFiles(world, '/room')
        writeLarge(world.path('large.bin'), 1024 * MIB)
        const one = await visit(browser, [world.server.url])
        await one.page.goto(link)
        await choose(one.page, [world.path('large.bin')])
        const before = peakMemory(process.pid)
        await send(one.page)
        await one.page.waitForSelector('section[aria-label=Receipt]')
        const grown = peakMemory(process.pid) - before
        console.info(`sending 1 GiB from Chromium: all processes together peaked ${Math.round(grown / MIB)} MiB higher`)
        expect(grown).toBeLessThan(512 * MIB)
        await (await world.client()).download(['/room/large.bin'], world.path('back'))
        expect(isSameFile(world.path('back'), world.path('large.bin'))).toBe(true)
        expect(one.wrong).toEqual([])
      } finally {
        await browser.close()
        await world.close()
      }
    })
  },
)
