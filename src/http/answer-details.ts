/**
 * What an answer that is no success says of itself, for the error that it becomes: the server's own code and words, the id of the
 * request, fields that were refused. All of it is foreign text: bounded, and without secrets.
 * @module
 */
import { type ServerAnswer, SyncError } from '../errors.ts'
import { redact } from './redact.ts'
import type { HttpResponse } from './types.ts'

const MAX_BODY = 64 * 1024
const MAX_MESSAGE = 1_000
const MAX_FIELDS = 50
const MAX_FIELD_TEXT = 300

/** Headers that tell something about a failure, and belong to nobody. */
const SHOWN_HEADERS =
  /^(content-type|content-length|date|age|server|via|allow|retry-after|www-authenticate|x-cache|(x-)?ratelimit-[a-z-]+|(x-)?(request|correlation|trace)-?id|x-(amzn|amz|ovh|pm|ms)-?[a-z-]*(request-?id|queryid|errortype)|cf-ray|deprecation|sunset)$/

const REQUEST_IDS = [
  'x-request-id',
  'request-id',
  'x-ovh-queryid',
  'x-amzn-requestid',
  'x-amz-request-id',
  'x-correlation-id',
  'x-trace-id',
  'cf-ray',
]

type Fields = Readonly<Record<string, unknown>>

const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

function parsed({ body, headers }: HttpResponse): Fields {
  if (body.length === 0 || body.length > MAX_BODY || !/json|^$/i.test(headers['content-type'] ?? '')) return {}
  try {
    const value: unknown = JSON.parse(Buffer.from(body).toString('utf8'))
    return isFields(value) ? value : {}
  } catch {
    return {}
  }
}

const idOf = (value: unknown) => (typeof value === 'string' && /^[\x21-\x7e]{1,200}$/.test(value) ? value : undefined)

/** The id under which the server knows the request, from a header. */
export function requestIdOf(headers: HttpResponse['headers']): string | undefined {
  for (const name of REQUEST_IDS) {
    const id = idOf(headers[name])
    if (id !== undefined) return id
  }
  return undefined
}

const isName = (value: unknown): value is string => typeof value === 'string' && /^[\w.:/-]{1,100}$/.test(value)

/** The server's own code: a number, or a name such as `invalid_grant`. */
function codeOf(fields: Fields, headers: HttpResponse['headers']): number | string | undefined {
  const exception = typeof fields.__type === 'string' ? fields.__type.split('#').at(-1) : undefined
  const candidates = [
    fields.errorCode,
    fields.Code,
    exception,
    fields.error,
    headers['x-amzn-errortype']?.split(':')[0],
  ]
  return candidates.find((one): one is number | string => Number.isSafeInteger(one) || isName(one))
}

const text = (value: unknown) => (typeof value === 'string' && value.trim() !== '' ? value : undefined)

function messageOf(fields: Fields): string | undefined {
  const nested = isFields(fields.error) ? text(fields.error.message) : undefined
  const plain = isName(fields.error) ? undefined : text(fields.error)
  const first = text(fields.debugInfo) ?? text(fields.error_description) ?? text(fields.Error) ?? nested ?? plain
  const said = text(fields.message) ?? text(fields.Message) ?? text(fields.detail) ?? text(fields.title)
  return said !== undefined && first !== undefined && said !== first ? `${said}: ${first}` : (said ?? first)
}

/** Refused fields, in the forms that are common: a list of objects, or texts by field. */
function refusedFields(fields: Fields): [string, string][] {
  const found = fields.errors ?? fields['invalid-params'] ?? fields.fieldErrors ?? fields.violations ?? fields.Details
  if (Array.isArray(found)) {
    return found.slice(0, MAX_FIELDS).flatMap((one): [string, string][] => {
      if (!isFields(one)) return []
      const field = text(one.field) ?? text(one.name) ?? text(one.path) ?? text(one.pointer) ?? text(one.property)
      const message = text(one.message) ?? text(one.reason) ?? text(one.detail) ?? text(one.defaultMessage)
      return field === undefined ? [] : [[field, message ?? 'refused']]
    })
  }
  if (!isFields(found)) return []
  return Object.entries(found)
    .slice(0, MAX_FIELDS)
    .flatMap(([field, said]): [string, string][] => {
      const message = Array.isArray(said) ? text(said[0]) : text(said)
      return message === undefined ? [] : [[field, message]]
    })
}

/**
 * Answers of which all is held; of those before only what is short. A run may keep an error for each of very many files, and how long
 * their answers are says the server.
 */
const MOST_HELD = 64

interface Held {
  bytes: Uint8Array
  fieldErrors: ServerAnswer['fieldErrors']
  headers: ServerAnswer['headers']
}

const NOTHING_HELD: Held = Object.freeze({ bytes: new Uint8Array(), fieldErrors: [], headers: {} })
const newest: Held[] = []

/** Holds it until so many others have come. */
function hold(held: Held): Held {
  newest.push(held)
  if (newest.length > MOST_HELD) Object.assign(newest.shift()!, NOTHING_HELD)
  return held
}

/**
 * What an answer says of itself. Field errors, headers and body are those of the newest 64 answers of a process; older ones have none.
 *
 * @param secrets - What must not come back in it: tokens, passwords that were sent.
 */
export function answerDetails(response: HttpResponse, secrets: readonly string[] = []): ServerAnswer {
  const { status, headers } = response
  const fields = parsed(response)
  const shown = (value: string, max: number) => redact(value, secrets, max)
  const code = codeOf(fields, headers)
  const message = messageOf(fields)
  const refused = status === 400 || status === 422 ? refusedFields(fields) : []
  const kept = Object.entries(headers).filter(([name]) => SHOWN_HEADERS.test(name))
  const held = hold({
    // A copy: the answer may be part of something larger.
    bytes: Uint8Array.from(response.body.subarray(0, MAX_BODY)),
    fieldErrors: refused.map(([field, said]) => ({ field: shown(field, 100), message: shown(said, MAX_FIELD_TEXT) })),
    headers: Object.freeze(Object.fromEntries(kept.map(([name, value]) => [name, shown(value, MAX_FIELD_TEXT)]))),
  })
  return {
    status,
    serverCode: typeof code === 'string' ? shown(code, 100) : code,
    requestId: requestIdOf(headers) ?? idOf(fields.requestId) ?? idOf(fields.traceId),
    serverMessage: message === undefined ? undefined : shown(message, MAX_MESSAGE),
    get fieldErrors() {
      return held.fieldErrors
    },
    get headers() {
      return held.headers
    },
    body: () => shown(Buffer.from(held.bytes).toString('utf8'), MAX_BODY),
  }
}

/** The error with what the answer says, if it is one of ours that an answer has caused. */
export function describedBy<T>(error: T, response: HttpResponse, secrets: readonly string[] = []): T {
  return error instanceof SyncError ? error.describe(answerDetails(response, secrets)) : error
}
