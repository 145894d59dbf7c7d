/** Asks before something is done that cannot be taken back, or that nobody expects. @module */
import { SyncError } from '../errors.ts'
import type { Context } from './context.ts'
import { confirm, isInteractive } from './secrets.ts'

/**
 * Returns when somebody has said that it is meant: with `flag`, or at the terminal.
 *
 * @param flag - Stands for the answer: `force` or `yes`.
 * @throws {SyncError} `CONFIRMATION_NEEDED` (class `safety`) where nobody can be asked; `CANCELLED` for a no.
 */
export async function requireConfirmed(
  { options, output }: Pick<Context, 'options' | 'output'>,
  question: string,
  flag: 'force' | 'yes' = 'force',
): Promise<void> {
  if (options[flag] === true) return
  if (isInteractive() && !output.json) {
    if (await confirm(question)) return
    throw new SyncError('cancelled', 'CANCELLED', 'Nothing was done')
  }
  throw new SyncError('safety', 'CONFIRMATION_NEEDED', `${question} Nobody is there to say so`, {
    hint: `Use --${flag} if that is what you want.`,
  })
}
