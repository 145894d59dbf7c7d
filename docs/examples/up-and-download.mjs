/** Uploads a directory into an encrypted room and fetches it again: `node up-and-download.mjs SOURCE /ROOM TARGET`. */
import { readFile } from 'node:fs/promises'
import { createClient, passwordAuthorizer } from 'sealsync'
import { need } from './ways.mjs'

const [source, room, target] = process.argv.slice(2)
if (target === undefined) throw new Error('Say what to upload, the room, and where to download to.')
const textOf = (name) => async () => (await readFile(need(name), 'utf8')).trim()
const client = createClient(need('SERVER'), {
  authorizer: (origin) => passwordAuthorizer(origin, { userName: need('USER'), password: textOf('PASSWORD_FILE') }),
  keyPassword: textOf('KEY_PASSWORD_FILE'),
})
await client.session.login()
const up = await client.upload([source], room, { requireEncryption: true })
console.log(`sent ${up.transferred}`)
const down = await client.download([room], target)
console.log(`fetched ${down.transferred}`)
if (up.failed.length + down.failed.length > 0) process.exitCode = 1
await client.session.logout()
await client.close()
