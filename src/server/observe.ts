/** What is told of requests while a server runs: the access log, and the figures on a port of this machine. @module */
import { type AccessEntry, AccessLog } from './access-log.ts'
import { type Gauge, Metrics, serveMetrics } from './metrics.ts'

/** Where to tell it. */
export interface ObserveOptions {
  /** File that gets a line of JSON for each request. */
  accessLog?: string
  /** Port of 127.0.0.1 where figures for Prometheus are; 0: any free one. Absent: there are none. */
  metricsPort?: number
  /** Told of each request when it is over; nothing in it opens anything. */
  onRequest?: (entry: AccessEntry) => void
  /** Told of unexpected errors, which clients see as status 500 or a broken connection. */
  onError?: (error: unknown) => void
}

/** Tells of requests until it is closed. */
export class Observers {
  readonly #options: ObserveOptions
  readonly #log: AccessLog | undefined
  readonly #metrics: Metrics | undefined
  #listener: Awaited<ReturnType<typeof serveMetrics>> | undefined

  constructor(options: ObserveOptions) {
    this.#options = options
    const { accessLog, metricsPort, onError } = options
    this.#log = accessLog === undefined ? undefined : new AccessLog(accessLog, (error) => onError?.(error))
    this.#metrics = metricsPort === undefined ? undefined : new Metrics()
  }

  onRequest(entry: AccessEntry): void {
    this.#log?.write(entry)
    this.#metrics?.count(entry)
    this.#options.onRequest?.(entry)
  }

  /** Opens the port for the figures, if there is to be one. */
  async listen(gauges: () => readonly Gauge[]): Promise<void> {
    const metrics = this.#metrics
    if (metrics === undefined) return
    const dropped = (): Gauge => ({
      name: 'sealsync_access_log_dropped',
      help: 'Lines left out of the access log.',
      value: this.#log?.dropped ?? 0,
    })
    this.#listener = await serveMetrics(this.#options.metricsPort ?? 0, () => metrics.text([...gauges(), dropped()]))
  }

  /** Where the figures are. */
  get metricsUrl(): string | undefined {
    return this.#listener?.url
  }

  /** The file of the log was moved away. */
  reopen(): void {
    this.#log?.reopen()
  }

  async close(): Promise<void> {
    await this.#listener?.close()
    await this.#log?.close()
  }
}
