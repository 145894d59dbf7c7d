/**
 * What the page says: failures, sizes, times. Pure.
 * @module
 */
import type { FailureCode } from './failure.ts'

export interface Words {
  readonly title: string
  readonly text: string
  /** Whether trying the same again may help. */
  readonly canRetry?: boolean
}

const NOTHING_KEPT = 'Nothing of it was saved.'

const WORDS: Readonly<Record<FailureCode, Words>> = {
  ANSWER: {
    title: 'The server’s answer makes no sense',
    text: `It may be broken or set up wrongly. ${NOTHING_KEPT}`,
    canRetry: true,
  },
  BUG: {
    title: 'Something went wrong in this page',
    text: 'Load the page again. If it happens again, tell whoever sent you the link what is written below.',
    canRetry: true,
  },
  CANCELLED: { title: 'Cancelled', text: NOTHING_KEPT, canRetry: true },
  CHANGED: {
    title: 'The file changed or cannot be read',
    text: 'It was changed, moved or removed while it was read. Choose it again.',
  },
  ELSEWHERE: {
    title: 'The content is in a place that this page is not made for',
    text: 'The server names another address for it, and this page does not go where it is led. Ask whoever runs the page.',
  },
  FULL: {
    title: 'The request takes no more',
    text: 'It is limited to a number of files or to a size, and that is reached. Ask whoever sent you the link.',
  },
  GONE: {
    title: 'This link leads nowhere',
    text: 'It has expired, was withdrawn, or was not copied as a whole. Ask whoever sent it to you for another one.',
  },
  KEY_INVALID: {
    title: 'The key of this share is damaged',
    text: 'It opens nothing. Ask whoever sent you the link to make another one.',
  },
  LOCKED: {
    title: 'Too many wrong passwords',
    text: 'The server takes no more tries for a while.',
    canRetry: true,
  },
  MEMBERS_CHANGED: {
    title: 'The members of the room have changed',
    text: 'The file has to be encrypted for others than before. Send it again.',
    canRetry: true,
  },
  NAME_REFUSED: {
    title: 'The server does not take this name',
    text: 'Give the file another name and choose it again.',
  },
  NOT_READY: {
    title: 'A new version is being prepared',
    text: 'The file was replaced, and its new version is not ready for this link yet. Try again later.',
    canRetry: true,
  },
  NO_RECIPIENTS: {
    title: 'Nobody could open it',
    text: 'No member of the room has an encryption key yet. Tell whoever sent you the link.',
  },
  NO_SPACE: {
    title: 'There is not enough space',
    text: 'The browser cannot hold a file of this size here. Free some space, leave a private window, or use the command line: sealsync download LINK.',
    canRetry: true,
  },
  PASSWORD_WRONG: {
    title: 'This is not the password',
    text: 'Look at capital letters, spaces and the keyboard’s language. The password usually comes another way than the link.',
  },
  PLAIN_REFUSED: {
    title: 'This share is not encrypted',
    text: 'This page takes encrypted shares only, and sends no password anywhere.',
  },
  QUOTA: {
    title: 'The server has no space left',
    text: 'Tell whoever sent you the link; nothing is lost on your side.',
    canRetry: true,
  },
  REPLACED: {
    title: 'The file was replaced meanwhile',
    text: `There is another version now. ${NOTHING_KEPT} Load the page again to get the new one.`,
  },
  SERVER: { title: 'The server could not do it', text: 'Try again in a moment.', canRetry: true },
  SETUP: { title: 'This page is not set up rightly', text: 'Tell whoever runs it what is written below.' },
  TAMPERED: {
    title: 'The file was changed on its way, or at the server',
    text: `It is not what was shared: its seal does not fit. ${NOTHING_KEPT} Tell whoever sent you the link.`,
  },
  TOO_LARGE: { title: 'The file is too large', text: 'An encrypted file has at most 64 GiB. Divide it.' },
  UNCERTAIN: {
    title: 'It is not known whether the file has arrived',
    text: 'The connection ended at the last moment. Ask the recipient before you send it again.',
  },
  UNREACHABLE: {
    title: 'The server cannot be reached',
    text: 'Look at your connection. What has come so far is not lost while this page stays open.',
    canRetry: true,
  },
  USED_UP: {
    title: 'This link is used up',
    text: 'It has been used as often as it may be. Ask whoever sent it to you for another one.',
  },
}

export const wordsFor = (code: FailureCode): Words => WORDS[code]

const UNITS = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'] as const

/** `1.5 MiB`; as the command line has it. */
export function sizeText(bytes: number): string {
  let [value, unit] = [bytes, 0]
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024
    unit++
  }
  if (unit === 0) return bytes === 1 ? '1 byte' : `${bytes} bytes`
  return `${value < 100 ? value.toFixed(1).replace(/\.0$/, '') : Math.round(value)} ${UNITS[unit]}`
}

export const filesText = (count: number): string => (count === 1 ? '1 file' : `${count} files`)

/** `about 2 minutes`. */
export function durationText(seconds: number): string {
  if (seconds < 5) return 'a few seconds'
  if (seconds < 90) return `about ${Math.round(seconds)} seconds`
  if (seconds < 5400) return `about ${Math.round(seconds / 60)} minutes`
  return `about ${Math.round(seconds / 3600)} hours`
}

/** A day and time as people here write it; what is no date stays away. */
export function dateText(text: string | undefined): string | undefined {
  const time = Date.parse(text ?? '')
  if (Number.isNaN(time)) return undefined
  return new Date(time).toLocaleString(undefined, { dateStyle: 'long', timeStyle: 'short' })
}

/** Controls, and what turns directions or has no width; the two joiners stay, which scripts and emoji need. */
const HIDDEN = /[\p{Cc}\u061C\u200B\u200E\u200F\u2028-\u202E\u2060-\u2069\uFEFF]/gu

/**
 * A foreign text as it can be shown: what hides, or turns the order of what stands beside it, is replaced by a sign. `invoice\u202Egnp.exe`
 * would else look like `invoiceexe.png`.
 */
export const shown = (text: string): string => text.replaceAll(HIDDEN, '\u{FFFD}')

/** A foreign text of several lines. */
export const shownLines = (text: string): string => text.split(/\r?\n/).map(shown).join('\n')

/** A name for a file on somebody’s disk; browsers see to the rest. */
export const savedName = (name: string): string =>
  shown(name)
    .replaceAll(/[\\/:*?"<>|\u{FFFD}]/gu, '_')
    .slice(0, 200)

/** A fingerprint in groups of four, as the command line shows it. */
export const fingerprintText = (hex: string): string => hex.replaceAll(/(.{4})(?=.)/g, '$1 ')
