/**
 * Public surface of the library: encrypted transfer to and from a DRACOON-compatible server. The file format alone is
 * `sealsync/crypto`.
 * @module
 */
export type { Api } from './api/api.ts'
export type { RemoteNode } from './api/wire.ts'
export { type Client, type ClientOptions, createClient } from './client.ts'
export type { Environment } from './environment.ts'
export * from './session/index.ts'
export type { RunSummary } from './sync/outcome.ts'
export type { DownloadOptions, RunEvent, UploadOptions } from './sync/run.ts'
export type { SyncOptions, SyncSummary } from './sync/sync-run.ts'
export type { TransferEvent } from './transfer/events.ts'
