/** Command lines as bash hands them over: taken apart as a shell would, up to where somebody is writing. Pure. @module */

export interface WrittenLine {
  /** All words, without quotes; the last is the one that is being written. */
  readonly words: readonly string[]
  /** How much of the last word bash does not put another text in the place of, since it takes it for a word before. */
  readonly kept: number
}

const ASSIGNMENT = /^\w+\+?=/

/**
 * @param line - From the first word of the command up to the cursor.
 * @param breaks - Letters at which bash ends words besides blanks (`COMP_WORDBREAKS`).
 */
export function parseLine(line: string, breaks: string): WrittenLine {
  const words: string[] = []
  let word = ''
  let isIn = false
  let quote = ''
  let kept = 0
  for (let at = 0; at < line.length; at++) {
    const char = line[at]!
    if (quote === "'" || (quote === '"' && char !== '\\')) {
      if (char === quote) quote = ''
      else word += char
    } else if (char === '\\') {
      word += line[++at] ?? ''
      isIn = true
    } else if (char === '"' || char === "'") {
      quote = char
      isIn = true
    } else if (/\s/.test(char)) {
      if (isIn) words.push(word)
      ;[word, isIn, kept] = ['', false, 0]
    } else {
      word += char
      isIn = true
      if (':=@'.includes(char) && breaks.includes(char)) kept = word.length
    }
  }
  const all = [...words, word]
  const start = all.findIndex((one) => !ASSIGNMENT.test(one))
  return { words: all.slice(Math.max(0, start)), kept }
}
