import { execFileSync } from 'node:child_process'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { readLocalTree } from '../../src/sync/tree.ts'
import { freshDirectory } from '../support/files.ts'

const onPosix = test.skipIf(process.platform === 'win32')
const paths = (tree: Awaited<ReturnType<typeof readLocalTree>>) => tree.entries.map(({ path }) => path.join('/'))

test.runIf(process.platform === 'linux')(
  'a name that is not UTF-8 is reported, with what is in it, never dropped',
  async () => {
    const root = await freshDirectory()
    const raw = (name: string) => Buffer.concat([Buffer.from(`${root}/`), Buffer.from(name, 'latin1')])
    writeFileSync(raw('file-\xff'), 'x')
    mkdirSync(raw('dir-\xe9'))
    writeFileSync(raw('dir-\xe9/inside'), 'x')
    // What decoding makes of the first: another file.
    writeFileSync(join(root, 'file-\ufffd'), 'x')
    const tree = await readLocalTree([root], { contents: true })
    expect(paths(tree)).toEqual(['file-\ufffd'])
    expect(tree.failures.map(({ error }) => error.code)).toEqual(['NAME_NOT_UTF8', 'NAME_NOT_UTF8'])
  },
)

onPosix('links, FIFOs and sockets are counted and not opened; our own temporary files, too', async () => {
  const root = await freshDirectory()
  writeFileSync(join(root, 'file'), 'x')
  symlinkSync('file', join(root, 'link'))
  symlinkSync('.', join(root, 'loop'))
  symlinkSync('nowhere', join(root, 'dangling'))
  execFileSync('mkfifo', [join(root, 'fifo')])
  const server = createServer().listen(join(root, 'socket'))
  writeFileSync(join(root, '.sealsync-abc.part'), 'x')
  try {
    const tree = await readLocalTree([root], { contents: true })
    expect(paths(tree)).toEqual(['file'])
    expect(tree).toMatchObject({ ignored: 6, failures: [] })
  } finally {
    await new Promise((resolve) => server.close(resolve))
  }
})

onPosix('a source that somebody named may be a link, but no FIFO', async () => {
  const root = await freshDirectory()
  mkdirSync(join(root, 'real'))
  writeFileSync(join(root, 'real', 'f'), 'x')
  symlinkSync('real', join(root, 'link'))
  expect(paths(await readLocalTree([join(root, 'link')]))).toEqual(['link', 'link/f'])
  execFileSync('mkfifo', [join(root, 'fifo')])
  await expect(readLocalTree([join(root, 'fifo')])).rejects.toMatchObject({ class: 'usage', code: 'NOT_A_FILE' })
  await expect(readLocalTree([join(root, 'none')])).rejects.toMatchObject({ class: 'usage', code: 'SOURCE_MISSING' })
})

test('a tree of 300 levels is walked to its end', async () => {
  const root = await freshDirectory()
  const deep = join(root, ...Array.from({ length: 300 }, () => 'd'))
  mkdirSync(deep, { recursive: true })
  writeFileSync(join(deep, 'f'), 'x')
  const tree = await readLocalTree([root], { contents: true })
  expect(tree.failures).toEqual([])
  expect(tree.entries).toHaveLength(301)
  expect(tree.entries.at(-1)!.path).toHaveLength(301)
})

test('parents come before children, whatever the names', async () => {
  const root = await freshDirectory()
  for (const dir of ['b/a', 'a/b', 'a-b', 'a b']) mkdirSync(join(root, dir), { recursive: true })
  const seen = new Set<string>([''])
  for (const { path } of (await readLocalTree([root], { contents: true })).entries) {
    expect(seen.has(path.slice(0, -1).join('/'))).toBe(true)
    seen.add(path.join('/'))
  }
})

test('a directory that vanishes after it was listed is one failure; the others go on', async () => {
  const root = await freshDirectory()
  mkdirSync(join(root, 'gone'))
  writeFileSync(join(root, 'z'), 'x')
  const walking = readLocalTree([root], { contents: true })
  execFileSync('rmdir', [join(root, 'gone')])
  const tree = await walking
  expect(paths(tree)).toEqual(['gone', 'z'])
  expect(tree.failures).toMatchObject([{ path: 'gone', error: { code: 'LOCAL_ENOENT' } }])
})
