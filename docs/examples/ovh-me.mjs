/** Whose account it is at OVH: `WAY=ovh SERVER=https://eu.api.ovh.com/1.0 node ovh-me.mjs`, with keys from ovh.conf or OVH_*. */
import { openSession } from './ways.mjs'

const session = await openSession()
try {
  console.log(JSON.stringify(await session.get('/me')))
} catch (error) {
  // The id under which the service knows the query is what its support asks for.
  console.error(`${error.code}: ${error.message} (${error.requestId ?? 'no id'})`)
  process.exitCode = 1
}
await session.close()
