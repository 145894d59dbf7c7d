/**
 * The journal of large uploads: what a later run must know to go on with them, or to cancel what was left behind. One file per
 * account, target and sources, in the program's own directory; keys are in it only wrapped for their owner. A part is in it
 * durably before its first byte is sent, with a digest of its ciphertext. What to do with all this is resume.ts.
 * @module
 */
import { basename } from 'node:path'
import { formatFileKey, parseFileKey, type SealedEncryption } from '../../crypto/index.ts'
import type { Clock } from '../environment.ts'
import { SyncError } from '../errors.ts'
import { type AppendLog, openAppendLog } from '../local/append-log.ts'
import { takeLock } from '../local/lock.ts'
import type { SourceIdentity } from '../local/stable-read.ts'
import type { OnEvent } from './events.ts'

/** What is known when an upload begins. */
export interface UploadStart {
  readonly uploadId: string
  /** Path of the local file, and the state it was in. */
  readonly path: string
  readonly source: SourceIdentity
  readonly parentId: number
  readonly name: string
  /** Id of the node that it replaces. */
  readonly replaces?: number | undefined
  /** Bytes per part. */
  readonly partSize: number
  /** Absent when the upload cannot be resumed: it is listed to be cancelled then. */
  readonly sealed?: SealedEncryption | undefined
  /** There is nothing to go on with: a later run only cancels it. Only losing power loses this record. */
  readonly isSinglePart?: boolean
}

export interface SentPart {
  readonly offset: number
  readonly length: number
  /** 16 bytes; see crypto/resumable.ts. */
  readonly digest: Uint8Array
}

export interface JournaledUpload extends UploadStart {
  /** Parts of which anything may have been sent, by number. */
  readonly parts: ReadonlyMap<number, SentPart>
  /** ETags of acknowledged parts, by number. */
  readonly receipts: ReadonlyMap<number, string>
  /** Tag of the content, once the server may have been asked to make the file visible; empty for plain content. */
  readonly completedWith: Uint8Array | undefined
  readonly isAbandoned: boolean
  /** Resolves when it is durable; only then may the part be sent. */
  sending(number: number, part: SentPart): Promise<void>
  received(number: number, etag: string): void
  /** Resolves when it is durable; only then may the upload be completed. */
  completing(tag: Uint8Array): Promise<void>
  /** Resolves when it is durable: this upload is never resumed. */
  abandon(): Promise<void>
  /** Completed or cancelled: there is nothing left to do. */
  settle(): void
}

export interface UploadJournal {
  /** Uploads that are neither completed nor cancelled. */
  open(): readonly JournaledUpload[]
  begin(start: UploadStart): JournaledUpload
  /** Gives the journal back; deletes the file when nothing is open. */
  close(): Promise<void>
}

interface State extends UploadStart {
  readonly id: number
  readonly parts: Map<number, SentPart>
  readonly receipts: Map<number, string>
  tag?: Uint8Array
  abandoned: boolean
}

/**
 * Opens the journal of a run, for this process alone.
 *
 * @param path - One per account, target and sources; its last component names the scope, and is written into the file.
 * @throws {SyncError} `LOCKED` when another process has it, `SECRET_FILE_OPEN`, or of class `local_io`. A damaged file, or one
 * of another version or scope, is no error: it is kept aside and reported as an event.
 */
export async function openUploadJournal(path: string, clock: Clock, onEvent?: OnEvent): Promise<UploadJournal> {
  const lock = await takeLock(`${path}.lock`, { clock, waitMs: 0 })
  try {
    let states = new Map<number, State>()
    const log = await openAppendLog(
      path,
      basename(path),
      (records) => {
        states = new Map()
        try {
          for (const record of records) replay(states, record)
          return true
        } catch {
          states = new Map()
          return false
        }
      },
      (keptAs) => {
        const message = `The journal of interrupted uploads could not be used; they start over. It was kept as ${keptAs}`
        onEvent?.({ type: 'warning', code: 'JOURNAL_DAMAGED', message })
      },
      clock.now(),
    )
    return createJournal(log, states, () => lock.release())
  } catch (error) {
    await lock.release()
    throw error
  }
}

function createJournal(log: AppendLog, states: Map<number, State>, release: () => Promise<void>): UploadJournal {
  let lastId = 0
  for (const id of states.keys()) lastId = Math.max(lastId, id)
  const record = (fields: object) => {
    // First what could refuse it: the log must not get a record that could not be read.
    replay(states, fields)
    log.append(fields)
  }
  const uploads = new Map<number, JournaledUpload>()
  const add = (id: number, state: State): JournaledUpload => {
    // Of 100,000 files in one run none stays in memory when it is done.
    const upload = createUpload(state, log, record, () => uploads.delete(id))
    uploads.set(id, upload)
    return upload
  }
  for (const [id, state] of states) add(id, state)
  return {
    open: () => [...uploads.values()],
    begin(start) {
      const id = ++lastId
      record({ do: 'begin', id, ...formatStart(start) })
      return add(id, states.get(id)!)
    },
    async close() {
      try {
        if (states.size === 0) await log.remove()
        else await log.close()
      } finally {
        await release()
      }
    },
  }
}

function createUpload(
  state: State,
  log: AppendLog,
  record: (fields: object) => void,
  onSettled: () => void,
): JournaledUpload {
  const { id } = state
  return {
    ...state,
    get completedWith() {
      return state.tag
    },
    get isAbandoned() {
      return state.abandoned
    },
    async sending(number, { offset, length, digest }) {
      record({ do: 'send', id, number, offset, length, digest: base64(digest) })
      await log.sync()
    },
    received: (number, etag) => record({ do: 'received', id, number, etag }),
    async completing(tag) {
      record({ do: 'complete', id, tag: base64(tag) })
      await log.sync()
    },
    async abandon() {
      record({ do: 'abandon', id })
      await log.sync()
    },
    settle() {
      record({ do: 'settle', id })
      onSettled()
    },
  }
}

const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64')

const formatStart = ({ sealed, ...start }: UploadStart) => ({
  ...start,
  ...(sealed && { fileKey: formatFileKey(sealed.fileKey), digestKey: formatFileKey(sealed.digestKey) }),
})

type Fields = Readonly<Record<string, unknown>>

const wrong = () => new SyncError('local_io', 'JOURNAL_DAMAGED', 'The journal of interrupted uploads makes no sense')

function text(fields: Fields, name: string, pattern = /^[^\0]{1,4096}$/s): string {
  const value = Object.hasOwn(fields, name) ? fields[name] : undefined
  if (typeof value !== 'string' || !pattern.test(value)) throw wrong()
  return value
}

function count(fields: Fields, name: string): number {
  const value = Object.hasOwn(fields, name) ? fields[name] : undefined
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) throw wrong()
  return value
}

function bytes(fields: Fields, name: string, lengths: readonly number[]): Uint8Array {
  const value = Object.hasOwn(fields, name) ? fields[name] : undefined
  const decoded = typeof value === 'string' ? new Uint8Array(Buffer.from(value, 'base64')) : undefined
  if (decoded === undefined || base64(decoded) !== value || !lengths.includes(decoded.length)) throw wrong()
  return decoded
}

function asFields(value: unknown): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong()
  return value as Fields
}

/** Applies one record, also one that was just made. */
function replay(states: Map<number, State>, value: unknown): void {
  const fields = asFields(value)
  const id = count(fields, 'id')
  const what = text(fields, 'do')
  if (what === 'begin') {
    if (states.has(id)) throw wrong()
    const start = parseStart(fields)
    const abandoned = start.isSinglePart === true
    states.set(id, { ...start, id, parts: new Map(), receipts: new Map(), abandoned })
    return
  }
  const state = states.get(id)
  if (state === undefined) throw wrong()
  switch (what) {
    case 'send':
      replaySending(state, fields)
      break
    case 'received': {
      const number = count(fields, 'number')
      if (!state.parts.has(number)) throw wrong()
      state.receipts.set(number, text(fields, 'etag', /^[^\0]{1,256}$/s))
      break
    }
    case 'complete':
      state.tag = bytes(fields, 'tag', [0, 16])
      break
    case 'abandon':
      state.abandoned = true
      break
    case 'settle':
      states.delete(id)
      break
    default:
      throw wrong()
  }
}

function replaySending(state: State, fields: Fields): void {
  const [number, offset, length] = [count(fields, 'number'), count(fields, 'offset'), count(fields, 'length')]
  const fits =
    offset === (number - 1) * state.partSize && length === Math.min(state.partSize, state.source.size - offset)
  if (number < 1 || !fits || state.parts.has(number)) throw wrong()
  state.parts.set(number, { offset, length, digest: bytes(fields, 'digest', [16]) })
}

/** Also of years far away. */
const NANOSECONDS = /^-?\d{1,30}$/
const INTEGER = /^\d{1,20}$/

function parseStart(fields: Fields): UploadStart {
  const source = asFields(fields.source)
  return {
    uploadId: text(fields, 'uploadId', /^[^\0]{1,1024}$/s),
    path: text(fields, 'path', /^[^\0]{1,32768}$/s),
    source: {
      size: count(source, 'size'),
      mtimeNs: text(source, 'mtimeNs', NANOSECONDS),
      ctimeNs: text(source, 'ctimeNs', NANOSECONDS),
      dev: text(source, 'dev', INTEGER),
      ino: text(source, 'ino', INTEGER),
    },
    parentId: count(fields, 'parentId'),
    name: text(fields, 'name'),
    partSize: count(fields, 'partSize'),
    ...(Object.hasOwn(fields, 'replaces') && fields.replaces !== undefined
      ? { replaces: count(fields, 'replaces') }
      : {}),
    ...(fields.isSinglePart === true ? { isSinglePart: true } : {}),
    ...(Object.hasOwn(fields, 'fileKey')
      ? { sealed: { fileKey: parseFileKey(fields.fileKey), digestKey: parseFileKey(fields.digestKey) } }
      : {}),
  }
}
