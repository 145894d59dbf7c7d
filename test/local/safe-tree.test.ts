import { readdirSync, writeFileSync } from 'node:fs'
import { mkdir, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { createAtomicFile, placeFile } from '../../src/local/atomic-file.ts'
import { createSafeTree } from '../../src/local/safe-tree.ts'
import { foldsCase } from '../../src/local/target.ts'
import { freshDirectory } from '../support/files.ts'

const blocked = expect.objectContaining({ class: 'conflict', code: 'PATH_BLOCKED' })
const swapped = expect.objectContaining({ class: 'safety', code: 'PATH_SWAPPED' })

async function world() {
  const base = await freshDirectory()
  const [root, outside] = [join(base, 'root'), join(base, 'outside')]
  await mkdir(outside)
  return { base, root, outside, tree: createSafeTree(root) }
}

test('directories are made one by one, found again, and may be there already', async () => {
  const { root, tree } = await world()
  expect(tree.ensureDirectory([])).toBe(root)
  expect(tree.ensureDirectory(['a', 'b', 'c'])).toBe(join(root, 'a', 'b', 'c'))
  await mkdir(join(root, 'there'))
  expect(tree.ensureDirectory(['there', 'new'])).toBe(join(root, 'there', 'new'))
  tree.check(['a', 'b', 'c'])
  expect(await readdir(root, { recursive: true })).toEqual(
    expect.arrayContaining(['a', join('a', 'b'), join('a', 'b', 'c'), join('there', 'new')]),
  )
})

test('the root may be reached through a link, since the user named it', async () => {
  const { base, outside } = await world()
  await symlink(outside, join(base, 'link'))
  createSafeTree(join(base, 'link')).ensureDirectory(['a'])
  expect(await readdir(outside)).toEqual(['a'])
})

describe('what stands in the way', () => {
  test('a link to a directory outside, to one inside, and a dangling one', async () => {
    const { root, outside, tree } = await world()
    await mkdir(join(root, 'real'))
    await symlink(outside, join(root, 'out'))
    await symlink(join(root, 'real'), join(root, 'in'))
    await symlink(join(outside, 'none'), join(root, 'dangling'))
    for (const name of ['out', 'in', 'dangling']) {
      expect(() => tree.ensureDirectory([name]), name).toThrow(blocked)
      expect(() => tree.ensureDirectory([name, 'below']), name).toThrow(blocked)
      expect(() => tree.check([name]), name).toThrow(blocked)
    }
    expect(await readdir(outside)).toEqual([])
    expect(await readdir(join(root, 'real'))).toEqual([])
  })

  test('a link further down', async () => {
    const { root, outside, tree } = await world()
    tree.ensureDirectory(['a'])
    await symlink(outside, join(root, 'a', 'b'))
    expect(() => tree.ensureDirectory(['a', 'b', 'c'])).toThrow(blocked)
    expect(await readdir(outside)).toEqual([])
  })

  test('a file', async () => {
    const { root, tree } = await world()
    await writeFile(join(root, 'file'), '')
    expect(() => tree.ensureDirectory(['file'])).toThrow(blocked)
    expect(() => createSafeTree(join(root, 'file'))).toThrow(expect.objectContaining({ class: 'local_io' }))
    expect(() => createSafeTree(join(root, 'file', 'below'))).toThrow(expect.objectContaining({ class: 'local_io' }))
  })
})

describe('what is swapped under our hands', () => {
  const swaps: Record<string, (path: string, outside: string) => Promise<unknown>> = {
    'for a link to the outside': async (path, outside) => {
      await rename(path, `${path}.old`)
      await symlink(outside, path)
    },
    'for another directory': async (path) => {
      await rename(path, `${path}.old`)
      await mkdir(path)
    },
    'for a link to itself': async (path) => {
      await rename(path, `${path}.old`)
      await symlink(`${path}.old`, path)
    },
    'for a file': async (path) => {
      await rename(path, `${path}.old`)
      await writeFile(path, '')
    },
    'for nothing': (path) => rm(path, { recursive: true }),
  }
  for (const [how, swap] of Object.entries(swaps)) {
    test.each([
      ['the directory itself', ['a', 'b', 'c']],
      ['its parent', ['a', 'b']],
      ['the first one', ['a']],
    ])(`%s, ${how}`, async (_which, components) => {
      const { root, outside, tree } = await world()
      tree.ensureDirectory(['a', 'b', 'c'])
      await swap(join(root, ...components), outside)
      expect(() => tree.check(['a', 'b', 'c'])).toThrow(swapped)
      expect(() => tree.ensureDirectory(['a', 'b', 'c'])).toThrow(swapped)
      expect(() => tree.ensureDirectory(['a', 'b', 'c', 'd'])).toThrow(swapped)
      expect(await readdir(outside)).toEqual([])
    })
  }

  test.each(Object.keys(swaps).filter((how) => how !== 'for a link to itself'))('the root, %s', async (how) => {
    const { root, outside, tree } = await world()
    tree.ensureDirectory(['a'])
    await swaps[how]!(root, outside)
    expect(() => tree.check([])).toThrow(swapped)
    expect(() => tree.ensureDirectory(['new'])).toThrow(swapped)
    expect(await readdir(outside)).toEqual([])
  })
})

test('whether case folds is found out without leaving a trace', async () => {
  const directory = await freshDirectory()
  const folds = foldsCase(directory)
  await writeFile(join(directory, 'probe'), '')
  await writeFile(join(directory, 'PROBE'), '')
  expect(await readdir(directory)).toHaveLength(folds ? 1 : 2)
  expect(() => foldsCase(join(directory, 'none'))).toThrow(expect.objectContaining({ code: 'LOCAL_ENOENT' }))
})

describe('directories in use', () => {
  const write = (path: string, confirm?: (fd: number, name: string) => void) =>
    placeFile(path, Buffer.from('plaintext'), { confirm, beforeRename: () => {} })

  test.skipIf(process.platform !== 'linux')('what is done in one stays in it, whatever gets its name', async () => {
    const { root, outside, tree } = await world()
    for (const swap of [(path: string) => symlink(outside, path), (path: string) => mkdir(path)]) {
      const directory = tree.hold(['a', 'b'])
      await rename(join(root, 'a'), join(root, 'moved'))
      await swap(join(root, 'a'))
      await write(directory.at('file'))
      expect(await readFile(join(root, 'moved', 'b', 'file'), 'utf8')).toBe('plaintext')
      directory.release()
      expect(() => tree.hold(['a', 'b'])).toThrow(swapped)
      expect(() => tree.within(['a'], () => {})).toThrow(swapped)
      await rm(join(root, 'a'), { recursive: true })
      await rename(join(root, 'moved'), join(root, 'a'))
      tree.check(['a', 'b'])
    }
    expect(await readdir(outside)).toEqual([])
  })

  test.skipIf(process.platform !== 'linux')(
    'a link that is there a moment too early gets no directory either',
    async () => {
      const { root, outside, tree } = await world()
      tree.ensureDirectory(['a'])
      await symlink(outside, join(root, 'a', 'b'))
      expect(() => tree.hold(['a', 'b'])).toThrow(blocked)
      expect(await readdir(outside)).toEqual([])
    },
  )

  test('many are held and let go: they stay open as long as they are held, and no longer', async () => {
    const { root, tree } = await world()
    const open = () => (process.platform === 'linux' ? readdirSync('/proc/self/fd').length : 0)
    const before = open()
    const first = tree.hold(['first'])
    for (let n = 0; n < 200; n++) tree.within([`d${n % 100}`, 'x'], ({ at }) => writeFileSync(at('f'), String(n)))
    expect(open() - before).toBeLessThan(120)
    writeFileSync(first.at('f'), 'first')
    expect(await readFile(join(root, 'first', 'f'), 'utf8')).toBe('first')
    tree.close()
    writeFileSync(first.at('g'), 'still held')
    first.release()
    first.release()
    expect(await readdir(join(root, 'first'))).toEqual(['f', 'g'])
    expect(open()).toBeLessThanOrEqual(before)
  })

  test('where there are only names: nothing is written before it is sure where it goes', async () => {
    const { root, outside } = await world()
    const tree = createSafeTree(root, 'names')
    const directory = tree.hold(['a'])
    await write(directory.at('right'), directory.confirm)
    await rename(join(root, 'a'), join(root, 'moved'))
    await symlink(outside, join(root, 'a'))
    await expect(write(directory.at('wrong'), directory.confirm)).rejects.toMatchObject({ code: 'PATH_SWAPPED' })
    const file = createAtomicFile(directory.at('wrong'), directory.confirm)
    await expect(file).rejects.toMatchObject({ code: 'PATH_SWAPPED' })
    expect(await readdir(outside)).toEqual([])
    expect(await readdir(join(root, 'moved'))).toEqual(['right'])
  })
})
