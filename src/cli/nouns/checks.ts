/** doctor, bench: is everything right, and how fast is it. @module */
import { option } from '../options/option.ts'
import { KEY_PASSWORD, REMOTE } from '../options/shared.ts'
import type { CommandSpec } from './command.ts'

export const CHECKS: readonly CommandSpec[] = [
  {
    name: 'doctor',
    arguments: '[url]',
    summary: 'check settings, connection, server and login, and say what is wrong',
    group: 'program',
    examples: [
      ['doctor', 'with the login that is there'],
      ['doctor https://files.example.com', 'before the first login'],
    ],
    options: [
      ...REMOTE,
      option('--pin', 'show the pins of the server’s keys; with --backup-pin also keep them in the profile'),
    ],
    withProblems: true,
    action: async () => (await import('../commands/doctor.ts')).doctor,
  },
  {
    name: 'bench',
    arguments: '[url]',
    summary: 'measure this machine, a server’s answers and, with --room, both ways',
    group: 'program',
    examples: [
      ['bench', 'this machine and the answers of the server'],
      ['bench --room /room --size 256', 'both ways, with a file of 256 MB'],
    ],
    options: [
      ...REMOTE,
      ...KEY_PASSWORD,
      option('--room <path>', 'send a file into this room and fetch it again; it goes to the recycle bin then'),
      option('--size <MB>', 'of that file (default 64)'),
    ],
    action: async () => (await import('../commands/bench.ts')).bench,
  },
]
