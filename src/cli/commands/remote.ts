/** room create, room members, ls, mkdir, rm, stat, cat: looking at the server and changing single things there. @module */
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { getAccount } from '../../api/account.ts'
import { getFileKey } from '../../api/file-keys.ts'
import {
  createRoom,
  deleteNode,
  encryptRoom,
  getNode,
  listChildren,
  listRoomUsers,
  putRoomUser,
  removeRoomUser,
} from '../../api/nodes.ts'
import type { RemoteNode, RoomUser } from '../../api/wire.ts'
import type { Client } from '../../client.ts'
import { systemRandom } from '../../environment.ts'
import { localError, SyncError, systemCode } from '../../errors.ts'
import { createAtomicFile, makePrivateDirectory } from '../../local/atomic-file.ts'
import { escapeName } from '../../local/names.ts'
import { sweepDirectory } from '../../local/partial-file.ts'
import { readKnownPlaces } from '../../sync/known-places.ts'
import { sealOf } from '../../sync/records.ts'
import { ensureFolder, parseRemotePath, requireContainer, requireRemote } from '../../sync/remote-path.ts'
import { downloadContent, openFileKey } from '../../transfer/content.ts'
import { withClient } from '../connect.ts'
import { accountName, type Context, requireProfile, statesPath, text } from '../context.ts'
import { display, showBytes } from '../display.ts'
import { homeDirectory } from '../profile.ts'

const isoTime = (ms: number | undefined) => (ms === undefined ? undefined : new Date(ms).toISOString())

const describe = (node: RemoteNode) => ({
  type: 'node',
  kind: node.type,
  id: node.id,
  name: node.name,
  path: `${node.parentPath ?? '/'}${node.name}`,
  size: node.size,
  encrypted: node.isEncrypted === true,
  modifiedAt: isoTime(node.timestampModification ?? node.updatedAt),
  createdAt: isoTime(node.createdAt),
})

/** The room that a run of before has made, and did not come to encrypt: plain, empty, and of nobody else. */
async function unfinishedRoom(
  { api }: Client,
  name: string,
  accountId: number,
  signal: AbortSignal,
): Promise<RemoteNode | undefined> {
  const { node } = await requireRemote(api, `/${name}`, signal)
  if (node.type !== 'room' || node.isEncrypted) return undefined
  for await (const _child of listChildren(api, node.id, signal)) return undefined
  for await (const { userInfo } of listRoomUsers(api, node.id, true, signal)) {
    if (userInfo.id !== accountId) return undefined
  }
  return node
}

export async function roomCreate(context: Context, path: string): Promise<void> {
  const [name, ...rest] = parseRemotePath(path)
  if (name === undefined || rest.length > 0) {
    throw new SyncError('usage', 'PATH_INVALID', 'A room is made at the top: /NAME')
  }
  const plain = context.options.plain === true
  await withClient(context, async (client) => {
    const { api, keyring } = client
    const account = await getAccount(api, context.signal)
    if (!plain && (await keyring.containers(context.signal)).length === 0) {
      throw new SyncError('key', 'NO_KEY_PAIR', 'An encrypted room needs your key pair first', {
        hint: 'Make one: sync keys create',
      })
    }
    let isNew = true
    let room = await createRoom(api, escapeName(name), account.id, context.signal).catch(async (error) => {
      if (plain || !(error instanceof SyncError) || error.code !== 'EXISTS') throw error
      const unfinished = await unfinishedRoom(client, name, account.id, context.signal)
      if (unfinished === undefined) throw error
      isNew = false
      return unfinished
    })
    if (!plain) {
      try {
        room = await encryptRoom(api, room.id, context.signal)
      } catch (error) {
        // A plain room under the name of an encrypted one would be a trap.
        if (isNew) await deleteNode(api, room.id).catch(() => {})
        throw error
      }
    }
    context.output.done(`Made the ${plain ? 'plain' : 'encrypted'} room /${display(room.name)}`, describe(room))
  })
}

const PERMISSIONS = (role: string) => {
  const manage = role === 'admin'
  const edit = manage || role === 'edit'
  return {
    manage,
    read: true,
    create: edit,
    change: edit,
    delete: edit,
    manageDownloadShare: manage,
    manageUploadShare: manage,
    readRecycleBin: edit,
    restoreRecycleBin: edit,
    deleteRecycleBin: manage,
  }
}

async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of source) all.push(item)
  return all
}

function requireUser(users: readonly RoomUser[], name: string): RoomUser {
  const user = users.find(({ userInfo }) => userInfo.userName === name)
  if (user !== undefined) return user
  throw new SyncError('not_found', 'USER_UNKNOWN', `There is no user ${name}, or they cannot be in this room`)
}

export async function roomMembers(context: Context, path: string): Promise<void> {
  const { options, output, signal } = context
  await withClient(context, async ({ api }) => {
    const { node: room } = await requireRemote(api, path, signal)
    if (room.type !== 'room') throw new SyncError('usage', 'NOT_A_ROOM', `Not a room: ${path}`)
    const add = text(options, 'add')
    const remove = text(options, 'remove')
    if (add !== undefined) {
      const role = text(options, 'role') ?? 'edit'
      const everybody = await collect(listRoomUsers(api, room.id, false, signal))
      await putRoomUser(api, room.id, requireUser(everybody, add).userInfo.id, PERMISSIONS(role), signal)
      if (room.isEncrypted) {
        const steps = 'compare their key (sync keys list) and trust it (sync keys trust), then: sync keys distribute'
        output.info(`To give them the keys of the files that are there, ${steps}`)
      }
    }
    if (remove !== undefined) {
      const members = await collect(listRoomUsers(api, room.id, true, signal))
      await removeRoomUser(api, room.id, requireUser(members, remove).userInfo.id, signal)
    }
    for await (const { userInfo, permissions, publicKeyContainer } of listRoomUsers(api, room.id, true, signal)) {
      const role = permissions?.manage ? 'admin' : permissions?.create ? 'edit' : 'read'
      const hasKeyPair = publicKeyContainer !== undefined && publicKeyContainer !== null
      const name = userInfo.userName ?? String(userInfo.id)
      output.result(`${role.padEnd(6)} ${display(name, 80)}${hasKeyPair ? '' : '  (no key pair)'}`, {
        type: 'member',
        userId: userInfo.id,
        user: name,
        role,
        hasKeyPair,
      })
    }
  })
}

const longLine = (node: RemoteNode) =>
  [
    node.type === 'file' ? '-' : node.type === 'room' ? 'R' : 'd',
    node.isEncrypted ? 'e' : '-',
    (node.type === 'file' ? showBytes(node.size ?? 0) : '').padStart(10),
    (isoTime(node.timestampModification ?? node.updatedAt) ?? '').padEnd(24),
    display(node.name) + (node.type === 'file' ? '' : '/'),
  ].join(' ')

export async function ls(context: Context, path = '/'): Promise<void> {
  await withClient(context, async ({ api }) => {
    const show = (node: RemoteNode) => {
      const short = display(node.name) + (node.type === 'file' ? '' : '/')
      context.output.result(context.options.long === true ? longLine(node) : short, describe(node))
    }
    if (parseRemotePath(path).length === 0) {
      for await (const node of listChildren(api, 0, context.signal)) show(node)
      return
    }
    const { node } = await requireRemote(api, path, context.signal)
    if (node.type === 'file') return show(node)
    for await (const child of listChildren(api, node.id, context.signal)) show(child)
  })
}

export async function mkdir(context: Context, path: string): Promise<void> {
  await withClient(context, async ({ api }) => {
    const { container, missing } = await requireContainer(api, path, context.signal)
    if (missing.length === 0 && context.options.parents !== true) {
      throw new SyncError('conflict', 'EXISTS', `It exists already: ${path}`)
    }
    if (missing.length > 1 && context.options.parents !== true) {
      throw new SyncError('not_found', 'REMOTE_MISSING', `The folder above ${path} does not exist`, {
        hint: 'Use --parents to make it too.',
      })
    }
    let node = container
    for (const name of missing) node = await ensureFolder(api, node.id, escapeName(name), context.signal)
    context.output.done(`Made ${display(path)}`, describe(node))
  })
}

export async function rm(context: Context, paths: readonly string[]): Promise<void> {
  const { options, signal } = context
  await withClient(context, async ({ api }) => {
    // All are looked up first: a typing mistake must not leave half of it deleted.
    const nodes: { path: string; node: RemoteNode }[] = []
    for (const path of paths) {
      const { node } = await requireRemote(api, path, signal)
      if (node.type !== 'file' && options.recursive !== true) {
        throw new SyncError('usage', 'IS_CONTAINER', `A ${node.type} is deleted with --recursive only: ${path}`)
      }
      if (node.type === 'room' && options.force !== true) {
        throw new SyncError(
          'safety',
          'ROOM_DELETE',
          `A room is gone for good when deleted, with all versions: ${path}`,
          {
            hint: 'Use --recursive --force if that is what you want.',
          },
        )
      }
      nodes.push({ path, node })
    }
    for (const { path, node } of nodes) {
      await deleteNode(api, node.id, signal)
      context.output.done(`Deleted ${display(path)}`, { type: 'deleted', path, id: node.id })
    }
  })
}

export async function stat(context: Context, path: string): Promise<void> {
  await withClient(context, async ({ api }) => {
    const found = await requireRemote(api, path, context.signal)
    const node = await getNode(api, found.node.id, context.signal)
    const key =
      node.type === 'file' && node.isEncrypted
        ? await getFileKey(api, node.id, context.signal).catch((error) => {
            if (error instanceof SyncError && error.code === 'FILE_KEY_MISSING') return undefined
            throw error
          })
        : undefined
    const info = {
      ...describe(node),
      ...(node.type === 'file' && node.isEncrypted ? { fileKey: key?.version ?? 'missing' } : {}),
    }
    const rows = Object.entries(info).filter(([name, value]) => name !== 'type' && value !== undefined)
    context.output.result(rows.map(([name, value]) => `${name.padEnd(12)}${display(String(value))}`).join('\n'), info)
  })
}

/** Throws when another content is known. */
type Judge = (seal: string | undefined) => void

/** Content up to this size is checked in memory, larger in a private file. */
const MEMORY_BYTES = 16 * 1024 * 1024

export async function cat(context: Context, path: string): Promise<void> {
  const account = accountName(await requireProfile(context))
  await withClient(context, async (client) => {
    const { node } = await requireRemote(client.api, path, context.signal)
    if (node.type !== 'file') throw new SyncError('usage', 'NOT_A_FILE', `Not a file: ${path}`)
    // Nothing is printed before the tag of all of it is checked.
    const known = await readKnownPlaces({ directory: statesPath(), account }, [path], client.clock.now(), (keptAs) =>
      context.output.warn(`damaged state was put aside as ${keptAs}`),
    )
    const judge = (seal: string | undefined) => known.judge(parseRemotePath(path), node, seal)
    if ((node.size ?? 0) <= MEMORY_BYTES) await catSmall(context, client, node, path, judge)
    else await catLarge(context, client, node, path, judge)
  })
}

/** @returns false when nobody reads any more. */
const print = (bytes: Uint8Array) =>
  new Promise<boolean>((resolve, reject) => {
    process.stdout.write(bytes, (error) => {
      if (!error) resolve(true)
      else if (systemCode(error) === 'EPIPE') resolve(false)
      else reject(localError(error, 'write the content'))
    })
  })

async function catSmall(context: Context, client: Client, node: RemoteNode, path: string, judge: Judge): Promise<void> {
  const chunks: Uint8Array[] = []
  await download(context, client, node, path, judge, async (chunk) => {
    chunks.push(new Uint8Array(chunk))
  })
  for (const chunk of chunks) if (!(await print(chunk))) return
}

async function catLarge(context: Context, client: Client, node: RemoteNode, path: string, judge: Judge): Promise<void> {
  const directory = join(homeDirectory(), 'tmp')
  await makePrivateDirectory(directory)
  await sweepDirectory(directory, client.clock)
  const file = await createAtomicFile(join(directory, 'content'))
  try {
    await download(context, client, node, path, judge, async (chunk) => {
      // Not `write`: on a disk that is nearly full it may take a part only.
      await file.handle.appendFile(chunk).catch((error) => {
        throw localError(error, 'write the temporary file')
      })
    })
    const reader = await open(file.tempPath, 'r')
    try {
      const buffer = Buffer.alloc(1024 * 1024)
      for (;;) {
        const { bytesRead } = await reader.read(buffer, 0, buffer.length)
        if (bytesRead === 0) break
        if (!(await print(buffer.subarray(0, bytesRead)))) break
      }
    } finally {
      await reader.close()
    }
  } finally {
    await file.discard()
  }
}

async function download(
  context: Context,
  client: Client,
  node: RemoteNode,
  path: string,
  judge: Judge,
  write: (chunk: Uint8Array) => Promise<void>,
): Promise<void> {
  const { api, keyring, clock } = client
  const parts = { api, keyring, clock, random: systemRandom }
  const fileKey = await openFileKey(parts, node, context.signal)
  try {
    judge(fileKey && sealOf(fileKey))
    await downloadContent(parts, node, fileKey, { write }, path, context.signal)
  } finally {
    fileKey?.wipe()
  }
}
