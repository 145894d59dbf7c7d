/** What the help and the manual say besides what the tables of commands and options do: rows of a name and a text. @module */
import { SETTINGS, variableOf } from './options/settings.ts'

export type Row = readonly [term: string, text: string]

export interface HelpTopic {
  readonly name: string
  readonly about: string
  /** Absent: options for the connection. */
  readonly rows?: () => readonly Row[]
}

export const EXIT_ROWS: readonly Row[] = Object.freeze([
  ['0', 'done'],
  ['1', 'bug'],
  ['2', 'usage or configuration'],
  ['3', 'some entries failed'],
  ['4', 'login needed'],
  ['5', 'network or server, try later'],
  ['6', 'refused or quota'],
  ['7', 'integrity'],
  ['8', 'another run holds the lock'],
  ['9', 'safety stop'],
  ['10', 'local disk'],
  ['11', 'differences found'],
  ['12', 'conflicts left for a person'],
  ['13', 'key problem'],
  ['129/130/143', 'signals'],
] as const)

const environmentRows = (): Row[] => [
  ['SEALSYNC_HOME', 'directory of everything that is kept for this user'],
  ['SEALSYNC_PASSWORD', 'account password, for a login with --user'],
  ['SEALSYNC_KEY_PASSWORD', 'encryption password'],
  ['SEALSYNC_SHARE_PASSWORD', 'password of a link'],
  ['SEALSYNC_CONFIG', 'settings file, as --config'],
  ['SEALSYNC_SYSTEM_CONFIG', 'settings file of the machine, in place of /etc/sealsync/config.toml'],
  ['SEALSYNC_BROWSER', 'program that opens login pages'],
  ...SETTINGS.map(({ name }): Row => [variableOf(name), `as --${name}`]),
  ['NODE_EXTRA_CA_CERTS, SSL_CERT_DIR', 'certificate authorities besides those of --ca-file and --ca-dir'],
  ['NO_COLOR', 'no colors in questions'],
  ['CI', 'no bars, only a line every few seconds; TERM=dumb does the same'],
]

const FILE_ROWS: readonly Row[] = [
  [
    '~/.config/sealsync/',
    'what is kept for this user, or the directory that SEALSYNC_HOME names; only they can read it',
  ],
  ['  profile-NAME.json', 'a login: server, account, and where its tokens are'],
  ['  config.toml', 'settings of this user'],
  ['  backups/NAME.toml', 'a backup set'],
  ['  sync/', 'what is remembered of pairs, transfers and sets'],
  ['  pins/', 'whose keys are trusted'],
  ['  server-keys.json', 'keys of servers that were seen first'],
  ['  rules/', 'filter rules that wait to be accepted'],
  ['  file-keys/', 'file keys, sealed (keys cache clear removes them)'],
  ['  listings/', 'names for completion, for some minutes'],
  ['sealsync.toml', 'settings of the project in the working directory'],
  ['/etc/sealsync/config.toml', 'settings of this machine'],
  ['.syncignore', 'what is left out at and below its directory, as in a .gitignore'],
  ['.sealsync-bin', 'at the top of a pulled directory: what runs deleted or replaced'],
]

/** What `help` knows besides commands. */
export const HELP_TOPICS: readonly HelpTopic[] = Object.freeze([
  { name: 'connection', about: 'options for how servers are reached' },
  { name: 'exit-codes', about: 'what the exit codes mean', rows: () => EXIT_ROWS },
  { name: 'environment', about: 'variables that are looked at', rows: environmentRows },
  { name: 'files', about: 'what is kept on this machine, and where', rows: () => FILE_ROWS },
])
