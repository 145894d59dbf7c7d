/**
 * Metadata of the embedded server that is lost, damaged, foreign or old: it starts nothing, deletes nothing, and never
 * serves other content. SEALSYNC_FULL damages the file in many more places.
 */
import { randomBytes } from 'node:crypto'
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { checkDataFile, DataFileError } from '../../src/server/data-file.ts'
import { addUser, checkStore, collectGarbage, startServer } from '../../src/server/index.ts'
import { isWhole } from '../../src/server/table.ts'
import { blobsIn, download, enter, freshDir, makeRoom, signUp, startWorld, uploadClassic } from '../server/support.ts'
import { runCli } from '../support/cli.ts'
import fc from '../support/property.ts'
import { startS3Server } from '../support/s3-server.ts'

const HOUR = 3_600_000
const FILES = 30

/** Contents by name: a third in the metadata, a third in files, some of several blocks. */
const CONTENTS: ReadonlyMap<string, Buffer> = new Map(
  Array.from(
    { length: FILES },
    (_, n) => [`f${n}`, randomBytes(n % 3 === 0 ? 2_000 + n : 20_000 + n * 30_000)] as const,
  ),
)
let good = ''
const ids = new Map<string, number>()

beforeAll(async () => {
  good = mkdtempSync(join(tmpdir(), 'sealsync-good-'))
  await addUser(good, { name: 'ann', password: 'ann-pw' })
  const server = await startServer({ data: good })
  const world = { dir: good, server, api: `${server.url}/api` }
  const ann = await enter(world, 1, 'ann')
  const room = await makeRoom(ann, 'R')
  for (const [name, bytes] of CONTENTS) ids.set(name, (await uploadClassic(ann, room, name, bytes)).json.id)
  // Free pages, and a tree that has shrunk.
  for (let n = 0; n < 10; n++)
    await ann.call('DELETE', `/v4/nodes/${(await uploadClassic(ann, room, `x${n}`, randomBytes(9000))).json.id}`)
  await ann.call('DELETE', `/v4/nodes/${room}/deleted_nodes`)
  await server.close()
})
afterAll(() => rmSync(good, { recursive: true, force: true }))

const copyOfGood = async (): Promise<string> => {
  const dir = await freshDir()
  cpSync(good, dir, { recursive: true })
  return dir
}
const dataFile = (dir: string): string => join(dir, 'db', 'data.mdb')

const refusals: [string, (dir: string) => void, string, number][] = [
  ['is gone', (dir) => rmSync(dataFile(dir)), 'STORE_LOST', 9],
  ['is empty', (dir) => truncateSync(dataFile(dir), 0), 'STORE_LOST', 9],
  ['is gone with its directory', (dir) => rmSync(join(dir, 'db'), { recursive: true }), 'STORE_LOST', 9],
  ['is cut', (dir) => truncateSync(dataFile(dir), 40_000), 'STORE_DAMAGED', 7],
  ['is cut in a page', (dir) => truncateSync(dataFile(dir), 5_000), 'STORE_DAMAGED', 7],
  ['is text', (dir) => writeFileSync(dataFile(dir), 'no database at all\n'.repeat(1000)), 'STORE_DAMAGED', 7],
  ['is zeroes', (dir) => writeFileSync(dataFile(dir), Buffer.alloc(100_000)), 'STORE_DAMAGED', 7],
]

test.each(refusals)(
  'a metadata file that %s: nothing starts, nothing is deleted',
  async (_what, spoil, code, exitCode) => {
    const dir = await copyOfGood()
    spoil(dir)
    const before = readdirSync(dir, { recursive: true }).sort()
    const blobs = await blobsIn(dir)
    await expect(startServer({ data: dir })).rejects.toMatchObject({
      code,
      hint: expect.stringContaining('back from'),
    })
    // The same for whatever else opens it.
    await expect(addUser(dir, { name: 'bob', password: 'x' })).rejects.toMatchObject({ code })
    expect(await blobsIn(dir)).toEqual(blobs)
    expect(readdirSync(dir, { recursive: true }).sort()).toEqual(
      expect.arrayContaining(before.filter((name) => name !== 'db')),
    )
    const { problems } = await checkStore(dir)
    expect(problems[0]).toMatchObject({ code })
    const told = await runCli(dir, ['serve', 'check', '--data', dir, '--json'])
    expect([told.code, told.json.at(-1)]).toMatchObject([exitCode, { type: 'summary', exitCode }])
    // Putting the file back mends everything.
    cpSync(join(good, 'db'), join(dir, 'db'), { recursive: true })
    const world = await startWorld({ data: dir })
    const ann = await enter(world, 1, 'ann')
    for (const name of ['f0', 'f1'])
      expect((await download(ann, ids.get(name)!)).body.equals(CONTENTS.get(name)!)).toBe(true)
  },
)

describe('a damaged file', () => {
  /** All records, or undefined when the check refuses. */
  const recordsOf = (path: string): string | undefined => {
    const records: string[] = []
    try {
      checkDataFile(path, (table, key, value) => {
        records.push(`${table} ${key.toString('hex')} ${value.toString('hex')}`)
        return isWhole(table, key, value)
      })
      return records.join('\n')
    } catch (error) {
      if (error instanceof DataFileError) return undefined
      throw error
    }
  }

  test('is refused, or its damage touches no record: flips, random pages, zeroes, swapped pages, cuts', async () => {
    const dir = await freshDir()
    const original = readFileSync(dataFile(good))
    const path = join(dir, 'data.mdb')
    const [size, pages] = [original.length, original.length / 4096]
    copyFileSync(dataFile(good), path)
    const right = recordsOf(path)
    expect(right).toBeDefined()
    const counts = { refused: 0, harmless: 0 }
    const at = fc.nat(size - 1)
    const page = fc.nat(pages - 1)
    const damage = fc.oneof(
      fc.record({ kind: fc.constant('flip' as const), at, bit: fc.nat(7) }),
      fc.record({ kind: fc.constant('head' as const), at: page, offset: fc.nat(199), bit: fc.nat(7) }),
      fc.record({
        kind: fc.constant('noise' as const),
        at: page,
        seed: fc.uint8Array({ minLength: 64, maxLength: 64 }),
      }),
      fc.record({ kind: fc.constant('zero' as const), at: page }),
      fc.record({ kind: fc.constant('copy' as const), at: page, from: page }),
      fc.record({ kind: fc.constant('cut' as const), at }),
    )
    fc.assert(
      fc.property(damage, (how) => {
        let bytes = Buffer.from(original)
        if (how.kind === 'flip') bytes[how.at]! ^= 1 << how.bit
        else if (how.kind === 'head') bytes[how.at * 4096 + how.offset]! ^= 1 << how.bit
        else if (how.kind === 'noise') bytes.fill(how.seed, how.at * 4096, (how.at + 1) * 4096)
        else if (how.kind === 'zero') bytes.fill(0, how.at * 4096, (how.at + 1) * 4096)
        else if (how.kind === 'copy') original.copy(bytes, how.at * 4096, how.from * 4096, (how.from + 1) * 4096)
        else bytes = bytes.subarray(0, how.at)
        writeFileSync(path, bytes)
        const records = recordsOf(path)
        if (records === undefined) counts.refused++
        else counts.harmless++
        return records === undefined || records === right
      }),
      { numRuns: process.env.SEALSYNC_FULL ? 20_000 : 400 },
    )
    if (process.env.SEALSYNC_FULL) console.log(`damaged metadata files: ${JSON.stringify(counts)}`)
    // Most of the rest is in pages that are free.
    expect(counts.refused).toBeGreaterThan(60)
  })

  test('a flipped byte in a file of content is an error and never other bytes, for ranges too', async () => {
    const dir = await copyOfGood()
    const name = 'f10'
    const wanted = CONTENTS.get(name)!
    const file = (await blobsIn(dir)).find((one) => readFileSync(join(dir, 'blobs', one)).equals(wanted))!
    const at = 300_000
    const bytes = Buffer.from(wanted)
    bytes[at]! ^= 1
    writeFileSync(join(dir, 'blobs', file), bytes)
    const { problems } = await checkStore(dir, { readContent: true })
    expect(problems).toMatchObject([{ kind: 'content', code: 'CONTENT_DAMAGED', paths: [`/R/${name}`] }])
    expect((await checkStore(dir)).problems).toEqual([])
    const errors: unknown[] = []
    const world = await startWorld({ data: dir, onError: (error) => errors.push(error) })
    const ann = await enter(world, 1, 'ann')
    const id = ids.get(name)!
    expect((await download(ann, id, { range: 'bytes=0-1000' })).body.equals(wanted.subarray(0, 1001))).toBe(true)
    // The first block has been sent when the second turns out to be bad.
    await expect(download(ann, id)).rejects.toThrow()
    const range = await download(ann, id, { range: `bytes=${at + 1}-${at + 9}` })
    expect(range.json).toMatchObject({ code: 410, errorCode: -40751 })
    expect(String((errors.at(-1) as Error).cause)).toContain(file)
  })
})

describe('content and metadata that do not belong together', () => {
  test('the content of another store', async () => {
    const other = await startWorld()
    await signUp(other, 'bob')
    await other.server.close()
    const dir = await copyOfGood()
    rmSync(join(dir, 'blobs'), { recursive: true })
    cpSync(join(other.dir, 'blobs'), join(dir, 'blobs'), { recursive: true })
    await expect(startServer({ data: dir })).rejects.toMatchObject({ class: 'safety', code: 'STORE_FOREIGN' })
    await expect(addUser(dir, { name: 'x', password: 'x' })).rejects.toMatchObject({ code: 'STORE_FOREIGN' })
    // And the other way round: metadata of another store beside content.
    const turned = await copyOfGood()
    cpSync(join(other.dir, 'db'), join(turned, 'db'), { recursive: true })
    await expect(startServer({ data: turned })).rejects.toMatchObject({ code: 'STORE_FOREIGN' })
    expect(await blobsIn(turned)).toEqual(await blobsIn(good))
  })

  test('content that is not there: an empty directory, or none', async () => {
    const dir = await copyOfGood()
    rmSync(join(dir, 'blobs'), { recursive: true })
    await expect(startServer({ data: dir })).rejects.toMatchObject({ class: 'safety', code: 'CONTENT_MISSING' })
  })

  test('older metadata sweeps nothing; adopted, it sets aside when told to, for 48 hours, and the newer one brings it back', async () => {
    const dir = await copyOfGood()
    const before = await blobsIn(dir)
    const later = await startWorld({ data: dir })
    const ann = await enter(later, 1, 'ann')
    const bytes = randomBytes(50_000)
    const room = (await ann.call('GET', '/v4/nodes')).json.items[0].id
    const { json: fresh } = await uploadClassic(ann, room, 'fresh', bytes)
    await later.server.close()
    const newest = await freshDir()
    cpSync(join(dir, 'db'), newest, { recursive: true })
    cpSync(join(good, 'db'), join(dir, 'db'), { recursive: true })
    await expect(startServer({ data: dir })).rejects.toMatchObject({ code: 'STORE_OLDER', class: 'safety' })
    await expect(addUser(dir, { name: 'x', password: 'x' })).rejects.toMatchObject({ code: 'STORE_OLDER' })
    expect(await blobsIn(dir)).toHaveLength(before.length + 1)

    expect((await runCli(dir, ['serve', 'check', '--data', dir])).code).toBe(9)
    const adopted = await runCli(dir, ['serve', 'check', '--data', dir, '--adopt', '--json'])
    expect([adopted.code, adopted.json.at(-1)]).toMatchObject([0, { type: 'summary', problems: 0, strays: 1 }])
    let now = Date.now()
    const aside = () => readdirSync(join(dir, 'blobs', '.strays'))
    const sweep = async () => {
      const server = await startServer({ data: dir, clock: { now: () => now } })
      await collectGarbage(dir)
      await server.close()
    }
    await sweep()
    expect([(await blobsIn(dir)).length, aside().length]).toEqual([before.length + 1, 0])
    const repaired = await runCli(dir, ['serve', 'check', '--data', dir, '--repair', '--json'])
    expect([repaired.code, repaired.json.at(-1)]).toMatchObject([0, { problems: 0, strays: 1, setAside: 1 }])
    expect([await blobsIn(dir), aside().length]).toEqual([before, 1])
    now += 47 * HOUR
    await sweep()
    expect(aside()).toHaveLength(1)

    // The right metadata turns up after all.
    cpSync(newest, join(dir, 'db'), { recursive: true })
    await checkStore(dir, { adopt: true })
    const again = await startWorld({ data: dir })
    expect((await download(await enter(again, 1, 'ann'), fresh.id)).body.equals(bytes)).toBe(true)
    expect(aside()).toEqual([])
    await again.server.close()

    // What nobody claims, and was moved aside, goes after two days when somebody says so; never by a start.
    writeFileSync(join(dir, 'blobs', `${'0'.repeat(32)}-${'0'.repeat(12)}`), 'stray')
    now = Date.now()
    await sweep()
    expect(aside()).toEqual([])
    expect(await checkStore(dir, { repair: true })).toMatchObject({ strays: 1, setAside: 1 })
    now += 49 * HOUR
    await (await startServer({ data: dir, clock: { now: () => now } })).close()
    expect(aside()).toHaveLength(1)
    await sweep()
    expect(aside()).toEqual([])
  })

  test('the bucket of another store, and a store that lost its metadata beside its bucket', async () => {
    const store = await startS3Server()
    try {
      const one = await freshDir()
      const two = await freshDir()
      await (await startServer({ data: one, s3: store.options })).close()
      const options = { data: two, s3: store.options }
      await expect(startServer(options)).rejects.toMatchObject({ class: 'safety', code: 'STORE_FOREIGN' })
      // The same directory keeps its bucket.
      await (await startServer({ data: one, s3: store.options })).close()
      const old = await freshDir()
      cpSync(one, old, { recursive: true })
      await (await startServer({ data: one, s3: store.options })).close()
      // The whole directory from a backup: only the bucket knows better.
      await expect(startServer({ data: old, s3: store.options })).rejects.toMatchObject({ code: 'STORE_OLDER' })
      expect((await checkStore(old, { s3: store.options })).problems).toMatchObject([{ code: 'STORE_OLDER' }])
      expect((await checkStore(old, { s3: store.options, adopt: true })).problems).toEqual([])
      await (await startServer({ data: old, s3: store.options })).close()
      await expect(startServer({ data: one, s3: store.options })).rejects.toMatchObject({ code: 'STORE_OLDER' })
    } finally {
      await store.stop()
    }
  })
})

test('serve check: sound, running, empty, content that is gone', async () => {
  const dir = await copyOfGood()
  const sound = await runCli(dir, ['serve', 'check', '--data', dir, '--content', '--json'])
  expect([sound.code, sound.json]).toMatchObject([0, [{ type: 'summary', problems: 0, files: FILES, strays: 0 }]])
  const world = await startWorld({ data: dir })
  expect(await checkStore(dir, { readContent: true })).toMatchObject({ problems: [], files: FILES, strays: 0 })
  await expect(checkStore(dir, { adopt: true })).rejects.toMatchObject({ code: 'SERVER_RUNNING' })
  await world.server.close()
  const [gone = ''] = await blobsIn(dir)
  rmSync(join(dir, 'blobs', gone))
  const told = await runCli(dir, ['serve', 'check', '--data', dir])
  expect([told.code, told.stdout]).toEqual([7, expect.stringMatching(/is gone .*\n {2}\/R\/f\d+\n/)])
  const empty = await freshDir()
  await expect(checkStore(empty)).rejects.toMatchObject({ class: 'usage', code: 'STORE_EMPTY' })
  expect(existsSync(join(empty, 'db'))).toBe(false)
})
