/** serve, serve check, serve gc: the embedded server; how it is administered is serve-admin.ts. @module */
import { option } from '../options/option.ts'
import { SERVER_OPTIONS, STORAGE } from '../options/serve.ts'
import { COMMON } from '../options/shared.ts'
import type { CommandSpec } from './command.ts'
import { SERVE_ADMIN, WHERE } from './serve-admin.ts'

const load = () => import('../commands/serve.ts')

export const SERVE: CommandSpec = {
  name: 'serve',
  group: 'server',
  summary: 'run the embedded server',
  examples: [
    ['serve --data ./store --port 8080', 'for this machine only'],
    ['serve user add anna --data ./store --password-file anna.txt', ''],
    ['serve user remove anna --data ./store --dry-run', 'which files would become unreadable'],
    ['serve check --data ./store --content', ''],
  ],
  isServer: true,
  options: [
    ...COMMON,
    option(
      '--server-config <file>',
      'TOML file with any of the options below, under their own names (env SEALSYNC_SERVER_CONFIG)',
    ),
    ...SERVER_OPTIONS,
  ],
  action: async () => (await load()).serve,
  commands: [
    {
      name: 'check',
      summary: 'look whether metadata and content of a server are whole; also while it runs',
      options: [
        ...WHERE,
        option('--content', 'also read all content and compare checksums'),
        option('--repair', 'move content aside that nothing refers to; deletes nothing'),
        option('--adopt', 'take metadata and content for belonging together, after a restore; deletes nothing'),
        ...STORAGE,
      ],
      action: async () => (await load()).serveCheck,
    },
    {
      name: 'gc',
      summary:
        'remove what has run out: logins, bins whose time is over, what check moved aside two days ago; also while the server runs',
      options: [...WHERE, ...STORAGE],
      action: async () => (await load()).serveGc,
    },
    ...SERVE_ADMIN,
  ],
}
