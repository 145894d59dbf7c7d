/**
 * What the scripts for shells ask for: `__complete SHELL …` prints what could come next. First a line with what the shell adds by
 * itself (`files`, `directories`), and how all are to be taken (`paths`: quoted like names of files; `open`: no blank behind them). Then
 * a candidate a line, those of the tables with a tab and what they are.
 *
 * Nobody is asked for anything, nothing is said of what goes wrong, and it takes a second at most.
 * @module
 */
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { display } from '../display.ts'
import type { Subject } from '../nouns/command.ts'
import { homeDirectory, listProfiles } from '../profile.ts'
import { parseLine } from './line.ts'
import type { Parser } from './listing.ts'
import { type Candidate, type Expected, expectedAfter } from './words.ts'

async function lookedUp(parser: Parser, { subject, word, connection }: Expected): Promise<readonly Candidate[]> {
  const names = (all: readonly string[]) => all.map((value) => ({ value }))
  switch (subject) {
    case 'profile': {
      return names(await listProfiles())
    }
    case 'set': {
      const found = await readdir(join(homeDirectory(), 'backups'))
      return names(found.flatMap((name) => /^(.+)\.toml$/.exec(name)?.[1] ?? []).sort())
    }
    case 'remote':
    case 'either': {
      if (!word.startsWith('/') && (word !== '' || subject === 'either')) return []
      const { remoteNames } = await import('./listing.ts')
      const folder = word.slice(0, word.lastIndexOf('/') + 1) || '/'
      return names((await remoteNames(parser, folder, connection)).map((name) => `${folder}${name}`))
    }
    default:
      return []
  }
}

const SHELL_ADDS: Readonly<Partial<Record<Subject, string>>> = Object.freeze({
  file: 'files',
  either: 'files',
  directory: 'directories',
})

/** Of a text for the help, what fits beside a candidate. */
const shortened = (about: string) => display(about, 70)

async function answerLines(parser: Parser, shell: string, rest: readonly string[]): Promise<string[]> {
  // Bash hands over the line; the others the words of it, behind the name of the program.
  const { words, kept } = shell === 'bash' ? parseLine(rest[0] ?? '', rest[1] ?? '') : { words: ['', ...rest], kept: 0 }
  const expected = expectedAfter(words.slice(1))
  const { word, before, subject } = expected
  const all = [...expected.candidates, ...(await lookedUp(parser, expected))]
    .filter(({ value }) => value.startsWith(word) && display(value, Number.POSITIVE_INFINITY) === value)
    .map(({ value, about }) => ({ value: `${before}${value}`, about }))
  const kinds = [
    SHELL_ADDS[subject],
    subject === 'remote' || subject === 'either' ? 'paths' : undefined,
    all.length > 0 && all.every(({ value }) => value.endsWith('/')) ? 'open' : undefined,
  ]
  return [
    kinds.filter((kind) => kind !== undefined).join(' '),
    ...all.map(({ value, about }) => {
      const shown = shell === 'bash' ? value.slice(kept) : value
      return about === undefined ? shown : `${shown}\t${shortened(about)}`
    }),
  ]
}

/** @param args - What stands behind `__complete`. */
export async function answer(parser: Parser, [shell = '', ...rest]: readonly string[]): Promise<void> {
  try {
    if (shell === '--fill') {
      const { fill } = await import('./listing.ts')
      await fill(parser, rest)
      return
    }
    const lines = await answerLines(parser, shell, rest[0] === '--' ? rest.slice(1) : rest)
    process.stdout.write(`${lines.join('\n')}\n`)
  } catch {
    // Whoever is in the middle of a line has no use for messages.
  }
}
