/** The lines that say how far a run is, from its state and the width of the terminal: pure. @module */
import { display, showBytes } from './display.ts'

/** Letters that take two columns in most terminals: East Asian ones and emoji. */
const WIDE =
  /[\u1100-\u115f\u231a\u231b\u2329\u232a\u23e9-\u23ec\u23f0\u23f3\u25fd\u25fe\u2614\u2615\u2648-\u2653\u267f\u2693\u26a1\u26aa\u26ab\u26bd\u26be\u26c4\u26c5\u26ce\u26d4\u26ea\u26f2\u26f3\u26f5\u26fa\u26fd\u2705\u270a\u270b\u2728\u274c\u274e\u2753-\u2755\u2757\u2795-\u2797\u27b0\u27bf\u2b1b\u2b1c\u2b50\u2b55\u2e80-\u303e\u3041-\ua4cf\ua960-\ua97f\uac00-\ud7a3\uf900-\ufaff\ufe10-\ufe19\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|[\u{16fe0}-\u{18aff}\u{1aff0}-\u{1b2ff}\u{1f004}\u{1f0cf}\u{1f18e}-\u{1f19a}\u{1f1e6}-\u{1f320}\u{1f32d}-\u{1f64f}\u{1f680}-\u{1f6ff}\u{1f7e0}-\u{1f7f0}\u{1f90c}-\u{1faff}\u{20000}-\u{3fffd}]/u
/** Letters that are put over the one before them. */
const COMBINING = /\p{Mn}|\p{Me}/u
/** Asks for the one before it as an emoji, which is wide then. */
const AS_EMOJI = '\ufe0f'

const lettersWidth = (char: string) => (char === AS_EMOJI ? 1 : COMBINING.test(char) ? 0 : WIDE.test(char) ? 2 : 1)

/** How many columns a text takes at most; terminals do not agree on all emoji. Without control characters, as of `display`. */
export function columnsOf(text: string): number {
  let columns = 0
  for (const char of text) columns += lettersWidth(char)
  return columns
}

/** A text in no more columns than these; one that was longer ends with `…`. */
export function cut(text: string, width: number): string {
  if (columnsOf(text) <= width) return text
  if (width < 1) return ''
  let kept = ''
  let columns = 0
  for (const char of text) {
    columns += lettersWidth(char)
    if (columns > width - 1) break
    kept += char
  }
  return `${kept}…`
}

/** `0:07`, `12:34`, `3:04:05`; `>1 d` for what nobody waits for. */
export function durationText(seconds: number): string {
  const whole = Math.max(0, Math.ceil(seconds))
  if (!(whole < 86_400)) return '>1 d'
  const two = (value: number) => String(value).padStart(2, '0')
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60]
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`
}

export interface ProgressState {
  /** `Uploading` */
  readonly verb: string
  /** Of the work; from 0 to 1. */
  readonly share: number
  readonly files: number
  readonly allFiles: number
  readonly bytes: number
  readonly allBytes: number
  /** Bytes per second; absent as long as nobody knows. */
  readonly rate?: number | undefined
  readonly secondsLeft?: number | undefined
  /** What is waited for, in the place of the time that is left: `unlocking the key`. */
  readonly phase?: string | undefined
}

/** What a bar is made of: what is done, what is not. */
export type BarLetters = readonly [done: string, open: string]

const SHORTEST_BAR = 8
const LONGEST_BAR = 30
const GAP = 2

function barOf(share: number, width: number, [done, open]: BarLetters): string {
  const filled = Math.min(width, Math.max(0, Math.floor(share * width)))
  return done.repeat(filled) + open.repeat(width - filled)
}

const percent = (share: number) => `${Math.floor(Math.min(1, Math.max(0, share)) * 100)}%`.padStart(4)

/** What may be on a line: the more important, the lower its rank. */
type Part = readonly [rank: number, text: string]

/** As many parts as fit, in their order, and a bar behind the first if there is room left. */
function lineOf(parts: readonly Part[], width: number, bar: (width: number) => string): string {
  const chosen = new Set<Part>()
  let columns = 0
  for (const part of [...parts].sort(([a], [b]) => a - b)) {
    const more = columnsOf(part[1]) + (chosen.size === 0 ? 0 : GAP)
    if (columns + more > width) break
    columns += more
    chosen.add(part)
  }
  const texts = parts.filter((part) => chosen.has(part)).map(([, text]) => text)
  const room = Math.min(LONGEST_BAR, width - columns - GAP)
  if (chosen.size === parts.length && room >= SHORTEST_BAR) texts.splice(1, 0, bar(room))
  return texts.length > 0 ? texts.join(' '.repeat(GAP)) : cut(parts.toSorted(([a], [b]) => a - b)[0]![1].trim(), width)
}

/**
 * The line of a whole run.
 *
 * @param width - Columns that it may take at most.
 */
export function progressLine(state: ProgressState, width: number, letters: BarLetters): string {
  const { verb, share, files, allFiles, bytes, allBytes, rate, secondsLeft, phase } = state
  const left = phase ?? (secondsLeft === undefined ? undefined : `ETA ${durationText(secondsLeft)}`)
  const parts: Part[] = [
    [3, verb],
    [0, percent(share)],
    [4, `${showBytes(bytes)} of ${showBytes(allBytes)}`],
    [5, `${files}/${allFiles} files`],
    ...(rate === undefined ? [] : [[2, `${showBytes(Math.round(rate))}/s`] as const]),
    ...(left === undefined ? [] : [[1, left] as const]),
  ]
  return lineOf(parts, width, (room) => barOf(share, room, letters))
}

/** The line of one large file below it. */
export function fileLine(
  { name, bytes, allBytes }: { readonly name: string; readonly bytes: number; readonly allBytes: number },
  width: number,
  letters: BarLetters,
): string {
  const share = allBytes === 0 ? 1 : bytes / allBytes
  const head = `  ${percent(share)}`
  const size = `${showBytes(bytes)} of ${showBytes(allBytes)}`
  const full = [head, barOf(share, LONGEST_BAR / 2, letters), size].join(' '.repeat(GAP))
  const front = [full, [head, size].join(' '.repeat(GAP)), head].find((text) => columnsOf(text) + GAP + 12 <= width)
  const start = front === undefined ? '' : `${front}${' '.repeat(GAP)}`
  return `${start}${cut(display(name, 200), Math.max(0, width - columnsOf(start)))}`
}

/** The line before there is anything to count. */
export const phaseLine = (verb: string, phase: string, seconds: number, width: number): string =>
  cut(`${verb}: ${phase}${seconds < 3 ? '' : ` (${durationText(seconds)})`}`, width)
