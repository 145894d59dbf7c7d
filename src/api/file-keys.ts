/** Wrapped file keys at the server: one's own, and those that members of a room still lack. @module */
import { type FileKeyJson, parseFileKey, type WrappedFileKey } from '../../crypto/containers.ts'
import { type Api, call, callFor } from './api.ts'
import { type MissingFileKeys, parseMissingFileKeys, parseRaw } from './wire.ts'

/** Most entries the server lists or takes at once. */
export const KEYS_PER_CALL = 100

/**
 * @param version - Only that of the older version, for who has key pairs of both. Default: the preferred one there is.
 * @throws {SyncError} `FILE_KEY_MISSING` when nobody has handed it out to this account yet.
 */
export const getFileKey = async (
  api: Api,
  fileId: number,
  signal?: AbortSignal,
  version?: 'A',
): Promise<WrappedFileKey> =>
  parseFileKey(
    await callFor(
      api,
      { method: 'GET', path: `/v4/nodes/files/${fileId}/user_file_key`, query: { version }, signal },
      parseRaw,
    ),
  )

/**
 * Which key pair the listed file keys are wrapped for: the caller's current one, or that of the older version; the rescue key of the
 * room, or of the system.
 */
export type HolderKey = 'current' | 'previous' | 'room-rescue' | 'system-rescue'

const USE_KEY: Readonly<Record<HolderKey, string | undefined>> = Object.freeze({
  current: undefined,
  previous: 'previous_user_key',
  'room-rescue': 'room_rescue_key',
  'system-rescue': 'system_rescue_key',
})

/** Work that is left: who lacks the key of which file. Fulfilled entries vanish, so offsets shift under the reader. */
export const listMissingFileKeys = (
  api: Api,
  scope: { roomId?: number; fileId?: number; userId?: number; holder?: HolderKey; offset: number },
  signal?: AbortSignal,
): Promise<MissingFileKeys> =>
  callFor(
    api,
    {
      method: 'GET',
      path: '/v4/nodes/missingFileKeys',
      query: {
        room_id: scope.roomId,
        file_id: scope.fileId,
        user_id: scope.userId,
        use_key: USE_KEY[scope.holder ?? 'current'],
        offset: scope.offset,
        limit: KEYS_PER_CALL,
      },
      signal,
    },
    parseMissingFileKeys,
  )

/** Hands out file keys; recipients that have one already are passed over by the server, so it may be repeated. */
export async function postFileKeys(
  api: Api,
  items: readonly { userId: number; fileId: number; fileKey: FileKeyJson }[],
  signal?: AbortSignal,
): Promise<void> {
  await call(api, { method: 'POST', path: '/v4/nodes/files/keys', json: { items }, signal, repeatable: true })
}
