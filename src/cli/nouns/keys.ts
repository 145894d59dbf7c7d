/** keys: the own key pair, file keys, and whose keys are trusted. @module */
import { option } from '../options/option.ts'
import { settings } from '../options/settings.ts'
import { COMMON, KEY_PASSWORD, REMOTE } from '../options/shared.ts'
import type { CommandSpec } from './command.ts'
import { KEYS_CHANGE } from './keys-change.ts'
import { KEYS_RESCUE } from './keys-rescue.ts'

const own = () => import('../commands/keys.ts')
const publicKeys = () => import('../commands/keys-public.ts')
const trust = () => import('../commands/trust.ts')

export const KEYS: CommandSpec = {
  name: 'keys',
  summary: 'key pair and file keys',
  group: 'keys',
  examples: [
    ['keys create', 'once for each account'],
    ['keys trust bob --fingerprint 4be1', 'if the key of bob begins like that'],
    ['keys distribute --room /room', 'to members who cannot open the files there yet'],
    ['keys rescue create --container /media/stick --paper rescue.html', 'for when the password is lost'],
  ],
  commands: [
    {
      name: 'create',
      summary: 'make an RSA-4096 key pair, locked with an encryption password',
      options: [...REMOTE, ...KEY_PASSWORD],
      action: async () => (await own()).create,
    },
    {
      name: 'status',
      summary: 'show the key pair and what is left to hand out',
      options: REMOTE,
      action: async () => (await own()).status,
    },
    {
      name: 'distribute',
      summary: 'hand out file keys to members who lack them',
      options: [
        ...REMOTE,
        ...KEY_PASSWORD,
        ...settings('trust-new-members'),
        option('--room <path>', 'only in this room'),
      ],
      action: async () => (await own()).distribute,
    },
    ...KEYS_CHANGE,
    ...KEYS_RESCUE,
    {
      name: 'remember',
      summary: 'keep the encryption password in the keyring of the system',
      options: [...REMOTE, ...KEY_PASSWORD],
      action: async () => (await own()).remember,
    },
    {
      name: 'cache',
      summary: 'file keys that are kept on this disk, sealed',
      commands: [
        {
          name: 'clear',
          summary: 'remove them; they are unwrapped again when needed',
          options: COMMON,
          action: async () => (await own()).clearCache,
        },
      ],
    },
    {
      name: 'list',
      summary: 'show your keys and those of members: fingerprint, and whether it is trusted',
      options: REMOTE,
      action: async () => (await trust()).list,
    },
    {
      name: 'servers',
      summary: 'show the keys of servers that were seen first, and have to stay (see --pins)',
      options: COMMON,
      action: async () => (await own()).servers,
    },
    {
      name: 'verify',
      arguments: '<user> <fingerprint...>',
      summary: 'compare a member’s key with what they say it is',
      options: REMOTE,
      action: async () => (await trust()).verify,
    },
    {
      name: 'trust',
      arguments: '[user]',
      summary: 'trust the key that the server shows for a member now (name or id)',
      options: [
        ...REMOTE,
        option('--fingerprint <hex>', 'only if it is this one'),
        option('--all', 'the keys of all members that are not in doubt'),
      ],
      action: async () => (await trust()).trust,
    },
    {
      name: 'export-public',
      arguments: '<file>',
      takes: ['file'],
      summary: 'write your public key, signed, for a machine that can only write (- for standard output)',
      options: [...REMOTE, ...KEY_PASSWORD],
      action: async () => (await publicKeys()).exportPublic,
    },
    {
      name: 'pin-public',
      arguments: '<file>',
      takes: ['file'],
      summary: 'take the public key in such a file for the right one here, when somebody has compared it',
      options: [...REMOTE, option('--fingerprint <hex>', 'it has been compared, and is this')],
      action: async () => (await publicKeys()).pinPublic,
    },
    {
      name: 'forget',
      arguments: '[user]',
      summary: 'remove the encryption password from the keyring; with a user, forget their keys',
      options: [
        ...REMOTE,
        option('--room <path>', 'forget that this room was encrypted'),
        option('--server <url>', 'forget the key of this server that was seen first'),
      ],
      action: async () => (await trust()).forget,
    },
  ],
}
