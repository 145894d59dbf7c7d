/**
 * Public surface of `sealsync/session`: a login that keeps itself alive, for any API. Pass it a way to log in, send requests.
 * Re-exports only.
 * @module sealsync/session
 */
export { type Clock, type DeviceCode, type Random, systemClock, type Ui } from '../environment.ts'
export { type ErrorClass, type ServerAnswer, SyncError, type SyncErrorCode } from '../errors.ts'
export type { Fetch } from '../http/fetch.ts'
export type {
  ConnectTrace,
  RequestTrace,
  ResponseTrace,
  RetryTrace,
  TlsTrace,
  TraceHooks,
} from '../http/trace.ts'
export type { HttpRequest, HttpResponse, Send } from '../http/types.ts'
export type { AuthContext, Authorizer, ClientName, Grant, Identity, Introspection, Verdict } from './authorizer.ts'
export { type ApiKey, withApiKey } from './authorizers/api-key.ts'
export { type AuthorizationCodeOptions, authorizationCodeAuthorizer } from './authorizers/authorization-code.ts'
export { type ClientCredentialsOptions, clientCredentialsAuthorizer } from './authorizers/client-credentials.ts'
export {
  type CodeRequest,
  type CognitoSrpOptions,
  cognitoSrpAuthorizer,
  type NewPassword,
  type NewPasswordRequest,
} from './authorizers/cognito-srp.ts'
export { type DeviceCodeOptions, deviceCodeAuthorizer } from './authorizers/device-code.ts'
export { type JwtBearerOptions, jwtBearerAuthorizer } from './authorizers/jwt-bearer.ts'
export { type OvhOAuth2Options, ovhOAuth2Authorizer } from './authorizers/ovh-oauth2.ts'
export {
  type AccessMode,
  type AccessRule,
  accessRules,
  OVH_REGIONS,
  type OvhEndpoint,
  type OvhQuery,
  ovhEndpoint,
  ovhUrl,
} from './authorizers/ovh-regions.ts'
export {
  type OvhSignatureOptions,
  ovhSignature,
  ovhSignatureAuthorizer,
  type Secret,
} from './authorizers/ovh-signature.ts'
export { type PasswordOptions, passwordAuthorizer } from './authorizers/password.ts'
export { type ProtonSrpOptions, protonSrpAuthorizer } from './authorizers/proton-srp.ts'
export {
  accessTokenAuthorizer,
  importedGrantAuthorizer,
  refreshTokenAuthorizer,
  type TokenClientOptions,
} from './authorizers/token.ts'
export type { CodeKind, Factor } from './cognito-answers.ts'
export type { DumpedCookies } from './cookies.ts'
export type { SessionDump } from './grant.ts'
export {
  encryptedFileGrantStore,
  fileGrantStore,
  type GrantStore,
  keyringGrantStore,
  memoryGrantStore,
  openGrantStore,
  type StoreKind,
  type StoreOptions,
} from './grant-store.ts'
export type { LogFields, Logger } from './log.ts'
export { mapLimit } from './map-limit.ts'
export type { Page, Pages } from './oauth/loopback.ts'
export {
  type AuthorizationCodeFlow,
  authorizationCodeFlow,
  type ClientAuthMethod,
  type CodeFlowOptions,
  type Endpoints,
  type OAuthClient,
  type ServerOptions,
  type SigningAlgorithm,
  type SigningKey,
  type SigningKeySource,
} from './oauth.ts'
export { oneTimeCode, oneTimeCodes } from './one-time-code.ts'
export {
  memoryPinStore,
  type PinStore,
  proxyFromEnvironment,
  type RetryEvent,
  readServerPins,
  type ServerPin,
  Session,
  type SessionSettings,
  type TransportOptions,
} from './open.ts'
export { loadOvhConfig, type OvhOAuth2Config, type OvhSignatureConfig, type OvhSources } from './ovh-config.ts'
export type { PinnedKey } from './pgp-signed-message.ts'
export { filePinStore } from './pin-store.ts'
export { importProtonSession } from './proton-answers.ts'
export type { CallOptions, Requests } from './requests.ts'
export type { SessionCheck } from './session.ts'
