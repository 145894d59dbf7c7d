/** keys replace: a new key pair for the account, with all its file keys. @module */
import type { Client, ReplacementPlan } from '../../client/index.ts'
import { SyncError } from '../../errors.ts'
import { showFingerprint } from '../../fingerprint.ts'
import { requireConfirmed } from '../agree.ts'
import { connect } from '../connect.ts'
import { type Context, keyPassword } from '../context.ts'
import { display, plural } from '../display.ts'
import { EXIT } from '../exit-codes.ts'
import { newKeyPassword } from '../new-password.ts'
import { createProgress } from '../output.ts'
import { passwordFollows } from './keys-passwd.ts'

const sum = (numbers: readonly number[]) => numbers.reduce((all, one) => all + one, 0)

/** What stands in the way, and what nobody can know. */
function doubts({ unreached: { folders, bins }, unreadable }: ReplacementPlan): string[] {
  return [
    ...(unreadable === 0 ? [] : [`${plural(unreadable, 'file key')} that the server does not give: left behind`]),
    ...(folders === 0
      ? []
      : [`${plural(folders, 'folder')} in recycle bins: the file keys in there would be left behind`]),
    ...(bins === 0 ? [] : [`${plural(bins, 'recycle bin')} that you may not look into`]),
  ]
}

function showPlan({ output }: Context, plan: ReplacementPlan): void {
  for (const { room, files, binned, absent } of plan.rooms) {
    const more = [
      ...(binned === 0 ? [] : [`${binned} in the recycle bin`]),
      ...(absent === 0 ? [] : [`${absent} more of which you have no key`]),
    ]
    const text = `${plural(files, 'file key')} of ${display(room, 200)}${more.length === 0 ? '' : ` (${more.join(', ')})`}`
    output.result(text, { type: 'room-keys', room, files, binned, absent })
  }
  const { keyPairs, unfinishedSince, unreached, unreadable } = plan
  const files = sum(plan.rooms.map((room) => room.files))
  const pairs = keyPairs.map(({ version, fingerprint }) => `${version} ${showFingerprint(fingerprint)}`).join(', ')
  output.result([`${plural(files, 'file key')} in all, to be moved from ${pairs}`, ...doubts(plan)].join('\n'), {
    type: 'replacement-plan',
    keyPairs,
    unfinishedSince,
    files,
    unreached,
    unreadable,
  })
}

async function run(
  context: Context,
  client: Client,
  current: () => Promise<Uint8Array>,
  profile: Parameters<typeof passwordFollows>[1],
) {
  const { options, output, signal } = context
  const { unfinished } = await client.keys.status({ signal })
  if (unfinished?.kind === 'pair') output.info('Going on with the replacement that was interrupted.')
  else {
    const question =
      'Replace the key pair? Others must compare the new key before they hand you anything again, and nothing else of yours may upload until it is done.'
    await requireConfirmed(context, question, 'yes')
  }
  const done = await client.keys.replace(() => newKeyPassword(context), {
    current,
    leaveBehind: options.leaveBehind === true,
    onChanged: (password) => passwordFollows(context, profile, password),
    signal,
  })
  const { keyPair, former, files, absent, left, leftFiles } = done
  const rescue = done.rescue?.map(({ error, ...place }) => ({ ...place, error: error?.code }))
  for (const { path, code } of leftFiles) output.warn(`${path}: its key was left behind (${code})`)
  output.done(
    `The key pair is replaced, and opens ${plural(files, 'file')}. Fingerprint:\n${showFingerprint(keyPair.fingerprint)}`,
    { type: 'key-pair-replaced', ...keyPair, former, files, absent, left, rescue },
  )
  output.info(
    'Tell it to the members of your rooms: they are told that your key has changed, and must compare it first.',
  )
  const isRescued = rescue?.every(({ error }) => error === undefined) === true
  return left > 0 || !isRescued ? EXIT.partial : EXIT.done
}

export async function replace(context: Context): Promise<number> {
  const { options, output, signal } = context
  if (options.dryRun === true && options.undo === true) {
    throw new SyncError('usage', 'OPTION_INVALID', '--dry-run and --undo exclude each other')
  }
  const progress = await createProgress(output, 'moving')
  try {
    const { client, profile } = await connect(context, (event) => progress.onEvent(event))
    const current = keyPassword(context, profile)
    try {
      if (options.dryRun === true) {
        showPlan(context, await client.keys.planReplacement({ signal }))
        return EXIT.done
      }
      if (options.undo === true) {
        await client.keys.undoReplacement(current, { signal })
        output.done('The replacement is taken back; the key pair is the old one', { type: 'replacement-undone' })
        return EXIT.done
      }
      return await run(context, client, current, profile)
    } finally {
      await client.close()
    }
  } finally {
    progress.stop()
  }
}
