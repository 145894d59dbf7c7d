/** Logs in, says how the login stands, and out again: `WAY=client-credentials SERVER=… CLIENT_ID=… node login.mjs`. */
import { openSession } from './ways.mjs'

const session = await openSession()
await session.login()
const { valid, expiresAt, scope } = await session.check()
console.log(
  JSON.stringify({
    valid,
    client: session.clientId,
    ...(expiresAt === undefined ? {} : { expiresAt: new Date(expiresAt).toISOString() }),
    ...(scope === undefined ? {} : { scope }),
    who: (await session.identity())?.claims.sub,
  }),
)
await session.logout()
await session.close()
