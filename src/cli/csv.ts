/** Tables as spreadsheets read and write them (RFC 4180). @module */

export interface CsvRow {
  /** From 1. */
  readonly line: number
  readonly cells: readonly string[]
}

/** A text as a cell: what a spreadsheet would take for a formula, or a terminal for a command, is shown as text. */
function cellOf(text: string): string {
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe
}

export const csvLine = (cells: readonly string[]): string => cells.map(cellOf).join(',')

/**
 * Reads a table; the sign between cells is a comma or, where the first line has one and no comma, a semicolon. Empty lines are passed over.
 *
 * @param wrong - Makes the error for a line.
 */
export function parseCsv(content: string, wrong: (line: number, why: string) => Error): CsvRow[] {
  const source = content.replace(/^\ufeff/, '')
  const first = source.slice(0, Math.max(0, source.search(/\r?\n|$/)))
  const comma = !first.includes(',') && first.includes(';') ? ';' : ','
  const rows: CsvRow[] = []
  let [cells, cell, line, startedAt]: [string[], string, number, number] = [[], '', 1, 1]
  let quoted: 'no' | 'open' | 'closed' = 'no'
  const endRow = () => {
    cells.push(cell)
    cells = cells.map((one) => one.replace(/^'(?=[=+\-@\t\r])/, ''))
    if (cells.length > 1 || cells[0]!.trim() !== '') rows.push({ line: startedAt, cells })
    cells = []
    cell = ''
    quoted = 'no'
    startedAt = line
  }
  for (let at = 0; at < source.length; at++) {
    const char = source[at]!
    if (char === '\n') line++
    if (quoted === 'open') {
      if (char !== '"') cell += char
      else if (source[at + 1] === '"') cell += source[++at]
      else quoted = 'closed'
    } else if (char === comma) {
      cells.push(cell)
      cell = ''
      quoted = 'no'
    } else if (char === '\n') endRow()
    else if (char === '\r' && source[at + 1] === '\n') continue
    else if (quoted === 'closed') throw wrong(line, 'something stands behind a closing quote')
    else if (char === '"' && cell === '') quoted = 'open'
    else cell += char
  }
  if (quoted === 'open') throw wrong(startedAt, 'a quote is not closed')
  if (cell !== '' || cells.length > 0) endRow()
  return rows
}
