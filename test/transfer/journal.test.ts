import { randomBytes } from 'node:crypto'
import { chmodSync, existsSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { createResumableEncryptor, generateKeyPair } from '../../crypto/index.ts'
import type { TransferEvent } from '../../src/transfer/events.ts'
import { openUploadJournal, type UploadStart } from '../../src/transfer/journal.ts'
import { fakeClock } from '../support/clock.ts'
import { freshDirectory } from '../support/files.ts'
import { rewriteJournal } from '../support/journal-forge.ts'

const owner = (await generateKeyPair('A')).publicKey
const sealed = await createResumableEncryptor().seal(owner)
const clock = fakeClock()
const PART = 5 * 1024 * 1024

const start = (more: Partial<UploadStart> = {}): UploadStart => ({
  uploadId: 'an-upload',
  path: '/somewhere/ä file',
  source: {
    size: 3 * PART + 1,
    mtimeNs: '1700000000123456789',
    ctimeNs: '1700000000123456790',
    dev: '64768',
    ino: '77',
  },
  parentId: 12,
  name: 'ä file',
  partSize: PART,
  sealed,
  ...more,
})
const part = (number: number) => ({
  offset: (number - 1) * PART,
  length: number === 4 ? 1 : PART,
  digest: new Uint8Array(randomBytes(16)),
})

async function journalPath(): Promise<string> {
  return join(await freshDirectory(), 'journal', 'a-scope.journal')
}

/** Opens it, and says what was reported. */
async function open(path: string) {
  const events: TransferEvent[] = []
  const journal = await openUploadJournal(path, clock, (event) => events.push(event))
  return { journal, events }
}

/** Two uploads in a journal, one of them settled, as a crash leaves it: without a close, but for the lock. */
async function written(path: string): Promise<Uint8Array[]> {
  const { journal } = await open(path)
  const [first, second] = [journal.begin(start()), journal.begin(start({ uploadId: 'other', name: 'other' }))]
  const parts = [part(1), part(2)]
  for (const [index, sent] of parts.entries()) await first.sending(index + 1, sent)
  first.received(1, 'etag "1"')
  second.settle()
  await journal.close()
  return parts.map(({ digest }) => digest)
}

const files = (path: string) => readdirSync(join(path, '..')).sort()

test('says again what was written, and nothing of what was settled', async () => {
  const path = await journalPath()
  const digests = await written(path)
  expect((statSync(path).mode & 0o777).toString(8)).toBe('600')
  expect((statSync(join(path, '..')).mode & 0o777).toString(8)).toBe('700')
  const { journal, events } = await open(path)
  expect(events).toEqual([])
  expect(journal.open().length).toBe(1)
  const [upload] = journal.open()
  expect(upload).toMatchObject({ ...start(), completedWith: undefined, isAbandoned: false })
  expect([...upload!.parts].map(([number, { digest }]) => [number, digest])).toEqual([
    [1, digests[0]],
    [2, digests[1]],
  ])
  expect([...upload!.receipts]).toEqual([[1, 'etag "1"']])
  await upload!.completing(new Uint8Array(16).fill(7))
  await upload!.abandon()
  await journal.close()
  const again = await open(path)
  expect(again.journal.open()[0]).toMatchObject({ completedWith: new Uint8Array(16).fill(7), isAbandoned: true })
  again.journal.open()[0]!.settle()
  expect(again.journal.open()).toEqual([])
  await again.journal.close()
  expect(files(path)).toEqual([])
})

test('a run without large files leaves no file', async () => {
  const path = await journalPath()
  const { journal } = await open(path)
  await journal.close()
  expect(files(path)).toEqual([])
})

test('a part is on the disk when sending it may begin, also of many at once', async () => {
  const path = await journalPath()
  const { journal } = await open(path)
  const upload = journal.begin(start())
  await Promise.all(
    [1, 2, 3, 4].map(async (number) => {
      await upload.sending(number, part(number))
      expect(readFileSync(path, 'utf8')).toContain(`"number":${number},`)
    }),
  )
  await journal.close()
})

test('one process at a time', async () => {
  const path = await journalPath()
  const { journal } = await open(path)
  await expect(open(path)).rejects.toMatchObject({ code: 'LOCKED', class: 'conflict' })
  await journal.close()
  await (await open(path)).journal.close()
})

test('cut at any byte it says what was whole, never something else', async () => {
  const path = await journalPath()
  await written(path)
  const whole = readFileSync(path)
  const ends = [...whole.keys()].filter((at) => whole[at] === 10).map((at) => at + 1)
  // All cuts around the ends of lines, and some within.
  const cuts = new Set([0, 1, ...ends.flatMap((end) => [end - 1, end, end + 1, end + 40]), 500, 999, 1500])
  for (const length of cuts) {
    if (length > whole.length) continue
    writeFileSync(path, whole.subarray(0, length))
    const { journal, events } = await open(path)
    expect(events).toEqual([])
    const lines = ends.filter((end) => end <= length).length
    // Header, two begins, two parts, a receipt, a settle.
    expect(journal.open().length).toBe(lines < 2 ? 0 : lines === 2 || lines === 7 ? 1 : 2)
    const [upload] = journal.open()
    expect(upload?.parts.size ?? 0).toBe(Math.max(0, Math.min(lines, 5) - 3))
    // What comes next follows on the last whole record.
    journal.begin(start({ uploadId: 'next', name: 'next' }))
    const open1 = journal.open().length
    await journal.close()
    const again = await open(path)
    expect(again.events).toEqual([])
    expect(again.journal.open().length).toBe(open1)
    await again.journal.close()
  }
})

test.each<[string, (path: string) => void]>([
  ['a flipped bit in the header', (path) => flip(path, 50)],
  ['a flipped bit in the middle', (path) => flip(path, 900)],
  ['a flipped bit in the last record', (path) => flip(path, statSync(path).size - 5)],
  ['a missing record', (path) => edit(path, (lines) => lines.filter((_, index) => index !== 3))],
  ['two records in another order', (path) => edit(path, ([a, b, c, d, ...rest]) => [a!, b!, d!, c!, ...rest])],
  ['a record twice', (path) => edit(path, ([a, b, ...rest]) => [a!, b!, b!, ...rest])],
  ['an older version', (path) => forge(path, '"version":1', '"version":0')],
  ['another scope', (path) => forge(path, 'a-scope', 'b-scope')],
  ['garbage', (path) => writeFileSync(path, `${randomBytes(5000).toString('hex')}\n`, { mode: 0o600 })],
  ['a part that is elsewhere', (path) => forge(path, `"offset":${PART}`, `"offset":${PART - 1}`)],
  ['a part without end', (path) => forge(path, `"length":${PART}`, '"length":1e300')],
  [
    'a receipt of an unknown part',
    (path) => forge(path, '"do":"received","id":1,"number":1', '"do":"received","id":1,"number":9'),
  ],
  ['an unknown record', (path) => forge(path, '"do":"settle"', '"do":"other"')],
  ['a digest of another length', (path) => forge(path, '"digest":"', '"digest":"AAAA')],
  ['a path that is no text', (path) => forge(path, '"path":"', '"path":1,"x":"')],
  ['a key of another length', (path) => forge(path, '"digestKey":{"key":"', '"digestKey":{"key":"AAAA')],
])('%s: nothing of it is believed, and it is kept aside', async (_what, damage) => {
  const path = await journalPath()
  await written(path)
  damage(path)
  const damaged = readFileSync(path)
  const { journal, events } = await open(path)
  expect(journal.open()).toEqual([])
  expect(events).toMatchObject([{ type: 'warning', code: 'JOURNAL_DAMAGED' }])
  const kept = files(path).filter((name) => name.includes('.corrupt-'))
  expect(kept).toEqual([`a-scope.journal.corrupt-${clock.now()}`])
  expect(readFileSync(join(path, '..', kept[0]!)).equals(damaged)).toBe(true)
  const upload = journal.begin(start())
  await upload.sending(1, part(1))
  await journal.close()
  expect((await open(path)).journal.open().length).toBe(1)
})

test('the journal of another place under this name is not believed', async () => {
  const path = await journalPath()
  const other = join(path, '..', 'other.journal')
  await written(other)
  renameSync(other, path)
  const { journal, events } = await open(path)
  expect(journal.open()).toEqual([])
  expect(events.length).toBe(1)
  await journal.close()
})

test('one that others can read is refused', async () => {
  const path = await journalPath()
  await written(path)
  chmodSync(path, 0o644)
  await expect(open(path)).rejects.toMatchObject({ code: 'SECRET_FILE_OPEN' })
  expect(existsSync(`${path}.lock`)).toBe(false)
})

test('what the server says and could not be read again is refused before it is written', async () => {
  const path = await journalPath()
  const { journal } = await open(path)
  expect(() => journal.begin(start({ uploadId: 'x'.repeat(2000) }))).toThrowError(
    expect.objectContaining({ class: 'local_io' }),
  )
  const upload = journal.begin(start())
  await upload.sending(1, part(1))
  expect(() => upload.received(1, '')).toThrowError(expect.objectContaining({ class: 'local_io' }))
  await journal.close()
  const again = await open(path)
  expect(again.events).toEqual([])
  expect(again.journal.open().length).toBe(1)
})

function flip(path: string, at: number): void {
  const bytes = readFileSync(path)
  bytes[at]! ^= 1
  writeFileSync(path, bytes)
}

function edit(path: string, change: (lines: string[]) => string[]): void {
  const lines = readFileSync(path, 'utf8').split('\n')
  writeFileSync(path, change(lines).join('\n'))
}

/** Replaces text in every record, with right checksums. */
function forge(path: string, from: string, to: string): void {
  rewriteJournal(path, (record) => JSON.parse(JSON.stringify(record).replace(from, to)))
}
