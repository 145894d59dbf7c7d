/** update --check: whether there is a newer release. It asks when it is told to, and installs nothing. @module */
import { join } from 'node:path'
import { createDialer, parseBaseUrl } from '../../client/index.ts'
import { systemClock } from '../../environment.ts'
import { SyncError } from '../../errors.ts'
import { readPrivateFile, writePrivateFile } from '../../local/atomic-file.ts'
import { VERSION } from '../../version.ts'
import type { Context } from '../context.ts'
import { display, isoTime } from '../display.ts'
import { EXIT } from '../exit-codes.ts'
import { homeDirectory } from '../profile.ts'
import { compareVersions, MAX_RELEASE, RELEASE_KEY, type Release, readRelease, releaseKey } from '../release.ts'
import { transportOf } from '../transport.ts'

const seenPath = () => join(homeDirectory(), 'releases.json')

/** When the newest release that was ever seen was published, by key. What cannot be read is forgotten: it is a second net. */
async function readSeen(): Promise<Record<string, number>> {
  const bytes = await readPrivateFile(seenPath())
  try {
    const value: unknown = JSON.parse(Buffer.from(bytes ?? '{}').toString('utf8'))
    return typeof value === 'object' && value !== null ? { ...(value as Record<string, number>) } : {}
  } catch {
    return {}
  }
}

async function fetchRelease({ settings, signal }: Context, url: URL): Promise<Uint8Array> {
  const transport = await transportOf(settings, url.origin)
  const dialer = createDialer({
    ...transport,
    userAgent: `sealsync|${VERSION}`,
    ownOrigins: [url.origin],
    keepAliveMs: 0,
    maxBodyBytes: MAX_RELEASE,
  })
  try {
    const { status, body } = await dialer.send({ method: 'GET', url: url.href, signal, label: 'update' })
    if (status === 200) return body
    throw new SyncError('server', 'RELEASE_MISSING', `${url.origin} has nothing to say of releases (${status})`, {
      hint: 'Is --update-url the right address?',
    })
  } finally {
    await dialer.close()
  }
}

/** @throws {SyncError} `RELEASE_EXPIRED`, `RELEASE_ROLLED_BACK`: somebody may be holding a newer one back. */
async function requireFresh(release: Release, key: string): Promise<void> {
  if (release.expiresMs <= systemClock.now()) {
    throw new SyncError(
      'safety',
      'RELEASE_EXPIRED',
      `What was said of releases held until ${isoTime(release.expiresMs)}`,
      {
        hint: 'The publisher has said nothing since, or somebody keeps it from you; or this machine’s clock is wrong.',
      },
    )
  }
  const seen = await readSeen()
  const newest = seen[key]
  if (typeof newest === 'number' && release.releasedMs < newest) {
    throw new SyncError(
      'safety',
      'RELEASE_ROLLED_BACK',
      'What was said of releases is older than what was said before',
      {
        hint: `A release of ${isoTime(newest)} was known here already; somebody may be holding it back.`,
      },
    )
  }
  if (newest !== release.releasedMs) {
    await writePrivateFile(seenPath(), `${JSON.stringify({ ...seen, [key]: release.releasedMs })}\n`)
  }
}

const missing = (what: string) =>
  new SyncError('usage', 'OPTION_MISSING', `${what} is needed`, {
    hint: 'Whoever publishes the releases that you use says both; put them into your settings file.',
  })

export async function update(context: Context): Promise<number> {
  const { options, output, settings } = context
  if (options.check !== true) {
    throw new SyncError('usage', 'OPTION_MISSING', 'Nothing is installed by this program: say --check', {
      hint: 'Install releases the way this one came: apt, npm, or the archive.',
    })
  }
  const address = settings.text('update-url')
  if (address === undefined) throw missing('--update-url')
  const url = parseBaseUrl(address, { path: true })
  const base64 = settings.text('update-key') ?? RELEASE_KEY
  if (base64 === '') throw missing('--update-key')
  const key = releaseKey(base64)
  const release = readRelease(await fetchRelease(context, url), key)
  await requireFresh(release, String(key.export({ format: 'jwk' }).x))
  const isNewer = compareVersions(release.version, VERSION) > 0
  const where = release.url === undefined ? '' : `: ${display(release.url, 2_000)}`
  const text = isNewer ? `${release.version} is there; this is ${VERSION}${where}` : `${VERSION} is the newest release`
  output.result(text, {
    type: 'update',
    current: VERSION,
    newest: release.version,
    newer: isNewer,
    released: isoTime(release.releasedMs),
    expires: isoTime(release.expiresMs),
    url: release.url ?? null,
  })
  return isNewer ? EXIT.differences : EXIT.done
}
