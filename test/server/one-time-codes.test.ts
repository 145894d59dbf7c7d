/** The second factor of the embedded server: published test values, and logins that need a code. */
import { expect, test } from 'vitest'
import { addUser } from '../../src/server/index.ts'
import { authenticatorUri, checkCode, codeAt } from '../../src/server/one-time-codes.ts'
import { ask, BASIC, startWorld } from './support.ts'

const SECRET = new TextEncoder().encode('12345678901234567890')

test('codes of RFC 4226 appendix D and RFC 6238 appendix B (their last six digits)', () => {
  const hotp = ['755224', '287082', '359152', '969429', '338314', '254676', '287922', '162583', '399871', '520489']
  expect(hotp.map((_code, step) => codeAt(SECRET, step))).toEqual(hotp)
  const totp = [
    [59, '287082'],
    [1_111_111_109, '081804'],
    [1_111_111_111, '050471'],
    [1_234_567_890, '005924'],
    [2_000_000_000, '279037'],
    [20_000_000_000, '353130'],
  ] as const
  for (const [seconds, code] of totp) expect(checkCode(SECRET, code, seconds * 1_000)).toBe(Math.floor(seconds / 30))
})

test('a code counts half a minute around its time, once, and only in its form', () => {
  const at = 1_111_111_111_000
  const step = Math.floor(at / 30_000)
  const code = codeAt(SECRET, step)
  for (const [offset, good] of [
    [-60_000, false],
    [-30_000, true],
    [0, true],
    [30_000, true],
    [60_000, false],
  ] as const) {
    expect(checkCode(SECRET, code, at + offset) !== undefined, String(offset)).toBe(good)
  }
  expect(checkCode(SECRET, code, at, step)).toBeUndefined()
  for (const bad of ['', code.slice(1), `${code}0`, ` ${code}`, 'abcdef', '١٢٣٤٥٦'])
    expect(checkCode(SECRET, bad, at)).toBeUndefined()
  // The text form of this secret is in every authenticator's documentation.
  expect(authenticatorUri('a b', SECRET)).toBe(
    'otpauth://totp/sealsync:a%20b?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=sealsync',
  )
})

function secretOf(uri: string): Uint8Array {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'
  const text = new URL(uri).searchParams.get('secret') ?? ''
  const bits = [...text].map((char) => alphabet.indexOf(char).toString(2).padStart(5, '0')).join('')
  return Uint8Array.from(bits.match(/.{8}/g) ?? [], (byte) => Number.parseInt(byte, 2))
}

/** An account whose codes are all different while the test lasts, and none of them is the wrong one. */
async function addUserWithCodes(dir: string): Promise<{ name: string; secret: Uint8Array }> {
  for (let n = 1; ; n++) {
    const name = `ann${n}`
    const secret = secretOf((await addUser(dir, { name, password: 'pw', oneTimeCodes: true })).authenticator!)
    const step = Math.floor(Date.now() / 30_000)
    const codes = Array.from({ length: 30 }, (_, at) => codeAt(secret, step - 2 + at))
    if (new Set([...codes, WRONG]).size === codes.length + 1) return { name, secret }
  }
}
const WRONG = '000000'

test('a login needs password and code; no code is told apart from a wrong one only after the right password', async () => {
  const world = await startWorld()
  const { name, secret } = await addUserWithCodes(world.dir)
  const login = (password: string, otp?: string) =>
    ask(`${world.server.url}/oauth/token`, {
      method: 'POST',
      form: { grant_type: 'password', username: name, password, ...(otp === undefined ? {} : { otp }) },
      headers: { authorization: BASIC },
    })
  const now = () => codeAt(secret, Math.floor(Date.now() / 30_000))
  expect((await login('wrong')).json).toMatchObject({ error: 'invalid_grant' })
  expect((await login('wrong', now())).json).toMatchObject({ error: 'invalid_grant' })
  expect((await login('pw')).json).toMatchObject({ error: 'mfa_required' })
  expect((await login('pw', WRONG)).json).toMatchObject({ error: 'invalid_grant' })
  const code = now()
  expect((await login('pw', code)).status).toBe(200)
  expect((await login('pw', code)).json).toMatchObject({ error: 'invalid_grant' })
  // The login page asks for both as well.
  const page = async (otp: string) =>
    ask(`${world.server.url}/oauth/authorize`, {
      method: 'POST',
      form: {
        response_type: 'code',
        client_id: 'sealsync',
        redirect_uri: 'http://127.0.0.1:5123/callback',
        code_challenge: 'a'.repeat(43),
        code_challenge_method: 'S256',
        username: name,
        password: 'pw',
        otp,
      },
    })
  expect((await page('')).status).toBe(401)
  expect((await page(codeAt(secret, Math.floor(Date.now() / 30_000) + 1))).status).toBe(302)
})
