/**
 * Everything a client offers besides runs: what it does is in the files beside this one, each loaded when something in it is
 * called first. All take a signal; an abort rejects with `signal.reason`, and what the server has done by then stays done.
 * Errors are `SyncError`s; docs/error-codes.md lists their codes.
 * @module
 */
import type { Password } from '../../crypto/index.ts'
import type { DeletedSummary, DeletedVersion, LogEvent, RemoteNode } from '../api/wire.ts'
import type { DrillOptions, DrillReport } from '../sync/backup/drill.ts'
import type { PruneOptions, PruneSummary } from '../sync/backup/prune.ts'
import type { RestoreOptions, RestoreSummary } from '../sync/backup/restore.ts'
import type { BackupOptions, BackupSummary } from '../sync/backup/run.ts'
import type { Runs } from '../sync/backup/runs.ts'
import type { SetPlace } from '../sync/backup/set.ts'
import type { Comparison } from '../sync/compare.ts'
import type { Verification } from '../sync/verify.ts'
import type { KeyId } from '../transfer/pins.ts'
import type { AccountInfo, ServerInfo, Space } from './account.ts'
import type { Arrangement, MoveOptions } from './arrange.ts'
import type { BackupSetOptions, ShownRun, ShowOptions } from './backups.ts'
import type { DiffOptions, VerifyRunOptions } from './compare.ts'
import type { Content, GetOptions, PutOptions, PutResult, RemoteContent } from './content.ts'
import type { Abortable, ClientContext } from './context.ts'
import type { FindOptions, MkdirOptions, RemoteDetails, RemoteEntry, RemoveOptions, StatOptions } from './entries.ts'
import { createKeyChangeCalls, type KeyChangeCalls } from './key-calls.ts'
import type {
  DistributeOptions,
  Distribution,
  KeyList,
  KeyOwner,
  KeysStatus,
  KeysTrusted,
  KeyVerified,
  TrustedAll,
  TrustOptions,
} from './keys.ts'
import type { ServeKeysEnd, ServeKeysOptions } from './keys-serve.ts'
import type { PinnedPublic, PublicKeyFile } from './public-key-file.ts'
import type {
  RescueCreated,
  RescueCreateOptions,
  RescueList,
  RescueRestored,
  RescueRestoreOptions,
  RescueRevoked,
} from './rescue.ts'
import type { RescueDrill, RescueDrillOptions } from './rescue-drill.ts'
import type { PreparedRoomRescue, RescueReader, RescueSecret, RescueText, ShareCount } from './rescue-papers.ts'
import type {
  RescueHandOut,
  RescuePassword,
  RoomRescueCreated,
  RoomRescueOptions,
  ServerRescueOptions,
} from './rescue-rooms.ts'
import type {
  AddMemberOptions,
  MemberChanges,
  RoomGroupMember,
  RoomHistoryOptions,
  RoomMember,
  RoomOptions,
} from './rooms.ts'
import type {
  FileRequest,
  FileRequestChanges,
  FileRequestOptions,
  RequestDetails,
  Share,
  ShareChanges,
  ShareOptions,
} from './shares.ts'
import type { RestoreOptions as TrashRestoreOptions } from './trash.ts'

/** Remote rooms, folders and files by their paths (`/room/folder/name`). */
export interface EntryCalls {
  /** What is in a room or folder, by name; a file as itself. Default: the rooms. See `list` in entries.ts. */
  list(path?: string, options?: Abortable): AsyncIterable<RemoteEntry>
  /** Everything below a room or folder, each folder before what is in it. Default: below all rooms. */
  walk(path?: string, options?: Abortable): AsyncIterable<RemoteEntry>
  /** The paths that patterns (`/room/*.pdf`) stand for; a path without wildcards is passed on. Throws `REMOTE_MISSING`. */
  glob(patterns: string | readonly string[], options?: Abortable): Promise<readonly string[]>
  /** Everything below a room or folder that has a name; `*` stands for any letters, and case does not count. */
  find(path: string, name: string, options?: FindOptions): AsyncIterable<RemoteEntry>
  /** One entry. Throws `REMOTE_MISSING`. */
  stat(path: string, options?: StatOptions): Promise<RemoteDetails>
  /** Makes a folder. Throws `EXISTS`, `REMOTE_MISSING`. */
  mkdir(path: string, options?: MkdirOptions): Promise<RemoteEntry>
  /** Removes entries after looking all of them up. Throws `REMOTE_MISSING`, `IS_CONTAINER`, `ROOM_DELETE`. */
  remove(paths: string | readonly string[], options?: RemoveOptions): Promise<readonly RemoteEntry[]>
  /** Moves a file or folder into a folder that is there, or to a new path. Throws `EXISTS`, `ENCRYPTION_DIFFERS`, … */
  move(source: string, target: string, options?: MoveOptions): Promise<RemoteEntry>
  /** As `move`, and leaves it where it is, too. */
  copy(source: string, target: string, options?: MoveOptions): Promise<RemoteEntry>
  /** Moves several files and folders into a folder that is there, and tells which members got no keys of them. */
  moveAll(sources: readonly string[], target: string, options?: MoveOptions): Promise<Arrangement>
  /** As `moveAll`, and leaves them where they are, too. */
  copyAll(sources: readonly string[], target: string, options?: MoveOptions): Promise<Arrangement>
  /** Gives a file or folder another name where it is. Throws `EXISTS`. */
  rename(path: string, name: string, options?: Abortable): Promise<RemoteEntry>
  /** Stores bytes or a stream, of known or unknown length, under a path. See `put` in content.ts. */
  put(path: string, content: Content, options?: PutOptions): Promise<PutResult>
  /** Fetches a file; resolves when all of it has been checked. See `get` in content.ts. */
  get(path: string, options?: GetOptions): Promise<RemoteContent>
}

/** Rooms and their members. */
export interface RoomCalls {
  /** Makes a room, encrypted unless told otherwise; in a room one that is as that. Throws `NO_KEY_PAIR`, `EXISTS`, `ENCRYPTION_DIFFERS`. */
  create(path: string, options?: RoomOptions): Promise<RemoteEntry>
  list(options?: Abortable): AsyncIterable<RemoteEntry>
  members(path: string, options?: Abortable): AsyncIterable<RoomMember>
  /** Adds a user, by name, or gives another role; returns the room. Their key has to be trusted before they can read: `keys`. */
  addMember(path: string, user: string, options?: AddMemberOptions): Promise<RemoteNode>
  removeMember(path: string, user: string, options?: Abortable): Promise<void>
  /** The groups that are in a room. */
  groups(path: string, options?: Abortable): AsyncIterable<RoomGroupMember>
  /** Adds and removes users and groups, several at once. Throws `USER_UNKNOWN`, `USER_AMBIGUOUS` before anything is changed. */
  changeMembers(path: string, changes: MemberChanges): Promise<RemoteNode>
  /** Gives a room another name. Throws `EXISTS`. */
  rename(path: string, name: string, options?: Abortable): Promise<RemoteEntry>
  /** Limits the bytes that may be in a room; 0: no limit of its own. */
  setQuota(path: string, bytes: number, options?: Abortable): Promise<RemoteEntry>
  /** Deletes a room for good, with its recycle bin. */
  remove(path: string, options?: Abortable): Promise<RemoteEntry>
  /** What was done in a room, newest first. */
  history(path: string, options?: RoomHistoryOptions): AsyncIterable<LogEvent>
}

/** Keys: the account’s own ones, those of members, and what is handed out to them. */
export interface KeyCalls extends KeyChangeCalls {
  /** Own key pairs, and how many file keys there are to hand out. */
  status(options?: Abortable): Promise<KeysStatus>
  /**
   * Makes the account's key pair. Throws `KEY_PAIR_EXISTS`.
   *
   * @param password - The encryption password; default: that of the client.
   */
  create(password?: () => Promise<Password>, options?: Abortable): Promise<KeyId>
  /** Finds out whether a password opens the key pair. Throws `KEY_PASSWORD_WRONG`. */
  tryPassword(password: Password, options?: Abortable): Promise<void>
  /** Hands out the file keys that members lack, to those whose keys are trusted. */
  distribute(options?: DistributeOptions): Promise<Distribution>
  /** Hands out again and again, until the signal aborts or another round cannot help. */
  serve(options?: ServeKeysOptions): Promise<ServeKeysEnd>
  /** Whose keys are known, new, changed or gone. */
  list(options?: Abortable): Promise<KeyList>
  /** Compares a member's key with what they have read out. Throws `FINGERPRINT_DIFFERS`. */
  verify(user: string, fingerprint: string, options?: Abortable): Promise<KeyVerified>
  /** Trusts the keys that the server shows for a member. */
  trust(user: string, options?: TrustOptions): Promise<KeysTrusted>
  /** Trusts everybody who is new, and nobody whose key has changed. */
  trustAll(options?: Abortable): Promise<TrustedAll>
  /** Forgets a member's keys. */
  forget(user: string, options?: Abortable): Promise<KeyOwner & { readonly count: number }>
  /** Forgets that a place was encrypted. */
  forgetPlace(
    path: string,
    options?: Abortable,
  ): Promise<{ readonly id: number | undefined; readonly wasKnown: boolean }>
  /** Makes a small signed file that says what the public key of this account is, for a machine that can only write. */
  exportPublic(options?: Abortable): Promise<string>
  /** What such a file says. Throws `PUBLIC_KEY_FILE`. */
  readPublic(text: string): Promise<PublicKeyFile>
  /** Takes the key in such a file for the right one, whose fingerprint a person has compared. Throws `FINGERPRINT_DIFFERS`. */
  pinPublic(text: string, fingerprint: string, options?: Abortable): Promise<PinnedPublic>
  /** Removes the caches of file keys in the client's directory. */
  clearCache(): Promise<{ readonly files: number; readonly bytes: number }>
}

/** Rescue keys: own ones on paper, and those that the server has for rooms and for the system. See rescue.ts. */
export interface RescueCalls {
  /** Makes a rescue key, seals the account's key pairs for it, and returns what goes onto paper. Throws `RESCUE_PLACE_NEEDED`, `EXISTS`, … */
  create(options: RescueCreateOptions): Promise<RescueCreated>
  /** Gives an encrypted room a rescue key. Throws `RESCUE_KEY_EXISTS`, `ENCRYPTION_DIFFERS`. */
  createForRoom(room: string, options?: RoomRescueOptions): Promise<RoomRescueCreated>
  /** Makes the rescue key of a room that is about to be made: `rooms.create` takes it. */
  prepareForRoom(shares?: ShareCount): Promise<PreparedRoomRescue>
  /** Reads what is on one or several papers. Throws `RESCUE_LINE_WRONG`, which names the line, `RESCUE_SHARES_FEW`, … */
  read(texts: readonly string[]): Promise<RescueSecret>
  /** Reads one paper line by line. */
  reader(): Promise<RescueReader>
  /** Puts together what readers have read. */
  combine(texts: readonly RescueText[]): Promise<RescueSecret>
  /** Opens the account's key pairs by a rescue key, and locks them with a new password. Throws `RESCUE_CONTAINER_TAMPERED`, … */
  restore(
    secret: RescueSecret,
    password: () => Promise<Password>,
    options?: RescueRestoreOptions,
  ): Promise<RescueRestored>
  /** Hands out the file keys of a room with its rescue key. */
  restoreRoom(room: string, given: RescuePassword, options?: Abortable): Promise<RescueHandOut>
  /** As `restoreRoom`, with the rescue key of the system. */
  restoreSystem(password: Password, options?: ServerRescueOptions): Promise<RescueHandOut>
  /** Fetches and decrypts some files by a rescue key alone. */
  drill(secret: RescueSecret, options?: RescueDrillOptions): Promise<RescueDrill>
  /** As `drill`, in a room, with its rescue key. */
  drillRoom(room: string, given: RescuePassword, options?: RescueDrillOptions): Promise<RescueDrill>
  /** Own rescue keys, and those of the server. */
  list(options?: Abortable): Promise<RescueList>
  /** Trusts a rescue key of the server. Throws `RESCUE_KEY_UNKNOWN`. */
  trust(fingerprint: string, options?: Abortable): ReturnType<typeof import('./rescue.ts').trust>
  /** Ends the trust in a rescue key of the server; forgets an own one, with its containers. */
  revoke(id: string, options?: Abortable): Promise<RescueRevoked>
}

/** The recycle bins of rooms. */
export interface TrashCalls {
  /** What is in the bin of a room; of a folder, what was below it. */
  list(path: string, options?: Abortable): AsyncIterable<DeletedSummary>
  /** Puts things back where they were, or into another place of their room; all or none. Throws `EXISTS`, `NOT_FOUND`. */
  restore(ids: readonly number[], options?: TrashRestoreOptions): Promise<void>
  /** Removes things from a bin for good; all or none. */
  purge(ids: readonly number[], options?: Abortable): Promise<void>
  /** Removes everything in the bin of a room for good. */
  empty(room: string, options?: Abortable): Promise<void>
}

/** Older versions of files, which are in the recycle bin of their room. */
export interface VersionCalls {
  /** All that was removed or replaced under a path, newest first. */
  list(
    path: string,
    options?: Abortable & { readonly type?: 'file' | 'folder' | undefined },
  ): AsyncIterable<DeletedVersion>
  /** Makes an older version the current one; the one that was current goes into the bin. Throws `NOT_FOUND`. */
  restore(
    path: string,
    id: number,
    options?: Abortable & { readonly keepShareLinks?: boolean | undefined },
  ): Promise<void>
  /** Removes versions for good. */
  purge(ids: readonly number[], options?: Abortable): Promise<void>
}

/** Links by which something is given away. `which` is a link, its id, or the path of what it shares. */
export interface ShareCalls {
  /** Makes links to files, or archives of folders and rooms without encryption. See `create` in shares.ts. */
  create(paths: string | readonly string[], options?: ShareOptions): Promise<readonly Share[]>
  /** All links that this account may manage, or those of one path. */
  list(path?: string, options?: Abortable): AsyncIterable<Share>
  /** Throws `SHARE_MISSING`, `SHARE_AMBIGUOUS`. */
  get(which: string, options?: Abortable): Promise<Share>
  /** Throws `SHARE_PASSWORD_FIXED` for the password of an encrypted file. */
  update(which: string, changes: ShareChanges): Promise<Share>
  /** Ends links; what they share stays. */
  revoke(which: string | readonly string[], options?: Abortable): Promise<readonly Share[]>
  /** Takes note of the key of a link that was made elsewhere, as its password proves it. Throws `SHARE_PASSWORD_WRONG`. */
  trust(
    which: string,
    password: () => Promise<Password>,
    options?: Abortable,
  ): Promise<Share & { readonly fingerprint: string }>
  /** A password for a new link, as the server wants them. */
  generatePassword(options?: Abortable): Promise<string>
}

/** Links by which anybody can send files. `which` is a link, its id, or the path of where files go. */
export interface RequestCalls {
  create(path: string, options?: FileRequestOptions): Promise<FileRequest>
  list(path?: string, options?: Abortable): AsyncIterable<FileRequest>
  /** With the files that have come by it. */
  get(which: string, options?: Abortable): Promise<RequestDetails>
  update(which: string, changes: FileRequestChanges): Promise<FileRequest>
  /** Ends requests; what has come by them stays. */
  revoke(which: string | readonly string[], options?: Abortable): Promise<readonly FileRequest[]>
}

type Without<T> = Omit<T, 'state'>

/** Backup sets; see sync/backup. An abort of `run` and `restore` resolves with `stoppedBy`. */
export interface BackupCalls {
  run(set: BackupSetOptions, options?: Without<BackupOptions>): Promise<BackupSummary>
  list(place: SetPlace, options?: Abortable): Promise<Runs>
  show(place: SetPlace, options?: ShowOptions): Promise<ShownRun>
  restore(place: SetPlace, directory: string, options?: Without<RestoreOptions>): Promise<RestoreSummary>
  prune(set: BackupSetOptions, options?: Without<PruneOptions>): Promise<PruneSummary>
  drill(place: SetPlace, options?: Without<DrillOptions>): Promise<{ report: DrillReport; summary: RestoreSummary }>
}

/** Everything a client offers besides runs. */
export interface ClientCalls extends EntryCalls {
  readonly rooms: RoomCalls
  readonly keys: KeyCalls
  readonly rescue: RescueCalls
  readonly trash: TrashCalls
  readonly versions: VersionCalls
  readonly shares: ShareCalls
  readonly requests: RequestCalls
  readonly backups: BackupCalls
  /** The account that is logged in. */
  whoami(options?: Abortable): Promise<AccountInfo>
  /** What the server says of itself. */
  serverInfo(options?: Abortable): Promise<ServerInfo>
  /** Space and accounts of the customer. Throws `FORBIDDEN` for who may not see them. */
  space(options?: Abortable): Promise<Space>
  /** What differs between a local and a remote directory, by size and time. */
  diff(local: string, remote: string, options?: DiffOptions): Promise<Comparison>
  /** As `diff`, by content. */
  check(local: string, remote: string, options?: DiffOptions): Promise<Comparison>
  /** Downloads and checks what is stored, and keeps nothing. */
  verify(remote: string, options?: VerifyRunOptions): Promise<Verification>
}

/** An iterable that is made when it is asked for its first item. */
async function* later<T>(make: () => Promise<AsyncIterable<T>>): AsyncGenerator<T> {
  yield* await make()
}

/** Public keys for machines that can only write. */
function publicKeyCalls(context: ClientContext): Pick<KeyCalls, 'exportPublic' | 'readPublic' | 'pinPublic'> {
  const load = () => import('./public-key-file.ts')
  return {
    exportPublic: async (how = {}) => (await load()).exportPublic(context, how),
    readPublic: async (text) => (await load()).readPublic(text),
    pinPublic: async (text, fingerprint, how = {}) => (await load()).pinPublic(context, text, fingerprint, how),
  }
}

function createRescueCalls(context: ClientContext): RescueCalls {
  const rescue = () => import('./rescue.ts')
  const rescueDrill = () => import('./rescue-drill.ts')
  const rescuePapers = () => import('./rescue-papers.ts')
  const rescueRooms = () => import('./rescue-rooms.ts')
  return {
    create: async (how) => (await rescue()).create(context, how),
    createForRoom: async (room, how = {}) => (await rescueRooms()).createForRoom(context, room, how),
    prepareForRoom: async (shares) => (await rescuePapers()).prepareRoomRescue(shares),
    read: async (texts) => (await rescuePapers()).readTexts(texts),
    reader: async () => (await rescuePapers()).reader(),
    combine: async (texts) => (await rescuePapers()).combineTexts(texts),
    restore: async (secret, next, how = {}) => (await rescue()).restore(context, secret, next, how),
    restoreRoom: async (room, given, how = {}) => (await rescueRooms()).restoreRoom(context, room, given, how),
    restoreSystem: async (given, how = {}) => (await rescueRooms()).restoreSystem(context, given, how),
    drill: async (secret, how = {}) => (await rescueDrill()).drill(context, secret, how),
    drillRoom: async (room, given, how = {}) => (await rescueDrill()).drillRoom(context, room, given, how),
    list: async (how = {}) => (await rescue()).list(context, how),
    trust: async (fingerprint, how = {}) => (await rescue()).trust(context, fingerprint, how),
    revoke: async (id, how = {}) => (await rescue()).revoke(context, id, how),
  }
}

function createRoomsCalls(context: ClientContext): RoomCalls {
  const rooms = () => import('./rooms.ts')
  return {
    create: async (path, how = {}) => (await rooms()).create(context, path, how),
    list: (how = {}) => later(async () => (await rooms()).list(context, how)),
    members: (path, how = {}) => later(async () => (await rooms()).members(context, path, how)),
    addMember: async (path, user, how = {}) => (await rooms()).addMember(context, path, user, how),
    removeMember: async (path, user, how = {}) => (await rooms()).removeMember(context, path, user, how),
    groups: (path, how = {}) => later(async () => (await rooms()).groups(context, path, how)),
    changeMembers: async (path, changes) => (await rooms()).changeMembers(context, path, changes),
    rename: async (path, name, how = {}) => (await rooms()).rename(context, path, name, how),
    setQuota: async (path, bytes, how = {}) => (await rooms()).setQuota(context, path, bytes, how),
    remove: async (path, how = {}) => (await rooms()).remove(context, path, how),
    history: (path, how = {}) => later(async () => (await rooms()).history(context, path, how)),
  }
}

function createTrashCalls(context: ClientContext): TrashCalls {
  const trash = () => import('./trash.ts')
  return {
    list: (path, how = {}) => later(async () => (await trash()).list(context, path, how)),
    restore: async (ids, how = {}) => (await trash()).restore(context, ids, how),
    purge: async (ids, how = {}) => (await trash()).purge(context, ids, how),
    empty: async (room, how = {}) => (await trash()).empty(context, room, how),
  }
}

function createVersionsCalls(context: ClientContext): VersionCalls {
  const trash = () => import('./trash.ts')
  return {
    list: (path, how = {}) => later(async () => (await trash()).versions(context, path, how)),
    restore: async (path, id, how = {}) => (await trash()).restoreVersion(context, path, id, how),
    purge: async (ids, how = {}) => (await trash()).purge(context, ids, how),
  }
}

function createBackupsCalls(context: ClientContext): BackupCalls {
  const backups = () => import('./backups.ts')
  return {
    run: async (set, how = {}) => (await backups()).run(context, set, how),
    list: async (place, how = {}) => (await backups()).list(context, place, how),
    show: async (place, how = {}) => (await backups()).show(context, place, how),
    restore: async (place, directory, how = {}) => (await backups()).restore(context, place, directory, how),
    prune: async (set, how = {}) => (await backups()).prune(context, set, how),
    drill: async (place, how = {}) => (await backups()).drill(context, place, how),
  }
}

/** What is about links. */
function linkCalls(context: ClientContext): Pick<ClientCalls, 'shares' | 'requests'> {
  const shares = () => import('./shares.ts')
  const listed = (one: string | readonly string[]) => (typeof one === 'string' ? [one] : one)
  return {
    shares: {
      create: async (paths, how = {}) => (await shares()).create(context, listed(paths), how),
      list: (path, how = {}) => later(async () => (await shares()).list(context, path, how)),
      get: async (which, how = {}) => (await shares()).get(context, which, how),
      update: async (which, changes) => (await shares()).update(context, which, changes),
      revoke: async (which, how = {}) => (await shares()).revoke(context, listed(which), how),
      trust: async (which, secret, how = {}) => (await shares()).trust(context, which, secret, how),
      generatePassword: async (how = {}) => (await shares()).generatePassword(context, how),
    },
    requests: {
      create: async (path, how = {}) => (await shares()).createRequest(context, path, how),
      list: (path, how = {}) => later(async () => (await shares()).listRequests(context, path, how)),
      get: async (which, how = {}) => (await shares()).getRequest(context, which, how),
      update: async (which, changes) => (await shares()).updateRequest(context, which, changes),
      revoke: async (which, how = {}) => (await shares()).revokeRequests(context, listed(which), how),
    },
  }
}

/** @param password - The encryption password of the client. */
export function createCalls(context: ClientContext, password: () => Promise<Password>): ClientCalls {
  const account = () => import('./account.ts')
  const arrange = () => import('./arrange.ts')
  const compare = () => import('./compare.ts')
  const content = () => import('./content.ts')
  const entries = () => import('./entries.ts')
  const keys = () => import('./keys.ts')
  return {
    list: (path = '/', how = {}) => later(async () => (await entries()).list(context, path, how)),
    walk: (path = '/', how = {}) => later(async () => (await entries()).walk(context, path, how)),
    find: (path, name, how = {}) => later(async () => (await entries()).find(context, path, name, how)),
    glob: async (patterns, how = {}) =>
      (await import('./glob.ts')).glob(context, typeof patterns === 'string' ? [patterns] : patterns, how),
    stat: async (path, how = {}) => (await entries()).stat(context, path, how),
    mkdir: async (path, how = {}) => (await entries()).mkdir(context, path, how),
    remove: async (paths, how = {}) =>
      (await entries()).remove(context, typeof paths === 'string' ? [paths] : paths, how),
    move: async (source, target, how = {}) => (await arrange()).move(context, source, target, how),
    copy: async (source, target, how = {}) => (await arrange()).copy(context, source, target, how),
    moveAll: async (sources, target, how = {}) => (await arrange()).moveAll(context, sources, target, how),
    copyAll: async (sources, target, how = {}) => (await arrange()).copyAll(context, sources, target, how),
    rename: async (path, name, how = {}) => (await arrange()).rename(context, path, name, how),
    put: async (path, what, how = {}) => (await content()).put(context, path, what, how),
    get: async (path, how = {}) => (await content()).get(context, path, how),
    rooms: createRoomsCalls(context),
    keys: {
      status: async (how = {}) => (await keys()).status(context, how),
      create: async (secret = password, how = {}) => (await keys()).create(context, secret, how),
      tryPassword: async (secret, how = {}) => (await keys()).tryPassword(context, secret, how),
      ...createKeyChangeCalls(context, password),
      distribute: async (how = {}) => (await keys()).distribute(context, how),
      serve: async (how = {}) => (await import('./keys-serve.ts')).serveKeys(context, how),
      list: async (how = {}) => (await keys()).list(context, how),
      verify: async (user, fingerprint, how = {}) => (await keys()).verify(context, user, fingerprint, how),
      trust: async (user, how = {}) => (await keys()).trust(context, user, how),
      trustAll: async (how = {}) => (await keys()).trustAll(context, how),
      forget: async (user, how = {}) => (await keys()).forget(context, user, how),
      forgetPlace: async (path, how = {}) => (await keys()).forgetPlace(context, path, how),
      ...publicKeyCalls(context),
      clearCache: async () => (await keys()).clearCache(context),
    },
    rescue: createRescueCalls(context),
    trash: createTrashCalls(context),
    versions: createVersionsCalls(context),
    backups: createBackupsCalls(context),
    ...linkCalls(context),
    whoami: async (how = {}) => (await account()).whoami(context, how),
    serverInfo: async (how = {}) => (await account()).serverInfo(context, how),
    space: async (how = {}) => (await account()).space(context, how),
    diff: async (local, remote, how = {}) => (await compare()).diff(context, local, remote, how),
    check: async (local, remote, how = {}) => (await compare()).check(context, local, remote, how),
    verify: async (remote, how = {}) => (await compare()).verify(context, remote, how),
  }
}
