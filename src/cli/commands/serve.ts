/** serve and serve user: the embedded server. Its parts are loaded only here. @module */
import { readFile } from 'node:fs/promises'
import { SyncError } from '../../errors.ts'
import { type Context, integerSetting, text } from '../context.ts'
import { display } from '../display.ts'
import { getSecret } from '../secrets.ts'

async function readOption(path: string, flag: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (cause) {
    throw new SyncError('usage', 'OPTION_INVALID', `Cannot read the file of --${flag}: ${path}`, { cause })
  }
}

function requireData(context: Context): string {
  const data = text(context.options, 'data')
  if (data === undefined) throw new SyncError('usage', 'OPTION_MISSING', '--data DIR is needed')
  return data
}

export async function serve(context: Context): Promise<void> {
  const { options, output, signal } = context
  const dataDir = requireData(context)
  const certFile = text(options, 'tlsCert')
  const keyFile = text(options, 'tlsKey')
  if ((certFile === undefined) !== (keyFile === undefined)) {
    throw new SyncError('usage', 'OPTION_MISSING', '--tls-cert and --tls-key go together')
  }
  const tls =
    certFile === undefined || keyFile === undefined
      ? undefined
      : { cert: await readOption(certFile, 'tls-cert'), key: await readOption(keyFile, 'tls-key') }
  const { parseFaultPlan, startServer } = await import('../../server/index.ts')
  const faultsFile = text(options, 'faults')
  const faults = faultsFile === undefined ? undefined : parseFaultPlan(await readOption(faultsFile, 'faults'))
  const host = text(options, 'host')
  const server = await startServer({
    dataDir,
    port: integerSetting(context, undefined, 'port', { min: 0, max: 65_535 }) ?? 0,
    storage: options.storage === 's3' ? 's3' : 'classic',
    ...(host === undefined ? {} : { host }),
    ...(Array.isArray(options.allowHost) ? { allowedHosts: options.allowHost.map(String) } : {}),
    ...(tls === undefined ? {} : { tls }),
    ...(faults === undefined ? {} : { faults }),
  })
  output.result(`Serving ${dataDir} at ${server.url}`, { url: server.url })
  output.info('Stop with Ctrl-C.')
  await new Promise<void>((resolve) => {
    if (signal.aborted) resolve()
    signal.addEventListener('abort', () => resolve(), { once: true })
  })
  await server.close()
}

export async function userAdd(context: Context, name: string): Promise<void> {
  const dataDir = requireData(context)
  const password = await getSecret({
    file: text(context.options, 'passwordFile'),
    variable: 'SEALSYNC_PASSWORD',
    question: `Password for ${display(name, 60)}`,
    confirm: true,
    missing: new SyncError(
      'auth',
      'PASSWORD_NEEDED',
      'The new account needs a password, and there is no terminal to ask',
      {
        hint: 'Give it with --password-file.',
      },
    ),
  })
  const { addUser } = await import('../../server/index.ts')
  const { id } = await addUser(dataDir, { name, password: Buffer.from(password).toString('utf8') })
  context.output.result(`Made the account ${display(name)}`, { type: 'user', id, user: name })
}
