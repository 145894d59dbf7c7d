/**
 * The encryption password, sealed by the TPM of this machine or by a security key (FIDO2, `hmac-secret`), through their own programs:
 * tpm2-tools and libfido2. The hardware keeps, or makes, 32 bytes; the password is encrypted under them in a private file. No secret
 * is ever an argument, no shell is started, and no program is waited for longer than a person takes.
 * @module
 */
import { spawn } from 'node:child_process'
import { createCipheriv, createDecipheriv, createHash, hkdfSync, randomBytes } from 'node:crypto'
import { readFile, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { localError, SyncError, systemCode } from '../errors.ts'
import { makePrivateDirectory, readPrivateFile, temporaryName, writePrivateFile } from '../local/atomic-file.ts'
import { homePaths } from '../local/home.ts'
import { childEnvironment } from './child-environment.ts'

/** What seals. */
export type SealKind = 'tpm2' | 'fido2'
export const SEAL_KINDS: readonly SealKind[] = ['tpm2', 'fido2']

/** Tells a person what to do now. */
type Tell = (text: string) => void

interface SealedPassword {
  readonly kind: SealKind
  /** What the hardware needs to give the 32 bytes again; base64. */
  readonly parts: readonly string[]
  readonly nonce: string
  /** With the tag behind it. */
  readonly ciphertext: string
}

const FORMAT = 'sealsync-sealed-password'
const RELYING_PARTY = 'sealsync'
const KEY_BYTES = 32
const MAX_OUTPUT = 64 * 1024
const TPM_MS = 60_000
/** A person looks for the key, and may have to type a PIN. */
const TOUCH_MS = 120_000

const PACKAGES: Readonly<Record<SealKind, string>> = { tpm2: 'tpm2-tools', fido2: 'fido2-tools (libfido2)' }

const failed = (program: string, why: string, cause?: unknown) =>
  new SyncError('key', 'SEAL_TOOL_FAILED', `${program} ${why}`, {
    hint: 'Is the device there, and may this user use it? The password can be given in another way: --key-password-file',
    cause,
  })

/** Runs one of their programs. What it complains of is told. */
async function run(
  kind: SealKind,
  program: string,
  args: readonly string[],
  input: Uint8Array | string = '',
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: 'pipe', env: childEnvironment() })
    const timeoutMs = kind === 'tpm2' ? TPM_MS : TOUCH_MS
    const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs)
    const [said, complaints]: [Buffer[], Buffer[]] = [[], []]
    let length = 0
    const take = (into: Buffer[]) => (chunk: Buffer) => {
      length += chunk.length
      if (length > MAX_OUTPUT) child.kill('SIGKILL')
      else into.push(chunk)
    }
    child.stdout.on('data', take(said))
    child.stderr.on('data', take(complaints))
    child.on('error', (error) => {
      clearTimeout(timer)
      const isMissing = systemCode(error) === 'ENOENT'
      reject(
        isMissing
          ? new SyncError('usage', 'SEAL_TOOL_MISSING', `There is no program ${program}`, {
              hint: `Install the package ${PACKAGES[kind]}.`,
              cause: error,
            })
          : failed(program, 'cannot be started', error),
      )
    })
    child.on('close', (code, signal) => {
      clearTimeout(timer)
      if (code === 0) return resolve(Buffer.concat(said))
      const last = Buffer.concat(complaints).toString('utf8').trim().split('\n').at(-1) ?? ''
      reject(
        failed(
          program,
          signal === null ? `ended with ${code}: ${last.slice(0, 200)}` : 'took too long, or said too much',
        ),
      )
    })
    // Whoever ends without reading says why by how it ends.
    child.stdin.on('error', () => {})
    child.stdin.end(input)
  })
}

/** Without a manager for its few places a TPM keeps what was loaded, and is soon full. */
async function flush(): Promise<void> {
  if (!/^(?:swtpm|mssim|device:\/dev\/tpm\d+$)/.test(process.env.TPM2TOOLS_TCTI ?? '')) return
  await run('tpm2', 'tpm2_flushcontext', ['-t']).catch(() => {})
}

/** Files for programs that pass things on in files: no secrets, and removed even if this process is killed, by the next one. */
async function withFiles<T>(home: string, count: number, work: (paths: string[]) => Promise<T>): Promise<T> {
  const directory = homePaths(home).temporary
  await makePrivateDirectory(directory)
  const paths = Array.from({ length: count }, () => join(directory, temporaryName()))
  try {
    return await work(paths)
  } finally {
    for (const path of paths) await unlink(path).catch(() => {})
  }
}

const PRIMARY = ['-Q', '-C', 'o', '-g', 'sha256', '-G', 'ecc', '-c']

/** Seals bytes under the storage hierarchy of the TPM: only this one opens them, for whoever may use it and has the file. */
const sealByTpm = (home: string, secret: Uint8Array): Promise<string[]> =>
  withFiles(home, 3, async ([primary, pub, priv]) => {
    await run('tpm2', 'tpm2_createprimary', [...PRIMARY, primary!])
    await flush()
    const attributes = 'fixedtpm|fixedparent|noda|userwithauth'
    const create = ['-Q', '-C', primary!, '-i', '-', '-u', pub!, '-r', priv!, '-a', attributes]
    await run('tpm2', 'tpm2_create', create, secret)
    await flush()
    return [await readFile(pub!, 'base64'), await readFile(priv!, 'base64')]
  })

const openByTpm = (home: string, [pub = '', priv = '']: readonly string[]): Promise<Uint8Array> =>
  withFiles(home, 4, async ([primary, pubFile, privFile, object]) => {
    await writeFile(pubFile!, Buffer.from(pub, 'base64'), { mode: 0o600, flag: 'wx' })
    await writeFile(privFile!, Buffer.from(priv, 'base64'), { mode: 0o600, flag: 'wx' })
    await run('tpm2', 'tpm2_createprimary', [...PRIMARY, primary!])
    await flush()
    await run('tpm2', 'tpm2_load', ['-Q', '-C', primary!, '-u', pubFile!, '-r', privFile!, '-c', object!])
    await flush()
    const secret = await run('tpm2', 'tpm2_unseal', ['-Q', '-c', object!])
    await flush()
    return secret
  })

/** The one security key that is plugged in. */
async function securityKey(): Promise<string> {
  const listed = (await run('fido2', 'fido2-token', ['-L'])).toString('utf8')
  const devices = listed.split('\n').flatMap((line) => /^(\S.*?): vendor=/.exec(line)?.[1] ?? [])
  const [device, ...more] = devices
  if (device === undefined) {
    throw new SyncError('key', 'SECURITY_KEY_MISSING', 'There is no security key', {
      hint: 'Plug it in, and try again.',
    })
  }
  if (more.length > 0) {
    throw new SyncError('usage', 'SECURITY_KEY_AMBIGUOUS', `There are ${devices.length} security keys`, {
      hint: 'Leave only the one that is meant.',
    })
  }
  return device
}

const lines = (...texts: readonly string[]) => `${texts.join('\n')}\n`
const fresh = () => randomBytes(KEY_BYTES).toString('base64')

function lineOf(output: Buffer, program: string, number: number): string {
  const line = output.toString('utf8').split('\n')[number - 1]?.trim() ?? ''
  if (line === '' || Buffer.from(line, 'base64').toString('base64') !== line)
    throw failed(program, 'said something else')
  return line
}

/** Makes a credential on the security key; it stores nothing there. */
async function makeCredential(tell: Tell): Promise<string> {
  const device = await securityKey()
  tell('Touch the security key, to make a credential…')
  const input = lines(fresh(), RELYING_PARTY, RELYING_PARTY, fresh())
  return lineOf(await run('fido2', 'fido2-cred', ['-M', '-h', device, 'es256'], input), 'fido2-cred', 5)
}

/** What the security key makes of the salt, after a touch. */
async function openByKey([credential = '', salt = '']: readonly string[], tell: Tell): Promise<Uint8Array> {
  const device = await securityKey()
  tell('Touch the security key, to unlock…')
  const input = lines(fresh(), RELYING_PARTY, credential, salt)
  return Buffer.from(
    lineOf(await run('fido2', 'fido2-assert', ['-G', '-h', device], input), 'fido2-assert', 5),
    'base64',
  )
}

async function open(home: string, kind: SealKind, parts: readonly string[], tell: Tell): Promise<Uint8Array> {
  const secret = kind === 'tpm2' ? await openByTpm(home, parts) : await openByKey(parts, tell)
  if (secret.length !== KEY_BYTES) throw failed(kind === 'tpm2' ? 'tpm2_unseal' : 'fido2-assert', 'gave something else')
  return secret
}

const keyOf = (secret: Uint8Array, kind: SealKind) =>
  Buffer.from(hkdfSync('sha256', secret, 'sealsync sealed password, 1', kind, KEY_BYTES))

const pathOf = (home: string, account: string, kind: SealKind) =>
  join(homePaths(home).sealedPasswords, `${createHash('sha256').update(account).digest('hex').slice(0, 32)}.${kind}`)

const damaged = (path: string, cause?: unknown) =>
  new SyncError('key', 'SEALED_PASSWORD_DAMAGED', `The sealed encryption password does not open: ${path}`, {
    hint: 'Seal it again: sync keys seal',
    cause,
  })

function decrypt(sealed: SealedPassword, secret: Uint8Array, account: string, path: string): Uint8Array {
  const bytes = Buffer.from(sealed.ciphertext, 'base64')
  try {
    const nonce = Buffer.from(sealed.nonce, 'base64')
    const cipher = createDecipheriv('aes-256-gcm', keyOf(secret, sealed.kind), nonce, { authTagLength: 16 })
    cipher.setAAD(Buffer.from(account)).setAuthTag(bytes.subarray(-16))
    return Buffer.concat([cipher.update(bytes.subarray(0, -16)), cipher.final()])
  } catch (error) {
    throw damaged(path, error)
  }
}

/**
 * Seals the password of an account, and opens it again before it is kept in place of an older one.
 *
 * @throws {SyncError} `SEAL_TOOL_MISSING`, `SEAL_TOOL_FAILED`, `SECURITY_KEY_MISSING`, `SECURITY_KEY_AMBIGUOUS`.
 */
export async function sealPassword(
  home: string,
  account: string,
  kind: SealKind,
  password: Uint8Array,
  tell: Tell,
): Promise<void> {
  const random = randomBytes(KEY_BYTES)
  const parts = kind === 'tpm2' ? await sealByTpm(home, random) : [await makeCredential(tell), fresh()]
  const secret = await open(home, kind, parts, tell)
  const path = pathOf(home, account, kind)
  try {
    if (kind === 'tpm2' && !random.equals(secret)) throw failed('tpm2_unseal', 'gave something else')
    const nonce = randomBytes(12)
    const cipher = createCipheriv('aes-256-gcm', keyOf(secret, kind), nonce, { authTagLength: 16 })
    cipher.setAAD(Buffer.from(account))
    const ciphertext = Buffer.concat([cipher.update(password), cipher.final(), cipher.getAuthTag()]).toString('base64')
    const sealed: SealedPassword = { kind, parts, nonce: nonce.toString('base64'), ciphertext }
    decrypt(sealed, secret, account, path).fill(0)
    await writePrivateFile(path, `${JSON.stringify({ format: FORMAT, version: 1, ...sealed })}\n`)
  } finally {
    secret.fill(0)
    random.fill(0)
  }
}

/**
 * Opens the sealed password of an account.
 *
 * @throws {SyncError} `SEALED_PASSWORD_MISSING`, `SEALED_PASSWORD_DAMAGED`, and as `sealPassword`.
 */
export async function openSealedPassword(
  home: string,
  account: string,
  kind: SealKind,
  tell: Tell,
): Promise<Uint8Array> {
  const path = pathOf(home, account, kind)
  const bytes = await readPrivateFile(path)
  if (bytes === undefined) {
    throw new SyncError('key', 'SEALED_PASSWORD_MISSING', `No encryption password is sealed by ${kind} here`, {
      hint: `Seal it first: sync keys seal ${kind}`,
    })
  }
  const sealed = parse(bytes, kind, path)
  const secret = await open(home, kind, sealed.parts, tell)
  try {
    return decrypt(sealed, secret, account, path)
  } finally {
    secret.fill(0)
  }
}

function parse(bytes: Uint8Array, kind: SealKind, path: string): SealedPassword {
  try {
    const value = JSON.parse(Buffer.from(bytes).toString('utf8'))
    const texts = [value.nonce, value.ciphertext, ...value.parts]
    const isOurs = value.format === FORMAT && value.version === 1 && value.kind === kind && value.parts.length === 2
    // They go to other programs, line by line.
    if (!isOurs || !texts.every((text) => /^[A-Za-z0-9+/]+={0,2}$/.test(text))) throw damaged(path)
    return value
  } catch (error) {
    throw error instanceof SyncError ? error : damaged(path, error)
  }
}

/** How the password of an account is sealed here. */
export async function sealedKinds(home: string, account: string): Promise<SealKind[]> {
  const found: SealKind[] = []
  for (const kind of SEAL_KINDS)
    if ((await readPrivateFile(pathOf(home, account, kind))) !== undefined) found.push(kind)
  return found
}

/** Removes what is sealed; returns what there was. */
export async function forgetSealed(home: string, account: string): Promise<SealKind[]> {
  const kinds = await sealedKinds(home, account)
  for (const kind of kinds) {
    const path = pathOf(home, account, kind)
    await unlink(path).catch((error) => {
      throw localError(error, `remove ${path}`)
    })
  }
  return kinds
}
