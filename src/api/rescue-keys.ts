/** Rescue key pairs of the server: of a room, and of the whole system. Their private keys are locked with passwords that the server never sees. @module */
import {
  type KeyPairContainer,
  parseFileKey,
  parseKeyPairContainer,
  type WrappedFileKey,
} from '../../crypto/containers.ts'
import { SyncError } from '../errors.ts'
import { type Api, call, callFor } from './api.ts'
import { parseRaw } from './wire.ts'

async function getPair(api: Api, path: string, signal: AbortSignal | undefined): Promise<KeyPairContainer | undefined> {
  try {
    return parseKeyPairContainer(await callFor(api, { method: 'GET', path, signal }, parseRaw))
  } catch (error) {
    const isNone = error instanceof SyncError && (error.class === 'not_found' || error.code === 'NO_KEY_PAIR')
    if (isNone) return undefined
    throw error
  }
}

const ofRoom = (roomId: number) => `/v4/nodes/rooms/${roomId}/keypair`

/** The pair that covers a room: its own, or that of the room above; `undefined` when there is none. */
export const getRoomRescueKey = (api: Api, roomId: number, signal?: AbortSignal) => getPair(api, ofRoom(roomId), signal)

/** The pair of the whole system; `undefined` when there is none. */
export const getSystemRescueKey = (api: Api, signal?: AbortSignal) => getPair(api, '/v4/settings/keypair', signal)

/** @throws {SyncError} `KEY_PAIR_EXISTS` when there is one of this version. */
export async function setRoomRescueKey(
  api: Api,
  roomId: number,
  pair: KeyPairContainer,
  signal?: AbortSignal,
): Promise<void> {
  await call(api, { method: 'POST', path: ofRoom(roomId), json: pair, signal })
}

/**
 * A file key, wrapped for the rescue key of its room or of the system.
 *
 * @throws {SyncError} `FILE_KEY_MISSING` when nobody has handed it out to that yet.
 */
export const getRescueFileKey = async (
  api: Api,
  fileId: number,
  of: 'room' | 'system',
  signal?: AbortSignal,
): Promise<WrappedFileKey> => {
  const path = `/v4/nodes/files/${fileId}/${of === 'room' ? 'data_room_file_key' : 'data_space_file_key'}`
  return parseFileKey(await callFor(api, { method: 'GET', path, signal }, parseRaw))
}
