/**
 * The REST side of the discarding server: the routes a client needs, as far as it needs them. Nodes are kept, content is not:
 * what was uploaded can be listed, and only what was seeded can be downloaded. Nothing is protected: it is for loopback.
 * @module
 */
import {
  formatFileKey,
  importPublicKey,
  type PublicKey,
  parsePublicKeyContainer,
  wrapFileKey,
} from '../../crypto/index.ts'
import { keyForPattern } from './content.ts'
import type { Answer, Handler, Head, Plan } from './http.ts'

type Json = Record<string, unknown>

interface Node {
  readonly id: number
  readonly name: string
  readonly parentId: number
  readonly size: number
  /** As it goes over the wire. */
  text: string
  version: number
  fileKey?: unknown
}

interface Container {
  readonly byName: Map<string, Node>
  readonly listed: Node[]
  files: number
  folders: number
}

const emptyContainer = (): Container => ({ byName: new Map(), listed: [], files: 0, folders: 0 })

interface Upload {
  readonly parentId: number
  readonly name: string
  readonly size: number
  readonly modified: string
  /** Bytes by part number or offset; a part that is sent again counts once. */
  readonly parts: Map<number, number>
  node?: Node
}

export interface RoomOptions {
  readonly storage: 's3' | 'classic'
  readonly scheme?: 'http' | 'https'
}

/** Files made known before they are downloaded, or found again by a rescan. */
interface Seed {
  readonly room: string
  readonly count: number
  readonly size: number
  readonly perFolder: number
  /** Milliseconds since the epoch. */
  readonly modified: number
  /** Whether they can be downloaded, not only listed. */
  readonly withKeys: boolean
}

/** A presigned URL is long; so are these. */
const SIGNATURE = `X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=${'c'.repeat(60)}&X-Amz-Expires=900&X-Amz-Signature=${'0'.repeat(64)}`
const PERMISSIONS = Object.fromEntries(
  [
    'manage',
    'read',
    'create',
    'change',
    'delete',
    'manageDownloadShare',
    'manageUploadShare',
    'readRecycleBin',
    'restoreRecycleBin',
    'deleteRecycleBin',
  ].map((name) => [name, true]),
)

const ok = (json: unknown): Answer => ({ status: 200, json })
const failed = (status: number, message: string): Answer => ({ status, json: { code: status, message } })
const missing = failed(404, 'Not found')
const field = (body: unknown, name: string): unknown => (body as Json | undefined)?.[name]

export const folderName = (index: number): string => `d${String(index).padStart(4, '0')}`
export const fileName = (index: number): string => `f${String(index).padStart(6, '0')}`

export function createRooms({ storage, scheme = 'http' }: RoomOptions): Handler {
  /** As the client calls this server, which may be through a proxy. */
  const baseUrl = ({ headers }: Head) => `${scheme}://${headers.host}`

  const nodes = new Map<number, Node>()
  const containers = new Map([[0, emptyContainer()]])
  const uploads = new Map<string, Upload>()
  let keyPair: Json | undefined
  let publicKey: PublicKey | undefined
  let lastId = 0

  function addNode(type: 'room' | 'folder' | 'file', parentId: number, name: string, size: number, modified: string) {
    const parent = containers.get(parentId)!
    const old = parent.byName.get(name)
    const id = ++lastId
    const text = JSON.stringify({
      id,
      type,
      name,
      ...(parentId === 0 ? {} : { parentId }),
      parentPath: '/',
      createdAt: modified,
      updatedAt: modified,
      timestampModification: modified,
      size,
      classification: 2,
      permissions: PERMISSIONS,
      isEncrypted: true,
      branchVersion: id,
      ...(type === 'file' ? { mediaType: 'application/octet-stream' } : { cntFiles: 0, cntFolders: 0, cntRooms: 0 }),
    })
    const node: Node = { id, name, parentId, size, text, version: id }
    nodes.set(id, node)
    parent.byName.set(name, node)
    if (old === undefined) {
      parent.listed.push(node)
      parent[type === 'file' ? 'files' : 'folders']++
    } else {
      nodes.delete(old.id)
      parent.listed[parent.listed.indexOf(old)] = node
    }
    if (type !== 'file') containers.set(id, emptyContainer())
    raise(parentId, id)
    return node
  }

  /** What is above a change gets its version. */
  function raise(containerId: number, version: number): void {
    for (let node = nodes.get(containerId); node !== undefined; node = nodes.get(node.parentId)) {
      const { files, folders } = containers.get(node.id)!
      node.version = version
      node.text = node.text
        .replace(/"branchVersion":\d+/, `"branchVersion":${version}`)
        .replace(/"cntFiles":\d+,"cntFolders":\d+/, `"cntFiles":${files},"cntFolders":${folders}`)
    }
  }

  const now = () => new Date().toISOString()

  function list({ query }: Head): Answer {
    const container = containers.get(Number(query.get('parent_id') ?? 0))
    if (container === undefined) return missing
    const [offset, limit] = [Number(query.get('offset') ?? 0), Number(query.get('limit') ?? 500)]
    const items = container.listed.slice(offset, offset + limit).map(({ text }) => text)
    const range = JSON.stringify({ offset, limit, total: container.listed.length })
    return { status: 200, text: `{"range":${range},"items":[${items.join(',')}]}` }
  }

  /** Everything below a container in one list, until something changes. */
  let flat: { readonly of: number; readonly at: number; readonly nodes: readonly Node[] } | undefined

  function search({ query }: Head): Answer {
    const of = Number(query.get('parent_id') ?? 0)
    if (flat?.of !== of || flat.at !== lastId) {
      const found: Node[] = []
      const pending = [of]
      for (let id = pending.pop(); id !== undefined; id = pending.pop()) {
        for (const node of containers.get(id)?.listed ?? []) {
          found.push(node)
          if (containers.has(node.id)) pending.push(node.id)
        }
      }
      flat = { of, at: lastId, nodes: found }
    }
    const [offset, limit] = [Number(query.get('offset') ?? 0), Number(query.get('limit') ?? 500)]
    const above = /^parentPath:eq:(.*)$/.exec(query.get('filter') ?? '')?.[1]
    if (above !== undefined) return searchAt(above, query.get('search_string') ?? '*', offset, limit)
    const since = Number(/^branchVersion:ge:(\d+)$/.exec(query.get('filter') ?? '')?.[1] ?? 0)
    const found = since === 0 ? flat.nodes : flat.nodes.filter(({ version }) => version >= since)
    const range = JSON.stringify({ offset, limit, total: found.length })
    const items = found.slice(offset, offset + limit).map(({ text }) => text)
    return { status: 200, text: `{"range":${range},"items":[${items.join(',')}]}` }
  }

  /** Directly below a path. */
  function searchAt(path: string, wanted: string, offset: number, limit: number): Answer {
    let at = containers.get(0)
    for (const name of path.split('/').filter((one) => one !== '')) at = containers.get(at?.byName.get(name)?.id ?? -1)
    const found = (at?.listed ?? []).filter(({ name }) => wanted === '*' || name.includes(wanted))
    const range = JSON.stringify({ offset, limit, total: found.length })
    const items = found.slice(offset, offset + limit).map(({ text }) => text)
    return { status: 200, text: `{"range":${range},"items":[${items.join(',')}]}` }
  }

  function openUpload(body: unknown, head: Head): Answer {
    const uploadId = `upload-${String(++lastId).padStart(20, '0')}`
    uploads.set(uploadId, {
      parentId: Number(field(body, 'parentId')),
      name: String(field(body, 'name')),
      size: Number(field(body, 'size')),
      modified: String(field(body, 'timestampModification') ?? now()),
      parts: new Map(),
    })
    return {
      status: 201,
      json: { uploadUrl: `${baseUrl(head)}/api/v4/uploads/${uploadId}`, uploadId, token: uploadId },
    }
  }

  function partUrls(uploadId: string, body: unknown, head: Head): Answer {
    const [first, last] = [Number(field(body, 'firstPartNumber')), Number(field(body, 'lastPartNumber'))]
    const urls = Array.from({ length: last - first + 1 }, (_, index) => ({
      url: `${baseUrl(head)}/store/${uploadId}/${first + index}?${SIGNATURE}`,
      partNumber: first + index,
    }))
    return { status: 201, json: { urls } }
  }

  function finish(upload: Upload, body: unknown): Answer | Node {
    const received = [...upload.parts.values()].reduce((sum, bytes) => sum + bytes, 0)
    if (received !== upload.size) return failed(400, `${received} bytes received, ${upload.size} announced`)
    const name = String(field(body, 'fileName') ?? upload.name)
    const exists = containers.get(upload.parentId)?.byName.has(name) === true
    if (exists && field(body, 'resolutionStrategy') === 'fail') return failed(409, 'Exists')
    const node = addNode('file', upload.parentId, name, upload.size, upload.modified)
    node.fileKey = field(body, 'fileKey')
    upload.node = node
    return node
  }

  const withUpload = (id: string, then: (upload: Upload) => Answer): Answer => {
    const upload = uploads.get(id)
    return upload === undefined ? missing : then(upload)
  }

  const status = (id: string): Answer =>
    withUpload(id, ({ node }) => {
      if (node === undefined) return ok({ status: 'transfer' })
      uploads.delete(id)
      return { status: 200, text: `{"status":"done","node":${node.text}}` }
    })

  const isAnswer = (value: Answer | Node): value is Answer => 'status' in value

  /** A stretch of content, whole or by range. */
  function content({ headers }: Head, size: number): Answer {
    const range = /^bytes=(\d+)-(\d*)$/.exec(headers.range ?? '')
    if (range === null)
      return { status: 200, headers: { 'accept-ranges': 'bytes' }, content: { start: 0, length: size } }
    const start = Number(range[1])
    const end = range[2] === '' ? size - 1 : Math.min(Number(range[2]), size - 1)
    if (start > end) return failed(416, 'Range')
    return {
      status: 206,
      headers: { 'content-range': `bytes ${start}-${end}/${size}` },
      content: { start, length: end - start + 1 },
    }
  }

  async function seed(body: unknown): Promise<Answer> {
    const { room, count, size, perFolder, modified, withKeys } = body as Seed
    const top = addNode('room', 0, room, 0, now())
    const at = new Date(modified).toISOString()
    // Large content has one key per size: finding the tag means encrypting it all.
    const shared = withKeys && size > 2 ** 24 ? keyForPattern(size, size) : undefined
    for (let i = 0, parent = top; i < count; i++) {
      if (perFolder > 0 && i % perFolder === 0) parent = addNode('folder', top.id, folderName(i / perFolder), 0, at)
      const node = addNode('file', parent.id, fileName(i), size, at)
      if (!withKeys) continue
      const fileKey = shared ?? keyForPattern(size, node.id)
      node.fileKey = formatFileKey(await wrapFileKey(fileKey, publicKey!))
    }
    return ok({ id: top.id })
  }

  async function setKeyPair(body: unknown): Promise<Answer> {
    keyPair = body as Json
    publicKey = await importPublicKey(parsePublicKeyContainer(field(body, 'publicKeyContainer')))
    return { status: 204 }
  }

  const keep = (then: (body: unknown) => Answer | Promise<Answer>): Plan => ({ keep: then })
  const info = {
    useS3Storage: storage === 's3',
    s3EnforceDirectUpload: false,
    cryptoEnabled: true,
    restApiVersion: '5.4.6',
    sdsServerVersion: '5.4.6',
  }

  /** Routes by method and path, `*` for one component, which `then` gets. */
  const routes: Readonly<Record<string, (body: unknown, ids: string[], head: Head) => Answer | Promise<Answer>>> = {
    'POST /oauth/token': () =>
      ok({ access_token: 'access', token_type: 'bearer', expires_in: 86_400, refresh_token: 'r' }),
    'POST /oauth/revoke': () => ok({}),
    'GET /api/v4/public/software/version': () => ok(info),
    'GET /api/v4/public/system/info': () => ok(info),
    'GET /api/v4/config/info/general': () => ok(info),
    'GET /api/v4/config/info/infrastructure': () => ok(info),
    'GET /api/v4/user/account': () => ok({ id: 1, userName: 'bench', isEncryptionEnabled: keyPair !== undefined }),
    'GET /api/v4/user/account/keypairs': () => (keyPair === undefined ? ok([]) : ok([keyPair])),
    'POST /api/v4/user/account/keypair': setKeyPair,
    'GET /api/v4/nodes': (_body, _ids, head) => list(head),
    'GET /api/v4/nodes/search': (_body, _ids, head) => search(head),
    'GET /api/v4/nodes/missingFileKeys': () =>
      ok({ range: { offset: 0, limit: 100, total: 0 }, items: [], users: [], files: [] }),
    'POST /api/v4/nodes/files/keys': () => ({ status: 204 }),
    'POST /api/v4/nodes/folders': (body) => {
      const [parentId, name] = [Number(field(body, 'parentId')), String(field(body, 'name'))]
      return { status: 201, text: addNode('folder', parentId, name, 0, now()).text }
    },
    'GET /api/v4/nodes/*': (_body, [id]) => {
      const node = nodes.get(Number(id))
      return node === undefined ? missing : { status: 200, text: node.text }
    },
    'POST /api/v4/nodes/files/uploads': (body, _ids, head) => openUpload(body, head),
    'POST /api/v4/nodes/files/uploads/*/s3_urls': (body, [id], head) => partUrls(id!, body, head),
    'PUT /api/v4/nodes/files/uploads/*/s3': (body, [id]) =>
      withUpload(id!, (upload) => {
        const done = finish(upload, body)
        return isAnswer(done) ? done : { status: 202 }
      }),
    'GET /api/v4/nodes/files/uploads/*': (_body, [id]) => status(id!),
    'DELETE /api/v4/nodes/files/uploads/*': (_body, [id]) => {
      uploads.delete(id!)
      return { status: 204 }
    },
    'PUT /api/v4/uploads/*': (body, [id]) =>
      withUpload(id!, (upload) => {
        const done = finish(upload, body)
        if (isAnswer(done)) return done
        uploads.delete(id!)
        return { status: 201, text: done.text }
      }),
    'GET /api/v4/nodes/files/*/user_file_key': (_body, [id]) => {
      const fileKey = nodes.get(Number(id))?.fileKey
      return fileKey === undefined ? missing : ok(fileKey)
    },
    'POST /api/v4/nodes/files/*/downloads': (_body, [id], head) =>
      ok({ downloadUrl: `${baseUrl(head)}/store/${id}?${SIGNATURE}` }),
    'GET /store/*': (_body, [id], head) => {
      const node = nodes.get(Number(id))
      return node === undefined ? missing : content(head, node.size)
    },
    'GET /plain/*': (_body, [size], head) => content(head, Number(size)),
    'POST /bench/rooms/*': (_body, [name]) => ok({ id: addNode('room', 0, name!, 0, now()).id }),
    'POST /bench/files': seed,
    'POST /bench/key-pair': setKeyPair,
  }
  const exact = new Map(Object.entries(routes).filter(([route]) => !route.includes('*')))
  const patterns = Object.entries(routes)
    .filter(([route]) => route.includes('*'))
    .map(([route, then]) => ({ match: new RegExp(`^${route.replaceAll('*', '([^/]+)')}$`), then }))

  return (head) => {
    const { method, path, headers } = head
    const part = /^PUT \/store\/([^/]+)\/(\d+)$/.exec(`${method} ${path}`)
    if (part !== null) {
      return {
        discard: (bytes) =>
          withUpload(part[1]!, (upload) => {
            upload.parts.set(Number(part[2]), bytes)
            return { status: 200, headers: { etag: `"discarded-${part[2]}"` } }
          }),
      }
    }
    const chunk = /^POST \/api\/v4\/uploads\/([^/]+)$/.exec(`${method} ${path}`)
    if (chunk !== null) {
      const offset = Number(/^bytes (\d+)-/.exec(headers['content-range'] ?? '')?.[1] ?? 0)
      return {
        discard: (bytes) =>
          withUpload(chunk[1]!, (upload) => {
            upload.parts.set(offset, bytes)
            return { status: 201, json: { size: bytes } }
          }),
      }
    }
    if (method === 'PUT' && path.startsWith('/plain/')) return { discard: (bytes) => ok({ bytes }) }
    const route = `${method === 'HEAD' ? 'GET' : method} ${path}`
    const fixed = exact.get(route)
    if (fixed !== undefined) return keep((body) => fixed(body, [], head))
    for (const { match, then } of patterns) {
      const found = match.exec(route)
      if (found !== null) return keep((body) => then(body, found.slice(1).map(decodeURIComponent), head))
    }
    return { discard: () => missing }
  }
}
