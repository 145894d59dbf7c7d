/** config show, check, path. @module */
import { stat } from 'node:fs/promises'
import { type Context, requireSettings, settingSources } from '../context.ts'
import { display } from '../display.ts'
import { EXIT } from '../exit-codes.ts'
import { isSecret, settingFiles, showValue } from '../settings.ts'

export async function show({ settings, problems, output, options }: Context): Promise<number> {
  for (const setting of settings.all) {
    const { name, value, origin } = setting
    const shown = showValue(setting)
    const from = options.origin === true ? `  (${display(origin, 200)})` : ''
    output.result(`${name.padEnd(26)} ${display(shown, 200)}${from}`, {
      type: 'setting',
      name,
      value: value !== undefined && isSecret(name) ? shown : (value ?? null),
      origin,
    })
  }
  for (const problem of problems) output.warn(problem)
  return problems.length === 0 ? EXIT.done : EXIT.usage
}

/** Says nothing when all is right, so that it fits into scripts. */
export async function check(context: Context): Promise<void> {
  requireSettings(context)
  context.output.info('All settings are right.')
}

export async function path({ output, options }: Context): Promise<void> {
  for (const [kind, file] of Object.entries(settingFiles(settingSources(options)))) {
    const exists = await stat(file).then(
      () => true,
      () => false,
    )
    output.result(`${kind.padEnd(8)} ${display(file, 500)}${exists ? '' : '  (not there)'}`, {
      type: 'settings-file',
      kind,
      path: file,
      exists,
    })
  }
}
