/**
 * What all endpoint functions share: building the request, telling success from failure, and turning a failure into a typed
 * error by status and DRACOON `errorCode` together. No loops and no policy here.
 * @module
 */
import { type ErrorClass, SyncError, type SyncErrorCode } from '../errors.ts'
import { describedBy } from '../http/answer-details.ts'
import { retryAfterMs } from '../http/retry.ts'
import type { HttpRequest, HttpResponse, Send } from '../http/types.ts'
import type { Verdict } from '../session/authorizer.ts'
import { parseErrorBody, parseJson } from './wire.ts'

/** What the guard of places is told of a node. */
export interface SeenNode {
  readonly id: number
  readonly type: 'room' | 'folder' | 'file'
  readonly name: string
  readonly parentId?: number
  readonly isEncrypted?: boolean
}

/** What is asked of a place before a run puts something there. */
export interface PlainPolicy {
  /** The place, for people. */
  readonly shown: string
  /** Content may go there without encryption. Default: yes, if there is nobody to ask. */
  readonly allowPlain?: boolean | undefined
  /** It may not, whatever was agreed before. */
  readonly requireEncryption?: boolean | undefined
  /** Asks a person; absent: there is nobody. */
  readonly confirm?: ((question: string) => Promise<boolean>) | undefined
}

/** Watches over places, so that none stops being encrypted unnoticed. */
export interface PlaceGuard {
  /**
   * Takes note of a node as the server describes it.
   *
   * @param parentId - Where it was listed; absent: where the server says that it is.
   */
  saw(node: SeenNode, parentId?: number): void
  /**
   * Asked before anything is listed in, or put into, a room or folder.
   *
   * @param below - Names that will be used below it.
   * @throws {SyncError} `ROOM_NOT_ENCRYPTED`, `PINS_LOST` (class `safety`).
   */
  enter(id: number, below?: readonly string[]): Promise<void>
  /**
   * Asked once before a run puts content below a room or folder.
   *
   * @throws {SyncError} `NOT_ENCRYPTED` where it is not encrypted and nobody has agreed to that, and as `enter`.
   */
  admit(id: number, below: readonly string[], policy: PlainPolicy): Promise<void>
  /**
   * Asked before each content that is sent or taken without encryption.
   *
   * @throws {SyncError} `ROOM_NOT_ENCRYPTED`; `NOT_ENCRYPTED` for sending to where no run was admitted.
   */
  plain(direction: 'send' | 'take', parentId: number, name: string): Promise<void>
}

/** What a file request is opened with. */
export interface RequestGate {
  readonly accessKey: string
  readonly password?: string | undefined
}

/** What requests are made with: one server, and who is logged in there. */
export interface Api {
  /** `https://HOST`, without a path. */
  readonly origin: string
  /** Stamped with the session's grant. */
  readonly send: Send
  /** Without a grant: for upload and download tokens and presigned URLs. */
  readonly sendPlain: Send
  readonly places?: PlaceGuard
  /** The file request that uploads go to; absent: they go to rooms and folders of the account. */
  readonly request?: RequestGate
  /** Most entries of a listing, or of a tree, that are believed. Default: see nodes.ts. */
  readonly maxEntries?: number
}

/**
 * What an answer of these servers says about a login. A 401 with −10006 means that this app or user may not do this at all:
 * renewing would not help.
 */
export function judgeAnswer({ status, body }: HttpResponse): Verdict {
  return status === 401 && !/"errorCode"\s*:\s*-10006\b/.test(Buffer.from(body).toString('latin1')) ? 'expired' : 'ok'
}

/** What only reads, though its method does not say so. */
export const READING_CALLS: readonly string[] = [
  'POST /api/v4/nodes/files/{id}/downloads',
  'POST /api/v4/public/shares/downloads/{key}',
]

export interface Call {
  readonly method: HttpRequest['method']
  /** Below `/api`, with ids filled in. */
  readonly path: string
  readonly query?: Readonly<Record<string, string | number | undefined>>
  readonly json?: unknown
  readonly headers?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal | undefined
  /** See HttpRequest. */
  readonly repeatable?: boolean
}

/** Ids in a path are not shown, nor the keys of links. */
export const template = (path: string): string =>
  path
    .replace(/(?<=\/public\/shares\/(?:downloads|uploads)\/)[^/]+/, '{key}')
    .replace(/\/(\d+|[A-Za-z0-9_-]{20,})(?=\/|$)/g, '/{id}')

function queryText(query: NonNullable<Call['query']>): string {
  const parameters = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) if (value !== undefined) parameters.set(name, String(value))
  return parameters.size === 0 ? '' : `?${parameters}`
}

/** Calls an endpoint; resolves for 2xx only. */
export async function call(
  api: Api,
  { method, path, query, json, headers, signal, repeatable }: Call,
): Promise<HttpResponse> {
  const label = `/api${template(path)}`
  const response = await api.send({
    method,
    url: `${api.origin}/api${path}${query === undefined ? '' : queryText(query)}`,
    label,
    headers: {
      accept: 'application/json',
      ...(json === undefined ? {} : { 'content-type': 'application/json' }),
      ...headers,
    },
    ...(json === undefined ? {} : { body: Buffer.from(JSON.stringify(json)) }),
    ...(signal === undefined ? {} : { signal }),
    ...(repeatable === undefined ? {} : { repeatable }),
  })
  return expectSuccess(response, `${method} ${label}`)
}

/** Calls an endpoint and reads its JSON. */
export async function callFor<T>(api: Api, request: Call, parse: (value: unknown, path: string) => T): Promise<T> {
  const response = await call(api, request)
  return parse(parseJson(response.body), 'body')
}

/** The response itself when its status is 2xx, else throws. */
export function expectSuccess(response: HttpResponse, label: string): HttpResponse {
  if (response.status >= 200 && response.status < 300) return response
  throw describedBy(failure(response, label), response)
}

export interface Meaning {
  readonly kind: ErrorClass
  readonly code: SyncErrorCode
  readonly text: string
  readonly hint?: string
  readonly retryable?: boolean
}

const NO_KEY_PAIR: Meaning = {
  kind: 'key',
  code: 'NO_KEY_PAIR',
  text: 'This account has no key pair',
  hint: 'Make one: sync keys create',
}

const quota = (text: string): Meaning => ({
  kind: 'quota',
  code: 'QUOTA',
  text,
  hint: 'Free space there, or have the limit raised.',
})

const STORAGE_KIND: Meaning = {
  kind: 'server',
  code: 'STORAGE_KIND',
  text: 'The server does not take uploads this way any more',
  hint: 'Its storage was changed meanwhile; run again.',
}

const FILE_KEY_MISSING: Meaning = {
  kind: 'key',
  code: 'FILE_KEY_MISSING',
  text: 'There is no file key for this account yet',
  hint: 'Somebody who can open the file must hand it out: sync keys distribute',
}

const ENCRYPTION_DIFFERS: Meaning = {
  kind: 'conflict',
  code: 'ENCRYPTION_DIFFERS',
  text: 'One place is encrypted and the other is not',
  hint: 'Download the files and upload them again.',
}

const SHARE_GONE: Meaning = {
  kind: 'not_found',
  code: 'SHARE_GONE',
  text: 'There is nothing behind this link: it was never made, has expired, or was revoked',
  hint: 'Compare it with what you were sent, or ask for another one.',
}

/** Also what unlocking says. */
export const SHARE_PASSWORD_WRONG: Meaning = {
  kind: 'key',
  code: 'SHARE_PASSWORD_WRONG',
  text: 'The password does not open this link',
  hint: 'It is the one that belongs to the link, which whoever made it can tell you.',
}

/** Meanings by DRACOON errorCode, where it decides more than the status. */
const BY_ERROR_CODE: ReadonlyMap<number, Meaning> = new Map<number, Meaning>([
  [-10006, { kind: 'permission', code: 'NOT_AUTHORIZED', text: 'This user or application may not do this' }],
  [-10003, { kind: 'auth', code: 'ACCOUNT_LOCKED', text: 'The account is locked' }],
  [-10007, { kind: 'auth', code: 'ACCOUNT_LOCKED', text: 'The customer account is locked' }],
  [-10004, { kind: 'auth', code: 'ACCOUNT_EXPIRED', text: 'The account has expired' }],
  [-10005, { kind: 'auth', code: 'ACCOUNT_LOCKED', text: 'The account is locked for a while' }],
  [-10103, { kind: 'auth', code: 'ACCOUNT_PENDING', text: 'The licence terms must be accepted in the web app first' }],
  [-10104, { kind: 'auth', code: 'ACCOUNT_PENDING', text: 'The password must be changed in the web app first' }],
  [-10106, { kind: 'auth', code: 'ACCOUNT_PENDING', text: 'The account must be completed in the web app first' }],
  [-20501, { kind: 'changed', code: 'UPLOAD_GONE', text: 'The upload is gone at the server' }],
  [-20503, { kind: 'changed', code: 'UPLOAD_GONE', text: 'The upload is closed at the server' }],
  [-90034, { kind: 'changed', code: 'UPLOAD_GONE', text: 'The upload is gone at the server' }],
  [-80045, { kind: 'changed', code: 'UPLOAD_GONE', text: 'The storage has other parts than were sent' }],
  [-80046, { kind: 'changed', code: 'UPLOAD_GONE', text: 'The storage has other parts than were sent' }],
  [
    -90027,
    {
      kind: 'server',
      code: 'STORAGE_DOWN',
      text: 'The server cannot reach its object storage',
      hint: 'Try again later.',
      retryable: true,
    },
  ],
  [-90030, STORAGE_KIND],
  [-90033, STORAGE_KIND],
  [-20502, { kind: 'changed', code: 'TOKEN_GONE', text: 'The transfer token is not valid any more' }],
  [-40761, FILE_KEY_MISSING],
  [
    -40764,
    { kind: 'server', code: 'SCAN_RUNNING', text: 'The file is being scanned for malware', hint: 'Try again later.' },
  ],
  [-40765, { kind: 'permission', code: 'MALICIOUS', text: 'The server considers the file malicious' }],
  [-70020, NO_KEY_PAIR],
  [-70021, { kind: 'conflict', code: 'KEY_PAIR_EXISTS', text: 'This account has a key pair of this version already' }],
  [-40755, { kind: 'usage', code: 'NAME_REFUSED', text: 'The server does not take this name' }],
  [-41200, { kind: 'usage', code: 'PATH_TOO_LONG', text: 'The path is too long for the server' }],
  [-40010, { kind: 'conflict', code: 'EXISTS', text: 'A room or folder has this name' }],
  [-41304, { kind: 'conflict', code: 'INTO_ITSELF', text: 'A folder cannot be moved into itself' }],
  [-40001, ENCRYPTION_DIFFERS],
  [-40002, ENCRYPTION_DIFFERS],
  [-40013, { kind: 'conflict', code: 'OTHER_ROOM', text: 'Encrypted files can be restored into their own room only' }],
  [-40014, FILE_KEY_MISSING],
  [-41001, { kind: 'conflict', code: 'EXISTS', text: 'The name exists already' }],
  [-50000, SHARE_GONE],
  [-50501, SHARE_GONE],
  [
    -50002,
    {
      kind: 'limit',
      code: 'SHARE_USED_UP',
      text: 'The link has been used as often as it may be',
      hint: 'Ask whoever sent it for another one.',
    },
  ],
  [-50009, SHARE_PASSWORD_WRONG],
  [-50502, SHARE_PASSWORD_WRONG],
  [
    -51000,
    {
      kind: 'rate_limit',
      code: 'SHARE_LOCKED',
      text: 'There were too many wrong passwords for this link',
      hint: 'Try again in some minutes.',
    },
  ],
  [
    -50004,
    {
      kind: 'usage',
      code: 'SHARE_FOLDER_ENCRYPTED',
      text: 'Of an encrypted room only files can be shared',
      hint: 'Share each file by itself: --each',
    },
  ],
  [
    -50505,
    {
      kind: 'key',
      code: 'NO_RECIPIENTS',
      text: 'Nobody has a key pair whom files of this request could be encrypted for',
      hint: 'Tell whoever sent you the link.',
    },
  ],
  [-50504, quota('The file request takes no more bytes')],
  [
    -50506,
    {
      kind: 'limit',
      code: 'REQUEST_FULL',
      text: 'The file request takes no more files',
      hint: 'Ask whoever sent the link for another one.',
    },
  ],
  [-80037, { kind: 'limit', code: 'FILE_TOO_LARGE', text: 'The file is too large to be encrypted' }],
  [-40200, quota('The room is full')],
  [-90200, quota('The space of the customer is used up')],
  [-90201, quota('The server’s disk is full')],
])

/** Meanings by status alone. */
function byStatus(status: number): Meaning {
  if (status === 401)
    return {
      kind: 'auth',
      code: 'UNAUTHORIZED',
      text: 'The server refused the login',
      hint: 'Log in again: sync login',
    }
  if (status === 403) return { kind: 'permission', code: 'FORBIDDEN', text: 'Permission is missing' }
  if (status === 402) return { kind: 'permission', code: 'PAYMENT', text: 'The server asks for payment' }
  if (status === 404 || status === 410) return { kind: 'not_found', code: 'NOT_FOUND', text: 'It does not exist' }
  if (status === 409) return { kind: 'conflict', code: 'EXISTS', text: 'It conflicts with something that exists' }
  if (status === 412) return { kind: 'permission', code: 'PRECONDITION', text: 'A precondition is not met' }
  if (status === 413) return { kind: 'limit', code: 'TOO_LARGE', text: 'It is too large for the server' }
  if (status === 429)
    return {
      kind: 'rate_limit',
      code: 'RATE_LIMITED',
      text: 'Too many requests',
      hint: 'Try again later.',
      retryable: true,
    }
  if (status === 507) return quota('There is no space left at the server')
  if (status === 901) return { kind: 'permission', code: 'MALICIOUS', text: 'The server considers the file malicious' }
  if (status >= 500)
    return {
      kind: 'server',
      code: 'SERVER',
      text: `The server failed (${status})`,
      hint: 'Try again later.',
      retryable: true,
    }
  if (status >= 300 && status < 400) {
    return {
      kind: 'server',
      code: 'REDIRECT',
      text: 'The server redirects, which a compatible one never does',
      hint: 'Check the address.',
    }
  }
  return { kind: 'permission', code: 'REQUEST_REFUSED', text: 'The server refused the request' }
}

/** Of a server's own words, so many characters are shown. */
const MAX_WORDS = 200

/** A server's words for a message: one line without anything that could move a cursor, hide, or be a secret. */
function wordsOf(text: string): string {
  const words = text
    .slice(0, 2_000)
    .replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\s]+/gu, ' ')
    .replace(/[\w.~+/=-]{24,}/g, '[…]')
    .trim()
  return words.length <= MAX_WORDS ? words : `${words.slice(0, MAX_WORDS - 1)}…`
}

/** The typed error for an answer that is not a success. */
export function failure(response: HttpResponse, label: string): SyncError {
  let said: ReturnType<typeof parseErrorBody> = {}
  try {
    said = parseErrorBody(parseJson(response.body), 'body')
  } catch {
    // HTML of a gateway, XML of a storage, or nothing at all: the status has to do.
  }
  return failureOf(response.status, said, label, retryAfterMs(response.headers, Date.now()))
}

/**
 * The typed error for what a server says. Its words are shown only where nothing else says what is wrong.
 *
 * @param said - What the answer's body says.
 */
export function failureOf(
  status: number,
  { errorCode, message }: { readonly errorCode?: number; readonly message?: string },
  label: string,
  retryAfter?: number,
): SyncError {
  const known = errorCode === undefined ? undefined : BY_ERROR_CODE.get(errorCode)
  const { kind, code, text, hint, retryable } = known ?? byStatus(status)
  const numbers = `${label}: ${status}${errorCode === undefined ? '' : `, ${errorCode}`}`
  const words = code === 'REQUEST_REFUSED' && message !== undefined ? wordsOf(message) : ''
  return new SyncError(kind, code, `${text} (${numbers})${words === '' ? '' : `; it says: ${words}`}`, {
    status,
    retryable: retryable ?? false,
    ...(hint === undefined ? {} : { hint }),
    ...(errorCode === undefined ? {} : { errorCode }),
    ...(retryAfter === undefined ? {} : { retryAfterMs: retryAfter }),
  })
}
