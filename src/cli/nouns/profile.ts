/** profile list, show, rename, remove. @module */
import { COMMON } from '../options/shared.ts'
import type { CommandSpec } from './command.ts'

const load = () => import('../commands/profile.ts')

export const PROFILE: CommandSpec = {
  name: 'profile',
  summary: 'logins that are remembered, by name',
  group: 'login',
  examples: [
    ['profile list', ''],
    ['profile rename default work', ''],
    ['profile remove work', 'the server is not told'],
  ],
  commands: [
    { name: 'list', summary: 'list them', options: COMMON, action: async () => (await load()).list },
    {
      name: 'show',
      arguments: '[name]',
      summary: 'show one',
      takes: ['profile'],
      options: COMMON,
      action: async () => (await load()).show,
    },
    {
      name: 'rename',
      arguments: '<from> <to>',
      summary: 'give it another name',
      takes: ['profile', 'none'],
      options: COMMON,
      action: async () => (await load()).rename,
    },
    {
      name: 'remove',
      arguments: '<name>',
      summary: 'forget it here, without telling the server',
      takes: ['profile'],
      options: COMMON,
      action: async () => (await load()).remove,
    },
  ],
}
