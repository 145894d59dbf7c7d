import { chmod, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { systemClock } from '../../src/environment.ts'
import {
  encryptedFileGrantStore,
  fileGrantStore,
  memoryGrantStore,
  openGrantStore,
} from '../../src/session/grant-store.ts'
import { fakeClock } from '../support/clock.ts'
import { freshDirectory } from '../support/files.ts'
import { expectNoSecret, grantOf } from '../support/oauth.ts'
import { errorOf } from '../support/servers.ts'

const clock = fakeClock()

test('a file is private, replaced as a whole, and gone when cleared', async () => {
  const directory = join(await freshDirectory(), 'deep', 'er')
  const path = join(directory, 'grant.json')
  const store = fileGrantStore(path, systemClock)
  expect(store.place).toContain(path)
  expect(await store.load()).toBeUndefined()
  await store.clear()
  await store.save(grantOf(clock, '1'))
  await store.save(grantOf(clock, '2'))
  expect(((await stat(path)).mode & 0o777).toString(8)).toBe('600')
  expect(((await stat(directory)).mode & 0o777).toString(8)).toBe('700')
  expect(await fileGrantStore(path, systemClock).load()).toEqual(grantOf(clock, '2'))
  await store.clear()
  expect(await store.load()).toBeUndefined()
  expect(await readdir(directory)).toEqual([])
})

test('a file that others can read is refused, not used', async () => {
  const path = join(await freshDirectory(), 'grant.json')
  const store = fileGrantStore(path, systemClock)
  await store.save(grantOf(clock, 'canary'))
  await chmod(path, 0o644)
  const error = await errorOf(store.load())
  expect(error).toMatchObject({ class: 'usage', code: 'SECRET_FILE_OPEN' })
  expect(JSON.stringify(error) + error.message + error.hint).not.toContain('canary')
})

test('a record is copied field by field; what is not one counts as none', async () => {
  const path = join(await freshDirectory(), 'grant.json')
  const store = fileGrantStore(path, systemClock)
  const grant = grantOf(clock, '1')
  await writeFile(path, JSON.stringify({ ...grant, scope: 'all', extra: 1, refreshToken: 7 }), { mode: 0o600 })
  const { refreshToken: _, ...rest } = grant
  expect(await store.load()).toEqual({ ...rest, scope: 'all' })
  for (const broken of [
    { ...grant, v: 2 },
    { ...grant, accessToken: null },
    { ...grant, expiresAt: 'x' },
    { ...grant, lifetimeMs: undefined },
  ]) {
    await writeFile(path, JSON.stringify(broken))
    expect(await store.load()).toBeUndefined()
  }
})

test('a directory in its place is a local error on every path', async () => {
  const path = await freshDirectory()
  const store = fileGrantStore(path, systemClock)
  await expect(store.load()).rejects.toMatchObject({ class: 'local_io' })
  await expect(store.clear()).rejects.toMatchObject({ class: 'local_io' })
  await expect(store.save(grantOf(clock, '1'))).rejects.toMatchObject({ class: 'local_io' })
})

test.each([
  ['file', async () => fileGrantStore(join(await freshDirectory(), 'grant.json'), systemClock)],
  ['memory', async () => memoryGrantStore()],
])('exclusive work in a %s store never overlaps, also after a failure', async (_kind, make) => {
  const store = await make()
  let inside = 0
  let most = 0
  const work = (fails: boolean) =>
    store.exclusive(async () => {
      most = Math.max(most, ++inside)
      await new Promise((resolve) => setImmediate(resolve))
      inside--
      if (fails) throw new Error('failed')
      return 'done'
    })
  const results = await Promise.allSettled([work(false), work(true), work(false), work(true), work(false)])
  expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled', 'rejected', 'fulfilled'])
  expect(most).toBe(1)
})

test('accounts get their own files, whatever their length and case', async () => {
  const directory = await freshDirectory()
  const accounts = [
    'https://x|c|ann',
    'https://x|c|ANN',
    'https://x|c|bob',
    `https://x|c|${'u'.repeat(500)}`,
    '../..',
    '',
  ]
  for (const account of accounts) {
    const { store, kind } = await openGrantStore({ directory, account, clock, kind: 'file' })
    expect(kind).toBe('file')
    await store.save(grantOf(clock, account))
  }
  for (const account of accounts) {
    const { store } = await openGrantStore({ directory, account, clock, kind: 'file' })
    expect(await store.load()).toEqual(grantOf(clock, account))
  }
  const names = (await readdir(directory)).map((name) => name.toLowerCase())
  expect(new Set(names).size).toBe(accounts.length)
})

test.skipIf(process.platform !== 'linux')(
  'without a session bus there is no keyring, only the file (Linux)',
  async () => {
    const bus = process.env.DBUS_SESSION_BUS_ADDRESS
    delete process.env.DBUS_SESSION_BUS_ADDRESS
    try {
      const directory = await freshDirectory()
      const { kind } = await openGrantStore({ directory, account: 'a', clock })
      expect(kind).toBe('file')
      const error = await errorOf(openGrantStore({ directory, account: 'a', clock, kind: 'keyring' }))
      expect(error).toMatchObject({ class: 'auth', code: 'KEYRING_MISSING' })
    } finally {
      if (bus !== undefined) process.env.DBUS_SESSION_BUS_ADDRESS = bus
    }
  },
)

describe('the encrypted file', () => {
  const secret = (text: string) => async () => Buffer.from(text)
  const grant = { ...grantOf(clock, 'canary-5d1'), scope: 'all', extra: { uid: 'canary-uid' } }

  test('opens with its key only, and shows nothing without it', async () => {
    const path = join(await freshDirectory(), 'grant.enc')
    await encryptedFileGrantStore(path, secret('one'), systemClock).save(grant)
    expect((await stat(path)).mode & 0o777).toBe(0o600)
    const first = await readFile(path)
    expect(first.includes('canary')).toBe(false)
    const store = encryptedFileGrantStore(path, secret('one'), systemClock)
    expect(await store.load()).toEqual(grant)
    await store.save(grant)
    const second = await readFile(path)
    // The same salt, so that the key is stretched once; a nonce is never used twice.
    expect(second.subarray(0, 32)).toEqual(first.subarray(0, 32))
    expect(second.subarray(32, 44)).not.toEqual(first.subarray(32, 44))
    const error = await errorOf(encryptedFileGrantStore(path, secret('two'), systemClock).load())
    expect(error).toMatchObject({ class: 'auth', code: 'STORE_KEY_WRONG' })
    expectNoSecret(error, 'canary')
    await store.clear()
    expect(await store.load()).toBeUndefined()
  })

  test('a key that could not be had is asked for again', async () => {
    const path = join(await freshDirectory(), 'grant.enc')
    const locked = new Error('the agent is locked')
    let tries = 0
    const key = async () => {
      if (++tries === 1) throw locked
      return Buffer.from('one')
    }
    const store = encryptedFileGrantStore(path, key, systemClock)
    expect(await errorOf(store.save(grant))).toBe(locked)
    await store.save(grant)
    expect(await store.load()).toEqual(grant)
    expect(tries).toBe(2)
  })

  test('every altered byte is noticed', async () => {
    const path = join(await freshDirectory(), 'grant.enc')
    let asked = 0
    const store = encryptedFileGrantStore(
      path,
      async () => {
        asked++
        return Buffer.from('one')
      },
      systemClock,
    )
    await store.save(grant)
    const whole = await readFile(path)
    for (const at of [0, 15, 16, 31, 32, 43, 44, 60, whole.length - 17, whole.length - 1]) {
      const altered = Buffer.from(whole)
      altered[at]! ^= 1
      await writeFile(path, altered, { mode: 0o600 })
      expect((await errorOf(store.load())).code, `byte ${at}`).toBe(at < 16 ? 'STORE_DAMAGED' : 'STORE_KEY_WRONG')
    }
    for (const length of [0, 1, 16, 59, whole.length - 1]) {
      await writeFile(path, whole.subarray(0, length), { mode: 0o600 })
      expect((await errorOf(store.load())).code, `${length} bytes`).toMatch(/^STORE_(DAMAGED|KEY_WRONG)$/)
    }
    expect(asked).toBe(1)
  })

  test('is chosen by its key, and says what is missing without it', async () => {
    const directory = await freshDirectory()
    const opened = await openGrantStore({ directory, account: 'a', clock: systemClock, key: secret('one') })
    expect(opened.kind).toBe('encrypted')
    await opened.store.save(grant)
    const again = await openGrantStore({ directory, account: 'a', clock: systemClock, kind: 'encrypted' })
    expect(await errorOf(again.store.load())).toMatchObject({ code: 'STORE_KEY_MISSING' })
    const empty = await openGrantStore({ directory, account: 'a', clock: systemClock, key: secret('') })
    expect(await errorOf(empty.store.load())).toMatchObject({ class: 'usage', code: 'STORE_KEY_EMPTY' })
  })
})
