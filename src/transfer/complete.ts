/**
 * The end of an upload: makes the content visible, exactly once, and finds out whether that happened when the answer is lost.
 * @module
 */
import type { FileKey } from '../../crypto/index.ts'
import type { Api } from '../api/api.ts'
import { getFileKey } from '../api/file-keys.ts'
import { getNode, listChildren } from '../api/nodes.ts'
import type { Completion } from '../api/uploads.ts'
import { type RemoteNode, wireTime } from '../api/wire.ts'
import type { Clock } from '../environment.ts'
import { SyncError } from '../errors.ts'
import { sameNameKey } from '../local/names.ts'
import type { Receipt, UploadChannel } from './upload-channel.ts'

const remoteChanged = () =>
  new SyncError('conflict', 'REMOTE_CHANGED', 'Somebody changed the file on the server meanwhile', {
    hint: 'Look at both versions, then run again.',
  })

/** Replaces only what was listed: same node, same place, same content. */
export async function checkUnchanged(api: Api, listed: RemoteNode, signal: AbortSignal): Promise<void> {
  let now: RemoteNode
  try {
    now = await getNode(api, listed.id, signal)
  } catch (error) {
    if (error instanceof SyncError && error.class === 'not_found') throw remoteChanged()
    throw error
  }
  const same =
    now.name === listed.name &&
    (now.parentId ?? listed.parentId) === listed.parentId &&
    now.size === listed.size &&
    // Not known where nothing was listed because nothing had changed; content never changes under one id.
    (listed.updatedAt === undefined || now.updatedAt === listed.updatedAt) &&
    now.timestampModification === listed.timestampModification
  if (!same) throw remoteChanged()
}

const uncertain = (cause: unknown) =>
  new SyncError(
    'server',
    'UPLOAD_UNCERTAIN',
    'The answer was lost, and the server does not say whether the file arrived',
    {
      hint: 'Ask whoever sent you the link whether it is there, before you send it again.',
      cause,
    },
  )

export interface Sent {
  readonly target: { readonly parentId: number; readonly name: string }
  /** Id of the node that it replaces. */
  readonly replaces: number | undefined
  readonly size: number
  readonly modifiedAt: number
  /** IV and tag of encrypted content. */
  readonly fileKey: Pick<FileKey, 'iv' | 'tag'> | undefined
}

const mayHaveHappened = (error: unknown) =>
  error instanceof SyncError && (error.class === 'network' || error.class === 'server' || error.code === 'UPLOAD_GONE')

/** Completes, and finds out what happened when the answer is lost. Never completes twice. */
export async function finish(
  context: { readonly api: Api; readonly clock: Clock },
  channel: UploadChannel,
  receipts: readonly Receipt[],
  how: Completion,
  sent: Sent,
  signal: AbortSignal,
): Promise<RemoteNode> {
  let node: RemoteNode
  try {
    node = await channel.complete(receipts, how, signal)
  } catch (error) {
    if (!mayHaveHappened(error) || signal.aborted) throw error
    const settled = await settle(context, channel, sent, signal)
    if (settled === undefined) {
      throw new SyncError('changed', 'UPLOAD_LOST', 'The server did not finish the upload', { cause: error })
    }
    node = settled
  }
  if (node.size !== undefined && node.size !== sent.size) {
    throw new SyncError(
      'integrity',
      'UPLOAD_SIZE_WRONG',
      `The server stored ${node.size} bytes instead of ${sent.size}`,
      {
        hint: 'Delete the file on the server and run again.',
      },
    )
  }
  return node
}

/**
 * After a lost answer: asks for the upload's status, then looks the name up. IV and tag identify an upload, so the file is
 * ours exactly when our file key there has the same ones.
 */
export async function settle(
  context: { readonly api: Api; readonly clock: Clock },
  channel: UploadChannel,
  sent: Sent,
  signal: AbortSignal,
): Promise<RemoteNode | undefined> {
  const { api, clock } = context
  try {
    const node = await channel.status(signal)
    if (node !== undefined) return node
  } catch (error) {
    const isUncertain = error instanceof SyncError && error.code === 'UPLOAD_UNCERTAIN'
    if (signal.aborted || isUncertain) throw error
    // Who has only a link cannot look: another try could be a second copy.
    if (api.request !== undefined) throw uncertain(error)
    // Unknown there: the name decides.
  }
  if (api.request !== undefined) return undefined
  for (const wait of [0, 500, 2_000]) {
    await clock.sleep(wait, signal)
    const node = await findChild(api, sent.target.parentId, sent.target.name, signal)
    if (node !== undefined && node.id !== sent.replaces && (await isOurs(api, node, sent, signal))) {
      return node
    }
  }
  return undefined
}

async function isOurs(api: Api, node: RemoteNode, sent: Sent, signal: AbortSignal): Promise<boolean> {
  if (node.type !== 'file' || node.size !== sent.size) return false
  if (sent.fileKey === undefined) return node.timestampModification === wireTime(sent.modifiedAt)
  try {
    const { iv, tag } = await getFileKey(api, node.id, signal)
    return Buffer.compare(iv, sent.fileKey.iv) === 0 && Buffer.compare(tag, sent.fileKey.tag) === 0
  } catch (error) {
    if (error instanceof SyncError && error.class === 'key') return false
    throw error
  }
}

/** The child of this name, compared in NFC. */
export async function findChild(
  api: Api,
  parentId: number,
  name: string,
  signal?: AbortSignal,
): Promise<RemoteNode | undefined> {
  const key = sameNameKey(name)
  for await (const node of listChildren(api, parentId, signal)) if (sameNameKey(node.name) === key) return node
  return undefined
}
