/** Reads the command line and runs the command that it names. @module */
import { createProgram, type Run, UsageMistake } from './commander.ts'
import { EXIT } from './exit-codes.ts'

/** @param argv - As `process.argv`. */
export async function runProgram(argv: readonly string[]): Promise<number> {
  if (argv[2] === '__complete') {
    const { answer } = await import('./completion/answer.ts')
    await answer(createProgram, argv.slice(3))
    return EXIT.done
  }
  let exitCode = 0
  const run: Run = async (...call) => {
    // Help and mistakes do without.
    const { runCommand } = await import('./run-command.ts')
    exitCode = await runCommand(...call)
  }
  try {
    await createProgram(argv.slice(2), run).parseAsync(argv as string[])
  } catch (error) {
    if (!(error instanceof UsageMistake)) throw error
    const { mistake } = error
    if (mistake.exitCode === 0) return 0
    // Nothing was asked for, so that the help is all there is to say; it has been printed.
    if (mistake.code === 'commander.help') return EXIT.usage
    const [{ createOutput }, { SyncError }, { explain }] = await Promise.all([
      import('./output.ts'),
      import('../errors.ts'),
      import('./usage.ts'),
    ])
    const { message, hints } = explain(error, argv.slice(2))
    const output = createOutput({ json: argv.includes('--json'), quiet: false, verbose: false })
    output.error(new SyncError('usage', 'USAGE', message, { hint: hints.join(' ') }), EXIT.usage)
    return EXIT.usage
  }
  return exitCode
}
