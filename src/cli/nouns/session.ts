/** session show, renew, export, import. @module */
import { option } from '../options/option.ts'
import { settings } from '../options/settings.ts'
import { REMOTE } from '../options/shared.ts'
import type { CommandSpec } from './command.ts'

const load = () => import('../commands/session.ts')

export const SESSION: CommandSpec = {
  name: 'session',
  summary: 'the login: look at it, renew it, move it',
  group: 'login',
  examples: [
    ['session show --online', 'asks the server whether the login still holds'],
    ['session export login.json', 'moves the login into a file'],
    ['session import login.json', 'takes it over, on another machine'],
  ],
  commands: [
    {
      name: 'show',
      summary: 'show how the login stands, without its tokens',
      options: [...REMOTE, option('--online', 'ask the server')],
      action: async () => (await load()).show,
    },
    {
      name: 'renew',
      summary: 'renew the login now',
      options: REMOTE,
      action: async () => (await load()).renew,
    },
    {
      name: 'export',
      arguments: '<file>',
      summary: 'move the login into a file (- for standard output)',
      options: [...REMOTE, option('--keep', 'leave it here too; only for logins whose tokens do not rotate')],
      action: async () => (await load()).exportSession,
    },
    {
      name: 'import',
      arguments: '<file>',
      summary: 'take over a login from a file (- for standard input)',
      options: [...REMOTE, ...settings('session-store')],
      action: async () => (await load()).importSession,
    },
  ],
}
