/**
 * What is written onto paper, and read back from it: rescue keys of accounts, and rescue passwords of rooms. Their letters are
 * crypto/rescue-text.ts.
 * @module
 */
import { randomBytes } from 'node:crypto'
import { generateKeyPair, type KeyPairContainer, lockKeyPair, unlockKeyPair } from '../../crypto/index.ts'
import {
  combineRescueShares,
  createRescueReader,
  formatRescueSecret,
  isRescueShare,
  parseRescueText,
  type RescueReader,
  type RescueSecret,
  type RescueShare,
  type RescueText,
  roomRescuePassword,
  splitRescueSecret,
} from '../../crypto/rescue-text.ts'
import { SyncError } from '../errors.ts'
import type { KeyId } from '../transfer/pins.ts'

export type { RescueReader, RescueSecret, RescueShare, RescueText } from '../../crypto/rescue-text.ts'

/** How a secret is split. */
export interface ShareCount {
  /** So many shares give it back: from 2. */
  readonly needed: number
  /** At most 255. */
  readonly of: number
}

/** What goes onto one sheet of paper. */
export interface RescuePaper {
  /** Of several sheets: which one this is. `set` is the same on all of them: 8 hexadecimal digits. */
  readonly share?: (ShareCount & { readonly number: number; readonly set: string }) | undefined
  /** The secret, as lines of letters. A function, so that whoever prints the rest prints no secret. */
  lines(): readonly string[]
}

const sameBytes = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0

/**
 * Writes a secret for paper, and reads it back from there.
 *
 * @throws {SyncError} `RESCUE_SHARES_INVALID`.
 */
export async function writePapers(secret: RescueSecret, shares: ShareCount | undefined): Promise<RescuePaper[]> {
  const split = shares && (await splitRescueSecret(secret, shares.needed, shares.of))
  const texts = split?.shares ?? [formatRescueSecret(secret)]
  const back = await readTexts(texts.slice(0, shares?.needed ?? 1).map((lines) => lines.join('\n')))
  if (!sameBytes(back.secret, secret.secret)) {
    throw new SyncError('internal', 'INTERNAL', 'What would be printed does not give the rescue key back')
  }
  return texts.map((lines, at) => ({
    share: split && shares && { ...shares, number: at + 1, set: split.set },
    lines: () => lines,
  }))
}

/** Text that is read line by line as somebody types it. */
export const reader = async (): Promise<RescueReader> => createRescueReader()

/** Puts together what was typed: one whole text, or shares. */
export async function combineTexts(texts: readonly RescueText[]): Promise<RescueSecret> {
  const whole = texts.find((text): text is RescueSecret => !isRescueShare(text))
  if (whole === undefined) return combineRescueShares(texts as readonly RescueShare[])
  if (texts.length === 1) return whole
  throw new SyncError(
    'usage',
    'RESCUE_TEXT_INVALID',
    'One paper has the whole secret, and the others do not belong to it',
    {
      hint: 'Give one paper, or shares of one set.',
    },
  )
}

/**
 * Reads what is on one or several papers.
 *
 * @throws {SyncError} `RESCUE_LINE_WRONG`, which names the line; `RESCUE_TEXT_SHORT`, `RESCUE_TEXT_INVALID`, `RESCUE_SHARES_FEW`,
 * `RESCUE_SHARES_MIXED`, `RESCUE_SHARES_WRONG`.
 */
export const readTexts = async (texts: readonly string[]): Promise<RescueSecret> =>
  combineTexts(texts.map((text) => parseRescueText(text)))

/** @throws {SyncError} `RESCUE_TEXT_INVALID` for the paper of a room, or of an account. */
export function requireKind({ kind, secret }: RescueSecret, wanted: RescueSecret['kind']): Uint8Array {
  if (kind === wanted) return secret
  const what = kind === 'room' ? 'of a room' : 'of an account'
  throw new SyncError('usage', 'RESCUE_TEXT_INVALID', `This is the rescue paper ${what}`, {
    hint: kind === 'room' ? 'Name the room: --room /ROOM' : 'Leave --room out.',
  })
}

/** A rescue key for a room that is not at the server yet. */
export interface PreparedRoomRescue extends KeyId {
  /** What the server gets. */
  readonly container: KeyPairContainer
  readonly papers: readonly RescuePaper[]
  /** As other programs ask for it; absent where it is split. A function, as the lines of a paper. */
  password(): string | undefined
}

/**
 * Makes a rescue key pair for a room, locked with a password that is made here, and opens it with what is on the papers.
 *
 * @throws {SyncError} `RESCUE_SHARES_INVALID`.
 */
export async function prepareRoomRescue(shares?: ShareCount | undefined): Promise<PreparedRoomRescue> {
  const secret = new Uint8Array(randomBytes(20))
  const papers = await writePapers({ kind: 'room', secret }, shares)
  const pair = await generateKeyPair()
  try {
    const container = await lockKeyPair(pair, roomRescuePassword(secret))
    const texts = papers.slice(0, shares?.needed ?? 1).map((paper) => paper.lines().join('\n'))
    const again = await unlockKeyPair(container, roomRescuePassword((await readTexts(texts)).secret))
    again.wipe()
    const { version, publicKey } = pair
    const password = shares === undefined ? roomRescuePassword(secret) : undefined
    return { version, fingerprint: publicKey.fingerprint, container, papers, password: () => password }
  } finally {
    pair.wipe()
    secret.fill(0)
  }
}
