/** What several suites here share: fixtures, published vectors if they are at hand, small builders. */
import { existsSync, readFileSync } from 'node:fs'
import { primitives } from '#primitives'
import {
  importPublicKey,
  type KeyPairContainer,
  parseKeyPairContainer,
  SyncError,
  UserKeyPair,
  unlockKeyPair,
} from '../../crypto/index.ts'
import { checkPrivateKey, openPrivateKey, readLockedPrivateKey } from '../../crypto/private-key.ts'
import { importSpki } from '../../crypto/public-key.ts'
import { KEY_PAIR_PROFILES, type KeyPairVersion } from '../../crypto/versions.ts'

export { SEED } from '../support/seed.ts'

export const hex = (text: string) => new Uint8Array(Buffer.from(text, 'hex'))
export const base64 = (text: string) => new Uint8Array(Buffer.from(text, 'base64'))
export const toBase64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64')

/** Small quick generator (mulberry32) for test data: `random(n)` is an integer in 0…n−1. */
export function seededRandom(seed: number) {
  let state = seed >>> 0
  const random = (below: number): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) % below
  }
  return {
    random,
    bytes: (length: number) => Uint8Array.from({ length }, () => random(256)),
    pick: <T>(items: readonly T[]): T => items[random(items.length)]!,
  }
}

/** Parsed JSON of a file beside the repository (the specification's own data), or undefined when it is not there. */
export function shared<T>(path: string): T | undefined {
  const url = new URL(`../../../shared/${path}`, import.meta.url)
  if (existsSync(url)) return JSON.parse(readFileSync(url, 'utf8'))
  console.warn(`SKIPPED, not at hand: ${path}`)
  return undefined
}

export interface KeyPairFixture {
  name: string
  password: string
  passwordEncoding: 'UTF-8' | 'ISO-8859-1'
  expect: { iterations: number; prf: string }
  keyPair: unknown
}

export interface FileFixture {
  name: string
  keyPairVersion: KeyPairVersion
  fileKey: unknown
  plainKey: string
  plaintext: string
  ciphertext: string
  refused?: boolean
}

const fixture = <T>(name: string): T[] =>
  JSON.parse(readFileSync(new URL(`../../fixtures/keys/${name}.json`, import.meta.url), 'utf8')).items

export const keyPairFixtures = fixture<KeyPairFixture>('key-pairs')
export const fileFixtures = fixture<FileFixture>('files')

/** The fixture's key pair of a version under few iterations, and its password. */
export function quickFixture(version: KeyPairVersion): { container: KeyPairContainer; password: string } {
  const { keyPair, password } = keyPairFixtures.find(
    ({ name, expect }) => name.startsWith(`${version} `) && expect.iterations < 10_000,
  )!
  return { container: parseKeyPairContainer(keyPair), password }
}

export function unlockFixture(version: KeyPairVersion): Promise<UserKeyPair> {
  const { container, password } = quickFixture(version)
  return unlockKeyPair(container, password)
}

/** DER of the fixture's private key. */
export async function fixturePkcs8(version: KeyPairVersion): Promise<Uint8Array> {
  const { container, password } = quickFixture(version)
  const locked = readLockedPrivateKey(container.privateKeyContainer.privateKey)
  return (await openPrivateKey(locked, new TextEncoder().encode(password), version))!.pkcs8
}

export async function fixturePublicKey(version: KeyPairVersion) {
  return importPublicKey(quickFixture(version).container.publicKeyContainer)
}

/** A key pair from DER of its private key. */
export async function pairFromPkcs8(der: Uint8Array, version: KeyPairVersion): Promise<UserKeyPair> {
  const { pkcs8, spki } = checkPrivateKey(der, version)
  const unwrapper = await primitives.rsaUnwrapper(pkcs8, KEY_PAIR_PROFILES[version].oaep)
  return new UserKeyPair(version, await importSpki(spki, version), unwrapper, pkcs8)
}

/** What a call threw, as `class code`; 'nothing' when it did not throw, and anything but our own error goes through. */
export async function failure(work: () => unknown): Promise<string> {
  try {
    await work()
  } catch (error) {
    if (error instanceof SyncError) return `${error.class} ${error.code}`
    throw error
  }
  return 'nothing'
}
