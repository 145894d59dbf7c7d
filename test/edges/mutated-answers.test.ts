/**
 * Answers of a server that lies, breaks or goes mad: good ones, changed at random, for everything that reads answers. Each is read
 * into what it should be or ends in a typed error, within a budget of time, memory and requests. A seeded sample here; with
 * SEALSYNC_FULL a hundred thousand.
 */
import { describe, expect, test } from 'vitest'
import { getAccount, getKeyPairs, getServerVersion, getStorage } from '../../src/api/account.ts'
import type { Api } from '../../src/api/api.ts'
import { createDownload } from '../../src/api/downloads.ts'
import { getFileKey, listMissingFileKeys } from '../../src/api/file-keys.ts'
import { countTree, createFolder, getNode, listChildren, listRoomUsers, searchTree } from '../../src/api/nodes.ts'
import { listDeleted, listDeletedVersions } from '../../src/api/recycle-bin.ts'
import {
  completeChunks,
  createUpload,
  getPartUrls,
  getUploadStatus,
  isUploadOpen,
  postChunk,
  putPart,
} from '../../src/api/uploads.ts'
import type { Ui } from '../../src/environment.ts'
import { SyncError } from '../../src/errors.ts'
import type { HttpResponse, Send } from '../../src/http/types.ts'
import type { Authorizer } from '../../src/session/authorizer.ts'
import { clientCredentialsAuthorizer } from '../../src/session/authorizers/client-credentials.ts'
import { cognitoSrpAuthorizer } from '../../src/session/authorizers/cognito-srp.ts'
import { deviceCodeAuthorizer } from '../../src/session/authorizers/device-code.ts'
import { ovhOAuth2Authorizer } from '../../src/session/authorizers/ovh-oauth2.ts'
import { ovhSignatureAuthorizer } from '../../src/session/authorizers/ovh-signature.ts'
import { passwordAuthorizer } from '../../src/session/authorizers/password.ts'
import { protonSrpAuthorizer } from '../../src/session/authorizers/proton-srp.ts'
import { parseDump, readGrant } from '../../src/session/grant.ts'
import { createRequests } from '../../src/session/requests.ts'
import { fakeClock, spentMs } from '../support/clock.ts'
import { contextOf } from '../support/oauth.ts'
import { SEED } from '../support/seed.ts'

const FULL = process.env.SEALSYNC_FULL !== undefined
/** CPU time for one answer. */
const BUDGET_MS = 10_000
const BUDGET_BYTES = 256 * 1024 * 1024
const BUDGET_REQUESTS = 2_000

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
function dice(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}
type Dice = () => number
const below = (roll: Dice, count: number) => Math.floor(roll() * count)
const pick = <T>(roll: Dice, all: readonly T[]): T => all[below(roll, all.length)]!

const deep = (depth: number) => JSON.parse(`${'['.repeat(depth)}${']'.repeat(depth)}`)
const ODD: readonly unknown[] = [
  null, true, false, 0, -1, 1.5, 2 ** 31, 2 ** 53, 2 ** 63, -(2 ** 53), 1e308, 5e-324, '', ' ', '0', '-1', 'x'.repeat(5_000), '\u0000', '\u202e\u001b[2J',
  '\ud800', '../../etc', 'a/b', 'NaN', 'Infinity', '2026-13-45T99:99:99Z', '+275760-09-13T00:00:00Z', 'http://169.254.169.254/', 'https://u:p@x/',
  'javascript:0', [], {}, [[]], [null], deep(20), deep(40), { length: 1e9 }, { toString: 1 }, { constructor: { prototype: { polluted: 1 } } },
  Array.from({ length: 600 }, () => ({})), 'A'.repeat(3), 'AAAA', '='.repeat(8), '-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n',
] // biome-ignore format: a list

/** Places in a value that can be changed. */
function places(value: unknown, found: [holder: Record<string, unknown>, key: string][] = []) {
  if (typeof value !== 'object' || value === null) return found
  for (const [key, inner] of Object.entries(value)) {
    found.push([value as Record<string, unknown>, key])
    places(inner, found)
  }
  return found
}

function changeValue(roll: Dice, source: unknown): unknown {
  const box = { body: structuredClone(source) }
  for (let times = 1 + below(roll, 3); times > 0; times--) {
    const all = places(box)
    if (all.length === 0) break
    const [holder, key] = pick(roll, all)
    const kind = below(roll, 6)
    if (kind === 0) delete holder[key]
    else if (kind === 1 && Array.isArray(holder[key])) {
      const list = holder[key] as unknown[]
      holder[key] = Array.from({ length: pick(roll, [2, 50, 499, 501]) }, (_, at) =>
        structuredClone(list[at % Math.max(1, list.length)]),
      )
    } else if (kind === 2) {
      const [other, name] = pick(roll, all)
      holder[key] = structuredClone(other[name])
    } else if (kind === 3 && typeof holder[key] === 'number')
      holder[key] = pick(roll, [0, -1, 1, holder[key] + 1, holder[key] - 1, 1e9, 2 ** 53, 0.5])
    else holder[key] = structuredClone(pick(roll, ODD))
  }
  return box.body
}

function changeBytes(roll: Dice, source: Uint8Array): Buffer {
  let bytes = Buffer.from(source)
  for (let times = 1 + below(roll, 4); times > 0; times--) {
    const at = below(roll, bytes.length + 1)
    const kind = below(roll, 6)
    if (kind === 0 && at < bytes.length) bytes[at] = below(roll, 256)
    else if (kind === 1) bytes = bytes.subarray(0, at)
    else if (kind === 2)
      bytes = Buffer.concat([bytes.subarray(0, at), Buffer.from([below(roll, 256)]), bytes.subarray(at)])
    else if (kind === 3) bytes = Buffer.concat([bytes, bytes.subarray(at)])
    else if (kind === 4)
      bytes = Buffer.concat([
        Buffer.from(pick(roll, ['\ufeff', '<html>', '[', '{"__proto__":{"polluted":1},', '\0'])),
        bytes,
      ])
    else
      bytes = Buffer.from(
        bytes.toString('latin1').replace('"id"', pick(roll, ['"__proto__"', '"constructor"', '"id":1,"id"', '"ID"'])),
        'latin1',
      )
  }
  return bytes
}

const STATUSES = [200, 200, 200, 200, 201, 202, 204, 206, 301, 400, 401, 403, 404, 409, 429, 460, 500, 503, 599, 901]
const HEADERS: Record<string, string>[] = [
  {},
  { 'retry-after': '9'.repeat(30) },
  { 'www-authenticate': 'Bearer error="insufficient_scope"' },
  { etag: '"'.repeat(300) },
  { date: 'never' },
]

interface Answer {
  readonly status?: number
  readonly body: unknown
}
interface Target {
  readonly name: string
  readonly answers: readonly Answer[]
  run(send: Send): Promise<unknown>
}

const packed = ({ status = 200, body }: Answer): HttpResponse => ({
  status,
  headers: { 'content-type': 'application/json', etag: '"e"' },
  body: Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)),
})

/** Answers in turn, the last one for ever; one of them is changed, or all are. */
function mutant(roll: Dice, { answers }: Target) {
  const chosen = below(roll, answers.length + 1)
  let sent = 0
  const send: Send = async () => {
    const at = Math.min(sent++, answers.length - 1)
    if (sent > BUDGET_REQUESTS) throw new Error('an endless number of requests')
    const answer = answers[at]!
    if (at !== chosen && chosen !== answers.length) return packed(answer)
    const how = below(roll, 4)
    const isJson = typeof answer.body !== 'string'
    const good = packed(how < 3 && isJson ? { ...answer, body: changeValue(roll, answer.body) ?? null } : answer)
    const body = how === 3 || !isJson ? changeBytes(roll, good.body) : good.body
    const isOther = below(roll, 5) === 0
    return isOther
      ? { status: pick(roll, STATUSES), headers: { ...good.headers, ...pick(roll, HEADERS) }, body }
      : { ...good, body }
  }
  return { send, sent: () => sent }
}

const node = (id: number, type = 'folder') => ({
  id, type, name: `n${id}`, parentId: 5, parentPath: '/room/', size: 3, isEncrypted: true, createdAt: '2026-01-01T00:00:00Z',
  updatedAt: '2026-01-01T00:00:00Z', timestampModification: '2026-01-01T00:00:00Z', branchVersion: 7, referenceId: id, cntFiles: 0, cntFolders: 0,
  permissions: Object.fromEntries(['manage', 'read', 'create', 'change', 'delete', 'manageDownloadShare', 'manageUploadShare', 'readRecycleBin', 'restoreRecycleBin', 'deleteRecycleBin'].map((name) => [name, true])),
}) // biome-ignore format: data
const page = (items: object[], total = items.length) => ({ range: { offset: 0, limit: 500, total }, items })
const KEY = {
  publicKeyContainer: { version: 'A', publicKey: '-----BEGIN PUBLIC KEY-----\nMA==\n-----END PUBLIC KEY-----\n' },
  privateKeyContainer: {
    version: 'A',
    privateKey: '-----BEGIN ENCRYPTED PRIVATE KEY-----\nMA==\n-----END ENCRYPTED PRIVATE KEY-----\n',
  },
}
const FILE_KEY = { key: 'AAAA'.repeat(64), iv: 'AAAAAAAAAAAAAAAA', tag: 'AAAAAAAAAAAAAAAAAAAAAA==', version: 'A' }
const DELETED = {
  ...node(9),
  cntVersions: 1,
  firstDeletedAt: '2026-01-01T00:00:00Z',
  lastDeletedAt: '2026-01-01T00:00:00Z',
  lastDeletedNodeId: 9,
}

const ORIGIN = 'https://files.example.test'
async function all(items: AsyncIterable<unknown>): Promise<unknown[]> {
  const found: unknown[] = []
  for await (const item of items) found.push(item)
  return found
}
const upload = { parentId: 5, name: 'x', size: 3, modifiedAt: 0 }
const how = { resolution: 'fail', fileName: 'x' } as const

const endpoint = (name: string, body: unknown, run: (api: Api) => Promise<unknown>, more: unknown[] = []): Target => ({
  name,
  answers: [body, ...more].map((one) => ({ body: one })),
  run: (send) => run({ origin: ORIGIN, send, sendPlain: send, maxEntries: 10_000 }),
})
const API: readonly Target[] = [
  endpoint('account', { id: 1, userName: 'anna', email: 'a@b' }, (api) => getAccount(api)),
  endpoint('key pairs', [KEY], (api) => getKeyPairs(api)),
  endpoint('one key pair', { code: 404 }, (api) => getKeyPairs(api), [KEY]),
  endpoint('version', { restApiVersion: '4.1' }, (api) => getServerVersion(api)),
  endpoint('storage', { useS3Storage: true, s3EnforceDirectUpload: false }, (api) => getStorage(api)),
  endpoint('node', node(9, 'file'), (api) => getNode(api, 9)),
  endpoint('new folder', node(9), (api) => createFolder(api, 5, 'x')),
  endpoint('children', page([node(9), node(10, 'file')], 4), (api) => all(listChildren(api, 5)), [page([node(11), node(12)], 4)]),
  endpoint('tree', page([node(9), node(10, 'file')]), (api) => all(searchTree(api, 5))),
  endpoint('count', page([node(9)], 40), (api) => countTree(api, 5)),
  endpoint('members', page([{ userInfo: { id: 1, userName: 'anna' }, isGranted: true, permissions: node(1).permissions, ...KEY }]), (api) => all(listRoomUsers(api, 5, true))),
  endpoint('bin', page([DELETED]), (api) => all(listDeleted(api, 5))),
  endpoint('versions', page([{ ...node(9, 'file'), deletedAt: '2026-01-01T00:00:00Z' }]), (api) => all(listDeletedVersions(api, 5, { name: 'n9', type: 'file', parentPath: '/room/' }))),
  endpoint('missing keys', { ...page([]), items: [{ userId: 1, fileId: 2 }], users: [{ id: 1, ...KEY }], files: [{ id: 2, fileKeyContainer: FILE_KEY }] }, (api) => listMissingFileKeys(api, { offset: 0 })),
  endpoint('file key', FILE_KEY, (api) => getFileKey(api, 9)),
  endpoint('new upload', { uploadUrl: `${ORIGIN}/u`, uploadId: 'i', token: 't' }, (api) => createUpload(api, upload, true)),
  endpoint('part URL', { urls: [{ url: `${ORIGIN}/p`, partNumber: 1 }] }, (api) =>
    getPartUrls(api, 'i', { first: 1, last: 1, size: 3 }),
  ),
  endpoint('part', '', (api) => putPart(api, `${ORIGIN}/p`, new Uint8Array(3))),
  endpoint('status', { status: 'done', node: node(9, 'file') }, (api) => getUploadStatus(api, 'i')),
  endpoint('failed upload', { status: 'error', errorDetails: { code: 409, errorCode: -41001, message: 'x' } }, (api) => getUploadStatus(api, 'i')),
  endpoint('open upload', { status: 'transfer' }, (api) => isUploadOpen(api, 'i')),
  endpoint('chunk', { size: 3, hash: 'x' }, (api) => postChunk(api, { uploadId: 'i', token: 't' }, new Uint8Array(3), 0, 3)),
  endpoint('complete', node(9, 'file'), (api) => completeChunks(api, { uploadId: 'i', token: 't' }, how)),
  endpoint('download', { downloadUrl: `${ORIGIN}/d` }, (api) => createDownload(api, 9)),
] // biome-ignore format: a table

const UI: Ui = { openUrl: async () => {}, showCode: async () => {}, askSecret: async () => '123456' }
const way = (name: string, answers: Answer[], make: () => Authorizer): Target => ({
  name,
  answers,
  async run(send) {
    const authorizer = make()
    const context = contextOf(send, fakeClock(), UI)
    const grant = await authorizer.authorize(context)
    await authorizer.renew?.(grant, context)
    await authorizer.check?.(grant, context)
    await authorizer.revoke?.(grant, context)
    return grant
  },
})
const TOKEN = { access_token: 'a', refresh_token: 'r', token_type: 'bearer', expires_in: 3600, scope: 'all' }
const METADATA = {
  issuer: ORIGIN,
  token_endpoint: `${ORIGIN}/t`,
  device_authorization_endpoint: `${ORIGIN}/d`,
  revocation_endpoint: `${ORIGIN}/r`,
  introspection_endpoint: `${ORIGIN}/i`,
  token_endpoint_auth_methods_supported: ['none'],
}
const user = { userName: 'ann', password: async () => 'secret' }
const secret = async () => 'secret'
const SESSION: readonly Target[] = [
  way('password', [{ body: TOKEN }], () => passwordAuthorizer(ORIGIN, { ...user, code: secret })),
  way('one-time code', [{ status: 400, body: { error: 'mfa_required' } }, { body: TOKEN }], () => passwordAuthorizer(ORIGIN, { ...user, code: secret })),
  way('metadata', [{ body: METADATA }, { body: TOKEN }, { body: TOKEN }, { body: { active: true } }], () => clientCredentialsAuthorizer(ORIGIN, { client: { id: 'c', secret: 's' }, introspect: true })),
  way('device', [{ body: METADATA }, { body: { device_code: 'd', user_code: 'AB', verification_uri: `${ORIGIN}/v`, expires_in: 600, interval: 5 } }, { status: 400, body: { error: 'authorization_pending' } }, { body: TOKEN }], () => deviceCodeAuthorizer(ORIGIN, { client: { id: 'c' } })),
  way('cognito', [{ body: { ChallengeName: 'PASSWORD_VERIFIER', ChallengeParameters: { USER_ID_FOR_SRP: 'u', SALT: 'ab12', SRP_B: 'f'.repeat(64), SECRET_BLOCK: 'AAAA' }, Session: 's' } }, { body: { AuthenticationResult: { AccessToken: 'a', IdToken: 'i', RefreshToken: 'r', ExpiresIn: 3600, TokenType: 'Bearer' } } }], () => cognitoSrpAuthorizer({ poolId: 'eu-west-1_abc', clientId: 'c', ...user })),
  way('proton', [{ body: { Code: 1000, Modulus: '-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nAAAA\n-----BEGIN PGP SIGNATURE-----\n\nAAAA\n=AAAA\n-----END PGP SIGNATURE-----\n', ServerEphemeral: 'AAAA', Version: 4, Salt: 'AAAA', SRPSession: 's' } }], () => protonSrpAuthorizer(ORIGIN, user)),
  way('ovh oauth2', [{ body: TOKEN }], () => ovhOAuth2Authorizer({ endpoint: 'ovh-eu', clientId: 'c', clientSecret: secret })),
  way('ovh signature', [{ body: { consumerKey: 'k', validationUrl: 'https://www.ovh.com/auth/x', state: 'pendingValidation' } }, { body: '1700000000' }, { body: { status: 'validated', consumerKey: 'k' } }], () => ovhSignatureAuthorizer({ endpoint: 'ovh-eu', applicationKey: 'a', applicationSecret: secret, accessRules: [{ method: 'GET', path: '/*' }] })),
  { name: 'any API', answers: [{ body: { a: [1, { b: 'c' }] } }], run: (send) => createRequests(ORIGIN, send, send, () => 0).get('/x') },
  { name: 'a dump', answers: [{ body: { type: 'sealsync-session', v: 1, origin: ORIGIN, method: 'password', grant: { v: 1, accessToken: 'a', refreshToken: 'r', expiresAt: 1, lifetimeMs: 1, scope: 's', extra: { a: 'b' } } } }], async run(send) {
    const text = Buffer.from((await send({ method: 'GET', url: ORIGIN })).body).toString()
    try {
      readGrant(JSON.parse(text))
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error
    }
    return parseDump(text)
  } },
] // biome-ignore format: a table

/** Runs one target over so many mutants; returns how they ended. */
async function fuzz(target: Target, count: number, seed: number) {
  const roll = dice(seed)
  const ends = { read: 0, refused: 0 }
  for (let at = 0; at < count; at++) {
    const { send, sent } = mutant(roll, target)
    const what = `${target.name}, mutant ${at} of seed ${seed}`
    const [begun, before] = [spentMs(), process.memoryUsage().heapUsed]
    try {
      await target.run(send)
      ends.read++
    } catch (error) {
      const isTyped = error instanceof SyncError && error.class !== 'internal' && error.class !== 'cancelled'
      if (!isTyped) throw new Error(what, { cause: error })
      if (/[\p{Cc}\u202a-\u202e]/u.test(error.message)) throw new Error(`${what}: an unsafe message`, { cause: error })
      ends.refused++
    }
    expect(sent(), what).toBeLessThanOrEqual(BUDGET_REQUESTS)
    expect(spentMs() - begun, what).toBeLessThan(BUDGET_MS)
    expect(process.memoryUsage().heapUsed - before, what).toBeLessThan(BUDGET_BYTES)
  }
  expect(Object.hasOwn(Object.prototype, 'polluted')).toBe(false)
  return ends
}

describe.each([
  ['the API', API],
  ['logins', SESSION],
])('%s', (_name, targets) => {
  test.each(targets.map((target) => [target.name, target] as const))(
    '%s',
    async (name, target) => {
      expect(await target.run(async () => packed(target.answers[0]!)).catch((error) => error)).not.toBeInstanceOf(
        TypeError,
      )
      const share = Math.ceil(100_000 / (API.length + SESSION.length))
      const count = FULL ? share : 60
      const { read, refused } = await fuzz(target, count, SEED + name.length)
      expect(read + refused).toBe(count)
      expect(refused).toBeGreaterThan(0)
      if (FULL) console.info(`mutated answers, ${name}: ${count}, ${read} read, ${refused} refused`)
    },
    FULL ? 900_000 : undefined,
  )
})
