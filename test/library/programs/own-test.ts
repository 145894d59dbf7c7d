/** Somebody's test of their application against a server of their own, with a fault. Prints one line of JSON. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Client, createClient, passwordAuthorizer, SyncError } from 'sealsync'
import { startServer } from 'sealsync/server'

/** The application. */
async function storeReport(client: Client, text: string): Promise<string> {
  const { entry } = await client.put('/reports/today.txt', Buffer.from(text), { onConflict: 'fail' })
  return entry.path
}

test('a report is stored once, also when the server fails for a moment', async () => {
  const server = await startServer({
    users: [{ name: 'app', password: 'password of the app' }],
    faults: [{ on: { method: 'POST', path: '/files/uploads$' }, do: { status: 503 } }],
  })
  const client = createClient(server.url, {
    authorizer: (origin) =>
      passwordAuthorizer(origin, { userName: 'app', password: async () => 'password of the app' }),
  })
  try {
    await client.session.login()
    await client.rooms.create('/reports', { plain: true })
    assert.equal(await storeReport(client, 'all is well'), '/reports/today.txt')
    assert.equal(server.faults.hits.length, 1)
    const content = await client.get('/reports/today.txt', { limit: 1000 })
    assert.equal(Buffer.from(await content.bytes()).toString(), 'all is well')
    await assert.rejects(storeReport(client, 'again'), (error) => error instanceof SyncError && error.code === 'EXISTS')
  } finally {
    await client.close()
    await server.close()
  }
})
