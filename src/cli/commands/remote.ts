/** room create, room members, ls, mkdir, rm, stat, cat: looking at the server and changing single things there. @module */

import type { RemoteNode, Role } from '../../client/index.ts'
import { localError, systemCode } from '../../errors.ts'
import { withClient } from '../connect.ts'
import { type Context, text } from '../context.ts'
import { display, showBytes } from '../display.ts'

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

export async function roomCreate(context: Context, path: string): Promise<void> {
  const { options, output, signal } = context
  const plain = options.plain === true
  await withClient(context, async (client) => {
    const room = await client.rooms.create(path, { plain, signal })
    output.done(`Made the ${plain ? 'plain' : 'encrypted'} room /${display(room.name)}`, describe(room))
  })
}

/** What `--role` says; the option itself takes only these. */
const roleOf = (text: string | undefined): Role => (text === 'read' || text === 'admin' ? text : 'edit')

export async function roomMembers(context: Context, path: string): Promise<void> {
  const { options, output, signal } = context
  await withClient(context, async (client) => {
    const add = text(options, 'add')
    const remove = text(options, 'remove')
    if (add !== undefined) {
      const { isEncrypted } = await client.rooms.addMember(path, add, { role: roleOf(text(options, 'role')), signal })
      if (isEncrypted) {
        const steps = 'compare their key (sync keys list) and trust it (sync keys trust), then: sync keys distribute'
        output.info(`To give them the keys of the files that are there, ${steps}`)
      }
    }
    if (remove !== undefined) await client.rooms.removeMember(path, remove, { signal })
    for await (const { userId, name, role, hasKeyPair } of client.rooms.members(path, { signal })) {
      const user = name ?? String(userId)
      output.result(`${role.padEnd(6)} ${display(user, 80)}${hasKeyPair ? '' : '  (no key pair)'}`, {
        type: 'member',
        userId,
        user,
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
  const { options, output, signal } = context
  await withClient(context, async (client) => {
    for await (const node of client.list(path, { signal })) {
      const short = display(node.name) + (node.type === 'file' ? '' : '/')
      output.result(options.long === true ? longLine(node) : short, describe(node))
    }
  })
}

export async function mkdir(context: Context, path: string): Promise<void> {
  const { options, output, signal } = context
  await withClient(context, async (client) => {
    const entry = await client.mkdir(path, { parents: options.parents === true, signal })
    output.done(`Made ${display(path)}`, describe(entry))
  })
}

export async function rm(context: Context, paths: readonly string[]): Promise<void> {
  const { options, output, signal } = context
  await withClient(context, async (client) => {
    await client.remove(paths, {
      recursive: options.recursive === true,
      rooms: options.force === true,
      signal,
      onRemoved: (path, { id }) => output.done(`Deleted ${display(path)}`, { type: 'deleted', path, id }),
    })
  })
}

export async function stat(context: Context, path: string): Promise<void> {
  const { output, signal } = context
  await withClient(context, async (client) => {
    const { fileKey, ...node } = await client.stat(path, { fileKey: true, signal })
    const info = { ...describe(node), ...(fileKey === undefined ? {} : { fileKey }) }
    const rows = Object.entries(info).filter(([name, value]) => name !== 'type' && value !== undefined)
    output.result(rows.map(([name, value]) => `${name.padEnd(12)}${display(String(value))}`).join('\n'), info)
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

/** Nothing is printed before all of it is checked. */
export async function cat(context: Context, path: string): Promise<void> {
  await withClient(context, async (client) => {
    const content = await client.get(path, { signal: context.signal })
    for await (const chunk of content) if (!(await print(chunk))) break
  })
}
