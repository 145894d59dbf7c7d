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
    group: 'sync',
    summary: 'say what a run would do, and keep it to be applied later',
    examples: [
      ['plan push ./site /room/site -o site.plan', 'somebody looks at it'],
      ['apply site.plan', 'and this is what is done then, or nothing'],
      ['plan upload ./photos /room', 'only shows it'],
    ],
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
        ({ name, summary, options, places, takes }): CommandSpec => ({
          name,
          ...places,
          takes,
          summary,
          options: [...options, ...PLAN],
          action: async () => (await load()).planTransfer(name),
        }),
      ),
      {
        name: 'backup',
        arguments: '<name>',
        takes: ['set'],
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
    group: 'sync',
    arguments: '<plan>',
    summary: 'carry out a plan; stops if anything has changed since it was made',
    examples: [
      ['apply site.plan', ''],
      ['apply site.plan --max-duration 2h --wait 10m', 'waits for another run of the same places'],
    ],
    options: [...REMOTE, ...RUN, ...REPORT],
    withProblems: true,
    action: async () => (await load()).apply,
  },
]
