import { execFileSync } from 'node:child_process'
import { appendFile, link, mkdir, rename, rm, symlink, truncate, utimes, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { openStable, readSmallStable, SMALL_FILE } from '../../src/local/stable-read.ts'
import { buildScript, freshDirectory, isRoot, NOBODY, runScript } from '../support/files.ts'

const changed = { class: 'changed', code: 'SOURCE_CHANGED' }
const windows = process.platform === 'win32'

async function source(content: string | Uint8Array = 'content'): Promise<string> {
  const path = join(await freshDirectory(), 'source')
  await writeFile(path, content)
  // Long ago, so that a write within the clock's grain shows.
  await utimes(path, 1_000_000, 1_000_000)
  return path
}

async function opened(path: string) {
  const reader = await openStable(path, 'shown')
  onTestFinished(() => reader.close())
  return reader
}

describe('a file that stays as it is', () => {
  test('is read at any position and verifies', async () => {
    const reader = await opened(await source('0123456789'))
    expect(reader).toMatchObject({ size: 10, modifiedAt: 1_000_000_000 })
    const target = new Uint8Array(4)
    await reader.read(target, 3)
    expect(Buffer.from(target).toString()).toBe('3456')
    await reader.read(target, 0)
    expect(Buffer.from(target).toString()).toBe('0123')
    await reader.read(new Uint8Array(0), 10)
    await reader.verify()
    await reader.verify()
  })

  test.each([0, 1, 4095, SMALL_FILE - 1, SMALL_FILE])('of %i bytes is read whole', async (size) => {
    const content = Buffer.from(Array.from({ length: size }, (_, i) => i % 251))
    const path = await source(content)
    const found = readSmallStable(path, 'shown')
    expect(found?.modifiedAt).toBe(1_000_000_000)
    expect(content.equals(found!.bytes)).toBe(true)
    const reader = await opened(path)
    const target = new Uint8Array(size)
    await reader.read(target, 0)
    expect(content.equals(target)).toBe(true)
    await reader.verify()
  })

  test('above the limit is for the other reader', async () => {
    expect(readSmallStable(await source(new Uint8Array(SMALL_FILE + 1)), 'shown')).toBeUndefined()
  })
})

describe('a file that changes while it is read', () => {
  const changes: Record<string, (path: string) => Promise<unknown>> = {
    grows: (path) => appendFile(path, 'x'),
    shrinks: (path) => truncate(path, 3),
    'is written in place': (path) => writeFile(path, 'CONTENT'),
    'is touched': (path) => utimes(path, 2_000_000, 2_000_000),
    'is changed and its time set back': async (path) => {
      await writeFile(path, 'CONTENT')
      await utimes(path, 1_000_000, 1_000_000)
    },
    'is replaced by an equal one': async (path) => {
      await writeFile(`${path}.new`, 'content')
      await utimes(`${path}.new`, 1_000_000, 1_000_000)
      await rename(`${path}.new`, path)
    },
    'is replaced by a link to itself': async (path) => {
      await rename(path, `${path}.old`)
      await symlink(`${path}.old`, path)
    },
    'is removed': (path) => rm(path),
    'is replaced by a directory': async (path) => {
      await rm(path)
      await mkdir(path)
    },
  }
  test.each(Object.keys(changes))('%s', async (name) => {
    const path = await source()
    const reader = await opened(path)
    await reader.read(new Uint8Array(3), 0)
    await changes[name]!(path)
    await expect(reader.verify()).rejects.toMatchObject(changed)
  })

  test('another directory in the place of its own', async () => {
    const base = await freshDirectory()
    for (const name of ['a', 'b']) {
      await mkdir(join(base, name))
      await writeFile(join(base, name, 'file'), 'content')
      await utimes(join(base, name, 'file'), 1_000_000, 1_000_000)
    }
    const reader = await opened(join(base, 'a', 'file'))
    await reader.verify()
    // Nothing touches the file itself: only its path leads elsewhere now.
    await rename(join(base, 'a'), join(base, 'old'))
    await rename(join(base, 'b'), join(base, 'a'))
    await expect(reader.verify()).rejects.toMatchObject(changed)
  })

  test('cut short in the middle: the missing bytes are not made up', async () => {
    const path = await source('0123456789')
    const reader = await opened(path)
    await truncate(path, 5)
    await expect(reader.read(new Uint8Array(10), 0)).rejects.toMatchObject(changed)
    await expect(reader.read(new Uint8Array(1), 7)).rejects.toMatchObject(changed)
  })

  test('another hard link counts as a change: its inode was touched', async () => {
    const path = await source()
    const reader = await opened(path)
    await link(path, `${path}.link`)
    await expect(reader.verify()).rejects.toMatchObject(changed)
  })

  test('small files under a busy writer are one version or an error', async () => {
    const directory = await freshDirectory()
    const path = join(directory, 'busy')
    const version = (n: number) => Buffer.alloc(20_000 + (n % 100) * 500, n % 100)
    await writeFile(path, version(0))
    const script = await buildScript(
      directory,
      "import { openSync, writeSync, ftruncateSync } from 'node:fs'",
      `const fd = openSync(process.argv[2], 'r+')
       say('ready')
       for (let n = 0; ; n++) {
         ftruncateSync(fd, 0)
         writeSync(fd, Buffer.alloc(20000 + (n % 100) * 500, n % 100), 0, 20000 + (n % 100) * 500, 0)
         if (n % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 2))
       }`,
    )
    const writer = runScript(script, [path])
    await writer.first
    let refused = 0
    // However rarely the writer gets its turn, it is met in the middle at some time.
    for (let i = 0; i < 1500 || refused === 0; i++) {
      if (i % 500 === 499) await new Promise((resolve) => setImmediate(resolve))
      try {
        readSmallStable(path, 'shown')
      } catch (error) {
        expect(error).toMatchObject(changed)
        refused++
      }
    }
    writer.kill()
    expect(refused).toBeGreaterThan(0)
  })
})

describe('what has no content', () => {
  const both = async (path: string) => {
    const slow = await openStable(path, 'shown').then(
      () => 'opened',
      (error) => error,
    )
    let quick: unknown = 'opened'
    try {
      readSmallStable(path, 'shown')
    } catch (error) {
      quick = error
    }
    return [slow, quick]
  }

  test.skipIf(windows)('a FIFO does not hang and is refused', async () => {
    const path = join(await freshDirectory(), 'fifo')
    execFileSync('mkfifo', [path])
    for (const error of await both(path)) expect(error).toMatchObject({ class: 'usage', code: 'NOT_A_FILE' })
  })

  test('directory, link, dangling link, nothing', async () => {
    const directory = await freshDirectory()
    await writeFile(join(directory, 'file'), 'x')
    await symlink(join(directory, 'file'), join(directory, 'link'))
    await symlink(join(directory, 'none'), join(directory, 'dangling'))
    for (const error of await both(directory)) expect(error).toMatchObject({ code: 'NOT_A_FILE' })
    for (const name of ['link', 'dangling']) {
      for (const error of await both(join(directory, name))) {
        expect(error).toMatchObject({ class: 'local_io', code: 'LOCAL_ELOOP' })
      }
    }
    for (const error of await both(join(directory, 'none'))) expect(error).toMatchObject({ code: 'LOCAL_ENOENT' })
  })

  test.skipIf(windows)('a device and a socket', async () => {
    for (const error of await both('/dev/null')) expect(error).toMatchObject({ code: 'NOT_A_FILE' })
    const path = join(await freshDirectory(), 'socket')
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(path, resolve))
    onTestFinished(() => void server.close())
    for (const error of await both(path)) expect(error).toMatchObject({ class: 'local_io', code: 'LOCAL_ENXIO' })
  })

  test.skipIf(!isRoot)('a file that modes forbid (needs root to become nobody)', async () => {
    const directory = await freshDirectory()
    const path = join(directory, 'closed')
    await writeFile(path, 'x', { mode: 0o600 })
    const script = await buildScript(
      directory,
      "import { openStable, readSmallStable } from './src/local/stable-read.ts'",
      `const path = process.argv[2]
       await openStable(path, 'shown').catch((error) => say(error.message))
       try { readSmallStable(path, 'shown') } catch (error) { say(error.class + ' ' + error.code) }`,
    )
    expect(await runScript(script, [path], { uid: NOBODY }).lines).toEqual([
      'Cannot read shown (EACCES)',
      'local_io LOCAL_EACCES',
    ])
  })
})
