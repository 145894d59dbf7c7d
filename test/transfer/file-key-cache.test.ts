import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { encryptBytes, type FileKey, generateKeyPair, type UserKeyPair } from '../../crypto/index.ts'
import { createDownload } from '../../src/api/downloads.ts'
import { getFileKey } from '../../src/api/file-keys.ts'
import { systemClock } from '../../src/environment.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import { createFileKeyCache, type FileKeyCache } from '../../src/transfer/file-key-cache.ts'
import { createWorld, makeTree, type World } from '../support/cli.ts'
import { freshDirectory } from '../support/files.ts'

const RECORD = 104
const HEADER = 32

let pair: UserKeyPair
let otherPair: UserKeyPair
beforeAll(async () => {
  ;[pair, otherPair] = await Promise.all([generateKeyPair('A'), generateKeyPair('A')])
})

const make = (directory: string, more: { origin?: string; maxRecords?: number } = {}) =>
  createFileKeyCache({ directory, origin: 'https://a.test', clock: systemClock, ...more })

const newKey = (): FileKey => encryptBytes(randomBytes(20)).fileKey
const has = async (cache: FileKeyCache, nodeId: number, { iv, tag, key }: FileKey, of = pair) => {
  const found = await cache.find(of, nodeId)
  if (found === undefined || !Buffer.from(found.key).equals(key)) return false
  for (const [part, expected] of [
    [found.iv, iv],
    [found.tag, tag],
  ] as const)
    expect(Buffer.from(part).equals(expected)).toBe(true)
  return true
}

/** A cache file with that many keys, of nodes 0, 1, … */
async function filled(count: number, more = {}): Promise<{ directory: string; path: string; keys: FileKey[] }> {
  const directory = join(await freshDirectory(), 'file-keys')
  const keys = Array.from({ length: count }, newKey)
  const cache = make(directory, more)
  for (const [nodeId, key] of keys.entries()) cache.add(pair, nodeId, key)
  await cache.flush()
  return { directory, path: join(directory, readdirSync(directory)[0]!), keys }
}
const foundIn = async (directory: string, keys: readonly FileKey[]) => {
  const cache = make(directory)
  return Promise.all(keys.map((key, nodeId) => has(cache, nodeId, key)))
}

describe('a cache of file keys', () => {
  test('gives back what was added, in a private file without the keys', async () => {
    const { directory, path, keys } = await filled(3)
    expect(await foundIn(directory, keys)).toEqual([true, true, true])
    expect(statSync(path).mode & 0o777).toBe(0o600)
    expect(statSync(directory).mode & 0o777).toBe(0o700)
    const bytes = readFileSync(path)
    expect(bytes.length).toBe(HEADER + 3 * RECORD)
    for (const { key, iv, tag } of keys)
      for (const part of [key, iv, tag]) expect(bytes.includes(Buffer.from(part))).toBe(false)
  })

  test('gives nothing for another node, key pair, user or server', async () => {
    const { directory, keys } = await filled(2)
    const [first] = keys as [FileKey]
    const cache = make(directory)
    expect(await has(cache, 1, first)).toBe(false)
    expect(await cache.find(pair, 2)).toBeUndefined()
    expect(await has(cache, 0, first, otherPair)).toBe(false)
    expect(await has(make(directory, { origin: 'https://b.test' }), 0, first)).toBe(false)
  })

  test('of two keys of a node the newer one counts', async () => {
    const { directory } = await filled(2)
    const next = newKey()
    const cache = make(directory)
    cache.add(pair, 1, next)
    await cache.flush()
    expect(await has(make(directory), 1, next)).toBe(true)
  })

  test('each key pair has a file of its own, and one in the place of another is replaced', async () => {
    const { directory, path, keys } = await filled(2)
    const key = newKey()
    const cache = make(directory)
    cache.add(otherPair, 5, key)
    await cache.flush()
    const other = readdirSync(directory).find((name) => join(directory, name) !== path)!
    expect(await has(make(directory), 5, key, otherPair)).toBe(true)
    expect(await foundIn(directory, keys)).toEqual([true, true])
    renameSync(path, join(directory, other))
    expect(await has(make(directory), 5, key, otherPair)).toBe(false)
    const again = make(directory)
    again.add(otherPair, 6, key)
    await again.flush()
    expect(await has(make(directory), 6, key, otherPair)).toBe(true)
  })

  test('a flipped bit anywhere costs at most its own record', async () => {
    const { directory, path, keys } = await filled(3)
    const good = readFileSync(path)
    for (let at = HEADER + RECORD; at < HEADER + 2 * RECORD; at++) {
      const bad = Buffer.from(good)
      bad[at]! ^= 1 << (at % 8)
      writeFileSync(path, bad)
      expect(await foundIn(directory, keys), `byte ${at}`).toEqual([true, false, true])
    }
    const bad = Buffer.from(good)
    bad[3]! ^= 1
    writeFileSync(path, bad)
    expect(await foundIn(directory, keys)).toEqual([false, false, false])
  })

  test('records that change places or are of another time are nobody’s', async () => {
    const { directory, path, keys } = await filled(2)
    const bytes = readFileSync(path)
    const [a, b] = [HEADER, HEADER + RECORD]
    // The sealed keys swapped, under the ids they had.
    const swapped = Buffer.concat([
      bytes.subarray(0, a + 16),
      bytes.subarray(b + 16),
      bytes.subarray(b, b + 16),
      bytes.subarray(a + 16, b),
    ])
    writeFileSync(path, swapped)
    expect(await foundIn(directory, keys)).toEqual([false, false])
  })

  test('cut anywhere, it keeps the records before, and takes new ones', async () => {
    const { directory, path, keys } = await filled(2)
    const good = readFileSync(path)
    for (const length of [
      0,
      1,
      31,
      32,
      33,
      60,
      HEADER + RECORD - 1,
      HEADER + RECORD,
      HEADER + RECORD + 1,
      good.length - 1,
    ]) {
      writeFileSync(path, good)
      truncateSync(path, length)
      expect(await foundIn(directory, keys), `${length}`).toEqual([length >= HEADER + RECORD, false])
      const cache = make(directory)
      const key = newKey()
      cache.add(pair, 9, key)
      await cache.flush()
      expect(await has(make(directory), 9, key), `${length}`).toBe(true)
      expect((await foundIn(directory, keys))[0]).toBe(length >= HEADER + RECORD)
    }
  })

  test.each<[string, (path: string) => void]>([
    ['readable by others', (path) => chmodSync(path, 0o644)],
    ['a link', (path) => linkAway(path)],
    ['larger than it may be', (path) => truncateSync(path, 12_000_000)],
    ['of another format', (path) => writeFileSync(path, randomBytes(500))],
  ])('a file that is %s is not read, and made anew', async (_what, alter) => {
    const { directory, path, keys } = await filled(2)
    alter(path)
    expect(await foundIn(directory, keys)).toEqual([false, false])
    const cache = make(directory)
    const key = newKey()
    cache.add(pair, 9, key)
    await cache.flush()
    expect(await has(make(directory), 9, key)).toBe(true)
    expect(statSync(path)).toMatchObject({ size: HEADER + RECORD })
    expect(statSync(path).mode & 0o777).toBe(0o600)
  })

  test('does not grow without end; the newest stay', async () => {
    const { directory, path, keys } = await filled(10, { maxRecords: 10 })
    const more = Array.from({ length: 4 }, newKey)
    const cache = make(directory, { maxRecords: 10 })
    for (const [index, key] of more.entries()) cache.add(pair, 100 + index, key)
    await cache.flush()
    expect(statSync(path).size).toBeLessThanOrEqual(HEADER + 10 * RECORD)
    for (const [index, key] of more.entries()) expect(await has(make(directory), 100 + index, key)).toBe(true)
    const old = await foundIn(directory, keys)
    expect(old.slice(0, 7)).toEqual(Array(7).fill(false))
    expect(old.slice(7)).toEqual([true, true, true])
  })

  test('several writers lose nothing of each other', async () => {
    const directory = join(await freshDirectory(), 'file-keys')
    const keys = Array.from({ length: 40 }, newKey)
    const caches = Array.from({ length: 8 }, () => make(directory))
    for (const [nodeId, key] of keys.entries()) caches[nodeId % 8]!.add(pair, nodeId, key)
    await Promise.all(caches.map((cache) => cache.flush()))
    expect(await foundIn(directory, keys)).toEqual(keys.map(() => true))
  })

  test('a directory that cannot be written costs nobody anything', async () => {
    const file = join(await freshDirectory(), 'in-the-way')
    writeFileSync(file, '')
    const cache = make(file)
    const key = newKey()
    expect(await has(cache, 1, key)).toBe(false)
    cache.add(pair, 1, key)
    await cache.flush()
  })
})

function linkAway(path: string): void {
  const elsewhere = `${path}.elsewhere`
  writeFileSync(elsewhere, readFileSync(path), { mode: 0o600 })
  unlinkSync(path)
  symlinkSync(elsewhere, path)
}

describe('at the command line', () => {
  let world: World
  beforeAll(async () => {
    world = await createWorld()
    makeTree(world.path('src'), { a: 'content a', b: 'content b', c: 'content c' })
    await (await world.client()).upload([world.path('src')], '/room')
  })
  afterAll(() => world.close())

  let counter = 0
  const get = (name: string, ...more: string[]) =>
    world.transfer(['download', `/room/src/${name}`, `${world.path(`out${++counter}`)}/`, ...more])

  /** From now on the wrapped key of a file is one that RSA cannot open; its IV and tag are right. */
  async function spoilKey(name: string): Promise<void> {
    const { api } = await world.client()
    const { node } = await requireRemote(api, `/room/src/${name}`)
    const { version, key, iv, tag } = await getFileKey(api, node.id)
    const text = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64')
    const body = JSON.stringify({
      version,
      key: text(randomBytes(key.length).fill(0, 0, 1)),
      iv: text(iv),
      tag: text(tag),
    })
    world.server.faults.add({
      on: { path: `/files/${node.id}/user_file_key$` },
      times: 99,
      do: { status: 200, headers: { 'Content-Type': 'application/json' }, body },
    })
  }

  test('a warm cache needs no RSA, for download, cat and comparison; cleared, it does again', async () => {
    expect((await get('a')).code).toBe(0)
    await spoilKey('a')
    expect((await get('a')).summary).toMatchObject({ exitCode: 0, transferred: 1 })
    const cat = await world.cli(['cat', '/room/src/a', '--key-password-file', world.keyPasswordFile])
    expect(cat).toMatchObject({ code: 0, stdout: 'content a' })
    makeTree(world.path('compared'), { a: 'content a' })
    const compared = ['download', '/room/src/a', `${world.path('compared')}/`, '--checksum']
    expect((await world.transfer(compared)).summary).toMatchObject({ exitCode: 0, skipped: 1 })
    expect((await get('a', '--key-cache', 'off')).summary.failed).toMatchObject([{ code: 'KEY_UNWRAP_FAILED' }])
    const cleared = await world.cli(['keys', 'cache', 'clear', '--json'])
    expect(cleared.json).toMatchObject([{ type: 'key-cache-cleared', files: 1 }])
    expect((await get('a')).summary.failed).toMatchObject([{ code: 'KEY_UNWRAP_FAILED' }])
    const again = await world.cli(['keys', 'cache', 'clear'])
    expect(again).toMatchObject({ code: 0, stdout: 'There is no cache of file keys\n' })
    world.server.faults.clear()
  })

  test('a key whose content did not match its tag is not kept', async () => {
    world.server.faults.add({ on: { method: 'GET', path: '/downloads/' }, do: { flipByteAt: 0 } })
    expect((await get('b')).code).toBe(7)
    await spoilKey('b')
    expect((await get('b')).summary.failed).toMatchObject([{ code: 'KEY_UNWRAP_FAILED' }])
    world.server.faults.clear()
  })

  const nodeOf = async (name: string) => (await requireRemote((await world.client()).api, `/room/src/${name}`)).node
  const onKeyOf = (id: number) => ({ path: `/files/${id}/user_file_key$` })
  const answerWith = (value: unknown) => ({
    status: 200,
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(value),
  })

  test('a key that is known is not asked for, and content that does not match it is refused all the same', async () => {
    expect((await get('b')).code).toBe(0)
    const { id } = await nodeOf('b')
    const since = world.server.faults.hits.length
    world.server.faults.add({ on: onKeyOf(id), times: 99, do: { delayMs: 0 } })
    expect((await get('b')).summary).toMatchObject({ exitCode: 0, transferred: 1 })
    expect(world.server.faults.hits.length).toBe(since)
    world.server.faults.add({ on: { method: 'GET', path: '/downloads/' }, times: 99, do: { flipByteAt: 3 } })
    expect((await get('b')).summary).toMatchObject({ exitCode: 7, failed: [{ code: 'CONTENT_TAMPERED' }] })
    expect(readdirSync(world.path(`out${counter}`))).toEqual([])
    world.server.faults.clear()
  })

  test('another content under a node that is known is refused', async () => {
    expect((await get('b')).code).toBe(0)
    const { api } = await world.client()
    const [b, c] = [await nodeOf('b'), await nodeOf('c')]
    const text = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64')
    const { version, key, iv, tag } = await getFileKey(api, c.id)
    const wrapped = { version, key: text(key), iv: text(iv), tag: text(tag) }
    const swap = async () => {
      world.server.faults.add({ on: onKeyOf(b.id), times: 99, do: answerWith(wrapped) })
      const downloadUrl = await createDownload(api, c.id)
      world.server.faults.add({ on: { path: `/files/${b.id}/downloads$` }, times: 99, do: answerWith({ downloadUrl }) })
    }
    await swap()
    const exchanged = { exitCode: 7, transferred: 0, failed: [{ code: 'CONTENT_SWAPPED' }] }
    expect((await get('b')).summary).toMatchObject(exchanged)
    expect(readdirSync(world.path(`out${counter}`))).toEqual([])
    const cat = await world.cli(['cat', '/room/src/b', '--key-password-file', world.keyPasswordFile])
    expect(cat).toMatchObject({ code: 7, stdout: '' })
    world.server.faults.clear()
    expect((await get('b')).code).toBe(0)
    expect(readFileSync(world.path(`out${counter}`, 'b'), 'utf8')).toBe('content b')
  })

  test('with --key-cache off nothing is kept', async () => {
    await world.cli(['keys', 'cache', 'clear'])
    expect((await get('c', '--key-cache', 'off')).code).toBe(0)
    expect((await world.cli(['keys', 'cache', 'clear', '--json'])).json).toMatchObject([{ files: 0, bytes: 0 }])
  })
})
