/**
 * Where the command line gets secrets from: a file or a command that a flag names, the keyring, the environment, a prompt.
 * Never an argument: those are visible to every user of the machine.
 * @module
 */
import { spawn } from 'node:child_process'
import { open } from 'node:fs/promises'
import { localError, SyncError } from '../errors.ts'
import { childEnvironment } from './child-environment.ts'
import { display } from './display.ts'
import { withFreeTerminal } from './streams.ts'

export interface SecretSources {
  readonly file?: string | undefined
  /** The file is no text: nothing is cut off. */
  readonly binary?: boolean
  readonly command?: string | undefined
  /** Account in the system's keyring. */
  readonly keyring?: string | undefined
  readonly variable?: 'SEALSYNC_PASSWORD' | 'SEALSYNC_KEY_PASSWORD' | 'SEALSYNC_SHARE_PASSWORD'
  /** For a person; absent: nobody is asked. */
  readonly question?: string
  /** Asks twice. */
  readonly confirm?: boolean
  /** Thrown when there is no source and nobody to ask. */
  readonly missing?: SyncError
}

const MAX_SECRET = 64 * 1024

/** Secrets of the environment, taken out of it at once: child processes must not inherit them. */
const fromEnvironment = new Map<string, string>()
for (const name of ['SEALSYNC_PASSWORD', 'SEALSYNC_KEY_PASSWORD', 'SEALSYNC_SHARE_PASSWORD']) {
  const value = process.env[name]
  if (value !== undefined && value !== '') fromEnvironment.set(name, value)
  delete process.env[name]
}

/** True where the environment has this secret, so that nobody is asked for it. */
export const hasFromEnvironment = (variable: NonNullable<SecretSources['variable']>): boolean =>
  fromEnvironment.has(variable)

/** Removes one trailing LF or CRLF, nothing else. */
function trimLine(bytes: Uint8Array): Uint8Array {
  let end = bytes.length
  if (bytes[end - 1] === 0x0a) end -= bytes[end - 2] === 0x0d ? 2 : 1
  return bytes.subarray(0, end)
}

const tooLong = (where: string) => new SyncError('usage', 'SECRET_TOO_LONG', `The secret in ${where} is too long`)

/** All of a stream: no more than a secret can be, so that an endless one ends here. */
async function readBounded(stream: AsyncIterable<Uint8Array>, where: string): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of stream) {
    chunks.push(chunk)
    length += chunk.length
    if (length > MAX_SECRET) throw tooLong(where)
  }
  return Buffer.concat(chunks)
}

/** A regular file, or a pipe such as `<(…)`; `-` is standard input. */
async function readSecretFile(path: string, binary = false): Promise<Uint8Array> {
  if (path === '-') return trimLine(await readBounded(process.stdin, 'standard input'))
  try {
    const handle = await open(path, 'r')
    try {
      const info = await handle.stat()
      if (info.isFile() && process.platform !== 'win32') {
        const mine = info.uid === process.getuid?.() || info.uid === 0
        if ((info.mode & 0o077) !== 0 || !mine) {
          throw new SyncError('usage', 'SECRET_FILE_OPEN', `Other users can read or own the secret file ${path}`, {
            hint: `Make it private: chmod 600 ${path}`,
          })
        }
      }
      const bytes = await readBounded(handle.createReadStream({ autoClose: false }), `the file ${path}`)
      return binary ? bytes : trimLine(bytes)
    } finally {
      await handle.close()
    }
  } catch (error) {
    const wrapped = localError(error, `read the secret file ${path}`)
    // A missing password file is a mistake in the command, not a broken disk.
    if (wrapped instanceof SyncError && wrapped.class === 'local_io') {
      throw new SyncError('usage', 'SECRET_FILE_UNREADABLE', wrapped.message, { cause: error })
    }
    throw wrapped
  }
}

/** Splits a command like a shell does, without its expansions. */
export function splitCommand(text: string): string[] {
  const words: string[] = []
  let word: string | undefined
  let quote = ''
  for (let i = 0; i < text.length; i++) {
    const char = text[i]!
    if (quote !== '') {
      if (char === quote) quote = ''
      else if (char === '\\' && quote === '"' && i + 1 < text.length) word += text[++i]!
      else word += char
    } else if (char === '"' || char === "'") {
      quote = char
      word ??= ''
    } else if (char === '\\' && i + 1 < text.length) {
      word = (word ?? '') + text[++i]!
    } else if (/\s/.test(char)) {
      if (word !== undefined) words.push(word)
      word = undefined
    } else {
      word = (word ?? '') + char
    }
  }
  if (word !== undefined) words.push(word)
  if (quote !== '' || words.length === 0) {
    throw new SyncError('usage', 'COMMAND_INVALID', 'The command is empty or has an open quote')
  }
  return words
}

async function runSecretCommand(text: string): Promise<Uint8Array> {
  const [program, ...args] = splitCommand(text)
  return new Promise((resolve, reject) => {
    const child = spawn(program!, args, { stdio: ['inherit', 'pipe', 'inherit'], env: childEnvironment() })
    const chunks: Buffer[] = []
    let length = 0
    const fail = (why: string, cause?: unknown) =>
      reject(
        new SyncError('usage', 'COMMAND_FAILED', `The password command ${why}`, {
          hint: 'It must print the password and nothing else, and end with 0.',
          cause,
        }),
      )
    child.stdout.on('data', (chunk: Buffer) => {
      chunks.push(chunk)
      length += chunk.length
      if (length > MAX_SECRET) child.kill()
    })
    child.on('error', (error) => fail('cannot be started', error))
    child.on('close', (code) => {
      if (code === 0 && length <= MAX_SECRET) resolve(trimLine(Buffer.concat(chunks)))
      else fail(`ended with ${code ?? 'a signal'}`)
    })
  })
}

export const isInteractive = () => process.stdin.isTTY === true && process.stderr.isTTY === true

/** Asks without echo on the terminal, until the answer has come from elsewhere. */
export async function prompt(question: string, signal?: AbortSignal): Promise<string> {
  const { password } = await import('@inquirer/prompts')
  const how = { output: process.stderr, ...(signal === undefined ? {} : { signal }) }
  return answered(() => password({ message: question, mask: false }, how))
}

/** Asks a person; no is what Enter alone says. */
export async function confirm(question: string): Promise<boolean> {
  const { confirm: ask } = await import('@inquirer/prompts')
  return answered(() => ask({ message: display(question, 500), default: false }, { output: process.stderr }))
}

async function answered<T>(ask: () => Promise<T>): Promise<T> {
  try {
    return await withFreeTerminal(ask)
  } catch (error) {
    if (error instanceof Error && error.name === 'ExitPromptError') {
      throw new SyncError('cancelled', 'SIGINT', 'Cancelled at the prompt')
    }
    throw error
  }
}

/** The first line of a file, or of standard input as soon as it is there; not any more once the signal aborts. */
export async function readCode(path: string, signal?: AbortSignal): Promise<string> {
  if (path !== '-') return Buffer.from(await readSecretFile(path)).toString('utf8')
  const { createInterface } = await import('node:readline')
  const lines = createInterface({ input: process.stdin, terminal: false, ...(signal === undefined ? {} : { signal }) })
  try {
    for await (const line of lines) return line
  } finally {
    lines.close()
  }
  throw new SyncError('auth', 'CODE_NEEDED', 'No code came from standard input')
}

/** Gets a secret from the first source that is there. */
export async function getSecret(sources: SecretSources): Promise<Uint8Array> {
  if (sources.file !== undefined) return readSecretFile(sources.file, sources.binary)
  if (sources.command !== undefined) return runSecretCommand(sources.command)
  if (sources.keyring !== undefined) {
    const { openSystemKeyring } = await import('../local/system-keyring.ts')
    const kept = await (await openSystemKeyring({ probe: false }))?.get(sources.keyring).catch(() => undefined)
    if (kept !== undefined) return Buffer.from(kept, 'utf8')
  }
  const value = fromEnvironment.get(sources.variable ?? '')
  if (value !== undefined) return Buffer.from(value, 'utf8')
  const { question, missing } = sources
  if (question === undefined || !isInteractive()) {
    throw missing ?? new SyncError('usage', 'SECRET_MISSING', 'A secret is needed and was not given')
  }
  const first = await prompt(question)
  if (sources.confirm && (await prompt(`${question} (again)`)) !== first) {
    throw new SyncError('usage', 'PASSWORDS_DIFFER', 'The two passwords are not the same')
  }
  return Buffer.from(first, 'utf8')
}
