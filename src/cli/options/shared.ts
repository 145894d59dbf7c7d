/** Options that several commands take, by what they are about. @module */
import { grouped, type OptionSpec, option } from './option.ts'
import { SETTINGS, settings } from './settings.ts'

/** What is written down of a command. */
const LOGGING = ['log-file', 'log-level', 'log-redact', 'trace-http']

/** Of every command. */
export const COMMON: readonly OptionSpec[] = [
  option('--json', 'print results as JSON, one object per line'),
  option('-q, --quiet', 'only results, warnings and errors'),
  option('-v, --verbose', 'say more'),
  option('--profile <name>', 'which login to use (env SEALSYNC_PROFILE)'),
  option('--config <file>', 'settings file, in place of all others that are looked for (env SEALSYNC_CONFIG)'),
  ...settings(...LOGGING),
]

/** Only `help connection` tells of them. */
export const CONNECTION_GROUP = 'Connection options:'

const CONNECTING: ReadonlySet<string> = new Set([
  ...SETTINGS.filter(({ connection }) => connection).map(({ name }) => name),
  'session-key-command',
])

/** Of every command that talks to a server: how it is reached. */
export const CONNECTION: readonly OptionSpec[] = grouped(CONNECTION_GROUP, settings(...CONNECTING))

/** Where releases are asked for, and how that place is reached. */
export const UPDATE: readonly OptionSpec[] = [...settings('update-url', 'update-key'), ...CONNECTION]

/** The two together. */
export const REMOTE: readonly OptionSpec[] = [...COMMON, ...CONNECTION]

/** All settings; the profile is an option of every command already. */
export const ALL_SETTINGS: readonly OptionSpec[] = [
  ...settings(
    ...SETTINGS.map(({ name }) => name).filter(
      (name) => name !== 'profile' && !LOGGING.includes(name) && !CONNECTING.has(name),
    ),
  ),
  ...CONNECTION,
]

export const KEY_PASSWORD = settings(
  'key-password-file',
  'key-password-command',
  'key-password-credential',
  'key-password-sealed',
)

/** The password of a link; `SEALSYNC_SHARE_PASSWORD` and a prompt stand for it, too. */
export const LINK_PASSWORD: readonly OptionSpec[] = [
  option('--password-file <file>', 'password of the link (- for standard input)'),
  option('--password-command <command>', 'command that prints the password of the link'),
]

export const KEEP_SHARE_LINKS = option(
  '--keep-share-links',
  'links of files that are replaced lead to the new ones then, instead of ending',
)

/** How a run is watched over. */
export const REPORT = grouped('Reporting options:', settings('events', 'metrics-file', 'ping-url'))

/** How far a run goes. */
export const LIMITS: readonly OptionSpec[] = [
  option('--wait <time>', 'wait for another run of the same places to end'),
  option('--max-transfer <size>', 'begin no more transfers after so many bytes'),
  option('--max-duration <time>', 'begin no more transfers after this time'),
]

/** What runs of all directions take. */
export const RUN: readonly OptionSpec[] = [
  ...KEY_PASSWORD,
  ...settings(
    'jobs',
    'memory',
    'part-size',
    'check-output',
    'limit-rate',
    'key-cache',
    'require-encryption',
    'allow-plain',
    'trust-new-members',
  ),
  ...LIMITS,
]

/** What takes part in a run. */
export const SELECTION: readonly OptionSpec[] = [
  option('--exclude <pattern>', 'leave out, as in .gitignore (may be repeated)', { patternSign: '' }),
  option('--include <pattern>', 'take in after all; the last that matches decides', { patternSign: '!' }),
  option('--filter-from <file>', 'file of patterns, as a .gitignore'),
  option('--files-from <file>', 'only the paths in this file, one a line (- for standard input)'),
  option('--files-from0 <file>', 'the same, with NUL bytes between the paths, as from find -print0'),
  option('--max-size <size>', 'leave larger files out'),
  option('--min-age <time>', 'leave files out that were modified within this time'),
]

/** What of a directory here is not sent without being named. */
export const LEFT_OUT: readonly OptionSpec[] = [
  option(
    '--no-default-excludes',
    'also .DS_Store, Thumbs.db, desktop.ini, ~$* and *.part (or some of them by --include)',
  ),
  option('--exclude-caches', 'leave out what is in directories with a CACHEDIR.TAG'),
]

export type Direction = 'push' | 'pull' | 'both'

/** How two sides are made alike. */
export function pairOptions(direction: Direction): OptionSpec[] {
  const manifest =
    direction === 'push' ? 'store no manifest' : 'take no permissions, links and exact times from the manifest'
  return [
    ...SELECTION,
    ...(direction === 'pull' ? [] : [...LEFT_OUT, KEEP_SHARE_LINKS]),
    ...settings('names'),
    option('--one-file-system', 'do not enter directories on other devices'),
    option('--delete', 'delete what is gone on the other side; it goes to the recycle bin'),
    option('--checksum', 'compare contents, not sizes and times'),
    option(
      '--max-delete <n|n%>',
      'stop when more files would be deleted (default: the smaller of 50 and 20 %, at least 10)',
    ),
    option('--max-change <n|n%>', 'stop when more files would be replaced (default: the larger of 100 and 50 %)'),
    option('--accept-roots', 'the directories are meant to be other ones than last time, or empty; so is the manifest'),
    ...(direction === 'both'
      ? [
          option('--prefer <side>', 'who wins when both have changed (default: both are kept)', {
            choices: ['local', 'remote', 'newer'],
          }),
        ]
      : [...settings('on-conflict'), option('--no-manifest', manifest)]),
  ]
}

export const watchOptions = (direction: Direction): OptionSpec[] => [
  option('--watch', 'go on: run again when something changes, until a signal'),
  ...(direction === 'push'
    ? []
    : [option('--poll <time>', 'with --watch: ask for changes there that often (default 60s)')]),
  option('--rescan <time>', 'with --watch: run in any case that often (default 15m)'),
]

export const DRY_RUN: readonly OptionSpec[] = [
  option('-n, --dry-run', 'only say what would be done'),
  option('--detailed-exitcode', 'with --dry-run: exit code 11 when there is something to do'),
]

export const PLAN: readonly OptionSpec[] = [
  option('-o, --output <file>', 'write the plan into a file'),
  option('--detailed-exitcode', 'exit code 11 when there is something to do'),
]
