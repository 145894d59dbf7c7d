/** serve, serve check, serve user add, serve group add: the embedded server. @module */
import { type OptionSpec, option } from '../options/option.ts'
import { COMMON } from '../options/shared.ts'
import type { CommandSpec } from './command.ts'

const load = () => import('../commands/serve.ts')

/** Where content is kept. */
const STORAGE: readonly OptionSpec[] = [
  option('--storage <kind>', 'how content travels', { choices: ['classic', 's3'], fallback: 'classic' }),
  option('--s3-endpoint <url>', 'with --storage s3: keep content in this object store instead of --data'),
  option('--s3-bucket <name>', 'its bucket'),
  option('--s3-region <name>', 'its region (default us-east-1)'),
  option('--s3-access-key-file <file>', 'file with the access key (or SEALSYNC_S3_ACCESS_KEY)'),
  option('--s3-secret-key-file <file>', 'file with the secret key (or SEALSYNC_S3_SECRET_KEY)'),
  option('--s3-path-style', 'the bucket goes into the path, not into the host name'),
]

export const SERVE: CommandSpec = {
  name: 'serve',
  group: 'server',
  summary: 'run the embedded server',
  examples: [
    ['serve --data ./store --port 8080', 'for this machine only'],
    ['serve user add anna --data ./store --password-file anna.txt', ''],
    ['serve check --data ./store --content', 'while it is stopped'],
  ],
  options: [
    ...COMMON,
    option('--data <dir>', 'directory of everything it stores'),
    option('--port <n>', 'port (default: a free one)'),
    option('--host <host>', 'address to listen on (default 127.0.0.1); beyond loopback only with TLS'),
    option('--allow-host <name...>', 'further names that clients may use for it'),
    option('--tls-cert <file>', 'PEM certificate'),
    option('--tls-key <file>', 'PEM private key'),
    option('--faults <file>', 'JSON plan of faults to inject, for tests'),
    ...STORAGE,
  ],
  action: async () => (await load()).serve,
  commands: [
    {
      name: 'check',
      summary: 'look whether metadata and content of a stopped server are whole',
      options: [
        ...COMMON,
        option('--data <dir>', 'directory of the server'),
        option('--content', 'also read all content and compare checksums'),
        option('--adopt', 'take metadata and content for belonging together, after a restore; deletes nothing'),
        ...STORAGE,
      ],
      action: async () => (await load()).serveCheck,
    },
    {
      name: 'user',
      summary: 'accounts of the embedded server',
      commands: [
        {
          name: 'add',
          arguments: '<name>',
          summary: 'make an account; also while the server runs',
          options: [
            ...COMMON,
            option('--data <dir>', 'directory of the server'),
            option('--password-file <file>', 'file that holds the password'),
            option(
              '--one-time-codes <file>',
              'also ask for one-time codes; the address for an authenticator app goes into this file',
            ),
          ],
          action: async () => (await load()).userAdd,
        },
      ],
    },
    {
      name: 'group',
      summary: 'groups of accounts of the embedded server',
      commands: [
        {
          name: 'add',
          arguments: '<name> <users...>',
          summary: 'make a group of accounts, or add accounts to one; also while the server runs',
          options: [...COMMON, option('--data <dir>', 'directory of the server')],
          action: async () => (await load()).groupAdd,
        },
      ],
    },
  ],
}
