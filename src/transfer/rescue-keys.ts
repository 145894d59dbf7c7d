/** The rescue keys that the server has for rooms and for the whole system, as it shows them. Nothing is believed here. @module */
import { importPublicKey, type KeyPairContainer, type PublicKey, SyncError } from '../../crypto/index.ts'
import type { Api } from '../api/api.ts'
import { getRoomRescueKey, getSystemRescueKey } from '../api/rescue-keys.ts'

/** A rescue key that the server names as such. */
export interface RescueKey {
  readonly of: 'room' | 'system'
  /** Of the room. */
  readonly roomId?: number
  readonly roomName?: string
  readonly key: PublicKey
}

/** What somebody may not see, or is no key, is left out. */
async function keyOf(
  pair: Promise<KeyPairContainer | undefined>,
  signal?: AbortSignal,
): Promise<PublicKey | undefined> {
  try {
    const found = await pair
    return found && (await importPublicKey(found.publicKeyContainer))
  } catch (error) {
    if (signal?.aborted) throw error
    if (error instanceof SyncError && ['permission', 'key', 'server'].includes(error.class) && !error.retryable) {
      return undefined
    }
    throw error
  }
}

/** The rescue keys of the system and of these rooms. */
export async function listRescueKeys(
  api: Api,
  rooms: readonly { readonly id: number; readonly name?: string }[],
  signal?: AbortSignal,
): Promise<RescueKey[]> {
  const found: RescueKey[] = []
  const system = await keyOf(getSystemRescueKey(api, signal), signal)
  if (system !== undefined) found.push({ of: 'system', key: system })
  for (const { id, name } of rooms) {
    const key = await keyOf(getRoomRescueKey(api, id, signal), signal)
    if (key !== undefined)
      found.push({ of: 'room', roomId: id, ...(name === undefined ? {} : { roomName: name }), key })
  }
  return found
}
