/**
 * Standard output and standard error themselves: what is said comes in order, and whoever does not take it does not end the work.
 * @module
 */
import { localError, systemCode, toSyncError } from '../errors.ts'
import { EXIT } from './exit-codes.ts'

/** What the standard output did not take, of the first time. */
let refused: NodeJS.ErrnoException | undefined

/**
 * Keeps the work going when nobody takes what is said: a pipe whose reader went away, a full disk. Before anything is written.
 * Of files and devices some versions of Node throw what others report.
 */
export function guardOutput(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      // A reader that went away (`sync ls | head`) is not our failure.
      if (stream === process.stdout && systemCode(error) !== 'EPIPE') refused ??= error
    })
    const write = stream.write.bind(stream) as (...args: unknown[]) => boolean
    stream.write = ((...args: unknown[]) => {
      try {
        return write(...args)
      } catch (error) {
        const done = args.at(-1)
        if (typeof done === 'function') process.nextTick(done, error)
        process.nextTick(() => stream.emit('error', error))
        return true
      }
    }) as typeof stream.write
  }
}

/**
 * Writes what is still to be said.
 *
 * @param code - Exit code of the command.
 * @returns that code, or another one when results were asked for and could not be written.
 */
export async function endOutput(code: number): Promise<number> {
  writeResults()
  // Errors are reported a little later.
  await new Promise((resolve) => setImmediate(resolve))
  // Whoever could not go on because of it has said so.
  if (refused === undefined || code === EXIT.localDisk) return code
  const { message, hint } = toSyncError(localError(refused, 'write the output'))
  process.stderr.write(`error: ${message}${hint === undefined ? '' : `: ${hint}`}\n`)
  return code === EXIT.done ? EXIT.localDisk : code
}

/** What is drawn at the end of the terminal, and makes place for whatever else is said. */
export interface Drawn {
  erase(): void
  redraw(): void
  /** Takes it away until `resume`, and shows the cursor. */
  pause(): void
  resume(): void
}

let drawn: Drawn | undefined
export const setDrawn = (now: Drawn | undefined): void => {
  drawn = now
}

/** Does something for which the terminal has to be free. */
export async function withFreeTerminal<T>(work: () => Promise<T>): Promise<T> {
  const current = drawn
  setDrawn(undefined)
  current?.pause()
  try {
    return await work()
  } finally {
    if (current !== undefined) {
      current.resume()
      setDrawn(current)
    }
  }
}

/** Writes where something may be drawn. */
function writeBeside(stream: NodeJS.WriteStream, text: string): void {
  const isBeside = drawn !== undefined && stream.isTTY === true
  if (isBeside) drawn?.erase()
  stream.write(text)
  if (isBeside) drawn?.redraw()
}

/** Results wait so long for others: a system call for each of many small files takes a tenth of the whole time. */
const RESULTS_MS = 20
let results = ''
let timer: NodeJS.Timeout | undefined

function writeResults(): void {
  clearTimeout(timer)
  timer = undefined
  const text = results
  results = ''
  if (text !== '') writeBeside(process.stdout, text)
}
process.on('exit', writeResults)

/** A line on stdout, in the order in which they were said. */
export function writeResult(line: string): void {
  results += `${line}\n`
  timer ??= setTimeout(writeResults, RESULTS_MS)
}

export function write(stream: NodeJS.WriteStream, line: string): void {
  if (stream === process.stdout) {
    writeResult(line)
    return
  }
  // Behind what was said before.
  writeResults()
  writeBeside(stream, `${line}\n`)
}
