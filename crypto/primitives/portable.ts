/**
 * The portable engine for browsers, Deno, Bun and workers: WebCrypto where it fits, noble where it does not (WebCrypto has
 * no streaming AES-GCM and no synchronous hash), forge only for OAEP with two hashes. See types.ts for the contract.
 * @module
 */
import { GHASH } from '@noble/ciphers/_polyval.js'
import { ctr, ecb } from '@noble/ciphers/aes.js'
import { pbkdf2Async } from '@noble/hashes/pbkdf2.js'
import { sha224, sha256 } from '@noble/hashes/sha2.js'
import { copy, equal, wipe } from '../bytes.ts'
import type { GcmDecryptStream, GcmEncryptStream, GmacStream, OaepParams, Primitives } from './types.ts'

const { subtle } = globalThis.crypto
/** WebCrypto's types ask for views that are not on shared memory; ours never are. */
const own = (bytes: Uint8Array) => bytes as Uint8Array<ArrayBuffer>

const BLOCK = 16

/**
 * AES-GCM in pieces out of CTR and GHASH (NIST SP 800-38D §7): counter blocks start at IV || 2, the tag is masked with the
 * keystream of IV || 1.
 */
class GcmState {
  readonly #key: Uint8Array
  readonly #counter = new Uint8Array(BLOCK)
  readonly #ghash: GHASH
  readonly #tagMask: Uint8Array
  /** Ciphertext bytes of the last, incomplete block; GHASH takes whole blocks only. */
  readonly #pending = new Uint8Array(BLOCK)
  #length = 0
  readonly #aadLength: number

  constructor(key: Uint8Array, iv: Uint8Array, aad: Uint8Array | undefined) {
    this.#key = copy(key)
    this.#counter.set(iv)
    const hashKey = ecb(this.#key, { disablePadding: true }).encrypt(new Uint8Array(BLOCK))
    this.#ghash = new GHASH(hashKey)
    this.#counter[15] = 1
    this.#tagMask = ctr(this.#key, this.#counter).encrypt(new Uint8Array(BLOCK))
    wipe(hashKey)
    this.#aadLength = aad?.length ?? 0
    if (aad !== undefined) this.#ghash.update(aad) // padded to whole blocks by GHASH
  }

  /** Xors the keystream that belongs to this position onto a copy of `chunk`. */
  transform(chunk: Uint8Array): Uint8Array {
    const skip = this.#length % BLOCK
    new DataView(this.#counter.buffer).setUint32(12, 2 + Math.floor(this.#length / BLOCK))
    const padded = new Uint8Array(skip + chunk.length)
    padded.set(chunk, skip)
    return ctr(this.#key, this.#counter).encrypt(padded).subarray(skip)
  }

  absorb(ciphertext: Uint8Array): void {
    let start = 0
    const held = this.#length % BLOCK
    this.#length += ciphertext.length
    if (held > 0) {
      start = Math.min(BLOCK - held, ciphertext.length)
      this.#pending.set(ciphertext.subarray(0, start), held)
      if (held + start < BLOCK) return
      this.#ghash.update(this.#pending)
    }
    const whole = start + Math.floor((ciphertext.length - start) / BLOCK) * BLOCK
    if (whole > start) this.#ghash.update(ciphertext.subarray(start, whole))
    this.#pending.set(ciphertext.subarray(whole))
  }

  /** @param isAdditional - What was absorbed is no ciphertext, but additional data. */
  tag(isAdditional = false): Uint8Array {
    const held = this.#length % BLOCK
    if (held > 0) this.#ghash.update(this.#pending.subarray(0, held))
    const lengths = new Uint8Array(BLOCK)
    const bits = new DataView(lengths.buffer)
    bits.setBigUint64(0, BigInt(isAdditional ? this.#length : this.#aadLength) * 8n)
    bits.setBigUint64(8, BigInt(isAdditional ? 0 : this.#length) * 8n)
    const tag = this.#ghash.update(lengths).digest()
    for (let i = 0; i < BLOCK; i++) tag[i]! ^= this.#tagMask[i]!
    wipe(this.#key, this.#tagMask)
    return tag
  }
}

function gcmEncrypt(key: Uint8Array, iv: Uint8Array, aad?: Uint8Array): GcmEncryptStream {
  const state = new GcmState(key, iv, aad)
  const update = (chunk: Uint8Array) => {
    const out = state.transform(chunk)
    state.absorb(out)
    return out
  }
  return {
    update,
    updateEach: (chunk, use) => use(update(chunk), 0),
    final: () => state.tag(),
  }
}

function gmac(key: Uint8Array, iv: Uint8Array): GmacStream {
  const state = new GcmState(key, iv, undefined)
  return { update: (chunk) => state.absorb(chunk), final: () => state.tag(true) }
}

function gcmDecrypt(key: Uint8Array, iv: Uint8Array, aad?: Uint8Array): GcmDecryptStream {
  const state = new GcmState(key, iv, aad)
  const update = (chunk: Uint8Array) => {
    const out = state.transform(chunk)
    state.absorb(chunk)
    return out
  }
  return {
    update,
    updateEach: (chunk, use) => use(update(chunk), 0),
    final: (tag) => equal(state.tag(), tag),
  }
}

const cbcKey = (key: Uint8Array, use: 'encrypt' | 'decrypt') =>
  subtle.importKey('raw', own(key), 'AES-CBC', false, [use])

const algorithm = ({ hash }: OaepParams) => ({ name: 'RSA-OAEP', hash })
const operation = ({ label }: OaepParams) =>
  label === undefined ? { name: 'RSA-OAEP' } : { name: 'RSA-OAEP', label: own(label) }

const PSS = Object.freeze({ name: 'RSA-PSS', hash: 'SHA-256', saltLength: 32 })

export const primitives: Primitives = {
  name: 'portable',
  randomBytes: (length) => globalThis.crypto.getRandomValues(new Uint8Array(length)),
  sha256: (data) => sha256(data),
  sameBytes: equal,
  pause: () => new Promise((resolve) => setTimeout(resolve)),
  async pbkdf2(prf, password, salt, iterations, length) {
    // The one hash that WebCrypto does not have.
    if (prf === 'SHA-224') return pbkdf2Async(sha224, password, salt, { c: iterations, dkLen: length })
    const key = await subtle.importKey('raw', own(password), 'PBKDF2', false, ['deriveBits'])
    return new Uint8Array(
      await subtle.deriveBits({ name: 'PBKDF2', hash: prf, salt: own(salt), iterations }, key, length * 8),
    )
  },
  async cbcEncrypt(key, iv, plain) {
    return new Uint8Array(
      await subtle.encrypt({ name: 'AES-CBC', iv: own(iv) }, await cbcKey(key, 'encrypt'), own(plain)),
    )
  },
  async cbcDecrypt(key, iv, cipher) {
    return new Uint8Array(
      await subtle.decrypt({ name: 'AES-CBC', iv: own(iv) }, await cbcKey(key, 'decrypt'), own(cipher)),
    )
  },
  ctr: (key, counter, data) => ctr(key, counter).encrypt(data),
  gmac,
  gcmEncrypt,
  gcmDecrypt,
  async rsaGenerate(modulusLength) {
    const pair = await subtle.generateKey(
      { name: 'RSA-OAEP', modulusLength, publicExponent: Uint8Array.of(1, 0, 1), hash: 'SHA-256' },
      true,
      ['encrypt', 'decrypt'],
    )
    return {
      pkcs8: new Uint8Array(await subtle.exportKey('pkcs8', pair.privateKey)),
      spki: new Uint8Array(await subtle.exportKey('spki', pair.publicKey)),
    }
  },
  async rsaWrapper(spki, params) {
    if (params.hash !== params.mgf1Hash) return (await import('./forge.ts')).rsaWrapper(spki, params)
    const key = await subtle.importKey('spki', own(spki), algorithm(params), false, ['encrypt'])
    return { wrap: async (plain) => new Uint8Array(await subtle.encrypt(operation(params), key, own(plain))) }
  },
  async rsaUnwrapper(pkcs8, params) {
    if (params.hash !== params.mgf1Hash) return (await import('./forge.ts')).rsaUnwrapper(pkcs8, params)
    const key = await subtle.importKey('pkcs8', own(pkcs8), algorithm(params), false, ['decrypt'])
    return { unwrap: async (wrapped) => new Uint8Array(await subtle.decrypt(operation(params), key, own(wrapped))) }
  },
  async rsaSign(pkcs8, data) {
    const key = await subtle.importKey('pkcs8', own(pkcs8), PSS, false, ['sign'])
    return new Uint8Array(await subtle.sign(PSS, key, own(data)))
  },
  async rsaVerify(spki, data, signature) {
    const key = await subtle.importKey('spki', own(spki), PSS, false, ['verify'])
    return subtle.verify(PSS, key, own(signature), own(data))
  },
}
