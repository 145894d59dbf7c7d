/** Who is logged in, and where. @module */
import { getAccount, getCustomer, getServerVersion, getStorage } from '../api/account.ts'
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

/** What the customer may store, and has stored. Bytes. */
export interface Space {
  readonly used: number
  /** Absent: no limit. */
  readonly limit: number | undefined
  readonly accountsUsed: number | undefined
  /** Absent: no limit, or the server does not say. */
  readonly accountsLimit: number | undefined
}

/** Servers say without limits, or a number as large as a number can be. */
const limitOf = (limit: number | undefined, most: number) =>
  limit === undefined || limit < 0 || limit >= most ? undefined : limit

/**
 * Space and accounts of the customer.
 *
 * @throws {SyncError} `FORBIDDEN` for who may not see them.
 */
export async function space({ api }: ClientContext, { signal }: Abortable): Promise<Space> {
  const { spaceUsed, spaceLimit, accountsUsed, accountsLimit } = await getCustomer(api, signal)
  return {
    used: spaceUsed,
    limit: limitOf(spaceLimit, Number.MAX_SAFE_INTEGER),
    accountsUsed,
    accountsLimit: limitOf(accountsLimit, 2 ** 31 - 1),
  }
}
