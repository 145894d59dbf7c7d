/** Reads the command line and runs the command that it names. @module */
import { CommanderError } from 'commander'
import { createProgram, type Run } from './commander.ts'
import { EXIT } from './exit-codes.ts'

/** @param argv - As `process.argv`. */
export async function runProgram(argv: readonly string[]): Promise<number> {
  let exitCode = 0
  const run: Run = async (...call) => {
    // Help and mistakes do without.
    const { runCommand } = await import('./run-command.ts')
    exitCode = await runCommand(...call)
  }
  try {
    await createProgram(argv.slice(2), run).parseAsync(argv as string[])
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    if (error.exitCode === 0) return 0
    if (argv.includes('--json')) {
      const { createOutput } = await import('./output.ts')
      const output = createOutput({ json: true, quiet: true, verbose: false })
      output.result('', { type: 'error', exitCode: EXIT.usage, class: 'usage', code: 'USAGE', message: error.message })
    }
    return EXIT.usage
  }
  return exitCode
}
