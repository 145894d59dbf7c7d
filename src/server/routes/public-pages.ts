/**
 * The page behind links: one static page for all of them, which asks the public API what a link is. So it says nothing of whether there is such
 * a share. What it is made of comes from src/share-page; here its files are read once, and sent with headers that let it load nothing else.
 * @module
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { extname } from 'node:path'
import type { App, Call, Reply, RouteTable } from '../call.ts'
import { ApiError } from '../errors.ts'
import { isLoopback } from '../hosts.ts'

/** Where builds put it, seen from the bundled program, from the compiled sources and from the sources. */
const PLACES = ['../share-page/', '../../../share-page/', '../../../dist/share-page/']

const TYPES: Readonly<Record<string, string>> = {
  '.css': 'text/css; charset=utf-8',
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.json': 'application/json',
  '.txt': 'text/plain; charset=utf-8',
}

const SHARED = '/public/share-page/'

interface PageFiles {
  readonly index: string
  readonly files: ReadonlyMap<string, Buffer>
}

function readFiles(): PageFiles | undefined {
  const directory = PLACES.map((place) => new URL(place, import.meta.url)).find((url) =>
    existsSync(new URL('index.html', url)),
  )
  if (directory === undefined) return undefined
  const files = new Map(readdirSync(directory).map((name) => [name, readFileSync(new URL(name, directory))]))
  // One page for two paths: its files are in a third one.
  const index = String(files.get('index.html')).replaceAll('"./', `"${SHARED}`)
  return { index, files }
}

let read: PageFiles | undefined

function page(): PageFiles {
  read ??= readFiles()
  if (read === undefined) throw new ApiError(404, undefined, 'The page for links is not part of this installation')
  return read
}

/** Origins of the object store that clients talk to themselves, if there is one; without TLS it is on this machine only. */
const storageOf = ({ blobs }: App): string[] =>
  blobs.hosts.flatMap((host) => {
    const isHere = isLoopback(new URL(`http://${host}`).hostname.replace(/^\[|\]$/g, ''))
    return isHere ? [`https://${host}`, `http://${host}`] : [`https://${host}`]
  })

function headers(storage: readonly string[]): Record<string, string> {
  const policy = [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "worker-src 'self'",
    ["connect-src 'self'", ...storage].join(' '),
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    'trusted-types sealsync-worker',
  ]
  return {
    'Content-Security-Policy': policy.join('; '),
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Permissions-Policy': 'camera=(), geolocation=(), microphone=(), payment=(), usb=()',
    'Referrer-Policy': 'no-referrer',
    'X-Frame-Options': 'DENY',
    'X-Robots-Tag': 'noindex, nofollow',
  }
}

const index = ({ app }: Call): Reply => ({
  status: 200,
  headers: { ...headers(storageOf(app)), 'Content-Type': TYPES['.html'] ?? '', 'Cache-Control': 'no-cache' },
  body: page().index,
})

function file(call: Call): Reply {
  const storage = storageOf(call.app)
  const name = call.param('file')
  const data = page().files.get(name)
  if (data === undefined || name === 'index.html') throw new ApiError(404, undefined, 'No such endpoint')
  const isConfig = name === 'config.json'
  return {
    status: 200,
    headers: {
      ...headers(storage),
      'Content-Type': TYPES[extname(name)] ?? 'application/octet-stream',
      // All others are named by what is in them.
      'Cache-Control': isConfig ? 'no-cache' : 'public, max-age=31536000, immutable',
    },
    body: isConfig ? JSON.stringify(storage.length === 0 ? {} : { storage }) : data,
  }
}

export const publicPageRoutes: RouteTable = {
  'GET /public/download-shares/:key': index,
  'GET /public/upload-shares/:key': index,
  [`GET ${SHARED}:file`]: file,
}
