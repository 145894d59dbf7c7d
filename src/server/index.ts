/**
 * Public surface of `sealsync/server`: the embedded server, to serve with and to test against; re-exports only.
 * @module sealsync/server
 */
export type { AccessEntry } from './access-log.ts'
export { administer, collectGarbage } from './admin/administer.ts'
export type { ClientSummary, NewClient } from './admin/clients.ts'
export type { AnswerOf, ArgumentsOf, OperationName } from './admin/operations.ts'
export type { RoomSummary } from './admin/rooms.ts'
export type { StoreStats } from './admin/stats.ts'
export {
  type GroupSummary,
  type HashedPassword,
  hashNewPassword,
  type NewAccount,
  type NewUser,
  type RemovalPlan,
  type UserDetails,
  type UserSummary,
} from './admin/users.ts'
export { type CheckOptions, checkStore, type StoreProblem, type StoreReport } from './check.ts'
export type { ConnectionLimits } from './connections.ts'
export { type FaultAction, type FaultHit, FaultPlan, type FaultRule, parseFaultPlan } from './faults.ts'
export { MemoryRecorder, type RecordedRequest, type Recorder } from './recorder.ts'
export type { AuditRecord } from './records.ts'
export type { S3Options } from './s3/client.ts'
export { type RunningServer, type ServerOptions, startServer } from './server.ts'
export {
  addGroup,
  addUser,
  listUsers,
  type NewGroup,
  removeUser,
  setPassword,
} from './users.ts'
