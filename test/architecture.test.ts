import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { parseAst } from 'vitest/node'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

function sources(dir: string): string[] {
  return readdirSync(join(ROOT, dir), { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory() ? sources(join(dir, entry.name)) : entry.name.endsWith('.ts') ? [join(dir, entry.name)] : [],
  )
}

const files = [...sources('crypto'), ...sources('src')]

/** Specifiers of all imports and re-exports, also of types and dynamic ones. */
function importsOf(file: string): { specifier: string }[] {
  const text = readFileSync(join(ROOT, file), 'utf8')
  const found: { specifier: string }[] = []
  for (const match of text.matchAll(/^\s*(?:import|export)\s+(?:type\s+)?(?:[^'"]*?\sfrom\s+)?'([^']+)'/gm)) {
    found.push({ specifier: match[1]! })
  }
  for (const match of text.matchAll(/\bimport\(\s*'([^']+)'\s*\)/g)) found.push({ specifier: match[1]! })
  return found
}

const toLocal = (file: string, specifier: string) => relative(ROOT, resolve(ROOT, dirname(file), specifier))

/** The layer of a file. */
function layerOf(file: string): string {
  if (file === 'crypto/errors.ts' || file === 'crypto/error-codes.ts') return 'errors'
  // Login arithmetic and the byte tools it uses; the session may have them, the rest of crypto/ it may not.
  if (file === 'crypto/srp.ts' || file === 'crypto/bytes.ts') return 'srp'
  if (file.startsWith('crypto/')) return 'crypto'
  const [, second, third] = file.split('/')
  if (third !== undefined) return second!
  const name = second!.replace('.ts', '')
  return ['errors', 'environment', 'fingerprint', 'version'].includes(name) ? 'errors' : name
}

const LEAVES = ['errors', 'local']
const MAY_IMPORT: Record<string, string[]> = {
  errors: ['errors'],
  crypto: ['crypto', 'srp', 'errors'],
  local: LEAVES,
  http: ['http', ...LEAVES],
  session: ['session', 'http', 'srp', ...LEAVES],
  srp: ['srp', 'errors'],
  api: ['api', 'session', 'http', 'crypto', ...LEAVES],
  transfer: ['transfer', 'api', 'http', 'crypto', ...LEAVES],
  sync: ['sync', 'transfer', 'api', 'crypto', ...LEAVES],
  client: ['client', 'sync', 'transfer', 'api', 'session', 'http', 'crypto', ...LEAVES],
  server: ['server', ...LEAVES],
  'share-page': ['share-page', 'crypto', ...LEAVES],
  cli: ['cli', 'client', 'sync', 'transfer', 'api', 'session', 'server', 'crypto', ...LEAVES],
  index: ['client', 'sync', 'transfer', 'api', 'session', 'http', 'crypto', ...LEAVES],
}

test('imports go one way only', () => {
  expect(files.length).toBeGreaterThan(60)
  const wrong: string[] = []
  for (const file of files) {
    const layer = layerOf(file)
    for (const { specifier } of importsOf(file)) {
      if (!specifier.startsWith('.')) continue
      const target = toLocal(file, specifier)
      if (!MAY_IMPORT[layer]?.includes(layerOf(target))) wrong.push(`${file} → ${target}`)
    }
  }
  expect(wrong).toEqual([])
})

/** What others may import too, and so all that the command line needs. `client/index.ts` is without ways to log in. */
const ENTRY_POINTS = [
  'src/index.ts',
  'src/client/index.ts',
  'crypto/index.ts',
  'src/session/index.ts',
  'src/server/index.ts',
]

test('the command line imports public entry points and leaves only', () => {
  const behind = files.filter(
    (file) =>
      file.startsWith('src/cli/') &&
      importsOf(file).some(({ specifier }) => {
        if (!specifier.startsWith('.')) return false
        const target = toLocal(file, specifier)
        return !['cli', ...LEAVES].includes(layerOf(target)) && !ENTRY_POINTS.includes(target)
      }),
  )
  expect(behind).toEqual([])
})

test('there are no cycles, not of types either', () => {
  const edges = new Map(
    files.map((file) => [
      file,
      importsOf(file)
        .filter(({ specifier }) => specifier.startsWith('.'))
        .map(({ specifier }) => toLocal(file, specifier)),
    ]),
  )
  const done = new Set<string>()
  const visit = (file: string, path: string[]): void => {
    expect(path, `cycle: ${[...path, file].join(' → ')}`).not.toContain(file)
    if (done.has(file)) return
    for (const next of edges.get(file) ?? []) visit(next, [...path, file])
    done.add(file)
  }
  for (const file of files) visit(file, [])
})

test('what may be imported only in one place is imported only there', () => {
  const users = (name: string) =>
    files.filter((file) =>
      importsOf(file).some(({ specifier }) => specifier === name || specifier.startsWith(`${name}/`)),
    )
  expect(users('node-forge')).toEqual(['crypto/primitives/forge.ts'])
  expect(users('undici').every((file) => file.startsWith('src/http/'))).toBe(true)
  expect(users('lmdb').every((file) => file.startsWith('src/server/'))).toBe(true)
  expect(users('oauth4webapi').every((file) => file.startsWith('src/session/'))).toBe(true)
  expect(users('commander').every((file) => file.startsWith('src/cli/'))).toBe(true)
  const cryptoWithNode = files.filter(
    (file) => file.startsWith('crypto/') && importsOf(file).some(({ specifier }) => specifier.startsWith('node:')),
  )
  expect(cryptoWithNode).toEqual(['crypto/primitives/node.ts'])
})

test('the server has no way to decrypt', () => {
  for (const file of files.filter((name) => name.startsWith('src/server/'))) {
    for (const { specifier } of importsOf(file)) {
      expect(specifier, file).not.toMatch(/crypto\/(?!errors\.ts)/)
      expect(specifier, file).not.toMatch(/^(node-forge|@noble)/)
    }
    expect(readFileSync(join(ROOT, file), 'utf8'), file).not.toMatch(/createDecipheriv|privateDecrypt/)
  }
})

test('nothing dangerous is used, and the console and raw randomness only where they belong', () => {
  for (const file of files) {
    const text = readFileSync(join(ROOT, file), 'utf8').replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '')
    expect(text, file).not.toMatch(/\beval\(|new Function\(|\bexecSync?\(|Math\.random|console\.|shell: true/)
    if (!file.startsWith('src/local/') && !file.startsWith('src/server/') && !file.startsWith('src/cli/')) {
      expect(text, file).not.toMatch(/\bwriteFile(Sync)?\(/)
    }
  }
})

const MOST_LINES = 80
/** Functions that are still longer; the list only gets shorter. */
const LONGER: readonly string[] = []

interface AstNode {
  readonly type: string
  readonly start: number
  readonly end: number
}

const isNode = (value: unknown): value is AstNode =>
  typeof value === 'object' && value !== null && 'type' in value && typeof value.type === 'string'

/** All functions in a file with their own lines: without those of functions within them, which count for themselves. */
function functionsIn(file: string): { readonly name: string; readonly own: number }[] {
  const text = readFileSync(join(ROOT, file), 'utf8')
  const breaks = [...text.matchAll(/\n/g)].map(({ index }) => index)
  const lineAt = (offset: number) => {
    let [from, to] = [0, breaks.length]
    while (from < to) {
      const middle = (from + to) >> 1
      if (breaks[middle]! < offset) from = middle + 1
      else to = middle
    }
    return from
  }
  const found: { readonly name: string; readonly own: number }[] = []
  /** @returns the lines below it that belong to functions. */
  const visit = (value: unknown, name: string): number => {
    if (Array.isArray(value)) return value.reduce((sum, one) => sum + visit(one, name), 0)
    if (!isNode(value)) return 0
    const { id, key, ...parts } = value as AstNode & { id?: unknown; key?: unknown }
    const named = [id, key].find((one) => isNode(one) && one.type === 'Identifier') as { name?: string } | undefined
    const called = named?.name ?? name
    const inner = Object.values(parts).reduce<number>((sum, one) => sum + visit(one, called), visit(key, called))
    if (!/Function/.test(value.type) || value.type.startsWith('TS')) return inner
    // The line on which a function begins is also one of that which it is in.
    const below = lineAt(value.end) - lineAt(value.start)
    found.push({ name: called, own: below + 1 - inner })
    return below
  }
  visit(parseAst(text, { lang: 'ts' }, file), '')
  return found
}

test('no function has more lines of its own than one can keep in mind', () => {
  const all = files.flatMap((file) => functionsIn(file).map((one) => ({ ...one, file })))
  expect(all.length).toBeGreaterThan(2_000)
  const longer = all.filter(({ own }) => own > MOST_LINES)
  expect(longer.map(({ file, name }) => `${file} ${name}`)).toEqual(LONGER)
})

/** Where everything is declared that a file exports, or one name of it: `FILE NAME`, and whether a comment stands above. */
function exportsOf(file: string, wanted?: string): Map<string, boolean> {
  const text = readFileSync(join(ROOT, file), 'utf8')
  const found = new Map<string, boolean>()
  const declared = /(\*\/\s*)?^export (?:async )?(?:function\*?|const|class|interface|type) (\w+)/gm
  for (const [, comment, name] of text.matchAll(declared)) {
    if (wanted === undefined || wanted === name) found.set(`${file} ${name}`, comment !== undefined)
  }
  for (const [, names, target] of text.matchAll(/^export (?:type )?(\*|\{[^}]*\}) from '(\.[^']+)'/gm)) {
    const pairs = [...names!.matchAll(/(\w+)(?: as (\w+))?(?=\s*[,}])/g)].filter(
      ([, name, alias = name]) => wanted === undefined || wanted === alias,
    )
    const inside = names === '*' ? [wanted] : pairs.map(([, name]) => name)
    for (const name of inside) for (const one of exportsOf(toLocal(file, target!), name)) found.set(...one)
  }
  return found
}

test('all that is exported says what it is', () => {
  const all = new Map(ENTRY_POINTS.flatMap((file) => [...exportsOf(file)]))
  expect(all.size).toBeGreaterThan(250)
  const bare = [...all].filter(([, isDocumented]) => !isDocumented)
  expect(bare.map(([place]) => place)).toEqual([])
})
