/**
 * The native engine: OpenSSL through node:crypto and its WebCrypto. See types.ts for the contract.
 * @module
 */
import * as crypto from 'node:crypto'
import { promisify } from 'node:util'
import { MessageChannel } from 'node:worker_threads'
import { concat, wipe } from '../bytes.ts'
import { oaepDecode, oaepEncode } from './oaep.ts'
import type {
  GcmDecryptStream,
  GcmEncryptStream,
  GmacStream,
  HashName,
  OaepParams,
  PrfHash,
  Primitives,
  RsaUnwrapper,
  RsaWrapper,
} from './types.ts'

const { subtle } = crypto.webcrypto
/** As OpenSSL has it: `sha256`. */
const nodeName = (hash: PrfHash) => hash.toLowerCase().replace('-', '')
const pbkdf2 = promisify(crypto.pbkdf2)
const generateKeyPair = promisify(crypto.generateKeyPair)

/** Bytes per native call. Outputs above glibc's 128 KiB mmap threshold cost fresh zero pages on every call. */
const SLICE = 65_536

// Posting on a closed port drops what is transferred to it, which frees the memory at once. Closing takes a turn of the event
// loop, and what is posted before would be kept for ever: until then nothing is released, and the garbage collector has to do.
const drain = new MessageChannel()
let drained = false
drain.port1.once('close', () => {
  drained = true
})
drain.port2.close()
drain.port1.unref()

/**
 * Gives the memory of a spent cipher output back at once instead of at the next garbage collection, so that a
 * long stream stays small and its memory warm. Only for buffers that own their whole ArrayBuffer and that nothing refers to any more.
 */
export function release(spent: Uint8Array): void {
  const { buffer } = spent
  if (spent.byteOffset !== 0 || buffer.byteLength !== spent.byteLength || spent.byteLength === 0) return
  if (!(buffer instanceof ArrayBuffer)) return
  if ('transfer' in buffer) (buffer as ArrayBuffer & { transfer(length: number): ArrayBuffer }).transfer(0)
  else if (drained) drain.port1.postMessage(null, [buffer])
}

/** The same bytes as a plain Uint8Array: a Buffer's `slice` and `toJSON` would surprise whoever gets it. */
const plainView = ({ buffer, byteOffset, length }: Uint8Array) => new Uint8Array(buffer, byteOffset, length)

function gcm(cipher: crypto.CipherGCM | crypto.DecipherGCM, aad: Uint8Array | undefined) {
  if (aad !== undefined) cipher.setAAD(aad)
  return {
    update: (chunk: Uint8Array): Uint8Array => plainView(cipher.update(chunk)),
    updateEach(chunk: Uint8Array, use: (piece: Uint8Array, offset: number) => void): void {
      for (let at = 0; at < chunk.length; at += SLICE) {
        const out = cipher.update(chunk.subarray(at, at + SLICE))
        use(out, at)
        release(out)
      }
    },
  }
}

function gcmEncrypt(key: Uint8Array, iv: Uint8Array, aad?: Uint8Array): GcmEncryptStream {
  const cipher = crypto.createCipheriv('aes-256-gcm', key, iv, { authTagLength: 16 })
  return {
    ...gcm(cipher, aad),
    final() {
      cipher.final()
      return new Uint8Array(cipher.getAuthTag())
    },
  }
}

function gmac(key: Uint8Array, iv: Uint8Array): GmacStream {
  const cipher = crypto.createCipheriv('aes-256-gcm', key, iv, { authTagLength: 16 })
  return {
    update: (chunk) => void cipher.setAAD(chunk),
    final() {
      cipher.final()
      return new Uint8Array(cipher.getAuthTag())
    },
  }
}

function gcmDecrypt(key: Uint8Array, iv: Uint8Array, aad?: Uint8Array): GcmDecryptStream {
  const decipher = crypto.createDecipheriv('aes-256-gcm', key, iv, { authTagLength: 16 })
  return {
    ...gcm(decipher, aad),
    final(tag) {
      try {
        decipher.setAuthTag(tag)
        decipher.final()
        return true
      } catch {
        return false
      }
    },
  }
}

const digest = (name: HashName, data: Uint8Array) => crypto.createHash(nodeName(name)).update(data).digest()
const NO_LABEL = new Uint8Array(0)

/** OpenSSL works on one operation per key object, so one import is one core, on the thread pool. */
const IMPORTS = 4

/** Imports a key several times; the function returned gives them in turn. */
async function importInTurn(format: 'spki' | 'pkcs8', der: Uint8Array, hash: HashName, use: 'encrypt' | 'decrypt') {
  const keys: crypto.webcrypto.CryptoKey[] = []
  for (let i = 0; i < IMPORTS; i++) {
    keys.push(await subtle.importKey(format, der, { name: 'RSA-OAEP', hash }, false, [use]))
  }
  let turn = 0
  return () => keys[turn++ % IMPORTS]!
}

/** Wraps in one turn of the event loop that are done here: about a tenth of a millisecond each. */
const WRAPS_HERE = 4

async function rsaWrapper(spki: Uint8Array, params: OaepParams): Promise<RsaWrapper> {
  const { hash, mgf1Hash, label = NO_LABEL } = params
  const key = crypto.createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' })
  if (hash === mgf1Hash) {
    const keys = await importInTurn('spki', spki, hash, 'encrypt')
    const padding = crypto.constants.RSA_PKCS1_OAEP_PADDING
    const oaep = { key, padding, oaepHash: nodeName(hash), ...(label.length === 0 ? {} : { oaepLabel: label }) }
    let thisTurn = 0
    return {
      async wrap(plain) {
        // One by one, going to another thread takes as long as the operation. Many at once are worth all processors.
        if (thisTurn === 0) setImmediate(() => (thisTurn = 0))
        if (thisTurn++ < WRAPS_HERE) return plainView(crypto.publicEncrypt(oaep, plain))
        return new Uint8Array(await subtle.encrypt({ name: 'RSA-OAEP', label }, keys(), plain))
      },
    }
  }
  const length = key.asymmetricKeyDetails!.modulusLength! / 8
  return {
    async wrap(plain) {
      const seed = crypto.randomBytes(hash === 'SHA-1' ? 20 : 32)
      const encoded = oaepEncode(plain, label, seed, length, { digest, hash, mgf1Hash })
      const wrapped = crypto.publicEncrypt({ key, padding: crypto.constants.RSA_NO_PADDING }, encoded)
      wipe(seed, encoded)
      return wrapped
    },
  }
}

async function rsaUnwrapper(pkcs8: Uint8Array, params: OaepParams): Promise<RsaUnwrapper> {
  const { hash, mgf1Hash, label = NO_LABEL } = params
  if (hash === mgf1Hash) {
    const keys = await importInTurn('pkcs8', pkcs8, hash, 'decrypt')
    return {
      unwrap: async (wrapped) => new Uint8Array(await subtle.decrypt({ name: 'RSA-OAEP', label }, keys(), wrapped)),
    }
  }
  const key = crypto.createPrivateKey({ key: Buffer.from(pkcs8), format: 'der', type: 'pkcs8' })
  return {
    async unwrap(wrapped) {
      const encoded = crypto.privateDecrypt({ key, padding: crypto.constants.RSA_NO_PADDING }, wrapped)
      const message = oaepDecode(encoded, label, { digest, hash, mgf1Hash })
      wipe(encoded)
      if (message === undefined) throw new Error('decoding error')
      return message
    },
  }
}

const PSS = Object.freeze({ name: 'RSA-PSS', hash: 'SHA-256', saltLength: 32 })

export const primitives: Primitives = {
  name: 'native',
  randomBytes: (length) => new Uint8Array(crypto.randomBytes(length)),
  sha256: (data) => new Uint8Array(digest('SHA-256', data)),
  sameBytes: (a, b) => Buffer.compare(a, b) === 0,
  pause: () => new Promise((resolve) => setImmediate(resolve)),
  pbkdf2: async (prf, password, salt, iterations, length) =>
    plainView(await pbkdf2(password, salt, iterations, length, nodeName(prf))),
  async cbcEncrypt(key, iv, plain) {
    const cipher = crypto.createCipheriv('aes-256-cbc', key, iv)
    return concat(cipher.update(plain), cipher.final())
  },
  async cbcDecrypt(key, iv, cipher) {
    const decipher = crypto.createDecipheriv('aes-256-cbc', key, iv)
    const head = decipher.update(cipher)
    try {
      return concat(head, decipher.final())
    } finally {
      wipe(head)
    }
  },
  ctr: (key, counter, data) => plainView(crypto.createCipheriv('aes-256-ctr', key, counter).update(data)),
  gmac,
  gcmEncrypt,
  gcmDecrypt,
  async rsaGenerate(modulusBits) {
    const pair = await generateKeyPair('rsa', {
      modulusLength: modulusBits,
      publicExponent: 65_537,
      publicKeyEncoding: { type: 'spki', format: 'der' },
      privateKeyEncoding: { type: 'pkcs8', format: 'der' },
    })
    return { pkcs8: new Uint8Array(pair.privateKey), spki: new Uint8Array(pair.publicKey) }
  },
  rsaWrapper,
  rsaUnwrapper,
  async rsaSign(pkcs8, data) {
    const key = await subtle.importKey('pkcs8', pkcs8, PSS, false, ['sign'])
    return new Uint8Array(await subtle.sign(PSS, key, data))
  },
  async rsaVerify(spki, data, signature) {
    return subtle.verify(PSS, await subtle.importKey('spki', spki, PSS, false, ['verify']), signature, data)
  },
}
