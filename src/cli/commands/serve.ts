/** serve, serve check, serve user and serve group: the embedded server. Its parts are loaded only here. @module */
import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { SyncError } from '../../errors.ts'
import { writePrivateFile } from '../../local/atomic-file.ts'
import type { S3Options } from '../../server/index.ts'
import { type Context, integerOption, text } from '../context.ts'
import { display, plural, showBytes } from '../display.ts'
import { EXIT } from '../exit-codes.ts'
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

/** A key of the object store, from a file or from the environment, which loses it. */
async function s3Key(file: string | undefined, flag: string, variable: string): Promise<string> {
  const value = process.env[variable] ?? ''
  delete process.env[variable]
  const missing = new SyncError('usage', 'OPTION_MISSING', `--s3-endpoint needs --${flag}`, {
    hint: `Or set ${variable}.`,
  })
  if (file !== undefined) return Buffer.from(await getSecret({ file, question: '', missing })).toString('utf8')
  if (value === '') throw missing
  return value
}

/** The object store that was asked for, if any. */
async function s3Options({ options }: Context): Promise<S3Options | undefined> {
  const given = Object.keys(options).filter((name) => /^s3[A-Z]/.test(name))
  const [endpoint, bucket, region] = ['s3Endpoint', 's3Bucket', 's3Region'].map((name) => text(options, name))
  if (given.length === 0) return undefined
  if (options.storage !== 's3' || endpoint === undefined || bucket === undefined) {
    throw new SyncError('usage', 'OPTION_MISSING', '--storage s3, --s3-endpoint and --s3-bucket go together')
  }
  return {
    endpoint,
    bucket,
    ...(region === undefined ? {} : { region }),
    accessKeyId: await s3Key(text(options, 's3AccessKeyFile'), 's3-access-key-file', 'SEALSYNC_S3_ACCESS_KEY'),
    secretAccessKey: await s3Key(text(options, 's3SecretKeyFile'), 's3-secret-key-file', 'SEALSYNC_S3_SECRET_KEY'),
    pathStyle: options.s3PathStyle === true,
  }
}

/** One line for an operator. */
function errorLine(error: unknown): string {
  const known = error instanceof Error ? (error.cause ?? error) : error
  return known instanceof Error ? known.message : String(known)
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
  const s3 = await s3Options(context)
  const server = await startServer({
    data: dataDir,
    port: integerOption(options, 'port', { min: 0, max: 65_535 }) ?? 0,
    storage: options.storage === 's3' ? 's3' : 'classic',
    ...(s3 === undefined ? {} : { s3 }),
    ...(host === undefined ? {} : { host }),
    ...(Array.isArray(options.allowHost) ? { allowedHosts: options.allowHost.map(String) } : {}),
    ...(tls === undefined ? {} : { tls }),
    ...(faults === undefined ? {} : { faults }),
    onError: (error) => output.warn(errorLine(error)),
  })
  output.result(`Serving ${dataDir} at ${server.url}`, { url: server.url })
  output.info('Stop with Ctrl-C.')
  await new Promise<void>((resolve) => {
    if (signal.aborted) resolve()
    signal.addEventListener('abort', () => resolve(), { once: true })
  })
  await server.close()
}

/** Looks at a data directory. */
export async function serveCheck(context: Context): Promise<number> {
  const { options, output } = context
  const dataDir = requireData(context)
  const s3 = await s3Options(context)
  const { checkStore } = await import('../../server/index.ts')
  const report = await checkStore(dataDir, {
    ...(s3 === undefined ? {} : { s3 }),
    readContent: options.content === true,
    adopt: options.adopt === true,
  })
  for (const problem of report.problems) {
    const paths = (problem.paths ?? []).map((path) => `\n  ${display(path)}`).join('')
    output.result(`${display(problem.message, 2_000)}${paths}`, { type: 'problem', ...problem })
  }
  const { problems, ...counts } = report
  const exitCode = problems.length === 0 ? EXIT.done : problems.some(isDamage) ? EXIT.integrity : EXIT.safety
  const verdict = problems.length === 0 ? 'sound' : plural(problems.length, 'problem')
  const say = problems.length === 0 ? output.done : output.result
  say(
    `${display(dataDir)}: ${verdict}; ${plural(report.files, 'file')}, ${showBytes(report.bytes)}, ` +
      `${plural(report.records, 'record')}, ${plural(report.strays, 'stray')}`,
    { type: 'summary', ...counts, problems: problems.length, exitCode },
  )
  return exitCode
}

const isDamage = ({ kind }: { kind: string }): boolean => kind !== 'place'

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
  const { addUser, removeUser } = await import('../../server/index.ts')
  const codeFile = text(context.options, 'oneTimeCodes')
  const account = { name, password: Buffer.from(password).toString('utf8'), oneTimeCodes: codeFile !== undefined }
  const { id, authenticator } = await addUser(dataDir, account)
  if (codeFile !== undefined && authenticator !== undefined) {
    await writePrivateFile(resolve(codeFile), `${authenticator}\n`).catch(async (error) => {
      await removeUser(dataDir, name) // nobody could log in to it
      throw error
    })
    context.output.info(`The address for an authenticator app is in ${resolve(codeFile)}`)
  }
  context.output.done(`Made the account ${display(name)}`, { type: 'user', id, user: name })
}

export async function groupAdd(context: Context, name: string, users: readonly string[]): Promise<void> {
  const { addGroup } = await import('../../server/index.ts')
  const { id } = await addGroup(requireData(context), { name, users })
  context.output.done(`The group ${display(name)} has ${plural(users.length, 'more account')}`, {
    type: 'group',
    id,
    group: name,
    users,
  })
}
