/**
 * The worker of the page: everything that takes long, holds keys or talks to the server. See messages.ts.
 * @module
 */
import type { Config, Link } from './config.ts'
import { DownloadShare } from './download.ts'
import { asFailure, Failure } from './failure.ts'
import { KeptUploads } from './kept-uploads.ts'
import type { Answer, Calls, Cancel, Event, Request } from './messages.ts'
import { Network, type OnWaiting } from './network.ts'
import { choosePlace, openPlace, type Place, removeLeftovers } from './places.ts'
import { UploadShare } from './upload.ts'

interface WorkerScope {
  postMessage(message: unknown): void
  onmessage: ((event: MessageEvent<Request | Cancel>) => void) | null
}

const scope = self as unknown as WorkerScope
const answer = (message: Answer): void => scope.postMessage(message)

let current = 0
let isEncryptedOnly = false
let link: Link | undefined
let network: Network | undefined
let download: DownloadShare | undefined
let upload: UploadShare | undefined
let place: Place | undefined

const tell = (event: Event): void => answer({ id: current, event })
const onWaiting: OnWaiting = (why) => tell({ type: 'waiting', why })

/** Progress as often as somebody can see it. */
function onProgress(): (bytes: number, total: number) => void {
  let last = Number.NEGATIVE_INFINITY
  return (bytes, total) => {
    const now = performance.now()
    if (bytes < total && now - last < 100) return
    last = now
    tell({ type: 'progress', bytes, total })
  }
}

function need<T>(one: T | undefined): T {
  if (one === undefined) throw new TypeError('the page calls in the wrong order')
  return one
}

type Handlers = {
  [Name in keyof Calls]: (
    signal: AbortSignal,
    ...args: Parameters<Calls[Name]>
  ) => ReturnType<Calls[Name]> | Promise<ReturnType<Calls[Name]>>
}

const handlers: Handlers = {
  async open(_signal, config: Config, to: Link) {
    isEncryptedOnly = config.encryptedOnly
    link = to
    network = new Network(config)
    await removeLeftovers().catch(() => {}) // there is no private file system everywhere
    return undefined
  },
  async describe(signal, password) {
    const { kind, key } = need(link)
    if (kind === 'download') {
      download ??= new DownloadShare(need(network), key, isEncryptedOnly, onWaiting)
      return download.describe(signal)
    }
    upload ??= new UploadShare(need(network), key, isEncryptedOnly, await KeptUploads.open(), onWaiting)
    return upload.describe(signal, password)
  },
  async unlock(_signal, password) {
    await need(download).unlock(password)
    return undefined
  },
  choosePlace: (_signal, size, canChoose) => choosePlace(size, canChoose),
  async fetch(signal, kind, chosen) {
    await place?.discard()
    place = await openPlace(kind, chosen)
    return need(download).fetchInto(place, signal, onProgress())
  },
  plainAddress: (signal, password) => need(download).plainAddress(signal, password),
  async discard() {
    await place?.discard()
    place = undefined
    return undefined
  },
  unfinished: () => need(upload).unfinished(Date.now()),
  async forget(_signal, id) {
    await need(upload).forget(id)
    return undefined
  },
  send: (signal, file) => need(upload).send(file, signal, onProgress()),
}

const controls = new Map<number, AbortController>()

async function handle({ id, name, args }: Request): Promise<void> {
  const control = new AbortController()
  controls.set(id, control)
  current = id
  try {
    const handler = handlers[name] as (signal: AbortSignal, ...args: readonly unknown[]) => unknown
    answer({ id, value: await handler(control.signal, ...args) })
  } catch (error) {
    const { code, message, retryAfterMs } = asFailure(error)
    answer({ id, failure: { code, message, retryAfterMs } })
  } finally {
    controls.delete(id)
  }
}

scope.onmessage = ({ data }) => {
  if ('cancel' in data) controls.get(data.cancel)?.abort(new Failure('CANCELLED', 'Cancelled'))
  else void handle(data)
}
