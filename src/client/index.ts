/**
 * Public surface of `sealsync/client`: a client, the types of everything it does, and where logins are kept,
 * without any way to log in. What is behind a
 * call is loaded when it is called. Re-exports only.
 * @module
 */
export type { Password, PublicKey, WrappedFileKey } from '../../crypto/index.ts'
export { VERSION_PATH } from '../api/account.ts'
export type { Api } from '../api/api.ts'
export type { DeletedSummary, DeletedVersion, LogEvent, RemoteNode } from '../api/wire.ts'
export {
  type Client,
  type ClientOptions,
  createClient,
  type LinkOptions,
  openDownloadLink,
  openRequestLink,
  parseBaseUrl,
  type RateEntry,
  type RateLimits,
  type RatePlan,
} from '../client.ts'
export type { Environment } from '../environment.ts'
export { type ErrorClass, SyncError, type SyncErrorCode, type SyncErrorOptions } from '../errors.ts'
export { parseFingerprint, showFingerprint } from '../fingerprint.ts'
export { redact } from '../http/redact.ts'
export type { HeaderTrace, TraceHooks } from '../http/trace.ts'
export type { Names } from '../local/names.ts'
export { parseDump, type SessionDump } from '../session/grant.ts'
export {
  encryptedFileGrantStore,
  fileGrantStore,
  type GrantStore,
  keyringGrantStore,
  memoryGrantStore,
  openGrantStore,
  type StoreKind,
  type StoreOptions,
} from '../session/grant-store.ts'
export type { LogFields, Logger } from '../session/log.ts'
export {
  createDialer,
  proxyFromEnvironment,
  readServerPins,
  type ServerPin,
  type TransportOptions,
  withKnownPins,
} from '../session/open.ts'
export { type FilePinStore, filePinStore } from '../session/pin-store.ts'
export type { SessionCheck } from '../session/session.ts'
export type { DrillOptions, DrillReport } from '../sync/backup/drill.ts'
export type { BackupEntry, DirectoryEntry, FileEntry, LinkEntry } from '../sync/backup/manifest.ts'
export type { PruneOptions, PruneSummary } from '../sync/backup/prune.ts'
export type { RestoreOptions, RestoreSummary } from '../sync/backup/restore.ts'
export type { BackupOptions, BackupSummary } from '../sync/backup/run.ts'
export type { Runs } from '../sync/backup/runs.ts'
export { type BackupSet, type Retention, type RunNote, type SetPlace, sourceProblem } from '../sync/backup/set.ts'
export type { CompareRunOptions, Comparison, Difference } from '../sync/compare.ts'
export type { ConflictAction } from '../sync/conflicts.ts'
export type { Limit } from '../sync/guards.ts'
export { createHeldRules, type HeldRule } from '../sync/held-rules.ts'
export type { PlacedCommand } from '../sync/history.ts'
export type { SyncOptions } from '../sync/jobs/pair.ts'
export type { DownloadOptions, UploadOptions } from '../sync/jobs/transfer.ts'
export type { Pending, RunSummary } from '../sync/outcome.ts'
export {
  isChange,
  type PlanFile,
  type PlanLine,
  pairIn,
  parsePlan,
  planFileOf,
  planLine,
} from '../sync/plan-file.ts'
export type { Direction, SyncStep } from '../sync/reconcile.ts'
export { parseRemotePath } from '../sync/remote-path.ts'
export type { RunContext, RunEvent } from '../sync/run.ts'
export type { Command, Limits, SyncSummary } from '../sync/run-job.ts'
export type { SelectionOptions } from '../sync/select.ts'
export { placesOfPair } from '../sync/state/pairs.ts'
export type { Pair } from '../sync/state.ts'
export type { EntryFailure } from '../sync/tree.ts'
export type { Verification, VerifyOptions } from '../sync/verify.ts'
export type { DistributionResult, RefusedMember } from '../transfer/distribute.ts'
export type { TransferEvent } from '../transfer/events.ts'
export type { Keyring } from '../transfer/keyring.ts'
export type { KeyId } from '../transfer/pins.ts'
export type { OutputChecking } from '../transfer/upload.ts'
export type { AccountInfo, ServerInfo, Space } from './account.ts'
export type { Arranged, Arrangement, MoveOptions } from './arrange.ts'
export type { BackupSetOptions, ShownRun, ShowOptions } from './backups.ts'
export type { DiffOptions, VerifyRunOptions } from './compare.ts'
export type {
  Content,
  GetOptions,
  PutOptions,
  PutResult,
  ReadableLike,
  RemoteContent,
  WritableLike,
} from './content.ts'
export type { Abortable, ClientContext } from './context.ts'
export type {
  FindOptions,
  MkdirOptions,
  RemoteDetails,
  RemoteEntry,
  RemoveOptions,
  StatOptions,
} from './entries.ts'
export { generateSharePassword } from './generated-password.ts'
export { type History, type HistoryOptions, openHistory, type RunFilter } from './history.ts'
export { clearKeyCache, readKeyChange } from './home.ts'
export type {
  AuditFinding,
  FindingCode,
  KeyAudit,
  KeyAuditOptions,
  MemberAudit,
  RoomAudit,
} from './key-audit.ts'
export type { KeyChange } from './key-change.ts'
export { ownerText } from './key-owner.ts'
export type { ChangePasswordOptions, PasswordChange, RelockedKeyPair } from './key-password.ts'
export type { KeyReplacement, ReplaceKeyPairOptions, ReplacementPlan, RoomKeys } from './key-replacement.ts'
export type {
  DistributeOptions,
  Distribution,
  KeyList,
  KeyOwner,
  KeyState,
  KeysStatus,
  KeysTrusted,
  KeyVerified,
  KnownKey,
  OwnKeyPair,
  TrustedAll,
  TrustOptions,
} from './keys.ts'
export type { KeyServerRound, ServeKeysEnd, ServeKeysOptions } from './keys-serve.ts'
export { isLink, type LinkPassword, linkOf, type ParsedLink, parseLink } from './link-address.ts'
export type { DownloadLink, LinkDownload, LinkDownloadOptions, LinkInfo } from './links.ts'
export type { PinnedPublic, PublicKeyFile } from './public-key-file.ts'
export type { Receipt, RequestInfo, RequestLink, RequestRecipient, SendOptions, SendSummary } from './requests.ts'
export type {
  OpenRescueOptions,
  RescueCreated,
  RescueCreateOptions,
  RescueList,
  RescuePlace,
  RescuePlaces,
  RescueRestored,
  RescueRestoreOptions,
  RescueRevoked,
  ServerRescueKey,
} from './rescue.ts'
export type { RescueDrill, RescueDrillOptions, RescueDrillReport } from './rescue-drill.ts'
export type {
  PreparedRoomRescue,
  RescuePaper,
  RescueReader,
  RescueSecret,
  RescueShare,
  RescueText,
  ShareCount,
} from './rescue-papers.ts'
export type {
  RescueHandOut,
  RescuePassword,
  RoomRescueCreated,
  RoomRescueOptions,
  ServerRescueOptions,
} from './rescue-rooms.ts'
export type {
  AddMemberOptions,
  MemberChanges,
  NewMember,
  Role,
  RoomGroupMember,
  RoomHistoryOptions,
  RoomMember,
  RoomOptions,
} from './rooms.ts'
export type * from './runs.ts'
export { requestMailText, shareMailText } from './share-mail.ts'
export type {
  FileRequest,
  FileRequestChanges,
  FileRequestOptions,
  ReceivedFile,
  RequestDetails,
  Share,
  ShareChanges,
  ShareOptions,
} from './shares.ts'
export type {
  BackupCalls,
  ClientCalls,
  EntryCalls,
  KeyCalls,
  RequestCalls,
  RescueCalls,
  RoomCalls,
  ShareCalls,
  TrashCalls,
  VersionCalls,
} from './surface.ts'
export type { RestoreOptions as TrashRestoreOptions } from './trash.ts'
export { loginWays } from './ways.ts'
