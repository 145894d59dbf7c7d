/** keys export-public, pin-public: the public key of an account on a machine that can only write. @module */

import { SyncError } from '../../errors.ts'
import { parseFingerprint, showFingerprint } from '../../fingerprint.ts'
import { writePrivateFile } from '../../local/atomic-file.ts'
import { readList } from '../../local/text-list.ts'
import { withClient } from '../connect.ts'
import { type Context, text } from '../context.ts'
import { display } from '../display.ts'
import { confirm, isInteractive } from '../secrets.ts'

/** Makes the file; `-` is standard output. */
export async function exportPublic(context: Context, file: string): Promise<void> {
  const { output, signal } = context
  await withClient(context, async (client) => {
    const content = await client.keys.exportPublic({ signal })
    const { userName, version, fingerprint } = await client.keys.readPublic(content)
    if (file === '-') {
      output.result(content.trimEnd(), JSON.parse(content) as object)
    } else {
      await writePrivateFile(file, content)
      output.done(`Wrote the public key of ${display(userName, 80)} to ${display(file)}`, {
        type: 'public-key',
        file,
        user: userName,
        version,
        fingerprint,
      })
    }
    output.info(`Compare this where it is pinned (sync keys pin-public):\n${showFingerprint(fingerprint)}`)
  })
}

/** Shows the fingerprint, has it compared by a person, and pins the key. */
export async function pinPublic(context: Context, file: string): Promise<void> {
  const { options, output, signal } = context
  const given = text(options, 'fingerprint')
  const wanted = given === undefined ? undefined : parseFingerprint(given)
  const content = readList(file).toString('utf8')
  await withClient(context, async (client) => {
    const { userName, userId, version, fingerprint, createdAt } = await client.keys.readPublic(content)
    const whose = `${display(userName, 80)} (id:${userId})`
    if (wanted === undefined) {
      const shown = `${version} key of ${whose}, of ${display(createdAt, 40)}:\n${showFingerprint(fingerprint)}`
      if (!isInteractive() || output.json) {
        throw new SyncError('safety', 'CONFIRMATION_NEEDED', `Nobody is there to compare the ${shown}`, {
          hint: 'Compare it with what sync keys status says where the private key is, and give that: --fingerprint HEX',
        })
      }
      output.info(shown)
      if (!(await confirm('Is this what sync keys status says where the private key is?'))) {
        throw new SyncError('cancelled', 'CANCELLED', 'Nothing was done')
      }
    }
    const { isOwn } = await client.keys.pinPublic(content, wanted ?? fingerprint, { signal })
    const what = isOwn ? 'uploads with --write-only are encrypted for it' : 'they get the keys of what is uploaded here'
    output.done(`Pinned the ${version} key of ${whose}: ${what}\n  ${showFingerprint(fingerprint)}`, {
      type: 'public-key-pinned',
      userId,
      user: userName,
      version,
      fingerprint,
      isOwn,
    })
  })
}
