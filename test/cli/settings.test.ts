/** Where settings come from, which one wins, and what is said about wrong ones. */
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { chooseMethod, LOGIN_OPTIONS } from '../../src/cli/methods.ts'
import {
  parseRates,
  readSettings,
  SETTINGS,
  type SettingSources,
  settingFiles,
  settingsError,
  showValue,
  variableOf,
} from '../../src/cli/settings.ts'
import { transportOf } from '../../src/cli/transport.ts'
import { runCli } from '../support/cli.ts'
import { freshDirectory } from '../support/files.ts'

interface Places {
  flags?: Record<string, unknown>
  environment?: Record<string, string>
  project?: string
  profile?: Record<string, unknown>
  user?: string
  system?: string
}

/** Writes the files and reads all places. */
async function read(places: Places) {
  const base = await freshDirectory()
  const [directory, home] = [join(base, 'project'), join(base, 'home')]
  for (const path of [directory, home]) mkdirSync(path)
  const files = {
    project: join(directory, 'sealsync.toml'),
    user: join(home, 'config.toml'),
    system: join(base, 'system.toml'),
  }
  for (const kind of ['project', 'user', 'system'] as const) {
    if (places[kind] !== undefined) writeFileSync(files[kind], places[kind], { mode: 0o644 })
  }
  const sources: SettingSources = {
    flags: places.flags ?? {},
    environment: { SEALSYNC_SYSTEM_CONFIG: files.system, ...places.environment },
    directory,
    home,
    profile: async () => places.profile,
  }
  return { ...(await readSettings(sources)), files, sources, directory, home }
}

const originOf = (all: readonly { name: string; origin: string }[], name: string) =>
  all.find((setting) => setting.name === name)?.origin

describe('the order', () => {
  const everywhere: Required<Places> = {
    flags: { jobs: '1' },
    environment: { SEALSYNC_JOBS: '2' },
    project: 'jobs = 3',
    profile: { jobs: 4 },
    user: 'jobs = 5',
    system: 'jobs = 6',
  }
  const order = ['flags', 'environment', 'project', 'profile', 'user', 'system'] as const

  test.each(order.map((place, at) => [place, at] as const))('%s wins over what comes after it', async (_place, at) => {
    const places = Object.fromEntries(order.slice(at).map((one) => [one, everywhere[one]]))
    const { settings, problems, files } = await read(places)
    expect(problems).toEqual([])
    expect(settings.number('jobs')).toBe(at + 1)
    const origins = ['--jobs', 'SEALSYNC_JOBS', files.project, 'profile default', files.user, files.system]
    expect(originOf(settings.all, 'jobs')).toBe(origins[at])
  })

  test('without any there is the default', async () => {
    const { settings } = await read({})
    expect(settings.number('jobs')).toBe(16)
    expect(originOf(settings.all, 'jobs')).toBe('default')
    expect(settings.text('proxy')).toBeUndefined()
    expect(settings.flag('require-encryption')).toBe(false)
  })

  test('an empty variable counts as none', async () => {
    const { settings } = await read({ environment: { SEALSYNC_JOBS: '' }, user: 'jobs = 5' })
    expect(settings.number('jobs')).toBe(5)
  })

  test('the user’s file may choose the profile, which then gives settings; a project may not', async () => {
    const asked: string[] = []
    const { sources } = await read({ user: 'profile = "work"' })
    const profile = async (name: string) => {
      asked.push(name)
      return { jobs: 7 }
    }
    const { settings } = await readSettings({ ...sources, profile })
    expect(asked).toEqual(['work'])
    expect([settings.text('profile'), settings.number('jobs')]).toEqual(['work', 7])
    const foreign = await read({ project: 'profile = "work"' })
    expect(foreign.problems).toEqual([expect.stringMatching(/"profile" must not be set by a project/)])
    expect(foreign.settings.text('profile')).toBe('default')
  })
})

describe('values', () => {
  test('of every kind, in files and elsewhere', async () => {
    const { settings, problems } = await read({
      flags: { partSize: '8MiB', header: ['A: b', 'C: d'] },
      environment: {
        SEALSYNC_REQUIRE_ENCRYPTION: 'yes',
        SEALSYNC_CONNECT_TIMEOUT: '500ms',
        SEALSYNC_CA_FILE: 'one.pem',
      },
      user: 'keep-alive = 0\nidle-timeout = "2m"\nconnections = 4\nip = 4\n',
    })
    expect(problems).toEqual([])
    expect(settings.number('part-size')).toBe(8 * 1024 * 1024)
    expect(settings.list('header')).toEqual(['A: b', 'C: d'])
    expect(settings.flag('require-encryption')).toBe(true)
    expect(settings.number('connect-timeout')).toBe(500)
    expect(settings.number('idle-timeout')).toBe(120_000)
    expect(settings.number('keep-alive')).toBe(0)
    expect(settings.text('ip')).toBe('4')
    const shown = Object.fromEntries(settings.all.map((setting) => [setting.name, showValue(setting)]))
    expect(shown).toMatchObject({ 'part-size': '8M', 'idle-timeout': '120s', 'connect-timeout': '500ms', proxy: '-' })
  })

  test('a switch can be switched off from nearer by', async () => {
    const { settings } = await read({
      environment: { SEALSYNC_REQUIRE_ENCRYPTION: '0' },
      user: 'require-encryption = true',
    })
    expect(settings.flag('require-encryption')).toBe(false)
  })

  test('names of files are relative to where they are written', async () => {
    const { settings, home, directory } = await read({
      flags: { clientCert: 'c.pem' },
      user: 'key-password-file = "secrets/pw"\nca-file = ["a.pem", "/b.pem"]\n',
    })
    expect(settings.text('client-cert')).toBe(join(directory, 'c.pem'))
    expect(settings.text('key-password-file')).toBe(join(home, 'secrets/pw'))
    expect(settings.list('ca-file')).toEqual([join(home, 'a.pem'), '/b.pem'])
  })

  test.each<[string, Places, RegExp]>([
    ['a number out of range', { flags: { jobs: '0' } }, /^--jobs takes a whole number from 1 to 64$/],
    ['no number', { environment: { SEALSYNC_JOBS: 'x' } }, /^SEALSYNC_JOBS: --jobs takes/],
    ['a fraction in a file', { user: 'jobs = 1.5' }, /config\.toml: --jobs takes/],
    ['a size too small', { flags: { partSize: '1M' } }, /^--part-size takes a size such as 8M, from 5M to 256M$/],
    ['too little memory', { flags: { memory: '15M' } }, /^--memory takes a size such as 8M, from 16M to 16384M$/],
    ['a time without sense', { flags: { connectTimeout: 'soon' } }, /^--connect-timeout takes a time such as 30s/],
    [
      'no rate',
      { flags: { limitRate: '1M:2M:3M' } },
      /^--limit-rate takes a rate such as 2M or 500K:10M, from 1K, or a timetable/,
    ],
    ['a rate that never ends', { flags: { limitRate: '10' } }, /^--limit-rate takes a rate/],
    [
      'no choice',
      { flags: { onConflict: 'ask' } },
      /^--on-conflict takes one of skip, overwrite, rename, fail, newer$/,
    ],
    ['no switch', { environment: { SEALSYNC_REQUIRE_ENCRYPTION: 'maybe' } }, /takes true or false$/],
    ['a table for a text', { user: '[proxy]\nurl = "x"' }, /--proxy takes a text$/],
    ['a number in a list', { user: 'header = [1]' }, /--header takes a text, or a list of texts$/],
    ['an unknown key', { user: 'jbos = 1' }, /there is no setting "jbos"$/],
    ['a key written otherwise', { user: 'part_size = 1' }, /did you mean "part-size"\?$/],
    ['no TOML', { system: 'jobs = ' }, /system\.toml: /],
    [
      'a password command from a project',
      { project: 'key-password-command = "rm -rf /"' },
      /must not be set by a project/,
    ],
    [
      'less protection from a project',
      { project: 'require-encryption = false', user: 'require-encryption = true' },
      /"require-encryption" must not be switched off by a project$/,
    ],
    [
      'a password among arguments',
      { flags: { proxy: 'http://me:canary@proxy.example' } },
      /^--proxy takes a URL without a password, which goes into --proxy-password-file$/,
    ],
    ['a file too long to be settings', { user: '#'.repeat(70_000) }, /config\.toml is not a file of at most 64 KiB$/],
    ['replacing local files from a project', { project: 'on-conflict = "overwrite"' }, /must not be set by a project/],
    ['a proxy from a project', { project: 'proxy = "http://evil.example"' }, /must not be set by a project/],
  ])('%s is a problem, with its place', async (_name, places, expected) => {
    const { problems } = await read(places)
    expect(problems).toHaveLength(1)
    expect(problems[0]).toMatch(expected)
    expect(settingsError(problems)).toMatchObject({ class: 'usage', code: 'OPTION_INVALID' })
  })

  test('all problems are told at once; a flag helps over a wrong file', async () => {
    const { problems } = await read({
      flags: { jobs: '0', onConflict: 'x' },
      user: 'nonsense = 1\nip = 5',
      project: 'proxy = "p"',
    })
    expect(problems).toHaveLength(5)
    const error = settingsError(problems)
    expect(error).toMatchObject({ class: 'usage', code: 'CONFIG_INVALID' })
    for (const problem of problems) expect(error.message).toContain(problem)
    const helped = await read({ flags: { jobs: '3' }, user: 'jobs = 0' })
    expect(helped.problems).toEqual([])
    expect(helped.settings.number('jobs')).toBe(3)
  })

  test('a project may ask for more protection, not for less', async () => {
    const more = await read({ project: 'require-encryption = true', user: 'require-encryption = false' })
    expect([more.settings.flag('require-encryption'), more.problems]).toEqual([true, []])
    const less = await read({ project: 'require-encryption = false', user: 'require-encryption = true' })
    expect(less.settings.flag('require-encryption')).toBe(true)
  })

  test.skipIf(process.platform === 'win32')('a pipe in place of a file does not hang us (needs mkfifo)', async () => {
    const { files, sources } = await read({})
    execFileSync('mkfifo', [files.project])
    const { problems } = await readSettings(sources)
    expect(problems).toEqual([`${files.project} is not a file of at most 64 KiB`])
  })

  test.skipIf(process.platform === 'win32')('a file that others can change is not read (POSIX modes)', async () => {
    for (const kind of ['project', 'user', 'system'] as const) {
      const { files, sources } = await read({ [kind]: 'jobs = 9' })
      chmodSync(files[kind], 0o666)
      const { settings, problems } = await readSettings(sources)
      expect(problems).toEqual([`${files[kind]} can be changed by other users (chmod go-w, or remove it)`])
      expect(settings.number('jobs')).toBe(16)
    }
  })
})

test('no setting takes a secret itself, and each has its variable', () => {
  for (const { name, kind } of SETTINGS) {
    if (/password|secret|token|key$/.test(name)) expect(['file', 'text', 'list']).toContain(kind)
    // The name of a credential, and by what a password is sealed, are no secrets.
    if (/password|secret|token/.test(name)) expect(name).toMatch(/-(file|command|credential|sealed)$/)
    expect(variableOf(name)).toMatch(/^SEALSYNC_[A-Z][A-Z0-9_]+$/)
  }
  for (const { name, argument } of LOGIN_OPTIONS) {
    if (/password|secret|token|code/.test(name)) expect(['file', 'command', 'url']).toContain(argument)
  }
})

test('rates', () => {
  const mega = 1024 * 1024
  expect(['2M', '500K:10M', '0', '0:1M', '1M:0'].map(parseRates)).toEqual([
    { up: 2 * mega, down: 2 * mega },
    { up: 500 * 1024, down: 10 * mega },
    {},
    { down: mega },
    { up: mega },
  ])
  expect(parseRates('08:00,500K:2M  18:30,0 Sat-00:00,1M sun-23:59,1K')).toEqual([
    { minute: 480, up: 500 * 1024, down: 2 * mega },
    { minute: 1110 },
    { minute: 0, day: 6, up: mega, down: mega },
    { minute: 1439, day: 0, up: 1024, down: 1024 },
  ])
})

test.each([
  '8:00,1M',
  '24:00,1M',
  '08:60,1M',
  '08:00,1M,2M',
  '08:00,10',
  '08:00,1M 08:00,2M',
  'Mon-08:00,1M mon-08:00,2M',
  'Foo-08:00,1M',
  'Monday-08:00,1M',
  '08:00,1M;18:00,0',
  '08:00,1M 18:00',
  '08:00,',
  ',',
])('not a timetable: %s', (text) => {
  expect(parseRates(text)).toBeUndefined()
})

test.each(['ftp://x.example/', 'https://a:b@x.example/', 'x'])('not an address to ping: %s', async (pingUrl) => {
  const { problems } = await read({ flags: { pingUrl } })
  expect(problems).toEqual(['--ping-url takes an https URL without user name and password'])
})

describe('ways to log in', () => {
  test.each([
    [{}, 'browser'],
    [{ user: 'ann' }, 'password'],
    [{ device: 'true', 'client-id': 'x' }, 'device'],
    [{ 'jwt-key-file': 'k', 'jwt-issuer': 'i' }, 'jwt'],
    [{ 'access-token-file': 't' }, 'access-token'],
    [{ 'refresh-token-file': 't' }, 'refresh-token'],
    [{ method: 'client-credentials', 'client-id': 'x', 'client-secret-file': 's' }, 'client-credentials'],
  ])('%j means %s', (given, method) => {
    const choice = chooseMethod(given as Record<string, string>)
    expect(choice.method).toBe(method)
    expect(Object.keys(choice.kept)).not.toContain('refresh-token-file')
  })

  test.each([
    [{ user: 'ann', 'access-token-file': 't' }, 'METHODS_TWO'],
    [{ method: 'telepathy' }, 'OPTION_INVALID'],
    [{ 'password-file': 'p' }, 'USER_MISSING'],
    [{ user: 'ann', 'password-file': 'p', 'password-command': 'c' }, 'OPTION_TWICE'],
    [{ 'client-id': 'x', 'client-secret-file': 's', 'client-key-file': 'k' }, 'OPTION_TWICE'],
    [{ 'client-secret-file': 's' }, 'CLIENT_ID_MISSING'],
    [{ user: 'ann', 'redirect-uri': 'http://127.0.0.1/x' }, 'OPTION_UNUSED'],
    [{ method: 'jwt', 'jwt-key-file': 'k' }, 'OPTION_MISSING'],
    [{ method: 'client-credentials' }, 'OPTION_MISSING'],
    [{ 'api-key-file': 'k' }, 'OPTION_MISSING'],
    [{ method: 'jwt', 'client-secret-file': 's', 'api-key-header': 'x' }, 'LOGIN_OPTIONS'],
  ])('%j is refused: %s', (given, code) => {
    let error: unknown
    try {
      chooseMethod(given as Record<string, string>)
    } catch (thrown) {
      error = thrown
    }
    expect(error).toMatchObject({ class: 'usage', code })
    if (code === 'LOGIN_OPTIONS') expect(String(error)).toMatch(/jwt-key-file.*jwt-issuer.*client-id.*api-key-file/)
  })
})

test('connection settings reach the dialer from wherever they come', async () => {
  const { settings, problems } = await read({
    flags: { http2: true, pins: 'first-use' },
    environment: { SEALSYNC_COMPRESSION: 'on', SEALSYNC_STALL_TIMEOUT: '30s', SEALSYNC_PROXY_RESOLVES: '1' },
    user: 'proxy = "http://proxy.example.org:3128"\ntcp-keep-alive = "5s"\nkeep-alive = "250ms"\ntls-groups = "X25519"',
    profile: { 'backup-pin': [`sha256/${Buffer.alloc(32).toString('base64')}`], 'headers-timeout': '150ms' },
  })
  expect(problems).toEqual([])
  expect(await transportOf(settings, 'https://files.example.org')).toMatchObject({
    http2: true,
    compression: true,
    stallMs: 30_000,
    proxyResolves: true,
    tcpKeepAliveMs: 5_000,
    keepAliveMs: 250,
    headersTimeoutMs: 150,
    groups: 'X25519',
    pins: 'first-use',
    pinStore: { load: expect.any(Function) },
    backupPins: [expect.stringMatching(/^sha256/)],
  })
  const { settings: none } = await read({ environment: { SEALSYNC_PROXY: 'none' } })
  const plain = await transportOf(none, 'https://files.example.org')
  expect([plain.http2, plain.compression, plain.pins]).toEqual([false, false, undefined])
  expect(await transportOf(none, 'https://mail.proton.me')).toMatchObject({ pins: 'first-use' })
})

describe('a file that is named', () => {
  const nearer = { project: 'jobs = 3', user: 'jobs = 5', system: 'jobs = 6\nip = "4"' }
  const write = async (text: string, name = 'mine.toml', mode = 0o600) => {
    const path = join(await freshDirectory(), name)
    writeFileSync(path, text, { mode })
    chmodSync(path, mode)
    return path
  }
  const named = async (file: string, places: Places = {}) => {
    const { sources } = await read({ ...nearer, ...places })
    return { ...(await readSettings({ ...sources, file })), sources }
  }

  test('takes the place of all that are looked for; flags, variables and what it leaves open stay', async () => {
    const path = await write('jobs = 9\nprofile = "work"\nca-file = "ca.pem"')
    const { settings, problems, sources } = await named(path, { profile: { jobs: 4, memory: '64M' } })
    expect(problems).toEqual([])
    expect([settings.number('jobs'), settings.text('profile'), settings.text('ip')]).toEqual([9, 'work', undefined])
    expect(settings.number('memory')).toBe(64 * 1024 * 1024)
    expect(settings.list('ca-file')).toEqual([join(path, '..', 'ca.pem')])
    expect(originOf(settings.all, 'jobs')).toBe(path)
    expect(settingFiles({ ...sources, file: path })).toEqual({ named: path })
    const flagged = await readSettings({ ...sources, file: path, flags: { jobs: '1' } })
    expect(flagged.settings.number('jobs')).toBe(1)
    // By a variable, relative to where the program was started.
    writeFileSync(join(sources.directory, 'here.toml'), 'jobs = 12', { mode: 0o600 })
    const environment = { ...sources.environment, SEALSYNC_CONFIG: 'here.toml' }
    expect((await readSettings({ ...sources, environment })).settings.number('jobs')).toBe(12)
    expect((await readSettings({ ...sources, environment, file: path })).settings.number('jobs')).toBe(9)
    expect(
      (await readSettings({ ...sources, environment: { ...environment, SEALSYNC_CONFIG: '' } })).settings.number(
        'jobs',
      ),
    ).toBe(3)
  })

  test('what is wrong with it is a mistake of who named it', async () => {
    const directory = await freshDirectory()
    for (const [path, problem] of [
      [join(directory, 'missing.toml'), /--config: .*missing\.toml cannot be read \(ENOENT\)/],
      [join(directory, 'missing', 'x.toml'), /cannot be read \(ENOENT\)/],
      [directory, /is not a file of at most 64 KiB/],
      ['/dev/zero', /is not a file/],
      [await write('x'.repeat(70_000)), /is not a file of at most 64 KiB/],
      [await write('jobs = ['), /mine\.toml: /],
      [await write('jbos = 1'), /there is no setting "jbos"/],
      [await write('jobs = 0'), /--jobs takes a whole number/],
      [await write('jobs = 2', 'open.toml', 0o666), /can be changed by other users/],
    ] as const) {
      const { problems, unread } = await named(path)
      expect([path, problems, unread]).toEqual([path, [expect.stringMatching(problem)], undefined])
    }
    const pipe = join(directory, 'pipe.toml')
    execFileSync('mkfifo', [pipe])
    expect((await named(pipe)).problems).toEqual([expect.stringMatching(/is not a file/)])
  })

  test('a project’s file stays one, whoever names it', async () => {
    const path = await write('profile = "other"\ntrust-new-members = true\nread-only = true', 'sealsync.toml')
    const { problems, settings } = await named(path)
    expect(problems).toHaveLength(2)
    expect([settings.text('profile'), settings.flag('read-only')]).toEqual(['default', true])
    const off = await named(await write('read-only = false', 'sealsync.toml'))
    expect(off.problems).toEqual([expect.stringMatching(/must not be switched off by a project/)])
  })

  test('at the command line, with every command', async () => {
    const home = await freshDirectory()
    const path = await write('jobs = 7')
    const shown = await runCli(home, ['config', 'show', '--config', path, '--json'])
    expect(shown.json.find(({ name }) => name === 'jobs')).toMatchObject({ value: 7, origin: path })
    const paths = await runCli(home, ['config', 'path', '--config', path, '--json'])
    expect(paths.json).toEqual([{ type: 'settings-file', kind: 'named', path, exists: true }])
    for (const args of [['whoami'], ['profile', 'list'], ['backup', 'list', 'set']]) {
      const run = await runCli(home, [...args, '--config', `${path}.missing`, '--json'])
      expect([args[0], run.code, run.json.at(-1)?.class]).toEqual([args[0], 2, 'usage'])
    }
  })
})

describe('config', () => {
  test('show, with and without origins, check and path', async () => {
    const home = join(await freshDirectory(), 'home')
    mkdirSync(home, { mode: 0o700 })
    const file = join(home, 'config.toml')
    writeFileSync(file, '# a comment\njobs = 4\n', { mode: 0o600 })
    const show = await runCli(home, ['config', 'show', '--json', '--origin', '-j', '5'], { env: { SEALSYNC_IP: '6' } })
    expect(show.code).toBe(0)
    expect(show.json.find(({ name }) => name === 'jobs')).toEqual({
      type: 'setting',
      name: 'jobs',
      value: 5,
      origin: '--jobs',
    })
    expect(show.json.find(({ name }) => name === 'ip')).toMatchObject({ value: '6', origin: 'SEALSYNC_IP' })
    const plain = await runCli(home, ['config', 'show', '--origin'])
    expect(plain.stdout).toContain(`jobs                       4  (${file})`)
    expect((await runCli(home, ['config', 'check'])).code).toBe(0)
    const paths = await runCli(home, ['config', 'path', '--json'])
    expect(paths.json.find(({ kind }) => kind === 'user')).toMatchObject({ path: file, exists: true })
    writeFileSync(file, 'jobs = 0\nnonsense = 1\n')
    const wrong = await runCli(home, ['config', 'check', '--json'])
    expect(wrong.code).toBe(2)
    expect(wrong.json.at(-1)).toMatchObject({ code: 'CONFIG_INVALID' })
    // Showing works all the same, or one could not see what is wrong.
    const shown = await runCli(home, ['config', 'show'])
    expect(shown.code).toBe(2)
    expect(shown.stderr).toContain('nonsense')
    expect(shown.stdout).toContain('part-size')
  })
})
