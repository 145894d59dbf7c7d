/** serve, serve check and serve gc: the embedded server. Its parts are loaded only here; administering it is serve-admin.ts. @module */
import { readFile } from 'node:fs/promises'
import { SyncError } from '../../errors.ts'
import type { S3Options } from '../../server/index.ts'
import { type Context, integerOption, measured, type Options, text } from '../context.ts'
import { display, plural, showBytes } from '../display.ts'
import { EXIT } from '../exit-codes.ts'
import { getSecret } from '../secrets.ts'
import { requireData, serverOptions } from '../serve-options.ts'
import { parseDuration } from '../settings.ts'

async function readOption(path: string, flag: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (cause) {
    throw new SyncError('usage', 'OPTION_INVALID', `Cannot read the file of --${flag}: ${path}`, { cause })
  }
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
async function s3Options(context: Context): Promise<S3Options | undefined> {
  const options = await serverOptions(context)
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

/** Certificate and key, if there are any. */
async function tlsFiles(options: Options): Promise<{ cert: string; key: string } | undefined> {
  const certFile = text(options, 'tlsCert')
  const keyFile = text(options, 'tlsKey')
  if ((certFile === undefined) !== (keyFile === undefined)) {
    throw new SyncError('usage', 'OPTION_MISSING', '--tls-cert and --tls-key go together')
  }
  if (certFile === undefined || keyFile === undefined) return undefined
  return { cert: await readOption(certFile, 'tls-cert'), key: await readOption(keyFile, 'tls-key') }
}

const listOf = (value: unknown): string[] | undefined => (Array.isArray(value) ? value.map(String) : undefined)

export async function serve(context: Context): Promise<void> {
  const { output, signal } = context
  const dataDir = await requireData(context)
  const options = await serverOptions(context)
  const tls = await tlsFiles(options)
  const { parseFaultPlan, startServer } = await import('../../server/index.ts')
  const faultsFile = text(options, 'faults')
  const faults = faultsFile === undefined ? undefined : parseFaultPlan(await readOption(faultsFile, 'faults'))
  const host = text(options, 'host')
  const accessLog = text(options, 'accessLog')
  const s3 = await s3Options(context)
  const port = { min: 0, max: 65_535 }
  const metricsPort = integerOption(options, 'metrics-port', port)
  const requestsPerSecond = integerOption(options, 'max-requests', { min: 1, max: 1_000_000 })
  const allowedHosts = listOf(options.allowHost)
  const trustProxy = listOf(options.trustProxy)
  const server = await startServer({
    data: dataDir,
    port: integerOption(options, 'port', port) ?? 0,
    storage: options.storage === 's3' ? 's3' : 'classic',
    offerSetup: true,
    drainMs: measured({ options }, 'drain', parseDuration, '10s') ?? 10_000,
    ...(s3 === undefined ? {} : { s3 }),
    ...(host === undefined ? {} : { host }),
    ...(allowedHosts === undefined ? {} : { allowedHosts }),
    ...(trustProxy === undefined ? {} : { trustProxy }),
    ...(accessLog === undefined ? {} : { accessLog }),
    ...(metricsPort === undefined ? {} : { metricsPort }),
    ...(requestsPerSecond === undefined ? {} : { requestsPerSecond }),
    ...(tls === undefined ? {} : { tls }),
    ...(faults === undefined ? {} : { faults }),
    onError: (error) => output.warn(errorLine(error)),
  })
  const { url, setupUrl, metricsUrl } = server
  const more = { ...(setupUrl === undefined ? {} : { setupUrl }), ...(metricsUrl === undefined ? {} : { metricsUrl }) }
  output.result(`Serving ${dataDir} at ${url}`, { url, ...more })
  if (setupUrl !== undefined) output.info(`Nobody has an account yet. Make the first one, within a day: ${setupUrl}`)
  if (metricsUrl !== undefined) output.info(`Figures for Prometheus: ${metricsUrl}`)
  output.info('Stop with Ctrl-C.')
  const reload = () => {
    tlsFiles(options)
      .then((files) => server.reload(files))
      .catch((error: unknown) => output.warn(`Nothing was read again: ${errorLine(error)}`))
  }
  if (process.stdin.isTTY !== true) process.on('SIGHUP', reload)
  await new Promise<void>((resolve) => {
    if (signal.aborted) resolve()
    signal.addEventListener('abort', () => resolve(), { once: true })
  })
  process.off('SIGHUP', reload)
  // Until it is gone, a reload must not end it.
  process.on('SIGHUP', () => undefined)
  await server.close()
}

/** Looks at a data directory. */
export async function serveCheck(context: Context): Promise<number> {
  const { options, output } = context
  const dataDir = await requireData(context)
  const s3 = await s3Options(context)
  const { checkStore } = await import('../../server/index.ts')
  const report = await checkStore(dataDir, {
    ...(s3 === undefined ? {} : { s3 }),
    readContent: options.content === true,
    adopt: options.adopt === true,
    repair: options.repair === true,
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
      `${plural(report.records, 'record')}, ${plural(report.strays, 'stray')}` +
      (report.setAside > 0 ? `, ${report.setAside} of them moved aside` : ''),
    { type: 'summary', ...counts, problems: problems.length, exitCode },
  )
  return exitCode
}

const isDamage = ({ kind }: { kind: string }): boolean => kind !== 'place'

/** Removes what has run out. */
export async function serveGc(context: Context): Promise<void> {
  const dataDir = await requireData(context)
  const s3 = await s3Options(context)
  const { collectGarbage } = await import('../../server/index.ts')
  await collectGarbage(dataDir, s3)
  context.output.done(`${display(dataDir)}: what had run out is gone`, { type: 'gc', data: dataDir })
}
