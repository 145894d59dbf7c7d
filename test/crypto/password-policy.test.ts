import { expect, test } from 'vitest'
import { checkPassword, isWeakPassword, type PasswordPolicy } from '../../crypto/index.ts'

const rules = (...args: Parameters<typeof checkPassword>) => checkPassword(...args).map(({ rule }) => rule)
const chars = (mustContainCharacters: string[], numberOfCharacteristicsToEnforce: number): PasswordPolicy => ({
  characterRules: { mustContainCharacters, numberOfCharacteristicsToEnforce },
})

test('without a policy any password but the empty one will do', () => {
  expect(rules('x', {})).toEqual([])
  expect(rules('', {})).toEqual(['minLength'])
})

test('length counts characters, not UTF-16 units', () => {
  expect(rules('🐙🐙🐙', { minLength: 4 })).toEqual(['minLength'])
  expect(rules('🐙🐙🐙🐙', { minLength: 4 })).toEqual([])
})

test('so many of the listed kinds must occur', () => {
  const policy = chars(['uppercase', 'lowercase', 'numeric', 'special'], 3)
  expect(rules('abcDEF', policy)).toEqual(['characters'])
  expect(rules('abcDEF1', policy)).toEqual([])
  expect(checkPassword('abc', chars(['all'], 4))).toEqual([
    { rule: 'characters', required: 4, missing: ['uppercase', 'numeric', 'special'] },
  ])
  expect(rules('ÄÖÜ', chars(['alpha', 'lowercase'], 1))).toEqual([])
  expect(rules('123', chars(['alpha'], 1))).toEqual(['characters'])
  expect(rules('a', chars(['none'], 0))).toEqual([])
  expect(rules('a', chars(['none', 'unheard-of'], 4))).toEqual([])
  for (const special of '!"#$%&\'()*+,-./:;=?@[\\]^_{|}~ §')
    expect(rules(special, chars(['special'], 1)), special).toEqual([])
})

test('names of the user do not occur in it', () => {
  const user = ['Ann', 'Al', 'ann.miller@example.org']
  const policy = { rejectUserInfo: true }
  expect(rules('xANNx1', policy, user)).toEqual(['userInfo'])
  expect(rules('Miller77', policy, user)).toEqual(['userInfo'])
  expect(rules('also fine', policy, user)).toEqual([])
  expect(rules('xANNx1', {}, user)).toEqual([])
})

test('runs of four keys, both ways, in two layouts', () => {
  const policy = { rejectKeyboardPatterns: true }
  for (const bad of ['xqwerx', 'QWERTZ', 'asdf1', 'x4321', 'mnbv', 'öäjklö', '67890'])
    expect(rules(bad, policy), bad).toEqual(['keyboardPattern'])
  for (const good of ['qwe', 'asd qwe', '123-456', 'correct horse']) expect(rules(good, policy), good).toEqual([])
})

test.each([
  ['', true],
  ['aaaaaaaaaaaaaaaaaaaaaaaa', true],
  ['abcdefghijklmnopqrstuvwxyz', true],
  ['1234567890123456', true],
  ['Passw0rd!', true],
  ['P@$$w0rd2024', true],
  ['qwertzuiopü123', true],
  ['abcabcabcabcabcabc', true],
  ['Sommer2026!', true],
  ['anna.schmidt99', true],
  ['kx7Q', true],
  ['correct horse battery staple', false],
  ['dU7#kq_29vLw', false],
  ['encryption pässword', false],
  ['密码安全很重要的东西啊', false],
])('%j is weak: %s', (password, weak) => {
  expect(isWeakPassword(password, ['Anna', 'Schmidt', 'anna.schmidt@example.org'])).toBe(weak)
})

test('a weak start does not make a long password weak, and no password is looked at for long', () => {
  expect(isWeakPassword(`password ${'dU7#kq_29vLw'}`)).toBe(false)
  expect(isWeakPassword('ab'.repeat(50_000))).toBe(true)
  expect(isWeakPassword(`${'a'.repeat(50_000)}b`)).toBe(true)
})
