/** keys rescue and keys drill as people call them: papers, exit codes, secrets that go nowhere else. @module */
import { mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type CliOptions, createWorld, KEY_PASSWORD, makeRoom, makeTree, type World } from '../support/cli.ts'
import { errorOf } from '../support/servers.ts'

let world: World
const PASSWORD = ['--key-password-file']
beforeAll(async () => {
  world = await createWorld()
  const anna = await world.client()
  await makeRoom(anna, 'plain', false)
  for (const name of ['a', 'b']) await anna.put(`/room/${name}`, Buffer.from(`content of ${name}`))
  PASSWORD.push(world.keyPasswordFile)
})
afterAll(() => world.close())

const cli = (args: readonly string[], options?: CliOptions) => world.cli(['keys', ...args], options)
let count = 0
const fresh = () => mkdtempSync(join(world.base, `rescue-${++count}-`))

/** What is printed on a page, line by line. */
const linesOn = (path: string): string[] =>
  [...readFileSync(path, 'utf8').matchAll(/^(?: {3})?\d+: ((?:[0-9A-Z]{1,4} ?)+)$/gm)].map(([, line]) => line!)

/** Letters that no output may have. */
const groupsOf = (lines: readonly string[]) =>
  lines.flatMap((line) => line.split(' ')).filter(({ length }) => length === 4)

test('the way from a lost password to a new one: paper, drill, restore', async () => {
  const place = fresh()
  const paper = join(place, 'rescue.html')
  const made = await cli([
    ...['rescue', 'create', '--container', place, '--store', '/plain', '--paper', paper, '--json', ...PASSWORD],
  ])
  expect([made.code, made.stderr]).toEqual([0, expect.stringContaining('print it, then remove the file')])
  const [key] = made.json as [{ keyId: string; keyPairs: { fingerprint: string }[]; places: { path: string }[] }]
  expect(key).toMatchObject({ type: 'rescue-key', user: 'anna', paper, shares: null })
  expect(statSync(paper).mode & 0o777).toBe(0o600)
  const page = readFileSync(paper, 'utf8')
  for (const words of [
    'SECRET',
    key.keyId,
    key.keyPairs[0]!.fingerprint.slice(0, 4),
    '<svg',
    'keys rescue restore',
    'anna',
  ]) {
    expect(page).toContain(words)
  }
  // A page that nothing is loaded into, and nothing runs in.
  expect(page).toContain(`default-src 'none'`)
  expect(page).not.toMatch(/<script|src=|href=|@import|url\(/i)
  const lines = linesOn(paper)
  expect(lines).toHaveLength(5)
  for (const group of groupsOf(lines)) expect(made.stdout + made.stderr).not.toContain(group)

  // The paper was copied by hand into a private file.
  const typed = join(place, 'typed')
  writeFileSync(typed, lines.join('\n'), { mode: 0o600 })
  const drill = await cli(['drill', '--paper', typed, '--report', join(place, 'report.json'), '--json'])
  expect([drill.code, drill.json.at(-1)]).toEqual([
    0,
    expect.objectContaining({ sampled: 2, isRight: true, exitCode: 0 }),
  ])
  expect(JSON.parse(readFileSync(join(place, 'report.json'), 'utf8'))).toMatchObject({
    format: 'sealsync-rescue-drill',
    key: key.keyId,
    isRight: true,
  })
  const next = join(place, 'next')
  writeFileSync(next, 'Quite another one 17!\n', { mode: 0o600 })
  const restored = await cli([
    ...['rescue', 'restore', '--paper', typed, '--store', key.places[1]!.path],
    ...['--new-key-password-file', next, '--json'],
  ])
  expect([restored.code, restored.json[0]]).toEqual([0, expect.objectContaining({ type: 'rescued', keyId: key.keyId })])
  const anna = await world.client()
  await anna.keys.tryPassword('Quite another one 17!')
  expect(await errorOf(anna.keys.tryPassword(KEY_PASSWORD))).toMatchObject({ code: 'KEY_PASSWORD_WRONG' })
  const back = join(place, 'back')
  writeFileSync(back, `${KEY_PASSWORD}\n`, { mode: 0o600 })
  const copy = await cli([
    ...['rescue', 'restore', '--paper', typed, '--container', key.places[0]!.path, '--new-key-password-file', back],
  ])
  expect([copy.code, copy.stderr]).toEqual([0, expect.stringContaining('fingerprint on the paper')])
  for (const { stdout, stderr } of [drill, restored, copy]) {
    for (const group of groupsOf(lines)) expect(stdout + stderr).not.toContain(group)
  }
})

describe('what is wrong is told', () => {
  test('without a terminal the paper goes to a file, a new one, or nowhere', async () => {
    const place = fresh()
    const create = (...args: string[]) => cli(['rescue', 'create', '--container', place, ...args, ...PASSWORD])
    for (const [args, code, words] of [
      [[], 2, '--paper FILE.html'],
      [['--json'], 2, '--paper FILE.html'],
      [['--paper', join(place, 'none', 'x.html')], 10, 'x.html'],
      [['--paper', world.keyPasswordFile], 12, 'exists already'],
      [['--paper', join(place, 'p'), '--split', '3of5'], 2, 'K-of-N'],
      [['--paper', join(place, 'p'), '--split', '4-of-3'], 2, 'K of N'],
      [['--paper', join(place, 'p'), '--room', '/room'], 2, '--room goes without'],
    ] as const) {
      const { code: exit, stderr } = await create(...args)
      expect([exit, stderr], args.join(' ')).toEqual([code, expect.stringContaining(words)])
    }
    expect(readdirSync(place)).toEqual([])
  })

  test('a wrong letter names its line, shares their set, and files that others can read are refused', async () => {
    const place = fresh()
    const paper = join(place, 'shares.txt')
    const made = await cli([
      'rescue',
      'create',
      '--container',
      place,
      '--paper',
      paper,
      '--split',
      '2-of-3',
      ...PASSWORD,
    ])
    expect([made.code, made.stderr]).toEqual([0, expect.stringContaining('has 3 sheets')])
    const sheets = readFileSync(paper, 'utf8').split('\f')
    expect(sheets).toHaveLength(3)
    expect(sheets[1]).toMatch(/Share: +2 of 3, of set [0-9a-f]{8}; 2 of them are needed/)
    const files = sheets.map((sheet, at) => {
      const path = join(place, `share ${at + 1}`)
      // All that is on the sheet, as somebody scans it.
      writeFileSync(path, sheet, { mode: 0o600 })
      return path
    })
    const drill = (...papers: string[]) =>
      cli(['drill', '--files', '1', ...papers.flatMap((path) => ['--paper', path])])
    expect((await drill(files[2]!, files[0]!)).code).toBe(0)
    const few = await drill(files[1]!)
    expect([few.code, few.stderr]).toEqual([2, expect.stringContaining('1 different shares, and 2 are needed')])
    const wrong = join(place, 'wrong')
    const sheet = sheets[0]!.replace(/^( {3}4: )(.)/m, (_, head, letter) => `${head}${letter === 'A' ? 'B' : 'A'}`)
    writeFileSync(wrong, sheet, { mode: 0o600 })
    const misread = await drill(wrong, files[1]!)
    expect([misread.code, misread.stderr]).toEqual([2, expect.stringContaining('Line 4 of the rescue text')])
    writeFileSync(join(place, 'open'), sheets[0]!, { mode: 0o644 })
    expect((await drill(join(place, 'open'), files[1]!)).stderr).toContain('chmod 600')
    const none = await cli(['drill'])
    expect([none.code, none.stderr]).toEqual([2, expect.stringContaining('--paper FILE')])
  })
})

describe('rescue keys of the server', () => {
  test('one that appears by itself gets nothing and is told (7), until its fingerprint was compared', async () => {
    const place = fresh()
    const paper = join(place, 'room.html')
    const made = await world.cli([...['room', 'create', '/guarded', '--rescue', 'paper', '--paper', paper, '--json']])
    expect([made.code, made.stderr]).toEqual([0, expect.any(String)])
    const [{ rescueKey }] = made.json as [{ rescueKey: { fingerprint: string } }]
    expect(linesOn(paper)).toHaveLength(4)
    expect(readFileSync(paper, 'utf8')).toMatch(/([0-9A-Z]{4}-){8}rk1/)
    makeTree(join(place, 'up'), { x: 'content of x' })
    // Here it was made, so it is trusted; for another machine it appears by itself.
    const home = fresh()
    const elsewhere = (args: readonly string[]) => world.cli(args, { env: { SEALSYNC_HOME: home } })
    const login = ['login', world.server.url, '--user', 'anna', '--password-file', world.path('password-anna')]
    expect((await elsewhere(login)).code).toBe(0)
    const up = await elsewhere(['upload', join(place, 'up', 'x'), '/guarded', '--json', ...PASSWORD])
    expect([up.code, up.json.at(-1)]).toEqual([
      7,
      expect.objectContaining({ transferred: 1, pending: [expect.objectContaining({ code: 'RESCUE_KEY_NEW' })] }),
    ])
    expect((await elsewhere(['keys', 'distribute', ...PASSWORD])).code).toBe(7)
    const list = await elsewhere(['keys', 'rescue', 'list', '--json'])
    expect(list.json).toEqual([
      expect.objectContaining({ of: 'room', room: 'guarded', state: 'new', fingerprint: rescueKey.fingerprint }),
    ])
    const [{ userId }] = (await elsewhere(['keys', 'list', '--json'])).json.filter((row) => row.isRescueKey) as [
      { userId: number },
    ]
    // Not by its id alone, and not by another fingerprint.
    const blind = await elsewhere(['keys', 'trust', `id:${userId}`])
    expect([blind.code, blind.stderr]).toEqual([2, expect.stringContaining('keys rescue trust')])
    const other = await elsewhere(['keys', 'rescue', 'trust', '0'.repeat(64)])
    expect([other.code, other.stderr]).toEqual([2, expect.stringContaining('no rescue key with this fingerprint')])
    const grouped = rescueKey.fingerprint.match(/.{4}/g)!
    expect((await elsewhere(['keys', 'rescue', 'trust', ...grouped])).code).toBe(0)
    const handed = await elsewhere(['keys', 'distribute', '--json', ...PASSWORD])
    expect([handed.code, handed.json.at(-1)]).toEqual([0, expect.objectContaining({ handedOut: 1, refused: [] })])
    expect((await elsewhere(['keys', 'rescue', 'list', '--json'])).json).toEqual([
      expect.objectContaining({ state: 'trusted' }),
    ])
    // Revoked, it counts as new again.
    expect((await elsewhere(['keys', 'rescue', 'revoke', rescueKey.fingerprint])).code).toBe(0)
    makeTree(join(place, 'up'), { y: 'content of y' })
    expect((await elsewhere(['upload', join(place, 'up', 'y'), '/guarded', ...PASSWORD])).code).toBe(7)

    // With the paper of the room its files open.
    const typed = join(place, 'typed')
    writeFileSync(typed, linesOn(paper).join('\n'), { mode: 0o600 })
    expect((await cli(['distribute', ...PASSWORD])).code).toBe(0)
    const drill = await cli(['drill', '--room', '/guarded', '--paper', typed, '--json'])
    expect([drill.code, drill.json.at(-1)]).toEqual([0, expect.objectContaining({ sampled: 2, isRight: true })])
    const wrong = await cli(['drill', '--paper', typed])
    expect([wrong.code, wrong.stderr]).toEqual([2, expect.stringContaining('Name the room')])
  })
})
