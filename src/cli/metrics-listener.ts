/** Figures over HTTP, for a Prometheus on this machine: loopback only, since whoever can connect may read them. @module */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { SyncError } from '../errors.ts'

const CONNECTIONS = 16

/** @throws {SyncError} `CANNOT_LISTEN` when the port is taken. */
export async function listenForMetrics(
  port: number,
  text: () => string,
): Promise<{ readonly url: string; close(): Promise<void> }> {
  const server = createServer(
    { requestTimeout: 10_000, headersTimeout: 10_000, maxHeaderSize: 8_192 },
    (request, response) => {
      const isLocal = /^(?:127\.0\.0\.1|localhost)(?::\d+)?$/.test(request.headers.host ?? '')
      const isFound = request.url === '/metrics' && (request.method === 'GET' || request.method === 'HEAD')
      // Another host name: a page in a browser that was led here.
      const status = !isLocal ? 403 : isFound ? 200 : 404
      const type = status === 200 ? 'text/plain; version=0.0.4; charset=utf-8' : 'text/plain; charset=utf-8'
      response.writeHead(status, {
        'content-type': type,
        'cache-control': 'no-store',
        'x-content-type-options': 'nosniff',
      })
      response.end(status === 200 ? text() : `${status}\n`)
    },
  )
  server.maxConnections = CONNECTIONS
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) =>
      reject(new SyncError('usage', 'CANNOT_LISTEN', `Cannot listen on 127.0.0.1:${port}`, { cause })),
    )
    server.listen(port, '127.0.0.1', resolve)
  })
  const { port: taken } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${taken}/metrics`,
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
