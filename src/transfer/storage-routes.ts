/**
 * What a server says of its storage. That stays as it is while somebody is logged in, so it is asked once for each client, and again
 * when the server does not take what it has said.
 * @module
 */
import { getStorage, type ServerStorage } from '../api/account.ts'
import type { Api } from '../api/api.ts'
import { toSyncError } from '../errors.ts'

const known = new WeakMap<Api, Promise<ServerStorage>>()

/** Asks, unless that has been done. */
export async function storageOf(api: Api, signal?: AbortSignal): Promise<ServerStorage> {
  for (;;) {
    const own = known.has(api) ? undefined : getStorage(api, signal)
    if (own !== undefined) known.set(api, own)
    const asked = own ?? known.get(api)!
    try {
      return await asked
    } catch (error) {
      if (known.get(api) === asked) known.delete(api)
      // Who had asked first has given up; that says nothing to others.
      if (asked === own || toSyncError(error).class !== 'cancelled') throw error
    }
  }
}

/** Says that it is not so, or not any more. */
export const forgetStorage = (api: Api): void => void known.delete(api)
