/** The commands and their options. @module */
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { systemClock } from '../environment.ts'
import { cancelled, SyncError, toSyncError } from '../errors.ts'
import { tidyOwnDirectory } from '../local/tidy.ts'
import { VERSION } from '../version.ts'
import { type Context, createContext, outputOf, requireSettings } from './context.ts'
import { EXIT, exitCodeOf, signalExit } from './exit-codes.ts'
import { LOGIN_OPTIONS, METHODS } from './methods.ts'
import { createOutput } from './output.ts'
import { homeDirectory } from './profile.ts'
import { SETTINGS, variableOf } from './settings.ts'

const EXIT_TABLE = `
Exit codes: 0 done · 1 bug · 2 usage or configuration · 3 some entries failed · 4 login needed · 5 network or server,
try later · 6 refused or quota · 7 integrity · 8 another run holds the lock · 9 safety stop · 10 local disk ·
11 differences found ·
12 conflicts left for a person · 13 key problem · 129/130/143 signals`

type Action = (context: Context, ...args: never[]) => Promise<number | undefined> | Promise<void>

/** The first signal aborts and lets everything end cleanly; the second ends at once. */
function watchSignals(): AbortSignal {
  const stop = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(name, () => {
      const error = new SyncError('cancelled', name, `Stopped by ${name}`)
      if (stop.signal.aborted) process.exit(signalExit(error))
      stop.abort(error)
      // Cancelling at the server is best effort and has its own limit; nothing may hold the exit for longer.
      setTimeout(() => process.exit(signalExit(error)), 4_800).unref()
    })
  }
  return stop.signal
}

export async function runProgram(argv: readonly string[]): Promise<number> {
  const signal = watchSignals()
  let exitCode = 0
  /** Wires a command to its action; whatever it throws becomes a message and an exit code. */
  const run =
    (load: () => Promise<Action>, how: { withProblems?: boolean } = {}) =>
    async (...args: unknown[]): Promise<void> => {
      const command = args.at(-1) as Command
      const output = outputOf(command.optsWithGlobals())
      try {
        await tidyOwnDirectory(homeDirectory(), systemClock)
        const context = await createContext(command, signal)
        if (!how.withProblems) requireSettings(context)
        const action = (await load()) as (context: Context, ...rest: unknown[]) => Promise<number | undefined>
        exitCode = (await action(context, ...args.slice(0, -2))) ?? 0
      } catch (thrown) {
        const error = toSyncError(signal.aborted ? cancelled(signal) : thrown)
        exitCode = error.class === 'cancelled' ? signalExit(error) : exitCodeOf(error)
        output.error(error, exitCode)
      }
    }

  const program = createProgram(run)
  try {
    await program.parseAsync(argv as string[])
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    if (error.exitCode === 0) return 0
    if (argv.includes('--json')) {
      const output = createOutput({ json: true, quiet: true, verbose: false })
      output.result('', { type: 'error', exitCode: EXIT.usage, class: 'usage', code: 'USAGE', message: error.message })
    }
    return EXIT.usage
  }
  return exitCode
}

/** The options of settings, by their table. */
function settingOptions(target: Command, names: readonly string[], group?: string): Command {
  for (const name of names) {
    const { kind, argument, summary, choices, fallback } = SETTINGS.find((spec) => spec.name === name)!
    const isMany = kind === 'list' || kind === 'files'
    const short = name === 'jobs' ? '-j, ' : ''
    const value = kind === 'flag' ? '' : ` <${choices?.join('|') ?? argument}>`
    const notes = [
      ...(isMany ? ['may be repeated'] : []),
      ...(fallback === undefined ? [] : [`default ${fallback}`]),
      `env ${variableOf(name)}`,
    ].join(', ')
    const option = new Option(`${short}--${name}${value}`, `${summary} (${notes})`)
    // Not a variadic option: that would swallow the arguments behind it.
    if (isMany) option.argParser(collect)
    target.addOption(group === undefined ? option : option.helpGroup(group))
  }
  return target
}

type Run = (load: () => Promise<Action>, how?: { withProblems?: boolean }) => (...args: unknown[]) => Promise<void>

/** A command with the options that all have. */
function command(parent: Command, usage: string, summary: string): Command {
  return parent
    .command(usage)
    .description(summary)
    .option('--json', 'print results as JSON, one object per line')
    .option('-q, --quiet', 'only results, warnings and errors')
    .option('-v, --verbose', 'say more')
    .addOption(new Option('--profile <name>', 'which login to use (env SEALSYNC_PROFILE)'))
}

const allSettings = (target: Command): Command =>
  settingOptions(
    target,
    SETTINGS.map(({ name }) => name).filter((name) => name !== 'profile'),
  )

const CONNECTION = SETTINGS.filter(({ connection }) => connection).map(({ name }) => name)

/** Where an embedded server keeps content. */
function storageOptions(parent: Command): void {
  parent
    .addOption(new Option('--storage <kind>', 'how content travels').choices(['classic', 's3']).default('classic'))
    .option('--s3-endpoint <url>', 'with --storage s3: keep content in this object store instead of --data')
    .option('--s3-bucket <name>', 'its bucket')
    .option('--s3-region <name>', 'its region (default us-east-1)')
    .option('--s3-access-key-file <file>', 'file with the access key (or SEALSYNC_S3_ACCESS_KEY)')
    .option('--s3-secret-key-file <file>', 'file with the secret key (or SEALSYNC_S3_SECRET_KEY)')
    .option('--s3-path-style', 'the bucket goes into the path, not into the host name')
}

/** A command that talks to a server. */
const remote = (parent: Command, usage: string, summary: string): Command =>
  settingOptions(command(parent, usage, summary), [...CONNECTION, 'session-key-command'], 'Connection options:')

const keyPasswordOptions = (target: Command) => settingOptions(target, ['key-password-file', 'key-password-command'])

const collect = (value: string, previous: string[] | undefined): string[] => [...(previous ?? []), value]

function createProgram(run: Run): Command {
  const program = new Command('sync')
    .description('End-to-end encrypted file transfer with DRACOON-compatible servers')
    .version(VERSION, '-V, --version')
    .addHelpText('after', EXIT_TABLE)
    .showHelpAfterError('(see --help)')
    .exitOverride()
    .enablePositionalOptions()

  const login = remote(program, 'login <url>', 'log in to a server and remember it').addOption(
    new Option('--method <method>', 'how (default: by the other options, else browser)').choices(METHODS),
  )
  for (const { name, argument, summary, choices } of LOGIN_OPTIONS) {
    const option = new Option(`--${name}${argument === undefined ? '' : ` <${argument}>`}`, summary)
    if (argument !== undefined && name !== 'code') option.env(variableOf(name))
    login.addOption(choices === undefined ? option : option.choices(choices))
  }
  settingOptions(login, ['session-store'])
  login.action(run(async () => (await import('./commands/account.ts')).login))
  remote(program, 'logout', 'revoke the login and forget it').action(
    run(async () => (await import('./commands/account.ts')).logout),
  )
  remote(program, 'whoami', 'show who is logged in where').action(
    run(async () => (await import('./commands/account.ts')).whoami),
  )

  const session = program.command('session').description('the login: look at it, renew it, move it')
  remote(session, 'show', 'show how the login stands, without its tokens')
    .option('--online', 'ask the server')
    .action(run(async () => (await import('./commands/session.ts')).show))
  remote(session, 'renew', 'renew the login now').action(run(async () => (await import('./commands/session.ts')).renew))
  remote(session, 'export <file>', 'move the login into a file (- for standard output)')
    .option('--keep', 'leave it here too; only for logins whose tokens do not rotate')
    .action(run(async () => (await import('./commands/session.ts')).exportSession))
  settingOptions(remote(session, 'import <file>', 'take over a login from a file (- for standard input)'), [
    'session-store',
  ]).action(run(async () => (await import('./commands/session.ts')).importSession))

  const profile = program.command('profile').description('logins that are remembered, by name')
  command(profile, 'list', 'list them').action(run(async () => (await import('./commands/profile.ts')).list))
  command(profile, 'show [name]', 'show one').action(run(async () => (await import('./commands/profile.ts')).show))
  command(profile, 'rename <from> <to>', 'give it another name').action(
    run(async () => (await import('./commands/profile.ts')).rename),
  )
  command(profile, 'remove <name>', 'forget it here, without telling the server').action(
    run(async () => (await import('./commands/profile.ts')).remove),
  )

  const config = program.command('config').description('settings and where they come from')
  allSettings(command(config, 'show', 'show the settings in force'))
    .option('--origin', 'also where each value comes from')
    .action(run(async () => (await import('./commands/config.ts')).show, { withProblems: true }))
  allSettings(command(config, 'check', 'check all settings files; silent when they are right')).action(
    run(async () => (await import('./commands/config.ts')).check, { withProblems: true }),
  )
  command(config, 'path', 'show which files are looked at').action(
    run(async () => (await import('./commands/config.ts')).path, { withProblems: true }),
  )

  remote(program, 'doctor [url]', 'check settings, connection, server and login, and say what is wrong')
    .option('--pin', 'show the pins of the server’s keys; with --backup-pin also keep them in the profile')
    .option('--backup-pin <pin>', 'pin of the key that the server will change to')
    .action(run(async () => (await import('./commands/doctor.ts')).doctor, { withProblems: true }))

  keyPasswordOptions(
    remote(program, 'bench [url]', 'measure this machine, a server’s answers and, with --room, both ways'),
  )
    .option('--room <path>', 'send a file into this room and fetch it again; it goes to the recycle bin then')
    .option('--size <MB>', 'of that file (default 64)')
    .action(run(async () => (await import('./commands/bench.ts')).bench))

  const keys = program.command('keys').description('key pair and file keys')
  keyPasswordOptions(remote(keys, 'create', 'make an RSA-4096 key pair, locked with an encryption password')).action(
    run(async () => (await import('./commands/keys.ts')).create),
  )
  remote(keys, 'status', 'show the key pair and what is left to hand out').action(
    run(async () => (await import('./commands/keys.ts')).status),
  )
  settingOptions(keyPasswordOptions(remote(keys, 'distribute', 'hand out file keys to members who lack them')), [
    'trust-new-members',
  ])
    .option('--room <path>', 'only in this room')
    .action(run(async () => (await import('./commands/keys.ts')).distribute))

  keyPasswordOptions(remote(keys, 'remember', 'keep the encryption password in the keyring of the system')).action(
    run(async () => (await import('./commands/keys.ts')).remember),
  )
  const cache = keys.command('cache').description('file keys that are kept on this disk, sealed')
  command(cache, 'clear', 'remove them; they are unwrapped again when needed').action(
    run(async () => (await import('./commands/keys.ts')).clearCache),
  )
  remote(keys, 'list', 'show your keys and those of members: fingerprint, and whether it is trusted').action(
    run(async () => (await import('./commands/trust.ts')).list),
  )
  remote(keys, 'verify <user> <fingerprint...>', 'compare a member’s key with what they say it is').action(
    run(async () => (await import('./commands/trust.ts')).verify),
  )
  remote(keys, 'trust [user]', 'trust the key that the server shows for a member now (name or id)')
    .option('--fingerprint <hex>', 'only if it is this one')
    .option('--all', 'the keys of all members that are not in doubt')
    .action(run(async () => (await import('./commands/trust.ts')).trust))
  remote(keys, 'forget [user]', 'remove the encryption password from the keyring; with a user, forget their keys')
    .option('--room <path>', 'forget that this room was encrypted')
    .action(run(async () => (await import('./commands/trust.ts')).forget))

  const room = program.command('room').description('rooms and their members')
  remote(room, 'create <path>', 'make an encrypted room: /NAME')
    .option('--plain', 'without encryption')
    .action(run(async () => (await import('./commands/remote.ts')).roomCreate))
  remote(room, 'members <path>', 'list, add or remove members')
    .option('--add <user>', 'add a user')
    .addOption(
      new Option('--role <role>', 'what the added user may do').choices(['read', 'edit', 'admin']).default('edit'),
    )
    .option('--remove <user>', 'remove a user')
    .action(run(async () => (await import('./commands/remote.ts')).roomMembers))

  remote(program, 'ls [path]', 'list a room or folder')
    .option('-l, --long', 'with kind, encryption, size and time')
    .action(run(async () => (await import('./commands/remote.ts')).ls))
  remote(program, 'mkdir <path>', 'make a folder')
    .option('-p, --parents', 'also the folders above; no error if it exists')
    .action(run(async () => (await import('./commands/remote.ts')).mkdir))
  remote(program, 'rm <path...>', 'delete files (they go to the recycle bin)')
    .option('-r, --recursive', 'also rooms and folders with all they hold')
    .option('--force', 'also rooms')
    .action(run(async () => (await import('./commands/remote.ts')).rm))
  remote(program, 'stat <path>', 'show everything about a room, folder or file').action(
    run(async () => (await import('./commands/remote.ts')).stat),
  )
  settingOptions(keyPasswordOptions(remote(program, 'cat <path>', 'print a file after checking all of it')), [
    'key-cache',
  ]).action(run(async () => (await import('./commands/remote.ts')).cat))

  const transfers = [
    [
      'upload',
      'LOCAL... REMOTE',
      'upload files and directories',
      ['part-size', 'require-encryption', 'allow-plain', 'on-conflict'],
    ],
    ['download', 'REMOTE... LOCAL', 'download files and folders', ['require-encryption', 'on-conflict']],
  ] as const
  for (const [name, usage, summary, settings] of transfers) {
    const target = transferOptions(remote(program, name, `${summary}; never deletes`), usage, settings)
    if (name === 'upload') settingOptions(target, ['trust-new-members'])
    dryRunOptions(reportOptions(target)).action(
      transferAction(run, async () => (await import('./commands/transfer.ts'))[name]),
    )
  }

  const plans = async () => import('./commands/plan.ts')
  const directions = [
    ['push', '<local> <remote>', 'make a remote folder like a local directory'],
    ['pull', '<remote> <local>', 'make a local directory like a remote folder'],
    ['both', '<local> <remote>', 'bring changes of both sides to the other one'],
  ] as const
  for (const [name, usage, summary] of directions) {
    const target = runOptions(remote(program, `${name} ${usage}`, `${summary}; deletes only with --delete`))
    dryRunOptions(watchOptions(syncOptions(reportOptions(target), name), name)).action(
      run(async () => (await import('./commands/watch.ts'))[name], { withProblems: true }),
    )
  }
  const plan = program.command('plan').description('say what a run would do, and keep it to be applied later')
  for (const [name, usage, summary] of directions) {
    planOptions(syncOptions(runOptions(remote(plan, `${name} ${usage}`, summary)), name)).action(
      run(async () => (await plans()).plan(name), { withProblems: true }),
    )
  }
  for (const [name, usage, summary, settings] of transfers) {
    planOptions(transferOptions(remote(plan, name, summary), usage, settings)).action(
      transferAction(run, async () => (await plans()).planTransfer(name)),
    )
  }
  reportOptions(
    runOptions(remote(program, 'apply <plan>', 'carry out a plan; stops if anything has changed since it was made')),
  ).action(run(async () => (await plans()).apply, { withProblems: true }))

  const look = async () => import('./commands/compare.ts')
  const looking = (name: string, summary: string) =>
    selectionOptions(
      settingOptions(keyPasswordOptions(remote(program, `${name} <local> <remote>`, summary)), [
        'jobs',
        'names',
        'key-cache',
      ]),
    )
  looking('diff', 'say what differs, by sizes and times; exit code 11 if anything does')
    .option('--checksum', 'compare contents')
    .action(run(async () => (await look()).diff))
  looking('check', 'say what differs, by contents, without a transfer; exit code 11 if anything does').action(
    run(async () => (await look()).check),
  )
  settingOptions(keyPasswordOptions(remote(program, 'verify <path>', 'download and check files, and keep nothing')), [
    'jobs',
    'limit-rate',
    'key-cache',
  ])
    .option('--sample <share>', 'only some, chosen at random, such as 5%')
    .option('--all', 'all of them (default)')
    .action(run(async () => (await look()).verify))

  const past = async () => import('./commands/runs.ts')
  command(program, 'runs [local] [remote]', 'list runs of push, pull and both')
    .option('--limit <n>', 'how many (default 20)')
    .action(run(async () => (await past()).runs))
  command(program, 'status [local] [remote]', 'say how each synchronized pair stands')
    .option('--max-age <time>', 'exit code 3 when the last success is longer ago, such as 26h')
    .action(run(async () => (await past()).status))
  reportOptions(
    runOptions(
      remote(program, 'resume [local] [remote]', 'go on with runs that were interrupted or did not get through'),
    ),
  ).action(run(async () => (await past()).resume, { withProblems: true }))
  reportOptions(
    runOptions(remote(program, 'retry [local] [remote]', 'try again what failed in the last run, and nothing else')),
  ).action(run(async () => (await past()).retry, { withProblems: true }))
  remote(program, 'undo <run>', 'take back what a run did; what has changed since is left alone')
    .option('-n, --dry-run', 'only say what would be taken back')
    .action(run(async () => (await past()).undo))

  const rules = program.command('rules').description('.syncignore files that came from a server and do not count yet')
  command(rules, 'list [directory]', 'show those at or below it; exit code 3 if there are any').action(
    run(async () => (await import('./commands/rules.ts')).list, { withProblems: true }),
  )
  command(rules, 'accept <path>', 'let those at or below it count as they are now').action(
    run(async () => (await import('./commands/rules.ts')).accept, { withProblems: true }),
  )

  backupCommands(program, run)

  const serve = command(program, 'serve', 'run the embedded server')
    .option('--data <dir>', 'directory of everything it stores')
    .option('--port <n>', 'port (default: a free one)')
    .option('--host <host>', 'address to listen on (default 127.0.0.1); beyond loopback only with TLS')
    .option('--allow-host <name...>', 'further names that clients may use for it')
    .option('--tls-cert <file>', 'PEM certificate')
    .option('--tls-key <file>', 'PEM private key')
    .option('--faults <file>', 'JSON plan of faults to inject, for tests')
    .action(run(async () => (await import('./commands/serve.ts')).serve))
  storageOptions(serve)
  const check = command(serve, 'check', 'look whether metadata and content of a stopped server are whole')
    .option('--data <dir>', 'directory of the server')
    .option('--content', 'also read all content and compare checksums')
    .option('--adopt', 'take metadata and content for belonging together, after a restore; deletes nothing')
    .action(run(async () => (await import('./commands/serve.ts')).serveCheck))
  storageOptions(check)
  const user = serve.command('user').description('accounts of the embedded server')
  command(user, 'add <name>', 'make an account; also while the server runs')
    .option('--data <dir>', 'directory of the server')
    .option('--password-file <file>', 'file that holds the password')
    .option(
      '--one-time-codes <file>',
      'also ask for one-time codes; the address for an authenticator app goes into this file',
    )
    .action(run(async () => (await import('./commands/serve.ts')).userAdd))

  return program
}

/** What runs of all directions take. */
const runOptions = (target: Command) =>
  settingOptions(keyPasswordOptions(target), [
    'jobs',
    'memory',
    'part-size',
    'limit-rate',
    'key-cache',
    'require-encryption',
    'allow-plain',
  ])
    .option('--wait <time>', 'wait for another run of the same pair to end')
    .option('--max-transfer <size>', 'begin no more transfers after so many bytes')
    .option('--max-duration <time>', 'begin no more transfers after this time')

/** What takes part in a run. */
function selectionOptions(target: Command): Command {
  const patterns: string[] = []
  const add = (pattern: string) => {
    patterns.push(pattern)
    target.setOptionValue('patterns', patterns)
  }
  target
    .addOption(new Option('--exclude <pattern>', 'leave out, as in .gitignore (may be repeated)').argParser(collect))
    .addOption(new Option('--include <pattern>', 'take in after all; the last that matches decides').argParser(collect))
    .option('--filter-from <file>', 'file of patterns, as a .gitignore')
    .option('--files-from <file>', 'only the paths in this file, one a line (- for standard input)')
    .option('--files-from0 <file>', 'the same, with NUL bytes between the paths, as from find -print0')
    .option('--max-size <size>', 'leave larger files out')
    .option('--min-age <time>', 'leave files out that were modified within this time')
  target.on('option:exclude', (pattern: string) => add(pattern))
  target.on('option:include', (pattern: string) => add(`!${pattern}`))
  return target
}

function syncOptions(target: Command, direction: 'push' | 'pull' | 'both'): Command {
  settingOptions(selectionOptions(target), ['names'])
    .option('--one-file-system', 'do not enter directories on other devices')
    .option('--delete', 'delete what is gone on the other side; it goes to the recycle bin')
    .option('--checksum', 'compare contents, not sizes and times')
    .option(
      '--max-delete <n|n%>',
      'stop when more files would be deleted (default: the smaller of 50 and 20 %, at least 10)',
    )
    .option('--max-change <n|n%>', 'stop when more files would be replaced (default: the larger of 100 and 50 %)')
    .option('--accept-roots', 'the directories are meant to be other ones than last time, or empty; so is the manifest')
  if (direction === 'both') {
    return target.addOption(
      new Option('--prefer <side>', 'who wins when both have changed (default: both are kept)').choices([
        'local',
        'remote',
        'newer',
      ]),
    )
  }
  const what =
    direction === 'push' ? 'store no manifest' : 'take no permissions, links and exact times from the manifest'
  return settingOptions(target, ['on-conflict']).option('--no-manifest', what)
}

/** Backup sets: `backup run|list|show|restore|prune`, and `drill`. */
function backupCommands(program: Command, run: Run): void {
  const load = () => import('./commands/backup.ts')
  const backup = program.command('backup').description('backup sets: points in time of directories')
  const config = new Option('--config <file>', 'configuration of the set (default: backups/NAME.toml)')
  const set = (parent: Command, usage: string, summary: string) =>
    settingOptions(keyPasswordOptions(remote(parent, usage, summary).addOption(config)), ['key-cache', 'limit-rate'])
  const reading = (parent: Command, usage: string, summary: string) =>
    set(parent, usage, summary).option('--target <path>', 'remote place of the set, instead of a configuration')
  const maxDelete = (target: Command, what: string) =>
    target
      .option(
        '--max-delete <n>',
        `stop when more ${what}: a number or 20% (default: the smaller of 50 and 20%, at least 10)`,
      )
      .option('-n, --dry-run', 'only say what would be done')
      .option('--wait <time>', 'wait for another run of the set to end')
  const runs = settingOptions(
    maxDelete(set(backup, 'run <name>', 'make a point in time'), 'files are gone from the sources')
      .option('--accept-sources', 'sources are meant to be empty, or on another device')
      .option('--accept-runs', 'take the runs that the server has for the right ones, from now on'),
    ['jobs', 'memory', 'part-size', 'names'],
  )
  reportOptions(runs).action(run(async () => (await load()).run, { withProblems: true }))
  reading(backup, 'list <name>', 'list the runs').action(run(async () => (await load()).list))
  reading(backup, 'show <name> <run> [path]', 'list what is in a run, or in the latest').action(
    run(async () => (await load()).show),
  )
  settingOptions(
    reading(backup, 'restore <name> <run-and-directory...>', 'restore a run, or the latest, into a new directory')
      .usage('[options] NAME [RUN] DIRECTORY')
      .option('--path <path>', 'only this, with all it holds (may be repeated)', collect)
      .option('--trust-times', 'take files of the same size and time for the same, without reading them'),
    ['jobs', 'on-conflict'],
  ).action(run(async () => (await load()).restore))
  maxDelete(set(backup, 'prune <name>', 'remove the runs that the set does not keep'), 'runs would go')
    .option('--accept-future', 'go on where runs began later than now; those stay, and take the place of no other')
    .action(run(async () => (await load()).prune))
  settingOptions(
    reading(program, 'drill <name>', 'restore some files of a backup, compare them, and write a report')
      .option('--sample <n>', 'how many files: a number or a share such as 5% (default 5%, at least 10)')
      .option('--report <file>', 'where the report goes (default: drills/ in the directory of this program)'),
    ['jobs'],
  ).action(run(async () => (await load()).drill))
}

/** How a run is watched over. */
const reportOptions = (target: Command) =>
  settingOptions(target, ['events', 'metrics-file', 'ping-url'], 'Reporting options:')

const watchOptions = (target: Command, direction: 'push' | 'pull' | 'both') => {
  target.option('--watch', 'go on: run again when something changes, until a signal')
  if (direction !== 'push')
    target.option('--poll <time>', 'with --watch: ask for changes there that often (default 60s)')
  return target.option('--rescan <time>', 'with --watch: run in any case that often (default 15m)')
}

const dryRunOptions = (target: Command) =>
  target
    .option('-n, --dry-run', 'only say what would be done')
    .option('--detailed-exitcode', 'with --dry-run: exit code 11 when there is something to do')

const planOptions = (target: Command) =>
  target
    .option('-o, --output <file>', 'write the plan into a file')
    .option('--detailed-exitcode', 'exit code 11 when there is something to do')

const transferOptions = (target: Command, usage: string, names: readonly string[]) =>
  settingOptions(
    keyPasswordOptions(target)
      .option('--contents', 'put what is in a directory into the target, not the directory itself')
      .option('--checksum', 'compare contents, not size and time'),
    ['jobs', 'memory', 'limit-rate', 'key-cache', 'names', ...names],
  )
    .argument('<paths...>', usage, collect)
    .usage(`[options] ${usage}`)

/** Both transfers take a list whose last element is the target. */
const transferAction =
  (run: Run, load: () => Promise<Action>) =>
  async (...args: unknown[]) => {
    const paths = args[0] as string[]
    const target = args.at(-1) as Command
    if (paths.length < 2) {
      const error = new InvalidArgumentError('a source and a target are needed')
      target.error(`error: ${error.message}`, { exitCode: EXIT.usage })
    }
    // Wrong settings end in a summary, like everything else that can happen to a transfer.
    return run(load, { withProblems: true })(...args)
  }
