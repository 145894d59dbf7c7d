/**
 * Public surface of the embedded server; re-exports only.
 * @module
 */
export { type CheckOptions, checkStore, type StoreProblem, type StoreReport } from './check.ts'
export { type FaultAction, type FaultHit, FaultPlan, type FaultRule, parseFaultPlan } from './faults.ts'
export { MemoryRecorder, type RecordedRequest, type Recorder } from './recorder.ts'
export type { S3Options } from './s3/client.ts'
export { type RunningServer, type ServerOptions, startServer } from './server.ts'
export { addUser, listUsers, removeUser, setPassword } from './users.ts'
