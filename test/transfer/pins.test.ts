import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../src/environment.ts'
import { showFingerprint } from '../../src/fingerprint.ts'
import type { TransferEvent } from '../../src/transfer/events.ts'
import { createPins, type KeyId, type OwnKey, type PinOptions } from '../../src/transfer/pins.ts'
import { errorOf } from '../support/servers.ts'

const ORIGIN = 'https://a.test'
const key = (digit: string, version: KeyId['version'] = 'RSA-4096'): KeyId => ({
  version,
  fingerprint: digit.repeat(64),
})

function place() {
  const directory = mkdtempSync(join(tmpdir(), 'sealsync-pins-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  const events: TransferEvent[] = []
  const open = (more: Partial<PinOptions> = {}) =>
    createPins({ origin: ORIGIN, clock: systemClock, directory, onEvent: (event) => events.push(event), ...more })
  const files = () => readdirSync(directory)
  const file = () => join(directory, files().find((name) => name.endsWith('.pins'))!)
  return { directory, events, open, files, file }
}
const roomOf = (id: number, isEncrypted?: boolean) =>
  ({ id, type: 'room', name: `room ${id}`, ...(isEncrypted === undefined ? {} : { isEncrypted }) }) as const
const verdict = async (pins: ReturnType<typeof createPins>, userId: number, ...keys: KeyId[]) =>
  (await pins.judge(new Map([[userId, keys]]))).get(userId)

test('first use is pinned where that is allowed, and counts for later processes', async () => {
  const { open, file } = place()
  expect(await verdict(open(), 7, key('a'))).toBe('new')
  expect(await verdict(open(), 7, key('a'))).toBe('new')
  expect(await verdict(open({ trustNew: true }), 7, key('a'))).toBe('pinned')
  expect(await verdict(open(), 7, key('a'))).toBe('trusted')
  expect(statSync(file()).mode & 0o777).toBe(0o600)
  // Another user with the same key is another user.
  expect(await verdict(open(), 8, key('a'))).toBe('new')
})

test.each([
  ['another key', [key('b')]],
  ['another version', [key('b', 'A')]],
  ['the same digits as another version', [key('a', 'A')]],
  ['one more beside it', [key('a'), key('b', 'A')]],
  ['two of one version', [key('a'), key('b')]],
])('%s is a change, also where new ones are trusted, until somebody decides', async (_what, shown) => {
  const { open } = place()
  const pins = open({ trustNew: true })
  await verdict(pins, 7, key('a'))
  expect(await verdict(pins, 7, ...shown)).toBe('changed')
  // The server goes back to the old one, and another process looks.
  expect(await verdict(open({ trustNew: true }), 7, key('a'))).toBe('changed')
  expect((await pins.read()).doubts.length).toBe(1)
  await pins.trust(7, [shown.at(-1)!], false)
  expect((await pins.read()).doubts).toEqual([])
  expect(await verdict(open(), 7, shown.at(-1)!)).toBe('trusted')
})

test('two keys of one version are nobody’s first use', async () => {
  const { open } = place()
  expect(await verdict(open({ trustNew: true }), 7, key('a'), key('b'))).toBe('changed')
  expect((await open().read()).keys).toEqual([])
  expect(await verdict(open({ trustNew: true }), 7, key('a'))).toBe('changed')
})

test('both versions at first sight are both pinned', async () => {
  const { open } = place()
  expect(await verdict(open({ trustNew: true }), 7, key('a'), key('b', 'A'))).toBe('pinned')
  expect(await verdict(open(), 7, key('b', 'A'))).toBe('trusted')
})

test('what the server makes up does not fill the file', async () => {
  const { open } = place()
  const pins = open({ trustNew: true })
  await verdict(pins, 7, key('a'))
  for (const digit of '0123456789bcdef') expect(await verdict(pins, 7, key(digit))).toBe('changed')
  expect((await pins.read()).doubts.length).toBe(4)
})

test('trusting replaces the key of that version only, and keeps who compared it', async () => {
  const { open } = place()
  const pins = open()
  await pins.trust(7, [key('a'), key('b', 'A')], true)
  await pins.trust(7, [key('c')], false)
  await pins.trust(7, [key('b', 'A')], false)
  const { keys } = await pins.read()
  expect(keys.map(({ version, fingerprint, isVerified }) => [version, fingerprint[0], isVerified]).sort()).toEqual([
    ['A', 'b', true],
    ['RSA-4096', 'c', false],
  ])
  // Only what a pin is made of is kept.
  await pins.trust(7, [{ ...key('d'), secret: 'x' } as KeyId], false)
  expect(JSON.stringify(await pins.read())).not.toContain('secret')
  expect(await pins.forget(7)).toBe(2)
  expect(await pins.forget(7)).toBe(0)
  expect(await verdict(pins, 7, key('d'))).toBe('new')
})

test('users and rooms of another server have nothing to do with these', async () => {
  const { open, files } = place()
  await open().trust(7, [key('a')], true)
  const other = open({ origin: 'https://b.test' })
  expect(await verdict(other, 7, key('a'))).toBe('new')
  await other.trust(7, [key('b')], true)
  expect(await verdict(open(), 7, key('a'))).toBe('trusted')
  expect(files().filter((name) => name.endsWith('.pins'))).toHaveLength(2)
  const room = open()
  room.saw(roomOf(5, true), 0)
  await room.close()
  other.saw(roomOf(5, false), 0)
  await other.enter(5)
})

test('many at once lose nothing', async () => {
  const { open } = place()
  const users = Array.from({ length: 12 }, (_, i) => i + 1)
  const found = await Promise.all(users.map((id) => verdict(open({ trustNew: true }), id, key('a'))))
  expect(found).toEqual(users.map(() => 'pinned'))
  expect((await open().read()).keys.map(({ userId }) => userId).sort((a, b) => a - b)).toEqual(users)
  // Two that see different first keys of one user: one is first, the other is a change.
  const two = await Promise.all(['a', 'b'].map((digit) => verdict(open({ trustNew: true }), 99, key(digit))))
  expect(two.sort()).toEqual(['changed', 'pinned'])
})

const DAMAGES: [string, (bytes: Buffer) => Buffer][] = [
  [
    'a flipped bit',
    (bytes) => Buffer.concat([bytes.subarray(0, 100), Buffer.of(bytes[100]! ^ 1), bytes.subarray(101)]),
  ],
  ['the end cut off', (bytes) => bytes.subarray(0, bytes.length - 20)],
  ['nothing in it', () => Buffer.alloc(0)],
  ['more behind it', (bytes) => Buffer.concat([bytes, Buffer.from('{}\n')])],
  ['no text', () => Buffer.alloc(300, 0xff)],
]
test.each(DAMAGES)('a file with %s is kept aside, and nobody is new after that', async (_what, damage) => {
  const { open, events, file, files, directory } = place()
  const before = open({ trustNew: true })
  await verdict(before, 7, key('a'))
  const damaged = damage(readFileSync(file()))
  writeFileSync(file(), damaged)

  const pins = open({ trustNew: true })
  expect(await verdict(pins, 7, key('a'))).toBe('lost')
  expect(events.map((event) => 'code' in event && event.code)).toEqual(['PINS_DAMAGED'])
  const aside = files().filter((name) => /\.corrupt-\d+$/.test(name))
  expect(aside).toHaveLength(1)
  expect(readFileSync(join(directory, aside[0]!))).toEqual(damaged)

  // Once said; but remembered.
  expect(await verdict(open({ trustNew: true }), 8, key('b'))).toBe('lost')
  expect(events).toHaveLength(1)
  await pins.trust(7, [key('a')], false)
  expect(await verdict(open(), 7, key('a'))).toBe('trusted')
  expect(await verdict(open({ trustNew: true }), 8, key('b'))).toBe('lost')
  // A room without encryption may have had it.
  pins.saw(roomOf(5, false), 0)
  expect(await errorOf(pins.enter(5))).toMatchObject({ class: 'safety', code: 'PINS_LOST' })
  await pins.acceptLoss()
  await pins.enter(5)
  expect(await verdict(open({ trustNew: true }), 8, key('b'))).toBe('pinned')
  expect(await verdict(open(), 7, key('a'))).toBe('trusted')
})

test('a file of another server, or of a version to come, is not read as if it were ours', async () => {
  for (const [from, to] of [
    ['"server":"https://a.test"', '"server":"https://b.test"'],
    ['"version":4', '"version":5'],
    ['"isVerified":true', '"isVerified":1'],
    ['"userId":7', '"userId":"7"'],
    ['"encrypted":[]', '"encrypted":null'],
    ['"plain":[]', '"plain":[{"id":"5"}]'],
    ['"keys":[', '"keys":[null,'],
  ] as const) {
    const { open, file } = place()
    await open().trust(7, [key('a')], true)
    const json = readFileSync(file(), 'utf8').split('\n')[1]!
    expect(json).toContain(from)
    const changed = json.replace(from, to)
    const { createHash } = await import('node:crypto')
    writeFileSync(file(), `${createHash('sha256').update(changed).digest('hex')}\n${changed}\n`)
    expect(await verdict(open(), 7, key('a')), to).toBe('lost')
  }
})

test.skipIf(process.platform === 'win32')('a file that others can change is refused', async () => {
  const { open, file } = place()
  await open().trust(7, [key('a')], true)
  chmodSync(file(), 0o666)
  expect(await errorOf(verdict(open(), 7, key('a')))).toMatchObject({ class: 'usage', code: 'SECRET_FILE_OPEN' })
})

test('own keys: what was proven, to the letter, for a month, and nothing that was only trusted', async () => {
  const { open } = place()
  let now = 1_000
  const later = () => open({ clock: { ...systemClock, now: () => now } })
  const own: OwnKey = { account: 'anna', lockedKey: 'c'.repeat(64), ...key('a') }
  await later().trust(7, [own], true)
  expect(await later().isProven(own)).toBe(false)
  await later().prove(own)
  expect(await later().isProven(own)).toBe(true)
  for (const other of [
    { ...own, account: 'bert' },
    { ...own, fingerprint: 'b'.repeat(64) },
    { ...own, version: 'A' } as const,
    { ...own, lockedKey: 'd'.repeat(64) },
  ]) {
    expect(await later().isProven(other)).toBe(false)
  }
  expect(await open({ origin: 'https://b.test' }).isProven(own)).toBe(false)
  now = 999
  expect(await later().isProven(own)).toBe(false)
  now = 1_000 + 30 * 86_400_000 - 1
  expect(await later().isProven(own)).toBe(true)
  now++
  expect(await later().isProven(own)).toBe(false)
  // One of a version at a time.
  await later().prove({ ...own, fingerprint: 'b'.repeat(64) })
  await later().prove({ ...own, version: 'A' })
  expect((await later().read()).own).toHaveLength(2)
  await later().forget(7)
  expect((await later().read()).own).toHaveLength(2)
})

test('rooms: once encrypted, always, for this process and later ones; others go on', async () => {
  const { open } = place()
  const pins = open()
  pins.saw(roomOf(5, true), 0)
  pins.saw(roomOf(6, false), 0)
  await pins.enter(5)
  await pins.enter(6)
  await pins.enter(0)
  await pins.enter(12345) // a folder
  for (const shown of [roomOf(5, false), roomOf(5), { ...roomOf(5), type: 'folder' } as const]) {
    pins.saw(shown, 0)
    expect(await errorOf(pins.enter(5))).toMatchObject({ class: 'safety', code: 'ROOM_NOT_ENCRYPTED' })
  }
  const later = open()
  later.saw(roomOf(5, false), 0)
  later.saw(roomOf(6, true), 0)
  expect(await errorOf(later.enter(5))).toMatchObject({ code: 'ROOM_NOT_ENCRYPTED' })
  await later.close()
  expect((await open().read()).encrypted).toEqual([
    { id: 5, path: '/room 5' },
    { id: 6, path: '/room 6' },
  ])
  expect(await later.forgetPlace(5, '/room 5')).toBe(true)
  expect(await later.forgetPlace(5, '/room 5')).toBe(false)
  await later.enter(5)
})

test('rooms seen in the same moment by two calls are both known', async () => {
  const pins = place().open()
  pins.saw(roomOf(5, true), 0)
  const first = pins.enter(5)
  pins.saw(roomOf(5, false), 0)
  expect(await errorOf(pins.enter(5))).toMatchObject({ code: 'ROOM_NOT_ENCRYPTED' })
  await first.catch(() => {})
})

test('a room that cannot be written down is said, and protects this process', async () => {
  const { directory, events } = place()
  writeFileSync(join(directory, 'a file'), '')
  const pins = createPins({
    origin: ORIGIN,
    clock: systemClock,
    directory: join(directory, 'a file', 'below'),
    onEvent: (event) => events.push(event),
  })
  pins.saw(roomOf(5, true), 0)
  await pins.enter(5)
  expect(events).toMatchObject([{ type: 'warning', code: 'ROOMS_NOT_PINNED' }])
  pins.saw(roomOf(5, false), 0)
  expect(await errorOf(pins.enter(5))).toMatchObject({ name: 'SyncError' })
  // A member's key is another matter: nothing is handed out on what is not kept.
  expect(await errorOf(pins.trust(7, [key('a')], false))).toMatchObject({ class: 'local_io' })
})

test('in memory it holds for one run', async () => {
  const pins = createPins({ origin: ORIGIN, clock: systemClock, trustNew: true })
  expect(await verdict(pins, 7, key('a'))).toBe('pinned')
  expect(await verdict(pins, 7, key('b'))).toBe('changed')
})

test('fingerprints in groups of four', () => {
  expect(showFingerprint(`${'0123'.repeat(16)}`)).toBe(Array(16).fill('0123').join(' '))
})
