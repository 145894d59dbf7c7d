/** upload, download. Their plans are in plans.ts. @module */
import { type OptionSpec, option } from '../options/option.ts'
import { settings } from '../options/settings.ts'
import { DRY_RUN, KEY_PASSWORD, REMOTE, REPORT } from '../options/shared.ts'
import type { CommandSpec } from './command.ts'

const load = () => import('../commands/transfer.ts')

const transferOptions = (...more: string[]): OptionSpec[] => [
  ...REMOTE,
  ...KEY_PASSWORD,
  option('--contents', 'put what is in a directory into the target, not the directory itself'),
  option('--checksum', 'compare contents, not size and time'),
  ...settings('jobs', 'memory', 'limit-rate', 'key-cache', 'names', ...more),
]

/** Both take a list whose last element is the target. */
const places = (usage: string) => ({
  arguments: '<paths...>',
  usage,
  argumentNote: usage,
  check: ([paths]: readonly unknown[]) =>
    (paths as readonly string[]).length < 2 ? 'a source and a target are needed' : undefined,
  // Wrong settings end in a summary, like everything else that can happen to a transfer.
  withProblems: true as const,
})

/** What a transfer and its plan have in common. */
export const TRANSFERS = [
  {
    name: 'upload',
    summary: 'upload files and directories',
    options: transferOptions('part-size', 'require-encryption', 'allow-plain', 'on-conflict'),
    places: places('LOCAL... REMOTE'),
  },
  {
    name: 'download',
    summary: 'download files and folders',
    options: transferOptions('require-encryption', 'on-conflict'),
    places: places('REMOTE... LOCAL'),
  },
] as const

export const UPLOAD_DOWNLOAD: readonly CommandSpec[] = TRANSFERS.map(({ name, summary, options, places }) => ({
  name,
  ...places,
  summary: `${summary}; never deletes`,
  options: [...options, ...(name === 'upload' ? settings('trust-new-members') : []), ...REPORT, ...DRY_RUN],
  action: async () => (await load())[name],
}))
