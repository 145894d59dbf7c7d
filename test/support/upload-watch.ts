/**
 * Watches uploads from the server's side: which parts were sent and whether the same ciphertext came every time, without keeping
 * the bytes; and calls when something is reached, so that a client can be killed at that very moment.
 * @module
 */
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { RecordedRequest, Recorder } from '../../src/server/index.ts'

const BLOCK = 64 * 1024
/** Of each part: enough to tell keystreams apart. */
const HEAD = 64

export interface SentPart {
  readonly upload: string
  readonly part: number
}

export class UploadWatch implements Recorder {
  /** Part requests, in order, since the last `reset`. */
  sent: SentPart[] = []
  /** Bytes of parts since the last `reset`. */
  bytes = 0
  /** Requests of any kind since the last `reset`, as `METHOD path`. */
  requests: string[] = []
  /** Uploads opened, ever. */
  opened = 0
  /** Called for every request and every chunk of a part. */
  onProgress: () => void = () => {}
  /** What was different from what had been sent before under the same key. */
  readonly conflicts: string[] = []
  /** First bytes of every part of every upload. */
  readonly heads = new Map<string, Uint8Array>()
  readonly #blocks = new Map<string, string[]>()
  readonly #rest = new Map<number, { at: number; pending: Buffer }>()

  reset(): void {
    this.sent = []
    this.requests = []
    this.bytes = 0
    this.onProgress = () => {}
  }

  onRequest({ id, method, path }: RecordedRequest): void {
    this.requests.push(`${method} ${path}`)
    if (method === 'POST' && path.endsWith('/v4/nodes/files/uploads')) this.opened++
    const part = partOf(path)
    if (method === 'PUT' && part !== undefined) {
      this.sent.push(part)
      this.#rest.set(id, { at: 0, pending: Buffer.alloc(0) })
    }
    this.onProgress()
  }

  onBody({ id, path }: RecordedRequest, chunk: Uint8Array): void {
    const state = this.#rest.get(id)
    const part = partOf(path)
    if (state === undefined || part === undefined) return
    const key = `${part.upload}/${part.part}`
    this.bytes += chunk.length
    state.pending = Buffer.concat([state.pending, chunk])
    if (state.at === 0 && state.pending.length >= HEAD && !this.heads.has(key)) {
      this.heads.set(key, Uint8Array.from(state.pending.subarray(0, HEAD)))
    }
    while (state.pending.length >= BLOCK) {
      this.#compare(key, state.at++, state.pending.subarray(0, BLOCK))
      state.pending = state.pending.subarray(BLOCK)
    }
    this.onProgress()
  }

  #compare(key: string, index: number, block: Uint8Array): void {
    const known = this.#blocks.get(key) ?? []
    this.#blocks.set(key, known)
    const digest = createHash('sha1').update(block).digest('base64')
    known[index] ??= digest
    if (known[index] !== digest) this.conflicts.push(`${key} at ${index * BLOCK}`)
  }

  /** Resolves when `condition` holds after something arrived. */
  until(condition: (watch: UploadWatch) => boolean): Promise<void> {
    return new Promise((resolve) => {
      this.onProgress = () => {
        if (condition(this)) resolve()
      }
      this.onProgress()
    })
  }
}

function partOf(path: string): SentPart | undefined {
  const [, upload, part] = /^\/s3\/([^/]+)\/(\d+)/.exec(path) ?? []
  return upload === undefined ? undefined : { upload, part: Number(part) }
}

/** Journals in the states of a home, and those that were put aside; locks are left out. */
export function journalFiles(home: string): string[] {
  const states = join(home, 'sync')
  try {
    return readdirSync(states, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .flatMap(({ name }) => readdirSync(join(states, name)).map((file) => join(states, name, file)))
      .filter((path) => path.includes('.journal') && !path.endsWith('.lock'))
      .sort()
  } catch {
    return []
  }
}

// biome-ignore lint/suspicious/noExplicitAny: what a record holds is checked by the assertions of the tests.
export type JournalRecord = any

/** Whole records of the only journal there is; empty when there is none. */
export function journalRecords(home: string): JournalRecord[] {
  const [file] = journalFiles(home).filter((name) => name.endsWith('.journal'))
  if (file === undefined) return []
  const lines = readFileSync(file, 'utf8').split('\n')
  return lines.slice(0, -1).map((line) => JSON.parse(line.slice(33)))
}

/** Parts that the journal knows to be acknowledged, as `upload/part`. */
export function acknowledged(home: string): Set<string> {
  const uploads = new Map<number, string>()
  const found = new Set<string>()
  for (const record of journalRecords(home)) {
    if (record.do === 'begin') uploads.set(record.id, record.uploadId)
    if (record.do === 'received') found.add(`${uploads.get(record.id)}/${record.number}`)
  }
  return found
}
