/** upload, download. Their plans are in plans.ts. @module */
import { type OptionSpec, option } from '../options/option.ts'
import { settings } from '../options/settings.ts'
import {
  DRY_RUN,
  KEEP_SHARE_LINKS,
  LEFT_OUT,
  LINK_PASSWORD,
  REMOTE,
  REPORT,
  RUN,
  SELECTION,
} from '../options/shared.ts'
import type { CommandSpec } from './command.ts'

const ONE_FILE_SYSTEM = option('--one-file-system', 'do not enter directories on other devices')

const load = () => import('../commands/transfer.ts')

const transferOptions = (...more: OptionSpec[]): OptionSpec[] => [
  ...REMOTE,
  ...RUN,
  ...SELECTION,
  option('--contents', 'put what is in a directory into the target, not the directory itself'),
  option('--checksum', 'compare contents, not size and time'),
  ...settings('names', 'on-conflict'),
  ...more,
]

/** Both take a list whose last element is the target. */
const places = (usage: string) => ({
  arguments: '<paths...>',
  usage,
  argumentNote: usage,
  // Wrong settings end in a summary, like everything else that can happen to a transfer.
  withProblems: true as const,
})

/** What a transfer and its plan have in common. */
export const TRANSFERS = [
  {
    name: 'upload',
    summary: 'upload files and directories',
    takes: ['file', 'either'],
    examples: [
      ['upload ./photos /room', 'the directory becomes /room/photos'],
      ['upload a.pdf /room/report.pdf', 'under another name'],
      ['upload --to-request https://files.example.org/public/upload-shares/KEY a.pdf', 'without an account'],
      ["upload --from-command 'pg_dump shop' /room/shop.sql", 'what a command prints'],
    ],
    options: transferOptions(...LEFT_OUT, ONE_FILE_SYSTEM, KEEP_SHARE_LINKS),
    places: places('LOCAL... REMOTE'),
    own: [
      option(
        '--from-command <command>',
        'upload what a command prints, if it ends well (no shell: for a pipe bash -o pipefail -c); - as the source: standard input',
      ),
      option('--to-request <link>', 'send files to a file request, without an account; all arguments are files then'),
      ...LINK_PASSWORD,
    ],
  },
  {
    name: 'download',
    summary: 'download files and folders',
    takes: ['remote', 'either'],
    examples: [
      ['download /room/photos ./here', 'the folder becomes ./here/photos'],
      ['download /room ./here --contents --limit-rate 2M', 'what is in the room, slowly'],
      ['download /room/x.tar -', 'to standard output'],
      ['download https://files.example.org/public/download-shares/KEY', 'a link, without an account'],
    ],
    options: transferOptions(),
    places: places('REMOTE... LOCAL'),
    own: LINK_PASSWORD,
  },
] as const

export const UPLOAD_DOWNLOAD: readonly CommandSpec[] = TRANSFERS.map(
  ({ name, summary, options, places, own, ...more }) => ({
    name,
    group: 'files',
    ...more,
    ...places,
    summary: `${summary}; never deletes`,
    options: [...options, ...own, ...REPORT, ...DRY_RUN],
    action: async () => (await load())[name],
  }),
)
