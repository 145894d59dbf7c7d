/** Asks before something is done that was not asked for in so many words. @module */
import { SyncError } from '../errors.ts'
import type { Context } from './context.ts'
import { confirm, isInteractive } from './secrets.ts'

/**
 * @returns what the person says; true with `--yes`.
 * @throws {SyncError} `CONFIRMATION_MISSING` where nobody can be asked.
 */
export async function agreed({ options }: Pick<Context, 'options'>, question: string): Promise<boolean> {
  if (options.yes === true) return true
  if (isInteractive()) return confirm(question)
  throw new SyncError('usage', 'CONFIRMATION_MISSING', 'There is no terminal to ask, so --yes is needed', {
    hint: 'Look first at what it would do, without --yes.',
  })
}
