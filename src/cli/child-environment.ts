/**
 * What programs that are started from here get as their environment: all but secrets of ours. Ours are those of the settings that
 * may hold one, and every variable of our prefixes that is no setting; what belongs to others stays, since a password command may
 * need it.
 * @module
 */
import { SETTINGS, variableOf } from './options/settings.ts'

const PREFIXES = ['SEALSYNC_', 'OVH_']

/** Settings that are no secrets, and what is no setting and no secret. */
const HARMLESS: ReadonlySet<string> = new Set([
  ...SETTINGS.filter(({ secret, kind }) => secret !== true && kind !== 'secret-url').map(({ name }) =>
    variableOf(name),
  ),
  'SEALSYNC_HOME',
  'SEALSYNC_SYSTEM_CONFIG',
  'SEALSYNC_BROWSER',
])

/** @param all - Default: that of this process. */
export function childEnvironment(all: NodeJS.ProcessEnv = process.env): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(all).filter(([name]) => {
      // Windows does not tell letters by their case.
      const upper = name.toUpperCase()
      return HARMLESS.has(upper) || !PREFIXES.some((prefix) => upper.startsWith(prefix))
    }),
  )
}
