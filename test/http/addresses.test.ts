import { describe, expect, test } from 'vitest'
import { checkScheme, hostOf, parseBaseUrl, parseForeignUrl, reachOf } from '../../src/http/addresses.ts'

test.each([
  ['127.0.0.1', 'loopback'],
  ['127.255.255.254', 'loopback'],
  ['::1', 'loopback'],
  ['0:0:0:0:0:0:0:1', 'loopback'],
  ['::ffff:127.0.0.1', 'loopback'],
  ['::ffff:7f00:1', 'loopback'],
  ['::FFFF:7F00:1', 'loopback'],
  ['10.1.2.3', 'private'],
  ['172.16.0.1', 'private'],
  ['172.31.255.255', 'private'],
  ['192.168.1.1', 'private'],
  ['169.254.169.254', 'private'],
  ['100.64.0.1', 'private'],
  ['0.0.0.0', 'private'],
  ['224.0.0.1', 'private'],
  ['255.255.255.255', 'private'],
  ['::', 'private'],
  ['::7f00:1', 'private'],
  ['::ffff:10.0.0.1', 'private'],
  ['::ffff:a00:1', 'private'],
  ['::ffff:a9fe:a9fe', 'private'],
  ['fc00::1', 'private'],
  ['fd12:3456::1', 'private'],
  ['fe80::1', 'private'],
  ['fe80::1%eth0', 'private'],
  ['::1%lo', 'loopback'],
  ['fec0::1', 'private'],
  ['ff02::1', 'private'],
  ['8.8.8.8', 'public'],
  ['172.15.255.255', 'public'],
  ['172.32.0.1', 'public'],
  ['100.128.0.1', 'public'],
  ['126.255.255.255', 'public'],
  ['128.0.0.1', 'public'],
  ['2001:4860:4860::8888', 'public'],
  ['::ffff:8.8.8.8', 'public'],
] as const)('%s is %s', (address, reach) => {
  expect(reachOf(address)).toBe(reach)
})

describe('the server address', () => {
  test.each([
    ['https://files.example.org', 'https://files.example.org'],
    ['files.example.org', 'https://files.example.org'],
    ['https://Files.Example.org/', 'https://files.example.org'],
    ['https://files.example.org:8443', 'https://files.example.org:8443'],
    ['http://127.0.0.1:8080', 'http://127.0.0.1:8080'],
    ['http://127.1', 'http://127.0.0.1'],
    ['http://[::1]:80', 'http://[::1]'],
    ['https://10.0.0.1', 'https://10.0.0.1'],
  ])('%s is taken as %s', (text, origin) => {
    expect(parseBaseUrl(text).origin).toBe(origin)
  })

  test.each([
    'http://files.example.org',
    'http://localhost:8080',
    'http://localhost.:8080',
    'http://10.0.0.1',
    'http://0.0.0.0:8080',
    'http://127.0.0.1.example.org',
    'http://[fe80::1]',
    'http://[::]',
  ])('%s is refused: no TLS', (text) => {
    expect(() => parseBaseUrl(text)).toThrow(expect.objectContaining({ class: 'tls', code: 'URL_INSECURE' }))
  })

  test.each([
    '',
    'https://',
    'https://a b',
    'ftp://files.example.org',
    'file:///etc/passwd',
    'javascript://x',
    'https://user:canary@files.example.org',
    'https://user@files.example.org',
    'https://files.example.org/path',
    'https://files.example.org/?q=1',
    'https://[1.2.3.4]',
  ])('%j is refused: no server address', (text) => {
    let error: Error | undefined
    try {
      parseBaseUrl(text)
    } catch (caught) {
      error = caught as Error
    }
    expect(error).toMatchObject({ class: 'usage', code: 'URL_INVALID' })
    expect(error?.message).not.toContain('canary')
  })
})

test('URLs that a server sent: no credentials, nothing unreadable, same rule for TLS', () => {
  expect(parseForeignUrl('/a?b', 'https://x.test').href).toBe('https://x.test/a?b')
  expect(parseForeignUrl('https://y.test/a', 'https://x.test').href).toBe('https://y.test/a')
  for (const text of ['https://u:p@y.test/', 'https://u@y.test/', 'http://[']) {
    expect(() => parseForeignUrl(text, 'https://x.test')).toThrow(
      expect.objectContaining({ class: 'server', code: 'URL_INVALID' }),
    )
  }
  for (const text of [
    'http://y.test/',
    'ftp://127.0.0.1/',
    'data:text/plain,x',
    'file:///etc/passwd',
    'blob:https://x',
  ]) {
    expect(() => checkScheme(new URL(text))).toThrow(expect.objectContaining({ class: 'tls', code: 'URL_INSECURE' }))
  }
  expect(hostOf(new URL('https://[::1]:8/'))).toBe('::1')
})
