/** keys: commands that change key pairs, and look at who has keys. @module */
import { NEW_KEY_PASSWORD } from '../new-password.ts'
import { KEY_PASSWORD, REMOTE } from '../options/shared.ts'
import type { CommandSpec } from './command.ts'

export const KEYS_CHANGE: readonly CommandSpec[] = [
  {
    name: 'passwd',
    summary: 'change the encryption password: the same key pair under a new lock',
    options: [...REMOTE, ...KEY_PASSWORD, ...NEW_KEY_PASSWORD],
    action: async () => (await import('../commands/keys-passwd.ts')).passwd,
  },
]
