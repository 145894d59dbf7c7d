/**
 * Links that stay when their file is replaced. Those of encrypted files need the key of the new version, wrapped for the link's own key; that
 * key comes from the server, so it has to be the one that the link was made with here.
 * @module
 */
import { formatFileKey, parseFileKey, SyncError } from '../../crypto/index.ts'
import type { Api } from '../api/api.ts'
import { listMissingFileKeys, postFileKeys } from '../api/file-keys.ts'
import { getDownloadShare, listDownloadShares } from '../api/shares.ts'
import type { DownloadShare, MissingFileKeys, RemoteNode } from '../api/wire.ts'
import { showFingerprint } from '../fingerprint.ts'
import type { RefusedMember } from './distribute.ts'
import type { OnEvent } from './events.ts'
import type { Keyring } from './keyring.ts'
import type { ShareKeys } from './share-keys.ts'
import type { Recipient } from './upload.ts'

/** What keeping links works with. */
export interface LinkContext {
  readonly api: Api
  readonly keyring: Pick<Keyring, 'importKey' | 'unwrap' | 'wrap'>
  readonly keys: ShareKeys
  readonly onEvent?: OnEvent | undefined
  /** Told of each link that leads nowhere until somebody does something. */
  readonly onRefused?: ((refused: RefusedMember) => void) | undefined
}

/** Links are recipients under ids of their own, as rescue keys are. */
const SHARE_IDS = 2 ** 51

/** Links of one file that are looked after. */
const MAX_LINKS = 1_000

const linkText = ({ id, name }: DownloadShare) =>
  `link ${id} (${name.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, '?').slice(0, 80)})`

const hint = (id: number) => `Make another link; or, where you know its password: sync share trust ${id}`

/** The key that a link has now, if it is the one that it was made with. */
async function keyOf(
  { api, keyring, keys, onEvent, onRefused }: LinkContext,
  share: DownloadShare,
  fileId: number,
  signal: AbortSignal | undefined,
): Promise<{ readonly recipient: Recipient; readonly page: MissingFileKeys } | undefined> {
  const userId = SHARE_IDS + share.id
  const refuse = (error: SyncError): undefined => {
    onRefused?.({ member: linkText(share), userId, error })
    onEvent?.({ type: 'warning', code: error.code, message: error.message })
  }
  const known = await keys.find(share.id)
  if (known === undefined) {
    return refuse(
      new SyncError(
        'changed',
        'SHARE_KEY_NEW',
        `The ${linkText(share)} was not made here, so it gets no key of the new version`,
        {
          hint: hint(share.id),
        },
      ),
    )
  }
  const page = await listMissingFileKeys(api, { fileId, userId, offset: 0 }, signal)
  const container = page.users.find(({ id }) => id === userId)?.publicKeyContainer
  if (container === undefined) {
    return refuse(
      new SyncError(
        'changed',
        'SHARE_NOT_KEPT',
        `The server does not take the key of a new version for the ${linkText(share)}`,
        {
          hint: 'Make another link, and revoke this one.',
        },
      ),
    )
  }
  const publicKey = await keyring.importKey(container)
  if (publicKey.fingerprint !== known.fingerprint || publicKey.version !== known.version) {
    const shown = showFingerprint(publicKey.fingerprint)
    return refuse(
      new SyncError(
        'integrity',
        'SHARE_KEY_CHANGED',
        `The server shows another key for the ${linkText(share)} than it was made with; it gets none: ${shown}`,
        {
          hint: 'Whoever has that key could open the file. Ask the administrator of the server, and make another link.',
        },
      ),
    )
  }
  return { recipient: { userId, publicKey }, page }
}

async function collect(shares: AsyncIterable<DownloadShare>): Promise<DownloadShare[]> {
  const all: DownloadShare[] = []
  for await (const share of shares) {
    if (share.isEncrypted === true && all.length < MAX_LINKS) all.push(share)
  }
  return all
}

/**
 * Whom the key of a new version has to be wrapped for besides, so that the links of an encrypted file never stand without one.
 *
 * @param node - What will be replaced.
 */
export async function linkRecipients(
  context: LinkContext,
  node: RemoteNode,
  signal?: AbortSignal,
): Promise<Recipient[]> {
  if (node.isEncrypted !== true) return []
  const recipients: Recipient[] = []
  for (const share of await collect(listDownloadShares(context.api, { nodeId: node.id }, signal))) {
    const found = await keyOf(context, share, node.id, signal)
    if (found !== undefined) recipients.push(found.recipient)
  }
  return recipients
}

/**
 * Does something at the server that may give links another file, and then gives them the keys of that.
 *
 * @param work - Tells the server to keep links.
 */
export async function keepingLinks<T>(context: LinkContext, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  const before = new Map((await collect(listDownloadShares(context.api, {}, signal))).map((share) => [share.id, share]))
  const result = await work()
  if (before.size === 0) return result
  for (const share of await collect(listDownloadShares(context.api, {}, signal))) {
    const was = before.get(share.id)
    if (was !== undefined && was.nodeId !== share.nodeId) await handOver(context, share.id, signal)
  }
  return result
}

async function handOver(context: LinkContext, shareId: number, signal: AbortSignal | undefined): Promise<void> {
  const { api, keyring } = context
  const share = await getDownloadShare(api, shareId, signal)
  const found = await keyOf(context, share, share.nodeId, signal)
  if (found === undefined) return
  const { recipient, page } = found
  const { userId, publicKey } = recipient
  if (!page.items.some((item) => item.userId === userId && item.fileId === share.nodeId)) return
  const file = page.files.find(({ id }) => id === share.nodeId)
  const fileKey = await keyring.unwrap(parseFileKey(file?.fileKeyContainer), signal)
  try {
    const wrapped = formatFileKey(await keyring.wrap(fileKey, publicKey))
    await postFileKeys(api, [{ userId, fileId: share.nodeId, fileKey: wrapped }], signal)
  } finally {
    fileKey.wipe()
  }
}
