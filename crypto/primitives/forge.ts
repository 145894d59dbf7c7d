/**
 * The only user of node-forge, and only for RSAES-OAEP with two different hashes (key pair version `A`) on platforms without
 * raw RSA. Nothing else of forge is used. OAEP seeds come from the platform; the factors that blind forge's private operation
 * against timing come from its own generator, which the platform seeds.
 * @module
 */
import forge from 'node-forge'
import type { OaepParams, RsaUnwrapper, RsaWrapper } from './types.ts'

const md = (name: OaepParams['hash']) => (name === 'SHA-1' ? forge.md.sha1.create() : forge.md.sha256.create())

function binary(bytes: Uint8Array): string {
  let out = ''
  for (const byte of bytes) out += String.fromCharCode(byte)
  return out
}

const bytes = (text: string) => Uint8Array.from(text, (char) => char.charCodeAt(0))

const options = ({ hash, mgf1Hash, label }: OaepParams) => ({
  md: md(hash),
  mgf1: { md: md(mgf1Hash) },
  ...(label === undefined ? {} : { label: binary(label) }),
})

/** See `Primitives.rsaWrapper`. */
export async function rsaWrapper(spki: Uint8Array, params: OaepParams): Promise<RsaWrapper> {
  const key = forge.pki.publicKeyFromAsn1(forge.asn1.fromDer(binary(spki)))
  const seedLength = params.hash === 'SHA-1' ? 20 : 32
  return {
    async wrap(plain) {
      const seed = binary(globalThis.crypto.getRandomValues(new Uint8Array(seedLength)))
      return bytes(key.encrypt(binary(plain), 'RSA-OAEP', { ...options(params), seed }))
    },
  }
}

/** See `Primitives.rsaUnwrapper`. */
export async function rsaUnwrapper(pkcs8: Uint8Array, params: OaepParams): Promise<RsaUnwrapper> {
  const key = forge.pki.privateKeyFromAsn1(forge.asn1.fromDer(binary(pkcs8)))
  return {
    async unwrap(wrapped) {
      return bytes(key.decrypt(binary(wrapped), 'RSA-OAEP', options(params)))
    },
  }
}
