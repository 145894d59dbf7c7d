/** What people see at a terminal: bars that leave nothing behind, a cursor that comes back, passwords that nobody reads over a shoulder. */
import { constants } from 'node:os'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { createWorld, KEY_PASSWORD, MAIN, makeTree, type World } from '../support/cli.ts'
import { hasPty, runInPty } from '../support/terminal.ts'

const HIDE = '\u001b[?25l'
const SHOW = '\u001b[?25h'

describe.runIf(hasPty)('at a terminal', () => {
  let world: World
  beforeAll(async () => {
    world = await createWorld()
    makeTree(world.path('tree'), { large: Buffer.alloc(20_000_000, 'x'), '写真.txt': 'small', other: 'other' })
  })
  afterAll(() => world.close())
  afterEach(() => world.server.faults.clear())

  const start = (args: readonly string[], env: Record<string, string> = {}, size?: readonly [number, number]) =>
    runInPty([process.execPath, MAIN, ...args], { SEALSYNC_HOME: world.home, ...env }, size)
  const key = () => ['--key-password-file', world.keyPasswordFile]
  /** Parts do not get through. */
  const hold = () => world.server.faults.add({ on: { method: 'PUT', path: '.' }, times: 1000, do: { hold: true } })
  const isShown = (output: string) => output.lastIndexOf(SHOW) > output.lastIndexOf(HIDE)

  test('bars come, and go with nothing left but what there is to say', async () => {
    world.server.faults.add({ on: { method: 'GET', path: '/v4/nodes' }, times: 1000, do: { hold: true } })
    const run = start(['upload', world.path('tree'), '/room', ...key()])
    await run.until((output) => output.includes('looking at both sides'))
    world.server.faults.clear()
    expect(await run.ended()).toEqual({ code: 0, echo: true })
    const output = run.output()
    expect(output).toContain(HIDE)
    expect(isShown(output)).toBe(true)
    const last = output.slice(output.lastIndexOf('\u001b[J')).replace(/\u001b\[[?\d]*[a-zA-Z]/g, '')
    expect(last).toMatch(/^3 files: 3 transferred[^\n]*\r?\n$/)
  })

  test.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)('%s: the cursor is there again', async (name) => {
    hold()
    const run = start(['upload', world.path('tree'), `/room/${name}`, ...key()])
    await run.until((output) => output.includes('  0%'))
    await world.server.faults.until(1)
    expect(isShown(run.output())).toBe(false)
    run.tell({ signal: constants.signals[name] })
    const { code } = await run.ended()
    expect(code).toBe(128 + constants.signals[name])
    expect(isShown(run.output())).toBe(true)
  })

  test('a second signal ends at once, and the cursor is there, too', async () => {
    hold()
    const run = start(['upload', world.path('tree'), '/room/twice', ...key()])
    await run.until((output) => output.includes('  0%'))
    run.tell({ signal: constants.signals.SIGINT })
    run.tell({ signal: constants.signals.SIGINT })
    expect((await run.ended()).code).toBe(130)
    expect(isShown(run.output())).toBe(true)
  })

  test('a window that becomes narrower: lines are as wide as it is, and what stood there is gone', async () => {
    hold()
    const run = start(['upload', world.path('tree'), '/room/resize', ...key()], {}, [120, 24])
    await run.until((output) => output.includes('of 20.0 MB  tree/large'))
    const before = run.output().length
    run.tell({ resize: [30, 24] })
    await run.until((output) => output.slice(before).includes('\r\u001b[J'))
    run.tell({ signal: constants.signals.SIGINT })
    await run.ended()
    // The two lines of before take several rows now: it goes up over all of them.
    expect(run.output().slice(before)).toMatch(/\u001b\[[3-9]A\r\u001b\[J/)
  })

  test.each([{ TERM: 'dumb' }, { CI: '1' }])('%o: no bars, and nothing that a terminal would obey', async (env) => {
    const run = start(['upload', world.path('tree'), `/room/${Object.keys(env)[0]}`, ...key()], env)
    expect((await run.ended()).code).toBe(0)
    expect(run.output()).not.toContain('\u001b')
  })

  test('without color the bars are there', async () => {
    const run = start(['upload', world.path('tree'), '/room/no-color', ...key()], { NO_COLOR: '1' })
    expect((await run.ended()).code).toBe(0)
    expect(run.output()).toContain('░')
    expect(run.output()).not.toMatch(/\u001b\[[\d;]*m/)
  })

  test('a password that is typed before it is asked for is not shown, and is the answer', async () => {
    const run = start(['cat', '/room/tree/other'])
    run.tell({ hidden: `${KEY_PASSWORD}\r` })
    expect(await run.ended()).toEqual({ code: 0, echo: true })
    expect(run.output()).toContain('other')
    expect(run.output()).not.toContain('ssword\r')
    expect(run.output()).not.toContain(KEY_PASSWORD)
  })

  test('a question has its place among the bars', async () => {
    const run = start(['download', '/room/tree', world.path('down')])
    await run.until((output) => output.includes('Encryption password'))
    run.tell({ send: 'wrong\r' })
    expect(await run.ended()).toMatchObject({ code: 13, echo: true })
    expect(isShown(run.output())).toBe(true)
    expect(run.output()).not.toContain('wrong\r')
  })

  test('in the background nothing is done to the terminal, and nobody is stopped', async () => {
    const script = `"$0" "$1" ls / & wait $!`
    const run = runInPty(['bash', '-mc', script, process.execPath, MAIN], { SEALSYNC_HOME: world.home })
    expect(await run.ended()).toEqual({ code: 0, echo: true })
    expect(run.output()).toContain('room/')
  })
})
