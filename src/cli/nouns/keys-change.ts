/** keys: commands that change key pairs, and look at who has keys. @module */

import { NEW_KEY_PASSWORD } from '../new-password.ts'
import { option } from '../options/option.ts'
import { KEY_PASSWORD, REMOTE } from '../options/shared.ts'
import type { CommandSpec } from './command.ts'

export const KEYS_CHANGE: readonly CommandSpec[] = [
  {
    name: 'passwd',
    summary: 'change the encryption password: the same key pair under a new lock',
    options: [...REMOTE, ...KEY_PASSWORD, ...NEW_KEY_PASSWORD],
    action: async () => (await import('../commands/keys-passwd.ts')).passwd,
  },
  {
    name: 'replace',
    summary: 'make a new key pair, which takes over all file keys; the old one is deleted then',
    options: [
      ...REMOTE,
      ...KEY_PASSWORD,
      ...NEW_KEY_PASSWORD,
      option('-n, --dry-run', 'only say how many files of which rooms that concerns'),
      option('--leave-behind', 'go on though some file keys cannot be moved: they are lost to you'),
      option('--undo', 'take an interrupted one back, while the old key pair is there'),
      option('--yes', 'do not ask'),
    ],
    action: async () => (await import('../commands/keys-replace.ts')).replace,
  },
  {
    name: 'audit',
    arguments: '[path]',
    summary: 'show who has the keys of how many files, and what somebody should look at',
    options: [
      ...REMOTE,
      option('--csv', 'print a table of rooms and members'),
      option('--check', 'exit code 3 when there is something to look at'),
      option('--quick', 'do not ask for each file whether you have its key'),
    ],
    action: async () => (await import('../commands/keys-audit.ts')).audit,
  },
  {
    name: 'seal',
    arguments: '<tpm2|fido2>',
    takes: ['none'],
    summary: 'keep the encryption password sealed by the TPM of this machine, or by a security key',
    options: [...REMOTE, ...KEY_PASSWORD],
    action: async () => (await import('../commands/keys-seal.ts')).seal,
  },
]
