/** keys list, verify, trust, forget: whose keys file keys are wrapped for. @module */

import { type KeyOwner, type KeysTrusted, ownerText } from '../../client/index.ts'
import { SyncError } from '../../errors.ts'
import { parseFingerprint, showFingerprint } from '../../fingerprint.ts'
import { withClient } from '../connect.ts'
import { type Context, text } from '../context.ts'
import { display } from '../display.ts'
import { EXIT } from '../exit-codes.ts'
import * as keys from './keys.ts'

/** How somebody is called on a terminal. */
const nameOf = (owner: KeyOwner) => ownerText(owner, (name) => display(name, 80))

export async function list(context: Context): Promise<number> {
  const { output, signal } = context
  return withClient(context, async (client) => {
    const { keys: rows, lostAt } = await client.keys.list({ signal })
    for (const row of rows) {
      const { state, userId, name, isRescueKey, version, fingerprint, since } = row
      const time = since === undefined ? undefined : new Date(since).toISOString()
      const head = [state.padEnd(9), nameOf(row), version, ...(time === undefined ? [] : [`since ${time}`])]
      output.result(`${head.join('  ')}\n  ${showFingerprint(fingerprint)}`, {
        type: 'key',
        state,
        userId,
        user: name,
        ...(isRescueKey === true ? { isRescueKey } : {}),
        version,
        fingerprint,
        since: time,
      })
    }
    if (lostAt !== undefined) {
      output.warn('Whose keys were trusted before is lost: look at all of them, then: sync keys trust --all')
    }
    if (rows.some(({ state }) => state === 'changed' || state === 'doubted')) return EXIT.integrity
    return lostAt === undefined ? EXIT.done : EXIT.safety
  })
}

export async function verify(context: Context, user: string, words: readonly string[]): Promise<void> {
  const { output, signal } = context
  const wanted = parseFingerprint(words.join(''))
  await withClient(context, async (client) => {
    const found = await client.keys.verify(user, wanted, { signal })
    const { userId, name, fingerprint, isTrusted } = found
    const advice = isTrusted
      ? 'it is trusted'
      : `to trust it: sync keys trust id:${userId} --fingerprint ${fingerprint}`
    output.result(`The server shows this key for ${nameOf(found)}; ${advice}`, {
      type: 'key-verified',
      userId,
      user: name,
      fingerprint,
      isTrusted,
    })
  })
}

function showTrusted({ output }: Context, owner: KeysTrusted): void {
  for (const { version, fingerprint } of owner.keys) {
    output.done(`Trusted: ${nameOf(owner)}  ${version}\n  ${showFingerprint(fingerprint)}`, {
      type: 'key-trusted',
      userId: owner.userId,
      user: owner.name,
      version,
      fingerprint,
    })
  }
}

export async function trust(context: Context, user: string | undefined): Promise<number> {
  const { options, output, signal } = context
  const all = options.all === true
  const given = text(options, 'fingerprint')
  if (all === (user !== undefined) || (all && given !== undefined)) {
    throw new SyncError('usage', 'USAGE', 'Name one user, or say --all')
  }
  const fingerprint = given === undefined ? undefined : parseFingerprint(given)
  return withClient(context, async (client) => {
    if (user !== undefined) {
      showTrusted(context, await client.keys.trust(user, { fingerprint, signal }))
      return EXIT.done
    }
    const { trusted, changed, rescueKeys } = await client.keys.trustAll({ signal })
    for (const owner of trusted) showTrusted(context, owner)
    for (const owner of changed) {
      output.warn(`${nameOf(owner)} is left out, since there is another key than before: sync keys list`)
    }
    for (const owner of rescueKeys) {
      output.warn(
        `${nameOf(owner)} is left out, since it would open all files: see sync keys rescue list, and sync keys rescue trust`,
      )
    }
    return changed.length > 0 ? EXIT.integrity : rescueKeys.length > 0 ? EXIT.partial : EXIT.done
  })
}

export async function forget(context: Context, user: string | undefined): Promise<void> {
  const { options, output, signal } = context
  const [path, server] = [text(options, 'room'), text(options, 'server')]
  if ([user, path, server].filter((one) => one !== undefined).length > 1) {
    throw new SyncError('usage', 'USAGE', 'Name a user, a room or a server, not several')
  }
  if (server !== undefined) return keys.forgetServer(context, server)
  if (user === undefined && path === undefined) return keys.forget(context)
  await withClient(context, async (client) => {
    if (path !== undefined) {
      const { id, wasKnown } = await client.keys.forgetPlace(path, { signal })
      const what = wasKnown ? 'is not remembered as encrypted any more' : 'was not remembered'
      output.done(`${display(path)} ${what}`, { type: 'room-forgotten', id, wasKnown })
      return
    }
    const member = await client.keys.forget(user ?? '', { signal })
    const { userId, count } = member
    output.done(count === 0 ? `No key of ${nameOf(member)} was known` : `Forgotten: the keys of ${nameOf(member)}`, {
      type: 'keys-forgotten',
      userId,
      count,
    })
  })
}
