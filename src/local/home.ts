/** Where everything is that this program keeps for its user: one private directory, and what is where in it. @module */
import { join } from 'node:path'

export interface HomePaths {
  /** The private directory itself. */
  readonly directory: string
  /** Locks of logins and of figures that are written. */
  readonly locks: string
  /** States of pairs, transfers and backup sets, with journals of what was interrupted, and their locks. */
  readonly states: string
  /** What is known of members' keys and of encrypted rooms. */
  readonly pins: string
  /** Public halves of own rescue keys, and where their containers are. */
  readonly rescueKeys: string
  /** Keys of servers that were seen first. */
  readonly serverKeys: string
  /** Which rules came from servers and wait for somebody. */
  readonly rules: string
  /** Locked key pairs that were replaced, until it is certain that what replaced them opens. */
  readonly keyPairs: string
  /** The public keys of links to encrypted files, as they were made here. */
  readonly shareKeys: string
  /** What interrupted sendings to file requests left. */
  readonly requests: string
  /** Encryption passwords, sealed by hardware. */
  readonly sealedPasswords: string
  /** File keys, sealed. */
  readonly fileKeys: string
  /** Names in remote folders, for a short time; see cli/completion. */
  readonly listings: string
  /** Content that is not checked yet. */
  readonly temporary: string
}

export interface Home extends HomePaths {
  /** False for a directory that goes with the client. */
  readonly isLasting: boolean
  /** Name of the login, which states and memories are kept under. */
  account(signal?: AbortSignal): Promise<string>
}

/** What is where in a private directory. */
export const homePaths = (directory: string): HomePaths => ({
  directory,
  locks: join(directory, 'locks'),
  states: join(directory, 'sync'),
  pins: join(directory, 'pins'),
  rescueKeys: join(directory, 'rescue-keys'),
  serverKeys: join(directory, 'server-keys.json'),
  rules: join(directory, 'rules'),
  keyPairs: join(directory, 'key-pairs'),
  shareKeys: join(directory, 'share-keys'),
  requests: join(directory, 'requests'),
  sealedPasswords: join(directory, 'sealed-passwords'),
  fileKeys: join(directory, 'file-keys'),
  listings: join(directory, 'listings'),
  temporary: join(directory, 'tmp'),
})
