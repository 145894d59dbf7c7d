/** New encryption passwords: from a file, a command or a person, or made here at random. @module */
import { randomInt } from 'node:crypto'
import { SyncError } from '../errors.ts'
import { readPrivateFile, writePrivateFile } from '../local/atomic-file.ts'
import { type Context, text } from './context.ts'
import { option } from './options/option.ts'
import { getSecret } from './secrets.ts'

/** Where a new encryption password comes from. */
export const NEW_KEY_PASSWORD = [
  option('--new-key-password-file <file>', 'file that holds the new encryption password'),
  option('--new-key-password-command <command>', 'program that prints it'),
  option(
    '--generate <file>',
    'make one at random, kept in this private file before it is used; one that is there is taken',
  ),
]

/** Letters and digits that look like no other. */
const LETTERS = 'abcdefghijkmnpqrstuvwxyz'
const ALL = `${LETTERS}ABCDEFGHJKLMNPQRSTUVWXYZ23456789`
const GROUPS = 6
const GROUP = 5

/** 30 characters by chance, in groups: 170 bits, with some of every kind that a server may ask for. */
function generate(): string {
  for (;;) {
    const group = () => Array.from({ length: GROUP }, () => ALL[randomInt(ALL.length)]).join('')
    const made = Array.from({ length: GROUPS }, group).join('-')
    if (/[a-z]/.test(made) && /[A-Z]/.test(made) && /\d/.test(made)) return made
  }
}

/** Durable before anything is locked with it, so that a kill never leaves a key pair whose password nobody has. */
async function generated(path: string): Promise<Uint8Array> {
  const there = await readPrivateFile(path)
  if (there !== undefined) return getSecret({ file: path })
  const made = generate()
  await writePrivateFile(path, `${made}\n`)
  return Buffer.from(made, 'utf8')
}

/** Gets it from the one source that was named, or asks twice. */
export async function newKeyPassword({ options }: Context): Promise<Uint8Array> {
  const [file, command, made] = ['newKeyPasswordFile', 'newKeyPasswordCommand', 'generate'].map((name) =>
    text(options, name),
  )
  if ([file, command, made].filter((one) => one !== undefined).length > 1) {
    throw new SyncError('usage', 'OPTION_INVALID', 'Give the new encryption password in one way only')
  }
  if (made !== undefined) return generated(made)
  return getSecret({
    file,
    command,
    question: 'New encryption password',
    confirm: true,
    missing: new SyncError(
      'key',
      'PASSWORD_NEEDED',
      'The new encryption password is needed, and there is no terminal to ask',
      {
        hint: 'Give it with --new-key-password-file, or have one made: --generate FILE',
      },
    ),
  })
}
