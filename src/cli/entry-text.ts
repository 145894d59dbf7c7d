/** Rooms, folders and files as people and programs read them. @module */
import type { RemoteEntry } from '../client/index.ts'
import { display, isoTime, showBytes } from './display.ts'

/** When it was modified, as ISO 8601. */
export const timeText = ({ timestampModification, updatedAt }: RemoteEntry): string | undefined => {
  const at = timestampModification ?? updatedAt
  return at === undefined ? undefined : isoTime(at)
}

/** For `--json`. */
export const describe = (entry: RemoteEntry) => ({
  type: 'node',
  kind: entry.type,
  id: entry.id,
  name: entry.name,
  path: entry.path,
  size: entry.size,
  encrypted: entry.isEncrypted === true,
  modifiedAt: timeText(entry),
  createdAt: entry.createdAt === undefined ? undefined : isoTime(entry.createdAt),
})

/** What is put behind a name to tell what it is. */
export const shownName = (name: string, { type }: RemoteEntry): string => display(name) + (type === 'file' ? '' : '/')

/** @param isHuman - `1.5 MB` instead of bytes. */
export const sizeText = (size: number | undefined, isHuman: boolean): string =>
  size === undefined ? '' : isHuman ? showBytes(size) : String(size)

/** Kind, encryption, size and time, before a name. */
export const longLine = (entry: RemoteEntry, shown: string, isHuman: boolean): string =>
  [
    entry.type === 'file' ? '-' : entry.type === 'room' ? 'R' : 'd',
    entry.isEncrypted ? 'e' : '-',
    (entry.type === 'file' ? sizeText(entry.size ?? 0, isHuman) : '').padStart(isHuman ? 10 : 12),
    (timeText(entry) ?? '').padEnd(24),
    shown,
  ].join(' ')
