import { chmod, chown, mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { describe, expect, onTestFinished, test } from 'vitest'
import { ovhOAuth2Authorizer } from '../../src/session/authorizers/ovh-oauth2.ts'
import { OVH_REGIONS } from '../../src/session/authorizers/ovh-regions.ts'
import { ovhSignatureAuthorizer } from '../../src/session/authorizers/ovh-signature.ts'
import { loadOvhConfig, type OvhSources } from '../../src/session/ovh-config.ts'
import { freshDirectory, isRoot, NOBODY } from '../support/files.ts'
import { expectNoSecret } from '../support/oauth.ts'
import { errorOf } from '../support/servers.ts'

const CANARY = 'canary-'

interface Files {
  given?: string | Uint8Array
  project?: string | Uint8Array
  home?: string | Uint8Array
  system?: string | Uint8Array
}

/** A place with these files and nothing else; `load` takes the rest. */
async function place(files: Files = {}, mode = 0o600) {
  const root = await freshDirectory()
  for (const name of ['cwd', 'home', 'etc']) await mkdir(join(root, name))
  const paths = {
    given: join(root, 'given.conf'),
    project: join(root, 'cwd/ovh.conf'),
    home: join(root, 'home/.ovh.conf'),
    system: join(root, 'etc/ovh.conf'),
  }
  for (const [name, content] of Object.entries(files)) {
    const path = paths[name as keyof Files]
    await writeFile(path, content)
    await chmod(path, mode)
  }
  const load = (more: OvhSources = {}) =>
    loadOvhConfig({
      env: {},
      files: [paths.given],
      cwd: join(root, 'cwd'),
      home: join(root, 'home'),
      systemFile: paths.system,
      ...more,
    })
  return { paths, load }
}

/** Everything a config holds, secrets opened. */
const open = (config: Awaited<ReturnType<typeof loadOvhConfig>>) =>
  config.kind === 'signature'
    ? [config.endpoint, config.applicationKey, config.applicationSecret(), config.consumerKey?.()]
    : [config.endpoint, config.clientId, config.clientSecret()]

const FULL = `
[default]
endpoint = ovh-eu
[ovh-eu]
application_key = key
application_secret = canary-secret
consumer_key = canary-consumer
`
const KEYS = { applicationKey: 'k', applicationSecret: 'canary-s' }

describe('where values come from', () => {
  test('files merge per value, the highest first', async () => {
    const { load, paths } = await place({
      given: '[ovh-ca]\napplication_key = given\n',
      project: '[ovh-ca]\napplication_key = project\napplication_secret = project-secret\n',
      home: '[default]\nendpoint = ovh-ca\n[ovh-ca]\napplication_secret = home\nconsumer_key = home-consumer',
      system: '[default]\nendpoint = ovh-us\n[ovh-ca]\nconsumer_key = system\n[ovh-us]\napplication_key = other\n',
    })
    const config = await load()
    expect(open(config)).toEqual(['ovh-ca', 'given', 'project-secret', 'home-consumer'])
    expect(config.origins).toEqual({
      endpoint: `${paths.home}, line 2`,
      application_key: `${paths.given}, line 2`,
      application_secret: `${paths.project}, line 3`,
      consumer_key: `${paths.home}, line 5`,
    })
  })

  test('the environment beats files, for whatever region; what the caller says beats both', async () => {
    const { load } = await place({ home: FULL })
    const env = { OVH_ENDPOINT: 'ovh-us', OVH_APPLICATION_KEY: 'e', OVH_APPLICATION_SECRET: 'es' }
    expect(open(await load({ env }))).toEqual(['ovh-us', 'e', 'es', undefined])
    const explicit = { endpoint: 'ovh-eu', applicationKey: 'x' }
    const config = await load({ env, explicit })
    expect(open(config)).toEqual(['ovh-eu', 'x', 'es', 'canary-consumer'])
    expect(config.origins).toMatchObject({
      endpoint: 'the option endpoint',
      application_key: 'the option applicationKey',
      application_secret: 'the variable OVH_APPLICATION_SECRET',
    })
  })

  test('empty counts as unset, and says so', async () => {
    const { load, paths } = await place({ given: '[ovh-eu]\nconsumer_key =\n', home: FULL })
    const config = await load({ env: { OVH_APPLICATION_KEY: '', OVH_CLIENT_ID: '' }, explicit: { endpoint: '' } })
    expect(open(config)).toEqual(['ovh-eu', 'key', 'canary-secret', 'canary-consumer'])
    expect(config.notes).toEqual([
      'endpoint is empty and counts as unset (the option endpoint)',
      'application_key is empty and counts as unset (the variable OVH_APPLICATION_KEY)',
      `consumer_key is empty and counts as unset (${paths.given}, line 2)`,
      'client_id is empty and counts as unset (the variable OVH_CLIENT_ID)',
    ])
  })

  test('secrets leave the environment of the process, and are still found the next time', async () => {
    const values = { OVH_ENDPOINT: 'ovh-ca', OVH_APPLICATION_KEY: 'k', OVH_APPLICATION_SECRET: 'canary-env' }
    const before = { ...process.env }
    onTestFinished(() => {
      process.env = before
    })
    Object.assign(process.env, values)
    const { load } = await place()
    const nowhere = { cwd: '/nowhere', home: '/nowhere', systemFile: '/nowhere/x' }
    for (let round = 0; round < 2; round++) {
      expect(open(await loadOvhConfig(nowhere))).toEqual(['ovh-ca', 'k', 'canary-env', undefined])
      expect(process.env).not.toHaveProperty('OVH_APPLICATION_SECRET')
      expect(process.env).toHaveProperty('OVH_APPLICATION_KEY', 'k')
    }
    expect(await errorOf(load())).toMatchObject({ code: 'CONFIG_INVALID' })
  })

  test('nothing secret shows in a config', async () => {
    const config = await (await place({ home: FULL })).load()
    for (const view of [JSON.stringify(config), inspect(config, { depth: 9, showHidden: true }), String(config)]) {
      expect(view).not.toContain(CANARY)
    }
  })

  test('a config is what the authorizers take', async () => {
    const { load } = await place({ home: FULL })
    const signature = await load()
    if (signature.kind !== 'signature') throw new Error('the other kind')
    expect(ovhSignatureAuthorizer(signature).name).toBe('ovh-signature')
    const oauth2 = await load({ explicit: { endpoint: 'ovh-us', clientId: 'c', clientSecret: 's' } })
    if (oauth2.kind !== 'oauth2') throw new Error('the other kind')
    expect(open(oauth2)).toEqual(['ovh-us', 'c', 's'])
    expect(ovhOAuth2Authorizer(oauth2).name).toBe('ovh-oauth2')
  })
})

describe('the dialect', () => {
  test('spaces, case, both separators, comments, what looks like a comment, line ends, a byte order mark', async () => {
    const lines = [
      '\ufeff# a comment = x',
      '  ; another [x',
      '[ default ]',
      'EndPoint:ovh-eu',
      '',
      '[ovh-eu]',
      '\tAPPLICATION_KEY\t =  fileA  ',
      'application_secret: a=b:c ; "x" # %(y)s $z',
      'consumer_key=  canary key ',
      'unknown = 7',
      '[OVH-EU]',
      'application_key = other case, other section',
      '[default-not]',
    ]
    for (const end of ['\n', '\r\n', '\r']) {
      const { load } = await place({ home: lines.join(end) })
      expect(open(await load())).toEqual(['ovh-eu', 'fileA', 'a=b:c ; "x" # %(y)s $z', 'canary key'])
    }
  })

  test('[default] is a section like any other: its keys are not inherited', async () => {
    const { load } = await place({ home: '[default]\nendpoint=ovh-eu\napplication_key=k\napplication_secret=s\n' })
    expect((await errorOf(load())).message).toContain('there are no keys')
  })

  test.each<[string, string | Uint8Array, RegExp]>([
    ['a line that is nothing', '[a]\n\ncanary-secret\n', /line 3: neither/],
    ['a value without a name', '[a]\n= canary-secret', /line 2: neither/],
    ['a value before a section', 'x = canary-secret', /line 1: a value before/],
    ['an open section', '[canary-secret\n', /line 1: the section/],
    ['an empty one', '[]\n', /line 1: the section/],
    ['something behind one', '[a] canary-secret\n', /line 1: the section/],
    ['a section twice', '[a]\n[b]\n[a]\n', /line 3: the section is there twice/],
    ['a name twice', '[a]\nx = 1\nX = canary-secret', /line 3: the name is there twice/],
    ['bytes that are no text', Uint8Array.of(0x5b, 0xff, 0x5d), /not UTF-8/],
    ['too much', `[a]\n${'#'.repeat(70_000)}`, /longer than/],
  ])('%s is fatal, named by file and line, and not quoted', async (_what, content, text) => {
    for (const name of ['given', 'project', 'home', 'system'] as const) {
      const { load, paths } = await place({ [name]: content })
      const error = await errorOf(load({ explicit: { endpoint: 'ovh-eu', ...KEYS } }))
      expect(error).toMatchObject({ class: 'usage', code: 'CONFIG_INVALID' })
      expect(error.message).toMatch(text)
      expect(error.message).toContain(paths[name])
      expectNoSecret(error, CANARY)
    }
  })
})

describe('files that are not as they should be', () => {
  const explicit = { endpoint: 'ovh-eu', ...KEYS }

  test('a directory, a dangling link or nothing is passed over', async () => {
    const { load, paths } = await place()
    await mkdir(paths.project)
    await symlink('/nowhere/at/all', paths.home)
    const config = await load({ explicit })
    expect(config.notes).toEqual([`${paths.project} is not a regular file and was passed over`])
  })

  test.skipIf(isRoot)('one that cannot be read is passed over (root reads everything)', async () => {
    const { load, paths } = await place({ home: FULL }, 0o000)
    expect((await load({ explicit })).notes).toEqual([`${paths.home} cannot be read (EACCES) and was passed over`])
  })

  test.each([0o620, 0o602, 0o666])('mode %o: others could swap the keys, so it is refused', async (mode) => {
    for (const name of ['project', 'home', 'given'] as const) {
      const { load, paths } = await place({ [name]: FULL }, mode)
      const error = await errorOf(load({ explicit }))
      expect(error).toMatchObject({ class: 'usage', code: 'CONFIG_INVALID' })
      expect(error.message).toContain(`${paths[name]} can be changed by other users`)
      expectNoSecret(error, CANARY)
    }
  })

  test.skipIf(!isRoot)('so is one of another user (needs root)', async () => {
    const { load, paths } = await place({ project: FULL })
    await chown(paths.project, NOBODY, NOBODY)
    expect((await errorOf(load({ explicit }))).message).toContain(`${paths.project} can be changed by other users`)
  })

  test('one that others can read works, with a warning', async () => {
    const { load, paths } = await place({ home: FULL }, 0o644)
    const config = await load()
    expect(open(config)).toContain('canary-secret')
    expect(config.notes).toEqual([`${paths.home} can be read by other users: chmod 600`])
  })
})

describe('what does not go together', () => {
  const wrong: [string, OvhSources['explicit'] & object, RegExp[]][] = [
    ['nothing at all', {}, [/no region is named/, /there are no keys/]],
    ['no region', KEYS, [/no region is named/]],
    ['an unknown one', { endpoint: 'canary-mars', ...KEYS }, [/the option endpoint names no region/]],
    ['a region only', { endpoint: 'ovh-eu' }, [/there are no keys/]],
    ['a key alone', { endpoint: 'ovh-eu', applicationKey: 'canary-k' }, [/application_secret is missing/]],
    ['a secret alone', { endpoint: 'ovh-eu', applicationSecret: 'canary-s' }, [/application_key is missing/]],
    ['a client alone', { endpoint: 'ovh-eu', clientId: 'canary-c' }, [/client_secret is missing/]],
    ['its secret alone', { endpoint: 'ovh-eu', clientSecret: 'canary-c' }, [/client_id is missing/]],
    ['a consumer key alone', { endpoint: 'ovh-eu', consumerKey: 'canary-c' }, [/there are no keys/]],
    ['both ways', { endpoint: 'ovh-eu', ...KEYS, clientId: 'c', clientSecret: 'canary-c' }, [/only one can be used/]],
    ['OAuth2 elsewhere', { endpoint: 'kimsufi-eu', clientId: 'c', clientSecret: 'canary-c' }, [/ovh-eu, ovh-ca and/]],
    ['http', { endpoint: 'http://api.test/1.0', ...KEYS }, [/names no region/]],
    [
      'everything at once',
      { endpoint: 'soyoustart-ca', applicationKey: 'canary-k', clientId: 'canary-c' },
      [/application_secret is missing/, /client_secret is missing/, /only one can be used/, /ovh-eu, ovh-ca and/],
    ],
  ]
  test.each(wrong)('%s', async (_what, explicit, texts) => {
    const error = await errorOf((await place()).load({ explicit }))
    expect(error).toMatchObject({ class: 'usage', code: 'CONFIG_INVALID' })
    for (const text of texts) expect(error.message).toMatch(text)
    expect(error.message.split('; ').length).toBeGreaterThanOrEqual(texts.length)
    if (/region/.test(error.message)) for (const name of OVH_REGIONS) expect(error.message).toContain(name)
    expectNoSecret(error, CANARY)
  })

  test('problems of files and values come together, with the origins of what clashes', async () => {
    const { load, paths } = await place({ project: 'broken', home: `${FULL}client_id = c\n` })
    const error = await errorOf(load({ env: { OVH_CLIENT_SECRET: 'canary-c' } }))
    for (const text of [
      `${paths.project}, line 1`,
      `application_key from ${paths.home}, line 5`,
      `client_id from ${paths.home}, line 8`,
      'client_secret from the variable OVH_CLIENT_SECRET',
    ]) {
      expect(error.message).toContain(text)
    }
    expectNoSecret(error, CANARY)
  })

  test('an address of one’s own is for the caller to give, not for a variable or a file', async () => {
    const endpoint = 'http://127.0.0.1:8080/1.0'
    const { load } = await place({ home: `[default]\nendpoint = ${endpoint}\n` })
    expect((await errorOf(load({ explicit: KEYS }))).message).toMatch(/\.ovh\.conf, line 2 names no region/)
    const env = { OVH_ENDPOINT: endpoint }
    expect((await errorOf(load({ explicit: KEYS, env }))).message).toMatch(/OVH_ENDPOINT names no region/)
    expect(await load({ explicit: { endpoint, ...KEYS } })).toMatchObject({ kind: 'signature', endpoint })
    const client = { endpoint, clientId: 'c', clientSecret: 's' }
    expect((await errorOf(load({ explicit: client }))).message).toContain('OAuth2')
    const tokenUrl = 'http://127.0.0.1:8080/token'
    expect(await load({ explicit: { ...client, tokenUrl } })).toMatchObject({ kind: 'oauth2', tokenUrl })
  })
})
