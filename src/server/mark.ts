/** The mark that is left wherever content is kept, and what a place of content is to the metadata; what follows from both is identity.ts. @module */
import { SyncError, type SyncErrorCode } from '../../crypto/errors.ts'

/** What a place of content knows about the store it belongs to. */
export interface Mark {
  store: string
  /** Counts the starts of a server. */
  generation: number
  /** Newest version of any node that is surely on the disk of the metadata. */
  version: number
}

/** Somewhere content is kept. */
export interface Place {
  /** Under which the metadata remembers it. */
  readonly key: 'disk' | 'objects'
  /** For messages: `the directory /srv/blobs`. */
  readonly name: string
  readMark(): Promise<Mark | undefined>
  writeMark(mark: Mark): Promise<void>
  /** Whether anything is there besides a mark; `undefined` when that is not known. */
  hasContent(): Promise<boolean | undefined>
}

/** Of hints. */
export const ADOPT = 'If they do belong together, for example after a restore, tell it with sync serve check --adopt.'

export const markText = (mark: Mark): string => `${JSON.stringify({ v: 1, ...mark })}\n`

/** @throws {SyncError} `STORE_MARK_DAMAGED` for anything but what `markText` makes. */
export function parseMark(text: string, place: string): Mark {
  try {
    const { v, store, generation, version } = JSON.parse(text)
    const isSound = [generation, version].every((value) => Number.isSafeInteger(value) && value >= 0)
    if (v === 1 && /^[0-9a-f]{32}$/.test(store) && isSound) return { store, generation, version }
  } catch {
    // Told below.
  }
  throw new SyncError('integrity', 'STORE_MARK_DAMAGED', `The mark of the store in ${place} is damaged`, {
    hint: ADOPT,
  })
}

/** Why a server does not start. */
export const refuse = (code: SyncErrorCode, message: string, hint: string): SyncError =>
  new SyncError('safety', code, message, { hint: `${hint} Nothing was changed.` })

/** Metadata that is not there beside content that is. */
export const storeLost = (file: string, place: string): SyncError =>
  refuse(
    'STORE_LOST',
    `${file} is missing or empty, but ${place} holds content`,
    'Mount the disk it is on, or put it back from a backup. For a new server take an empty directory.',
  )
