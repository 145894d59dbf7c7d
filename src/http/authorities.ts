/**
 * Certificate authorities beside the usual ones: PEM texts that were given, files of a directory, and those that the environment
 * names for Node (`NODE_EXTRA_CA_CERTS`) and OpenSSL (`SSL_CERT_DIR`).
 * @module
 */
import { X509Certificate } from 'node:crypto'
import { closeSync, fstatSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { rootCertificates } from 'node:tls'
import { systemCode } from '../errors.ts'

const MAX_FILES = 1_000
const MAX_FILE = 1024 * 1024
const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g

/** The certificates of a PEM text, each on its own so that a broken one is noticed; `undefined` when it is anything else. */
export function certificatesOf(text: string): string[] | undefined {
  const found = text.match(CERTIFICATE) ?? []
  try {
    for (const pem of found) new X509Certificate(pem)
  } catch {
    return undefined
  }
  return found.length > 0 && found.length === text.split('-----BEGIN ').length - 1 ? found : undefined
}

/** The text of a regular file of sensible length; a device would be waited for. */
function readText(path: string): string | undefined {
  let file: number | undefined
  try {
    file = openSync(path, 'r')
    const stats = fstatSync(file)
    return stats.isFile() && stats.size <= MAX_FILE ? readFileSync(file, 'utf8') : undefined
  } catch (error) {
    if (systemCode(error) === undefined) throw error
    return undefined
  } finally {
    if (file !== undefined) closeSync(file)
  }
}

/** Certificates in the files of a directory: `.pem`, `.crt`, `.cer`, and names as OpenSSL makes them; what is none is passed over. */
export function readDirectory(path: string): string[] | undefined {
  let names: string[]
  try {
    names = readdirSync(path)
  } catch (error) {
    if (systemCode(error) === undefined) throw error
    return undefined
  }
  const wanted = names.filter((name) => /\.(pem|crt|cer)$|^[0-9a-f]{8}\.\d+$/.test(name)).sort()
  const found = wanted.slice(0, MAX_FILES).flatMap((name) => {
    const text = readText(join(path, name))
    return (text?.match(CERTIFICATE) ?? []).filter((pem) => certificatesOf(pem) !== undefined)
  })
  return [...new Set(found)]
}

/** What the environment names. Files that cannot be read count for nothing, as for Node. */
function fromEnvironment(env: NodeJS.ProcessEnv): { extra: string[]; directory: string[] } {
  const file = env.NODE_EXTRA_CA_CERTS
  const extra = file ? (readText(file)?.match(CERTIFICATE) ?? []) : []
  const directories = (env.SSL_CERT_DIR ?? '').split(delimiter).filter((path) => path !== '')
  return {
    extra: extra.filter((pem) => certificatesOf(pem) !== undefined),
    directory: directories.flatMap((path) => readDirectory(path) ?? []),
  }
}

/** Those of the last environment: a process makes many connections, and a directory of a system has hundreds of files. */
let last: { readonly key: string; readonly found: ReturnType<typeof fromEnvironment> } | undefined

/**
 * All authorities, when there are any besides the usual ones; else `undefined`, and Node takes its own.
 *
 * @param given - Those that the caller names.
 */
export function authorities(given: readonly string[] | undefined, env = process.env): string[] | undefined {
  const key = JSON.stringify([env.NODE_EXTRA_CA_CERTS, env.SSL_CERT_DIR])
  if (last?.key !== key) last = { key, found: fromEnvironment(env) }
  const { extra, directory } = last.found
  // A list of our own takes the place of Node's, the extra ones included.
  if (given === undefined && directory.length === 0) return undefined
  return [...rootCertificates, ...extra, ...directory, ...(given ?? [])]
}
