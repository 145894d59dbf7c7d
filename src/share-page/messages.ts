/**
 * What page and worker say to each other. The worker has the keys and the network, the page has the person.
 * @module
 */
import type { Config, Link } from './config.ts'
import type { DownloadInfo } from './download.ts'
import type { PlainFailure } from './failure.ts'
import type { PlaceKind } from './places.ts'
import type { Receipt, Unfinished, UploadInfo } from './upload.ts'

/** What the page asks of the worker: arguments and result of each. */
export interface Calls {
  open(config: Config, link: Link): undefined
  describe(password?: string): DownloadInfo | UploadInfo
  /** Opens the key of an encrypted download. The password goes no further than the worker. */
  unlock(password: string): undefined
  choosePlace(size: number, canChoose: boolean): PlaceKind
  /** Downloads, decrypts and checks; a Blob to save, or nothing when it is in the file that was chosen. */
  fetch(place: PlaceKind, chosen?: FileSystemFileHandle): Blob | undefined
  /** Address of content that is not encrypted. */
  plainAddress(password?: string): string
  /** Removes the copy that is kept for saving. */
  discard(): undefined
  unfinished(): Unfinished[]
  forget(id: string): undefined
  send(file: File): Receipt
}

export interface Request {
  readonly id: number
  readonly name: keyof Calls
  readonly args: readonly unknown[]
}

/** Ends what the call with this id does. */
export interface Cancel {
  readonly cancel: number
}

/** What happens while a call is under way. */
export type Event =
  | { readonly type: 'progress'; readonly bytes: number; readonly total: number }
  | { readonly type: 'waiting'; readonly why: 'offline' | 'server' | undefined }

export type Answer =
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly failure: PlainFailure }
  | { readonly id: number; readonly event: Event }
