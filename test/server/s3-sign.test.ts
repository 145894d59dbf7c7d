/**
 * Signatures against the examples that AWS has published, the XML reader against hostile documents, and what an operator may
 * type.
 * @module
 */
import { expect, test } from 'vitest'
import { StoreClient } from '../../src/server/s3/client.ts'
import { type Credentials, presign, signedHeaders } from '../../src/server/s3/sign.ts'
import { childText, escapeXml, parseXml } from '../../src/server/s3/xml.ts'

const EXAMPLE: Credentials = {
  accessKeyId: 'AKIAIOSFODNN7EXAMPLE',
  secretAccessKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
  region: 'us-east-1',
}
const THEN = Date.UTC(2013, 4, 24)
const HOST = 'https://examplebucket.s3.amazonaws.com'

test('a presigned URL: the published example of AWS', () => {
  const url = new URL(presign(EXAMPLE, { method: 'GET', url: new URL(`${HOST}/test.txt`) }, THEN, 86_400))
  expect(Object.fromEntries(url.searchParams)).toEqual({
    'X-Amz-Algorithm': 'AWS4-HMAC-SHA256',
    'X-Amz-Credential': 'AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request',
    'X-Amz-Date': '20130524T000000Z',
    'X-Amz-Expires': '86400',
    'X-Amz-SignedHeaders': 'host',
    'X-Amz-Signature': 'aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404',
  })
  expect([url.origin, url.pathname]).toEqual([HOST, '/test.txt'])
})

test.each([
  [
    'GET',
    '/test.txt',
    {},
    { range: 'bytes=0-9' },
    '',
    'f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41',
  ],
  [
    'PUT',
    '/test%24file.text',
    {},
    { date: 'Fri, 24 May 2013 00:00:00 GMT', 'x-amz-storage-class': 'REDUCED_REDUNDANCY' },
    'Welcome to Amazon S3.',
    '98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd',
  ],
  ['GET', '/', { lifecycle: '' }, {}, '', 'fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543'],
  [
    'GET',
    '/',
    { prefix: 'J', 'max-keys': '2' },
    {},
    '',
    '34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7',
  ],
] as const)('signed headers: the published example of AWS, %s %s', (method, path, query, headers, body, signature) => {
  const url = new URL(`${HOST}${path}`)
  const signed = signedHeaders(EXAMPLE, { method, url, query, headers }, body, THEN)
  expect(signed.authorization?.split('Signature=')[1]).toBe(signature)
  expect(signed.authorization).toContain('Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,')
  expect(signed).toMatchObject({ host: 'examplebucket.s3.amazonaws.com', 'x-amz-date': '20130524T000000Z' })
})

test('a lifetime beyond seven days is cut to what stores accept', () => {
  const url = presign(EXAMPLE, { method: 'GET', url: new URL(`${HOST}/x`) }, THEN, 1e9)
  expect(new URL(url).searchParams.get('X-Amz-Expires')).toBe('604800')
})

test('XML: elements, text and entities', () => {
  const root = parseXml(
    ` <?xml version="1.0" encoding='UTF-8'?>\n  <A xmlns="http://x/" b='c'><B>1 &lt; 2 &amp;&#38;&#x26; &quot;é&quot;</B><C/><D>x<E>y</E>z</D></A>\n`,
  )
  expect(root.name).toBe('A')
  expect(childText(root, 'B')).toBe('1 < 2 &&& "é"')
  expect(childText(root, 'C')).toBe('')
  expect(childText(root, 'D')).toBe('xz')
  expect(childText(root, 'E')).toBeUndefined()
  expect(childText(parseXml(`<R><T>${escapeXml(`<&>"'`)}</T></R>`), 'T')).toBe(`<&>"'`)
})

test.each([
  ['an outside entity', '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>'],
  ['entities that multiply', '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><a>&c;</a>'],
  ['an unknown entity', '<a>&nbsp;</a>'],
  ['an entity without end', '<a>&amp</a>'],
  ['a character beyond Unicode', '<a>&#x110000;</a>'],
  ['CDATA', '<a><![CDATA[x]]></a>'],
  ['a comment', '<a><!-- x --></a>'],
  ['a processing instruction', '<a><?php x ?></a>'],
  ['a second declaration', '<a><?xml version="1.0"?></a>'],
  ['wrong nesting', '<a><b></a></b>'],
  ['an open element', '<a><b></b>'],
  ['an end without a start', '</a>'],
  ['two roots', '<a></a><b></b>'],
  ['text outside', 'x<a></a>'],
  ['nothing', ''],
  ['half a tag', '<a'],
  ['too deep', `${'<a>'.repeat(9)}${'</a>'.repeat(9)}`],
  ['too many elements', `<a>${'<b/>'.repeat(50_000)}</a>`],
  ['JSON', '{"a":1}'],
])('XML: refuses %s', (_what, text) => {
  expect(() => parseXml(text)).toThrow(SyntaxError)
})

test('XML: a megabyte of blanks or attributes is refused without trying every split', () => {
  expect(() => parseXml(`<a${' '.repeat(1_000_000)}`)).toThrow(SyntaxError)
  expect(() => parseXml(`<a${' b="c"'.repeat(200_000)}`)).toThrow(SyntaxError)
})

const GOOD = { endpoint: 'https://s3.example.org', bucket: 'some-bucket', accessKeyId: 'a', secretAccessKey: 'b' }

test.each([
  ['no URL', { endpoint: 's3.example.org' }],
  ['a path', { endpoint: 'https://s3.example.org/x' }],
  ['a query', { endpoint: 'https://s3.example.org/?x' }],
  ['a password', { endpoint: 'https://u:p@s3.example.org' }],
  ['another scheme', { endpoint: 'ftp://s3.example.org' }],
  ['http beyond loopback', { endpoint: 'http://s3.example.org' }],
  ['a bucket with a slash', { bucket: 'a/b' }],
  ['a bucket that climbs', { bucket: '..' }],
  ['a region with a slash', { region: 'us/east' }],
  ['an empty key', { accessKeyId: '' }],
  ['a secret with a line break', { secretAccessKey: 'secret-canary\n' }],
])('options: refuses %s, and shows no secret', (_what, wrong) => {
  expect(() => new StoreClient({ ...GOOD, ...wrong }, Date.now)).toThrow(
    expect.objectContaining({ code: 'S3_OPTIONS' }),
  )
  try {
    new StoreClient({ ...GOOD, ...wrong }, Date.now)
  } catch (error) {
    expect(JSON.stringify([String(error), error])).not.toContain('canary')
  }
})

test.each([
  [{}, 'https://some-bucket.s3.example.org/k?'],
  [{ pathStyle: true }, 'https://s3.example.org/some-bucket/k?'],
  [{ endpoint: 'https://s3.example.org:9000' }, 'https://some-bucket.s3.example.org:9000/k?'],
  [{ endpoint: 'http://127.0.0.1:9000' }, 'http://127.0.0.1:9000/some-bucket/k?'],
  [{ endpoint: 'https://[2001:db8::1]' }, 'https://[2001:db8::1]/some-bucket/k?'],
])('where the bucket goes: %j', (more, start) => {
  const client = new StoreClient({ ...GOOD, ...more }, Date.now)
  expect(client.presign('GET', 'k', 60).startsWith(start)).toBe(true)
  client.close()
})
