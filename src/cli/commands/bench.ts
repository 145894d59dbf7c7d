/** bench: how fast this machine encrypts, a server answers, and both together move a file. @module */
import { mkdtemp, open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  createFileDecryptor,
  createFileEncryptor,
  generateKeyPair,
  unwrapFileKey,
  wrapFileKey,
} from '../../../crypto/index.ts'
import { type Client, createClient, parseBaseUrl, type RunSummary, VERSION_PATH } from '../../client/index.ts'
import { systemClock } from '../../environment.ts'
import { cancelled, localError, SyncError } from '../../errors.ts'
import { createAuthorizer } from '../authorizers.ts'
import { withClient } from '../connect.ts'
import { type Context, integerOption, loggingOf, text } from '../context.ts'
import { loadProfile } from '../profile.ts'
import { transportOf } from '../transport.ts'

const MEASURE_MS = 700
const PIECE = 1024 * 1024
/** Between two looks at whether somebody wants to stop. */
const BREATH_MS = 50
const UNWRAPS = 64
const ANSWERS = 20
const MB = 1e6
const DEFAULT_MB = 64
const MAX_MB = 60_000

const say = ({ output }: Context, name: string, value: number, unit: string) => {
  const shown = value >= 100 ? value.toFixed(0) : value.toFixed(2)
  output.result(`${name.padEnd(34)} ${shown.padStart(8)} ${unit}`, { type: 'measure', name, value, unit })
}

const breathe = async (signal: AbortSignal) => {
  await new Promise(setImmediate)
  if (signal.aborted) throw cancelled(signal)
}

/** Bytes a second of `step`, which handles `PIECE` bytes. */
async function throughput(step: () => void, signal: AbortSignal): Promise<number> {
  const begun = systemClock.monotonic()
  let [bytes, looked] = [0, begun]
  for (let now = begun; now - begun < MEASURE_MS; now = systemClock.monotonic()) {
    step()
    bytes += PIECE
    if (now - looked < BREATH_MS) continue
    await breathe(signal)
    looked = now
  }
  return (bytes * 1000) / (systemClock.monotonic() - begun)
}

async function measureMachine(context: Context): Promise<void> {
  const { signal } = context
  const piece = new Uint8Array(PIECE).fill(5)
  const drop = () => {}
  const encryptor = createFileEncryptor({ checkOutput: true })
  say(
    context,
    'encrypt, output checked',
    (await throughput(() => encryptor.updateEach(piece, drop), signal)) / MB,
    'MB/s',
  )
  const fileKey = encryptor.final()
  // Only the speed counts: what this decrypts was never encrypted, and is dropped without its tag.
  const decryptor = createFileDecryptor(fileKey)
  say(context, 'decrypt', (await throughput(() => decryptor.updateEach(piece, drop), signal)) / MB, 'MB/s')
  const pair = await generateKeyPair()
  try {
    const wrapped = await wrapFileKey(fileKey, pair.publicKey)
    const begun = systemClock.monotonic()
    await Promise.all(Array.from({ length: UNWRAPS }, async () => (await unwrapFileKey(wrapped, pair)).wipe()))
    const seconds = (systemClock.monotonic() - begun) / 1000
    say(context, 'open file keys, all processors', UNWRAPS / seconds, 'files/s')
  } finally {
    pair.wipe()
    fileKey.wipe()
  }
}

async function measureServer(context: Context, origin: string): Promise<void> {
  const client = createClient(origin, {
    authorizer: await createAuthorizer('browser', {}),
    transport: await transportOf(context.settings, origin),
    ...loggingOf(context),
  })
  try {
    const times: number[] = []
    for (let i = 0; i <= ANSWERS; i++) {
      const begun = systemClock.monotonic()
      await client.session.raw('GET', VERSION_PATH, { auth: false, signal: context.signal })
      // The first one also makes the connection.
      if (i > 0) times.push(systemClock.monotonic() - begun)
    }
    say(context, 'answer of the server, median', times.sort((a, b) => a - b)[ANSWERS >> 1]!, 'ms')
  } finally {
    await client.close()
  }
}

/** A file that does not compress. */
async function makeFile(path: string, bytes: number): Promise<void> {
  const piece = Buffer.allocUnsafe(PIECE)
  for (let at = 0; at < PIECE; at += 65_536) globalThis.crypto.getRandomValues(piece.subarray(at, at + 65_536))
  const file = await open(path, 'wx', 0o600)
  try {
    for (let left = bytes; left > 0; left -= PIECE) await file.write(piece, 0, Math.min(left, PIECE))
  } finally {
    await file.close()
  }
}

function requireDone({ failed, stoppedBy, transferred }: RunSummary): void {
  const error = stoppedBy ?? failed[0]?.error
  if (error !== undefined) throw error
  if (transferred !== 1) throw new Error('the file was not transferred')
}

/** Sends a file into a room and fetches it again; afterwards it is in the room's recycle bin, if that keeps anything. */
async function measureTransfer(context: Context, client: Client, room: string, bytes: number): Promise<void> {
  const { signal } = context
  const directory = await mkdtemp(join(tmpdir(), 'sealsync-bench-')).catch((error) => {
    throw localError(error, 'make a temporary directory')
  })
  const name = `sealsync-bench-${globalThis.crypto.randomUUID()}`
  const remote = `${room.replace(/\/+$/, '')}/${name}`
  const timed = async (what: string, work: () => Promise<RunSummary>) => {
    const begun = systemClock.monotonic()
    requireDone(await work())
    say(context, what, (bytes * 1000) / (systemClock.monotonic() - begun) / MB, 'MB/s')
  }
  try {
    // Unlocking takes its time too, and is done once a run whatever the files are.
    if ((await client.stat(room, { signal })).isEncrypted) await client.keyring.ownKey(signal)
    await makeFile(join(directory, name), bytes).catch((error) => {
      throw localError(error, 'write a temporary file')
    })
    await timed('upload', () => client.upload([join(directory, name)], room, { signal }))
    await rm(join(directory, name))
    await timed('download', () => client.download([remote], directory, { signal }))
  } finally {
    await rm(directory, { recursive: true, force: true })
    await client.remove(remote).catch((error) => {
      if (!(error instanceof SyncError) || error.class !== 'not_found') throw error
    })
  }
}

/** @throws {SyncError} `ROOM_ELSEWHERE` for a room on another server than the profile’s. */
export async function bench(context: Context, url?: string): Promise<void> {
  const room = text(context.options, 'room')
  const megabytes = integerOption(context.options, 'size', { min: 1, max: MAX_MB }) ?? DEFAULT_MB
  const profile = await loadProfile(context.profileName)
  const origin = url === undefined ? profile?.server : parseBaseUrl(url).origin
  if (room !== undefined && profile !== undefined && origin !== profile.server) {
    throw new SyncError('usage', 'ROOM_ELSEWHERE', 'The login of this profile is for another server', {
      hint: 'Leave the URL out, or choose the login with --profile.',
    })
  }
  await measureMachine(context)
  if (origin !== undefined) await measureServer(context, origin)
  if (room !== undefined) await withClient(context, (client) => measureTransfer(context, client, room, megabytes * MB))
}
