import { describe, expect, test } from 'vitest'
import {
  checkLocalName,
  escapeName,
  foldKey,
  localName,
  MAX_REMOTE_NAME,
  sameNameKey,
  unescapeName,
} from '../../src/local/names.ts'
import fc from '../support/property.ts'

const ESCAPES: [string, string][] = [
  ['plain.txt', 'plain.txt'],
  ['a\\b', 'a%5Cb'],
  ['a<b', 'a%3Cb'],
  ['a>b', 'a%3Eb'],
  ['a:b', 'a%3Ab'],
  ['a"b', 'a%22b'],
  ['a|b', 'a%7Cb'],
  ['a?b', 'a%3Fb'],
  ['a*b', 'a%2Ab'],
  ['\u0001', '%01'],
  ['a\u001fb', 'a%1Fb'],
  ['tab\there', 'tab%09here'],
  ['line\nbreak', 'line%0Abreak'],
  ['\u001b[31mred', '%1B[31mred'],
  ['\u007f', '\u007f'],
  ['-rf', '%2Drf'],
  ['-', '%2D'],
  ['--', '%2D-'],
  ['a-b-', 'a-b-'],
  ['end.', 'end%2E'],
  ['end..', 'end.%2E'],
  ['.hidden', '.hidden'],
  ['a.b.c', 'a.b.c'],
  ['-.', '%2D%2E'],
  [' space ', ' space '],
  ['con', '%63on'],
  ['CON', '%43ON'],
  ['Con.txt', '%43on.txt'],
  ['con.', '%63on%2E'],
  ['conx', 'conx'],
  ['icon', 'icon'],
  ['prn', '%70rn'],
  ['AUX.tar.gz', '%41UX.tar.gz'],
  ['nul', '%6Eul'],
  ['com1', '%63om1'],
  ['COM9.log', '%43OM9.log'],
  ['com0', 'com0'],
  ['com10', 'com10'],
  ['lpt1', '%6Cpt1'],
  ['LPT9.x', '%4CPT9.x'],
  ['%', '%'],
  ['100%', '100%'],
  ['%zz', '%zz'],
  ['%4', '%4'],
  ['%41', '%2541'],
  ['%aF', '%25aF'],
  ['%25', '%2525'],
  ['%%41', '%%2541'],
  ['%2:', '%2%3A'],
  ['%:', '%%3A'],
  ['😀', '😀'],
  ['👩‍👩‍👧.png', '👩‍👩‍👧.png'],
  ['übér:ñ', 'übér%3Añ'],
  ['U\u0308', 'U\u0308'],
  ['\ufeffbom', '\ufeffbom'],
]

describe('escaping', () => {
  test.each(ESCAPES)('%j goes up as %j', (local, remote) => {
    expect(escapeName(local)).toBe(remote)
    expect(unescapeName(remote)).toBe(local)
  })

  test('every character the server forbids, and no other ASCII character in the middle of a name', () => {
    const forbidden = new Set('\\<>:"|?*'.split(''))
    for (let code = 1; code < 128; code++) {
      const char = String.fromCharCode(code)
      if (char === '/') continue
      const hex = `%${code.toString(16).toUpperCase().padStart(2, '0')}`
      const escaped = forbidden.has(char) || code < 32
      expect(escapeName(`a${char}z`)).toBe(escaped ? `a${hex}z` : `a${char}z`)
    }
  })

  test('every reserved name in every case, with and without extension', () => {
    const digits = (stem: string) => Array.from({ length: 9 }, (_, i) => `${stem}${i + 1}`)
    for (const stem of ['con', 'prn', 'aux', 'nul', ...digits('com'), ...digits('lpt')]) {
      for (const form of [stem, stem.toUpperCase(), stem[0]!.toUpperCase() + stem.slice(1)]) {
        for (const end of ['', '.txt', '.tar.gz']) {
          const escaped = escapeName(form + end)
          expect(escaped).toBe(`%${form.charCodeAt(0).toString(16).toUpperCase()}${form.slice(1)}${end}`)
          expect(unescapeName(escaped)).toBe(form + end)
        }
        expect(escapeName(`${form}x`)).toBe(`${form}x`)
        expect(escapeName(`x${form}`)).toBe(`x${form}`)
      }
    }
  })

  test('150 units after escaping, not before', () => {
    const limit = 'a'.repeat(MAX_REMOTE_NAME)
    expect(MAX_REMOTE_NAME).toBe(150)
    expect(escapeName(limit)).toBe(limit)
    expect(escapeName('😀'.repeat(75))).toHaveLength(150)
    expect(escapeName(':'.repeat(50))).toHaveLength(150)
    for (const long of [`${limit}a`, '😀'.repeat(76), `${':'.repeat(50)}a`, `-${'a'.repeat(149)}`]) {
      expect(() => escapeName(long)).toThrow(expect.objectContaining({ class: 'usage', code: 'NAME_TOO_LONG' }))
    }
  })

  test('lone surrogates have no UTF-8 form and are refused', () => {
    for (const name of ['\ud800', 'a\udc00', '\udc00\ud800', '😀\ud83d']) {
      expect(() => escapeName(name)).toThrow(expect.objectContaining({ class: 'usage', code: 'NAME_INVALID' }))
    }
  })

  test('what escaping did not make is left alone', () => {
    for (const name of [
      '%41', // a plain letter is never escaped
      'a%3ab', // lower-case hex
      'x%2D', // a dash that does not lead
      'a%2Eb', // a dot that does not end
      '%2F', // a separator cannot come from a local name
      '..%2Fetc',
      '%FF',
      '%C3%28',
      '%E0%80%AF',
      '%ED%A0%80',
      '%F0%9F%98%80',
      '%63onx',
      'a:b%3A', // one form escaped, the other not
      '%25', // a percent sign before nothing
      `%3A${'a'.repeat(200)}`,
      'a%',
      '%',
      '%%',
    ]) {
      expect(unescapeName(name), name).toBe(name)
    }
  })

  const unit = fc.oneof(
    fc.constantFrom(...'%-.:*?<>|"\\0123456789ABCDEFabcdefconprnauxlpt \u0000\u0001\u001f\u007f%%%'.split('')),
    fc.string({ unit: 'binary', minLength: 1, maxLength: 1 }),
  )
  const text = fc.array(unit, { minLength: 1, maxLength: 60 }).map((units) => units.join(''))

  test('property: unescape undoes escape, and the result pleases the server', () => {
    let tried = 0
    fc.assert(
      fc.property(text, (name) => {
        fc.pre(!name.includes('/') && !/\p{Surrogate}/u.test(name))
        let remote: string
        try {
          remote = escapeName(name)
        } catch {
          return
        }
        tried++
        expect(unescapeName(remote)).toBe(name)
        expect(remote).not.toMatch(/[\\<>:"|?*\u0000-\u001f]|^-|\.$|^(con|prn|aux|nul|com[1-9]|lpt[1-9])(\.|$)/i)
      }),
      { numRuns: 5000 },
    )
    expect(tried).toBeGreaterThan(1000)
  })

  test('property: a remote name is decoded only to what would be escaped to it again', () => {
    fc.assert(
      fc.property(text, (remote) => {
        const local = unescapeName(remote)
        if (local !== remote) expect(escapeName(local)).toBe(remote)
      }),
      { numRuns: 5000 },
    )
  })

  test('property: two local names never meet in one remote name', () => {
    fc.assert(
      fc.property(text, text, (a, b) => {
        fc.pre(a !== b && !/\p{Surrogate}/u.test(a + b) && a.length < 50 && b.length < 50)
        expect(escapeName(a)).not.toBe(escapeName(b))
      }),
    )
  })
})

describe('hostile remote names', () => {
  const stems = ['con', 'prn', 'aux', 'nul', 'conin$', 'conout$']
  for (const digit of '0123456789¹²³') stems.push(`com${digit}`, `lpt${digit}`)
  const reserved = stems.flatMap((stem) => [stem, stem.toUpperCase(), `${stem}.txt`, `${stem} .txt`, `${stem}.`])
  const controls = Array.from({ length: 31 }, (_, i) => `a${String.fromCharCode(i + 1)}b`)
  const windowsOnly = [
    ...reserved,
    ...controls,
    ...'\\:*?"<>|'.split('').flatMap((char) => [char, `a${char}`, `${char}a`, `a${char}b`]),
    ...['a.', 'a ', 'a. ', 'a...', '. ', '...', ' ', '.. ', '.. .', 'a\u0009 ', 'dir.'],
    ...['a::$DATA', 'a:stream', 'a::$INDEX_ALLOCATION', '$MFT:x', 'c:', 'C:x', 'C:\\x', '\\\\srv\\share', '\\\\?\\C:'],
    ...['..\\x', '..\\..\\x', 'a\\..\\b', '\\x', '\\\\.\\pipe\\x', '\\??\\x', '%3A', 'a%3Fb', '%5C', '..%5Cx'],
    ...['PROGRA~1', 'a~1.txt', 'x~9', 'ABCDEF~12'],
    '\u001b[2J',
    '\u001b]0;x\u0007',
  ]
  const everywhere = [
    ...['', '.', '..', '/', '//', '/etc/passwd', '../x', 'a/b', 'a/../../b', './x', 'x/', '../', '..//', '/..'],
    ...['\0', 'a\0', '\0b', 'a\0.txt', '..\0', 'x/\0'],
    ...['\ud800', 'a\udfff', '\udc00\ud800b', '😀\ud83d', '\ud83d😀'],
    'a'.repeat(256),
    `${'a'.repeat(256)}.txt`,
    'a'.repeat(10_000),
    ...Array.from({ length: 40 }, (_, i) => `${'../'.repeat(i + 1)}etc`),
    ...Array.from({ length: 40 }, (_, i) => `${'a/'.repeat(i + 1)}..`),
    ...Array.from({ length: 40 }, (_, i) => `${'n'.repeat(i)}\0${'m'.repeat(i)}`),
    ...Array.from({ length: 40 }, (_, i) => `${'n'.repeat(i)}/${'m'.repeat(i)}`),
  ]

  test('there are enough of them', () => {
    expect(new Set([...windowsOnly, ...everywhere]).size).toBeGreaterThanOrEqual(400)
  })

  const unsafe = expect.objectContaining({ class: 'usage', code: 'NAME_UNSAFE' })

  test.each(['linux', 'darwin', 'win32'] as const)('none of them leaves its directory on %s', (platform) => {
    for (const name of everywhere) {
      expect(() => localName(name, { platform }), JSON.stringify(name.slice(0, 80))).toThrow(unsafe)
      expect(() => checkLocalName(name, platform)).toThrow(unsafe)
    }
    for (const name of windowsOnly) {
      if (platform === 'win32') {
        expect(() => localName(name, { platform }), JSON.stringify(name)).toThrow(unsafe)
        continue
      }
      // Harmless elsewhere, but only as one component that is not a directory's own name.
      const local = localName(name, { platform })
      expect(local).not.toMatch(/[/\0]/)
      expect(['', '.', '..']).not.toContain(local)
    }
  })

  test('a decoded name is checked too', () => {
    const decoded: [string, string][] = [
      ['.%2E', '..'],
      ['%2E', '.'],
      ['%00', '\0'],
    ]
    for (const [remote, local] of decoded) {
      expect(unescapeName(remote)).toBe(local)
      for (const platform of ['linux', 'darwin', 'win32'] as const) {
        expect(() => localName(remote, { platform }), remote).toThrow(unsafe)
      }
    }
  })

  test('harmless names pass everywhere and unchanged', () => {
    for (const platform of ['linux', 'darwin', 'win32'] as const) {
      for (const name of [
        ...['a', '.a', '..a', 'a..b', '...a', '.hidden', 'über', '😀', 'a b', ' a', '~', 'a~b', '~a', 'console', 'com'],
        ...['comma.txt', 'null', 'x.con', 'lpt', 'lpt10', '-', '--', '%', '100%', 'a'.repeat(255), '\u202ecod.exe'],
      ]) {
        expect(localName(name, { platform })).toBe(name)
      }
    }
  })

  test('lengths count in bytes, on Windows in UTF-16 units', () => {
    const name = '漢'.repeat(100)
    expect(() => localName(name, { platform: 'linux' })).toThrow(unsafe)
    expect(localName(name, { platform: 'win32' })).toBe(name)
    expect(localName('漢'.repeat(85), { platform: 'linux' })).toHaveLength(85)
    expect(() => localName('漢'.repeat(256), { platform: 'win32' })).toThrow(unsafe)
  })

  test('property: whatever passes is one component', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: 'binary', maxLength: 40 }),
        fc.constantFrom('linux', 'darwin', 'win32' as const),
        (name, platform) => {
          let local: string
          try {
            local = localName(name, { platform: platform as NodeJS.Platform })
          } catch (error) {
            expect(error).toMatchObject({ code: 'NAME_UNSAFE' })
            return
          }
          expect(local).not.toMatch(/[/\0]/)
          expect(local === '' || local === '.' || local === '..').toBe(false)
          if (platform === 'win32') expect(local).not.toMatch(/[\\:*?"<>|\u0000-\u001f]|[. ]$/)
        },
      ),
      { numRuns: 3000 },
    )
  })
})

describe('with names: escape', () => {
  const platforms = ['linux', 'darwin', 'win32'] as const
  const up = (name: string, platform: NodeJS.Platform = 'linux') => escapeName(name, { names: 'escape', platform })
  const down = (name: string, platform: NodeJS.Platform = 'linux') => localName(name, { names: 'escape', platform })

  test.each(ESCAPES)('%j goes up as ever, as %j', (local, remote) => {
    expect(up(local)).toBe(remote)
    expect(down(remote)).toBe(local)
  })

  test.each<[string, string, string]>([
    // remote, here on Windows, here on Linux
    ['CON', '%!CON', '%!CON'],
    ['%43ON', '%=%43ON', 'CON'],
    ['a%3Ab', '%=a%3Ab', 'a:b'],
    ['a:b', '%!a=3Ab', '%!a=3Ab'],
    ['trailing ', '%=trailing=20', 'trailing '],
    ['PROGRA~1', '%=PROGRA=7E1', 'PROGRA~1'],
    ['..', '%!.=2E', '%!.=2E'],
    ['../../etc/passwd', '%!..=2F..=2Fetc=2Fpasswd', '%!..=2F..=2Fetc=2Fpasswd'],
    ['nul\0', '%!nul=00', '%!nul=00'],
    // Somebody typed it: going up again it would be %2541.
    ['%41', '%=%41', '%=%41'],
    ['-x', '%!-x', '%!-x'],
    // What looks like one of ours.
    ['%=%41', '%=%=3D%41', '%=%=3D%41'],
    ['%!CON', '%=%!CON', '%=%!CON'],
    ['%=plain', '%=plain', '%=plain'],
    ['%=CON', '%=CON', '%=CON'],
    ['%=a=3Ab', '%=a=3Ab', '%=a=3Ab'],
    ['plain', 'plain', 'plain'],
  ])('%j is %j on Windows, %j on Linux', (remote, windows, linux) => {
    expect([down(remote, 'win32'), down(remote, 'linux')]).toEqual([windows, linux])
    expect([up(windows, 'win32'), up(linux, 'linux')]).toEqual([remote, remote])
  })

  test('a name of 255 bytes that is too long for the server is packed, and comes back', () => {
    for (const name of [
      'x'.repeat(255),
      `\u00fc${'x'.repeat(253)}`,
      ':'.repeat(51),
      `${'\u6f22'.repeat(50)}${'y'.repeat(101)}`,
    ]) {
      const remote = up(name)
      expect(remote.length).toBeLessThanOrEqual(MAX_REMOTE_NAME)
      expect(remote).toMatch(/^%=[\u4e00-\u8dff]+$/)
      expect(remote.normalize('NFC')).toBe(remote)
      expect(remote.normalize('NFD')).toBe(remote)
      expect(down(remote)).toBe(name)
      // What looks packed may be somebody’s own name.
      for (let length = 2; length < 85; length++) {
        const own = remote.slice(0, length)
        expect(up(own)).not.toBe(remote)
        expect(down(up(own))).toBe(own)
      }
    }
    expect(up('x'.repeat(150))).toBe('x'.repeat(150))
    const tooLong = expect.objectContaining({ code: 'NAME_TOO_LONG' })
    expect(() => up('\u6f22'.repeat(151), 'win32')).toThrow(tooLong)
  })

  test('what cannot be escaped is refused as ever', () => {
    const unsafe = expect.objectContaining({ code: 'NAME_UNSAFE' })
    for (const name of ['\ud800', 'a\udc00:', '\u6f22'.repeat(150), '/'.repeat(85)])
      expect(() => down(name)).toThrow(unsafe)
    expect(() => up('\ud800')).toThrow(expect.objectContaining({ code: 'NAME_INVALID' }))
  })

  const hostile = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.constantFrom(...'%=%=-.:*?<>|"\\/~123 456789ABCDEFabcdef \0\u0001\u001f\u007f'.split('')),
    },
    {
      weight: 3,
      arbitrary: fc.constantFrom(
        'CON',
        'nul',
        'COM\u00b9',
        'lpt1',
        '.txt',
        '%=',
        '%!',
        '%25',
        '=3A',
        '=2E',
        '%3A',
        '..',
      ),
    },
    { weight: 2, arbitrary: fc.string({ unit: 'binary', minLength: 1, maxLength: 1 }) },
    { weight: 1, arbitrary: fc.constantFrom('\u4e00', '\u5678', '\u8dff', 'e\u0301') },
    // Pushes a name towards the limits of both sides.
    { weight: 1, arbitrary: fc.integer({ min: 20, max: 150 }).map((length) => 'l'.repeat(length)) },
  )
  const text = fc.array(hostile, { maxLength: 40 }).map((units) => units.join(''))
  /** Also what the other direction makes of names, and that once more. */
  const name = fc.tuple(text, fc.nat(3), fc.constantFrom(...platforms)).map(([start, rounds, platform]) => {
    let made = start
    for (let round = 0; round < rounds; round++) {
      for (const convert of [down, up]) {
        try {
          made = `${['', '%=', '%!'][round]}${convert(made, platform)}`
        } catch {}
      }
    }
    return made
  })
  const fits = (one: string, platform: NodeJS.Platform) => {
    try {
      checkLocalName(one, platform)
      return true
    } catch {
      return false
    }
  }

  test.each(platforms)('property, %s: whatever goes up comes back as it was, and pleases the server', (platform) => {
    let tried = 0
    fc.assert(
      fc.property(name, (local) => {
        fc.pre(fits(local, platform))
        let remote: string
        try {
          remote = up(local, platform)
        } catch (error) {
          expect(error).toMatchObject({ code: 'NAME_TOO_LONG' })
          // Disks that count bytes have no such names.
          expect(platform).toBe('win32')
          return
        }
        tried++
        expect(down(remote, platform)).toBe(local)
        // But for what stands for a name that no server should have.
        if (!local.startsWith('%!')) {
          expect(remote.length).toBeLessThanOrEqual(MAX_REMOTE_NAME)
          expect(remote).not.toMatch(/[\\<>:"|?*\u0000-\u001f]|^-|\.$|^(con|prn|aux|nul|com[1-9]|lpt[1-9])(\.|$)/i)
        }
      }),
      { numRuns: 4000 },
    )
    expect(tried).toBeGreaterThan(500)
  })

  test.each(platforms)('property, %s: whatever comes down fits, and goes up as it was', (platform) => {
    let tried = 0
    fc.assert(
      fc.property(name, (remote) => {
        let local: string
        try {
          local = down(remote, platform)
        } catch (error) {
          expect(error).toMatchObject({ code: 'NAME_UNSAFE' })
          return
        }
        tried++
        checkLocalName(local, platform)
        expect(up(local, platform)).toBe(remote)
      }),
      { numRuns: 4000 },
    )
    expect(tried).toBeGreaterThan(500)
  })

  test('property: two names never meet, in either direction', () => {
    fc.assert(
      fc.property(name, name, fc.constantFrom(...platforms), (a, b, platform) => {
        fc.pre(a !== b)
        for (const convert of [up, down]) {
          const made = [a, b].map((one) => {
            try {
              if (convert === up) checkLocalName(one, platform)
              return convert(one, platform)
            } catch {
              return undefined
            }
          })
          if (made[0] !== undefined) expect(made[0]).not.toBe(made[1])
        }
      }),
      { numRuns: 3000 },
    )
  })

  test('every hostile name that has a form at all comes down as one harmless component', () => {
    for (const platform of platforms) {
      for (const remote of [
        '',
        '.',
        '..',
        '/',
        '//',
        '/etc/passwd',
        'a/b',
        '\0',
        'a\0b',
        'x/',
        '..\\..',
        'C:\\x',
        'aux.c',
        'a. ',
      ]) {
        const local = down(remote, platform)
        expect(local).not.toMatch(/[/\0]/)
        expect(['', '.', '..']).not.toContain(local)
        expect(up(local, platform)).toBe(remote)
      }
    }
  })
})

test('names are the same in NFC, and collide when only case differs', () => {
  expect(sameNameKey('U\u0308ber')).toBe(sameNameKey('\u00dcber'))
  expect(sameNameKey('a')).not.toBe(sameNameKey('A'))
  const pairs: [string, string][] = [
    ['README', 'readme'],
    ['stra\u00dfe', 'STRASSE'],
    ['\u00dcber', 'u\u0308ber'],
    ['\u212a', 'k'],
    ['\u03c3', '\u03c2'],
  ]
  for (const [a, b] of pairs) expect(foldKey(a)).toBe(foldKey(b))
  expect(foldKey('a')).not.toBe(foldKey('b'))
})
