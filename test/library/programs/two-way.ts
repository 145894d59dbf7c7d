/** Brings two sides together, is stopped in the middle, and goes on. Prints one line of JSON. */
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createClient, passwordAuthorizer } from 'sealsync'

const [url = '', userName = '', secret = '', keySecret = '', work = ''] = process.argv.slice(2)

let stop = new AbortController()
let isRunning = false
let done = 0
const client = createClient(url, {
  authorizer: (origin) => passwordAuthorizer(origin, { userName, password: async () => secret }),
  keyPassword: async () => keySecret,
  directory: join(work, 'memory'),
  onEvent: (event) => {
    if (isRunning && event.type === 'file-done' && ++done === 3) stop.abort(new Error('the user closed the window'))
  },
})
await client.session.login()

const local = join(work, 'pair')
await mkdir(local)
for (let at = 0; at < 12; at++) await writeFile(join(local, `here-${at}`), `made here ${at}`)
await client.mkdir('/room/pair')
for (let at = 0; at < 12; at++) await client.put(`/room/pair/there-${at}`, Buffer.from(`made there ${at}`))
isRunning = true
const state = { directory: client.context.home.states, account: await client.context.home.account() }
const both = () => client.sync(local, '/room/pair', { direction: 'both', state, jobs: 1, signal: stop.signal })

const stopped = await both()
const between = done
stop = new AbortController()
const resumed = await both()
const again = await both()
const names = await readdir(local)
let remote = 0
for await (const entry of client.list('/room/pair')) if (/^(here|there)-/.test(entry.name)) remote++
console.log(
  JSON.stringify({
    stoppedBy: stopped.stoppedBy !== undefined,
    early: between < 24,
    failed: resumed.failed.length,
    local: names.filter((name) => /^(here|there)-/.test(name)).length,
    remote,
    transferredAgain: again.transferred,
  }),
)
await client.close()
