/**
 * The command line as it is installed: put together from few files. Everything that is looked for beside a file, loaded on demand, or has
 * native parts must still be found.
 */
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createWorld, makeTree, runProgram, type World } from '../support/cli.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

let world: World
let installed: string
let main: string
beforeAll(async () => {
  world = await createWorld()
  // Inside the project, so that packages are found as beside an installed one.
  installed = mkdtempSync(join(ROOT, 'node_modules', '.package-'))
  const bin = join(installed, 'dist/bin')
  const { status, stderr } = spawnSync(process.execPath, [join(ROOT, 'build.mjs'), '--bin', bin], { encoding: 'utf8' })
  expect(status, stderr).toBe(0)
  main = join(bin, 'main.js')
})
afterAll(async () => {
  await world?.close()
  rmSync(installed, { recursive: true, force: true })
})

const run = (args: readonly string[], node: readonly string[] = []) =>
  runProgram(process.execPath, [...node, main, ...args], {
    PATH: process.env.PATH ?? '',
    SEALSYNC_HOME: world.home,
    SEALSYNC_RETRY_FOR: '5s',
  })

test('knows its version, and lists its commands', async () => {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
  expect((await run(['--version'])).stdout).toBe(`${version}\n`)
  expect((await run(['--help'])).stdout).toContain('Exit codes:')
  expect((await run(['keys', 'list', '--help'])).stdout).toContain('sync help connection')
  expect((await run(['help', 'connection'])).stdout).toContain('--connect-timeout')
})

test('every command finds what it loads', async () => {
  const key = ['--key-password-file', world.keyPasswordFile]
  makeTree(world.path('tree'), { 'a/b': 'small', large: randomBytes(40_000_000) })
  const steps: [string[], number][] = [
    [['whoami'], 0],
    [['upload', world.path('tree'), '/room', ...key], 0],
    [['ls', '-l', '/room/tree'], 0],
    [['download', '/room/tree', world.path('back'), ...key], 0],
    [['diff', world.path('tree'), '/room/tree', ...key], 0],
    [['push', world.path('tree'), '/room/pushed', ...key], 0],
    [['plan', 'push', world.path('tree'), '/room/pushed', ...key], 0],
    [['runs'], 0],
    [['keys', 'list'], 0],
    [['session', 'show'], 0],
    [['profile', 'list'], 0],
    [['config', 'check'], 0],
    [['rules', 'list', world.path('tree')], 0],
    [['backup', 'list', 'none', ...key], 2],
    [['serve', 'check', '--data', world.path('nothing-here')], 2],
    [['bench', '--size', 'x'], 2],
    [['doctor', 'http://127.0.0.1:1'], 5],
  ]
  for (const [args, code] of steps) {
    const done = await run(args)
    expect(done.code, `${args.join(' ')}: ${done.stderr}`).toBe(code)
    expect(done.stderr).not.toContain('Unexpected')
  }
  const same = (path: string) =>
    readFileSync(world.path('tree', path)).equals(readFileSync(world.path('back/tree', path)))
  expect([same('a/b'), same('large')]).toEqual([true, true])
})

test('threads are found beside it, and the licenses of what it has taken', () => {
  const files = readdirSync(join(installed, 'dist/bin'))
  for (const name of ['encryption-worker.js', 'decryption-worker.js', 'LICENSES.txt']) expect(files).toContain(name)
  const licenses = readFileSync(join(installed, 'dist/bin/LICENSES.txt'), 'utf8')
  const { dependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
  const taken = [...licenses.matchAll(/^(\S+) \d+\.\d+\.\d+ \(.*\)$/gm)].map((match) => match[1]!)
  expect(taken).toEqual(expect.arrayContaining(['commander', 'undici']))
  // What is taken along in a dependency has a text, too.
  const ofOurs = taken.filter((name) => name in dependencies)
  for (const name of ofOurs) expect(existsSync(join(ROOT, 'node_modules', name))).toBe(true)
})

test('the page behind links is in it, and not as sources', () => {
  const page = readdirSync(join(installed, 'dist/share-page'))
  for (const name of ['index.html', 'config.json', 'LICENSES.txt']) expect(page).toContain(name)
  expect(page.filter((name) => name.endsWith('.js')).length).toBeGreaterThan(1)
  expect(existsSync(join(installed, 'dist/src/share-page'))).toBe(false)
})

test('starts without what only some commands need', async () => {
  const trace = join(installed, 'trace.cjs')
  writeFileSync(
    trace,
    `const { writeSync } = require('node:fs')
     process.on('exit', () => { for (const path of Object.keys(require.cache)) writeSync(2, 'loaded ' + path + '\\n') })`,
  )
  const loadedBy = async (...args: string[]) =>
    (await run(args, ['--require', trace])).stderr
      .split('\n')
      .filter((line) => line.startsWith('loaded ') && !line.includes('trace.cjs'))
      .map((line) => line.replace(/.*[\\/]/, ''))
  const help = await loadedBy('--help')
  expect(help.length).toBeGreaterThan(1)
  expect(help.length).toBeLessThanOrEqual(6)
  const list = await loadedBy('ls', '/')
  expect(list).toContain('main.js')
  expect(list.length).toBeLessThanOrEqual(22)
})

test('a link called sync finds it', () => {
  const bin = world.path('bin')
  mkdirSync(bin)
  symlinkSync(main, join(bin, 'sync'))
  const { status, stdout } = spawnSync(join(bin, 'sync'), ['--version'], { encoding: 'utf8' })
  expect(status).toBe(0)
  expect(stdout).toMatch(/^\d+\.\d+\.\d+\n$/)
})
