/**
 * Handing out file keys: every member of a room who lacks the key of a file gets it, wrapped for their public key. Keys of
 * files just uploaded are at hand; older ones are unwrapped with our own key pair.
 * @module
 */
import { type FileKey, formatFileKey, parseFileKey, SyncError } from '../../crypto/index.ts'
import type { Api } from '../api/api.ts'
import { type HolderKey, KEYS_PER_CALL, listMissingFileKeys, postFileKeys } from '../api/file-keys.ts'
import type { MissingFileKeys } from '../api/wire.ts'
import { cancelled } from '../errors.ts'
import type { OnEvent } from './events.ts'
import type { Keyring } from './keyring.ts'

export interface Distributor {
  /** Keeps the key of a file just uploaded until the next hand-out in its room. The key is wiped then. */
  remember(roomId: number, fileId: number, fileKey: FileKey): Promise<void>
  /** Has this room looked at by the next hand-out, too: an interrupted run may have left files there without. */
  include(roomId: number): void
  /** Hands out what is missing in the rooms of the remembered files and the included ones, to the end. */
  flush(): Promise<void>
}

export interface DistributionResult {
  readonly handedOut: number
  /** Entries that could not be served: a member's key is unusable, or a file key does not open. */
  readonly skipped: number
}

const MAX_REMEMBERED = 500

interface DistributionOptions {
  readonly roomId?: number
  /** Keys at hand, by file id. */
  readonly known?: ReadonlyMap<number, FileKey>
  readonly onEvent?: OnEvent | undefined
  readonly signal?: AbortSignal | undefined
}

/**
 * Hands out all file keys that are missing in one room (or everywhere). An account with key pairs of both versions also hands
 * out what it can open with the older one only; its own newer key pair is among the recipients then.
 */
export async function distributeFileKeys(
  api: Api,
  keyring: Keyring,
  options: DistributionOptions = {},
): Promise<DistributionResult> {
  const holders: HolderKey[] =
    (await keyring.containers(options.signal)).length > 1 ? ['current', 'previous'] : ['current']
  let handedOut = 0
  let skipped = 0
  for (const holder of holders) {
    const done = await distributeWith(api, keyring, holder, options)
    handedOut += done.handedOut
    skipped += done.skipped
  }
  return { handedOut, skipped }
}

/** Page by page. Served entries vanish from the server's list, so the offset only moves past those that cannot be served. */
async function distributeWith(
  api: Api,
  keyring: Keyring,
  holder: HolderKey,
  { roomId, known, onEvent, signal }: DistributionOptions,
): Promise<DistributionResult> {
  let handedOut = 0
  let skipped = 0
  const warned = new Set<string>()
  const warn = (id: string, error: unknown, what: string) => {
    if (!(error instanceof SyncError) || (error.class !== 'key' && error.class !== 'integrity')) throw error
    if (error.code === 'KEY_PASSWORD_WRONG' || error.code === 'NO_KEY_PAIR') throw error
    if (!warned.has(id)) onEvent?.({ type: 'warning', code: error.code, message: `${what}: ${error.message}` })
    warned.add(id)
  }
  let previous = ''
  for (;;) {
    if (signal?.aborted) throw cancelled(signal)
    const scope = { ...(roomId === undefined ? {} : { roomId }), holder, offset: skipped }
    const page = await listMissingFileKeys(api, scope, signal)
    if (page.items.length === 0) return { handedOut, skipped }
    const listed = JSON.stringify(page.items)
    if (listed === previous) {
      throw new SyncError('server', 'KEYS_NOT_TAKEN', 'The server accepts file keys but keeps listing them as missing')
    }
    previous = listed
    const entries = await wrapPage(page, keyring, known, warn, signal)
    for (let at = 0; at < entries.length; at += KEYS_PER_CALL) {
      await postFileKeys(api, entries.slice(at, at + KEYS_PER_CALL), signal)
    }
    handedOut += entries.length
    skipped += page.items.length - entries.length
    if (entries.length > 0) onEvent?.({ type: 'keys-handed-out', count: entries.length })
  }
}

async function wrapPage(
  page: MissingFileKeys,
  keyring: Keyring,
  known: ReadonlyMap<number, FileKey> | undefined,
  warn: (id: string, error: unknown, what: string) => void,
  signal: AbortSignal | undefined,
) {
  const recipients = new Map(page.users.map((user) => [user.id, user.publicKeyContainer]))
  const containers = new Map(page.files.map((file) => [file.id, file.fileKeyContainer]))
  const opened = new Map<number, FileKey>()
  try {
    // All unwraps of a page run at once: they are the slow part, and they run on all cores.
    const wanted = [...new Set(page.items.map((item) => item.fileId))].filter((id) => known?.get(id) === undefined)
    const results = await Promise.allSettled(
      wanted.map(async (id) => [id, await keyring.unwrap(parseFileKey(containers.get(id)), signal)] as const),
    )
    results.forEach((result, index) => {
      if (result.status === 'fulfilled') opened.set(...result.value)
      else warn(`file ${wanted[index]}`, result.reason, `The key of file ${wanted[index]} is not handed out`)
    })
    const entries: { userId: number; fileId: number; fileKey: ReturnType<typeof formatFileKey> }[] = []
    for (const { userId, fileId } of page.items) {
      const fileKey = known?.get(fileId) ?? opened.get(fileId)
      if (fileKey === undefined) continue
      try {
        const publicKey = await keyring.importKey(recipients.get(userId))
        entries.push({ userId, fileId, fileKey: formatFileKey(await keyring.wrap(fileKey, publicKey)) })
      } catch (error) {
        warn(`user ${userId}`, error, `User ${userId} gets no file keys`)
      }
    }
    return entries
  } finally {
    for (const fileKey of opened.values()) fileKey.wipe()
  }
}

/** For a run of uploads: hands out in batches, not per file. */
export function createDistributor(
  api: Api,
  keyring: Keyring,
  options: { onEvent?: OnEvent | undefined; signal?: AbortSignal | undefined } = {},
): Distributor {
  let rooms = new Map<number, Map<number, FileKey>>()
  let count = 0
  let running: Promise<void> = Promise.resolve()

  async function handOut(batch: Map<number, Map<number, FileKey>>): Promise<void> {
    try {
      for (const [roomId, known] of batch) await distributeFileKeys(api, keyring, { roomId, known, ...options })
    } finally {
      for (const known of batch.values()) for (const fileKey of known.values()) fileKey.wipe()
    }
  }

  function flush(): Promise<void> {
    const batch = rooms
    rooms = new Map()
    count = 0
    // One after the other: two at once would hand out the same entries.
    const next = running.then(() => handOut(batch))
    running = next.catch(() => {})
    return next
  }

  function knownIn(roomId: number): Map<number, FileKey> {
    let known = rooms.get(roomId)
    if (known === undefined) {
      known = new Map()
      rooms.set(roomId, known)
    }
    return known
  }

  return {
    include: (roomId) => void knownIn(roomId),
    async remember(roomId, fileId, fileKey) {
      knownIn(roomId).set(fileId, fileKey)
      if (++count >= MAX_REMEMBERED) await flush()
    },
    flush,
  }
}
