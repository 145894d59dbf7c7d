/** doctor: what works and what does not, from the settings to the login. @module */
import { stat } from 'node:fs/promises'
import {
  type Client,
  createClient,
  parseBaseUrl,
  readKeyChange,
  readServerPins,
  type ServerPin,
  type TransportOptions,
  VERSION_PATH,
} from '../../client/index.ts'
import { SyncError, toSyncError } from '../../errors.ts'
import { openSystemKeyring } from '../../local/system-keyring.ts'
import { createAuthorizer } from '../authorizers.ts'
import { openStore } from '../connect.ts'
import { accountName, type Context, loggingOf, requireSettings } from '../context.ts'
import { display } from '../display.ts'
import { EXIT, exitCodeOf } from '../exit-codes.ts'
import { homeDirectory, loadProfile, type Profile, saveProfile } from '../profile.ts'
import { transportOf } from '../transport.ts'
import { unfinishedText } from './keys.ts'

const DOCTOR_RETRY_FOR_MS = 5_000

type State = 'ok' | 'warn' | 'fail'

/** Says how each check went, and keeps the exit code of the first that failed. */
function createReport({ output }: Context) {
  let exitCode: number = EXIT.done
  const say = (name: string, state: State, what: string, more: object = {}) => {
    output.result(`${state.padEnd(5)} ${name.padEnd(12)} ${display(what, 300)}`, {
      type: 'check',
      name,
      state,
      message: what,
      ...more,
    })
  }
  return {
    say,
    /** Runs a check; what it throws is its result. */
    async run<T>(name: string, check: () => Promise<T>): Promise<T | undefined> {
      try {
        return await check()
      } catch (thrown) {
        const error = toSyncError(thrown)
        if (error.class === 'cancelled') throw error
        const hint = error.hint === undefined ? '' : ` (${error.hint})`
        say(name, 'fail', `${error.message}${hint}`, { code: error.code })
        exitCode ||= exitCodeOf(error)
        return undefined
      }
    },
    exitCode: () => exitCode,
  }
}
type Report = ReturnType<typeof createReport>

const [MAJOR = 0, MINOR = 0] = process.versions.node.split('.').map(Number)

async function checkMachine(context: Context, report: Report): Promise<void> {
  const isOld = MAJOR < 20 || (MAJOR === 20 && MINOR < 19)
  report.say('runtime', isOld ? 'warn' : 'ok', `Node.js ${process.versions.node}${isOld ? ', older than 20.19' : ''}`)
  await report.run('settings', async () => {
    requireSettings(context)
    report.say('settings', 'ok', 'all settings are right')
  })
  await report.run('home', async () => {
    const home = homeDirectory()
    const info = await stat(home).catch(() => undefined)
    const open = info !== undefined && process.platform !== 'win32' && (info.mode & 0o077) !== 0
    report.say(
      'home',
      open ? 'warn' : 'ok',
      `${home}${info === undefined ? ' (made at the first login)' : ''}${open ? ' can be entered by other users: chmod 700' : ''}`,
    )
  })
  const keyring = await openSystemKeyring({ probe: true })
  report.say(
    'keyring',
    keyring === undefined ? 'warn' : 'ok',
    keyring === undefined ? 'none: logins are kept in files' : 'works',
  )
}

const DAY_MS = 86_400_000
const SOON_DAYS = 14

async function checkTls(origin: string, transport: TransportOptions, report: Report): Promise<readonly ServerPin[]> {
  const via = transport.proxy === undefined ? '' : ` through the proxy ${new URL(transport.proxy).host}`
  if (!origin.startsWith('https:')) {
    report.say('tls', 'ok', `not used on this machine’s own address${via}`)
    return []
  }
  const found = await report.run('tls', async () => {
    const chain = await readServerPins(origin, transport)
    const [leaf] = chain
    const days = Math.floor((Date.parse(leaf?.validTo ?? '') - Date.now()) / DAY_MS)
    const pinned = transport.pins === undefined ? '' : transport.pins.includes(leaf?.pin ?? '') ? ', pinned' : ''
    const state = days < SOON_DAYS ? 'warn' : 'ok'
    report.say('tls', state, `certificate valid for ${days} more days${pinned}${via}`, { days })
    return chain
  })
  return found ?? []
}

const SKEW_MS = 60_000

/** The fields of a JSON object; `undefined` for anything else. */
function parseObject(body: Uint8Array): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(body).toString('utf8'))
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : undefined
  } catch {
    return undefined
  }
}

async function checkServer(client: Client, report: Report): Promise<void> {
  await report.run('server', async () => {
    const before = Date.now()
    const answer = await client.session.raw('GET', VERSION_PATH, { auth: false })
    const after = Date.now()
    const version = answer.status === 200 ? parseObject(answer.body) : undefined
    if (version === undefined) {
      throw new SyncError(
        'server',
        'NOT_COMPATIBLE',
        `The server does not answer like one of its kind (${answer.status})`,
        {
          hint: 'Is this the address of a compatible server?',
        },
      )
    }
    const api = typeof version.restApiVersion === 'string' ? version.restApiVersion : '?'
    report.say('server', 'ok', `answers in ${after - before} ms, API ${api}`, { ms: after - before })
    const date = Date.parse(answer.headers.date ?? '')
    if (Number.isNaN(date)) return
    // The header has whole seconds.
    const skew = Math.max(0, date - after, before - 1_000 - date)
    const seconds = Math.round(skew / 1_000)
    const text = skew < SKEW_MS ? 'agrees with the server’s' : `is ${seconds} s away from the server’s: logins may fail`
    report.say('clock', skew < SKEW_MS ? 'ok' : 'warn', text, { skewMs: skew })
  })
}

async function checkLogin(client: Client, context: Context, profile: Profile, report: Report): Promise<void> {
  await report.run('login', async () => {
    const check = await client.session.check({ online: true, signal: context.signal })
    if (!check.valid) {
      throw new SyncError('auth', 'LOGIN_NEEDED', `The login of ${profile.user} does not hold (${check.reason})`, {
        hint: 'Log in again: sync login URL',
      })
    }
    report.say('login', 'ok', `${profile.user} by ${profile.method}`)
    const { hasKeyPair: has } = await client.whoami({ signal: context.signal })
    report.say('key pair', has ? 'ok' : 'warn', has ? 'there is one' : 'none yet: sync keys create')
    const begun = await readKeyChange(homeDirectory(), accountName(profile))
    if (begun !== undefined) report.say('key pair', 'warn', unfinishedText(begun.kind), { unfinished: begun.kind })
  })
}

const PIN_FORM = /^sha256\/[A-Za-z0-9+/]{43}=$/
const BACKUP_HINT =
  'Pin a second key before you need it: have the next key made, and give its pin with --backup-pin. Its pin is "sha256/" and: openssl pkey -in next-key.pem -pubout -outform der | openssl dgst -sha256 -binary | base64'

/** Shows the pins of the chain; with a backup pin, keeps the server's own one and that. */
async function enrolPins(context: Context, profile: Profile | undefined, chain: readonly ServerPin[]): Promise<void> {
  const { output, settings, profileName } = context
  for (const { pin, subject, validTo } of chain) {
    const name = subject.replaceAll('\n', ', ')
    output.result(`pin   ${pin}  ${display(name, 100)}`, { type: 'pin', pin, subject: name, validTo })
  }
  const own = chain[0]?.pin
  if (own === undefined) return
  const [backup, ...more] = settings.isFlag('backup-pin') ? settings.list('backup-pin') : []
  if (backup === undefined) {
    output.info(BACKUP_HINT)
    return
  }
  if (!PIN_FORM.test(backup) || backup === own || more.length > 0) {
    throw new SyncError(
      'usage',
      'OPTION_INVALID',
      '--backup-pin takes sha256/BASE64 of one other key than the server’s',
    )
  }
  if (profile === undefined) throw new SyncError('auth', 'LOGIN_NEEDED', 'Pins are kept in a profile: log in first')
  await saveProfile(profileName, { ...profile, options: { ...profile.options, 'pinned-key': [own, backup] } })
  output.info(`Kept in profile ${profileName}: from now on only servers with one of these two keys are accepted.`)
}

export async function doctor(context: Context, url?: string): Promise<number> {
  const { settings, profileName, options } = context
  const report = createReport(context)
  await checkMachine(context, report)
  const profile = await report.run('profile', () => loadProfile(profileName))
  const base = url ?? profile?.server
  if (base === undefined) {
    report.say('profile', 'warn', 'no login: give a URL to check a server, or log in')
    return report.exitCode()
  }
  const { origin } = parseBaseUrl(base)
  const transport = await report.run('transport', () => transportOf(settings, origin, { enrols: options.pin === true }))
  if (transport === undefined) return report.exitCode()
  const chain = await checkTls(origin, transport, report)
  const own = profile !== undefined && profile.server === origin ? profile : undefined
  const client = await report.run('transport', async () =>
    createClient(origin, {
      authorizer: await createAuthorizer(own?.method ?? 'browser', own?.login ?? {}),
      transport,
      ...loggingOf(context),
      readOnly: settings.flag('read-only'),
      // Who asks what is wrong wants to hear it soon.
      retryForMs: context.retryForMs ?? DOCTOR_RETRY_FOR_MS,
      ...(own === undefined ? {} : { store: (await openStore(own, settings, own.store)).store }),
    }),
  )
  if (client === undefined) return report.exitCode()
  try {
    await checkServer(client, report)
    if (own === undefined) report.say('login', 'warn', 'none for this server')
    else await checkLogin(client, context, own, report)
  } finally {
    await client.close()
  }
  if (options.pin === true) await enrolPins(context, own, chain)
  return report.exitCode()
}
