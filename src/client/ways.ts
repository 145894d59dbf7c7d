/**
 * The ways to log in, each loaded when it is asked for: for programs that start often and need one of them. `sealsync` and
 * `sealsync/session` have them all, loaded at once.
 * @module
 */

/** Loaders of the functions that make authorizers, and of what they need; what each takes is said there. */
export const loginWays = Object.freeze({
  /** Authorization code with PKCE, in a browser. */
  authorizationCode: async () =>
    (await import('../session/authorizers/authorization-code.ts')).authorizationCodeAuthorizer,
  /** A code that is typed in on another device. */
  deviceCode: async () => (await import('../session/authorizers/device-code.ts')).deviceCodeAuthorizer,
  /** User name and password. */
  password: async () => (await import('../session/authorizers/password.ts')).passwordAuthorizer,
  /** A program by its own name. */
  clientCredentials: async () =>
    (await import('../session/authorizers/client-credentials.ts')).clientCredentialsAuthorizer,
  /** A signed assertion. */
  jwtBearer: async () => (await import('../session/authorizers/jwt-bearer.ts')).jwtBearerAuthorizer,
  /** An access token from elsewhere. */
  accessToken: async () => (await import('../session/authorizers/token.ts')).accessTokenAuthorizer,
  /** A refresh token from elsewhere. */
  refreshToken: async () => (await import('../session/authorizers/token.ts')).refreshTokenAuthorizer,
  /** The OAuth client that every server of this kind knows for scripts. */
  scriptingClient: async () => (await import('../session/oauth/client.ts')).SCRIPTING_CLIENT,
  /** An API key beside any of them. */
  apiKey: async () => (await import('../session/authorizers/api-key.ts')).withApiKey,
})
