/** keys list, verify, trust and forget, and the exit codes of what members' keys and rooms stop. @module */
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { generateKeyPair, type UserKeyPair } from '../../crypto/index.ts'
import { getAccount } from '../../src/api/account.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import { createWorld, giveKeyPair, MAIN, makeRoom, makeTree, type World } from '../support/cli.ts'

let world: World
let pairs: UserKeyPair[]
let bob: number
beforeAll(async () => {
  ;[world, pairs] = await Promise.all([
    createWorld({ users: ['anna', 'bob', '7'] }),
    Promise.all([generateKeyPair('A'), generateKeyPair('A'), generateKeyPair('A')]),
  ])
  bob = (await getAccount((await world.client('bob')).api)).id
  await giveKeyPair(await world.client('7'), pairs[2])
  for (const name of ['bob', '7']) {
    expect((await world.cli(['room', 'members', '/room', '--add', name, '--role', 'read'])).code).toBe(0)
  }
})
afterAll(() => world.close())

const pinDirectory = () => join(world.home, 'pins')
beforeEach(async () => {
  rmSync(pinDirectory(), { recursive: true, force: true })
  await setKey(0)
})
afterEach(() => world.server.faults.clear())

async function setKey(number: number): Promise<void> {
  const client = await world.client('bob')
  await client.api.send({ method: 'DELETE', url: `${client.origin}/api/v4/user/account/keypair?version=A` })
  await giveKeyPair(client, pairs[number])
}
const fingerprintOf = (number: number) => pairs[number]!.publicKey.fingerprint
const grouped = (number: number) => fingerprintOf(number).match(/.{4}/g)!.join(' ')

let count = 0
async function upload(...more: string[]) {
  const path = world.path(`src ${++count}`)
  makeTree(path, { f: `content ${count}` })
  const run = await world.transfer(['upload', path, '/room', ...more])
  expect(run.summary).toMatchObject({ transferred: 1, failed: [] })
  const { pending = [] } = run.summary as { pending?: { name: string; code: string }[] }
  return { ...run, codes: pending.map(({ name, code }) => [name, code]) }
}
const distribute = (...more: string[]) =>
  world.cli(['keys', 'distribute', '--json', '--key-password-file', world.keyPasswordFile, ...more])
/** Runs a command in a directory. */
const runIn = (directory: string, args: readonly string[]) => {
  const done = spawnSync(process.execPath, [MAIN, ...args], {
    cwd: directory,
    env: { PATH: process.env.PATH ?? '', SEALSYNC_HOME: world.home },
    encoding: 'utf8',
  })
  return { code: done.status, stderr: `${done.stdout}${done.stderr}` }
}
const states = async () => {
  const run = await world.cli(['keys', 'list', '--json'])
  return { code: run.code, rows: run.json.map((row) => [row.user, row.state, row.fingerprint]) }
}

test('a script hands out to nobody it does not know: 3, and all of it after trust', async () => {
  const first = await upload()
  expect(first.code).toBe(3)
  expect(first.codes).toEqual([
    [`bob (user ${bob})`, 'MEMBER_NEW'],
    [expect.stringMatching(/^7 \(user \d+\)$/), 'MEMBER_NEW'],
  ])
  expect(first.stderr).toContain(grouped(0))
  expect(first.stderr).toContain(`sync keys trust id:${bob}`)
  const refused = await distribute()
  expect(refused.code).toBe(3)
  expect(refused.json.at(-1)).toMatchObject({
    type: 'distribution',
    handedOut: 0,
    refused: [{ userId: bob, code: 'MEMBER_NEW' }, { code: 'MEMBER_NEW' }],
  })

  const trusted = await world.cli(['keys', 'trust', 'bob', '--json'])
  expect(trusted.code).toBe(0)
  expect(trusted.json).toEqual([
    { type: 'key-trusted', userId: bob, user: 'bob', version: 'A', fingerprint: fingerprintOf(0) },
  ])
  expect((await distribute()).code).toBe(3)
  expect((await world.cli(['keys', 'trust', '--all'])).code).toBe(0)
  const all = await distribute('--room', '/room')
  expect(all.json.at(-1)).toMatchObject({ skipped: 0, refused: [] })
  expect(all.code).toBe(0)
  expect((await upload()).code).toBe(0)
})

test('new members are trusted where that is asked for: by flag or variable, not by a project', async () => {
  expect((await upload('--trust-new-members')).code).toBe(0)
  rmSync(pinDirectory(), { recursive: true })
  makeTree(world.path('project'), { 'sealsync.toml': 'trust-new-members = true\n', f: 'x' })
  const project = await runIn(world.path('project'), ['config', 'check'])
  expect(project.stderr).toContain('trust-new-members')
  expect(project.code).toBe(2)
  const env = { SEALSYNC_TRUST_NEW_MEMBERS: '1' }
  expect((await world.transfer(['upload', world.path('project', 'f'), '/room'], { env })).code).toBe(0)
})

test('another key than before: 7, others go on, until somebody has compared it', async () => {
  expect((await upload('--trust-new-members')).code).toBe(0)
  await setKey(1)
  const run = await upload('--trust-new-members')
  expect(run.code).toBe(7)
  expect(run.codes).toEqual([[`bob (user ${bob})`, 'MEMBER_KEY_CHANGED']])
  expect((await distribute('--trust-new-members')).code).toBe(7)
  expect(await states()).toEqual({
    code: 7,
    rows: [
      ['you', 'own', expect.any(String)],
      ['bob', 'doubted', fingerprintOf(0)],
      ['bob', 'changed', fingerprintOf(1)],
      ['7', 'trusted', fingerprintOf(2)],
    ],
  })
  // Not all at once: somebody has to look at this one.
  expect((await world.cli(['keys', 'trust', '--all'])).code).toBe(7)
  expect((await world.cli(['keys', 'trust', 'bob', '--fingerprint', grouped(0)])).code).toBe(7)
  expect((await states()).code).toBe(7)
  expect((await world.cli(['keys', 'trust', 'bob', '--fingerprint', grouped(1).toUpperCase()])).code).toBe(0)
  expect((await states()).rows.slice(1)).toEqual([
    ['bob', 'verified', fingerprintOf(1)],
    ['7', 'trusted', fingerprintOf(2)],
  ])
  expect((await distribute()).code).toBe(0)
})

test('verify compares with what the server shows, and changes nothing', async () => {
  const right = await world.cli(['keys', 'verify', 'bob', ...grouped(0).split(' '), '--json'])
  expect(right.code).toBe(0)
  expect(right.json).toEqual([
    { type: 'key-verified', userId: bob, user: 'bob', fingerprint: fingerprintOf(0), isTrusted: false },
  ])
  const wrong = await world.cli(['keys', 'verify', 'bob', grouped(1), '--json'])
  expect(wrong.code).toBe(7)
  expect(wrong.json.at(-1)).toMatchObject({ type: 'error', code: 'FINGERPRINT_DIFFERS', class: 'integrity' })
  expect(wrong.stderr).toContain(grouped(0))
  expect((await states()).rows.map((row) => row[1])).toEqual(['unchecked', 'new', 'new'])
})

test('list: own and members, new, trusted, gone; forget', async () => {
  const before = await world.cli(['keys', 'list'])
  expect(before.code).toBe(0)
  expect(before.stdout).toContain(`new        bob (id:${bob})  A\n  ${grouped(0)}\n`)
  expect((await world.cli(['keys', 'trust', `id:${bob}`])).code).toBe(0)
  expect((await world.cli(['keys', 'list'])).stdout).toMatch(
    new RegExp(`trusted {4}bob \\(id:${bob}\\) {2}A {2}since \\d{4}-\\d\\d-\\d\\dT\\S+Z\\n {2}${grouped(0)}\\n`),
  )
  expect((await world.cli(['room', 'members', '/room', '--remove', 'bob'])).code).toBe(0)
  expect((await states()).rows).toContainEqual([undefined, 'absent', fingerprintOf(0)])
  const forgotten = await world.cli(['keys', 'forget', `id:${bob}`, '--json'])
  expect(forgotten.json).toEqual([{ type: 'keys-forgotten', userId: bob, count: 1 }])
  expect((await states()).rows.map((row) => row[0])).toEqual(['you', '7'])
  expect((await world.cli(['room', 'members', '/room', '--add', 'bob', '--role', 'read'])).code).toBe(0)
  expect((await states()).rows).toContainEqual(['bob', 'new', fingerprintOf(0)])
})

test('a wrong key of one’s own on the server is seen without a password', async () => {
  expect((await upload('--trust-new-members')).code).toBe(0)
  const { api, origin } = await world.client()
  const { body } = await api.send({ method: 'GET', url: `${origin}/api/v4/user/account/keypairs` })
  const { publicKey } = JSON.parse(Buffer.from(body).toString('utf8'))[0].publicKeyContainer
  expect((await states()).rows[0]).toEqual(['you', 'own', expect.any(String)])
  // Another key of the same version.
  const forged = (await generateKeyPair()).publicKey
  const pem = `-----BEGIN PUBLIC KEY-----\n${Buffer.from(forged.spki).toString('base64')}\n-----END PUBLIC KEY-----\n`
  const answer = Buffer.from(body).toString('utf8').replace(JSON.stringify(publicKey), JSON.stringify(pem))
  const headers = { 'Content-Type': 'application/json' }
  world.server.faults.add({
    on: { path: '/account/keypairs$' },
    times: 9,
    do: { status: 200, headers, body: answer },
  })
  const { code, rows } = await states()
  expect(code).toBe(7)
  expect(rows[0]).toEqual(['you', 'changed', forged.fingerprint])
  world.server.faults.clear()
})

test.each([
  [['keys', 'trust'], 'USAGE'],
  [['keys', 'trust', 'bob', '--all'], 'USAGE'],
  [['keys', 'trust', '--all', '--fingerprint', 'ab'], 'USAGE'],
  [['keys', 'trust', 'bob', '--fingerprint', 'abcd'], 'FINGERPRINT_INVALID'],
  [['keys', 'verify', 'bob', 'x'.repeat(64)], 'FINGERPRINT_INVALID'],
  [['keys', 'verify', 'bob'], 'USAGE'],
  [['keys', 'trust', 'nobody'], 'USER_UNKNOWN'],
  [['keys', 'trust', 'BOB'], 'USER_UNKNOWN'],
  [['keys', 'trust', 'id:99999'], 'USER_UNKNOWN'],
  [['keys', 'trust', 'anna'], 'USER_UNKNOWN'],
  [['keys', 'forget', 'nobody'], 'USER_UNKNOWN'],
  [['keys', 'forget', 'bob', '--room', '/room'], 'USAGE'],
  [['keys', 'forget', '--room', '/nowhere'], 'REMOTE_MISSING'],
])('%j is refused: 2', async (args, code) => {
  const run = await world.cli([...args, '--json'])
  expect(run.json.at(-1)).toMatchObject({ type: 'error', code })
  expect(run.code).toBe(2)
})

test('a name that is another’s id has to be told apart', async () => {
  const seven = (await getAccount((await world.client('7')).api)).id
  expect(seven).not.toBe(7)
  expect((await world.cli(['keys', 'trust', '7', '--json'])).json).toMatchObject([{ userId: seven }])
  const { api, origin } = await world.client()
  const { id } = (await requireRemote(api, '/room')).node
  const url = `${origin}/api/v4/nodes/rooms/${id}/users?limit=500&filter=isGranted:eq:true`
  const { body } = await api.send({ method: 'GET', url })
  // The server calls somebody as another one is numbered, with what a terminal would act on behind.
  const answer = JSON.parse(Buffer.from(body).toString('utf8'))
  const users = answer.items.map(({ userInfo }: { userInfo: object }) => userInfo)
  users.find((user: { id: number }) => user.id === seven).userName = String(bob)
  users.find((user: { id: number }) => user.id === bob).userName = 'bob\u001b[2J\u202e; rm -rf ~'
  const headers = { 'Content-Type': 'application/json' }
  const fault = { status: 200, headers, body: JSON.stringify(answer) }
  world.server.faults.add({ on: { path: '/rooms/\\d+/users$' }, times: 99, do: fault })
  const run = await world.cli(['keys', 'trust', String(bob), '--json'])
  expect(run.json.at(-1)).toMatchObject({ code: 'USER_AMBIGUOUS' })
  expect(run.code).toBe(2)
  expect((await world.cli(['keys', 'trust', `id:${bob}`])).stdout).toContain('bob\\u{1b}[2J\\u{202e}; rm -rf ~')
  await setKey(1)
  const seen = [
    await world.cli(['keys', 'list']),
    await world.cli(['keys', 'list', '--json']),
    await world.cli(['keys', 'verify', `id:${bob}`, grouped(0)]),
    await upload(),
    await world.cli(['keys', 'trust', '--all']),
  ]
  for (const { stdout, stderr } of seen) expect(stdout + stderr).not.toMatch(/\u001b|\u202e/)
  // What is to be copied has no foreign text in it.
  expect(seen[3]!.stderr).toMatch(/sync keys trust id:\d+\n/)
  expect(seen[3]!.stderr).not.toMatch(/sync keys trust (?!id:\d+\n)/)
})

test('damaged pins: kept aside, said; hand-outs stop with 9 until somebody trusts again', async () => {
  expect((await upload('--trust-new-members')).code).toBe(0)
  const path = join(pinDirectory(), readdirSync(pinDirectory()).find((name) => name.endsWith('.pins'))!)
  writeFileSync(path, readFileSync(path).subarray(0, 200))
  const run = await upload('--trust-new-members')
  expect(run.stderr).toContain('damaged')
  expect(run.stderr).toContain('.corrupt-')
  expect(run.code).toBe(9)
  expect(run.codes.map(([, code]) => code)).toEqual(['PINS_LOST', 'PINS_LOST'])
  expect((await distribute('--trust-new-members')).code).toBe(9)
  expect((await states()).code).toBe(9)
  expect((await world.cli(['keys', 'trust', 'bob'])).code).toBe(0)
  expect((await upload('--trust-new-members')).codes).toHaveLength(1)
  expect((await world.cli(['keys', 'trust', '--all'])).code).toBe(0)
  expect((await distribute()).code).toBe(0)
  expect((await upload()).code).toBe(0)
})

test('a room that stops being encrypted: 9, nothing is sent, until it is forgotten', async () => {
  const client = await world.client()
  const { id } = await makeRoom(client, 'downgraded')
  expect((await world.cli(['ls', '/'])).code).toBe(0)
  const headers = { 'content-type': 'application/json' }
  const body = Buffer.from('{"isEncrypted":false}')
  const url = `${client.origin}/api/v4/nodes/rooms/${id}/encrypt`
  expect((await client.api.send({ method: 'PUT', url, headers, body })).status).toBe(200)
  makeTree(world.path('plain'), { f: 'secret' })
  const refused = await world.transfer(['upload', world.path('plain'), '/downgraded'])
  expect(refused.code).toBe(9)
  expect(refused.summary).toMatchObject({ transferred: 0, stoppedBy: { code: 'ROOM_NOT_ENCRYPTED' } })
  expect((await world.transfer(['download', '/downgraded', world.path('plain out')])).code).toBe(9)
  expect((await world.cli(['mkdir', '/downgraded/x'])).code).toBe(9)
  expect((await world.cli(['ls', '/'])).code).toBe(0)
  expect((await world.cli(['keys', 'forget', '--room', '/downgraded', '--json'])).json).toEqual([
    { type: 'room-forgotten', id, wasKnown: true },
  ])
  expect((await world.transfer(['upload', world.path('plain'), '/downgraded'])).code).toBe(9)
  expect((await world.transfer(['upload', world.path('plain'), '/downgraded', '--allow-plain'])).code).toBe(0)
})
