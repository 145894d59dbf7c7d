/** plan push, pull, both, upload, download, backup, restore; apply. @module */
import { PLAN, pairOptions, REMOTE, REPORT, RUN } from '../options/shared.ts'
import { BACKUP_RUN, RESTORE, RESTORE_ARGUMENTS } from './backup.ts'
import type { CommandSpec } from './command.ts'
import { DIRECTIONS } from './pairs.ts'
import { TRANSFERS } from './transfers.ts'

const load = () => import('../commands/plan.ts')

export const PLANS: readonly CommandSpec[] = [
  {
    name: 'plan',
    summary: 'say what a run would do, and keep it to be applied later',
    commands: [
      ...DIRECTIONS.map(
        (direction): CommandSpec => ({
          ...direction,
          options: [...REMOTE, ...RUN, ...pairOptions(direction.name), ...PLAN],
          withProblems: true,
          action: async () => (await load()).planPair(direction.name),
        }),
      ),
      ...TRANSFERS.map(
        ({ name, summary, options, places }): CommandSpec => ({
          name,
          ...places,
          summary,
          options: [...options, ...PLAN],
          action: async () => (await load()).planTransfer(name),
        }),
      ),
      {
        name: 'backup',
        arguments: '<name>',
        summary: 'make a point in time of a backup set',
        options: [...BACKUP_RUN, ...PLAN],
        withProblems: true,
        action: async () => (await load()).planBackup,
      },
      {
        name: 'restore',
        ...RESTORE_ARGUMENTS,
        summary: 'restore a run of a backup set',
        options: [...RESTORE, ...PLAN],
        withProblems: true,
        action: async () => (await load()).planRestore,
      },
    ],
  },
  {
    name: 'apply',
    arguments: '<plan>',
    summary: 'carry out a plan; stops if anything has changed since it was made',
    options: [...REMOTE, ...RUN, ...REPORT],
    withProblems: true,
    action: async () => (await load()).apply,
  },
]
