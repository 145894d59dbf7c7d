/** Addresses of links, and what somebody works with who has one and no account. @module */
import type { Password } from '../../crypto/index.ts'
import type { Api } from '../api/api.ts'
import type { Clock, Random } from '../environment.ts'
import { SyncError } from '../errors.ts'
import { parseBaseUrl } from '../http/addresses.ts'
import type { HomePaths } from '../local/home.ts'
import type { RunEvent } from '../sync/run.ts'

/** What somebody without an account works with. */
export interface Guest {
  readonly api: Api
  readonly clock: Clock
  readonly random: Random
  readonly home: HomePaths & { readonly isLasting: boolean }
  readonly onEvent?: ((event: RunEvent) => void) | undefined
  close(): Promise<void>
}

/**
 * The password of a link, asked for at most once, when it is needed.
 *
 * @param use - `isSent`: the server gets it, since it says that what is behind the link is not encrypted.
 */
export type LinkPassword = (use: { readonly isSent: boolean }) => Promise<Password>

/** A link, taken apart. */
export interface ParsedLink {
  /** `https://HOST`. */
  readonly origin: string
  /** `download`: something to fetch; `request`: files are sent there. */
  readonly kind: 'download' | 'request'
  /** Whoever knows it can use the link. */
  readonly accessKey: string
}

const noLink = (hint = 'It looks like https://HOST/public/download-shares/… or https://HOST/public/upload-shares/…') =>
  new SyncError('usage', 'LINK_INVALID', 'This is not a link of a file or of a file request', { hint })

/** True for what is meant as an address and not as a path. */
export const isLink = (text: string): boolean => /^https?:\/\//i.test(text)

/**
 * Takes a link apart.
 *
 * @throws {SyncError} `LINK_INVALID`; `URL_INSECURE` for plain http beyond this machine.
 */
export function parseLink(text: string): ParsedLink {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const [, kind, accessKey] =
    /^\/public\/(download|upload)-shares\/([A-Za-z0-9_-]{1,128})\/?$/.exec(url?.pathname ?? '') ?? []
  const isPlain = url?.username === '' && url.password === '' && url.search === '' && url.hash === ''
  if (url === undefined || accessKey === undefined || !isPlain) throw noLink()
  return { origin: parseBaseUrl(url.origin).origin, kind: kind === 'upload' ? 'request' : 'download', accessKey }
}

/** A link as people send it. */
export const linkOf = (origin: string, kind: ParsedLink['kind'], accessKey: string): string =>
  `${origin}/public/${kind === 'request' ? 'upload' : 'download'}-shares/${accessKey}`

/** @throws {SyncError} `LINK_INVALID` for a link of the other kind. */
export function requireKind(link: string, kind: ParsedLink['kind']): ParsedLink {
  const parsed = parseLink(link)
  if (parsed.kind === kind) return parsed
  throw noLink(
    kind === 'download'
      ? 'It is a file request: send to it with sync upload --to-request LINK FILE'
      : 'It is something to fetch: sync download LINK',
  )
}
