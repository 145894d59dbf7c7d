/**
 * Public surface of the library: encrypted transfer to and from a DRACOON-compatible server. The file format alone is
 * `sealsync/crypto`.
 * @module
 */
export type { Api } from './api/api.ts'
export type { RemoteNode } from './api/wire.ts'
export { type Client, type ClientOptions, createClient } from './client.ts'
export type { Clock, Environment, Random, Ui } from './environment.ts'
export { type ErrorClass, SyncError } from './errors.ts'
export type { AuthContext, Authorizer, Grant } from './session/authorizer.ts'
export { type AuthorizationCodeOptions, authorizationCodeAuthorizer } from './session/authorizers/authorization-code.ts'
export { type PasswordOptions, passwordAuthorizer } from './session/authorizers/password.ts'
export {
  fileGrantStore,
  type GrantStore,
  keyringGrantStore,
  memoryGrantStore,
  openGrantStore,
} from './session/grant-store.ts'
export type { OAuthClient } from './session/oauth.ts'
export type { RunSummary } from './sync/outcome.ts'
export type { DownloadOptions, RunEvent, UploadOptions } from './sync/run.ts'
export type { TransferEvent } from './transfer/events.ts'
