/** What `npm run demo` does, with little data: the first thing a new user runs. */
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { runProgram } from '../support/cli.ts'

const SCRIPT = fileURLToPath(new URL('../demo.mjs', import.meta.url))

test('the demo brings back every byte and finds nothing secret at the server', async () => {
  const { PATH = '', HOME = '' } = process.env
  const { code, stdout, stderr } = await runProgram(process.execPath, [SCRIPT, '--small'], { PATH, HOME })
  expect(code, stderr).toBe(0)
  expect(stdout).toMatch(/ files are identical\n/)
  expect(stdout).toMatch(/The demo succeeded/)
})
