/** The tool by which most tests run commands: a process that has ended is not asked, whenever and however it did. */
import { afterAll, expect, test } from 'vitest'
import { freshDirectory } from '../support/files.ts'
import { createWarmCli, type WarmRun } from '../support/warm-cli.ts'

const warm = createWarmCli()
afterAll(() => warm.close())

const version = async () => warm.run(await freshDirectory(), ['--version'])

async function idle(): Promise<WarmRun> {
  const run = await version()
  expect(run).toMatchObject({ code: 0, signal: null })
  run.release()
  return run
}

const isGone = (pid: number) => {
  try {
    process.kill(pid, 0)
    return false
  } catch {
    return true
  }
}

async function expectAnother({ pid }: WarmRun): Promise<void> {
  const run = await version()
  expect(run).toMatchObject({ code: 0, signal: null, stdout: expect.stringMatching(/^\d/) })
  expect(run.pid).not.toBe(pid)
  run.release()
}

test('one that is idle takes the next command', async () => {
  const first = await idle()
  expect((await idle()).pid).toBe(first.pid)
})

test('killed while idle, and its end has been noticed', async () => {
  const first = await idle()
  process.kill(first.pid, 'SIGKILL')
  await expect.poll(() => isGone(first.pid)).toBe(true)
  await expectAnother(first)
})

test('killed while idle, a moment before it is asked', async () => {
  const first = await idle()
  process.kill(first.pid, 'SIGKILL')
  await expectAnother(first)
})

test('about to end when it is asked', async () => {
  const first = await idle()
  // It is asked before it dies, and dies before it can answer.
  process.kill(first.pid, 'SIGSTOP')
  const asked = expectAnother(first)
  process.kill(first.pid, 'SIGKILL')
  await asked
})
