/**
 * Stretches of a file's content from the storage. A cut connection continues where it stopped, an address that has expired is
 * replaced by a fresh one for all who read from it, and what follows must follow exactly: the cipher cannot go back.
 * @module
 */
import type { FileKey } from '../../crypto/index.ts'
import type { Api } from '../api/api.ts'
import { createDownload, openDownload } from '../api/downloads.ts'
import type { Clock, Random } from '../environment.ts'
import { cancelled, SyncError } from '../errors.ts'
import type { HttpResponse } from '../http/types.ts'
import type { OnEvent } from './events.ts'

/** Tries in a row that bring less than `PROGRESS_BYTES`. */
const TRIES = 5
const PROGRESS_BYTES = 64 * 1024

/** The address of a content; good for many ranges, until it expires. */
export interface Address {
  /** The same promise for everybody, until `expire`. */
  get(): Promise<string>
  /** Says that what `get` gave is no good any more; only the first to say so counts. */
  expire(address: Promise<string>): void
}

/** @param context - With a `link` that says where the content is; else a file of the account is meant. */
export function createAddress(
  { api, link }: Pick<RangeContext, 'api' | 'link'>,
  fileId: number,
  signal: AbortSignal,
): Address {
  let current: Promise<string> | undefined
  const expire = (address: Promise<string>) => {
    if (current === address) current = undefined
  }
  return {
    get() {
      if (current === undefined) {
        const asked = link === undefined ? createDownload(api, fileId, signal) : link.address(signal)
        asked.catch(() => expire(asked)) // told to those who wait
        current = asked
      }
      return current
    },
    expire,
  }
}

/** Content that is reached by a link instead of an account. */
export interface LinkedContent {
  /** Asks for a URL, which may count as a download. */
  address(signal: AbortSignal): Promise<string>
  /** The file key, to be wiped by who asks; `undefined` for plain content. */
  openKey(signal: AbortSignal): Promise<FileKey | undefined>
}

export interface Stretch {
  /** First byte. */
  readonly start: number
  /** Behind the last byte. */
  readonly end: number
  /** Of the whole content. */
  readonly size: number
}

/** The server answered a range with everything; see `readStretch`. */
export const noRanges = () => new SyncError('server', 'RANGES_IGNORED', 'The server sends whole files only')

export const isNoRanges = (error: unknown) => error instanceof SyncError && error.code === 'RANGES_IGNORED'

export const wrongLength = (message: string) =>
  new SyncError('integrity', 'CONTENT_LENGTH_WRONG', message, { hint: 'Nothing of it was kept.' })

/** What reading ranges works with. */
export interface RangeContext {
  readonly api: Api
  readonly clock: Clock
  readonly random: Random
  readonly onEvent?: OnEvent | undefined
  /** Where content comes from, if not from the account. */
  readonly link?: LinkedContent | undefined
}

/**
 * Reads a stretch to its end, over as many requests as it takes.
 *
 * @param take - Gets the bytes in order, each once. The chunks are its own.
 * @param options.orWhole - Read on when the server answers with everything instead of a range, passing over what comes before;
 * otherwise that throws `noRanges`.
 */
export async function readStretch(
  { api, clock, random, onEvent, link }: RangeContext,
  address: Address,
  stretch: Stretch,
  take: (chunk: Uint8Array) => Promise<void> | undefined,
  options: { orWhole: boolean; signal: AbortSignal },
): Promise<void> {
  const { signal } = options
  const { end, size } = stretch
  let failures = 0
  let missing = 0
  for (let at = stretch.start; at < end; ) {
    const start = at
    const asked = address.get()
    let url: string | undefined
    try {
      url = await asked
      const response = await openDownload(api, url, { start, end, size }, signal).catch((error) => {
        throw storageError(error)
      })
      let passOver = checkRange(response, { start, end, size }, options.orWhole)
      for await (const received of response.stream!) {
        const chunk = passOver === 0 ? received : received.subarray(Math.min(passOver, received.length))
        passOver -= received.length - chunk.length
        if (at + chunk.length > end) throw wrongLength('The server sent more bytes than the file has')
        // Before it is taken: whoever has it may give its memory away.
        at += chunk.length
        await take(chunk)
      }
      if (at < end) throw new SyncError('network', 'CONTENT_CUT', 'The content ended early', { retryable: true })
    } catch (error) {
      if (signal.aborted) throw cancelled(signal)
      if (!(error instanceof SyncError)) throw error
      // What is refused of a link is: a password that is wrong stays wrong.
      if (url === undefined && link !== undefined && !error.retryable) throw error
      // An address that has run out may look like content that is gone; a fresh one tells.
      missing = error.status === 404 && at === start ? missing + 1 : 0
      const expired = error.status === 401 || error.status === 403 || missing === 1
      if (expired) address.expire(asked)
      // A trickle is no progress.
      failures = at - start >= PROGRESS_BYTES ? 1 : failures + 1
      if (!(expired || error.retryable) || failures >= TRIES) throw error.code === 'CONTENT_CUT' ? cutShort() : error
      const delayMs = random.next() * Math.min(30_000, 250 * 2 ** failures)
      onEvent?.({ type: 'retry', label: 'file content', attempt: failures, delayMs, reason: error.message })
      await clock.sleep(delayMs, signal)
    }
  }
}

/**
 * Reads content of unknown length to its end, in one request.
 *
 * @param limit - Most bytes.
 * @param take - As for `readStretch`.
 */
export async function readWhole(
  { api }: RangeContext,
  address: Address,
  limit: number,
  take: (chunk: Uint8Array) => Promise<void> | undefined,
  signal: AbortSignal,
): Promise<void> {
  const url = await address.get()
  let at = 0
  try {
    const response = await openDownload(api, url, { start: 0, end: limit, size: limit }, signal).catch((error) => {
      throw storageError(error)
    })
    if (response.status !== 200) {
      discard(response)
      throw new SyncError('server', 'RANGE_WRONG', 'The server sent a part of the content, and was asked for all of it')
    }
    for await (const chunk of response.stream!) {
      at += chunk.length
      if (at > limit) throw wrongLength(`The server sent more than ${limit} bytes`)
      await take(chunk)
    }
    const announced = response.headers['content-length']
    if (announced !== undefined && Number(announced) !== at) throw wrongLength('The content ended early')
  } catch (error) {
    throw signal.aborted ? cancelled(signal) : error
  }
}

/** What a storage refuses is about this file, not about the login or the room. */
function storageError(error: unknown): unknown {
  if (!(error instanceof SyncError)) return error
  const { status = 0 } = error
  if (status === 404 || status === 410) {
    return new SyncError('not_found', 'CONTENT_GONE', `The content of the file is gone from the server (${status})`, {
      hint: 'The file is still listed there; ask its administrator.',
      status,
      cause: error,
    })
  }
  const isAboutLogin = status === 401 || status === 403
  if (!isAboutLogin && error.code !== 'REQUEST_REFUSED') return error
  return new SyncError('server', 'STORAGE_REFUSED', `The storage refuses the content (${status})`, {
    hint: isAboutLogin
      ? 'The clocks of server and storage may differ; ask its administrator.'
      : 'It has other content than the server says; ask its administrator.',
    status,
    cause: error,
  })
}

const cutShort = () => wrongLength('The server keeps sending fewer bytes than the file has')

/** @returns how many bytes to pass over. */
function checkRange(response: HttpResponse, { start, end, size }: Stretch, orWhole: boolean): number {
  if (response.status === 206) {
    const range = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(response.headers['content-range'] ?? '')
    const isRight =
      range !== null &&
      Number(range[1]) === start &&
      Number(range[2]) < end &&
      (range[3] === '*' || Number(range[3]) === size)
    if (isRight) return 0
  } else if (response.status === 200) {
    // The same bytes again from the first one, which the cipher has had.
    if (orWhole) return start
    discard(response)
    throw noRanges()
  }
  discard(response)
  throw new SyncError('server', 'RANGE_WRONG', 'The server sent another range than asked for', {
    hint: 'The download cannot be continued; run again.',
  })
}

/** Lets go of the connection. A generator that never began would not run its end, hence the first step. */
function discard({ stream }: HttpResponse): void {
  const chunks = stream?.[Symbol.asyncIterator]()
  chunks?.next().catch(() => {})
  chunks?.return?.().catch(() => {})
}
