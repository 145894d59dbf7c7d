/**
 * What is kept on this machine while the key pairs of an account are changed: the locked key pairs as they were, and those that
 * take their place, so that whatever a kill or a server leaves can be gone on with. All of it is locked by encryption passwords.
 * One private file per account, removed when the change is complete.
 * @module
 */
import { createHash } from 'node:crypto'
import { unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { type KeyPairContainer, parseKeyPairContainer } from '../../crypto/index.ts'
import type { Clock } from '../environment.ts'
import { localError, SyncError, systemCode } from '../errors.ts'
import { readPrivateFile, writePrivateFile } from '../local/atomic-file.ts'
import { takeLock } from '../local/lock.ts'
import type { ClientContext } from './context.ts'

/** A change of key pairs that has begun. */
export interface KeyChange {
  /** A new lock for the same key pairs, or another key pair. */
  readonly kind: 'password' | 'pair'
  /** Milliseconds since the epoch. */
  readonly since: number
  /** The locked key pairs before it. */
  readonly before: readonly KeyPairContainer[]
  /** The one of the older version that holds all file keys in between. */
  readonly bridge?: KeyPairContainer | undefined
  /** The new one. */
  readonly next?: KeyPairContainer | undefined
}

export interface KeyChanges {
  /** `undefined` when nothing has begun. */
  read(): Promise<KeyChange | undefined>
  /** Durable when it resolves. */
  write(change: KeyChange): Promise<void>
  /** The change is complete, or nothing of it was done. */
  remove(): Promise<void>
  /** Runs work that no other process of this machine does for the same account meanwhile. Throws `LOCKED`. */
  exclusive<T>(work: () => Promise<T>): Promise<T>
}

const FORMAT = 'sealsync-key-change'

const checksumOf = (json: string) => createHash('sha256').update(json).digest('hex')

const damaged = (path: string, cause?: unknown) =>
  new SyncError(
    'safety',
    'KEY_CHANGE_DAMAGED',
    `What is kept of an unfinished change of key pairs is damaged: ${path}`,
    {
      hint: 'It holds the locked key pairs as they were. Keep a copy of it elsewhere, remove it, then look with: sync keys status',
      cause,
    },
  )

function parse(bytes: Uint8Array, account: string, path: string): KeyChange {
  const [checksum, json = ''] = Buffer.from(bytes).toString('utf8').split('\n')
  if (checksum !== checksumOf(json)) throw damaged(path)
  try {
    const value = JSON.parse(json)
    if (value.format !== FORMAT || value.version !== 1 || value.account !== account) throw damaged(path)
    if (value.kind !== 'password' && value.kind !== 'pair') throw damaged(path)
    const optional = (one: unknown) => (one === undefined ? undefined : parseKeyPairContainer(one))
    return {
      kind: value.kind,
      since: Number(value.since),
      before: (value.before as unknown[]).map(parseKeyPairContainer),
      bridge: optional(value.bridge),
      next: optional(value.next),
    }
  } catch (error) {
    throw error instanceof SyncError && error.code === 'KEY_CHANGE_DAMAGED' ? error : damaged(path, error)
  }
}

/** What is kept for the account of a client. */
export const openKeyChanges = async ({ home, clock }: ClientContext, signal?: AbortSignal): Promise<KeyChanges> =>
  keyChangesOf(home.keyPairs, await home.account(signal), clock)

/** What is kept for an account in a directory. */
export function keyChangesOf(directory: string, account: string, clock: Clock): KeyChanges {
  const path = join(directory, `${createHash('sha256').update(account).digest('hex').slice(0, 32)}.change`)
  return {
    async read() {
      const bytes = await readPrivateFile(path)
      return bytes === undefined ? undefined : parse(bytes, account, path)
    },
    async write(change) {
      const json = JSON.stringify({ format: FORMAT, version: 1, account, ...change })
      await writePrivateFile(path, `${checksumOf(json)}\n${json}\n`)
    },
    async remove() {
      try {
        await unlink(path)
      } catch (error) {
        if (systemCode(error) !== 'ENOENT') throw localError(error, `remove ${path}`)
      }
    },
    async exclusive(work) {
      const lock = await takeLock(`${path}.lock`, { clock, waitMs: 0 })
      try {
        return await work()
      } finally {
        await lock.release()
      }
    },
  }
}
