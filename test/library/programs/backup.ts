/** Backs up a directory twice, restores the older state, and proves the newer one with a drill. Prints one line of JSON. */
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type BackupSetOptions, createClient, passwordAuthorizer, type RunEvent } from 'sealsync'

const [url = '', userName = '', secret = '', keySecret = '', work = ''] = process.argv.slice(2)

const events: RunEvent['type'][] = []
const client = createClient(url, {
  authorizer: (origin) => passwordAuthorizer(origin, { userName, password: async () => secret }),
  keyPassword: async () => keySecret,
  directory: join(work, 'memory'),
  onEvent: (event) => events.push(event.type),
})
await client.session.login()

const source = join(work, 'source')
await mkdir(source)
const set: BackupSetOptions = { name: 'documents', target: '/room/backups/documents', sources: [source] }
await writeFile(join(source, 'letter.txt'), 'first')
const first = await client.backups.run(set)
await writeFile(join(source, 'letter.txt'), 'second, and longer')
const second = await client.backups.run(set)
const { notes } = await client.backups.list(set)

const restored = join(work, 'restored')
const back = await client.backups.restore(set, restored, { run: first.run ?? '' })
const letter = await readFile(join(restored, source, 'letter.txt'), 'utf8')
const { report } = await client.backups.drill(set)
const shown = await client.backups.show(set)

console.log(
  JSON.stringify({
    runs: notes.map(({ run }) => run).join() === [first.run, second.run].join(),
    complete: first.isComplete && second.isComplete,
    transferred: back.transferred,
    letter,
    right: report.isRight,
    files: shown.entries.filter(({ kind }) => kind === 'file').length,
    planned: events.includes('file-done'),
  }),
)
await client.close()
