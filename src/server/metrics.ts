/**
 * Figures for Prometheus (text format 0.0.4), and the listener on this machine that gives them. What is counted are requests by route;
 * what a server holds is asked for when somebody looks.
 * @module
 */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { AccessEntry } from './access-log.ts'

/** Upper ends of the buckets, in seconds. */
const BUCKETS = [0.005, 0.02, 0.05, 0.1, 0.25, 1, 5, 30] as const
/** Different routes, methods and classes of status; more is a mistake here, not a client's doing. */
const MAX_SERIES = 4_000

interface Series {
  labels: string
  count: number
  seconds: number
  buckets: number[]
}

/** A figure as of now. */
export interface Gauge {
  name: string
  help: string
  value: number
}

const label = (text: string): string => text.replace(/[\\"\n]/g, '_')

export class Metrics {
  readonly #series = new Map<string, Series>()
  #bytesIn = 0
  #bytesOut = 0
  readonly #errors = new Map<number, number>()

  count({ method, route = '(none)', status, ms, bytesIn, bytesOut }: AccessEntry): void {
    const labels = `method="${label(method)}",route="${label(route)}",status="${Math.floor(status / 100)}xx"`
    let series = this.#series.get(labels)
    if (series === undefined) {
      if (this.#series.size >= MAX_SERIES) return
      series = { labels, count: 0, seconds: 0, buckets: BUCKETS.map(() => 0) }
      this.#series.set(labels, series)
    }
    series.count++
    series.seconds += ms / 1000
    for (const [at, end] of BUCKETS.entries()) if (ms / 1000 <= end) series.buckets[at] = (series.buckets[at] ?? 0) + 1
    this.#bytesIn += bytesIn
    this.#bytesOut += bytesOut
    if (status >= 500) this.#errors.set(status, (this.#errors.get(status) ?? 0) + 1)
  }

  text(gauges: readonly Gauge[]): string {
    const lines = [
      '# HELP sealsync_request_seconds How long requests took.',
      '# TYPE sealsync_request_seconds histogram',
    ]
    for (const { labels, count, seconds, buckets } of this.#series.values()) {
      for (const [at, end] of BUCKETS.entries()) {
        lines.push(`sealsync_request_seconds_bucket{${labels},le="${end}"} ${buckets[at]}`)
      }
      lines.push(`sealsync_request_seconds_bucket{${labels},le="+Inf"} ${count}`)
      lines.push(
        `sealsync_request_seconds_sum{${labels}} ${seconds}`,
        `sealsync_request_seconds_count{${labels}} ${count}`,
      )
    }
    const counter = (name: string, help: string, rows: readonly string[]): void => {
      lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} counter`, ...rows)
    }
    counter('sealsync_received_bytes_total', 'Bytes of bodies that came.', [
      `sealsync_received_bytes_total ${this.#bytesIn}`,
    ])
    counter('sealsync_sent_bytes_total', 'Bytes of bodies that left.', [`sealsync_sent_bytes_total ${this.#bytesOut}`])
    const errors = [...this.#errors].map(
      ([status, count]) => `sealsync_server_errors_total{status="${status}"} ${count}`,
    )
    counter('sealsync_server_errors_total', 'Answers that say that the server failed.', errors)
    for (const { name, help, value } of gauges) {
      lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} gauge`, `${name} ${value}`)
    }
    return `${lines.join('\n')}\n`
  }
}

/** Gives the figures to whoever asks on this machine. */
export async function serveMetrics(port: number, text: () => string): Promise<{ url: string; close(): Promise<void> }> {
  const server = createServer({ headersTimeout: 10_000, requestTimeout: 10_000 }, (req, res) => {
    req.on('error', () => undefined)
    res.on('error', () => undefined)
    req.resume()
    const isKnown = req.url === '/metrics' && (req.method === 'GET' || req.method === 'HEAD')
    const bytes = Buffer.from(isKnown ? text() : 'There is only /metrics.\n')
    const type = isKnown ? 'text/plain; version=0.0.4; charset=utf-8' : 'text/plain; charset=utf-8'
    res.writeHead(isKnown ? 200 : 404, { 'Content-Type': type, 'Content-Length': bytes.length })
    res.end(req.method === 'HEAD' ? undefined : bytes)
  })
  await new Promise<void>((done, fail) => {
    server.once('error', fail)
    server.listen(port, '127.0.0.1', () => done())
  })
  server.unref()
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/metrics`,
    close: () =>
      new Promise((done) => {
        server.close(() => done())
        server.closeAllConnections()
      }),
  }
}
