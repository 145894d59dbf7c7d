/** profile list, show, rename, remove. @module */
import { COMMON } from '../options/shared.ts'
import type { CommandSpec } from './command.ts'

const load = () => import('../commands/profile.ts')

export const PROFILE: CommandSpec = {
  name: 'profile',
  summary: 'logins that are remembered, by name',
  commands: [
    { name: 'list', summary: 'list them', options: COMMON, action: async () => (await load()).list },
    {
      name: 'show',
      arguments: '[name]',
      summary: 'show one',
      options: COMMON,
      action: async () => (await load()).show,
    },
    {
      name: 'rename',
      arguments: '<from> <to>',
      summary: 'give it another name',
      options: COMMON,
      action: async () => (await load()).rename,
    },
    {
      name: 'remove',
      arguments: '<name>',
      summary: 'forget it here, without telling the server',
      options: COMMON,
      action: async () => (await load()).remove,
    },
  ],
}
