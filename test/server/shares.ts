/**
 * What the tests of shares have in common: making them, and being a visitor. @module
 */
import { expect } from 'vitest'
import {
  type Answer,
  ask,
  fileKeyBody,
  type Json,
  keyPairBody,
  type Person,
  uploadClassic,
  type World,
} from './support.ts'

/** A file in a room; answers its id. */
export async function putFile(
  person: Person,
  room: number,
  name: string,
  bytes: Uint8Array | string = name,
  finish: Json = {},
): Promise<number> {
  const reply = await uploadClassic(person, room, name, Buffer.from(bytes), finish)
  expect(reply.status, reply.body.toString()).toBe(201)
  return reply.json.id
}

/** A link; answers what the server says of it. */
export async function share(person: Person, nodeId: number, more: Json = {}): Promise<Json> {
  const reply = await person.call('POST', '/v4/shares/downloads', { nodeId, ...more })
  expect(reply.status, reply.body.toString()).toBe(201)
  return reply.json
}

/** Keys for a share of an encrypted file. */
export const shareKeys = (fileKey: Json = fileKeyBody()): Json => ({ keyPair: keyPairBody(), fileKey })

/** A file request; answers what the server says of it. */
export async function request(person: Person, targetId: number, more: Json = {}): Promise<Json> {
  const reply = await person.call('POST', '/v4/shares/uploads', { targetId, ...more })
  expect(reply.status, reply.body.toString()).toBe(201)
  return reply.json
}

/** Somebody without an account. */
export function visitor(world: World) {
  const call = (
    method: string,
    path: string,
    json?: unknown,
    more: { headers?: Record<string, string>; body?: Uint8Array } = {},
  ): Promise<Answer> =>
    ask(`${world.api}/v4/public/shares/${path}`, { method, ...more, ...(json === undefined ? {} : { json }) })
  return {
    call,
    info: (key: string) => call('GET', `downloads/${key}`),
    /** A URL for one download. */
    async url(key: string, password?: string): Promise<string> {
      const reply = await call('POST', `downloads/${key}`, password === undefined ? undefined : { password })
      expect(reply.status, reply.body.toString()).toBe(201)
      return reply.json.downloadUrl
    },
    wanted: (key: string, password?: string) =>
      call('GET', `uploads/${key}`, undefined, {
        headers: password === undefined ? {} : { 'X-Sds-Share-Password': Buffer.from(password).toString('base64') },
      }),
    /** Opens a channel for a file. */
    async open(key: string, name: string, more: Json = {}): Promise<Json> {
      const reply = await call('POST', `uploads/${key}`, { name, ...more })
      expect(reply.status, reply.body.toString()).toBe(201)
      return reply.json
    },
  }
}

/** A whole classic upload by a file request; answers the finishing reply. */
export async function send(world: World, key: string, name: string, bytes: Uint8Array, keys?: Json): Promise<Answer> {
  const { uploadUrl } = await visitor(world).open(key, name, { size: bytes.length })
  const sent = await ask(uploadUrl, { method: 'POST', body: bytes })
  expect(sent.status, sent.body.toString()).toBe(201)
  return ask(uploadUrl, { method: 'PUT', ...(keys === undefined ? {} : { json: { items: keys } }) })
}
