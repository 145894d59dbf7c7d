/** The commands and their options. @module */
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { cancelled, SyncError, toSyncError } from '../errors.ts'
import { VERSION } from '../version.ts'
import { type Context, createContext } from './context.ts'
import { EXIT, exitCodeOf, signalExit } from './exit-codes.ts'
import { createOutput } from './output.ts'

const EXIT_TABLE = `
Exit codes: 0 done · 1 bug · 2 usage or configuration · 3 some entries failed · 4 login needed · 5 network or server,
try later · 6 refused or quota · 7 integrity · 8 another run holds the lock · 9 safety stop · 10 local disk ·
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
    (load: () => Promise<Action>) =>
    async (...args: unknown[]): Promise<void> => {
      const command = args.at(-1) as Command
      const context = createContext(command, signal)
      try {
        const action = (await load()) as (context: Context, ...rest: unknown[]) => Promise<number | undefined>
        exitCode = (await action(context, ...args.slice(0, -2))) ?? 0
      } catch (thrown) {
        const error = toSyncError(signal.aborted ? cancelled(signal) : thrown)
        exitCode = error.class === 'cancelled' ? signalExit(error) : exitCodeOf(error)
        context.output.error(error, exitCode)
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

type Run = (load: () => Promise<Action>) => (...args: unknown[]) => Promise<void>

/** A command with the options that all have. */
function command(parent: Command, usage: string, summary: string): Command {
  return parent
    .command(usage)
    .description(summary)
    .option('--json', 'print results as JSON, one object per line')
    .option('-q, --quiet', 'only results, warnings and errors')
    .option('-v, --verbose', 'say more')
    .addOption(new Option('--profile <name>', 'which login to use').env('SEALSYNC_PROFILE').default('default'))
}

const keyPasswordOptions = (target: Command) =>
  target
    .addOption(
      new Option('--key-password-file <file>', 'file that holds the encryption password').env(
        'SEALSYNC_KEY_PASSWORD_FILE',
      ),
    )
    .addOption(
      new Option('--key-password-command <command>', 'program that prints the encryption password').env(
        'SEALSYNC_KEY_PASSWORD_COMMAND',
      ),
    )

const caOption = () =>
  new Option('--ca-file <file>', 'PEM file of an additional certificate authority').env('SEALSYNC_CA_FILE')

const atLeastTwo = (value: string, previous: string[] | undefined): string[] => [...(previous ?? []), value]

function createProgram(run: Run): Command {
  const program = new Command('sync')
    .description('End-to-end encrypted file transfer with DRACOON-compatible servers')
    .version(VERSION, '-V, --version')
    .addHelpText('after', EXIT_TABLE)
    .showHelpAfterError('(see --help)')
    .exitOverride()
    .enablePositionalOptions()

  const login = command(program, 'login <url>', 'log in to a server and remember it')
    .option('--user <name>', 'log in with user name and password instead of the browser')
    .option('--password-file <file>', 'file that holds the account password')
    .option('--password-command <command>', 'program that prints the account password')
    .option('--no-browser', 'print the address of the login page instead of opening it')
    .addOption(new Option('--client-id <id>', 'OAuth client').env('SEALSYNC_CLIENT_ID'))
    .addOption(
      new Option('--client-secret-file <file>', 'file that holds its secret').env('SEALSYNC_CLIENT_SECRET_FILE'),
    )
    .addOption(new Option('--redirect-uri <uri>', 'its registered redirect URI').env('SEALSYNC_REDIRECT_URI'))
    .addOption(caOption())
  login.action(run(async () => (await import('./commands/account.ts')).login))
  command(program, 'logout', 'revoke the login and forget it').action(
    run(async () => (await import('./commands/account.ts')).logout),
  )
  command(program, 'whoami', 'show who is logged in where').action(
    run(async () => (await import('./commands/account.ts')).whoami),
  )

  const keys = program.command('keys').description('key pair and file keys')
  keyPasswordOptions(command(keys, 'create', 'make an RSA-4096 key pair, locked with an encryption password')).action(
    run(async () => (await import('./commands/keys.ts')).create),
  )
  command(keys, 'status', 'show the key pair and what is left to hand out').action(
    run(async () => (await import('./commands/keys.ts')).status),
  )
  keyPasswordOptions(command(keys, 'distribute', 'hand out file keys to members who lack them'))
    .option('--room <path>', 'only in this room')
    .action(run(async () => (await import('./commands/keys.ts')).distribute))

  keyPasswordOptions(command(keys, 'remember', 'keep the encryption password in the keyring of the system')).action(
    run(async () => (await import('./commands/keys.ts')).remember),
  )
  command(keys, 'forget', 'remove it from there').action(run(async () => (await import('./commands/keys.ts')).forget))

  const room = program.command('room').description('rooms and their members')
  command(room, 'create <path>', 'make an encrypted room: /NAME')
    .option('--plain', 'without encryption')
    .action(run(async () => (await import('./commands/remote.ts')).roomCreate))
  command(room, 'members <path>', 'list, add or remove members')
    .option('--add <user>', 'add a user')
    .addOption(
      new Option('--role <role>', 'what the added user may do').choices(['read', 'edit', 'admin']).default('edit'),
    )
    .option('--remove <user>', 'remove a user')
    .action(run(async () => (await import('./commands/remote.ts')).roomMembers))

  command(program, 'ls [path]', 'list a room or folder')
    .option('-l, --long', 'with kind, encryption, size and time')
    .action(run(async () => (await import('./commands/remote.ts')).ls))
  command(program, 'mkdir <path>', 'make a folder')
    .option('-p, --parents', 'also the folders above; no error if it exists')
    .action(run(async () => (await import('./commands/remote.ts')).mkdir))
  command(program, 'rm <path...>', 'delete files (they go to the recycle bin)')
    .option('-r, --recursive', 'also rooms and folders with all they hold')
    .option('--force', 'also rooms')
    .action(run(async () => (await import('./commands/remote.ts')).rm))
  command(program, 'stat <path>', 'show everything about a room, folder or file').action(
    run(async () => (await import('./commands/remote.ts')).stat),
  )
  keyPasswordOptions(command(program, 'cat <path>', 'print a file after checking all of it')).action(
    run(async () => (await import('./commands/remote.ts')).cat),
  )

  transferOptions(command(program, 'upload', 'upload files and directories; never deletes'))
    .argument('<paths...>', 'LOCAL... REMOTE', atLeastTwo)
    .usage('[options] LOCAL... REMOTE')
    .addOption(new Option('--part-size <size>', 'bytes per part, at least 5M (default 8M)').env('SEALSYNC_PART_SIZE'))
    .addOption(new Option('--require-encryption', 'refuse rooms without encryption').env('SEALSYNC_REQUIRE_ENCRYPTION'))
    .action(transferAction(run, async () => (await import('./commands/transfer.ts')).upload))
  transferOptions(command(program, 'download', 'download files and folders; never deletes'))
    .argument('<paths...>', 'REMOTE... LOCAL', atLeastTwo)
    .usage('[options] REMOTE... LOCAL')
    .addOption(
      new Option('--on-conflict <action>', 'what to do with a local file that differs')
        .choices(['keep', 'overwrite'])
        .env('SEALSYNC_ON_CONFLICT'),
    )
    .action(transferAction(run, async () => (await import('./commands/transfer.ts')).download))

  const serve = command(program, 'serve', 'run the embedded server')
    .option('--data <dir>', 'directory of everything it stores')
    .option('--port <n>', 'port (default: a free one)')
    .option('--host <host>', 'address to listen on (default 127.0.0.1); beyond loopback only with TLS')
    .option('--allow-host <name...>', 'further names that clients may use for it')
    .addOption(new Option('--storage <kind>', 'how content travels').choices(['classic', 's3']).default('classic'))
    .option('--tls-cert <file>', 'PEM certificate')
    .option('--tls-key <file>', 'PEM private key')
    .option('--faults <file>', 'JSON plan of faults to inject, for tests')
    .action(run(async () => (await import('./commands/serve.ts')).serve))
  const user = serve.command('user').description('accounts of the embedded server')
  command(user, 'add <name>', 'make an account; also while the server runs')
    .option('--data <dir>', 'directory of the server')
    .option('--password-file <file>', 'file that holds the password')
    .action(run(async () => (await import('./commands/serve.ts')).userAdd))

  return program
}

const transferOptions = (target: Command) =>
  keyPasswordOptions(target)
    .option('--contents', 'put what is in a directory into the target, not the directory itself')
    .option('--checksum', 'compare contents, not size and time')
    .addOption(new Option('-j, --jobs <n>', 'files in flight (default 16)').env('SEALSYNC_JOBS'))

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
    return run(load)(...args)
  }
