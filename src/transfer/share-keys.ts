/**
 * The public keys of links to encrypted files, as they were made here. A link that is to lead to a newer version needs the new file key
 * wrapped for its key, which comes from the server: one that is not what is known here gets none.
 * @module
 */
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import type { Api } from '../api/api.ts'
import type { Clock } from '../environment.ts'
import { readPrivateFile, writePrivateFile } from '../local/atomic-file.ts'
import type { HomePaths } from '../local/home.ts'
import { takeLock } from '../local/lock.ts'
import type { KeyId } from './pins.ts'

export interface ShareKeys {
  /** The key of a link; `undefined` for one that was not made here. */
  find(shareId: number): Promise<KeyId | undefined>
  /** Durable when it resolves. */
  remember(shareId: number, key: KeyId): Promise<void>
  forget(shareIds: readonly number[]): Promise<void>
}

/** Most that are kept; the oldest go first. */
const MAX_KEYS = 10_000
const VERSION = 1

interface Kept extends KeyId {
  readonly id: number
}

function parse(bytes: Uint8Array | undefined, origin: string): Kept[] {
  try {
    const { version, server, keys } = JSON.parse(Buffer.from(bytes ?? new Uint8Array(0)).toString('utf8'))
    if (version !== VERSION || server !== origin || !Array.isArray(keys)) return []
    return keys.flatMap(({ id, version: of, fingerprint }: Partial<Kept>) => {
      const isKey = Number.isSafeInteger(id) && /^[0-9a-f]{64}$/.test(String(fingerprint))
      return isKey && (of === 'A' || of === 'RSA-4096')
        ? [{ id: id as number, version: of, fingerprint: fingerprint as string }]
        : []
    })
  } catch {
    return [] // damaged: links were made elsewhere, as far as anybody knows
  }
}

/**
 * The keys that are known of a server, one object for all who ask.
 *
 * @param home - Where the program keeps things; nothing is kept where that goes with the client.
 */
export function shareKeysOf({
  api,
  home,
  clock,
}: {
  readonly api: Pick<Api, 'origin'>
  readonly home?: (Pick<HomePaths, 'shareKeys'> & { readonly isLasting: boolean }) | undefined
  readonly clock: Clock
}): ShareKeys {
  let keys = known.get(api)
  if (keys === undefined) {
    keys = openShareKeys(api.origin, home?.isLasting === true ? home.shareKeys : undefined, clock)
    known.set(api, keys)
  }
  return keys
}

const known = new WeakMap<object, ShareKeys>()

/** @param directory - Private; absent: they are kept in memory. */
function openShareKeys(origin: string, directory: string | undefined, clock: Clock): ShareKeys {
  const path = directory && join(directory, `${createHash('sha256').update(origin).digest('hex').slice(0, 32)}.json`)
  let memory: Kept[] = []
  const read = async () => (path === undefined ? memory : parse(await readPrivateFile(path), origin))

  async function change(edit: (keys: Kept[]) => Kept[]): Promise<void> {
    if (path === undefined) {
      memory = edit(memory).slice(-MAX_KEYS)
      return
    }
    const lock = await takeLock(`${path}.lock`, { clock, waitMs: 10_000 })
    try {
      const keys = edit(await read()).slice(-MAX_KEYS)
      await writePrivateFile(path, JSON.stringify({ version: VERSION, server: origin, keys }))
    } finally {
      await lock.release()
    }
  }

  return {
    async find(shareId) {
      const found = (await read()).find(({ id }) => id === shareId)
      return found && { version: found.version, fingerprint: found.fingerprint }
    },
    remember: (id, { version, fingerprint }) =>
      change((keys) => [...keys.filter((one) => one.id !== id), { id, version, fingerprint }]),
    async forget(ids) {
      if ((await read()).some(({ id }) => ids.includes(id)))
        await change((keys) => keys.filter(({ id }) => !ids.includes(id)))
    },
  }
}
