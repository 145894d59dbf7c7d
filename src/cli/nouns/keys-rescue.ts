/** keys rescue create, restore, trust, list, revoke; keys drill; keys serve. @module */
import { NEW_KEY_PASSWORD } from '../new-password.ts'
import { type OptionSpec, option } from '../options/option.ts'
import { settings } from '../options/settings.ts'
import { KEY_PASSWORD, REMOTE, REPORT } from '../options/shared.ts'
import type { CommandSpec } from './command.ts'

const load = () => import('../commands/keys-rescue.ts')

/** Of all that make paper. */
export const PAPER: readonly OptionSpec[] = [
  option('--paper <file>', 'new private file to print, a page if it ends in .html (default: show it on the terminal)'),
  option('--split <k-of-n>', 'split the secret into N sheets, of which any K are needed: 3-of-5'),
]

/** What is on paper, and where the container is. */
const GIVEN: readonly OptionSpec[] = [
  option(
    '--paper <file>',
    'private file with what is on the paper, or on one share (may be repeated; default: type it)',
    {
      repeats: true,
    },
  ),
  option('--container <file>', 'the rescue container (default: where this machine has put it)'),
  option('--store <path>', 'the rescue container at the server'),
  option('--room <path>', 'use the rescue key of this room'),
  option('--rescue-password-file <file>', 'with --room: file that holds the rescue password of the room'),
]

export const KEYS_RESCUE: readonly CommandSpec[] = [
  {
    name: 'rescue',
    summary: 'rescue keys: on paper for yourself, of rooms, and of the server',
    commands: [
      {
        name: 'create',
        summary: 'make a rescue key: what is on paper opens your key pair when the password is lost',
        options: [
          ...REMOTE,
          ...KEY_PASSWORD,
          option(
            '--container <file>',
            'where the sealed key pair goes: a file (or directory) that survives this machine',
          ),
          option('--store <path>', 'and, or instead: a place at the server that is not encrypted'),
          option('--room <path>', 'make a rescue key for this encrypted room instead, with its password on paper'),
          ...PAPER,
        ],
        action: async () => (await load()).create,
      },
      {
        name: 'restore',
        summary: 'open the key pair with what is on paper, and set a new encryption password',
        options: [
          ...REMOTE,
          ...GIVEN,
          option('--system', 'use the rescue key of the whole system, with --rescue-password-file'),
          ...NEW_KEY_PASSWORD,
          ...KEY_PASSWORD,
        ],
        action: async () => (await load()).restore,
      },
      {
        name: 'list',
        summary: 'show your rescue keys, and those that the server has for rooms and for the system',
        options: REMOTE,
        action: async () => (await load()).list,
      },
      {
        name: 'trust',
        arguments: '<fingerprint...>',
        takes: ['none'],
        summary: 'let a rescue key of the server have file keys, after its fingerprint was compared',
        options: REMOTE,
        action: async () => (await load()).trust,
      },
      {
        name: 'revoke',
        arguments: '<id...>',
        takes: ['none'],
        summary: 'end that, by its fingerprint; or remove a rescue key of your own, by its id, with its containers',
        options: REMOTE,
        action: async () => (await load()).revoke,
      },
    ],
  },
  {
    name: 'drill',
    summary: 'rehearse a rescue: open some files with the rescue key alone, and write a report',
    options: [
      ...REMOTE,
      ...GIVEN,
      option('--files <n>', 'how many, taken by chance (default 20)'),
      option(
        '--report <file>',
        'where the report goes, as text if it ends in .txt (default: drills/ in the directory of this program)',
      ),
    ],
    action: async () => (await load()).drill,
  },
  {
    name: 'serve',
    summary: 'hand out file keys day and night, to members whose keys are trusted',
    options: [
      ...REMOTE,
      ...KEY_PASSWORD,
      ...settings('trust-new-members'),
      option('--room <path>', 'only in this room'),
      option('--interval <time>', 'between two rounds, give or take a quarter (default 1m)'),
      option('--at-most <n>', 'file keys in one round; the next one follows at once (default 5000)'),
      option('--metrics-listen <port>', 'serve the figures at http://127.0.0.1:PORT/metrics'),
      ...REPORT,
    ],
    isServer: true,
    action: async () => (await import('../commands/keys-serve.ts')).serve,
  },
]
