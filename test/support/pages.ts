/**
 * The pages of the documentation taken apart: blocks of code, code in the text, links and headings; and the calls of the command line
 * in what is shell. What is done with them is in docs.test.ts.
 * @module
 */
import { readdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const ROOT = fileURLToPath(new URL('../..', import.meta.url))

export interface Block {
  /** `sh` runs, `shell` is parsed, `ts` is compiled; see docs.test.ts. */
  readonly language: string
  readonly text: string
  readonly line: number
}

export interface Page {
  /** From the top of the project on. */
  readonly path: string
  readonly text: string
  readonly blocks: readonly Block[]
  /** What stands between backticks. */
  readonly code: readonly string[]
  readonly links: readonly string[]
  readonly anchors: ReadonlySet<string>
}

/** As GitHub makes it from a heading, without what comes after the first one of a name. */
export const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
    .trim()
    .replaceAll(' ', '-')

const FENCE = /^```(.*)\n([\s\S]*?)^```$/gm

export function readPage(path: string): Page {
  const text = readFileSync(join(ROOT, path), 'utf8')
  const blocks = [...text.matchAll(FENCE)].map(({ 1: language, 2: content, index }) => ({
    language: language!.trim(),
    text: content!,
    line: text.slice(0, index).split('\n').length,
  }))
  const prose = text.replaceAll(FENCE, '')
  return {
    path,
    text,
    blocks,
    code: [...prose.matchAll(/(?<!`)`([^`\n]+)`(?!`)/g)].map((match) => match[1]!),
    links: [...prose.matchAll(/\]\(([^)\s]+)\)/g)].map((match) => match[1]!),
    anchors: new Set([...prose.matchAll(/^#+ (.*)$/gm)].map((match) => anchorOf(match[1]!))),
  }
}

/** All pages that people read: those at the top, those of docs/, and that of the benchmarks. */
export function readPages(): Page[] {
  const below = readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' })
    .map((name) => `docs/${name.replaceAll('\\', '/')}`)
    .filter((path) => path.endsWith('.md') && !path.startsWith('docs/.'))
    .sort()
  return ['README.md', 'SECURITY.md', 'ARCHITECTURE.md', 'bench/README.md', ...below].map(readPage)
}

const KEYWORDS = new Set(['if', 'then', 'else', 'elif', 'do', 'while', 'until', '!', '{', '(', 'exec', 'env', 'nice'])

/** A word of the shell begins here; what it becomes when it is run is unknown where something is put into it. */
const WORD = /(?:\\[\s\S]|'[^']*'|"(?:\\[\s\S]|[^"\\])*"|[^\s'"\\;&|<>()])+/y

const unquote = (word: string) =>
  word.replaceAll(/\\\n|\\([\s\S])|'([^']*)'|"((?:\\[\s\S]|[^"\\])*)"/g, (_, one = '', two = '', three = '') =>
    [one, two, three.replaceAll(/\\(["$`\\])/g, '$1')].join(''),
  )

/**
 * The calls of `sync` or `sealsync` in a script, each as its arguments. Enough of the shell for what pages show: quotes, comments,
 * assignments, pipes, lists, redirections, here-documents, `$(…)`.
 */
export function callsIn(script: string): string[][] {
  const calls: string[][] = []
  // The innermost of those that stand in each other come first.
  let text = script.replaceAll(/<<-?\s*'?(\w+)'?(.*)\n[\s\S]*?^\1$/gm, '$2')
  for (let inner = /\$\(([^()]*)\)/.exec(text); inner !== null; inner = /\$\(([^()]*)\)/.exec(text)) {
    calls.push(...callsIn(inner[1]!))
    text = `${text.slice(0, inner.index)}SUBSTITUTED${text.slice(inner.index + inner[0].length)}`
  }
  let words: string[] = []
  const end = () => {
    const first = words.findIndex((word) => !KEYWORDS.has(word) && !/^\w+=/.test(word))
    if (first >= 0 && /^(?:sync|sealsync)$/.test(basename(words[first]!))) calls.push(words.slice(first + 1))
    words = []
  }
  for (let at = 0; at < text.length; ) {
    WORD.lastIndex = at
    const rest = text.slice(at)
    const skipped = /^(?:\\\n|[ \t]+|\d?(?:>>|>|<)(?:&\d|[ \t]*(?=\S))|&>)/.exec(rest)?.[0]
    if (skipped !== undefined) {
      at += skipped.length
      if (/[<>]/.test(skipped) && !/&\d$/.test(skipped)) {
        WORD.lastIndex = at
        at += WORD.exec(text)?.[0].length ?? 0
      }
    } else if (rest.startsWith('#')) {
      at += /^[^\n]*/.exec(rest)![0].length
    } else if (/^[\n;&|()]/.test(rest)) {
      end()
      at += 1
    } else {
      const word = WORD.exec(text)?.[0]
      if (word === undefined) throw new Error(`cannot read ${JSON.stringify(rest.slice(0, 40))}`)
      words.push(unquote(word))
      at += word.length
    }
  }
  end()
  return calls
}
