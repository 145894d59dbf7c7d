/**
 * The encryption password from hardware and from systemd. The TPM is a real one in software (swtpm) behind the real tpm2-tools. Nobody
 * has a security key here: programs stand in for those of libfido2 that speak the command line of their manual pages, so what is
 * tested is how they are called and what is made of their answers.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createConnection } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { readCredential } from '../../src/cli/credential.ts'
import { openSealedPassword, sealPassword } from '../../src/cli/sealed-password.ts'
import { createWorld, KEY_PASSWORD, makeTree, type World } from '../support/cli.ts'
import { errorOf } from '../support/servers.ts'

let world: World
beforeAll(async () => {
  world = await createWorld()
  makeTree(world.path('src'), { a: 'content' })
  const sent = await world.transfer(['upload', world.path('src'), '/room'])
  expect(sent.code).toBe(0)
})
afterAll(() => world.close())

const has = (program: string) => spawnSync(program, ['--version']).error === undefined
const sealedFiles = () => {
  const directory = join(world.home, 'sealed-passwords')
  return existsSync(directory) ? readdirSync(directory) : []
}
const key = () => ['--key-password-file', world.keyPasswordFile]
const filesHolding = (text: string, directory = world.home): string[] =>
  readdirSync(directory, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((path) => readFileSync(path).includes(text))

describe('credentials of systemd', () => {
  const directory = () => world.path('credentials')
  beforeAll(() => {
    mkdirSync(directory(), { mode: 0o700 })
    writeFileSync(join(directory(), 'key-password'), `${KEY_PASSWORD}\n`, { mode: 0o400 })
  })

  const read = async (name: string, from: string | undefined = directory()) =>
    Buffer.from(await readCredential(name, from)).toString()

  test('one that is private gives the password; systemd shows its access list as a group', async () => {
    expect(await read('key-password')).toBe(KEY_PASSWORD)
    chmodSync(join(directory(), 'key-password'), 0o440)
    expect(await read('key-password')).toBe(KEY_PASSWORD)
    const set = await world.cli(['cat', '/room/src/a'], {
      env: { CREDENTIALS_DIRECTORY: directory(), SEALSYNC_KEY_PASSWORD_CREDENTIAL: 'key-password' },
    })
    expect([set.code, set.stdout]).toEqual([0, 'content'])
  })

  test('what others can change, read or point elsewhere is refused; so are names that are paths', async () => {
    const code = async (...args: Parameters<typeof read>) => (await errorOf(read(...args))).code
    writeFileSync(join(directory(), 'open'), KEY_PASSWORD, { mode: 0o644 })
    expect(await code('open')).toBe('SECRET_FILE_OPEN')
    symlinkSync('key-password', join(directory(), 'link'))
    expect(await code('link')).toBe('CREDENTIAL_MISSING')
    expect(await code('none')).toBe('CREDENTIAL_MISSING')
    for (const name of ['../credentials/key-password', '..', '']) expect(await code(name)).toBe('OPTION_INVALID')
    expect(await code('key-password', 'relative')).toBe('CREDENTIAL_MISSING')
    expect(await code('key-password', '')).toBe('CREDENTIAL_MISSING')
    chmodSync(directory(), 0o722)
    expect(await code('key-password')).toBe('SECRET_FILE_OPEN')
    chmodSync(directory(), 0o700)
  })
})

const noTpm = has('swtpm') && has('tpm2_unseal') ? '' : ' (needs swtpm and tpm2-tools)'

describe.skipIf(noTpm)(`a TPM${noTpm}`, () => {
  let tpm: ChildProcess
  const socket = () => world.path('tpm.sock')
  const env = () => ({ TPM2TOOLS_TCTI: `swtpm:path=${socket()}`, PATH: process.env.PATH ?? '' })
  const start = async (state: string) => {
    mkdirSync(state, { recursive: true })
    const control = `${socket()}.ctrl`
    const args = ['socket', '--tpm2', '--tpmstate', `dir=${state}`, '--flags', 'not-need-init,startup-clear']
    tpm = spawn(
      'swtpm',
      [...args, '--server', `type=unixio,path=${socket()}`, '--ctrl', `type=unixio,path=${control}`],
      {
        stdio: 'ignore',
      },
    )
    // It is there once it takes connections.
    for (;;) {
      const there = await new Promise((resolve) => {
        const connection = createConnection(control, () => resolve(true))
        connection.on('error', () => resolve(false)).on('connect', () => connection.end())
      })
      if (there) return
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
  const stop = async () => {
    const ended = once(tpm, 'exit')
    tpm.kill()
    await ended
    for (const path of [socket(), `${socket()}.ctrl`]) rmSync(path, { force: true })
  }
  beforeAll(() => start(world.path('tpm-state')))
  afterAll(stop)

  test('seals for a command, follows a new password, and is forgotten', async () => {
    const sealed = await world.cli(['keys', 'seal', 'tpm2', ...key(), '--json'], { env: env() })
    expect([sealed.code, sealed.json]).toEqual([0, [{ type: 'sealed', kind: 'tpm2' }]])
    expect(filesHolding(KEY_PASSWORD)).toEqual([])
    const change = ['keys', 'passwd', '--key-password-sealed', 'tpm2', '--generate', world.path('next')]
    const changed = await world.cli(change, { env: env() })
    expect([changed.code, changed.stderr]).toEqual([0, expect.not.stringContaining('warning')])
    const opened = await world.cli(['cat', '/room/src/a', '--key-password-sealed', 'tpm2'], { env: env() })
    expect([opened.code, opened.stdout]).toEqual([0, 'content'])
    const made = readFileSync(world.path('next'), 'utf8').trim()
    expect(made).toMatch(/^(?:[A-Za-z2-9]{5}-){5}[A-Za-z2-9]{5}$/)
    expect(filesHolding(made)).toEqual([])
    expect(await world.cli(['keys', 'forget'])).toMatchObject({ code: 0 })
    expect([sealedFiles(), readdirSync(join(world.home, 'tmp'))]).toEqual([[], []])
    // As it was, for the tests below.
    const back = ['--key-password-file', world.path('next'), '--new-key-password-file', world.keyPasswordFile]
    expect(await world.cli(['keys', 'passwd', ...back])).toMatchObject({ code: 0 })
  })

  test('another TPM, none, another account, and what was changed open nothing', async () => {
    process.env.TPM2TOOLS_TCTI = env().TPM2TOOLS_TCTI
    onTestFinished(() => void delete process.env.TPM2TOOLS_TCTI)
    const home = world.path('other-home')
    const open = (account = 'anna') => openSealedPassword(home, account, 'tpm2', () => {})
    const code = async () => (await errorOf(open())).code
    expect(await code()).toBe('SEALED_PASSWORD_MISSING')
    const long = 'p'.repeat(1_000)
    await sealPassword(home, 'anna', 'tpm2', Buffer.from(long), () => {})
    expect(Buffer.from(await open()).toString()).toBe(long)
    await stop()
    expect(await code()).toBe('SEAL_TOOL_FAILED')
    await start(world.path('other-state'))
    expect(await code()).toBe('SEAL_TOOL_FAILED')
    await stop()
    await start(world.path('tpm-state'))
    const directory = join(home, 'sealed-passwords')
    const path = join(directory, readdirSync(directory)[0]!)
    const whole = readFileSync(path, 'utf8')
    const { ciphertext } = JSON.parse(whole)
    const flipped = ciphertext.startsWith('A') ? `B${ciphertext.slice(1)}` : `A${ciphertext.slice(1)}`
    for (const bad of ['{', whole.replace(ciphertext, flipped), whole.replace('"parts":["', '"parts":["-\\n')]) {
      writeFileSync(path, bad)
      expect(await code()).toBe('SEALED_PASSWORD_DAMAGED')
    }
    writeFileSync(path, whole)
    expect(Buffer.from(await open()).toString()).toBe(long)
    expect(readdirSync(join(home, 'tmp'))).toEqual([])
  })
})

describe.skipIf(process.platform === 'win32')('a security key, by programs that stand in', () => {
  /** One program for all three; what it is asked is kept. */
  const STAND_IN = `#!${process.execPath}
const { createHmac } = require('node:crypto')
const fs = require('node:fs'), path = require('node:path')
const dir = path.dirname(process.argv[1]), name = path.basename(process.argv[1])
const [args, input] = [process.argv.slice(2), name === 'fido2-token' ? '' : fs.readFileSync(0, 'utf8')]
fs.appendFileSync(path.join(dir, 'asked'), JSON.stringify({ name, args, input, env: Object.keys(process.env) }) + '\\n')
const device = fs.readFileSync(path.join(dir, 'devices'), 'utf8')
const say = (...lines) => process.stdout.write(lines.join('\\n') + '\\n')
const [hash, party, third, fourth] = input.split('\\n')
const auth = Buffer.alloc(37).toString('base64'), signature = Buffer.alloc(71, 1).toString('base64')
if (name === 'fido2-token') process.stdout.write(device)
else if (fs.existsSync(path.join(dir, 'refuses'))) { process.stderr.write(name + ': FIDO_ERR_ACTION_TIMEOUT\\n'); process.exit(1) }
else if (name === 'fido2-cred') say(hash, party, 'packed', auth, Buffer.from('credential of ' + third).toString('base64'), signature)
else {
  const secret = createHmac('sha256', 'of the device').update(third).update(fourth).digest('base64')
  say(hash, party, auth, signature, fs.existsSync(path.join(dir, 'babbles')) ? 'no base64!' : secret)
}
`
  const bin = () => world.path('bin')
  const env = () => ({ PATH: `${bin()}:${process.env.PATH}` })
  const asked = () =>
    readFileSync(join(bin(), 'asked'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
  const ONE = '/dev/hidraw5: vendor=0x1050, product=0x0407 (Yubico YubiKey OTP+FIDO+CCID)\n'
  beforeAll(() => {
    mkdirSync(bin())
    for (const name of ['fido2-token', 'fido2-cred', 'fido2-assert']) {
      writeFileSync(join(bin(), name), STAND_IN, { mode: 0o755 })
    }
    writeFileSync(join(bin(), 'devices'), ONE)
  })
  const seal = () => world.cli(['keys', 'seal', 'fido2', ...key(), '--json'], { env: env() })
  const open = () => world.cli(['cat', '/room/src/a', '--key-password-sealed', 'fido2', '--json'], { env: env() })

  test('seals and opens, asks as the manual pages say, and tells when to touch', async () => {
    const sealed = await seal()
    expect([sealed.code, sealed.stderr]).toEqual([0, expect.stringContaining('Touch the security key')])
    expect(await open()).toMatchObject({ code: 0 })
    const calls = asked()
    expect(calls.map(({ name, args }) => [name, ...args].join(' '))).toEqual([
      'fido2-token -L',
      'fido2-cred -M -h /dev/hidraw5 es256',
      'fido2-token -L',
      'fido2-assert -G -h /dev/hidraw5',
      'fido2-token -L',
      'fido2-assert -G -h /dev/hidraw5',
    ])
    const [, cred, , first, , second] = calls.map(({ input }) => input.split('\n'))
    expect(cred).toEqual([expect.any(String), 'sealsync', 'sealsync', expect.any(String), ''])
    // The same credential and salt, another challenge.
    expect(second.slice(1)).toEqual(first.slice(1))
    expect(second[0]).not.toBe(first[0])
    for (const { env: names } of calls) expect(names.filter((name: string) => /PASSWORD$/.test(name))).toEqual([])
    expect(filesHolding(KEY_PASSWORD)).toEqual([])
  })

  test('none, two, one that refuses, one that babbles, and no program at all', async () => {
    const path = process.env.PATH
    process.env.PATH = env().PATH
    onTestFinished(() => {
      process.env.PATH = path
    })
    const home = world.path('key-home')
    await sealPassword(home, 'anna', 'fido2', Buffer.from('secret'), () => {})
    const open = () => openSealedPassword(home, 'anna', 'fido2', () => {})
    expect(Buffer.from(await open()).toString()).toBe('secret')
    const code = async () => (await errorOf(open())).code
    writeFileSync(join(bin(), 'devices'), '')
    expect(await code()).toBe('SECURITY_KEY_MISSING')
    writeFileSync(join(bin(), 'devices'), `${ONE}${ONE.replace('5', '6')}`)
    expect(await code()).toBe('SECURITY_KEY_AMBIGUOUS')
    writeFileSync(join(bin(), 'devices'), ONE)
    for (const how of ['refuses', 'babbles']) {
      writeFileSync(join(bin(), how), '')
      expect(await code()).toBe('SEAL_TOOL_FAILED')
      rmSync(join(bin(), how))
    }
    process.env.PATH = world.path('nothing')
    expect(await code()).toBe('SEAL_TOOL_MISSING')
    expect(await world.cli(['keys', 'seal', 'paper', ...key()])).toMatchObject({ code: 2 })
  })

  const noTool = has('fido2-token') ? '' : ' (needs fido2-tools)'
  test.skipIf(noTool)(`the real program, with no key in this machine${noTool}`, async () => {
    const listed = spawnSync('fido2-token', ['-L'], { encoding: 'utf8' })
    if (listed.stdout !== '') return // there is one
    const real = await world.cli(['keys', 'seal', 'fido2', ...key(), '--json'], {
      env: { PATH: process.env.PATH ?? '' },
    })
    expect(real.json.at(-1)).toMatchObject({ code: 'SECURITY_KEY_MISSING' })
  })
})
