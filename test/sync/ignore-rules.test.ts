/** The rules of .gitignore: as another implementation reads them, and what they cost. */
import ignore from 'ignore'
import { describe, expect, test } from 'vitest'
import { parseRules } from '../../src/sync/ignore-rules.ts'
import { spentMs } from '../support/clock.ts'
import fc from '../support/property.ts'

const RUNS = process.env.SEALSYNC_FULL ? 200_000 : 5_000

const verdictOf = (lines: readonly string[], path: readonly string[], isDirectory: boolean) =>
  parseRules(lines).test(path, isDirectory)

describe('rules', () => {
  const piece = fc.constantFrom(
    ...[
      'a',
      'b',
      'ab',
      '*',
      '**',
      '?',
      '/',
      '/',
      '.',
      '[ab]',
      '[!a]',
      '[a-c]',
      '[^b-]',
      '[]a]',
      '[[:alpha:]]',
      '\\*',
      '\\a',
    ],
    ...['[a', ' ', '\\ ', '-', 'ü', '[[:nothing:]]', '[a\\]b]'],
  )
  const rule = fc
    .tuple(
      fc.constantFrom('', '', '!', '/', '#', '\\!', '\\#'),
      fc.array(piece, { maxLength: 7 }),
      fc.constantFrom('', '', '/', '/**', ' '),
    )
    .map(([first, pieces, last]) => first + pieces.join('') + last)
  const name = fc
    .array(fc.constantFrom('a', 'b', 'c', 'ab', '.', '-', ']', '*', 'ü', '!', '#', ' '), { minLength: 1, maxLength: 4 })
    .map((parts) => parts.join(''))
  const component = name.filter((text) => text !== '.' && text !== '..')
  const path = fc.array(component, { minLength: 1, maxLength: 4 })

  test(`say what the package \`ignore\` says (${RUNS} lists)`, () => {
    fc.assert(
      fc.property(
        fc.array(rule, { minLength: 1, maxLength: 4 }),
        path,
        fc.boolean(),
        (rules, components, isDirectory) => {
          const theirs = ignore({ ignorecase: false, allowRelativePaths: true }).add(rules)
          const { ignored, unignored } = theirs.test(`${components.join('/')}${isDirectory ? '/' : ''}`)
          const wanted = ignored ? 'ignored' : unignored ? 'unignored' : undefined
          expect([rules, components, isDirectory, verdictOf(rules, components, isDirectory)]).toEqual([
            rules,
            components,
            isDirectory,
            wanted,
          ])
        },
      ),
      { numRuns: RUNS },
    )
  })

  test('in either form of a letter', () => {
    expect(verdictOf(['u\u0308.txt'], ['\u00fc.txt'], false)).toBe('ignored')
    expect(verdictOf(['\u00fc.txt'], ['u\u0308.txt'], false)).toBe('ignored')
  })

  test('cost at most their length times that of the name', () => {
    const name = 'a'.repeat(255)
    const begun = spentMs()
    // A backtracking matcher does not come to an end with any of them.
    const bombs = Array.from({ length: 20 }, () => `${'*a'.repeat(100)}b`)
    expect(verdictOf(bombs, [name], false)).toBeUndefined()
    expect(verdictOf([`${'**/a/'.repeat(100)}b`], Array(200).fill('a'), false)).toBeUndefined()
    const many = parseRules(Array.from({ length: 20_000 }, (_, at) => `name ${at}`))
    for (let at = 0; at < 100; at++) expect(many.test([`file ${at}`], false)).toBeUndefined()
    // Two million comparisons.
    expect(spentMs() - begun).toBeLessThan(10_000)
  })

  test('as many as are taken are quick, whatever they are', () => {
    const names = ['a'.repeat(255), `${'a'.repeat(127)}b${'a'.repeat(127)}`]
    for (const rule of [
      `*?${'a'.repeat(26)}b`,
      `*?${'a'.repeat(26)}b*`,
      `*[a-z]${'a'.repeat(120)}b*`,
      `*a?${'*a?'.repeat(40)}b`,
      `?${'a'.repeat(253)}b`,
      `*${'a'.repeat(126)}c*`,
      '*.py[cod]',
    ]) {
      let most = 1
      while (most < 2 ** 20) {
        try {
          parseRules(Array(2 * most).fill(rule))
        } catch {
          break
        }
        most *= 2
      }
      const rules = parseRules(Array(most).fill(rule))
      const begun = spentMs()
      for (const name of names) rules.test([name], false)
      // It takes some milliseconds.
      expect(spentMs() - begun, rule).toBeLessThan(2_000)
    }
    expect(() => parseRules(Array(200).fill(`*?${'a'.repeat(26)}b*`))).toThrow()
    const many = Array.from({ length: 3_000 }, (_, at) => `*.x${at}[cod]`)
    expect(parseRules(many).test(['a.x7d'], false)).toBe('ignored')
  })

  test('are bounded', () => {
    const refused = expect.objectContaining({ class: 'limit', code: 'FILTER_TOO_LONG' })
    expect(() => parseRules(Array(50_001).fill('a'))).toThrow(refused)
    expect(() => parseRules(Array(600).fill('*?'.repeat(50)))).toThrow(refused)
    expect(() => parseRules(['a'.repeat(4097)])).toThrow(refused)
    expect(parseRules(Array(50_000).fill('a')).test(['a'], false)).toBe('ignored')
  })
})
