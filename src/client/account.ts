/** Who is logged in, and where. @module */
import { getAccount, getServerVersion, getStorage } from '../api/account.ts'
import type { Abortable, ClientContext } from './context.ts'

/** The account that is logged in. */
export interface AccountInfo {
  readonly id: number
  readonly userName: string
  readonly firstName: string | undefined
  readonly lastName: string | undefined
  readonly email: string | undefined
  readonly hasKeyPair: boolean
}

/** What a server says of itself. */
export interface ServerInfo {
  readonly origin: string
  /** `4.26.7`, where it says. */
  readonly apiVersion: string | undefined
  readonly serverVersion: string | undefined
  /** Content goes straight to an object storage. */
  readonly usesObjectStorage: boolean
}

/**
 * The account that is logged in.
 *
 * @throws {SyncError} of class `auth` when nobody is.
 */
export async function whoami({ api }: ClientContext, { signal }: Abortable): Promise<AccountInfo> {
  const { id, userName, firstName, lastName, email, isEncryptionEnabled } = await getAccount(api, signal)
  return { id, userName, firstName, lastName, email, hasKeyPair: isEncryptionEnabled === true }
}

/** What the server says of itself. */
export async function serverInfo({ api }: ClientContext, { signal }: Abortable): Promise<ServerInfo> {
  const { restApiVersion, sdsServerVersion } = await getServerVersion(api, signal)
  return {
    origin: api.origin,
    apiVersion: restApiVersion,
    serverVersion: sdsServerVersion,
    usesObjectStorage: (await getStorage(api, signal)).isObjectStorage,
  }
}
