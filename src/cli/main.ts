#!/usr/bin/env node
/**
 * Entry of the command line (`sync` and `sealsync`): signals, exit codes, and which file runs which command. Commands are
 * loaded when called, so that `--version` and `--help` are quick.
 * @module
 */
import { setFlagsFromString } from 'node:v8'
import { VERSION } from '../version.ts'
import { handOver, isForCoreutils } from './coreutils.ts'

async function main(): Promise<number> {
  if (isForCoreutils(process.argv)) {
    const { childEnvironment } = await import('./child-environment.ts')
    const code = handOver(process.argv, childEnvironment())
    if (code !== undefined) return code
  }
  const only = process.argv.length === 3 ? process.argv[2] : undefined
  const { endOutput, guardOutput } = await import('./output.ts')
  guardOutput()
  if (only === '--version' || only === '-V') {
    process.stdout.write(`${VERSION}\n`)
    return endOutput(0)
  }
  // The HTTP parser is WebAssembly. To compile it a second time, for speed, takes 30 MB (Node 20) and saves nothing measurable.
  setFlagsFromString('--liftoff-only')
  const { runProgram } = await import('./program.ts')
  return endOutput(await runProgram(process.argv))
}

process.exitCode = await main()
