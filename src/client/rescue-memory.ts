/**
 * Which rescue keys an account has: their public halves, and where their containers are. A small private file per account, so that a new
 * key pair can be sealed without the paper. Only what is here is sealed for: the server could name a key of its own.
 * @module
 */
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { rescueKeyId } from '../../crypto/rescue-key.ts'
import { SyncError } from '../errors.ts'
import { readPrivateFile, writePrivateFile } from '../local/atomic-file.ts'
import { takeLock } from '../local/lock.ts'
import type { ClientContext } from './context.ts'

/** Where a container is. */
export interface RescuePlace {
  readonly kind: 'file' | 'server'
  /** Path of a file here, or of one at the server. */
  readonly path: string
}

/** A rescue key that this machine knows. */
export interface KnownRescueKey {
  /** 16 hexadecimal digits; on the paper, too. */
  readonly keyId: string
  /** 32 bytes, as hexadecimal digits. */
  readonly publicKey: string
  /** ISO 8601. */
  readonly createdAt: string
  readonly places: readonly RescuePlace[]
}

const digest = (text: string) => createHash('sha256').update(text).digest('hex')

async function pathOf({ home }: ClientContext, signal?: AbortSignal): Promise<string> {
  return join(home.rescueKeys, `${digest(await home.account(signal)).slice(0, 32)}.keys`)
}

function isKnownKey(value: unknown): value is KnownRescueKey {
  const { keyId, publicKey, createdAt, places } = (value ?? {}) as Record<keyof KnownRescueKey, unknown>
  const isPlace = (one: unknown) => {
    const { kind, path } = (one ?? {}) as Record<keyof RescuePlace, unknown>
    return (kind === 'file' || kind === 'server') && typeof path === 'string'
  }
  return (
    typeof publicKey === 'string' &&
    /^[0-9a-f]{64}$/.test(publicKey) &&
    rescueKeyId(Buffer.from(publicKey, 'hex')) === keyId &&
    typeof createdAt === 'string' &&
    Array.isArray(places) &&
    places.every(isPlace)
  )
}

function parse(bytes: Uint8Array, path: string): readonly KnownRescueKey[] {
  const [checksum, json = ''] = Buffer.from(bytes).toString('utf8').split('\n')
  try {
    const { format, keys } = JSON.parse(json)
    const isWhole = checksum === digest(json) && format === 'sealsync-rescue-keys 1'
    if (isWhole && Array.isArray(keys) && keys.every(isKnownKey)) return keys
  } catch {
    // as below
  }
  throw new SyncError('safety', 'RESCUE_KEYS_DAMAGED', `What is known of rescue keys is damaged: ${path}`, {
    hint: 'Remove that file, and make a new rescue key: sync keys rescue create',
  })
}

/** @throws {SyncError} `RESCUE_KEYS_DAMAGED` (class `safety`). */
export async function readRescueKeys(context: ClientContext, signal?: AbortSignal): Promise<readonly KnownRescueKey[]> {
  const path = await pathOf(context, signal)
  const bytes = await readPrivateFile(path)
  return bytes === undefined ? [] : parse(bytes, path)
}

/** Changes what is known, one process at a time. */
export async function changeRescueKeys(
  context: ClientContext,
  change: (keys: readonly KnownRescueKey[]) => readonly KnownRescueKey[],
  signal?: AbortSignal,
): Promise<void> {
  const path = await pathOf(context, signal)
  const lock = await takeLock(`${path}.lock`, { clock: context.clock, waitMs: 10_000 })
  try {
    const keys = change(await readRescueKeys(context, signal))
    const json = JSON.stringify({ format: 'sealsync-rescue-keys 1', keys })
    await writePrivateFile(path, `${digest(json)}\n${json}\n`)
  } finally {
    await lock.release()
  }
}
