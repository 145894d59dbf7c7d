/**
 * Options of the embedded server: what a call gives, and below it what a TOML file of the server says. Every option of `serve` may stand
 * there under its own name; paths are relative to the file.
 * @module
 */
import { readFile } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { parse as parseToml } from 'smol-toml'
import { SyncError } from '../errors.ts'
import { type Context, type Options, text } from './context.ts'
import type { OptionSpec } from './options/option.ts'
import { longFlag } from './options/option.ts'
import { SERVER_OPTIONS } from './options/serve.ts'
import { camelCase } from './settings.ts'

const invalid = (message: string): SyncError => new SyncError('usage', 'CONFIG_INVALID', message)

const isPath = ({ flags }: OptionSpec): boolean => /<(file|dir)>/.test(flags)
const takesMany = ({ flags, repeats }: OptionSpec): boolean => repeats === true || flags.includes('...>')
const takesValue = ({ flags }: OptionSpec): boolean => /[<[]/.test(flags)

/** One value of the file, as the command line would have given it. */
function valueFor(spec: OptionSpec, raw: unknown, path: string, base: string): unknown {
  const name = longFlag(spec).slice(2)
  const wrong = (what: string) => invalid(`${path}: ${name} takes ${what}`)
  const one = (value: unknown): string => {
    if (typeof value !== 'string' && typeof value !== 'number' && typeof value !== 'bigint')
      throw wrong('a text or a number')
    const given = String(value)
    if (spec.choices?.includes(given) === false) throw wrong(`one of ${spec.choices.join(', ')}`)
    return isPath(spec) && given !== '-' ? resolve(base, given) : given
  }
  if (!takesValue(spec)) {
    if (typeof raw !== 'boolean') throw wrong('true or false')
    return raw || undefined
  }
  return takesMany(spec) ? (Array.isArray(raw) ? raw : [raw]).map(one) : one(raw)
}

/** Reads the file; what is no option of the server is an error. */
async function readServerConfig(path: string, specs: readonly OptionSpec[]): Promise<Record<string, unknown>> {
  let values: Record<string, unknown>
  try {
    values = parseToml(await readFile(path, 'utf8'))
  } catch (cause) {
    const why = cause instanceof Error ? cause.message.split('\n')[0] : ''
    throw new SyncError('usage', 'CONFIG_INVALID', `Cannot read ${path}: ${why}`, { cause })
  }
  const base = dirname(resolve(path))
  return Object.fromEntries(
    Object.entries(values).flatMap(([name, raw]) => {
      const spec = specs.find((one) => longFlag(one) === `--${name}`)
      if (spec === undefined) throw invalid(`${path}: the server has no option ${name}`)
      const value = valueFor(spec, raw, path, base)
      return value === undefined ? [] : [[camelCase(name), value]]
    }),
  )
}

/** What was given, with what the file of the server says below it. Flags go first, and values of options by default last. */
export async function serverOptions({ options, given }: Pick<Context, 'options' | 'given'>): Promise<Options> {
  const path = text(options, 'serverConfig') ?? process.env.SEALSYNC_SERVER_CONFIG
  if (path === undefined || path === '') return options
  const fromFile = await readServerConfig(path, SERVER_OPTIONS)
  return { ...options, ...fromFile, ...given }
}

/** The data directory that a command is about. */
export async function requireData(context: Context): Promise<string> {
  const data = text(await serverOptions(context), 'data')
  if (data === undefined) throw new SyncError('usage', 'OPTION_MISSING', '--data DIR is needed')
  return data
}
