/** Changes a journal and makes its checksums right again, as only somebody who wants to deceive would. @module */
import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import type { JournalRecord } from './upload-watch.ts'

export function rewriteJournal(path: string, change: (record: JournalRecord) => JournalRecord): void {
  let checksum = ''
  const lines = readFileSync(path, 'utf8')
    .split('\n')
    .slice(0, -1)
    .map((line) => {
      const json = JSON.stringify(change(JSON.parse(line.slice(33))))
      checksum = createHash('sha256').update(checksum).update(json).digest('hex').slice(0, 32)
      return `${checksum} ${json}\n`
    })
  writeFileSync(path, lines.join(''))
}
