/** completion, man. @module */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { localError } from '../../errors.ts'
import { COMPLETION_SCRIPTS } from '../completion/scripts.ts'
import type { Context } from '../context.ts'
import { display, plural } from '../display.ts'
import { type ManPage, manPages } from '../man.ts'
import type { CommandSpec } from '../nouns/command.ts'
import type { Shell } from '../shells.ts'

export async function completion({ output }: Context, shell: Shell): Promise<void> {
  const script = COMPLETION_SCRIPTS[shell]
  output.result(script.trimEnd(), { type: 'completion', shell, script })
}

/** Writes the manual of these commands. */
export const manOf =
  (commands: readonly CommandSpec[]) =>
  (context: Context, directory?: string): Promise<void> =>
    writePages(context, manPages(commands), directory)

async function writePages({ output }: Context, pages: readonly ManPage[], directory?: string): Promise<void> {
  if (directory === undefined) {
    const { name, section, text } = pages[0]!
    output.result(text.trimEnd(), { type: 'man-page', name, section, text })
    return
  }
  try {
    for (const { name, section, text } of pages) {
      const place = join(directory, `man${section}`)
      await mkdir(place, { recursive: true })
      await writeFile(join(place, `${name}.${section}`), text)
    }
  } catch (error) {
    throw localError(error, `write manual pages into ${directory}`)
  }
  output.done(`Wrote ${plural(pages.length, 'manual page')} into ${display(directory)}`, {
    type: 'man-pages',
    directory,
    pages: pages.map(({ name, section }) => `${name}.${section}`),
  })
}
