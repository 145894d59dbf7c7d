/** rules list, accept. @module */
import { COMMON } from '../options/shared.ts'
import type { CommandSpec } from './command.ts'

const load = () => import('../commands/rules.ts')

export const RULES: CommandSpec = {
  name: 'rules',
  group: 'sync',
  summary: '.syncignore files that came from a server and do not count yet',
  examples: [
    ['rules list ./site', 'what waits to be accepted'],
    ['rules accept ./site', 'they count from now on'],
  ],
  commands: [
    {
      name: 'list',
      arguments: '[directory]',
      summary: 'show those at or below it; exit code 3 if there are any',
      options: COMMON,
      withProblems: true,
      action: async () => (await load()).list,
    },
    {
      name: 'accept',
      arguments: '<path>',
      takes: ['file'],
      summary: 'let those at or below it count as they are now',
      options: COMMON,
      withProblems: true,
      action: async () => (await load()).accept,
    },
  ],
}
