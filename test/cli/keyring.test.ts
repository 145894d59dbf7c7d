import { spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createWorld, KEY_PASSWORD, listFiles, MAIN, makeTree, runProgram, type World } from '../support/cli.ts'

const has = (program: string) => spawnSync('sh', ['-c', `command -v ${program}`]).status === 0
const hasSecretService = process.platform === 'linux' && has('gnome-keyring-daemon') && has('dbus-run-session')

let world: World
beforeAll(async () => {
  world = await createWorld()
})
afterAll(() => world.close())

/** Runs a script with a session bus and an unlocked keyring of its own. */
async function withKeyring(script: string) {
  const userHome = world.path('user')
  mkdirSync(userHome, { recursive: true, mode: 0o700 })
  const lines = [
    'set -eu',
    "printf 'login' | gnome-keyring-daemon --unlock --components=secrets > /dev/null 2>&1",
    `cli() { "${process.execPath}" "${MAIN}" "$@"; }`,
    script,
  ]
  writeFileSync(world.path('script.sh'), lines.join('\n'))
  return runProgram('dbus-run-session', ['--', 'bash', world.path('script.sh')], {
    PATH: process.env.PATH ?? '',
    HOME: userHome,
    SEALSYNC_HOME: world.path('keyring-home'),
  })
}

test.runIf(hasSecretService)('login and encryption password in a real keyring (needs gnome-keyring)', async () => {
  makeTree(world.path('src'), { f: 'content' })
  const { code, stdout, stderr } = await withKeyring(`
    cli login ${world.server.url} --user anna --password-file ${world.path('password-anna')}
    cli whoami
    cli keys remember --key-password-file ${world.keyPasswordFile}
    cli upload ${world.path('src')} /room
    cli cat /room/src/f && echo
    cli keys forget
    cli cat /room/src/f || echo "without: $?"
    cli logout
    cli whoami || echo "logged out: $?"
  `)
  expect(code, stderr).toBe(0)
  expect(stdout).toContain('kept in the keyring of the operating system')
  expect(stderr).not.toContain('no keyring found')
  expect(stdout).toContain('content\n')
  expect(stdout).toContain('without: 13')
  expect(stdout).toContain('logged out: 4')
  expect(
    listFiles(world.path('keyring-home')).filter((name) => name.startsWith('grant-') && name.endsWith('.json')),
  ).toEqual([])
})

test.runIf(hasSecretService)(
  'uninstall --data finds what the keyring holds, also without a profile (needs gnome-keyring)',
  async () => {
    const { code, stdout, stderr } = await withKeyring(`
    cli login ${world.server.url} --user anna --password-file ${world.path('password-anna')} -q
    cli keys remember --key-password-file ${world.keyPasswordFile} -q
    cli uninstall --data -n --json
    rm -r "$SEALSYNC_HOME"
    cli uninstall --data --yes --json
    cli uninstall --data --json
  `)
    expect(code, stderr).toBe(0)
    const rows = stdout
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line))
    const [before, after, last] = rows.filter(({ type }) => type === 'summary')
    expect([before.accounts, before.removed]).toEqual([2, false])
    expect([after.accounts, after.files, after.removed]).toEqual([2, 0, true])
    expect(last).toMatchObject({ accounts: 0, files: 0, removed: false })
    const accounts = rows.filter(({ what }) => what === 'keyring').map(({ account }) => account)
    expect(accounts.filter((account) => account.startsWith('encryption password, '))).toHaveLength(2)
    expect(stdout + stderr).not.toContain(KEY_PASSWORD)
  },
)

test('without a keyring, remembering is refused and says what to do instead', async () => {
  const run = await world.cli(['keys', 'remember', '--key-password-file', world.keyPasswordFile])
  expect(run.code).toBe(2)
  expect(run.stderr).toContain('--key-password-file')
})
