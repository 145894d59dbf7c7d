/** Lists of files and rules: what they name and is not there is told, and what others wrote does not count unseen. */
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { deleteNode, moveNodes, updateFile } from '../../src/api/nodes.ts'
import type { Client } from '../../src/client.ts'
import { createHeldRules } from '../../src/sync/held-rules.ts'
import type { SyncOptions } from '../../src/sync/jobs/pair.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import type { SyncSummary } from '../../src/sync/run-job.ts'
import { createWorld, listFiles, makeTree, type World } from '../support/cli.ts'

let world: World
let anna: Client
beforeAll(async () => {
  world = await createWorld()
  anna = await world.client()
})
afterAll(() => world.close())

let count = 0
const codesOf = ({ failed }: Pick<SyncSummary, 'failed'>) => failed.map(({ path, error }) => [path, error.code])

/** A directory and a place for it, and what others do there. */
/** Not from a directory: there its own rules would count. */
const put = (path: string, text: string, modifiedAt?: number) =>
  anna.put(path, Buffer.from(text), { parents: true, modifiedAt })

function createPair() {
  const name = `pair${++count}`
  const [local, remote, directory] = [world.path(name), `/room/${name}`, world.path(`${name}-state`)]
  mkdirSync(local)
  const run =
    (direction: SyncOptions['direction']) =>
    (options: Partial<SyncOptions> = {}) =>
      anna.sync(local, remote, { direction, state: { directory, account: 'anna' }, ...options })
  const nodeOf = async (path: string) => (await requireRemote(anna.api, `${remote}/${path}`)).node
  return {
    local,
    remote,
    path: (...names: string[]) => join(local, ...names),
    push: run('push'),
    pull: run('pull'),
    both: run('both'),
    async theyPut(files: Record<string, string>) {
      const later = Date.now() + 60_000 * ++count
      for (const [path, text] of Object.entries(files)) await put(`${remote}/${path}`, text, later)
    },
    theyDelete: async (path: string) => deleteNode(anna.api, (await nodeOf(path)).id),
    theyRename: async (path: string, to: string) => updateFile(anna.api, (await nodeOf(path)).id, { name: to }),
    async theyMove(path: string, to: string) {
      const { id, name: own } = await nodeOf(path)
      await moveNodes(anna.api, (await nodeOf(to)).id, [{ id, name: own }], 'fail')
    },
    async there(): Promise<string[]> {
      const look = world.path(`${name}-look-${++count}`)
      await anna.download([remote], look, { contents: true })
      return listFiles(look).filter((file) => !file.endsWith('.syncignore'))
    },
    rules: anna.context.rules!,
  }
}

const waiting = ({ pending = [] }: Pick<SyncSummary, 'pending'>) =>
  pending.map(({ what, name, error }) => [what, name, error.code])
const held = (...paths: string[]) => paths.map((path) => ['rules', path, 'RULES_NOT_ACCEPTED'])

describe('a list of files', () => {
  test('names in any form of their letters; directories with all they hold; each once', async () => {
    const pair = createPair()
    makeTree(pair.local, { '\u00fc.txt': '1', 'd/e/f': '2', 'd/g': '3', other: '4', 'dd/x': '5' })
    const paths = ['u\u0308.txt', './d/', 'd//e/f', 'd']
    expect(await pair.push({ selection: { paths } })).toMatchObject({ transferred: 3, failed: [] })
    expect(await pair.there()).toEqual(['d/e/f', 'd/g', '\u00fc.txt'])
    expect(await pair.push({ selection: { paths: ['.'] } })).toMatchObject({ transferred: 2, failed: [] })
  })

  test('tells what is not there, is left out, or is no path below the directory; the others arrive', async () => {
    const pair = createPair()
    makeTree(pair.local, { a: 'a', 'x.tmp': 'x', 'out/of/it': 'y', large: 'large', '.syncignore': '*.tmp\nout/\n' })
    symlinkSync('a', pair.path('link'))
    const paths = ['a', 'missing', 'a/below', 'x.tmp', 'out/of/it', '../a', '/etc/passwd', 'link', 'large']
    const summary = await pair.push({ selection: { paths, maxSize: 3 } })
    expect(summary).toMatchObject({ transferred: 1 })
    expect(codesOf(summary).sort()).toEqual([
      ['../a', 'PATH_INVALID'],
      ['/etc/passwd', 'PATH_INVALID'],
      ['a/below', 'PATH_MISSING'],
      ['link', 'PATH_MISSING'],
      ['missing', 'PATH_MISSING'],
      ['out/of/it', 'PATH_LEFT_OUT'],
      ['x.tmp', 'PATH_LEFT_OUT'],
    ])
    expect(codesOf(await pair.push({ selection: { paths: ['missing'] }, dryRun: true }))).toEqual([
      ['missing', 'PATH_MISSING'],
    ])
  })

  test('of what is gone here: a push has nothing to send, unless it may delete', async () => {
    const pair = createPair()
    makeTree(pair.local, { a: 'a', b: 'b' })
    await pair.push()
    rmSync(pair.path('b'))
    const selection = { paths: ['a', 'b'] }
    expect(codesOf(await pair.push({ selection }))).toEqual([['b', 'PATH_MISSING']])
    expect(codesOf(await pair.both({ selection }))).toEqual([])
    expect(await pair.pull({ selection })).toMatchObject({ failed: [] })
    rmSync(pair.path('b'), { force: true })
    expect(await pair.push({ selection, delete: true })).toMatchObject({ deleted: 1, failed: [] })
  })

  test('of nothing means nothing', async () => {
    const pair = createPair()
    makeTree(pair.local, { a: 'a' })
    expect(await pair.push({ selection: { paths: [] } })).toMatchObject({ files: 0, transferred: 0, failed: [] })
  })
})

describe('rules that come from others', () => {
  test('do not count before they are accepted: by pull, at any depth; new files are sent all the same', async () => {
    const pair = createPair()
    makeTree(pair.local, { a: 'a', 'sub/b': 'b' })
    await pair.push()
    await pair.theyPut({ '.syncignore': '*.new\n', 'sub/.syncignore': '*\n', 'fresh/.syncignore': '*\n' })
    const all = held('.syncignore', 'fresh/.syncignore', 'sub/.syncignore')
    expect(waiting(await pair.pull()).sort()).toEqual(all)
    makeTree(pair.local, { 'x.new': 'x', 'sub/y': 'y', 'fresh/z': 'z' })
    const sent = await pair.push()
    expect(sent).toMatchObject({ transferred: 3, failed: [] })
    expect(waiting(sent).sort()).toEqual(all)
    expect(await pair.there()).toEqual(['a', 'fresh/z', 'sub/b', 'sub/y', 'x.new'])
    expect(waiting(await pair.push({ dryRun: true })).sort()).toEqual(all)

    expect(await pair.rules.accept(pair.path('sub'))).toHaveLength(1)
    writeFileSync(pair.path('sub/later'), 'later')
    const next = await pair.push()
    expect(waiting(next).sort()).toEqual(held('.syncignore', 'fresh/.syncignore'))
    expect(next).toMatchObject({ transferred: 0 })
    expect(await pair.rules.accept(pair.local)).toHaveLength(2)
    writeFileSync(pair.path('later.new'), 'later')
    expect(waiting(await pair.push())).toEqual([])
    expect(await pair.there()).toEqual(['a', 'fresh/z', 'sub/b', 'sub/y', 'x.new'])
  })

  test('that were changed, moved or deleted leave those from before in force', async () => {
    const own = { '.syncignore': 'secret\n', 'd/.syncignore': 'secret\n', 'e/.syncignore': 'secret\n', 'e/f': 'f' }
    const pair = createPair()
    makeTree(pair.local, { ...own, secret: 's', 'd/secret': 's', 'e/secret': 's' })
    expect(waiting(await pair.both())).toEqual([])
    await pair.theyPut({ '.syncignore': '!secret\n' })
    await pair.theyDelete('d/.syncignore')
    await pair.theyRename('e/.syncignore', 'harmless')
    const all = held('.syncignore', 'd/.syncignore', 'e/.syncignore')
    const options = { delete: true }
    expect(waiting(await pair.both(options)).sort()).toEqual(all)
    expect([existsSync(pair.path('d/.syncignore')), existsSync(pair.path('e/harmless'))]).toEqual([false, true])
    expect(waiting(await pair.both(options)).sort()).toEqual(all)
    expect((await pair.there()).filter((path) => path.endsWith('secret'))).toEqual([])
    // A file of the same text is not waited for.
    writeFileSync(pair.path('d/.syncignore'), 'secret\n')
    expect(waiting(await pair.both(options)).sort()).toEqual(held('.syncignore', 'e/.syncignore'))
  })

  test('come by a new name of a file that was there, and go along with their directory', async () => {
    const pair = createPair()
    makeTree(pair.local, { 'd/e/notes': '*.new\n', 'd/e/f': 'f', 'other/g': 'g' })
    await pair.both()
    await pair.theyRename('d/e/notes', '.syncignore')
    expect(waiting(await pair.both())).toEqual(held('d/e/.syncignore'))
    await pair.theyMove('d/e', 'other')
    await pair.both()
    makeTree(pair.local, { 'other/e/x.new': 'x' })
    const summary = await pair.both()
    expect(waiting(summary)).toEqual(held('other/e/.syncignore'))
    expect(await pair.there()).toContain('other/e/x.new')
  })

  test('wait also where somebody here has moved or copied them', async () => {
    const pair = createPair()
    makeTree(pair.local, { 'd/a': 'a' })
    await pair.both()
    await pair.theyPut({ 'd/.syncignore': '*.new\n' })
    await pair.both()
    renameSync(pair.path('d'), pair.path('renamed'))
    cpSync(pair.path('renamed'), pair.path('copied'), { recursive: true })
    makeTree(pair.local, { 'renamed/x.new': 'x', 'copied/x.new': 'x' })
    expect(waiting(await pair.both()).sort()).toEqual(held('copied/.syncignore', 'renamed/.syncignore'))
    expect((await pair.there()).filter((path) => path.endsWith('.new'))).toEqual(['copied/x.new', 'renamed/x.new'])
    await pair.rules.accept(pair.path('copied'))
    await pair.rules.accept(pair.path('renamed'))
    expect(waiting(await pair.both())).toEqual([])
  })

  test('come by a download into a synchronized directory, and by both sides at once', async () => {
    const pair = createPair()
    makeTree(pair.local, { a: 'a' })
    await pair.push()
    await put('/room/elsewhere/sub/.syncignore', '*\n')
    await anna.download(['/room/elsewhere'], pair.local, { contents: true })
    makeTree(pair.local, { 'sub/x': 'x' })
    expect(waiting(await pair.push())).toEqual(held('sub/.syncignore'))
    expect(await pair.there()).toEqual(['a', 'sub/x'])

    const other = createPair()
    makeTree(other.local, { '.syncignore': 'mine\n', mine: 'm', theirs: 't' })
    await other.theyPut({ '.syncignore': 'theirs\n' })
    const summary = await other.both()
    expect(summary.conflicts).toHaveLength(1)
    expect(waiting(await other.both())).toEqual(held('.syncignore'))
    expect((await other.there()).filter((path) => !path.startsWith('.'))).toEqual(['theirs'])
  })

  test('cannot stop a run by being unreadable or endless', async () => {
    const pair = createPair()
    makeTree(pair.local, { a: 'a' })
    await pair.push()
    await pair.theyPut({ '.syncignore': 'a long line\n'.repeat(100_000), 'b/.syncignore': '\0\ufffd' })
    expect(waiting(await pair.pull()).sort()).toEqual(held('.syncignore', 'b/.syncignore'))
    writeFileSync(pair.path('c'), 'c')
    expect(await pair.push()).toMatchObject({ transferred: 1, failed: [] })
  })

  test('outlive the process; a damaged note stops runs', async () => {
    const [directory, root] = [world.path('notes'), world.path('noted')]
    mkdirSync(root)
    await createHeldRules(directory).hold(root, [{ do: 'download', path: ['.syncignore'] }])
    writeFileSync(join(root, '.syncignore'), '*')
    const later = createHeldRules(directory)
    const found = readFileSync(join(root, '.syncignore'))
    expect(later.look().at(join(root, '.syncignore'), found)).toEqual({ bytes: undefined, isHeld: true })
    const [name] = listFiles(directory)
    copyFileSync(join(directory, name!), world.path('note'))
    writeFileSync(join(directory, name!), '{')
    expect(() => later.look()).toThrow(expect.objectContaining({ class: 'safety', code: 'RULES_LOST' }))
    copyFileSync(world.path('note'), join(directory, name!))
    expect(await later.accept(root)).toHaveLength(1)
    expect(later.look().at(join(root, '.syncignore'), found)).toEqual({ bytes: found, isHeld: false })
  })

  test('by any name that some disk takes for theirs', async () => {
    for (const name of ['.SyncIgnore', '.sync\u200cignore', '.SYNCIGNORE']) {
      const root = world.path(`named-${++count}`)
      makeTree(root, { '.syncignore': 'mine' })
      const rules = createHeldRules()
      await rules.hold(root, [{ do: 'download', path: [name] }])
      writeFileSync(join(root, '.syncignore'), 'theirs')
      expect(rules.list(root)).toHaveLength(1)
    }
  })
})
