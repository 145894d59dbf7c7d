/**
 * Pinned server keys: hashes of the public key in a server's own certificate (RFC 7469 §2.4), asked for on top of the usual
 * verification.
 * @module
 */
import { createHash, type X509Certificate } from 'node:crypto'
import { TLSSocket } from 'node:tls'
import { SyncError } from '../errors.ts'

/** Operators whose own clients accept known keys only: without pins of the user's, the key that is seen first has to stay. */
const PINNED_DOMAINS = ['proton.me', 'protonmail.ch', 'protonmail.com', 'protonvpn.ch', 'protonvpn.com']

/** True for servers whose keys are pinned without being asked to. */
export const isPinnedHost = (host: string): boolean =>
  PINNED_DOMAINS.some((domain) => host === domain || host.endsWith(`.${domain}`))

/** A pin as it is written: `sha256/` and 32 bytes in base64. */
export function isPin(text: unknown): text is string {
  if (typeof text !== 'string' || !text.startsWith('sha256/')) return false
  const hash = Buffer.from(text.slice(7), 'base64')
  return hash.length === 32 && hash.toString('base64') === text.slice(7)
}

/** The pin of a certificate: SHA-256 of its SubjectPublicKeyInfo (DER). */
export function pinOf(certificate: X509Certificate): string {
  const key = certificate.publicKey.export({ type: 'spki', format: 'der' })
  return `sha256/${createHash('sha256').update(key).digest('base64')}`
}

/** Node gives a connection's certificate once: whoever asks again gets none. */
const certificates = new WeakMap<TLSSocket, X509Certificate>()

function certificateOf(socket: unknown): X509Certificate | undefined {
  if (!(socket instanceof TLSSocket)) return undefined
  const certificate = certificates.get(socket) ?? socket.getPeerX509Certificate()
  if (certificate !== undefined) certificates.set(socket, certificate)
  return certificate
}

/**
 * Compares the key that the server has just proven with the pins. Call it when the handshake is done and nothing is sent yet.
 *
 * @throws {SyncError} `PIN_MISMATCH`.
 */
export function checkPin(socket: unknown, pins: ReadonlySet<string>): void {
  const certificate = certificateOf(socket)
  if (certificate !== undefined && pins.has(pinOf(certificate))) return
  throw new SyncError('tls', 'PIN_MISMATCH', 'The server has a key that is not among the pinned ones', {
    hint: 'Somebody may be in between. If the server has a new key, compare it with its operator, then change the pins.',
  })
}

/**
 * Compares the certificate that the server has just proven with the one that it may have.
 *
 * @param accepted - SHA-256 fingerprint, as Node writes it.
 * @throws {SyncError} `CERT_OTHER`.
 */
export function checkAccepted(socket: unknown, accepted: string): void {
  const certificate = certificateOf(socket)
  if (certificate?.fingerprint256 === accepted) return
  throw new SyncError('tls', 'CERT_OTHER', 'The server has another certificate than the one that is accepted', {
    hint: 'Somebody may be in between. If the server has a new one, compare its fingerprint with its operator.',
  })
}

/** Where keys are kept that were seen first. */
export interface PinStore {
  load(origin: string): Promise<string | undefined>
  /** Keeps `pin`, unless what is there is not `previous` any more. */
  save(origin: string, pin: string, previous: string | undefined): Promise<void>
}

/** For as long as the program runs. */
export function memoryPinStore(): PinStore {
  const pins = new Map<string, string>()
  return {
    load: async (origin) => pins.get(origin),
    save: async (origin, pin, previous) => {
      if (pins.get(origin) === previous) pins.set(origin, pin)
    },
  }
}

/** Trust on first use. */
export interface FirstUse {
  readonly store: PinStore
  /** Keys that may take the place of the one that was seen. */
  readonly backup: ReadonlySet<string>
}

/**
 * Compares the key that the server has just proven with the one seen before, or keeps it. A key that has changed is refused unless
 * it is a backup pin, which then takes its place.
 *
 * @throws {SyncError} `PIN_MISMATCH`, and what the store throws.
 */
export async function checkFirstUse(socket: unknown, origin: string, { store, backup }: FirstUse): Promise<void> {
  const certificate = certificateOf(socket)
  const known = await store.load(origin)
  if (certificate !== undefined) {
    const pin = pinOf(certificate)
    if (pin === known) return
    if (known === undefined || backup.has(pin)) {
      await store.save(origin, pin, known)
      // What another process has kept meanwhile counts.
      if ((await store.load(origin)) === pin) return
    }
  }
  throw new SyncError('tls', 'PIN_MISMATCH', 'The server has another key than the one that was seen first', {
    hint: 'Somebody may be in between. If the server has a new key, compare it with its operator, then forget the old one (keys forget --server).',
  })
}

/** A certificate that a server presented. All texts but `pin` are its own: show them through a filter. */
export interface ServerPin {
  readonly pin: string
  readonly subject: string
  readonly issuer: string
  /** End of its validity, as in the certificate. */
  readonly validTo: string
}

/** The chain behind a connection: the server's own certificate first, the authority last. At most 10. */
export function chainPins(socket: TLSSocket): ServerPin[] {
  const chain: ServerPin[] = []
  let at = certificateOf(socket)
  while (at !== undefined && chain.length < 10) {
    chain.push({ pin: pinOf(at), subject: at.subject, issuer: at.issuer, validTo: at.validTo })
    const next: X509Certificate | undefined = at.issuerCertificate
    at = next?.fingerprint256 === at.fingerprint256 ? undefined : next
  }
  return chain
}
