/** Uploads a stream of unknown length and says how far it is; fetches it again. Prints one line of JSON. */
import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { createClient, passwordAuthorizer } from 'sealsync'

const [url = '', userName = '', secret = '', keySecret = ''] = process.argv.slice(2)

const client = createClient(url, {
  authorizer: (origin) => passwordAuthorizer(origin, { userName, password: async () => secret }),
  keyPassword: async () => keySecret,
})
await client.session.login()

const hash = createHash('sha256')
function* lines(): Generator<Buffer> {
  for (let line = 1; line <= 200_000; line++) {
    const text = Buffer.from(`${line}: a line of a log that is being written while it is uploaded\n`)
    hash.update(text)
    yield text
  }
}

const told: number[] = []
const { entry, bytes } = await client.put('/room/log.txt', Readable.from(lines()), {
  partSize: 5 * 1024 * 1024,
  onProgress: (sent) => told.push(sent),
})
const back = createHash('sha256')
for await (const chunk of await client.get(entry.path)) back.update(chunk)
console.log(JSON.stringify({ bytes, told, same: back.digest('hex') === hash.digest('hex') }))
await client.close()
