/** OAuth clients of integrators: making, listing and removing them. What they may do is looked at by grants.ts. @module */
import { createHash, randomBytes } from 'node:crypto'
import { SyncError } from '../../../crypto/errors.ts'
import { audit } from '../audit.ts'
import { BUILT_IN_CLIENTS, findClient } from '../grants.ts'
import type { Store } from '../store.ts'
import type { By } from './users.ts'

export const CLIENT_GRANTS = ['authorization_code', 'password', 'refresh_token'] as const
export type ClientGrant = (typeof CLIENT_GRANTS)[number]

/** A client as an administrator sees it; without its secret. */
export interface ClientSummary {
  id: string
  name: string
  isPublic: boolean
  isBuiltIn: boolean
  redirectUris: readonly string[]
  grants: readonly string[]
  createdAt?: number
}

export function listClients(store: Store): ClientSummary[] {
  const builtIn = BUILT_IN_CLIENTS.map(({ id, isPublic, grants }) => ({
    id,
    name: id,
    isPublic,
    isBuiltIn: true,
    redirectUris: [],
    grants,
  }))
  const own = [...store.clients.getRange({})].map(({ value: { secretHash, ...client } }) => ({
    ...client,
    isPublic: secretHash === undefined,
    isBuiltIn: false,
  }))
  return [...builtIn, ...own]
}

const bad = (message: string, hint?: string): SyncError =>
  new SyncError('usage', 'BAD_CLIENT', message, hint === undefined ? {} : { hint })

const LOOPBACK = /^http:\/\/(localhost|127\.0\.0\.1|\[::1\])[:/]/

/** An address that answers may be sent to: https, this machine, or an application by a scheme of its own. */
function checkRedirect(uri: string): string {
  const url = URL.canParse(uri) ? new URL(uri) : undefined
  const isOwnScheme = /^[a-z][a-z0-9+-]*(\.[a-z0-9+-]+)+:/.test(uri)
  const isGood = url !== undefined && url.hash === '' && url.username === '' && url.password === ''
  if (isGood && uri.length <= 2_000 && (url.protocol === 'https:' || LOOPBACK.test(uri) || isOwnScheme)) return uri
  throw bad(
    `Answers cannot be sent to ${uri}`,
    'Use an https address, http://127.0.0.1 with any port, or a scheme such as com.example.app:/done.',
  )
}

/** A client to be made. */
export interface NewClient {
  id: string
  name?: string
  isPublic?: boolean
  redirectUris?: readonly string[]
  /** Default: authorization_code and refresh_token. */
  grants?: readonly string[]
  /** At least 20 characters; made where it is absent. */
  secret?: string
}

/**
 * Makes a client.
 *
 * @returns it, with its secret, which is shown this once.
 * @throws {SyncError} `BAD_CLIENT`, `CLIENT_EXISTS`.
 */
export function addClient(store: Store, by: By, client: NewClient): Promise<ClientSummary & { secret?: string }> {
  const { id, isPublic = false } = client
  if (!/^[A-Za-z0-9._-]{1,64}$/.test(id)) {
    throw bad('That name of a client cannot be used', 'Use up to 64 letters, digits, dots, dashes and underscores.')
  }
  const redirectUris = [...new Set(client.redirectUris ?? [])].map(checkRedirect)
  const grants = [...new Set(client.grants ?? ['authorization_code', 'refresh_token'])]
  const unknown = grants.find((grant) => !CLIENT_GRANTS.some((one) => one === grant))
  if (unknown !== undefined) throw bad(`There is no grant ${unknown}`, `There are: ${CLIENT_GRANTS.join(', ')}.`)
  if (grants.includes('authorization_code') && redirectUris.length === 0 && !isPublic) {
    throw bad('A client with authorization codes needs an address that they are sent to')
  }
  if (isPublic && grants.includes('password')) throw bad('A public client cannot log in with passwords')
  if (isPublic && client.secret !== undefined) throw bad('A public client has no secret')
  const secret = isPublic ? undefined : (client.secret ?? randomBytes(32).toString('base64url'))
  if (secret !== undefined && !/^[\x21-\x7e]{20,200}$/.test(secret)) {
    throw bad('A secret has 20 to 200 characters of ASCII, without spaces')
  }
  return store.write((tx) => {
    if (findClient(store, id) !== undefined) {
      throw new SyncError('conflict', 'CLIENT_EXISTS', 'A client of that name exists already')
    }
    const record = {
      id,
      name: client.name ?? id,
      redirectUris,
      grants,
      createdAt: by.now,
      ...(secret === undefined ? {} : { secretHash: Uint8Array.from(createHash('sha256').update(secret).digest()) }),
    }
    tx.put(store.clients, id, record)
    audit({ store, tx, ...by }, { operation: 'client.create', message: `Made the OAuth client ${id}` })
    const { secretHash: _hash, ...shown } = record
    return { ...shown, isPublic, isBuiltIn: false, ...(secret === undefined ? {} : { secret }) }
  })
}

/**
 * Removes a client; its logins are void at once.
 *
 * @throws {SyncError} `NO_SUCH_CLIENT`
 */
export function removeClient(store: Store, by: By, id: string): Promise<{ id: string; logins: number }> {
  return store.write((tx) => {
    if (!store.clients.doesExist(id)) {
      throw new SyncError('not_found', 'NO_SUCH_CLIENT', 'There is no client of that name that could be removed', {
        hint: 'See sync serve client list. Those that are built in stay.',
      })
    }
    tx.remove(store.clients, id)
    const families = new Set<string>()
    for (const { key, value } of [...store.tokens.getRange({})]) {
      if (value.clientId !== id) continue
      families.add(value.family)
      tx.remove(store.tokens, key)
      tx.remove(store.families, [value.family, key])
    }
    audit({ store, tx, ...by }, { operation: 'client.delete', message: `Removed the OAuth client ${id}` })
    return { id, logins: families.size }
  })
}
