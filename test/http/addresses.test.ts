import { describe, expect, test } from 'vitest'
import {
  checkScheme,
  hostOf,
  ipv6Bytes,
  isLoopback,
  parseBaseUrl,
  parseForeignUrl,
  reachOf,
} from '../../src/http/addresses.ts'

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
  ['64:ff9b::10.0.0.1', 'private'],
  ['64:ff9b::a9fe:a9fe', 'private'],
  ['64:FF9B::c0a8:1', 'private'],
  ['64:ff9b::c0a8:1%eth0', 'private'],
  ['0064:ff9b:0000:0000:0000:0000:7f00:0001', 'loopback'],
  ['64:ff9b::8.8.8.8', 'public'],
  ['64:ff9b:1::8.8.8.8', 'private'],
  ['64:ff9c::10.0.0.1', 'public'],
  ['::ffff:0:192.168.1.1', 'private'],
  ['2002:a00:1::1', 'private'],
  ['2002:808:808::1', 'public'],
] as const)('%s is %s', (address, reach) => {
  expect(reachOf(address)).toBe(reach)
})

test.each([
  ['::', '00000000000000000000000000000000'],
  ['::1', '00000000000000000000000000000001'],
  ['1::', '00010000000000000000000000000000'],
  ['2001:db8::8:800:200c:417a', '20010db80000000000080800200c417a'],
  ['::ffff:129.144.52.38', '00000000000000000000ffff81903426'],
  ['fe80::1%lo0', 'fe800000000000000000000000000001'],
])('the bytes of %s (RFC 4291 §2.2)', (address, hex) => {
  expect(Buffer.from(ipv6Bytes(address)).toString('hex')).toBe(hex)
})

test('an address that a gateway would turn into loopback is not this machine', () => {
  expect(['127.0.0.1', '::1', '::ffff:127.0.0.1'].map(isLoopback)).toEqual([true, true, true])
  expect(['64:ff9b::7f00:1', '2002:7f00:1::', 'localhost', '10.0.0.1'].map(isLoopback)).toEqual(Array(4).fill(false))
  expect(() => parseBaseUrl('http://[64:ff9b::7f00:1]')).toThrow(expect.objectContaining({ code: 'URL_INSECURE' }))
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
    expect(() => parseBaseUrl(text)).toThrow(expect.objectContaining({ class: 'usage', code: 'URL_INSECURE' }))
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
