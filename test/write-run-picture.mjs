/**
 * `npm run docs:picture`: draws docs/public/run.svg, what a terminal shows while the program works: a real one (tmux) with a real server in a
 * throw-away directory. The figures in it are those of the machine that draws it.
 * @module
 */
import { execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { build, ROOT } from './bootstrap.mjs'

const [COLUMNS, ROWS] = [92, 24]
const OUT = join(ROOT, 'docs/public/run.svg')
const MAIN = join(ROOT, 'dist/bin/main.js')

build()
const base = mkdtempSync(join(tmpdir(), 'sealsync-picture-'))
const work = join(base, 'work')
const socket = join(base, 'tmux')
const env = {
  PATH: `${join(base, 'bin')}:${process.env.PATH}`,
  HOME: work,
  LANG: 'C.UTF-8',
  PROMPT_COMMAND: `tmux -S ${socket} wait-for -S prompt`,
  SEALSYNC_HOME: join(base, 'home'),
  SEALSYNC_KEY_PASSWORD_FILE: join(base, 'key-password'),
}
const tmux = (...args) => execFileSync('tmux', ['-S', socket, '-f', '/dev/null', ...args], { encoding: 'utf8', env })
const sync = (...args) => execFileSync(process.execPath, [MAIN, ...args], { env, stdio: ['ignore', 'pipe', 'ignore'] })

/** Types a command; resolves when the prompt is there again. */
function type(command) {
  tmux('send-keys', '-l', command)
  tmux('send-keys', 'Enter')
  tmux('wait-for', 'prompt')
}

function prepare() {
  for (const directory of ['bin', 'work', 'work/photos/2024', 'work/photos/2025']) {
    mkdirSync(join(base, directory), { recursive: true })
  }
  writeFileSync(join(base, 'bin/sync'), `#!/bin/sh\nexec "${process.execPath}" "${MAIN}" "$@"\n`)
  chmodSync(join(base, 'bin/sync'), 0o755)
  for (const name of ['account-password', 'key-password']) {
    writeFileSync(join(base, name), `a long ${name}\n`, { mode: 0o600 })
  }
  for (let number = 1; number <= 24; number++) {
    writeFileSync(
      join(work, `photos/${number % 2 ? 2024 : 2025}/seal-${number}.jpg`),
      randomBytes(400_000 + 9000 * number),
    )
  }
  writeFileSync(join(work, 'film.mkv'), randomBytes(60_000_000))
}

/** One line of `capture-pane -e` as pieces of one look each. */
function piecesOf(line) {
  const pieces = []
  let look = { bold: false, dim: false, inverse: false, colour: undefined }
  let column = 0
  for (const [, codes, text] of line.matchAll(/\x1b\[([\d;]*)m|([^\x1b]+)/g)) {
    if (text !== undefined) {
      pieces.push({ ...look, column, text })
      column += [...text].length
      continue
    }
    const numbers = codes.split(';').map(Number)
    for (let at = 0; at < numbers.length; at++) {
      const n = numbers[at]
      if (n === 0) look = { bold: false, dim: false, inverse: false, colour: undefined }
      else if (n === 1) look = { ...look, bold: true }
      else if (n === 2) look = { ...look, dim: true }
      else if (n === 7) look = { ...look, inverse: true }
      else if (n === 22) look = { ...look, bold: false, dim: false }
      else if (n === 27) look = { ...look, inverse: false }
      else if (n === 39) look = { ...look, colour: undefined }
      else if (n >= 30 && n <= 37) look = { ...look, colour: n - 30 }
      else if (n >= 90 && n <= 97) look = { ...look, colour: n - 82 }
      else if (n === 38 || n === 48) at += numbers[at + 1] === 5 ? 2 : 4
    }
  }
  return pieces
}

const COLOURS =
  '#484f58 #ff7b72 #7ee787 #e3b341 #79c0ff #d2a8ff #76e3ea #c9d1d9 #8b949e #ffa198 #a5d6ff #f2cc60 #a5d6ff #e2c5ff #b3f0ff #ffffff'.split(
    ' ',
  )
const escaped = (text) => text.replace(/[&<>]/g, (sign) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[sign])

function draw(screen) {
  const [width, height, margin, bar] = [8.4, 19, 16, 34]
  const lines = screen.replace(/\s+$/, '').split('\n')
  const [full, high] = [COLUMNS * width + 2 * margin, bar + lines.length * height + margin]
  const texts = lines.flatMap((line, row) =>
    piecesOf(line)
      .filter(({ text }) => text.trim() !== '')
      .map(({ bold, dim, colour, column, text }) => {
        // Where the font is wider or narrower, columns still stand below each other.
        const indent = text.length - text.trimStart().length
        // Renderers put several spaces together, whatever they are told.
        const shown = text.trim().replaceAll(' ', '\u00a0')
        const x = (margin + (column + indent) * width).toFixed(1)
        const y = bar + (row + 1) * height - 5
        const look = `${bold ? ' font-weight="bold"' : ''}${dim ? ' opacity="0.65"' : ''}${colour === undefined ? '' : ` fill="${COLOURS[colour]}"`}`
        return `<text x="${x}" y="${y}" textLength="${([...shown].length * width).toFixed(1)}"${look}>${escaped(shown)}</text>`
      }),
  )
  const dots = ['#ff5f57', '#febc2e', '#28c840'].map(
    (fill, at) => `<circle cx="${20 + 20 * at}" cy="17" r="6" fill="${fill}"/>`,
  )
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${full.toFixed(0)} ${high}" role="img" font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="14" fill="#c9d1d9">
<title>A terminal: files are uploaded, listed, checked, mirrored, and the last run is taken back</title>
<rect width="100%" height="100%" rx="10" fill="#0d1117"/>
${dots.join('')}
${texts.join('\n')}
</svg>
`
}

let server
try {
  prepare()
  sync(
    'serve',
    'user',
    'add',
    'anna',
    '--data',
    join(base, 'server'),
    '--password-file',
    join(base, 'account-password'),
  )
  server = spawn(process.execPath, [MAIN, 'serve', '--data', join(base, 'server'), '--port', '0'], { env })
  const url = await new Promise((resolve, reject) => {
    let said = ''
    const read = (chunk) => {
      said += chunk
      const found = /http:\/\/127\.0\.0\.1:\d+/.exec(said)
      if (found) resolve(found[0])
    }
    server.stdout.on('data', read)
    server.stderr.on('data', read)
    server.once('exit', () => reject(new Error(said)))
  })
  sync('login', url, '--user', 'anna', '--password-file', join(base, 'account-password'))
  sync('keys', 'create')
  sync('room', 'create', '/room')

  tmux(
    'new-session',
    '-d',
    '-x',
    `${COLUMNS}`,
    '-y',
    `${ROWS}`,
    '-c',
    work,
    "exec env PS1='\\[\\e[1;32m\\]$\\[\\e[0m\\] ' bash --norc --noprofile",
  )
  tmux('wait-for', 'prompt')
  type('sync upload photos /room')
  type('sync push photos /room/photos')
  type('sync ls -lh /room/photos/2024 | head -n 3')
  type('rm photos/2024/seal-7.jpg && sync push photos /room/photos --delete')
  type('sync undo "$(sync runs | head -n 1 | cut -d \' \' -f 1)"')
  type('sync verify /room/photos')
  tmux('send-keys', '-l', 'sync upload film.mkv /room --limit-rate 9M')
  tmux('send-keys', 'Enter')
  let screen = ''
  for (const end = Date.now() + 60_000; !/\b[56]\d ?%/.test(screen); screen = tmux('capture-pane', '-e', '-p')) {
    if (Date.now() > end) throw new Error(`no progress is seen:\n${screen}`)
    await sleep(50)
  }
  if (screen.includes(base)) throw new Error(`a path of this machine is in it:\n${screen}`)
  mkdirSync(dirname(OUT), { recursive: true })
  writeFileSync(OUT, draw(screen))
  process.stdout.write(`${screen}\n${OUT}, ${readFileSync(OUT).length} bytes\n`)
} finally {
  try {
    tmux('kill-server')
  } catch {}
  server?.kill()
  // What is ended still writes down where it was.
  rmSync(base, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
}
