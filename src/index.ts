/**
 * Public surface of the library: encrypted transfer to and from a DRACOON-compatible server. The file format alone is
 * `sealsync/crypto`.
 * @module
 */
export type { Api } from './api/api.ts'
export type { RemoteNode } from './api/wire.ts'
export type * from './client/runs.ts'
export { type Client, type ClientOptions, createClient } from './client.ts'
export type { Environment } from './environment.ts'
export * from './session/index.ts'
export type { SyncOptions } from './sync/jobs/pair.ts'
export type { DownloadOptions, UploadOptions } from './sync/jobs/transfer.ts'
export type { RunSummary } from './sync/outcome.ts'
export type { RunEvent } from './sync/run.ts'
export type { SyncSummary } from './sync/run-job.ts'
export type { TransferEvent } from './transfer/events.ts'
