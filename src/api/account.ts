/** The account, its key pairs, and what the server says of itself. @module */
import { type KeyPairContainer, type PrivateKeyContainer, parseKeyPairContainer } from '../../crypto/containers.ts'
import type { PasswordPolicy } from '../../crypto/password-policy.ts'
import type { KeyPairVersion } from '../../crypto/versions.ts'
import { SyncError } from '../errors.ts'
import { type Api, call, callFor } from './api.ts'
import {
  type Account,
  type Customer,
  parseAccount,
  parseCustomer,
  parsePasswordPolicies,
  parseRaw,
  parseRawList,
  parseSystemInfo,
  parseVersion,
} from './wire.ts'

/** Below the server's address; needs a login and has no effects. */
export const ACCOUNT_PATH = '/api/v4/user/account'

/** Below the server's address; public. */
export const VERSION_PATH = '/api/v4/public/software/version'

export const getAccount = (api: Api, signal?: AbortSignal): Promise<Account> =>
  callFor(api, { method: 'GET', path: '/v4/user/account', signal }, parseAccount)

/** Space and accounts of the customer; not everybody may see them. */
export const getCustomer = (api: Api, signal?: AbortSignal): Promise<Customer> =>
  callFor(api, { method: 'GET', path: '/v4/user/account/customer', signal }, parseCustomer)

/** How content may travel to the server. */
export interface ServerStorage {
  /** Parts go straight to object storage. */
  readonly isObjectStorage: boolean
  /** Content may also go through the server itself. */
  readonly takesThrough: boolean
}

export async function getStorage(api: Api, signal?: AbortSignal): Promise<ServerStorage> {
  const request = { method: 'GET', path: '/v4/public/system/info', signal } as const
  const { useS3Storage, s3EnforceDirectUpload } = await callFor(api, request, parseSystemInfo)
  const isObjectStorage = useS3Storage === true
  // One that does not say gets everything directly.
  return { isObjectStorage, takesThrough: !isObjectStorage || s3EnforceDirectUpload === false }
}

export const getServerVersion = (api: Api, signal?: AbortSignal) =>
  callFor(api, { method: 'GET', path: '/v4/public/software/version', signal }, parseVersion)

/** All locked key pairs of the account, at most one per version; empty when there is none. */
export async function getKeyPairs(api: Api, signal?: AbortSignal): Promise<KeyPairContainer[]> {
  try {
    const raw = await callFor(api, { method: 'GET', path: '/v4/user/account/keypairs', signal }, parseRawList)
    return raw.map(parseKeyPairContainer)
  } catch (error) {
    if (!(error instanceof SyncError) || (error.class !== 'not_found' && error.code !== 'NO_KEY_PAIR')) throw error
    if (error.code === 'NO_KEY_PAIR') return []
  }
  // Older servers know only the endpoint for one pair.
  try {
    const raw = await callFor(api, { method: 'GET', path: '/v4/user/account/keypair', signal }, parseRaw)
    return [parseKeyPairContainer(raw)]
  } catch (error) {
    if (error instanceof SyncError && (error.code === 'NO_KEY_PAIR' || error.class === 'not_found')) return []
    throw error
  }
}

/**
 * What the server wants of passwords; older ones want nothing.
 *
 * @param kind - Encryption passwords, which it never sees, or those of shares.
 */
export async function getPasswordPolicy(
  api: Api,
  signal?: AbortSignal,
  kind: 'encryption' | 'shares' = 'encryption',
): Promise<PasswordPolicy> {
  const request = { method: 'GET', path: '/v4/config/info/policies/passwords', signal } as const
  try {
    return (await callFor(api, request, parsePasswordPolicies))[`${kind}PasswordPolicies`] ?? {}
  } catch (error) {
    if (error instanceof SyncError && error.class === 'not_found') return {}
    throw error
  }
}

export async function createKeyPair(api: Api, pair: KeyPairContainer, signal?: AbortSignal): Promise<void> {
  await call(api, { method: 'POST', path: '/v4/user/account/keypair', json: pair, signal })
}

/**
 * Puts another lock on a key pair that the server has, in one step: the same public key, and the lock that it knows now. Servers
 * that cannot do that answer that there is a key pair already, and change nothing.
 *
 * @throws {SyncError} `KEY_PAIR_EXISTS`.
 */
export async function relockKeyPair(
  api: Api,
  pair: KeyPairContainer,
  previousPrivateKey: PrivateKeyContainer,
  signal?: AbortSignal,
): Promise<void> {
  await call(api, { method: 'POST', path: '/v4/user/account/keypair', json: { ...pair, previousPrivateKey }, signal })
}

/** A new key pair beside one of the older version, whose private key comes along, locked with the new password. */
export async function addNewerKeyPair(
  api: Api,
  pair: KeyPairContainer,
  previousPrivateKey: PrivateKeyContainer,
  signal?: AbortSignal,
): Promise<void> {
  await call(api, { method: 'POST', path: '/v4/user/account/keypairs', json: { ...pair, previousPrivateKey }, signal })
}

/** Deletes a key pair, with all file keys that are wrapped for it; then the server deletes files that nobody can open any more. */
export async function deleteKeyPair(api: Api, version: KeyPairVersion, signal?: AbortSignal): Promise<void> {
  await call(api, { method: 'DELETE', path: '/v4/user/account/keypair', query: { version }, signal })
}
