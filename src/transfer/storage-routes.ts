/**
 * What a server says of its storage. That stays as it is while somebody is logged in, so it is asked once for each client, and again
 * when the server does not take what it has said.
 * @module
 */
import { getStorage, type ServerStorage } from '../api/account.ts'
import type { Api } from '../api/api.ts'

const known = new WeakMap<Api, Promise<ServerStorage>>()

/** Asks, unless that has been done. */
export function storageOf(api: Api, signal?: AbortSignal): Promise<ServerStorage> {
  let asked = known.get(api)
  if (asked === undefined) {
    asked = getStorage(api, signal)
    known.set(api, asked)
    asked.catch(() => known.delete(api)) // told to those who wait
  }
  return asked
}

/** Says that it is not so, or not any more. */
export const forgetStorage = (api: Api): void => void known.delete(api)
