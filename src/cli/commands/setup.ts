/**
 * setup: puts the directory of the short name `sync` first on the PATH of interactive shells. Scripts and services do not read these
 * files, so that theirs stays coreutils'; nothing outside the user's own home is touched.
 * @module
 */
import { accessSync, constants, existsSync, realpathSync } from 'node:fs'
import { readFile, stat, unlink } from 'node:fs/promises'
import { homedir } from 'node:os'
import { basename, dirname, join, resolve } from 'node:path'
import { localError, SyncError, systemCode } from '../../errors.ts'
import { createAtomicFile, makePrivateDirectory } from '../../local/atomic-file.ts'
import { requireConfirmed } from '../agree.ts'
import { type Context, text } from '../context.ts'
import { display } from '../display.ts'
import { EXIT } from '../exit-codes.ts'

const BEGIN = '# >>> sealsync: the short name sync, written by "sealsync setup" >>>'
const END = '# <<< sealsync <<<'

type Shell = 'bash' | 'zsh' | 'fish'

/** The file that an interactive shell reads. */
function profileOf(shell: Shell, env: NodeJS.ProcessEnv = process.env): string {
  const home = homedir()
  if (shell === 'bash') return join(home, '.bashrc')
  if (shell === 'zsh') return join(env.ZDOTDIR || home, '.zshrc')
  return join(env.XDG_CONFIG_HOME || join(home, '.config'), 'fish', 'conf.d', 'sealsync.fish')
}

function shellOf({ options }: Context): Shell {
  const name = text(options, 'shell') ?? basename(process.env.SHELL ?? '')
  if (name === 'bash' || name === 'zsh' || name === 'fish') return name
  throw new SyncError('usage', 'SHELL_UNKNOWN', `There is no setup for the shell ${name === '' ? 'here' : name}`, {
    hint: 'Give --shell bash, zsh or fish, or put the directory of sync first on the PATH yourself: sealsync setup --print.',
  })
}

const isProgram = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/**
 * The directory that has our `sync`: beside the program where a package has put it, else beside the link that it was started by.
 *
 * @param main - As `process.argv[1]`.
 * @throws {SyncError} `SHORT_NAME_MISSING` when there is none.
 */
function directoryOfSync(main: string): string {
  const real = realpathSync(main)
  // …/sealsync/app/bin/main.js beside …/sealsync/bin/sync.
  const packaged = resolve(dirname(real), '../../bin')
  if (basename(dirname(dirname(real))) === 'app' && isProgram(join(packaged, 'sync'))) return packaged
  const beside = resolve(dirname(main))
  const link = join(beside, 'sync')
  if (beside !== dirname(real) && existsSync(link) && realpathSync(link) === real) return beside
  throw new SyncError('usage', 'SHORT_NAME_MISSING', `There is no directory with the short name of ${real}`, {
    hint: 'It is there after an installation from the Debian package, the archive or npm; see docs/install.md.',
  })
}

/** As one word of any of the three shells. */
function quoted(path: string): string {
  if (/^[\w@%+:,./-]+$/.test(path)) return path
  if (/['"\\$`\n]/.test(path)) {
    throw new SyncError('usage', 'SHORT_NAME_MISSING', `The directory ${path} cannot be written into a shell profile`)
  }
  return `"${path}"`
}

/** The line that puts a directory first, once. */
export function pathLine(shell: Shell, directory: string): string {
  const word = quoted(directory)
  if (shell === 'fish') return `fish_add_path --path --prepend --move ${word}`
  return `case "$PATH" in ${word}:*) ;; *) PATH=${word}:"$PATH"; export PATH ;; esac`
}

/** A profile without our lines; `undefined` for a block that has no end, which somebody has edited. */
function withoutBlock(content: string): string | undefined {
  const from = content.indexOf(BEGIN)
  if (from === -1) return content
  const to = content.indexOf(END, from)
  if (to === -1) return undefined
  const rest = content.slice(to + END.length).replace(/^\r?\n/, '')
  return content.slice(0, from) + rest
}

async function readProfile(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined
    throw localError(error, `read ${path}`)
  }
}

/** Writes through links, because profiles are often kept somewhere else, and leaves the mode as it is. */
async function writeProfile(path: string, content: string): Promise<void> {
  const isThere = existsSync(path)
  const real = isThere ? realpathSync(path) : path
  if (!isThere) await makePrivateDirectory(dirname(real))
  const file = await createAtomicFile(real)
  try {
    const mode = isThere ? (await stat(real)).mode & 0o7777 : 0o644
    try {
      await file.handle.writeFile(content)
      await file.handle.chmod(mode)
    } catch (error) {
      throw localError(error, `write ${path}`)
    }
    await file.commit()
  } finally {
    await file.discard()
  }
}

/** The whole profile as it is to be; empty when nothing is left of a file of our own. */
function profileText(before: string, line: string | undefined, path: string): string {
  const rest = withoutBlock(before)
  if (rest === undefined) {
    throw new SyncError('usage', 'SHELL_PROFILE_EDITED', `The lines of sealsync in ${path} have no end any more`, {
      hint: `Take them out by hand, from "${BEGIN}" on.`,
    })
  }
  if (line === undefined) return rest
  const gap = rest === '' || rest.endsWith('\n') ? '' : '\n'
  return `${rest}${gap}${BEGIN}\n${line}\n${END}\n`
}

export async function setup(context: Context): Promise<number> {
  const { options, output } = context
  const shell = shellOf(context)
  const isRemoved = options.remove === true
  const path = profileOf(shell)
  const line = isRemoved ? undefined : pathLine(shell, directoryOfSync(process.argv[1]!))
  if (options.print === true && line !== undefined) {
    output.result(line, { type: 'line', shell, line })
    return EXIT.done
  }
  const before = await readProfile(path)
  const after = profileText(before ?? '', line, path)
  const shown = display(path, 500)
  const fields = { type: 'setup', shell, path, line: line ?? null }
  if (after === (before ?? '')) {
    output.done(isRemoved ? `Nothing of sealsync is in ${shown}` : `${shown} has the line already`, {
      ...fields,
      changed: false,
    })
    return EXIT.done
  }
  output.info(isRemoved ? `The lines of sealsync go from ${path}.` : `At the end of ${path}:`)
  if (line !== undefined) output.info(`  ${line}`)
  await requireConfirmed(context, isRemoved ? 'Take them out?' : 'Write it?', 'yes')
  if (after === '' && shell === 'fish')
    await unlink(path).catch((error) => Promise.reject(localError(error, `remove ${path}`)))
  else await writeProfile(path, after)
  output.done(isRemoved ? `Took them out of ${shown}` : `Written to ${shown}`, { ...fields, changed: true })
  if (!isRemoved) output.info('From the next shell on, sync is this program; scripts still get that of coreutils.')
  return EXIT.done
}
