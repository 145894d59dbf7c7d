/**
 * Public surface of the library: everything that the program can do with a DRACOON-compatible server, as calls of a client, and the
 * ways to log in. The file format alone is `sealsync/crypto`, a login for any API `sealsync/session`, a server for tests
 * `sealsync/server`; `sealsync/client` is this without ways to log in, which loads faster. Re-exports only.
 * @module sealsync
 */
export * from './client/index.ts'
export * from './session/index.ts'
