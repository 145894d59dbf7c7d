/**
 * A process that pushes a directory and kills itself, as hard as can be, after so many requests that change something at the
 * server, with their answers received.
 *
 * Arguments: URL, user, password, encryption password, local, remote, state directory, requests until the end.
 */
import { createClient } from '../../dist/src/client.js'
import { passwordAuthorizer } from '../../dist/src/session/authorizers/password.js'

const [url, user, password, keyPassword, local, remote, directory, limit] = process.argv.slice(2)
const client = createClient(url, {
  authorizer: (origin) => passwordAuthorizer(origin, { userName: user, password: async () => password }),
  keyPassword: async () => keyPassword,
})
await client.session.login()
let done = 0
for (const way of ['send', 'sendPlain']) {
  const send = client.api[way]
  client.api[way] = async (request) => {
    const answer = await send(request)
    if (request.method !== 'GET' && ++done >= Number(limit)) process.kill(process.pid, 'SIGKILL')
    return answer
  }
}
const summary = await client.sync(local, remote, { direction: 'push', state: { directory, account: user } })
if (summary.stoppedBy !== undefined || summary.failed.length > 0) {
  process.stderr.write(`${JSON.stringify(summary.stoppedBy ?? summary.failed)}\n`)
  process.exitCode = 1
}
await client.close()
