/**
 * A process that synchronizes a pair and kills itself, as hard as can be, after so many files.
 *
 * Arguments: URL, user, password, encryption password, direction, local, remote, state directory, files until the end.
 */
import { createClient } from '../../dist/src/client.js'
import { passwordAuthorizer } from '../../dist/src/session/authorizers/password.js'

const [url, user, password, keyPassword, direction, local, remote, directory, limit] = process.argv.slice(2)
let done = 0
const client = createClient(url, {
  authorizer: (origin) => passwordAuthorizer(origin, { userName: user, password: async () => password }),
  keyPassword: async () => keyPassword,
  onEvent(event) {
    // Between the last request for a file and what is remembered of it.
    if (event.type === 'file-done' && ++done >= Number(limit)) process.kill(process.pid, 'SIGKILL')
  },
})
await client.session.login()
const summary = await client.sync(local, remote, {
  direction,
  delete: true,
  jobs: 2,
  state: { directory, account: user },
})
if (summary.stoppedBy !== undefined || summary.failed.length > 0) {
  process.stderr.write(`${JSON.stringify(summary.stoppedBy ?? summary.failed)}\n`)
  process.exitCode = 1
}
await client.close()
