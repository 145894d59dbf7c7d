/**
 * A process that backs up a set, or prunes it, and kills itself, as hard as can be, at one of the requests that change something:
 * before it is sent, or when its answer is there.
 *
 * Arguments: URL, user, password, encryption password, set as JSON, state directory, number of the request or `manifest`, `before` or `after`,
 * `run`, `prune` or `write-only`, which runs without the private key, with what is known in the directory above. Prints how many bytes it has read meanwhile, where the system tells.
 */
import { readFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { createClient } from '../../dist/src/client.js'
import { systemRandom } from '../../dist/src/environment.js'
import { passwordAuthorizer } from '../../dist/src/session/authorizers/password.js'
import { pruneBackup } from '../../dist/src/sync/backup/prune.js'
import { runBackup } from '../../dist/src/sync/backup/run.js'

const [url, user, password, keyPassword, set, directory, limit, when, what] = process.argv.slice(2)
const client = createClient(url, {
  authorizer: (origin) => passwordAuthorizer(origin, { userName: user, password: async () => password }),
  keyPassword: async () => keyPassword,
  ...(what === 'write-only' ? { writeOnly: true, directory: dirname(directory) } : {}),
})
await client.session.login()
/** Bytes that this process has asked the system to read, ever. */
const read = () => Number(/^rchar: (\d+)$/m.exec(readFileSync('/proc/self/io', 'utf8'))?.[1])
const readBefore = process.platform === 'linux' ? read() : 0
let changes = 0
const counting = (send) => async (request) => {
  const isManifest = request.method === 'PUT' && Buffer.from(request.body ?? []).includes('.json.gz')
  const isLast = request.method !== 'GET' && (limit === 'manifest' ? isManifest : ++changes === Number(limit))
  if (isLast && when === 'before') process.kill(process.pid, 'SIGKILL')
  const response = await send(request)
  if (isLast) process.kill(process.pid, 'SIGKILL')
  return response
}
const api = { ...client.api, send: counting(client.api.send), sendPlain: counting(client.api.sendPlain) }
const context = { api, keyring: client.keyring, clock: client.clock, random: systemRandom }
const options = { state: { directory, account: user }, jobs: 2, maxDelete: { share: 1 } }
const summary = await (what === 'prune' ? pruneBackup : runBackup)(context, JSON.parse(set), options)
const problems = [summary.stoppedBy, ...(summary.failed ?? [])].filter((one) => one !== undefined)
if (problems.length > 0) {
  process.stderr.write(`${JSON.stringify(problems.map(({ path, code, error }) => [path, code ?? error.code]))}\n`)
  process.exitCode = 1
}
if (process.platform === 'linux') process.stdout.write(String(read() - readBefore))
await client.close()
