import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { Api } from '../../src/api/api.ts'
import { systemClock, systemRandom } from '../../src/environment.ts'
import { runDownload } from '../../src/sync/jobs/transfer.ts'
import { createKeyring } from '../../src/transfer/keyring.ts'
import { freshDirectory } from '../support/files.ts'

test('130,000 files are planned; a disk that is too small for them is told before the first', async () => {
  const FILES = 130_000
  const page = (items: object[], total: number, offset: number) => ({ range: { offset, limit: 500, total }, items })
  const room = { id: 1, type: 'room', name: 'many', isEncrypted: false }
  const size = 2 ** 33
  const api: Api = {
    origin: 'http://127.0.0.1:1',
    async send({ url }) {
      const query = new URL(url).searchParams
      const offset = Number(query.get('offset'))
      const answer =
        query.get('parent_id') === '0'
          ? page([room], 1, 0)
          : page(
              Array.from({ length: 500 }, (_, at) => ({
                id: 2 + offset + at,
                type: 'file',
                name: `f${offset + at}`,
                size,
              })),
              FILES,
              offset,
            )
      return { status: 200, headers: {}, body: Buffer.from(JSON.stringify(answer)) }
    },
    sendPlain: () => Promise.reject(new Error('nothing is transferred')),
  }
  const keyring = createKeyring(api, () => Promise.reject(new Error('not asked for')))
  const context = { api, keyring, clock: systemClock, random: systemRandom }
  await expect(runDownload(context, ['/many'], join(await freshDirectory(), 'many'))).rejects.toMatchObject({
    code: 'LOCAL_ENOSPC',
  })
})
