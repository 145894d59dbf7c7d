/** keys create, keys status, keys distribute. @module */
import { generateKeyPair, importPublicKey, keyProtection, lockKeyPair, SyncError } from '../../../crypto/index.ts'
import { createKeyPair, getKeyPairs } from '../../api/account.ts'
import { listMissingFileKeys } from '../../api/file-keys.ts'
import { requireRemote } from '../../sync/remote-path.ts'
import { distributeFileKeys } from '../../transfer/distribute.ts'
import { type Context, connect, keyPassword, text, withClient } from '../context.ts'
import { plural } from '../display.ts'
import { EXIT } from '../exit-codes.ts'
import { createProgress } from '../output.ts'

/** What two people compare over the phone. */
const groups = (fingerprint: string) => fingerprint.match(/.{4}/g)?.join(' ') ?? fingerprint

export async function create(context: Context): Promise<void> {
  await withClient(context, async (client, profile) => {
    const existing = await getKeyPairs(client.api, context.signal)
    if (existing.some((pair) => pair.privateKeyContainer.version === 'RSA-4096')) {
      throw new SyncError('conflict', 'KEY_PAIR_EXISTS', 'This account has an RSA-4096 key pair already', {
        hint: 'See it with: sync keys status',
      })
    }
    const password = await keyPassword(context, profile, true)()
    context.output.info('Making an RSA-4096 key pair…')
    const pair = await generateKeyPair()
    try {
      await createKeyPair(client.api, await lockKeyPair(pair, password), context.signal)
      const { fingerprint } = pair.publicKey
      context.output.result(`Key pair made. Fingerprint:\n${groups(fingerprint)}`, {
        type: 'key-pair',
        version: pair.version,
        fingerprint,
      })
      context.output.info(
        'Keep the encryption password safe: without it nobody can open the files, not even the server.',
      )
    } finally {
      pair.wipe()
      password.fill(0)
    }
  })
}

export async function status(context: Context): Promise<number> {
  return withClient(context, async (client) => {
    const pairs = await getKeyPairs(client.api, context.signal)
    const missing = await listMissingFileKeys(client.api, { offset: 0 }, context.signal).catch(() => undefined)
    const count = missing === undefined ? undefined : (missing.range?.total ?? missing.items.length)
    const rows = []
    for (const pair of pairs) {
      const { version } = pair.publicKeyContainer
      const { fingerprint } = await importPublicKey(pair.publicKeyContainer)
      rows.push({ version, fingerprint, ...keyProtection(pair) })
    }
    const lines = rows.map(
      (row) =>
        `${row.version}  ${groups(row.fingerprint)}\n  locked with PBKDF2 ${row.prf}, ${row.iterations} iterations` +
        (row.current ? '' : ' (old protection: change the password to renew it)'),
    )
    const left = count === undefined ? [] : [`${plural(count, 'file key')} of others to hand out`]
    context.output.result(
      [...(lines.length > 0 ? lines : ['no key pair; make one: sync keys create']), ...left].join('\n'),
      {
        type: 'keys',
        keyPairs: rows,
        missingFileKeys: count,
      },
    )
    return rows.length > 0 ? EXIT.done : EXIT.key
  })
}

export async function distribute(context: Context): Promise<number> {
  const progress = await createProgress(context.output, 'handing out')
  const { client } = await connect(context, (event) => progress.onEvent(event))
  try {
    const path = text(context.options, 'room')
    const target = path === undefined ? undefined : await requireRemote(client.api, path, context.signal)
    const done = await distributeFileKeys(client.api, client.keyring, {
      ...(target === undefined ? {} : { roomId: target.roomId }),
      onEvent: progress.onEvent,
      signal: context.signal,
    })
    context.output.result(`Handed out ${plural(done.handedOut, 'file key')}, ${done.skipped} could not be`, {
      type: 'distribution',
      ...done,
    })
    return done.skipped > 0 ? EXIT.partial : EXIT.done
  } finally {
    progress.stop()
    await client.close()
  }
}
