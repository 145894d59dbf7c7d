/** Rescue keys of rooms: made for a room that is there, and what they bring back when nobody can open the files any more. @module */
import { mkdtempSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import type { RoomRescueCreated } from '../../src/client/index.ts'
import type { Client } from '../../src/client.ts'
import { unlockFixture } from '../crypto/support.ts'
import { createWorld, giveKeyPair, type World } from '../support/cli.ts'
import { errorOf } from '../support/servers.ts'

let world: World
let anna: Client
let made: RoomRescueCreated
beforeAll(async () => {
  world = await createWorld()
  anna = await world.openClient({ directory: mkdtempSync(join(world.base, 'anna-')), confirm: async () => true })
  await anna.put('/room/before', Buffer.from('before'))
  made = await anna.rescue.createForRoom('/room')
})
afterAll(async () => {
  await anna.close()
  await world.close()
})

const paper = () => made.papers[0]!.lines().join('\n')

test('it gets the keys of all files, those that are there and new ones, and is trusted where it was made', async () => {
  expect(made).toMatchObject({ room: '/room', handedOut: 1, version: 'RSA-4096' })
  expect(JSON.stringify(made)).not.toContain(made.password()!.slice(0, 9))
  expect((await anna.rescue.list()).server).toEqual([
    { of: 'room', room: 'room', version: 'RSA-4096', fingerprint: made.fingerprint, state: 'trusted' },
  ])
  const { refused } = await anna.put('/room/after', Buffer.from('after'))
  expect(refused).toEqual([])
  const secret = await anna.rescue.read([paper()])
  expect((await anna.rescue.drillRoom('/room', { secret })).report).toMatchObject({ isRight: true, sampled: 2 })
  // Other programs are given the password.
  const typed = await anna.rescue.drillRoom('/room', { password: made.password()! }, { files: 1 })
  expect(typed.report).toMatchObject({ isRight: true, sampled: 1, key: made.fingerprint })
})

test('a second one, one of a plain room, and wrong papers are refused', async () => {
  expect(await errorOf(anna.rescue.createForRoom('/room'))).toMatchObject({ code: 'RESCUE_KEY_EXISTS' })
  await anna.rooms.create('/plain', { plain: true })
  expect(await errorOf(anna.rescue.createForRoom('/plain'))).toMatchObject({ code: 'ENCRYPTION_DIFFERS' })
  const password = 'another one'
  expect(await errorOf(anna.rescue.restoreRoom('/room', { password }))).toMatchObject({ code: 'KEY_PASSWORD_WRONG' })
  expect(await errorOf(anna.rescue.restoreRoom('/plain', { password }))).toMatchObject({ code: 'ENCRYPTION_DIFFERS' })
  expect(await errorOf(anna.rescue.restoreSystem(password))).toMatchObject({ code: 'RESCUE_KEY_MISSING' })
  const account = await anna.rescue.create({ file: join(world.base, 'account.json') })
  const secret = await anna.rescue.read([account.papers[0]!.lines().join('\n')])
  expect(await errorOf(anna.rescue.restoreRoom('/room', { secret }))).toMatchObject({ code: 'RESCUE_TEXT_INVALID' })
})

test('an administrator with a new key pair gets all file keys back by the paper', async () => {
  await anna.api.send({ method: 'DELETE', url: `${anna.origin}/api/v4/user/account/keypair?version=RSA-4096` })
  const later = await world.openClient({ directory: mkdtempSync(join(world.base, 'later-')) })
  onTestFinished(() => later.close())
  await giveKeyPair(later, await unlockFixture('A'))
  expect(await errorOf(later.get('/room/before'))).toMatchObject({ code: 'FILE_KEY_MISSING' })
  const secret = await later.rescue.read([paper()])
  const { handedOut, skipped, refused } = await later.rescue.restoreRoom('/room', { secret })
  expect([handedOut, skipped, refused]).toEqual([2, 0, []])
  for (const name of ['before', 'after']) {
    expect(Buffer.from(await (await later.get(`/room/${name}`)).bytes()).toString()).toBe(name)
  }
})
