/**
 * What the OAuth authorizers share, in one place for those outside: clients, endpoints, exchanges, keys. Re-exports only.
 * @module
 */
export {
  type ClientAuthMethod,
  clientAuth,
  isPublic,
  type OAuthClient,
  PUBLIC_CLIENT,
  SCRIPTING_CLIENT,
  standardClient,
} from './oauth/client.ts'
export { type AuthorizationCodeFlow, authorizationCodeFlow, type CodeFlowOptions } from './oauth/code-flow.ts'
export { errorCodeOf, oauthError } from './oauth/errors.ts'
export {
  askToken,
  grantVerbs,
  introspectGrant,
  isToken,
  refreshGrant,
  requestToken,
  revokeGrant,
  toGrant,
} from './oauth/exchange.ts'
export {
  defaultServer,
  discover,
  type Endpoints,
  requireEndpoint,
  type ServerOptions,
  serverFinder,
} from './oauth/server.ts'
export type { SigningAlgorithm, SigningKey, SigningKeySource } from './oauth/signing-key.ts'
