/** New encryption passwords: the rules of the server, which only a client can apply, and a warning of what can be guessed. */
import { writeFileSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { createWorld, type World } from '../support/cli.ts'

let world: World
beforeAll(async () => {
  world = await createWorld({ keyPair: false })
})
afterAll(() => world.close())
afterEach(() => world.server.faults.clear())

const POLICIES = '/v4/config/info/policies/passwords$'
const answer = (status: number, body: unknown) =>
  world.server.faults.add({
    on: { path: POLICIES },
    do: { status, headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) },
  })
const create = (password: string) => {
  const file = world.path('new-password')
  writeFileSync(file, `${password}\n`, { mode: 0o600 })
  return world.cli(['keys', 'create', '--key-password-file', file, '--json'])
}

test('what the server does not want is refused, and says all that is missing', async () => {
  const rules = {
    minLength: 14,
    characterRules: { mustContainCharacters: ['all'], numberOfCharacteristicsToEnforce: 4 },
    rejectUserInfo: true,
    rejectKeyboardPatterns: true,
  }
  answer(200, { encryptionPasswordPolicies: rules })
  const refused = await create('annaqwert')
  expect([refused.code, refused.json.at(-1)?.code]).toEqual([2, 'PASSWORD_REFUSED'])
  expect(refused.stderr).toContain('at least 14 characters; 4 kinds of characters')
  expect(refused.stderr).toContain('no name or address of yours in it; no row of keys')
  expect(refused.stderr + refused.stdout).not.toContain('annaqwert')
  answer(200, { encryptionPasswordPolicies: { minLength: 'many' } })
  expect((await create('x'.repeat(20))).json.at(-1)).toMatchObject({ code: 'ANSWER_INVALID' })
  expect((await create('')).json.at(-1)).toMatchObject({ code: 'PASSWORD_EMPTY' })
})

test('a weak one is warned of; a server without rules has none', async () => {
  answer(404, { code: 404, message: 'Not found' })
  const made = await create('Passw0rd!')
  expect(made.code, made.stderr).toBe(0)
  expect(made.stderr).toContain('warning: The encryption password is weak')
  expect(made.json.at(-1)).toMatchObject({ type: 'key-pair', version: 'RSA-4096' })
})
