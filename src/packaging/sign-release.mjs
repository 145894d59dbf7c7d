/**
 * Says, signed, which release is the newest: what `sealsync update --check` reads. Put the output at the address that users have as
 * `update-url`.
 *
 * node src/packaging/sign-release.mjs --key FILE --days N [--version V] [--url URL] [--released TIME] > release.json
 * node src/packaging/sign-release.mjs --new-key FILE     makes a key, and prints what users have as `update-key`
 *
 * Sign again before it expires, also when there is nothing new: whoever is kept from what is newer notices by that. The key
 * (PEM, PKCS#8, Ed25519) belongs on a machine that nothing else runs on.
 * @module
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync, sign } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'

const HEADER = '{"alg":"EdDSA","typ":"sealsync-release+json"}'
const DAY_MS = 86_400_000

const { values } = parseArgs({
  options: Object.fromEntries(
    ['key', 'new-key', 'days', 'version', 'url', 'released'].map((name) => [name, { type: 'string' }]),
  ),
})

/** As `update-key` takes it. */
const publicText = (key) =>
  Buffer.from(createPublicKey(key).export({ format: 'jwk' }).x, 'base64url').toString('base64')

function makeKey(path) {
  const { privateKey } = generateKeyPairSync('ed25519')
  writeFileSync(path, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600, flag: 'wx' })
  return `${publicText(privateKey)}\n`
}

function signedRelease({ key: keyFile, days, url, released = new Date().toISOString(), version }) {
  if (keyFile === undefined || !/^\d+$/.test(days ?? '')) throw new Error('--key FILE and --days N are needed')
  const key = createPrivateKey(readFileSync(keyFile))
  if (key.asymmetricKeyType !== 'ed25519') throw new Error('the key is not of Ed25519')
  const releasedMs = Date.parse(released)
  const own = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))
  const payload = {
    name: own.name,
    version: version ?? own.version,
    released: new Date(releasedMs).toISOString(),
    expires: new Date(Math.max(releasedMs, Date.now()) + Number(days) * DAY_MS).toISOString(),
    ...(url === undefined ? {} : { url }),
  }
  const [header, body] = [HEADER, JSON.stringify(payload)].map((text) => Buffer.from(text).toString('base64url'))
  const signature = sign(null, Buffer.from(`${header}.${body}`), key).toString('base64url')
  return `${JSON.stringify({ protected: header, payload: body, signature })}\n`
}

process.stdout.write(values['new-key'] === undefined ? signedRelease(values) : makeKey(values['new-key']))
