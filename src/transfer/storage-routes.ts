/**
 * What a server says of its storage. That stays as it is while somebody is logged in, so it is asked once for each client, and again
 * when the server does not take what it has said.
 * @module
 */
import { getStorage, type ServerStorage } from '../api/account.ts'
import type { Api } from '../api/api.ts'
import { type AskOnce, askOnce } from './ask-once.ts'

const known = new WeakMap<Api, AskOnce<ServerStorage>>()

/** Asks, unless that has been done. */
export function storageOf(api: Api, signal?: AbortSignal): Promise<ServerStorage> {
  let storage = known.get(api)
  if (storage === undefined) {
    storage = askOnce((one) => getStorage(api, one))
    known.set(api, storage)
  }
  return storage.get(signal)
}

/** Says that it is not so, or not any more. */
export const forgetStorage = (api: Api): void => known.get(api)?.forget()
