/**
 * The documentation does what it says. What kind of block a fence begins decides what is done with it:
 *
 * - `sh` runs: the blocks of a page one after the other, in an empty directory, furnished as SETUPS says.
 * - `shell`, `ini`, `cron` and code in the text cannot run here, as real hosts are in them; their calls of `sync` go through the option
 *   parser of the program, so commands and options exist.
 * - `ts` is compiled against the package; `toml` are settings, and are read as such.
 * - `text` and `json` are what something prints.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, posix } from 'node:path'
import type { Command } from 'commander'
import { CommanderError } from 'commander'
import { afterAll, expect, test } from 'vitest'
import { createProgram, UsageMistake } from '../src/cli/commander.ts'
import type { CommandSpec } from '../src/cli/nouns/command.ts'
import { COMMANDS } from '../src/cli/nouns/index.ts'
import { serverOptions } from '../src/cli/serve-options.ts'
import { accountPassword, createWorld, KEY_PASSWORD, MAIN, makeRoom, type World } from './support/cli.ts'
import { listedCodes } from './support/error-codes.mjs'
import { callsIn, ROOT, readPage, readPages } from './support/pages.ts'
import { freePort } from './support/ports.ts'

const pages = readPages()
const blocksOf = (language: string) =>
  pages.flatMap(({ path, blocks }) =>
    blocks.filter((block) => block.language === language).map((block) => ({ path, ...block })),
  )

async function run(program: string, args: string[], cwd: string, env: NodeJS.ProcessEnv = process.env) {
  const child = spawn(program, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      output += chunk
    })
  }
  const [code] = await once(child, 'close')
  return { code, output }
}

const runnable = pages.filter(({ blocks }) => blocks.some(({ language }) => language === 'sh'))

/** What is there when a page begins: nothing; a login and the directory `photos`; or what First steps leaves. */
const SETUPS: Record<string, 'nothing' | 'login'> = {
  'README.md': 'login',
  'docs/first-steps.md': 'nothing',
  'docs/server.md': 'nothing',
}

/** Pages after which the accounts are not as they were get a server of their own. */
const CHANGES_ACCOUNTS = new Set(['docs/keys-and-sharing.md'])

const worlds = new Map<string, Promise<World>>()
afterAll(async () => {
  for (const world of worlds.values()) await (await world).close()
})
function worldFor(page: string): Promise<World> {
  const name = CHANGES_ACCOUNTS.has(page) ? page : ''
  const world = worlds.get(name) ?? createWorld({ users: ['anna', 'bob', 'carla'] })
  worlds.set(name, world)
  return world
}

/** Makes the directory of a page; one server is that of all pages that do not start their own. */
async function furnish(page: string, work: string, setup: 'nothing' | 'login' | 'room') {
  if (setup === 'nothing') return { url: `http://127.0.0.1:${await freePort()}`, env: {} }
  const { server, client } = await worldFor(page)
  // Without a key pair, as one who begins.
  const user = setup === 'login' ? 'carla' : 'anna'
  const secrets = { 'account-password': accountPassword(user), 'key-password': KEY_PASSWORD }
  for (const [name, text] of Object.entries(secrets)) writeFileSync(join(work, name), `${text}\n`, { mode: 0o600 })
  mkdirSync(join(work, 'photos'))
  writeFileSync(join(work, 'photos/seal.txt'), 'seal\n')
  const anna = await client()
  for (const one of [anna, await client('carla')]) {
    for await (const { path, type } of one.list('/')) {
      if (type === 'room') await one.remove(path, { recursive: true, rooms: true })
    }
  }
  if (setup === 'room') await makeRoom(anna, 'room')
  const env = { SEALSYNC_HOME: join(work, 'home'), SEALSYNC_KEY_PASSWORD_FILE: join(work, 'key-password') }
  const login = ['login', server.url, '--user', user, '--password-file', join(work, 'account-password')]
  const { code, output } = await run(process.execPath, [MAIN, ...login], work, { ...process.env, ...env })
  expect(code, `${page}: ${output}`).toBe(0)
  return { url: server.url, env }
}

test.each(runnable.map(({ path }) => path))('%s runs from top to bottom', async (path) => {
  const base = mkdtempSync(join(tmpdir(), 'sealsync-page-'))
  try {
    const bin = join(base, 'bin')
    const work = join(base, 'work')
    mkdirSync(bin)
    mkdirSync(work)
    writeFileSync(join(bin, 'sync'), `#!/bin/sh\nexec "${process.execPath}" "${MAIN}" "$@"\n`)
    chmodSync(join(bin, 'sync'), 0o755)
    const { url, env } = await furnish(path, work, SETUPS[path] ?? 'room')
    const script = readPage(path)
      .blocks.filter(({ language }) => language === 'sh')
      .map(({ text }) => text)
      .join('\n')
      .replaceAll('http://127.0.0.1:8080', url)
      .replaceAll('--port 8080', `--port ${new URL(url).port}`)
    // Where a command fails the server must not live on: nobody would end it, and its output would be waited for.
    const guarded = `trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n${script}`
    const all = { ...process.env, ...env, PATH: `${bin}:${process.env.PATH}` }
    const { code, output } = await run('bash', ['-euxc', guarded], work, all)
    expect(code, output).toBe(0)
  } finally {
    rmSync(base, { recursive: true, force: true })
  }
})

/** Says what is wrong with the arguments of a call, by the parser that the program itself has. */
async function problemOf(args: readonly string[], isWhole: boolean): Promise<string | undefined> {
  const program = createProgram(args, async () => {})
  const silence = (command: Command) => {
    command.exitOverride().configureOutput({ writeOut: () => {}, writeErr: () => {} })
    for (const one of command.commands) silence(one)
  }
  silence(program)
  try {
    await program.parseAsync(args as string[], { from: 'user' })
  } catch (thrown) {
    const error = thrown instanceof UsageMistake ? thrown.mistake : thrown
    if (!(error instanceof CommanderError)) throw error
    if (error.exitCode === 0 || (!isWhole && /help|missingArgument|commander\.error/i.test(error.code)))
      return undefined
    return error.message
  }
  return undefined
}

const withoutBrackets = (text: string) => text.replaceAll(/[[\]]/g, '')

test('what cannot run here has commands and options that exist', async () => {
  const scripts = [
    ...['sh', 'shell'].flatMap(blocksOf),
    ...blocksOf('ini').map((block) => ({
      ...block,
      text: (block.text.match(/(?<=^Exec\w+=)(?:\\\n|.)*$/gm) ?? []).join('\n'),
    })),
    // The five fields of time come first; an assignment is for all commands, or for one.
    ...blocksOf('cron').map((block) => ({ ...block, text: block.text.replaceAll(/^(?:[\d*/,-]+\s+){5}/gm, '') })),
  ]
  const problems: string[] = []
  let count = 0
  for (const { path, line, text } of scripts) {
    for (const args of callsIn(withoutBrackets(text))) {
      count++
      const problem = await problemOf(args, true)
      if (problem !== undefined) problems.push(`${path}:${line}: sync ${args.join(' ')}: ${problem}`)
    }
  }
  expect(problems).toEqual([])
  expect(count).toBeGreaterThan(80)
})

const namesOf = (specs: readonly CommandSpec[]): string[] =>
  specs.flatMap(({ name, commands = [] }) => [name, ...namesOf(commands)])

/** Long options of other programs that pages speak of. */
const OF_OTHERS = new Set(['--file-system', '--help', '--version'])

test('commands and options in the text exist', async () => {
  const known = new Set(OF_OTHERS)
  const walk = ({ options, commands }: Command) => {
    for (const { long } of options) if (long) known.add(long)
    commands.forEach(walk)
  }
  // Only commands that are mentioned have their options.
  walk(createProgram(namesOf(COMMANDS), async () => {}))
  const problems: string[] = []
  for (const { path, code } of pages.filter((page) => page.path !== 'bench/README.md')) {
    for (const span of code) {
      const option = /^--[a-z][a-z0-9-]*/.exec(span)?.[0]
      if (option !== undefined && !known.has(option)) problems.push(`${path}: ${span}`)
      if (!/^(?:sync|sealsync) [a-z-]/.test(span)) continue
      for (const args of callsIn(withoutBrackets(span).replaceAll(' …', ''))) {
        const problem = await problemOf(args, false)
        if (problem !== undefined) problems.push(`${path}: ${span}: ${problem}`)
      }
    }
  }
  expect(problems).toEqual([])
})

test('blocks say what they are', () => {
  const kinds = new Set(['sh', 'shell', 'ini', 'cron', 'ts', 'js', 'toml', 'text', 'json'])
  for (const { path, blocks } of pages.filter((page) => /^(?:README|docs\/)/.test(page.path))) {
    for (const { language, line } of blocks) expect(kinds, `${path}:${line}: ${language}`).toContain(language)
  }
})

test('links lead somewhere', () => {
  const byPath = new Map(pages.map((page) => [page.path, page]))
  const problems = pages.flatMap(({ path, links }) =>
    links
      .filter((link) => !/^[a-z]+:/.test(link))
      .filter((link) => {
        const [file = '', anchor] = link.split('#')
        const target = file === '' ? path : posix.join(dirname(path), file)
        if (!existsSync(join(ROOT, target))) return true
        return anchor !== undefined && byPath.get(target)?.anchors.has(anchor) !== true
      })
      .map((link) => `${path}: ${link}`),
  )
  expect(problems).toEqual([])
})

test('each page is in the menu of the site', () => {
  const menu = readFileSync(join(ROOT, 'docs/.vitepress/config.mjs'), 'utf8')
  const paths = pages.flatMap(({ path }) => /^docs\/(.*)\.md$/.exec(path)?.[1] ?? [])
  expect(paths.filter((path) => !menu.includes(`'/${path.replace(/(?:index|README)$/, '')}'`))).toEqual([])
})

test('variables that pages name are read by the program', () => {
  const sources = readdirSync(join(ROOT, 'src'), { recursive: true, encoding: 'utf8' })
    .map((name) => join(ROOT, 'src', name))
    .filter((path) => statSync(path).isFile())
    .map((path) => readFileSync(path, 'utf8'))
    .join('\n')
  const ofOptions = readFileSync(join(ROOT, 'docs/options.md'), 'utf8')
  for (const { path, text } of pages.filter((page) => /^(?:README|docs\/)/.test(page.path))) {
    for (const [name] of text.matchAll(/\bSEALSYNC_[A-Z0-9_]*[A-Z0-9]\b/g)) {
      expect(sources.includes(name) || ofOptions.includes(`env ${name})`), `${path}: ${name}`).toBe(true)
    }
  }
})

test('settings that pages show are settings', async () => {
  const base = mkdtempSync(join(tmpdir(), 'sealsync-page-'))
  try {
    const found = blocksOf('toml')
    expect(found.length).toBeGreaterThan(0)
    for (const { path, line, text } of found) {
      const file = join(base, `${line}.toml`)
      writeFileSync(file, text, { mode: 0o600 })
      if (text.startsWith('# /etc/sealsync/server.toml\n')) {
        const options = await serverOptions({ options: { serverConfig: file }, given: {} })
        expect(Object.keys(options).length, `${path}:${line}`).toBe(text.match(/^[a-z-]+ =/gm)!.length + 1)
        continue
      }
      const env = { ...process.env, SEALSYNC_HOME: join(base, 'home') }
      const { code, output } = await run(
        process.execPath,
        [MAIN, 'config', 'show', '--origin', '--config', file],
        base,
        env,
      )
      expect(code, `${path}:${line}: ${output}`).toBe(0)
    }
  } finally {
    rmSync(base, { recursive: true, force: true })
  }
})

test('Troubleshooting says what to do for each error code, once', () => {
  const rows = [...readPage('docs/troubleshooting.md').text.matchAll(/^\| (`[A-Z][^|]*) \|/gm)]
  const codes = rows.flatMap(([, cell]) => cell!.match(/(?<=`)[A-Z0-9_]+(?=`)/g) ?? [])
  const listed = listedCodes(ROOT) as string[]
  expect({
    missing: listed.filter((code) => !codes.includes(code)),
    unknown: codes.filter((code) => !listed.includes(code)),
    twice: codes.filter((code, at) => codes.indexOf(code) !== at),
  }).toEqual({ missing: [], unknown: [], twice: [] })
})

test('figures of the comparison are those of the stored run', () => {
  const { entries } = JSON.parse(readFileSync(join(ROOT, 'bench/results/baseline.json'), 'utf8'))
  const rows = readPage('docs/comparison.md')
    .text.split('\n')
    .filter((line) => /^\| \w.*\d/.test(line))
    .map((line) => line.slice(2, -2).split(/ (?<!\\)\| /))
  expect(rows.length).toBeGreaterThan(10)
  for (const [name, ours, peer, theirs, ratio] of rows) {
    const entry = entries.find(
      (one: { kind: string; name: string; other?: { name: string } }) =>
        one.kind === 'row' && one.name === name && one.other?.name === peer!.replaceAll('\\', ''),
    )
    const written = [ours, theirs, ratio].map((text) => Number.parseFloat(text!))
    const digits = (text: string) => /^\d+\.?(\d*)/.exec(text)![1]!.length
    expect(
      [entry?.ours, entry?.other.value, entry?.ratio.median].map((value, at) =>
        Number(value?.toFixed(digits([ours, theirs, ratio][at]!))),
      ),
      `${name}, ${peer}`,
    ).toEqual(written)
  }
})

test('the README is read in a few minutes', () => {
  const { text } = readPage('README.md')
  expect(text.split('\n').length).toBeLessThanOrEqual(121)
  // What a fresh machine runs.
  expect(text).toMatch(/^npm run demo$/m)
  expect(text).toMatch(/^npm test$/m)
})

test('the code in the pages compiles against the package', async () => {
  // Inside the project, so that its own name resolves.
  const base = mkdtempSync(join(ROOT, 'node_modules', '.pages-'))
  try {
    const snippets = blocksOf('ts')
    expect(snippets.length).toBeGreaterThanOrEqual(8)
    snippets.forEach(({ path, line, text }) => {
      writeFileSync(join(base, `${path.replaceAll(/\W/g, '-')}-${line}.ts`), `${text}\nexport {}\n`)
    })
    writeFileSync(
      join(base, 'tsconfig.json'),
      JSON.stringify({
        compilerOptions: {
          target: 'es2023',
          module: 'nodenext',
          strict: true,
          noEmit: true,
          skipLibCheck: true,
          types: ['node'],
          typeRoots: ['../@types'],
          paths: {
            sealsync: ['../../dist/src/index.d.ts'],
            'sealsync/crypto': ['../../dist/crypto/index.d.ts'],
            'sealsync/session': ['../../dist/src/session/index.d.ts'],
            'sealsync/server': ['../../dist/src/server/index.d.ts'],
          },
        },
        include: ['*.ts'],
      }),
    )
    const { code, output } = await run(
      process.execPath,
      [join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', base],
      base,
    )
    expect(output).toBe('')
    expect(code).toBe(0)
  } finally {
    rmSync(base, { recursive: true, force: true })
  }
})

test('the package offers its entry points by their names', async () => {
  const { code, output } = await run(
    process.execPath,
    [
      '--input-type=module',
      '-e',
      "const a = await import('sealsync'); const b = await import('sealsync/crypto'); console.log(typeof a.createClient, typeof b.unlockKeyPair)",
    ],
    ROOT,
  )
  expect(output.trim()).toBe('function function')
  expect(code).toBe(0)
})

test('a variable that a line of a crontab sets for one command is not needed by the next', () => {
  const lines = blocksOf('cron').flatMap(({ text }) => text.match(/^\d+ \d+ \* \* .*$/gm) ?? [])
  expect(lines.length).toBeGreaterThanOrEqual(3)
  for (const line of lines) expect(line).not.toMatch(/[A-Z_]+=\S+ .*(?:&&|;|\|)/)
})
