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
    options: REMOTE,
    action: async () => (await load()).logout,
  },
  {
    name: 'whoami',
    summary: 'show who is logged in where',
    options: REMOTE,
    action: async () => (await load()).whoami,
  },
]
