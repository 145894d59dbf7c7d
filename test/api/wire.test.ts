import { describe, expect, test } from 'vitest'
import {
  PAGE,
  parseAccount,
  parseChunkReceipt,
  parseDeletedPage,
  parseDeletedVersions,
  parseDownload,
  parseErrorBody,
  parseJson,
  parseMissingFileKeys,
  parseNode,
  parseNodePage,
  parsePartUrls,
  parseRoomUsers,
  parseSystemInfo,
  parseUpload,
  parseUploadStatus,
  parseVersion,
} from '../../src/api/wire.ts'
import { SyncError } from '../../src/errors.ts'
import fc from '../support/property.ts'

const invalid = expect.objectContaining({ class: 'server', code: 'ANSWER_INVALID' })
const bytes = (text: string) => Buffer.from(text)

const RIGHTS = Object.fromEntries(
  'manage read create change delete manageDownloadShare manageUploadShare readRecycleBin restoreRecycleBin deleteRecycleBin'
    .split(' ')
    .map((name) => [name, true]),
)
const NODE = {
  id: 7,
  type: 'file',
  name: 'a.txt',
  parentId: 1,
  parentPath: '/room/',
  size: 5,
  isEncrypted: true,
  createdAt: '2026-01-01T00:00:00.000Z',
  updatedAt: '2026-01-01T00:00:00.000Z',
  timestampModification: '2026-01-01T01:00:00+01:00',
  branchVersion: 3,
  referenceId: 7,
  permissions: RIGHTS,
  cntFiles: 0,
  cntFolders: 0,
  cntRooms: 0,
}
const RANGE = { offset: 0, limit: 500, total: 1 }

const DELETED = { name: 'a', type: 'file', parentId: 1, parentPath: '/room/' }
const TIME = '2026-01-01T00:00:00.000Z'

/** Every parser with an answer it takes, and the paths of what it cannot do without. */
const PARSERS: [string, (value: unknown, path: string) => unknown, object, string[]][] = [
  ['node', parseNode, NODE, ['id', 'type', 'name']],
  ['page', parseNodePage, { range: RANGE, items: [NODE] }, ['range', 'items', 'range.total', 'range.offset']],
  ['account', parseAccount, { id: 1, userName: 'ann', isEncryptionEnabled: true }, ['id', 'userName']],
  ['upload', parseUpload, { uploadUrl: 'u', uploadId: 'i', token: 't' }, ['uploadUrl', 'uploadId', 'token']],
  ['part URLs', parsePartUrls, { urls: [{ url: 'u', partNumber: 1 }] }, ['urls', 'urls.0.url', 'urls.0.partNumber']],
  ['status', parseUploadStatus, { status: 'done', node: NODE }, ['status', 'node.id']],
  ['download', parseDownload, { downloadUrl: 'u' }, ['downloadUrl']],
  [
    'missing keys',
    parseMissingFileKeys,
    {
      range: RANGE,
      items: [{ userId: 1, fileId: 2 }],
      users: [{ id: 1, publicKeyContainer: {} }],
      files: [{ id: 2, fileKeyContainer: {} }],
    },
    ['items', 'users', 'files', 'items.0.userId', 'items.0.fileId', 'users.0.id', 'files.0.id'],
  ],
  [
    'recycle bin',
    parseDeletedPage,
    {
      range: RANGE,
      items: [{ ...DELETED, cntVersions: 2, firstDeletedAt: TIME, lastDeletedAt: TIME, lastDeletedNodeId: 3 }],
    },
    ['range', ...['name', 'type', 'parentPath', 'cntVersions', 'lastDeletedNodeId'].map((name) => `items.0.${name}`)],
  ],
  [
    'deleted versions',
    parseDeletedVersions,
    {
      range: RANGE,
      items: [{ ...DELETED, id: 3, size: 5, deletedAt: TIME, timestampModification: TIME, referenceId: 2 }],
    },
    ['range', 'items.0.id', 'items.0.name', 'items.0.type', 'items.0.parentId'],
  ],
  [
    'room users',
    parseRoomUsers,
    { range: RANGE, items: [{ userInfo: { id: 1, userName: 'a' }, isGranted: true, permissions: RIGHTS }] },
    ['range', 'items.0.userInfo', 'items.0.userInfo.id', 'items.0.isGranted', 'items.0.permissions.read'],
  ],
]

/** A copy with one place changed; `undefined` removes it. */
function changed(value: object, path: string, to: unknown): unknown {
  const copy = structuredClone(value) as Record<string, never>
  const names = path.split('.')
  const last = names.pop()!
  let at: Record<string, never> = copy
  for (const name of names) at = at[name]!
  if (to === undefined) delete at[last]
  else at[last] = to as never
  return copy
}

describe.each(PARSERS)('%s', (_name, parse, good, required) => {
  test('takes what is right and drops what it does not know', () => {
    expect(() => parse(good, 'body')).not.toThrow()
    const more = { ...good, surplus: 'x', constructor: 'x', toString: 'x' }
    const found = parse(more, 'body') as object
    for (const name of ['surplus', 'constructor', 'toString']) expect(Object.hasOwn(found, name)).toBe(false)
  })

  test.each(required)('without %s, or with null or a wrong type there, it refuses', (path) => {
    for (const to of [undefined, null, { odd: true }, [['odd']], Number.NaN]) {
      expect(() => parse(changed(good, path, to), 'body'), `${path} = ${JSON.stringify(to)}`).toThrow(invalid)
    }
  })

  test('what is no object at all', () => {
    for (const value of [undefined, null, 0, '', 'text', true, [], [good], () => good]) {
      expect(() => parse(value, 'body')).toThrow(invalid)
    }
  })

  test('property: anything gives a value or a typed error', () => {
    const places = Object.keys(good)
    fc.assert(
      fc.property(fc.constantFrom(...places), fc.jsonValue(), (place, junk) => {
        try {
          parse({ ...good, [place]: junk }, 'body')
        } catch (error) {
          expect(error).toBeInstanceOf(SyncError)
          expect(error).toMatchObject({ code: 'ANSWER_INVALID' })
        }
      }),
      { numRuns: 300 },
    )
  })
})

describe('numbers', () => {
  const odd = [2 ** 53, 2 ** 53 + 2, -1, 1.5, 1e300, Number.POSITIVE_INFINITY, Number.NaN, '7', '', true, [7], {}]
  test.each(['id', 'size', 'parentId', 'cntFiles'])('%s: exact and not negative', (name) => {
    for (const value of odd) expect(() => parseNode({ ...NODE, [name]: value }, 'body'), String(value)).toThrow(invalid)
    if (name === 'id') expect(() => parseNode({ ...NODE, id: 0 }, 'body')).toThrow(invalid)
    for (const value of [name === 'id' ? 2 : 0, 1, Number.MAX_SAFE_INTEGER]) {
      expect(parseNode({ ...NODE, [name]: value }, 'body')).toMatchObject({ [name]: value })
    }
  })

  test('an id that JSON cannot hold exactly is an error, not another id', () => {
    const text = JSON.stringify(NODE).replace('"id":7', '"id":9007199254740993')
    expect(() => parseNode(parseJson(bytes(text)), 'body')).toThrow(invalid)
  })
})

test('optional fields: null is absent, another type is an error', () => {
  const { id, type, name } = NODE
  const bare = { id, type, name }
  expect(parseNode(bare, 'body')).toEqual(bare)
  const nulls = Object.fromEntries(Object.keys(NODE).map((key) => [key, null]))
  expect(parseNode({ ...nulls, ...bare }, 'body')).toEqual(bare)
  for (const [key, value] of Object.entries({ isEncrypted: 'true', createdAt: 5, permissions: [], parentPath: 1 })) {
    expect(() => parseNode({ ...NODE, [key]: value }, 'body'), key).toThrow(invalid)
  }
})

test('times become milliseconds, and must be times', () => {
  const node = parseNode(NODE, 'body')
  expect(node.timestampModification).toBe(Date.UTC(2026, 0, 1))
  expect(node.createdAt).toBe(Date.UTC(2026, 0, 1))
  for (const time of ['', 'yesterday', '2026-13-45T00:00:00Z', 0, {}]) {
    expect(() => parseNode({ ...NODE, createdAt: time }, 'body')).toThrow(invalid)
  }
})

test('types and states: only those we know', () => {
  for (const type of ['room', 'folder', 'file']) expect(parseNode({ ...NODE, type }, 'body').type).toBe(type)
  for (const type of ['ROOM', 'link', '', 'toString', '__proto__', 1]) {
    expect(() => parseNode({ ...NODE, type }, 'body')).toThrow(invalid)
  }
  for (const status of ['transfer', 'finishing', 'done', 'error']) {
    expect(parseUploadStatus({ status }, 'body').status).toBe(status)
  }
  expect(() => parseUploadStatus({ status: 'DONE' }, 'body')).toThrow(invalid)
})

test('lists: no more items than were asked for', () => {
  const page = (count: number) => ({ range: RANGE, items: Array(count).fill(NODE) })
  expect(parseNodePage(page(PAGE), 'body').items).toHaveLength(PAGE)
  expect(() => parseNodePage(page(PAGE + 1), 'body')).toThrow(invalid)
  const urls = Array.from({ length: 10_001 }, (_, i) => ({ url: 'u', partNumber: i }))
  expect(() => parsePartUrls({ urls }, 'body')).toThrow(invalid)
  expect(parsePartUrls({ urls: urls.slice(1) }, 'body').urls).toHaveLength(10_000)
  expect(() => parseNodePage({ range: RANGE, items: { length: 1, 0: NODE } }, 'body')).toThrow(invalid)
})

test('answers of which nothing is required may be empty, and still have types', () => {
  for (const parse of [parseErrorBody, parseSystemInfo, parseVersion, parseChunkReceipt]) {
    expect(parse({}, 'body')).toEqual({})
    expect(() => parse(null, 'body')).toThrow(invalid)
  }
  expect(() => parseSystemInfo({ useS3Storage: 'yes' }, 'body')).toThrow(invalid)
  expect(() => parseErrorBody({ errorCode: '-1' }, 'body')).toThrow(invalid)
})

test('keys that reach a prototype reach nothing', () => {
  const evil =
    '{"id":7,"type":"file","name":"a","__proto__":{"size":1,"polluted":1},"constructor":{"prototype":{"polluted":1}}}'
  const node = parseNode(parseJson(bytes(evil)), 'body')
  expect(node).toEqual({ id: 7, type: 'file', name: 'a' })
  expect(node.size).toBeUndefined()
  expect(({} as Record<string, unknown>).polluted).toBeUndefined()
  const inherited = Object.create({ id: 1, type: 'file', name: 'x' })
  expect(() => parseNode(inherited, 'body')).toThrow(invalid)
})

describe('JSON', () => {
  test('32 levels, no more, and brackets in text do not count', () => {
    const nested = (depth: number, open = '[', close = ']') => open.repeat(depth) + close.repeat(depth)
    expect(parseJson(bytes(nested(32)))).toBeInstanceOf(Array)
    expect(() => parseJson(bytes(nested(33)))).toThrow(invalid)
    expect(() => parseJson(bytes(`${'{"a":'.repeat(33)}1${'}'.repeat(33)}`))).toThrow(invalid)
    expect(() => parseJson(bytes('['.repeat(5_000_000)))).toThrow(invalid)
    const text = `["${'['.repeat(100)}","\\"${'{'.repeat(100)}","\\\\"]`
    expect(parseJson(bytes(text))).toHaveLength(3)
    expect(parseJson(bytes(`[${'[],'.repeat(1000)}[]]`))).toHaveLength(1001)
  })

  test.each([
    '',
    ' ',
    '<html>',
    '{',
    '{"a":1',
    'undefined',
    "{'a':1}",
    '{"a":1}x',
    '\ufeff\ufeff{}',
    '[1,]',
    'NaN',
    '\0',
  ])('%j is none', (text) => {
    expect(() => parseJson(bytes(text))).toThrow(expect.objectContaining({ class: 'server', code: 'ANSWER_NOT_JSON' }))
  })

  test('reads only the part of a buffer that it was given', () => {
    expect(parseJson(bytes('xx{"a":1}yy').subarray(2, 9))).toEqual({ a: 1 })
  })

  test('bytes that are no UTF-8 are refused: two names must not become one', () => {
    const text = Buffer.concat([bytes('{"name":"a'), Buffer.from([0xff]), bytes('"}')])
    expect(() => parseJson(text)).toThrow(expect.objectContaining({ code: 'ANSWER_NOT_JSON' }))
  })
})
