/**
 * Large uploads that are interrupted, by `kill -9` above all: whatever happens, in the end there is one node with the right
 * content, what was acknowledged is not sent again, and one key and IV have met one content only.
 */
import { randomBytes } from 'node:crypto'
import {
  appendFileSync,
  closeSync,
  copyFileSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { cancelUpload } from '../../src/api/uploads.ts'
import { createWorld, makeTree, type World } from '../support/cli.ts'
import { rewriteJournal } from '../support/journal-forge.ts'
import { isSameFile, writeLarge } from '../support/large-files.ts'
import { acknowledged, journalFiles, journalRecords, UploadWatch } from '../support/upload-watch.ts'

const MiB = 1024 * 1024
const PART = 5 * MiB

const watch = new UploadWatch()
let world: World
beforeAll(async () => {
  world = await createWorld({ recorder: watch })
})
afterAll(() => world.close())
beforeEach(() => watch.reset())
afterEach(() => {
  world.server.faults.clear()
  // Whatever a test was about.
  expect(watch.conflicts).toEqual([])
  expect(sharedKeystreams()).toEqual([])
})

/** Uploads whose first bytes were encrypted with the same keystream, which two attempts must never share. */
const plaintexts: Uint8Array[] = []
function sharedKeystreams(): string[] {
  const seen = new Map<string, string>()
  const found: string[] = []
  for (const [key, head] of watch.heads) {
    const [upload, part] = key.split('/')
    if (part !== '1') continue
    for (const plain of plaintexts) {
      const stream = Buffer.from(head.map((byte, at) => byte ^ plain[at]!)).toString('hex')
      const other = seen.get(stream)
      if (other !== undefined && other !== upload) found.push(`${other} and ${upload}`)
      seen.set(stream, upload!)
    }
  }
  return found
}

let counter = 0
interface Scene {
  readonly dir: string
  readonly file: string
  readonly target: string
  /** Runs the upload; kills it when `when` holds. */
  run(when?: (watch: UploadWatch) => boolean): ReturnType<World['cli']>
  /** Runs it to the end, and asserts what has to be true then. */
  finish(): Promise<void>
}

/** Six parts, unless told otherwise: more than are on their way at once, and some for later. */
function scene(size = 27 * MiB + 12_345): Scene {
  const name = `scene${++counter}`
  const [dir, target] = [world.path(name), `/room/${name}`]
  const file = join(dir, 'big')
  makeTree(dir, {})
  writeRandom(file, size)
  const args = ['upload', dir, target, '--contents', '--part-size', '5M', '--json']
  const run: Scene['run'] = (when) =>
    world.cli([...args, '--key-password-file', world.keyPasswordFile], {
      ...(when === undefined
        ? {}
        : {
            during: async (child) => {
              await watch.until(when)
              child.kill('SIGKILL')
            },
          }),
    })
  return {
    dir,
    file,
    target,
    run,
    async finish() {
      const done = await run()
      expect(done.json.at(-1), done.stderr).toMatchObject({ type: 'summary', exitCode: 0, failed: [] })
      await expectArrived(file, target)
    },
  }
}

function writeRandom(file: string, size: number): void {
  plaintexts.push(writeLarge(file, size))
}

async function expectArrived(file: string, target: string): Promise<void> {
  const nodes = await world.list(target)
  expect(nodes.map(({ name, size }) => ({ name, size }))).toEqual([{ name: 'big', size: statSync(file).size }])
  const out = world.path(`out${++counter}`)
  const client = await world.client()
  expect(await client.download([`${target}/big`], `${out}/`)).toMatchObject({ transferred: 1, failed: [] })
  expect(isSameFile(join(out, 'big'), file)).toBe(true)
  rmSync(out, { recursive: true })
  expect(journalFiles(world.home)).toEqual([])
}

const keyOf = ({ upload, part }: { upload: string; part: number }) => `${upload}/${part}`
const completed = (path: string) => /uploads\/[^/]+\/s3$/.test(path) && path.startsWith('PUT')
const cancelled = () => watch.requests.filter((request) => request.startsWith('DELETE')).length

/** Kills the upload again and again until it gets through; what it sent in between is checked after every kill. */
async function killUntilDone(upload: Scene, instants: readonly ((seen: UploadWatch) => boolean)[]) {
  let done = new Set<string>()
  let resent = 0
  for (const when of instants) {
    watch.reset()
    const { signal } = await upload.run(when)
    expect(signal).toBe('SIGKILL')
    expect(watch.sent.map(keyOf).filter((key) => done.has(key))).toEqual([])
    done = acknowledged(world.home)
    resent += watch.sent.length
  }
  watch.reset()
  await upload.finish()
  const again = watch.sent.map(keyOf)
  expect(again.filter((key) => done.has(key))).toEqual([])
  return { sent: resent + again.length }
}

describe('kill -9', () => {
  test('at many instants: nothing that was acknowledged is sent twice, one node, the same bytes', async () => {
    const upload = scene(64 * MiB + 1)
    const before = watch.opened
    const parts = Math.ceil((64 * MiB + 1) / PART)
    const instants = [
      // Before a part, in its first bytes, in the middle of several, between two, and around the last request.
      (seen: UploadWatch) => seen.requests.some((request) => request.endsWith('/s3_urls')),
      (seen: UploadWatch) => seen.bytes > 1,
      (seen: UploadWatch) => seen.bytes > 7.3 * MiB,
      (seen: UploadWatch) => seen.sent.length === 4,
      (seen: UploadWatch) => seen.bytes > 16 * MiB,
      (seen: UploadWatch) => seen.requests.some(completed),
    ]
    const { sent } = await killUntilDone(upload, instants)
    expect(watch.opened - before).toBe(1)
    // Only what was in flight at a kill may be sent again: three parts, and one in the hands of the system.
    expect(sent).toBeLessThanOrEqual(parts + 4 * instants.length)
  })

  test('while a node is replaced: one node, its new content', async () => {
    const upload = scene()
    await upload.finish()
    writeRandom(upload.file, 31 * MiB)
    const before = watch.opened
    await killUntilDone(upload, [(seen) => seen.bytes > 12 * MiB, (seen) => seen.sent.length === 2])
    expect(watch.opened - before).toBe(1)
  })

  test('after the last request arrived, before its answer: the next run finds out and sends nothing', async () => {
    const upload = scene(12 * MiB)
    world.server.faults.add({ on: { method: 'PUT', path: '/uploads/[^/]+/s3$' }, do: { loseAnswer: true } })
    world.server.faults.add({ on: { method: 'GET', path: '/files/uploads/[^/]+$' }, do: { hold: true } })
    await upload.run((seen) => seen.requests.some((request) => /^GET .*\/files\/uploads\/[^/]+$/.test(request)))
    expect(journalRecords(world.home).at(-1)).toMatchObject({ do: 'complete' })
    world.server.faults.clear()
    watch.reset()
    await upload.finish()
    expect(watch.sent).toEqual([])
  })
})

describe('what changed meanwhile', () => {
  /** Interrupts an upload after some parts, and returns the id it had. */
  async function interrupted(): Promise<{ upload: Scene; id: string }> {
    const upload = scene()
    await upload.run((seen) => seen.bytes > 12 * MiB)
    const [begin] = journalRecords(world.home).filter((record) => record.do === 'begin')
    watch.reset()
    return { upload, id: begin.uploadId }
  }
  const sentUnder = (id: string) => watch.sent.filter(({ upload }) => upload === id)

  async function expectStartedOver(upload: Scene, id: string): Promise<void> {
    await upload.finish()
    expect(sentUnder(id)).toEqual([])
    expect(new Set(watch.sent.map(({ upload: under }) => under)).size).toBe(1)
    expect(watch.requests).toContainEqual(expect.stringMatching(`^DELETE .*${id}$`))
  }

  test('a source that was written to: a new key, and the old upload is cancelled', async () => {
    const { upload, id } = await interrupted()
    writeRandom(upload.file, statSync(upload.file).size)
    await expectStartedOver(upload, id)
  })

  test('one that has grown', async () => {
    const { upload, id } = await interrupted()
    appendFileSync(upload.file, 'more')
    await expectStartedOver(upload, id)
  })

  test('one that another file of the same size and time has replaced', async () => {
    const { upload, id } = await interrupted()
    const { size, atime, mtime } = statSync(upload.file)
    const other = `${upload.dir}-other`
    writeRandom(other, size)
    utimesSync(other, atime, mtime)
    renameSync(other, upload.file)
    // Times go through floating-point seconds on their way.
    expect(Math.abs(statSync(upload.file).mtimeMs - mtime.getTime())).toBeLessThan(1)
    await expectStartedOver(upload, id)
  })

  test.each([
    ['a part that was sent', 3 * MiB],
    ['a part that was not', 26 * MiB],
  ])('content that differs in %s although nothing shows it never meets the old key', async (what, at) => {
    const { upload, id } = await interrupted()
    // As if the file system had not told: the journal is made to know the state after the change.
    const fd = openSync(upload.file, 'r+')
    writeSync(fd, randomBytes(1000), 0, 1000, at)
    closeSync(fd)
    rewriteJournal(journalFiles(world.home)[0]!, (record) => {
      if (record.do !== 'begin') return record
      const now = statSync(upload.file, { bigint: true })
      return { ...record, source: { ...record.source, mtimeNs: String(now.mtimeNs), ctimeNs: String(now.ctimeNs) } }
    })
    if (what === 'a part that was sent') {
      await upload.finish()
      // Under the old key nothing but what was proved to be the same: parts before the one that differs.
      expect(sentUnder(id)).toEqual([])
      expect(watch.requests).toContainEqual(expect.stringMatching(`^DELETE .*${id}$`))
    } else {
      // It never left before, so it meets the key once.
      await upload.finish()
      expect(sentUnder(id).length).toBeGreaterThan(0)
    }
  })

  test('an upload that is gone at the server', async () => {
    const { upload, id } = await interrupted()
    const { api } = await world.client()
    await cancelUpload(api, id)
    await upload.finish()
    expect(sentUnder(id)).toEqual([])
  })

  test('keys that do not open: the journal of a key pair that is gone', async () => {
    const { upload, id } = await interrupted()
    rewriteJournal(journalFiles(world.home)[0]!, (record) =>
      record.do === 'begin'
        ? { ...record, fileKey: { ...record.fileKey, key: randomBytes(512).toString('base64') } }
        : record,
    )
    await expectStartedOver(upload, id)
  })

  test('a file that is gone: its upload is cancelled by the next run', async () => {
    const { upload, id } = await interrupted()
    rmSync(upload.file)
    writeFileSync(join(upload.dir, 'other'), 'other')
    expect((await upload.run()).code).toBe(0)
    expect(watch.requests).toContainEqual(expect.stringMatching(`^DELETE .*${id}$`))
    expect(journalFiles(world.home)).toEqual([])
  })

  test('a cancel that does not get through is made up for by the run after', async () => {
    const { upload, id } = await interrupted()
    appendFileSync(upload.file, 'more')
    world.server.faults.add({ on: { method: 'DELETE', path: `/uploads/${id}$` }, times: 99, do: { status: 503 } })
    expect((await upload.run()).code).toBe(0)
    expect(journalRecords(world.home).filter((record) => record.do === 'abandon').length).toBe(1)
    world.server.faults.clear()
    watch.reset()
    await upload.finish()
    expect(watch.requests).toContainEqual(expect.stringMatching(`^DELETE .*${id}$`))
    expect(watch.sent).toEqual([])
  })
})

describe('journals that are not what they should be', () => {
  const only = () => journalFiles(world.home).filter((name) => name.endsWith('.journal'))[0]!
  const aside = () => journalFiles(world.home).filter((name) => name.includes('.corrupt-'))

  /** The journal of another upload that was interrupted, out of the way. */
  async function journalOfOtherPlaces(): Promise<string> {
    await scene(11 * MiB).run((seen) => seen.sent.length === 2)
    const path = world.path('other-journal')
    renameSync(only(), path)
    watch.reset()
    return path
  }

  test.each<[string, (path: string, other: string) => void]>([
    ['a flipped byte in the middle', (path) => flip(path, 700)],
    [
      'an older version',
      (path) => writeFileSync(path, readFileSync(path, 'utf8').replace('"version":1', '"version":0')),
    ],
    ['the journal of other places', (path, other) => copyFileSync(other, path)],
  ])('%s: the upload starts over under a new key, and the file is kept aside', async (what, damage) => {
    const otherPath = what === 'the journal of other places' ? await journalOfOtherPlaces() : ''
    const upload = scene(22 * MiB)
    await upload.run((seen) => seen.sent.length === 4)
    const [begin] = journalRecords(world.home).filter((record) => record.do === 'begin')
    damage(only(), otherPath)
    watch.reset()
    const done = await upload.run()
    expect(done.code, done.stderr).toBe(0)
    expect(done.stderr + done.stdout).toContain('journal of interrupted uploads')
    expect(watch.sent.filter(({ upload: id }) => id === begin.uploadId)).toEqual([])
    expect(aside().length).toBe(1)
    expect(only()).toBeUndefined()
    rmSync(aside()[0]!)
    await expectArrived(upload.file, upload.target)
  })

  test.each([
    ['a record', '0123456789abcdef0123456789abcdef {"do":"se'],
    ['zeros', '\0'.repeat(300)],
  ])('torn in %s: what is whole is used', async (_what, torn) => {
    const upload = scene(22 * MiB)
    const before = watch.opened
    await upload.run((seen) => seen.sent.length === 4)
    const done = acknowledged(world.home)
    appendFileSync(only(), torn)
    watch.reset()
    await upload.finish()
    expect(watch.opened - before).toBe(1)
    expect(watch.sent.map(keyOf).filter((key) => done.has(key))).toEqual([])
  })

  test('cut anywhere at its end: it starts over or goes on, and is right', async () => {
    const upload = scene(22 * MiB)
    await upload.run((seen) => seen.sent.length === 4)
    const whole = readFileSync(only())
    for (const length of [0, 20, 200]) {
      writeFileSync(only(), whole.subarray(0, length))
      watch.reset()
      if (length < 200) {
        await upload.run((seen) => seen.sent.length === 3)
        continue
      }
      await upload.finish()
    }
  })
})

test('two runs at once: the second is told, and the journal is not touched', async () => {
  const upload = scene(22 * MiB)
  world.server.faults.add({ on: { method: 'PUT', path: '^/s3/' }, after: 1, times: 1, do: { hold: true } })
  const first = upload.run()
  await watch.until((seen) => seen.sent.length >= 2)
  expect((await upload.run()).code).toBe(8)
  world.server.faults.clear()
  expect((await first).code).toBe(0)
  await expectArrived(upload.file, upload.target)
})

describe('interruptions that are no crash', () => {
  test('Ctrl-C keeps what was sent', async () => {
    const upload = scene()
    const before = watch.opened
    const args = ['upload', upload.dir, upload.target, '--contents', '--part-size', '5M', '--json']
    // Two arrive, and two are on their way.
    const { faults } = world.server
    faults.add({ on: { method: 'PUT', path: '^/s3/' }, after: 2, times: 9, do: { hold: true } })
    const sentFour = faults.until(faults.hits.length + 2)
    const stopped = await world.cli([...args, '--key-password-file', world.keyPasswordFile], {
      during: async (child) => {
        await sentFour
        await expect.poll(() => acknowledged(world.home).size).toBeGreaterThan(0)
        child.kill('SIGINT')
      },
    })
    faults.clear()
    expect(stopped.code).toBe(130)
    expect(cancelled()).toBe(0)
    const done = acknowledged(world.home)
    expect(done.size).toBeGreaterThan(0)
    watch.reset()
    await upload.finish()
    expect(watch.sent.map(keyOf).filter((key) => done.has(key))).toEqual([])
    expect(watch.opened - before).toBe(1)
  })

  test('a storage that goes down keeps what was sent', async () => {
    const upload = scene()
    const before = watch.opened
    world.server.faults.add({ on: { method: 'PUT', path: '^/s3/' }, after: 4, times: 999, do: { status: 503 } })
    expect((await upload.run()).code).toBe(5)
    const done = acknowledged(world.home)
    expect(done.size).toBe(4)
    world.server.faults.clear()
    watch.reset()
    await upload.finish()
    expect(watch.sent.map(keyOf).filter((key) => done.has(key))).toEqual([])
    expect(watch.opened - before).toBe(1)
  })
})

test('of files of one part or less no key reaches the journal; with larger ones none is in it in the clear', async () => {
  const upload = scene(PART)
  await upload.run((seen) => seen.bytes > 1)
  for (const record of journalRecords(world.home)) {
    expect(Object.keys(record)).not.toContain('fileKey')
    expect(Object.keys(record)).not.toContain('digestKey')
  }
  await upload.finish()
  const large = scene()
  watch.reset()
  await large.run((seen) => seen.sent.length === 3)
  const file = journalFiles(world.home)[0]!
  expect((statSync(file).mode & 0o777).toString(8)).toBe('600')
  const [begin] = journalRecords(world.home).filter((record) => record.do === 'begin')
  expect(Object.keys(begin).sort()).toEqual(
    ['digestKey', 'do', 'fileKey', 'id', 'name', 'parentId', 'partSize', 'path', 'source', 'uploadId'].sort(),
  )
  expect(Buffer.from(begin.fileKey.key, 'base64').length).toBe(512)
  expect(Buffer.from(begin.digestKey.key, 'base64').length).toBe(512)
  await large.finish()
})

describe.skipIf(process.env.SEALSYNC_FULL !== '1')('slow: 20 kills of 1 GiB (SEALSYNC_FULL=1)', () => {
  test('identical bytes, one node, nothing acknowledged sent again', { timeout: 1_800_000 }, async () => {
    const upload = scene(1024 * MiB)
    const before = watch.opened
    const step = 48 * MiB
    const instants = Array.from({ length: 20 }, (_, index) => (seen: UploadWatch) => {
      const jitter = (index * 7_654_321) % (5 * MiB)
      return seen.bytes > step + jitter || seen.requests.some(completed)
    })
    const { sent } = await killUntilDone(upload, instants)
    expect(watch.opened - before).toBe(1)
    expect(sent).toBeLessThanOrEqual(Math.ceil((1024 * MiB) / PART) + 4 * instants.length)
  })
})

function flip(path: string, at: number): void {
  const bytes = readFileSync(path)
  bytes[at]! ^= 1
  writeFileSync(path, bytes)
}
