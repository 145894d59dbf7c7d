/** login, logout, whoami. @module */
import { LOGIN_OPTIONS, METHODS } from '../methods.ts'
import { type OptionSpec, option } from '../options/option.ts'
import { settings, variableOf } from '../options/settings.ts'
import { REMOTE } from '../options/shared.ts'
import type { CommandSpec } from './command.ts'

const load = () => import('../commands/account.ts')

const loginOptions = (): OptionSpec[] =>
  LOGIN_OPTIONS.map(({ name, argument, summary, choices }) =>
    option(`--${name}${argument === undefined ? '' : ` <${argument}>`}`, summary, {
      ...(argument === undefined || name === 'code' ? {} : { variable: variableOf(name) }),
      ...(choices === undefined ? {} : { choices }),
    }),
  )

export const ACCOUNT: readonly CommandSpec[] = [
  {
    name: 'login',
    arguments: '<url>',
    summary: 'log in to a server and remember it',
    group: 'login',
    examples: [
      ['login https://files.example.com', 'opens the browser'],
      ['login https://files.example.com --no-browser', 'shows the address, and asks for the code'],
      [
        'login https://files.example.com --user anna --password-file ~/.password --profile work',
        'for scripts, under a name of its own',
      ],
    ],
    options: [
      ...REMOTE,
      option('--method <method>', 'how (default: by the other options, else browser)', { choices: METHODS }),
      ...loginOptions(),
      ...settings('session-store'),
    ],
    action: async () => (await load()).login,
  },
  {
    name: 'logout',
    summary: 'revoke the login and forget it',
    group: 'login',
    examples: [
      ['logout', ''],
      ['logout --profile work', 'the login of that name only'],
    ],
    options: REMOTE,
    action: async () => (await load()).logout,
  },
  {
    name: 'whoami',
    summary: 'show who is logged in where',
    group: 'login',
    examples: [
      ['whoami', ''],
      ['whoami --json --profile work', 'for programs'],
    ],
    options: REMOTE,
    action: async () => (await load()).whoami,
  },
]
