/**
 * The two generations of key pairs and what each implies. Version strings are case-sensitive and closed: nothing else is read.
 * @module
 */
import type { OaepParams } from './primitives/types.ts'

/** Version of a user key pair: `A` is RSA-2048. */
export type KeyPairVersion = 'A' | 'RSA-4096'
/** Version of a wrapped file key: `A` is wrapped for an `A` key pair. */
export type FileKeyVersion = 'A' | 'RSA-4096/AES-256-GCM'

export interface KeyPairProfile {
  readonly modulusBits: number
  readonly oaep: OaepParams
  readonly fileKeyVersion: FileKeyVersion
  /** Length of a wrapped file key in bytes. */
  readonly wrappedLength: number
}

export const KEY_PAIR_PROFILES: Readonly<Record<KeyPairVersion, KeyPairProfile>> = Object.freeze({
  A: Object.freeze({
    modulusBits: 2048,
    oaep: Object.freeze({ hash: 'SHA-256', mgf1Hash: 'SHA-1' } as const),
    fileKeyVersion: 'A' as const,
    wrappedLength: 256,
  }),
  'RSA-4096': Object.freeze({
    modulusBits: 4096,
    oaep: Object.freeze({ hash: 'SHA-256', mgf1Hash: 'SHA-256' } as const),
    fileKeyVersion: 'RSA-4096/AES-256-GCM' as const,
    wrappedLength: 512,
  }),
})

export const isKeyPairVersion = (text: unknown): text is KeyPairVersion => text === 'A' || text === 'RSA-4096'

/** The key pair version that opens file keys of this version. */
export const keyPairVersionFor = (version: FileKeyVersion): KeyPairVersion => (version === 'A' ? 'A' : 'RSA-4096')
