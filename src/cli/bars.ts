/**
 * Lines at the end of a terminal that are drawn again and again, by cli-progress. It gets a terminal of ours: one that knows how many
 * rows the lines take also after the window has become narrower, and can take them away for a while, so that messages and questions
 * have their place. The cursor is shown again however the process ends.
 * @module
 */
import cliProgress from 'cli-progress'
import { columnsOf } from './progress-line.ts'
import { type Drawn, setDrawn } from './streams.ts'

type Stream = NodeJS.WriteStream

const HIDE_CURSOR = '\u001b[?25l'
const SHOW_CURSOR = '\u001b[?25h'
const CLEAR_RIGHT = '\u001b[K'
const CLEAR_BELOW = '\u001b[J'

/** What cli-progress draws with. */
function createTerminal(stream: Stream) {
  /** Columns of each line that is there; the cursor is in the last. */
  let lines: number[] = [0]
  let isPaused = false
  let isHidden = false
  // It cuts off what does not fit, where others let it go on in the next row.
  const isCutting = process.env.XTERM_VERSION !== undefined
  const width = () => Math.max(1, stream.columns || 80)
  const write = (text: string) => {
    if (!isPaused) stream.write(text)
  }
  const rowsOf = (columns: number) => (isCutting ? 1 : Math.max(1, Math.ceil(columns / width())))
  /** To the beginning of the first line. */
  function toTop(): void {
    const up = lines.reduce((rows, columns) => rows + rowsOf(columns), 0) - 1
    write(`${up > 0 ? `\u001b[${up}A` : ''}\r`)
    lines = [0]
  }
  return {
    isTTY: () => true,
    getWidth: () => width() - 1,
    lineWrapping() {},
    cursorSave() {},
    cursorRestore() {},
    cursorRelative() {},
    cursorTo: () => write('\r'),
    clearRight: () => write(CLEAR_RIGHT),
    clearLine: () => write(CLEAR_RIGHT),
    clearBottom: () => write(CLEAR_BELOW),
    cursorRelativeReset: toTop,
    cursor(isShown: boolean) {
      if (isShown === !isHidden) return
      isHidden = !isShown
      stream.write(isShown ? SHOW_CURSOR : HIDE_CURSOR)
    },
    newline() {
      write('\n')
      lines.push(0)
    },
    write(text: string) {
      write(text)
      lines[lines.length - 1] = columnsOf(text)
    },
    erase() {
      toTop()
      write(CLEAR_BELOW)
    },
    pause(is: boolean) {
      isPaused = is
      lines = [0]
    },
  }
}

export interface Bars {
  /**
   * Adds a line below the others; it is asked for ten times a second.
   *
   * @returns how to remove it.
   */
  add(line: (width: number) => string): () => void
  stop(): void
}

/** @param stream - A terminal. */
export function createBars(stream: Stream): Bars {
  const terminal = createTerminal(stream)
  const options: cliProgress.Options & { terminal: unknown } = {
    stream,
    terminal,
    format: (_options, { maxWidth = 0 }: { maxWidth?: number }, { line }: { line: (width: number) => string }) =>
      line(maxWidth),
    hideCursor: true,
    clearOnComplete: true,
    stopOnComplete: false,
    // Signals are ours.
    gracefulExit: false,
    linewrap: true,
    forceRedraw: true,
    fps: 10,
  }
  const bars = new cliProgress.MultiBar(options)
  const drawn: Drawn = {
    erase: () => terminal.erase(),
    redraw: () => bars.update(),
    pause() {
      terminal.erase()
      terminal.cursor(true)
      terminal.pause(true)
    },
    resume() {
      terminal.pause(false)
      terminal.cursor(false)
      bars.update()
    },
  }
  const onResize = () => {
    terminal.erase()
    bars.update()
  }
  const onExit = () => {
    terminal.erase()
    terminal.cursor(true)
  }
  const onSuspend = () => {
    drawn.pause()
    process.kill(process.pid, 'SIGSTOP')
  }
  const onContinue = () => drawn.resume()
  function listen(how: 'on' | 'off'): void {
    stream[how]('resize', onResize)
    process[how]('exit', onExit)
    if (process.platform === 'win32') return
    process[how]('SIGTSTP', onSuspend)
    process[how]('SIGCONT', onContinue)
  }
  listen('on')
  setDrawn(drawn)
  return {
    add(line) {
      const bar = bars.create(1, 0, { line })
      return () => {
        bars.remove(bar)
      }
    },
    stop() {
      setDrawn(undefined)
      listen('off')
      bars.stop()
      // Also where there was never a line.
      terminal.cursor(true)
    },
  }
}
