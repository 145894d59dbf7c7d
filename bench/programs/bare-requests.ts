/**
 * What the client's own transport can do at most: the three requests that a small file needs (open, bytes, finish), with
 * nothing to read, encrypt, check or remember. `bare-requests URL COUNT BYTES`
 * @module
 */
import { createDialer } from '../../src/http/undici.ts'

const [url = '', count = '0', bytes = '0'] = process.argv.slice(2)
const AT_ONCE = 16
const { send, close } = createDialer({})
const content = Buffer.alloc(Number(bytes), 1)
const wrapped = Buffer.alloc(512, 1).toString('base64')

async function ask(method: 'POST' | 'PUT', path: string, body: Uint8Array, type: string): Promise<Uint8Array> {
  const headers = { 'content-type': type, authorization: 'Bearer access' }
  const response = await send({ method, url: url + path, label: path, headers, body })
  if (response.status >= 300) throw new Error(`${method} ${path}: ${response.status}`)
  return response.body
}

const json = (value: unknown) => Buffer.from(JSON.stringify(value))
const created = await ask('POST', `/bench/rooms/bare-${process.pid}`, json({}), 'application/json')
const parentId: number = JSON.parse(Buffer.from(created).toString('utf8')).id

async function file(name: string): Promise<void> {
  const opened = await ask(
    'POST',
    '/api/v4/nodes/files/uploads',
    json({
      parentId,
      name,
      size: content.length,
      directS3Upload: false,
      timestampModification: '2020-01-01T00:00:00Z',
    }),
    'application/json',
  )
  const { token } = JSON.parse(Buffer.from(opened).toString('utf8'))
  await ask('POST', `/api/v4/uploads/${token}`, content, 'application/octet-stream')
  const fileKey = {
    key: wrapped,
    iv: 'AAAAAAAAAAAAAAAA',
    tag: 'AAAAAAAAAAAAAAAAAAAAAA==',
    version: 'RSA-4096/AES-256-GCM',
  }
  const how = { resolutionStrategy: 'fail', keepShareLinks: false, fileName: name, fileKey }
  await ask('PUT', `/api/v4/uploads/${token}`, json(how), 'application/json')
}

let next = 0
await Promise.all(
  Array.from({ length: AT_ONCE }, async () => {
    while (next < Number(count)) await file(`f${next++}`)
  }),
)
await close()
