/** profile list, show, rename, remove. @module */
import { SyncError, toSyncError } from '../../errors.ts'
import { forgetLogin } from '../connect.ts'
import type { Context } from '../context.ts'
import { display } from '../display.ts'
import { deleteProfile, listProfiles, loadProfile, profileMissing, renameProfile } from '../profile.ts'

export async function list({ output, profileName }: Context): Promise<void> {
  const names = await listProfiles()
  if (names.length === 0) output.info('No logins are remembered.')
  for (const name of names) {
    // One damaged profile must not hide the others.
    const profile = await loadProfile(name).catch(() => undefined)
    const current = name === profileName
    const about = profile === undefined ? 'cannot be read' : `${profile.server} as ${display(profile.user)}`
    output.result(`${current ? '*' : ' '} ${name}  ${about}`, {
      type: 'profile',
      name,
      current,
      ...(profile === undefined ? { damaged: true } : { server: profile.server, user: profile.user }),
    })
  }
}

export async function show(context: Context, given?: string): Promise<void> {
  const name = given ?? context.profileName
  const profile = await loadProfile(name)
  if (profile === undefined) throw profileMissing(name)
  const { server, user, userId, method, login = {}, store, options = {} } = profile
  const rows = Object.entries({ server, user, method, ...login, 'kept in': store, ...options })
  context.output.result(rows.map(([key, value]) => `${key.padEnd(22)} ${display(String(value), 200)}`).join('\n'), {
    type: 'profile',
    name,
    server,
    user,
    userId,
    method,
    login,
    store,
    options,
  })
}

export async function rename({ output }: Context, from: string, to: string): Promise<void> {
  await renameProfile(from, to)
  output.done(`${from} is now ${to}`, { type: 'renamed', from, to })
}

const loginLeft = (cause: SyncError) =>
  new SyncError('auth', 'LOGIN_LEFT', 'The profile is gone, but its login could not be removed from its place', {
    cause,
  })

export async function remove({ output, settings }: Context, name: string): Promise<void> {
  if (!(await listProfiles()).includes(name)) throw profileMissing(name)
  const profile = await loadProfile(name).catch(() => undefined)
  let left: unknown
  if (profile !== undefined) {
    await forgetLogin(name, profile, settings).catch((error) => {
      left = error
    })
  }
  await deleteProfile(name)
  if (left !== undefined) {
    const cause = toSyncError(left)
    if (cause.class !== 'local_io') throw loginLeft(cause)
    throw new SyncError('local_io', 'LOGIN_LEFT', loginLeft(cause).message, { cause })
  }
  output.done(`Forgot ${name}`, { type: 'removed', name })
  output.info('The server was not told; its tokens end by themselves. To end them now, log out instead.')
}
