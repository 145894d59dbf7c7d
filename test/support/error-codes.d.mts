import type { SyncErrorCode } from '../../crypto/error-codes.ts'
import type { SyncError } from '../../src/errors.ts'

export interface FoundCode {
  readonly classes: ReadonlySet<string>
  readonly texts: readonly string[]
  readonly files: ReadonlySet<string>
}
export function listedCodes(root: string): SyncErrorCode[]
export function readCodes(root: string): Map<SyncErrorCode, FoundCode>
export function errorTable(root: string, exitCodeOf: (error: SyncError) => number): string
