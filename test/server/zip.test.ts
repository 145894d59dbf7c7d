/**
 * Archives as another implementation reads them: names, dates, modes, many entries and large ones.
 * @module
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { createWriteStream } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { expect, test } from 'vitest'
import { type ZipEntry, zipOf } from '../../src/server/zip.ts'
import { freshDir } from './support.ts'

const hasPython = spawnSync('python3', ['-c', 'import zipfile']).status === 0

async function* chunks(...pieces: (string | Uint8Array)[]): AsyncGenerator<Uint8Array> {
  for (const piece of pieces) yield Buffer.from(piece)
}

const file = (path: string, content: Uint8Array | string): ZipEntry => ({
  path,
  size: Buffer.byteLength(content),
  modifiedAt: Date.UTC(2026, 1, 3, 4, 5, 6),
  open: () => Promise.resolve(chunks(content)),
})

async function written(entries: Iterable<ZipEntry> | AsyncIterable<ZipEntry>): Promise<string> {
  const path = join(await freshDir(), 'a.zip')
  await pipeline(Readable.from(zipOf(entries)), createWriteStream(path))
  return path
}

const python = (script: string, path: string): string =>
  execFileSync('python3', ['-c', `import sys, zipfile\nz = zipfile.ZipFile(sys.argv[1])\n${script}`, path], {
    encoding: 'utf8',
  })

test.skipIf(!hasPython)('names, dates, modes and contents', async () => {
  const large = Buffer.alloc(200_000, 'large ')
  const path = await written([
    { path: 'Ordner ü/', size: 0, modifiedAt: Date.UTC(1970, 0, 1) },
    file('Ordner ü/日本.txt', 'content'),
    file('empty', ''),
    { ...file('large', large), open: () => Promise.resolve(chunks(large.subarray(0, 1), large.subarray(1))) },
    { ...file('late', 'x'), modifiedAt: Date.UTC(2200, 0, 1) },
  ])
  const seen = python(
    'assert z.testzip() is None\nfor i in z.infolist(): print(ascii((i.filename, i.file_size, i.date_time, oct(i.external_attr >> 16), i.is_dir())))',
    path,
  )
  expect(seen.trim().split('\n')).toEqual([
    "('Ordner \\xfc/', 0, (1980, 1, 1, 0, 0, 0), '0o40755', True)",
    "('Ordner \\xfc/\\u65e5\\u672c.txt', 7, (2026, 2, 3, 4, 5, 6), '0o100644', False)",
    "('empty', 0, (2026, 2, 3, 4, 5, 6), '0o100644', False)",
    "('large', 200000, (2026, 2, 3, 4, 5, 6), '0o100644', False)",
    "('late', 1, (2107, 12, 31, 0, 0, 0), '0o100644', False)",
  ])
  expect(python('print(z.read("large") == b"large " * 33333 + b"la")', path).trim()).toBe('True')
})

test.skipIf(!hasPython)('more entries than the older format can count', async () => {
  function* many(): Generator<ZipEntry> {
    for (let index = 0; index < 66_000; index++) yield file(`f${index}`, '')
  }
  const path = await written(many())
  expect(python('print(len(z.infolist()), z.infolist()[-1].filename)', path).trim()).toBe('66000 f65999')
})

test('content of another length than it said breaks off', async () => {
  await expect(written([{ ...file('f', 'four'), size: 5 }])).rejects.toThrow(RangeError)
})

test.skipIf(!hasPython || process.env.SEALSYNC_FULL === undefined)('entries and offsets beyond 4 GiB', async () => {
  const size = 4 * 2 ** 30 + 1
  async function* zeros(): AsyncGenerator<Uint8Array> {
    const piece = Buffer.alloc(1024 * 1024)
    for (let at = 0; at < size; at += piece.length) yield piece.subarray(0, Math.min(piece.length, size - at))
  }
  const path = await written([{ ...file('huge', ''), size, open: () => Promise.resolve(zeros()) }, file('after', 'x')])
  expect(python('print([i.file_size for i in z.infolist()], z.read("after"), z.testzip())', path).trim()).toBe(
    `[${size}, 1] b'x' None`,
  )
})
