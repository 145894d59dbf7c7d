/** Links on the command line: their passwords, and how they are opened without a login. @module */
import type {
  DownloadLink,
  LinkOptions,
  LinkPassword,
  ParsedLink,
  Password,
  RequestLink,
  RunEvent,
} from '../client/index.ts'
import { SyncError } from '../errors.ts'
import { type Context, loggingOf, text } from './context.ts'
import { homeDirectory } from './profile.ts'
import { getSecret, hasFromEnvironment } from './secrets.ts'
import { parseRates } from './settings.ts'
import { transportOf } from './transport.ts'

/** A link as it may be shown to anybody: without what opens it. */
export const shownLink = ({ origin, kind }: ParsedLink): string =>
  `${origin}/public/${kind === 'request' ? 'upload' : 'download'}-shares/…`

/** True where something says the password of a link, so that nobody has to be asked. */
export const isPasswordGiven = ({ options }: Context): boolean =>
  text(options, 'passwordFile') !== undefined ||
  text(options, 'passwordCommand') !== undefined ||
  hasFromEnvironment('SEALSYNC_SHARE_PASSWORD')

/**
 * Where the password of a link comes from; read when it is needed.
 *
 * @param isNew - Asks twice.
 */
export const linkPassword =
  ({ options }: Context, isNew = false) =>
  ({ isSent = false }: { readonly isSent?: boolean } = {}): Promise<Password> =>
    getSecret({
      file: text(options, 'passwordFile'),
      command: text(options, 'passwordCommand'),
      variable: 'SEALSYNC_SHARE_PASSWORD',
      // Whoever was told that the file is encrypted should know when it is not.
      question: isSent ? 'Password of the link (not encrypted: the server gets it)' : 'Password of the link',
      confirm: isNew,
      missing: new SyncError(
        'key',
        'SHARE_PASSWORD_NEEDED',
        'The link takes a password, and there is no terminal to ask',
        { hint: 'Give it with --password-file or --password-command, or SEALSYNC_SHARE_PASSWORD.' },
      ),
    })

/** As the settings have it; no login is looked at. */
async function optionsOf(
  context: Context,
  { origin }: ParsedLink,
  password: LinkPassword,
  onEvent: (event: RunEvent) => void,
): Promise<LinkOptions> {
  const { settings, retryForMs } = context
  return {
    password,
    directory: homeDirectory(),
    transport: await transportOf(settings, origin),
    readOnly: settings.flag('read-only'),
    limitRate: parseRates(settings.text('limit-rate') ?? '0') ?? {},
    ...(retryForMs === undefined ? {} : { retryForMs }),
    ...loggingOf(context),
    onEvent(event) {
      context.log.event(event)
      onEvent(event)
    },
  }
}

export async function openDownload(
  context: Context,
  link: string,
  onEvent: (event: RunEvent) => void = () => {},
  password: LinkPassword = linkPassword(context),
): Promise<DownloadLink> {
  const { openDownloadLink, parseLink } = await import('../client/index.ts')
  return openDownloadLink(link, await optionsOf(context, parseLink(link), password, onEvent))
}

/** @param isPasswordWanted - False: only what is told without. */
export async function openRequest(
  context: Context,
  link: string,
  onEvent: (event: RunEvent) => void = () => {},
  isPasswordWanted = true,
): Promise<RequestLink> {
  const { openRequestLink, parseLink } = await import('../client/index.ts')
  const { password, ...how } = await optionsOf(context, parseLink(link), linkPassword(context), onEvent)
  return openRequestLink(link, isPasswordWanted ? { ...how, password: password! } : how)
}
