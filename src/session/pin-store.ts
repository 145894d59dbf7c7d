/**
 * Where the keys of servers are kept that were seen first (`pins: 'first-use'`): in memory, or in a private file.
 * @module
 */
import { type Clock, systemClock } from '../environment.ts'
import { SyncError } from '../errors.ts'
import { isPin, type PinStore } from '../http/pins.ts'
import { readPrivateFile, writePrivateFile } from '../local/atomic-file.ts'
import { takeLock } from '../local/lock.ts'

const MAX_SERVERS = 1_000
const LOCK_WAIT_MS = 60_000

const damaged = (path: string) =>
  new SyncError('safety', 'PINS_LOST', `${path} should hold the keys of servers, and is damaged`, {
    hint: 'Compare the server’s key with its operator; then remove the file, and the next key seen is kept.',
  })

function parse(text: string, path: string): Map<string, string> {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw damaged(path)
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw damaged(path)
  const entries = Object.entries(value)
  if (entries.length > MAX_SERVERS || !entries.every(([, pin]) => isPin(pin))) throw damaged(path)
  return new Map(entries as [string, string][])
}

/** A store that can be looked into. */
export interface FilePinStore extends PinStore {
  /** Keys by origin. */
  list(): Promise<ReadonlyMap<string, string>>
  /** @returns whether there was one. */
  forget(origin: string): Promise<boolean>
}

/**
 * A file of mode 0600. Damage is an error, never an empty slate.
 *
 * @throws {SyncError} from its functions: `PINS_LOST`, `TOO_MANY_PINS`, those of private files.
 */
export function filePinStore(path: string, clock: Clock = systemClock): FilePinStore {
  const read = async () => {
    const bytes = await readPrivateFile(path)
    return bytes === undefined ? new Map<string, string>() : parse(Buffer.from(bytes).toString('utf8'), path)
  }
  /** Changes what is there, as nobody else does meanwhile. */
  async function change(work: (pins: Map<string, string>) => boolean): Promise<boolean> {
    const lock = await takeLock(`${path}.lock`, { clock, waitMs: LOCK_WAIT_MS })
    try {
      const pins = await read()
      if (!work(pins)) return false
      if (pins.size > MAX_SERVERS) {
        throw new SyncError('limit', 'TOO_MANY_PINS', `${path} holds the keys of ${MAX_SERVERS} servers already`)
      }
      await writePrivateFile(path, JSON.stringify(Object.fromEntries(pins)))
      return true
    } finally {
      await lock.release()
    }
  }
  return {
    load: async (origin) => (await read()).get(origin),
    async save(origin, pin, previous) {
      // Another process may have seen it first: then that counts.
      await change((pins) => pins.get(origin) === previous && pins.set(origin, pin) === pins)
    },
    list: read,
    forget: (origin) => change((pins) => pins.delete(origin)),
  }
}
