/** setup, update, uninstall: this program on this machine. @module */
import { option } from '../options/option.ts'
import { COMMON, UPDATE } from '../options/shared.ts'
import type { CommandSpec } from './command.ts'

export const INSTALLATION: readonly CommandSpec[] = [
  {
    name: 'setup',
    group: 'program',
    summary: 'make the short name sync mean this program in your shell',
    examples: [
      ['setup', 'shows the line, and asks before it writes it'],
      ['setup --print', 'for a profile that you keep yourself'],
      ['setup --remove', 'takes it out again'],
    ],
    options: [
      ...COMMON,
      option('--shell <name>', 'which shell (default: that of your account)', { choices: ['bash', 'zsh', 'fish'] }),
      option('--print', 'only print the line, for a profile that you keep yourself'),
      option('--remove', 'take out again what was written'),
      option('-y, --yes', 'do not ask'),
    ],
    action: async () => (await import('../commands/setup.ts')).setup,
  },
  {
    name: 'update',
    group: 'program',
    summary: 'say whether there is a newer release; nothing is installed',
    examples: [
      ['update --check', 'asks where update-url in the settings says'],
      ['update --check -q', 'for cron: exit code 11 when there is one'],
    ],
    options: [
      ...COMMON,
      ...UPDATE,
      option('--check', 'ask the address of --update-url now; exit code 11 when there is one'),
    ],
    action: async () => (await import('../commands/update.ts')).update,
  },
  {
    name: 'uninstall',
    group: 'program',
    summary: 'remove what this program keeps on this machine',
    examples: [
      ['uninstall --data -n', 'lists what there is'],
      ['uninstall --data', 'asks, and removes it; synchronized directories stay'],
    ],
    options: [
      ...COMMON,
      option('--data', 'logins, keyring entries, what is known of pairs and keys, caches, settings'),
      option('-n, --dry-run', 'only list it'),
      option('-y, --yes', 'do not ask'),
    ],
    // Also where the settings cannot be read any more.
    withProblems: true,
    action: async () => (await import('../commands/uninstall.ts')).uninstall,
  },
]
