/**
 * All that the uploads of one run share: part buffers, the encryption thread, the journal of large files, our own public key,
 * and handing out keys to the members of rooms.
 * @module
 */
import { contentMac, type FileKey, type PublicKey } from '../../crypto/index.ts'
import type { MissingFileKeys, RemoteNode } from '../api/wire.ts'
import { SyncError } from '../errors.ts'
import { createDistributor, type Distributor } from '../transfer/distribute.ts'
import { type EncryptionThread, startEncryptionThread, THREAD_FROM } from '../transfer/encryption-thread.ts'
import { createSlabPool, type SlabPool } from '../transfer/flow.ts'
import { openUploadJournal, type UploadJournal } from '../transfer/journal.ts'
import { partsInFlight } from '../transfer/part-window.ts'
import { retire } from '../transfer/resume.ts'
import type { ShareKeys } from '../transfer/share-keys.ts'
import { linkRecipients } from '../transfer/share-links.ts'
import { storageOf } from '../transfer/storage-routes.ts'
import { type AsOf, type OutputChecking, uploadFile } from '../transfer/upload.ts'
import { partSizeFor } from '../transfer/upload-channel.ts'
import { memoryOf, type RunContext, report } from './run.ts'
import type { EntryFailure } from './tree.ts'

export const DEFAULT_PART_SIZE = 8 * 1024 * 1024
export interface UploaderOptions {
  /** Bytes of content that may be held in memory at once. */
  readonly memory?: number | undefined
  readonly signal: AbortSignal
  /** Whether files of this run are encrypted. */
  readonly isEncrypted: boolean
  /** Sizes of what will be sent, as far as is known. */
  readonly files: Iterable<{ readonly size: number }>
  readonly partSize?: number | undefined
  readonly checkOutput?: OutputChecking | undefined
  /** Path of the journal; without it an interrupted file starts over. */
  readonly journal?: string | undefined
  /** Links of files that are replaced stay; absent: they end. */
  readonly links?: ShareKeys | undefined
  /** Tell the SHA-256 of what is sent. */
  readonly isHashed?: boolean
  /** A member who gets no keys, and why. */
  readonly onRefused: (refusal: { readonly member: string; readonly error: SyncError }) => void
  /** A file that was stored though it did not rest: `INCONSISTENT`, class `changed`. It has been reported. */
  readonly onInconsistent: (failure: EntryFailure) => void
}

export interface SendRequest {
  /** Absolute local path. */
  readonly source: string
  readonly shown: string
  readonly parentId: number
  readonly roomId: number
  readonly name: string
  readonly replaces?: RemoteNode | undefined
  /** It is none of the files that people have been told of; only its failures are told. */
  readonly isUntold?: boolean
}

export interface Sent {
  readonly node: RemoteNode
  readonly bytes: number
  /** IV and tag, of an encrypted file. */
  readonly seal?: Pick<FileKey, 'iv' | 'tag'>
  /** Of the plaintext, base64; see `UploadResult`. */
  readonly sha256?: string
  /** Instead of that, where one can only write: see `contentMac`. Base64. */
  readonly mac?: string
  /** Of a file that did not rest; see `UploadResult`. */
  readonly asOf?: AsOf
}

const inconsistent = (bytes: number) =>
  new SyncError(
    'changed',
    'INCONSISTENT',
    `It never rested; its first ${bytes} bytes were stored, as they were at one moment`,
    {
      hint: 'What has been added to it since is stored by the next run.',
    },
  )

export interface Uploader {
  /** Resolves when the own key is known to be ours, if this run needs it: a wrong password leaves nothing behind then. */
  ready(): Promise<void>
  /** Uploads one file; see `uploadFile`. */
  send(request: SendRequest, signal: AbortSignal): Promise<Sent>
  /** Gives up interrupted uploads of earlier runs, except of these local files. */
  retireOthers(planned: ReadonlySet<string>): Promise<void>
  /**
   * Hands out the keys of what was sent, and what earlier runs left undone in this room.
   *
   * @param ahead - See `Distributor.include`.
   */
  handOut(roomId: number, ahead?: Promise<MissingFileKeys>): Promise<void>
  close(): Promise<void>
}

/** The part buffers of a run: as many as there is memory for, each large enough for the parts of the largest file. */
export function createPartSlabs(options: Pick<UploaderOptions, 'memory' | 'partSize'>): SlabPool {
  const size = partSizeFor(2 ** 36, options.partSize ?? DEFAULT_PART_SIZE)
  const count = Math.floor(memoryOf(options) / size)
  if (count > 0) return createSlabPool(count, size)
  if (options.memory === undefined) return createSlabPool(1, size)
  throw new SyncError('usage', 'MEMORY_INVALID', `A part of ${size} bytes does not fit into ${options.memory}`, {
    hint: 'Allow more memory, or choose smaller parts.',
  })
}

/** A digest that is remembered would tell whoever finds it whether they have guessed the content. */
function withoutDigest(
  { sha256, ...more }: Pick<Sent, 'sha256' | 'asOf'>,
  fileKey: FileKey,
): Pick<Sent, 'mac' | 'asOf'> {
  if (sha256 === undefined) return more
  const mac = contentMac(fileKey, Buffer.from(sha256, 'base64'))
  return { ...more, mac: Buffer.from(mac).toString('base64') }
}

/** @throws {SyncError} `MEMORY_INVALID`, `NO_KEY_PAIR`, `PASSWORD_NEEDED`, and of class `local_io` for the journal. */
export async function openUploader(context: RunContext, options: UploaderOptions): Promise<Uploader> {
  const { api, clock, keyring, onEvent } = context
  const { isEncrypted, signal } = options
  const slabs = createPartSlabs(options)
  const sizes = [...options.files]
  const needsKey = isEncrypted && sizes.length > 0
  const storage = await storageOf(api, signal)
  if (needsKey) await keyring.prepare(signal)
  let own: Promise<PublicKey> | undefined
  const ownKey = (): Promise<PublicKey> => {
    own ??= keyring.wrappingKey(signal)
    own.catch(() => {}) // reported when awaited
    return own
  }
  // If it has to be unlocked, that takes half a second of one core: there is other work meanwhile, but none that a wrong password would leave behind.
  // A run that sends nothing does without.
  if (needsKey) void ownKey()
  const journal: UploadJournal | undefined =
    options.journal === undefined ? undefined : await openUploadJournal(options.journal, clock, onEvent)
  const needsThread = needsKey && sizes.some(({ size }) => size >= THREAD_FROM)
  const thread: EncryptionThread | undefined = needsThread ? startEncryptionThread() : undefined
  const distributor: Distributor = createDistributor(api, keyring, { onEvent, onRefused: options.onRefused, signal })
  const transfer = {
    api,
    clock,
    storage,
    slabs,
    thread,
    partSize: options.partSize ?? DEFAULT_PART_SIZE,
    window: partsInFlight(slabs),
    checkOutput: options.checkOutput,
    isHashed: options.isHashed,
    resume: journal && { journal, unwrap: keyring.unwrap },
    onEvent,
  }
  const links = options.links && {
    api,
    keyring,
    keys: options.links,
    onEvent,
    onRefused: options.onRefused,
  }
  return {
    async ready() {
      await own
    },
    async send({ roomId, replaces, isUntold, ...request }, stop) {
      const wrapFor = isEncrypted ? await ownKey() : undefined
      const keptLinks =
        options.links === undefined || replaces === undefined ? undefined : await linkRecipients(links!, replaces, stop)
      const { node, bytes, fileKey, ...digest } = await uploadFile(
        isUntold ? { ...transfer, onEvent: undefined } : transfer,
        {
          ...request,
          ...(wrapFor === undefined ? {} : { wrapFor }),
          ...(replaces === undefined ? {} : { replaces }),
          ...(keptLinks && { keptLinks }),
        },
        stop,
      )
      if (digest.asOf?.isInconsistent) {
        const failure = { path: request.shown, error: inconsistent(bytes) }
        report(context, failure.path, failure.error)
        options.onInconsistent(failure)
      }
      if (fileKey === undefined) return { node, bytes, ...digest }
      const { iv, tag } = fileKey
      const seal = { iv: Uint8Array.from(iv), tag: Uint8Array.from(tag) }
      const told = keyring.isWriteOnly ? withoutDigest(digest, fileKey) : digest
      await keyring.keep(node.id, fileKey)
      await distributor.remember(roomId, node.id, fileKey)
      return { node, bytes, seal, ...told }
    },
    async retireOthers(planned) {
      for (const entry of journal?.open() ?? []) {
        signal.throwIfAborted()
        if (entry.isAbandoned || !planned.has(entry.path)) await retire(api, entry, signal)
      }
    },
    async handOut(roomId, ahead) {
      if (isEncrypted) distributor.include(roomId, ahead)
      await distributor.flush()
    },
    async close() {
      await thread?.close()
      await journal?.close()
    },
  }
}
