/** What a transfer reports while it runs. Bytes count when confirmed, so progress never runs backwards. @module */

export type TransferEvent =
  /** `bytes` is 0 for content of unknown length. */
  | { readonly type: 'file-started'; readonly path: string; readonly bytes: number }
  /** `bytes` more are stored at the other side. A failed file's confirmed bytes are taken back by `file-failed`. */
  | { readonly type: 'part-confirmed'; readonly path: string; readonly bytes: number }
  | { readonly type: 'file-done'; readonly path: string; readonly bytes: number }
  | { readonly type: 'file-failed'; readonly path: string; readonly code: string; readonly message: string }
  | {
      readonly type: 'retry'
      readonly label: string
      readonly attempt: number
      readonly delayMs: number
      readonly reason: string
    }
  /** A server is away: why, and how long it is waited for at most. Said once, until it is back. */
  | { readonly type: 'waiting'; readonly origin: string; readonly reason: string; readonly leftMs: number }
  | { readonly type: 'warning'; readonly code: string; readonly message: string }
  /** A member's key was seen for the first time and is trusted from now on. */
  | { readonly type: 'key-pinned'; readonly member: string; readonly userId: number; readonly fingerprint: string }
  | { readonly type: 'keys-handed-out'; readonly count: number }

export type OnEvent = (event: TransferEvent) => void
