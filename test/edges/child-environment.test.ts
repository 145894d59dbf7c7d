/** Programs that are started from here get no secrets of ours, by kind and not by a list of names. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { childEnvironment } from '../../src/cli/child-environment.ts'
import { handOver } from '../../src/cli/coreutils.ts'
import { getSecret } from '../../src/cli/secrets.ts'
import { SETTINGS, variableOf } from '../../src/cli/settings.ts'

const SECRET = 'canary-5ec2e7'
const NAMES = [
  'SEALSYNC_PASSWORD',
  'SEALSYNC_KEY_PASSWORD',
  'SEALSYNC_PING_URL',
  'SEALSYNC_HEADER',
  'SEALSYNC_PROXY',
  'SEALSYNC_S3_ACCESS_KEY',
  'SEALSYNC_S3_SECRET_KEY',
  'SEALSYNC_SOMETHING_NEW',
  'OVH_APPLICATION_KEY',
  'OVH_APPLICATION_SECRET',
  'OVH_CONSUMER_KEY',
  'OVH_CLIENT_SECRET',
  'ovh_access_token',
]
afterEach(() => {
  for (const name of NAMES) delete process.env[name]
})

test('a password command sees none, and what belongs to others', async () => {
  for (const name of NAMES) process.env[name] = SECRET
  const script = `process.stdout.write(JSON.stringify(process.env))`
  const command = `"${process.execPath}" -e '${script}'`
  const seen = JSON.parse(Buffer.from(await getSecret({ command })).toString())
  expect(Object.values(seen).filter((value) => String(value).includes(SECRET))).toEqual([])
  expect(seen.PATH).toBe(process.env.PATH)
})

test.skipIf(process.platform === 'win32')('the program of the same name sees none', () => {
  const directory = mkdtempSync(join(tmpdir(), 'sealsync-env-'))
  try {
    const theirs = join(directory, 'sync')
    writeFileSync(theirs, `#!/bin/sh\nenv > '${directory}/seen'\n`, { mode: 0o755 })
    process.env.SEALSYNC_KEY_PASSWORD = SECRET
    const { PATH } = process.env
    process.env.PATH = `${directory}:${PATH}`
    try {
      expect(handOver([process.execPath, process.execPath])).toBe(0)
    } finally {
      process.env.PATH = PATH
    }
    const seen = readFileSync(join(directory, 'seen'), 'utf8')
    expect(seen).toContain('PATH=')
    expect(seen).not.toContain(SECRET)
  } finally {
    rmSync(directory, { recursive: true })
  }
})

test('settings that may hold a secret are told from the others', () => {
  const all = Object.fromEntries(SETTINGS.map(({ name }) => [variableOf(name), 'x']))
  const left = childEnvironment({ ...all, SEALSYNC_HOME: '/h', VAULT_TOKEN: 'theirs' })
  expect(left).toMatchObject({ SEALSYNC_HOME: '/h', VAULT_TOKEN: 'theirs', SEALSYNC_PROFILE: 'x' })
  const gone = Object.keys(all).filter((name) => !(name in left))
  expect(gone.sort()).toEqual(['SEALSYNC_HEADER', 'SEALSYNC_PING_URL', 'SEALSYNC_PROXY'])
})
