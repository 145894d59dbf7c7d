/** What is written to somebody who gets a link. Never a password: that goes another way. @module */
import type { FileRequest, Share } from './shares.ts'

/** To the minute, in UTC: nobody knows where it is read. */
const dayOf = (at: number) => `${new Date(at).toISOString().slice(0, 16).replace('T', ' ')} UTC`

const lines = (...all: readonly (string | undefined)[]) => all.filter((line) => line !== undefined).join('\n')

/** A letter with a link to something to fetch. */
export function shareMailText({ name, link, isProtected, isEncrypted, expiresAt, maxDownloads }: Share): string {
  const limits = [
    ...(expiresAt === undefined ? [] : [`until ${dayOf(expiresAt)}`]),
    ...(maxDownloads === undefined ? [] : [maxDownloads === 1 ? 'once' : `${maxDownloads} times`]),
  ]
  return lines(
    `Subject: ${name}`,
    '',
    `Here is ${name}:`,
    '',
    `  ${link}`,
    '',
    isProtected ? 'It takes a password, which you get another way.' : undefined,
    isEncrypted ? 'It is encrypted: your browser opens it, and the server cannot read it.' : undefined,
    limits.length > 0 ? `It can be downloaded ${limits.join(', ')}.` : undefined,
    `Without a browser: sync download LINK${isEncrypted ? ' --require-encryption' : ''}`,
  )
}

/** A letter with a link of a file request. */
export function requestMailText({
  name,
  link,
  isProtected,
  isEncrypted,
  expiresAt,
  maxFiles,
  maxSize,
}: FileRequest): string {
  const limits = [
    ...(maxFiles === undefined ? [] : [maxFiles === 1 ? 'one file' : `${maxFiles} files`]),
    ...(maxSize === undefined ? [] : [`${Math.round(maxSize / 1e6)} MB`]),
  ]
  return lines(
    `Subject: Files for ${name}`,
    '',
    'Please put the files here; you need no account:',
    '',
    `  ${link}`,
    '',
    isProtected ? 'It takes a password, which you get another way.' : undefined,
    isEncrypted ? 'They are encrypted before they leave your computer.' : undefined,
    limits.length > 0
      ? `It takes ${limits.join(' and ')}${expiresAt === undefined ? '' : `, until ${dayOf(expiresAt)}`}.`
      : undefined,
    limits.length === 0 && expiresAt !== undefined ? `It is open until ${dayOf(expiresAt)}.` : undefined,
    'Without a browser: sync upload --to-request LINK FILE',
  )
}
