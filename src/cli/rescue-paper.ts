/**
 * Sheets with a rescue secret: as a page to print, as text, and for the terminal. They say what they are for, that they are secret, and what
 * to do with them. What is on them must go nowhere else.
 * @module
 */
import type { RescuePaper } from '../client/index.ts'
import { SyncError } from '../errors.ts'
import { showFingerprint } from '../fingerprint.ts'
import { createAtomicFile } from '../local/atomic-file.ts'
import { display } from './display.ts'

/** What a sheet says beside the secret. */
export interface PaperText {
  /** Account or room: what it opens. */
  readonly opens: string
  /** Name and value, in order. */
  readonly facts: readonly (readonly [name: string, value: string])[]
  /** What to do, line by line; commands begin with `sync`. */
  readonly steps: readonly string[]
}

/** Sheets that are to be printed. */
export interface PaperPage extends PaperText {
  readonly papers: readonly RescuePaper[]
}

const SECRET = 'SECRET. Keep it where nobody finds it; make no photograph of it, and no copy that you forget.'

function factsOf({ facts }: PaperText, { share }: RescuePaper): readonly (readonly [string, string])[] {
  if (share === undefined) return facts
  const { number, of, needed, set } = share
  return [...facts, ['Share', `${number} of ${of}, of set ${set}; ${needed} of them are needed, and fewer say nothing`]]
}

const numbered = (paper: RescuePaper) => paper.lines().map((line, at) => `${at + 1}: ${line}`)

/** All letters of a sheet, as its QR code has them. */
const codeOf = (paper: RescuePaper) => paper.lines().join('').replaceAll(' ', '')

function textOf(text: PaperText, paper: RescuePaper): string {
  const facts = factsOf(text, paper)
  const width = Math.max(...facts.map(([name]) => name.length)) + 2
  return [
    `SEALSYNC RESCUE PAPER: opens ${display(text.opens, 200)}`,
    SECRET,
    '',
    ...facts.map(([name, value]) => `${`${name}:`.padEnd(width)}${display(value, 300)}`),
    '',
    ...numbered(paper).map((line) => `   ${line}`),
    '',
    'If it is needed (the last two letters of each line are its checksum; there is no I, L, O or U):',
    ...text.steps.map((step) => `   ${display(step, 500)}`),
    '',
  ].join('\n')
}

/** What people see on a terminal, which forgets it. */
export async function showOnTerminal({ papers, ...text }: PaperPage): Promise<string> {
  const { renderUnicodeCompact } = await import('uqr')
  return papers
    .map((paper) => `${textOf(text, paper)}\n${renderUnicodeCompact(codeOf(paper), { border: 2 })}\n`)
    .join('\n')
}

const html = (value: string) => display(value, 500).replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`)

async function pageOf({ papers, ...text }: PaperPage): Promise<string> {
  const { renderSVG } = await import('uqr')
  const sheets = papers.map((paper) => {
    const rows = factsOf(text, paper).map(([name, value]) => `<tr><th>${html(name)}</th><td>${html(value)}</td></tr>`)
    const steps = text.steps.map((step) =>
      step.startsWith('sync ') ? `<li><code>${html(step)}</code></li>` : `<li>${html(step)}</li>`,
    )
    return `<section>
<h1>Sealsync rescue paper</h1>
<p class="secret">${html(SECRET)}</p>
<p>Opens ${html(text.opens)}.</p>
<table>
${rows.join('\n')}
</table>
<div class="code">
<pre>
${numbered(paper).map(html).join('\n')}
</pre>
${renderSVG(codeOf(paper), { ecc: 'M', border: 2 })}
</div>
<h2>If it is needed</h2>
<ol>
${steps.join('\n')}
</ol>
<p class="note">The last two letters of each line are its checksum: the program tells which line has a wrong letter. There is no I, L, O or U in it. The code on the right has the same letters.</p>
</section>`
  })
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="referrer" content="no-referrer">
<meta name="robots" content="noindex">
<title>Rescue paper</title>
<style>
@page { size: A4; margin: 20mm }
body { font: 11pt/1.4 sans-serif; max-width: 170mm; margin: 10mm auto; color: #000; background: #fff }
section { break-after: page }
section:last-child { break-after: auto }
.secret { border: 1.5pt solid #000; padding: 2mm 3mm; font-weight: bold }
table { border-collapse: collapse }
th { text-align: left; padding: 0 5mm 1mm 0; vertical-align: top; white-space: nowrap }
td { padding-bottom: 1mm; overflow-wrap: anywhere }
.code { display: flex; flex-wrap: wrap; gap: 8mm; align-items: center; margin: 6mm 0 }
pre { font: bold 14pt/1.9 monospace; margin: 0 }
svg { width: 42mm; height: 42mm }
code { font-size: 10pt }
.note { font-size: 9pt }
</style>
</head>
<body>
${sheets.join('\n')}
</body>
</html>
`
}

/** How somebody is told a fingerprint on paper. */
export const fingerprintFact = ({ version, fingerprint }: { readonly version: string; readonly fingerprint: string }) =>
  [`Key pair ${version}`, showFingerprint(fingerprint)] as const

/** A private file for sheets, made before anything that it is for: a place that cannot be written is noticed in time. */
export interface PaperFile {
  write(page: PaperPage): Promise<void>
  /** Leaves nothing behind; harmless after `write`. */
  discard(): Promise<void>
}

/**
 * Opens a new file for sheets: a page to print if its name ends in `.html`, else text.
 *
 * @throws {SyncError} `EXISTS`; class `local_io`.
 */
export async function openPaperFile(path: string): Promise<PaperFile> {
  const { existsSync } = await import('node:fs')
  if (existsSync(path)) {
    throw new SyncError('conflict', 'EXISTS', `It exists already: ${path}`, { hint: 'Name a new file for the paper.' })
  }
  const file = await createAtomicFile(path)
  return {
    async write({ papers, ...text }) {
      const isPage = /\.html?$/i.test(path)
      const page = { papers, ...text }
      const content = isPage ? await pageOf(page) : papers.map((paper) => textOf(text, paper)).join('\n\f\n')
      await file.handle.writeFile(content)
      await file.commit()
    },
    discard: () => file.discard(),
  }
}
