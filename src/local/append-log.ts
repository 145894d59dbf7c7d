/**
 * A private file of records that only grows: one line each, with a checksum over all that came before it, so that nothing in
 * the middle can be lost, changed or swapped unnoticed. A crash can only cut the end, and what was cut had not been synced.
 * @module
 */
import { hash } from 'node:crypto'
import { close as closeFd, constants, fdatasync, ftruncateSync, lstatSync, openSync, writeSync } from 'node:fs'
import { rename, unlink } from 'node:fs/promises'
import { dirname } from 'node:path'
import { promisify } from 'node:util'
import { localError } from '../errors.ts'
import { makePrivateDirectory, readPrivateFile, syncDirectory } from './atomic-file.ts'

const VERSION = 1
const CHECKSUM_LENGTH = 32

/** Chained: each checksum covers the one before it. */
const checksumOf = (before: string, json: string): string =>
  hash('sha256', before + json, 'hex').slice(0, CHECKSUM_LENGTH)

export interface AppendLog {
  /** Adds a record. It is in the hands of the system when this returns, so only losing power can lose it. */
  append(record: object): void
  /** Makes all that was added durable; one sync serves everybody who waits. */
  sync(): Promise<void>
  close(): Promise<void>
  /** Bytes on the disk. */
  size(): number
  /** Of a closed log: how it was left; `undefined` when nobody can tell. */
  end(): LogEnd | undefined
  /** Puts a log with these records in the place of this one, and closes it. */
  replace(records: Iterable<object>): Promise<void>
  /** Closes and deletes the file. */
  remove(): Promise<void>
}

/** How a log was left: where it ends, and which file it was. */
export interface LogEnd {
  readonly length: number
  readonly checksum: string
  readonly file: string
}

/** Another one when somebody has written to it since, or changed who may read it. */
function identify(path: string): string | undefined {
  const info = lstatSync(path, { bigint: true, throwIfNoEntry: false })
  return info && [info.dev, info.ino, info.size, info.mtimeNs, info.ctimeNs, info.mode].join(' ')
}

const sizeIn = (file: string): number => Number(file.split(' ')[2])

interface End {
  /** Bytes up to the end of the last whole record. */
  readonly length: number
  readonly checksum: string
}

interface Content extends End {
  readonly records: Iterable<unknown>
}

const NOTHING: Content = Object.freeze({ records: [], length: 0, checksum: '' })

/**
 * Reads whole lines; what follows the last one was being written when a crash came.
 *
 * @returns `undefined` when the file is damaged, or not a log of this version and scope.
 */
function parse(bytes: Uint8Array, scope: string): Content | undefined {
  let [length, checksum] = [0, '']
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  for (let end = buffer.indexOf(10); end !== -1; end = buffer.indexOf(10, length)) {
    const start = length + CHECKSUM_LENGTH + 1
    if (start > end) return undefined
    const json = buffer.toString('utf8', start, end)
    const next = checksumOf(checksum, json)
    if (buffer.toString('latin1', length, start) !== `${next} `) return undefined
    if (length === 0 && json !== header(scope)) return undefined
    checksum = next
    length = end + 1
  }
  return { records: recordsOf(buffer.subarray(0, length)), length, checksum }
}

/** One at a time: all of them at once would take much more memory than the file. */
function* recordsOf(buffer: Buffer): Generator<unknown> {
  for (let start = buffer.indexOf(10) + 1; start < buffer.length; ) {
    const end = buffer.indexOf(10, start)
    yield JSON.parse(buffer.toString('utf8', start + CHECKSUM_LENGTH + 1, end))
    start = end + 1
  }
}

const header = (scope: string) => JSON.stringify({ format: 'sealsync-log', version: VERSION, scope })

/**
 * Opens a log, or gets ready to make one with the first record.
 *
 * @param scope - What the log is about. A file that says otherwise is not read.
 * @param accept - Takes the records found; returns false when they make no sense.
 * @param onDamaged - Told where a file that could not be used was put: beside it, as `….corrupt-<time>`.
 * @param now - Milliseconds since the epoch.
 * @throws {SyncError} `SECRET_FILE_OPEN`, or of class `local_io`.
 */
export async function openAppendLog(
  path: string,
  scope: string,
  accept: (records: Iterable<unknown>) => boolean,
  onDamaged: (keptAs: string) => void,
  now: number,
): Promise<AppendLog> {
  await makePrivateDirectory(dirname(path))
  const bytes = await readPrivateFile(path)
  let content: Content | undefined = bytes === undefined ? NOTHING : parse(bytes, scope)
  if (content === undefined || !accept(content.records)) {
    const keptAs = `${path}.corrupt-${now}`
    await rename(path, keptAs).catch((error) => {
      throw localError(error, `put the damaged file ${path} aside`)
    })
    onDamaged(keptAs)
    content = NOTHING
  }
  // Without the records: they hold all that was read.
  const { length, checksum } = content
  return createAppendLog(path, scope, { length, checksum }, bytes !== undefined && content !== NOTHING)
}

/** Opens a log whose records are known, as it was left; `undefined` when it is not as it was any more. */
export function reopenAppendLog(
  path: string,
  scope: string,
  { length, checksum, file }: LogEnd,
): AppendLog | undefined {
  if (identify(path) !== file) return undefined
  return createAppendLog(path, scope, { length, checksum }, true)
}

function createAppendLog(path: string, scope: string, content: End, exists: boolean): AppendLog {
  let { checksum } = content
  let fd: number | undefined
  let [appended, synced, written] = [0, 0, 0]
  let running: Promise<void> | undefined
  /** After a failure nobody knows what the file ends with. */
  let broken: unknown

  const guard = <T>(work: () => T): T => {
    if (broken !== undefined) throw broken
    try {
      return work()
    } catch (error) {
      broken = localError(error, `write ${path}`)
      throw broken
    }
  }
  const write = (target: number, json: string) => {
    const next = checksumOf(checksum, json)
    const line = Buffer.from(`${next} ${json}\n`)
    for (let at = 0; at < line.length; ) at += writeSync(target, line, at)
    checksum = next
    written += line.length
    appended++
  }
  const open = (): number => {
    if (fd !== undefined) return fd
    const create = exists ? 0 : constants.O_CREAT | constants.O_EXCL
    fd = openSync(path, constants.O_WRONLY | constants.O_APPEND | (constants.O_NOFOLLOW ?? 0) | create, 0o600)
    ftruncateSync(fd, content.length)
    if (content.length === 0) write(fd, header(scope))
    return fd
  }
  const flush = async (target: number): Promise<void> => {
    const upTo = appended
    try {
      await promisify(fdatasync)(target)
      if (synced === 0) await syncDirectory(dirname(path))
    } catch (error) {
      broken = localError(error, `write ${path}`)
      throw broken
    }
    synced = upTo
  }
  const close = async () => {
    await running?.catch(() => {})
    const open = fd
    fd = undefined
    if (open === undefined) return
    await promisify(closeFd)(open).catch((error) => {
      throw localError(error, `write ${path}`)
    })
  }
  return {
    append: (record) => guard(() => write(open(), JSON.stringify(record))),
    async sync() {
      const wanted = appended
      while (synced < wanted && fd !== undefined) {
        if (broken !== undefined) throw broken
        running ??= flush(fd).finally(() => {
          running = undefined
        })
        await running
      }
    },
    close,
    size: () => content.length + written,
    end() {
      const file = broken === undefined && fd === undefined ? identify(path) : undefined
      const length = content.length + written
      // What is left of a line that a crash has cut is not counted.
      return file === undefined || length !== sizeIn(file) ? undefined : { length, checksum, file }
    },
    async replace(records) {
      await close()
      const fresh = `${path}.new`
      await unlink(fresh).catch(() => {})
      const next = createAppendLog(fresh, scope, NOTHING, false)
      try {
        for (const record of records) next.append(record)
        await next.sync()
        await next.close()
      } catch (error) {
        await next.close().catch(() => {})
        await unlink(fresh).catch(() => {})
        throw error
      }
      try {
        await rename(fresh, path)
        await syncDirectory(dirname(path))
      } catch (error) {
        throw localError(error, `replace ${path}`)
      }
    },
    async remove() {
      const made = exists || fd !== undefined
      await close()
      if (made) {
        await unlink(path).catch((error) => {
          throw localError(error, `remove ${path}`)
        })
      }
    },
  }
}
