/**
 * A process that restores the newest run of a set and kills itself, as hard as can be, at one of its calls that change something on the
 * disk (before it, or when it is done), or when a part of a file has arrived.
 *
 * Arguments: URL, user, password, encryption password, set as JSON, state directory, target, `before`, `after` or `part`, number of
 * the call or part (0: none). Prints the number of calls, and the summary.
 */
import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { createClient } from '../../dist/src/client.js'
import { systemRandom } from '../../dist/src/environment.js'
import { passwordAuthorizer } from '../../dist/src/session/authorizers/password.js'
import { restoreBackup } from '../../dist/src/sync/backup/restore.js'

const [url, user, password, keyPassword, set, directory, target, when, limit] = process.argv.slice(2)
const client = createClient(url, {
  authorizer: (origin) => passwordAuthorizer(origin, { userName: user, password: async () => password }),
  keyPassword: async () => keyPassword,
})
await client.session.login()

const die = () => process.kill(process.pid, 'SIGKILL')
let calls = 0
function count(object, name) {
  const original = object[name]
  object[name] = function (...args) {
    const isLast = ++calls === Number(limit) && when !== 'part'
    if (isLast && when === 'before') die()
    const result = original.apply(this, args)
    if (!isLast) return result
    if (typeof result?.then === 'function') return result.then(die)
    if (typeof args.at(-1) !== 'function') die()
    return result
  }
}
const SYNC = ['openSync', 'writeSync', 'renameSync', 'rmSync', 'mkdirSync', 'symlinkSync', 'unlinkSync', 'linkSync']
for (const name of [...SYNC, 'fchmodSync', 'futimesSync', 'lutimesSync', 'fsync']) count(fs, name)
for (const name of ['open', 'rename', 'unlink', 'rm', 'mkdir', 'writeFile']) count(fs.promises, name)
const handle = await fs.promises.open(process.execPath)
for (const name of ['write', 'writeFile', 'chmod', 'utimes', 'sync']) count(Object.getPrototypeOf(handle), name)
await handle.close()
syncBuiltinESMExports()
calls = 0

let parts = 0
const onEvent = ({ type }) => {
  if (type === 'part-confirmed' && when === 'part' && ++parts === Number(limit)) die()
}
const context = { api: client.api, keyring: client.keyring, clock: client.clock, random: systemRandom, onEvent }
const options = { state: { directory, account: user }, jobs: 2 }
const { failed, stoppedBy, transferred, skipped } = await restoreBackup(context, JSON.parse(set), target, options)
const codes = [...failed.map(({ error }) => error.code), ...(stoppedBy === undefined ? [] : [stoppedBy.code])]
process.stdout.write(JSON.stringify({ calls, codes, transferred, skipped }))
await client.close()
