/**
 * What can be done to a server by whoever has its data directory: one table for both ways, through the running server or directly. Each
 * entry is one unit of work of the store, so that it can be done on another engine as well.
 * @module
 */
import { auditRows } from '../audit.ts'
import type { Store } from '../store.ts'
import { addClient, listClients, type NewClient, removeClient } from './clients.ts'
import { listRooms, setRecycleDays, setRoomOwner, setRoomQuota } from './rooms.ts'
import { storeStats } from './stats.ts'
import {
  addGroup,
  addUser,
  type HashedPassword,
  listGroups,
  listUsers,
  type NewUser,
  planRemoval,
  removeFromGroup,
  removeGroup,
  removeUser,
  setAdmin,
  setDisabled,
  setPassword,
  setUserQuota,
  showGroup,
  showUser,
} from './users.ts'

/** What operations work with. */
export interface AdminContext {
  store: Store
  dataDir: string
  now(): number
  /** Of a running server. */
  live?: LiveServer
}

/** What only the server knows that runs. */
export interface LiveServer {
  /** Ids of the contents that uploads under way write. */
  openUploads(): string[]
  /** Looks for what has run out, and removes it. */
  sweep(): Promise<void>
  /** Moves files that nothing claims aside; answers how many. */
  setAside(names: readonly string[]): Promise<number>
  status(): { startedAt: number; connections: number; requests: number; uploads: number }
}

const by = ({ now }: AdminContext) => ({ userId: 0, now: now() })

/** Rows of the audit log that one answer has. */
const AUDIT_PAGE = 1_000

export const OPERATIONS = {
  'user.list': ({ store }: AdminContext, _: object) => listUsers(store),
  'user.show': ({ store, now }: AdminContext, { name }: { name: string }) => showUser(store, name, now()),
  'user.add': (context: AdminContext, account: NewUser) => addUser(context.store, by(context), account),
  'user.password': (context: AdminContext, { name, password }: { name: string; password: HashedPassword }) =>
    setPassword(context.store, by(context), name, password),
  'user.disabled': (context: AdminContext, { name, isDisabled }: { name: string; isDisabled: boolean }) =>
    setDisabled(context.store, by(context), name, isDisabled),
  'user.admin': (context: AdminContext, { name, isAdmin }: { name: string; isAdmin: boolean }) =>
    setAdmin(context.store, by(context), name, isAdmin),
  'user.quota': (context: AdminContext, { name, bytes }: { name: string; bytes?: number }) =>
    setUserQuota(context.store, by(context), name, bytes),
  'user.plan-removal': ({ store }: AdminContext, { name }: { name: string }) => planRemoval(store, name),
  'user.remove': (context: AdminContext, { name, force }: { name: string; force: boolean }) =>
    removeUser(context.store, by(context), name, { force }),
  'group.list': ({ store }: AdminContext, _: object) => listGroups(store),
  'group.show': ({ store }: AdminContext, { name }: { name: string }) => showGroup(store, name),
  'group.add': (context: AdminContext, { name, users }: { name: string; users: readonly string[] }) =>
    addGroup(context.store, by(context), name, users),
  'group.take-out': (context: AdminContext, { name, users }: { name: string; users: readonly string[] }) =>
    removeFromGroup(context.store, by(context), name, users),
  'group.remove': (context: AdminContext, { name }: { name: string }) => removeGroup(context.store, by(context), name),
  'room.list': ({ store }: AdminContext, _: object) => listRooms(store),
  'room.owner': (context: AdminContext, { path, user }: { path: string; user: string }) =>
    setRoomOwner(context.store, by(context), path, user),
  'room.quota': (context: AdminContext, { path, bytes }: { path: string; bytes: number }) =>
    setRoomQuota(context.store, by(context), path, bytes),
  'room.recycle': (context: AdminContext, { path, days }: { path: string; days: number }) =>
    setRecycleDays(context.store, by(context), path, days),
  'client.list': ({ store }: AdminContext, _: object) => listClients(store),
  'client.add': (context: AdminContext, client: NewClient) => addClient(context.store, by(context), client),
  'client.remove': (context: AdminContext, { id }: { id: string }) => removeClient(context.store, by(context), id),
  stats: async ({ store, dataDir, live }: AdminContext, _: object) => ({
    ...(await storeStats(store, dataDir)),
    ...(live === undefined ? {} : { server: live.status() }),
  }),
  /** Rows after a number, oldest first; an answer has up to 1000. */
  audit: async (
    { store }: AdminContext,
    query: { from?: number; until?: number; operation?: string; user?: string; after?: number },
  ) => {
    const { user, ...rest } = query
    const userId = user === undefined ? {} : { userId: showUser(store, user, 0).id }
    const { rows, total } = await auditRows(store, { ...rest, ...userId }, { offset: 0, limit: AUDIT_PAGE }, false)
    const items = rows.map((row) => ({
      ...row,
      user: row.userId === 0 ? '' : (store.users.get(row.userId)?.name ?? ''),
    }))
    return { items, isMore: total > rows.length }
  },
  /** For `check` beside a running server. */
  'uploads.open': ({ live }: AdminContext, _: object) => live?.openUploads() ?? [],
  'strays.set-aside': async ({ live }: AdminContext, { names }: { names: readonly string[] }) =>
    live?.setAside(names) ?? 0,
  gc: async ({ live }: AdminContext, _: object) => {
    await live?.sweep()
    return {}
  },
}

/** The table of them. */
export type Operations = typeof OPERATIONS
/** `user.add`, `room.quota`, … */
export type OperationName = keyof Operations
/** What an operation is told. */
export type ArgumentsOf<N extends OperationName> = Parameters<Operations[N]>[1]
/** What it answers. */
export type AnswerOf<N extends OperationName> = Awaited<ReturnType<Operations[N]>>

/** Runs an operation by its name. */
export async function operate<N extends OperationName>(
  context: AdminContext,
  name: N,
  args: ArgumentsOf<N>,
): Promise<AnswerOf<N>> {
  const work = OPERATIONS[name] as (context: AdminContext, args: ArgumentsOf<N>) => AnswerOf<N> | Promise<AnswerOf<N>>
  return work(context, args)
}
