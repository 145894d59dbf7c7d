/**
 * Keeps a Proton-style login between two runs: `WAY=proton … node proton-dump-load.mjs FILE`. The first run logs in and writes the
 * session, cookies included; the next ones go on with it. The file is as good as the password: it is made for its owner only.
 */
import { open, readFile } from 'node:fs/promises'
import { Session } from 'sealsync/session'
import { need, WAYS } from './ways.mjs'

const path = process.argv[2] ?? 'session.json'
const way = await WAYS.proton()
const kept = await readFile(path, 'utf8').catch(() => undefined)
const session =
  kept === undefined
    ? Session.create(need('SERVER'), way, { cookies: true })
    : await Session.load(kept, need('SERVER'), way, { cookies: true })
console.log(kept === undefined ? 'logging in' : 'going on')
console.log(JSON.stringify(await session.get(process.env.PATH_TO_GET ?? '/tests/ping')))
// Tokens may have been renewed.
const file = await open(path, 'w', 0o600)
await file.writeFile(JSON.stringify(await session.dump()))
await file.sync()
await file.close()
await session.close()
