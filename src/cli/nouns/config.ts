/** config show, check, path. @module */
import { option } from '../options/option.ts'
import { ALL_SETTINGS, COMMON } from '../options/shared.ts'
import type { CommandSpec } from './command.ts'

const load = () => import('../commands/config.ts')

export const CONFIG: CommandSpec = {
  name: 'config',
  summary: 'settings and where they come from',
  group: 'program',
  examples: [
    ['config show --origin', 'every setting, and where it comes from'],
    ['config check', 'for scripts: silent when all is right'],
  ],
  commands: [
    {
      name: 'show',
      summary: 'show the settings in force',
      options: [...COMMON, ...ALL_SETTINGS, option('--origin', 'also where each value comes from')],
      withProblems: true,
      action: async () => (await load()).show,
    },
    {
      name: 'check',
      summary: 'check all settings files; silent when they are right',
      options: [...COMMON, ...ALL_SETTINGS],
      withProblems: true,
      action: async () => (await load()).check,
    },
    {
      name: 'path',
      summary: 'show which files are looked at',
      options: COMMON,
      withProblems: true,
      action: async () => (await load()).path,
    },
  ],
}
