#!/usr/bin/env node
/**
 * Entry of the command line (`sync` and `sealsync`): the shortest way to what was asked for. Everything else is loaded when it is
 * needed, so that `--version` and `--help` are quick.
 * @module
 */
import { basename } from 'node:path'
import { VERSION } from '../version.ts'
import { endOutput, guardOutput } from './streams.ts'

const COREUTILS = ['--data', '--file-system']

/**
 * True for a call that means coreutils' program: without arguments, with its options, or with a path, which no command of ours
 * looks like.
 */
function isForCoreutils(argv: readonly string[]): boolean {
  const name = basename(argv[1] ?? '').replace(/\.(js|cmd|exe)$/i, '')
  if (name !== 'sync') return false
  const [first] = argv.slice(2)
  if (first === undefined || /^-[df]+$|^--$/.test(first)) return true
  if (first.startsWith('--')) return COREUTILS.some((option) => option.startsWith(first))
  return process.platform !== 'win32' && first.includes('/')
}

async function main(): Promise<number> {
  if (isForCoreutils(process.argv)) {
    const { handOver } = await import('./coreutils.ts')
    return handOver(process.argv)
  }
  guardOutput()
  const only = process.argv.length === 3 ? process.argv[2] : undefined
  if (only === '--version' || only === '-V') {
    process.stdout.write(`${VERSION}\n`)
    return endOutput(0)
  }
  const { runProgram } = await import('./program.ts')
  return endOutput(await runProgram(process.argv))
}

/** Resolves when the command has ended, and its exit code is set. */
export const done = main().then((code) => {
  process.exitCode = code
})
