/** keys audit: who can open what, and what somebody should look at. @module */
import type { AuditFinding, MemberAudit, RoomAudit } from '../../client/index.ts'
import { SyncError } from '../../errors.ts'
import { connect } from '../connect.ts'
import type { Context } from '../context.ts'
import { csvLine } from '../csv.ts'
import { display, plural } from '../display.ts'
import { EXIT } from '../exit-codes.ts'
import { createProgress } from '../output.ts'

const nameOf = ({ userId, name, isRescueKey }: Pick<AuditFinding, 'userId' | 'name' | 'isRescueKey'>) =>
  isRescueKey === true ? `rescue key (id:${userId})` : `${display(name ?? 'user', 80)} (id:${userId})`

function findingText(finding: AuditFinding): string {
  const { code, room, count = 0 } = finding
  const where = room === undefined ? '' : ` of ${display(room, 200)}`
  switch (code) {
    case 'KEYS_LACKING':
      return `${nameOf(finding)} lacks the keys of ${plural(count, 'file')}${where}: sync keys distribute`
    case 'KEYS_LACKING_OWN':
      return `you lack the keys of ${plural(count, 'file')}${where}: somebody who has them must hand them out`
    case 'KEYS_SINGLE':
      return `${plural(count, 'file')}${where} can be opened by you alone`
    case 'KEY_PAIR_NONE':
      return `${nameOf(finding)} has no key pair and can open nothing: sync keys create`
    case 'KEY_WEAK':
      return `${finding.name === 'you' ? 'your key pair is' : `${nameOf(finding)} has`} RSA-2048: sync keys replace`
    case 'LOCK_WEAK':
      return 'your key pair is locked with few iterations: sync keys passwd'
    case 'KEY_DOUBTED':
      return `${nameOf(finding)} shows another key than the trusted one: compare it, sync keys list`
    case 'KEY_UNTRUSTED':
      return `${nameOf(finding)} has a key that nobody has trusted here: compare it, sync keys trust`
  }
}

function memberText({ userId, name, isSelf, isRescueKey, version, trust, has, lacks }: MemberAudit): string {
  const who = isSelf ? 'you' : nameOf({ userId, name, isRescueKey })
  const keys = version === undefined ? 'no key pair' : `${has} of ${plural(has + lacks, 'file')}`
  const weak = version === 'A' ? '  RSA-2048' : ''
  return `  ${who.padEnd(30)}  ${keys}${weak}${isSelf || trust === undefined ? '' : `  ${trust}`}`
}

const COLUMNS = ['room', 'user', 'id', 'kind', 'key', 'fingerprint', 'trust', 'has', 'lacks']

function csvRows({ room, members }: RoomAudit): string[] {
  return members.map(({ userId, name, isSelf, isRescueKey, version, fingerprint, trust, has, lacks }) =>
    csvLine([
      room,
      name ?? '',
      String(userId),
      isSelf ? 'self' : isRescueKey ? 'rescue key' : 'member',
      version ?? '',
      fingerprint ?? '',
      trust ?? '',
      String(has),
      String(lacks),
    ]),
  )
}

function roomText({ room, files, membersKnown, members }: RoomAudit): string {
  return [
    `${display(room, 200)}  ${plural(files, 'file')}${membersKnown ? '' : '  (you may not see the members; those who lack keys:)'}`,
    ...members.map(memberText),
  ].join('\n')
}

export async function audit(context: Context, path?: string): Promise<number> {
  const { options, output, signal } = context
  const isCsv = options.csv === true
  if (isCsv && output.json) throw new SyncError('usage', 'OPTION_INVALID', '--csv and --json exclude each other')
  const progress = await createProgress(output, 'looking')
  const { client } = await connect(context, (event) => progress.onEvent(event))
  try {
    const { rooms, findings } = await client.keys.audit({ room: path, quick: options.quick === true, signal })
    progress.stop()
    if (isCsv) output.result(csvLine(COLUMNS), {})
    for (const room of rooms) {
      output.result(isCsv ? csvRows(room).join('\n') : roomText(room), { type: 'room-audit', ...room })
    }
    if (isCsv) for (const finding of findings) output.info(findingText(finding))
    else {
      const lines = findings.map((finding) => `- ${findingText(finding)}`)
      const text = lines.length === 0 ? 'Nothing to look at.' : ['To look at:', ...lines].join('\n')
      output.result(text, { type: 'key-audit', rooms: rooms.length, findings })
    }
    return options.check === true && findings.length > 0 ? EXIT.partial : EXIT.done
  } finally {
    progress.stop()
    await client.close()
  }
}
