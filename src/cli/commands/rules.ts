/** rules list and accept: rule files that came from a server, or were changed from there, wait here. @module */
import { resolve } from 'node:path'
import { createHeldRules, type HeldRule } from '../../client/index.ts'
import { type Context, rulesPath } from '../context.ts'
import { display, plural } from '../display.ts'
import { EXIT } from '../exit-codes.ts'

/** Lines that are shown of one file; all with `--json`. */
const SHOWN = 40

const linesOf = (bytes: Uint8Array | undefined): string[] =>
  bytes === undefined
    ? []
    : Buffer.from(bytes)
        .toString('utf8')
        .split(/\r?\n/)
        .filter((line) => line !== '')

function what({ before, now }: HeldRule): 'new' | 'changed' | 'removed' {
  if (now === undefined) return 'removed'
  return before === undefined ? 'new' : 'changed'
}

/** What would count, and what would not any more. */
function changes({ before, now }: HeldRule): string[] {
  const [old, fresh] = [linesOf(before), linesOf(now)]
  const [inOld, inFresh] = [new Set(old), new Set(fresh)]
  const lines = [
    ...old.filter((line) => !inFresh.has(line)).map((line) => `  - ${display(line)}`),
    ...fresh.filter((line) => !inOld.has(line)).map((line) => `  + ${display(line)}`),
  ]
  return lines.length <= SHOWN ? lines : [...lines.slice(0, SHOWN), `  … and ${lines.length - SHOWN} more`]
}

const fields = (one: HeldRule) => ({
  path: one.path,
  what: what(one),
  before: linesOf(one.before),
  now: linesOf(one.now),
})

/** Shows what waits; exit code 3 if anything does. */
export async function list({ output }: Context, directory = '/'): Promise<number> {
  const held = createHeldRules(rulesPath()).list(resolve(directory))
  for (const one of held) {
    output.result([`${what(one).padEnd(8)} ${display(one.path)}`, ...changes(one)].join('\n'), {
      type: 'rules',
      ...fields(one),
    })
  }
  if (held.length === 0) output.info('No rules wait.')
  else output.info('To let them count: sync rules accept DIRECTORY')
  return held.length === 0 ? EXIT.done : EXIT.partial
}

/** Lets what is at or below a path count as it is now. */
export async function accept({ output }: Context, path: string): Promise<void> {
  const accepted = await createHeldRules(rulesPath()).accept(resolve(path))
  for (const one of accepted) {
    output.done(`Accepted ${display(one.path)}`, { type: 'accepted', ...fields(one) })
  }
  output.info(`${plural(accepted.length, 'rule file')} accepted`)
}
