/**
 * Public surface of `sealsync/server`: the embedded server, to serve with and to test against; re-exports only.
 * @module sealsync/server
 */
export { type CheckOptions, checkStore, type StoreProblem, type StoreReport } from './check.ts'
export type { ConnectionLimits } from './connections.ts'
export { type FaultAction, type FaultHit, FaultPlan, type FaultRule, parseFaultPlan } from './faults.ts'
export { MemoryRecorder, type RecordedRequest, type Recorder } from './recorder.ts'
export type { S3Options } from './s3/client.ts'
export { type RunningServer, type ServerOptions, startServer } from './server.ts'
export {
  addGroup,
  addUser,
  listUsers,
  type NewAccount,
  type NewGroup,
  removeUser,
  setPassword,
} from './users.ts'
