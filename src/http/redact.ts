/**
 * Foreign text as it may be shown or logged: secrets and what could steer a terminal are cut out. Nothing here grows faster than
 * the text is long.
 * @module
 */

const CUT = '[…]'
const MAX_KNOWN = 64
/** Shorter ones would cut words apart. */
const MIN_SECRET = 4

const SECRET_NAME = String.raw`token|secret|passw|passphrase|assertion|credential|signature|session|cookie|authoriz|api[-_]?key|consumer-?key|private|proof|verifier|\b(?:otp|mfa|code|pin)\b`
const IN_JSON = new RegExp(
  String.raw`("[^"]{0,60}(?:${SECRET_NAME})[^"]{0,60}"\s{0,4}:\s{0,4})(?:"(?:[^"\\]|\\.)*"?|\[[^\]]*\]?)`,
  'gi',
)
const IN_FORM = new RegExp(String.raw`\b([\w.-]{0,60}(?:${SECRET_NAME})[\w.-]{0,60}=)[^\s&"'<>;,]+`, 'gi')
const SCHEME = /\b(bearer|basic|digest|negotiate|ntlm|dpop)\s{1,4}[\w.~+/=:-]{4,}/gi
/** Long, and of letters and digits: a token rather than a word. */
const LONG = /[\w~+/=-]{20,}(?:\.[\w~+/=-]+)*/g
const isToken = (text: string) => /\d/.test(text) && /[a-z]/i.test(text)

/** Secrets that were seen, to be cut out wherever they come back; the oldest are forgotten. */
export interface Secrets {
  add(...secrets: readonly (string | undefined)[]): void
  readonly list: readonly string[]
}

export function createSecrets(): Secrets {
  const list: string[] = []
  return {
    list,
    add(...secrets) {
      for (const secret of secrets) {
        if (secret === undefined || secret.length < MIN_SECRET || list.includes(secret)) continue
        list.push(secret)
        if (list.length > MAX_KNOWN) list.shift()
      }
    },
  }
}

/**
 * Cuts out the known secrets, what stands under a name like those of secrets (JSON, form fields), behind an authentication scheme,
 * and what looks like a token; then control characters and what else moves a cursor.
 *
 * @param max - Longest result, in characters.
 */
export function redact(text: string, secrets: readonly string[] = [], max = 1_000): string {
  // What is cut off later must not be searched for.
  let shown = text.slice(0, Math.max(max, 1_000) * 4)
  for (const secret of secrets) {
    for (const form of new Set([secret, encodeURIComponent(secret)])) shown = shown.replaceAll(form, CUT)
  }
  return shown
    .replace(IN_JSON, `$1"${CUT}"`)
    .replace(IN_FORM, `$1${CUT}`)
    .replace(SCHEME, `$1 ${CUT}`)
    .replace(LONG, (found) => (isToken(found) ? CUT : found))
    .replace(/[^\S ]+/g, ' ')
    .replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, '?')
    .slice(0, max)
}
