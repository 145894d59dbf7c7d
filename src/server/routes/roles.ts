/** What administrators may do through the API: all roles, or none. Others may only make rooms, which everybody may. @module */
import { SyncError } from '../../../crypto/errors.ts'
import type { By } from '../admin/users.ts'
import type { Call } from '../call.ts'
import { ApiError, forbidden } from '../errors.ts'
import type { UserRecord } from '../records.ts'
import type { Wire } from '../view.ts'

const role = (id: number, name: string, description: string): Wire => ({ id, name, description })

/** The roles of the API, by the numbers that clients know. */
export const ROLES: readonly Wire[] = Object.freeze([
  role(1, 'CONFIG_MANAGER', 'Config Manager'),
  role(2, 'USER_MANAGER', 'User Manager'),
  role(3, 'GROUP_MANAGER', 'Group Manager'),
  role(4, 'ROOM_MANAGER', 'Room Manager'),
  role(5, 'LOG_AUDITOR', 'Log Auditor'),
])

const ROOM_MANAGER = ROLES.slice(3, 4)

export const rolesOf = ({ isAdmin }: Pick<UserRecord, 'isAdmin'>): { items: readonly Wire[] } => ({
  items: isAdmin === true ? ROLES : ROOM_MANAGER,
})

/** The caller, who has to be an administrator. */
export function administratorOf({ user }: Call): UserRecord {
  if (user.isAdmin !== true) throw forbidden()
  return user
}

/** By whom and when. */
export const byCaller = ({ app, user, address }: Call): By => ({ userId: user.id, now: app.now(), address })

const STATUS: Readonly<Record<string, [number, number | undefined]>> = Object.freeze({
  NO_SUCH_USER: [404, -70501],
  NO_SUCH_GROUP: [404, -30000],
  USER_EXISTS: [409, undefined],
  USER_NEEDED: [409, undefined],
  ROOM_UNMANAGED: [409, undefined],
  BAD_USER_NAME: [400, -80023],
  BAD_PASSWORD: [400, -80000],
})

/** Carries out what an administrator does, with errors as the API has them. */
export async function asApi<T>(work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (error) {
    const known = error instanceof SyncError ? STATUS[error.code] : undefined
    if (known === undefined || !(error instanceof SyncError)) throw error
    throw new ApiError(known[0], known[1], error.message)
  }
}
