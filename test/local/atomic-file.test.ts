import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { chmod, chown, mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import {
  createAtomicFile,
  makePrivateDirectory,
  placeFile,
  readPrivateFile,
  TEMP_MARK,
  writePrivateFile,
} from '../../src/local/atomic-file.ts'
import { buildScript, freshDirectory, isRoot, NOBODY, runScript } from '../support/files.ts'

const modeOf = async (path: string) => ((await stat(path)).mode & 0o777).toString(8)

describe('what is no file', () => {
  test('is not replaced by one', async () => {
    const directory = await freshDirectory()
    const pipe = join(directory, 'pipe')
    execFileSync('mkfifo', [pipe])
    for (const path of [pipe, '/dev/null']) {
      await expect(createAtomicFile(path)).rejects.toMatchObject({ class: 'usage', code: 'NOT_A_FILE' })
      await expect(writePrivateFile(path, 'x')).rejects.toMatchObject({ code: 'NOT_A_FILE' })
    }
    expect(await readdir(directory)).toEqual(['pipe'])
    expect((await stat(pipe)).isFIFO()).toBe(true)
    expect((await stat('/dev/null')).isCharacterDevice()).toBe(true)
  })

  test('is not read for ever', async () => {
    for (const path of ['/dev/zero', '/dev/full']) {
      await expect(readPrivateFile(path)).rejects.toMatchObject({ class: 'usage', code: 'NOT_A_FILE' })
    }
  })
})

describe('a new version of a file', () => {
  test('appears as a whole, with the times asked for, and leaves nothing behind', async () => {
    const directory = await freshDirectory()
    const path = join(directory, 'target')
    await writeFile(path, 'old')
    const file = await createAtomicFile(path)
    expect(file.tempPath).toContain(TEMP_MARK)
    expect(join(file.tempPath, '..')).toBe(directory)
    await file.handle.writeFile('new')
    expect(await readFile(path, 'utf8')).toBe('old')
    const mtime = new Date('2001-02-03T04:05:06Z')
    let seen = ''
    await file.commit({
      times: { atime: mtime, mtime },
      beforeRename: async () => {
        seen = await readFile(path, 'utf8')
      },
    })
    expect(seen).toBe('old')
    expect(await readFile(path, 'utf8')).toBe('new')
    expect((await stat(path)).mtime).toEqual(mtime)
    await file.discard()
    expect(await readFile(path, 'utf8')).toBe('new')
    expect(await readdir(directory)).toEqual(['target'])
  })

  test('is 0600 whatever the old one and the umask allow', async () => {
    const directory = await freshDirectory()
    const path = join(directory, 'target')
    await writeFile(path, 'old')
    await chmod(path, 0o666)
    const umask = process.umask(0)
    onTestFinished(() => void process.umask(umask))
    const file = await createAtomicFile(path)
    expect(await modeOf(file.tempPath)).toBe('600')
    await file.commit()
    expect(await modeOf(path)).toBe('600')
  })

  test('discarded, it changes nothing', async () => {
    const directory = await freshDirectory()
    const path = join(directory, 'target')
    const file = await createAtomicFile(path)
    await file.handle.writeFile('half')
    await file.discard()
    await file.discard()
    expect(await readdir(directory)).toEqual([])
  })

  test('a refusal before the rename keeps the old version, and discard removes the new one', async () => {
    const directory = await freshDirectory()
    const path = join(directory, 'target')
    await writeFile(path, 'old')
    const file = await createAtomicFile(path)
    await file.handle.writeFile('new')
    const refusal = new Error('no')
    await expect(file.commit({ beforeRename: () => Promise.reject(refusal) })).rejects.toBe(refusal)
    await file.discard()
    expect(await readFile(path, 'utf8')).toBe('old')
    expect(await readdir(directory)).toEqual(['target'])
  })

  test('a target that is a directory, and a directory that is missing, are local errors', async () => {
    const directory = await freshDirectory()
    const path = join(directory, 'target')
    await mkdir(join(path, 'full'), { recursive: true })
    const file = await createAtomicFile(path)
    await expect(file.commit()).rejects.toMatchObject({ class: 'local_io', code: 'LOCAL_EISDIR' })
    await file.discard()
    expect(await readdir(directory)).toEqual(['target'])
    await expect(createAtomicFile(join(directory, 'missing', 'x'))).rejects.toMatchObject({
      class: 'local_io',
      code: 'LOCAL_ENOENT',
    })
  })

  test('takes the longest name a file system knows', async () => {
    const directory = await freshDirectory()
    const path = join(directory, 'n'.repeat(255))
    const file = await createAtomicFile(path)
    await file.commit()
    expect(await readdir(directory)).toEqual(['n'.repeat(255)])
  })

  test('replaces a link instead of writing through it', async () => {
    const directory = await freshDirectory()
    await writeFile(join(directory, 'elsewhere'), 'kept')
    await symlink(join(directory, 'elsewhere'), join(directory, 'link'))
    await writePrivateFile(join(directory, 'link'), 'mine')
    expect(await readFile(join(directory, 'elsewhere'), 'utf8')).toBe('kept')
    expect(await readFile(join(directory, 'link'), 'utf8')).toBe('mine')
  })
})

describe('secret files', () => {
  test('are 0600 in directories of 0700 and read back', async () => {
    const directory = await freshDirectory()
    const path = join(directory, 'a', 'b', 'secret')
    await writePrivateFile(path, 'one')
    await writePrivateFile(path, new Uint8Array([0, 255, 10]))
    expect(await modeOf(path)).toBe('600')
    expect(await modeOf(join(directory, 'a'))).toBe('700')
    expect(await modeOf(join(directory, 'a', 'b'))).toBe('700')
    expect([...(await readPrivateFile(path))!]).toEqual([0, 255, 10])
    expect(await readdir(join(directory, 'a', 'b'))).toEqual(['secret'])
    expect(await readPrivateFile(join(directory, 'none'))).toBeUndefined()
  })

  test.each([0o644, 0o640, 0o604, 0o620, 0o602, 0o601, 0o610])('mode %o is refused', async (mode) => {
    const path = join(await freshDirectory(), 'secret')
    await writeFile(path, 'canary-secret')
    await chmod(path, mode)
    const error = await readPrivateFile(path).catch((cause) => cause)
    expect(error).toMatchObject({ class: 'usage', code: 'SECRET_FILE_OPEN' })
    expect(JSON.stringify(error) + error.message + error.hint).not.toContain('canary-secret')
    await chmod(path, 0o600)
    expect(await readPrivateFile(path)).toHaveLength(13)
  })

  test.skipIf(!isRoot)("another user's file is refused, even behind a link (needs root)", async () => {
    const directory = await freshDirectory()
    const path = join(directory, 'secret')
    await writeFile(path, 'x', { mode: 0o600 })
    await chown(path, NOBODY, NOBODY)
    await symlink(path, join(directory, 'link'))
    for (const name of ['secret', 'link']) {
      await expect(readPrivateFile(join(directory, name))).rejects.toMatchObject({ code: 'SECRET_FILE_OPEN' })
    }
  })

  test.skipIf(!isRoot)('what modes forbid is a local error (needs root to become nobody)', async () => {
    const directory = await freshDirectory()
    const script = await buildScript(
      directory,
      "import { createAtomicFile, makePrivateDirectory, readPrivateFile, writePrivateFile } from './src/local/atomic-file.ts'",
      `const [closed, open] = process.argv.slice(2)
       const code = (work) => work.then(() => 'fine', (error) => error.class + ' ' + error.code)
       say(await code(createAtomicFile(closed + '/x')))
       say(await code(writePrivateFile(closed + '/x', 'x')))
       say(await code(makePrivateDirectory(closed + '/new')))
       say(await code(readPrivateFile(closed + '/secret')))
       say(await code(writePrivateFile(open + '/x', 'x')))`,
    )
    const [closed, open] = [join(directory, 'closed'), join(directory, 'open')]
    await mkdir(closed)
    await writeFile(join(closed, 'secret'), 'x', { mode: 0o600 })
    await chmod(closed, 0o755)
    await mkdir(open)
    await chown(open, NOBODY, NOBODY)
    expect(await runScript(script, [closed, open], { uid: NOBODY }).lines).toEqual([
      'local_io LOCAL_EACCES',
      'local_io LOCAL_EACCES',
      'local_io LOCAL_EACCES',
      'local_io LOCAL_EACCES',
      'fine',
    ])
    expect(await readdir(closed)).toEqual(['secret'])
  })

  test('a file in the place of a directory is a local error', async () => {
    const path = join(await freshDirectory(), 'file')
    await writeFile(path, '')
    await expect(makePrivateDirectory(join(path, 'x'))).rejects.toMatchObject({ class: 'local_io' })
    await expect(readPrivateFile(join(path, 'x'))).rejects.toMatchObject({ code: 'LOCAL_ENOTDIR' })
  })
})

/** A disk of one mebibyte. */
async function tinyDisk(): Promise<string> {
  const path = join(await freshDirectory(), 'disk')
  await mkdir(path)
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', path])
  onTestFinished(() => void execFileSync('umount', [path]))
  return path
}

const canMount = (() => {
  if (!isRoot || process.platform !== 'linux') return false
  try {
    const script = 'd=$(mktemp -d) && mount -t tmpfs -o size=1m tmpfs $d && umount $d; s=$?; rmdir $d; exit $s'
    execFileSync('sh', ['-c', script], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
})()

test.skipIf(!canMount)('a full disk keeps the old version and leaves no half (needs root on Linux)', async () => {
  const disk = await tinyDisk()
  const path = join(disk, 'secret')
  await writePrivateFile(path, 'old')
  const big = new Uint8Array(3 * 1024 * 1024)
  await expect(writePrivateFile(path, big)).rejects.toMatchObject({ class: 'local_io', code: 'LOCAL_ENOSPC' })
  expect(await readFile(path, 'utf8')).toBe('old')
  expect(await readdir(disk)).toEqual(['secret'])
  await writePrivateFile(path, 'new')
  expect(await readFile(path, 'utf8')).toBe('new')
})

describe('a small file put in place', () => {
  const mtime = new Date('2001-02-03T04:05:06Z')
  const times = { atime: mtime, mtime }

  test('is private, has its time, and replaces the old one only at the end', async () => {
    const directory = await freshDirectory()
    const path = join(directory, 'target')
    await writeFile(path, 'old', { mode: 0o666 })
    let seen: string[] = []
    const beforeRename = () => {
      seen = [readFileSync(path, 'utf8'), String(readdirSync(directory).length)]
    }
    await placeFile(path, Buffer.from('new'), { times, beforeRename })
    expect(seen).toEqual(['old', '2'])
    expect(await readFile(path, 'utf8')).toBe('new')
    expect(await modeOf(path)).toBe('600')
    expect((await stat(path)).mtime).toEqual(mtime)
    expect(await readdir(directory)).toEqual(['target'])
  })

  test('refused at the end, or where there is no directory, it leaves nothing', async () => {
    const directory = await freshDirectory()
    const path = join(directory, 'target')
    const refuse = () => {
      throw new Error('refused')
    }
    await expect(placeFile(path, Buffer.from('new'), { times, beforeRename: refuse })).rejects.toThrow('refused')
    expect(await readdir(directory)).toEqual([])
    await mkdir(path)
    const placing = placeFile(path, Buffer.from('new'), { times, beforeRename: () => {} })
    await expect(placing).rejects.toMatchObject({ class: 'local_io', code: 'LOCAL_EISDIR' })
    expect(await readdir(directory)).toEqual(['target'])
    const nowhere = placeFile(join(directory, 'no', 'target'), Buffer.from('new'), { beforeRename: () => {} })
    await expect(nowhere).rejects.toMatchObject({ class: 'local_io', code: 'LOCAL_ENOENT' })
  })
})
