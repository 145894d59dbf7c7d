/** Stores of one directory in one process: that of a server, and those in which accounts are made meanwhile. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { addUser, startServer } from '../../src/server/index.ts'

test('accounts are made at the same time, also beside a server, and none waits for ever', async () => {
  const data = mkdtempSync(join(tmpdir(), 'sealsync-users-'))
  const password = 'Password-1234!'
  const server = await startServer({ data, port: 0 })
  try {
    const made = await Promise.all(
      Array.from({ length: 12 }, (_, at) => addUser(data, { name: `user${at}`, password })),
    )
    expect(new Set(made.map(({ id }) => id)).size).toBe(12)
    const again = await Promise.allSettled([0, 1].map(() => addUser(data, { name: 'twice', password })))
    expect(again.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
  } finally {
    await server.close()
    rmSync(data, { recursive: true })
  }
})
