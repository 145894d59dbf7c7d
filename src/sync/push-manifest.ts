/**
 * The last thing that a push does: it stores what it knows of the tree as the manifest of it, if that has changed. A manifest
 * that is not the one that this machine knows, nor follows from it, is told before it is replaced.
 * @module
 */
import { createHash } from 'node:crypto'
import { type BigIntStats, lstatSync, readlinkSync, rmSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import type { WrappedFileKey } from '../../crypto/index.ts'
import { getFileKey } from '../api/file-keys.ts'
import type { RemoteNode } from '../api/wire.ts'
import { toSyncError } from '../errors.ts'
import { MANIFEST_NAME } from '../local/atomic-file.ts'
import { writeManifest } from './manifest.ts'
import { GROWING, type SyncRecord, sealOf } from './records.ts'
import { type RunContext, report } from './run.ts'
import { keyOf, parentKey } from './scan.ts'
import type { ManifestPin, SyncState } from './state.ts'
import { type EntryFailure, showPath } from './tree.ts'
import {
  droppedManifest,
  isTooLongAgo,
  judgeManifest,
  MAX_PREVIOUS,
  readTreeManifest,
  type TreeEntry,
  type TreeManifest,
  type TreeManifestHead,
} from './tree-manifest.ts'
import type { Uploader } from './uploader.ts'

export interface PushManifestOptions {
  readonly state: SyncState
  readonly runId: string
  /** Private directory of the state. */
  readonly directory: string
  /** Absolute path. */
  readonly root: string
  readonly container: { readonly id: number; readonly roomId: number }
  /** The manifest as it was listed. */
  readonly found: RemoteNode | undefined
  /** Its file key, if that was asked for while contents were sent. */
  readonly foundKey?: Promise<WrappedFileKey> | undefined
  /** Paths of symbolic links. */
  readonly links: readonly (readonly string[])[]
  readonly uploader: Uploader
  /** Of the run; milliseconds since the epoch. */
  readonly startedAt: number
  /** Take another manifest than the one that is known for the right one. */
  readonly acceptAny: boolean
  readonly signal: AbortSignal
}

/**
 * Stores the manifest of a pushed tree, unless the one that is there says the same.
 *
 * @returns what is to be told: a manifest that is not the right one (class `integrity`), and why none was stored.
 * @throws when the run was stopped.
 */
export async function storeManifest(context: RunContext, options: PushManifestOptions): Promise<EntryFailure[]> {
  const told: EntryFailure[] = []
  const tell = (thrown: unknown) => {
    const error = toSyncError(thrown)
    told.push({ path: MANIFEST_NAME, error })
    report(context, MANIFEST_NAME, error)
  }
  try {
    await store(context, options, tell)
  } catch (thrown) {
    if (options.signal.aborted) throw thrown
    // Runs that send nothing do without the password; so the next one that does stores it.
    if (toSyncError(thrown).code === 'PASSWORD_NEEDED') warn(context, 'The manifest waits for a run with the password')
    else tell(thrown)
  }
  return told
}

const warn = (context: RunContext, message: string) => context.onEvent?.({ type: 'warning', code: 'MANIFEST', message })

async function store(
  context: RunContext,
  {
    state,
    runId,
    directory,
    root,
    container,
    found,
    foundKey,
    links,
    uploader,
    startedAt,
    acceptAny,
    signal,
  }: PushManifestOptions,
  tell: (error: unknown) => void,
): Promise<void> {
  const pin = state.manifest?.rootId === container.id ? state.manifest : undefined
  const linked = readLinks(context, root, links, state.current())
  const isEmpty = state.current().size === 0 && linked.length === 0
  if (isEmpty && pin === undefined && found === undefined) return
  const made = digestOf(root, state.current(), linked)
  const isThere = pin !== undefined && found?.id === pin.node && found.size === pin.size
  if (isThere && pin.made === made) return
  const before = await lookBefore(context, acceptAny ? undefined : pin, found, foundKey, signal)
  if (before.problem !== undefined && pin !== undefined && !acceptAny) tell(before.problem)
  else if (before.problem !== undefined) warn(context, `It is replaced: ${before.problem.message}`)
  if (before.manifest !== undefined) learn(state, before.manifest)

  const head: TreeManifestHead = {
    sequence: before.sequence + 1,
    previous: before.previous.slice(0, MAX_PREVIOUS),
    startedAt: new Date(startedAt).toISOString(),
    host: hostname(),
  }
  const path = join(directory, 'manifest.json')
  const entries = describe(root, state.current(), linked)
  const { sha256 } = await writeManifest(path, head, entries)
  const { id: parentId, roomId } = container
  const request = {
    source: path,
    shown: MANIFEST_NAME,
    parentId,
    roomId,
    name: MANIFEST_NAME,
    replaces: found,
    isUntold: true,
  }
  const { node, bytes, seal } = await uploader.send(request, signal)
  const { sequence, previous } = head
  if (found === undefined && pin === undefined) {
    state.addDeed(runId, { do: 'created-remote', path: MANIFEST_NAME, id: node.id, isFolder: false })
  }
  state.setManifest({
    rootId: container.id,
    node: node.id,
    size: bytes,
    seal: sealOf(seal!),
    sequence,
    sha256,
    previous,
    made,
  })
  try {
    rmSync(path, { force: true })
  } catch {
    // The next run writes it anew; this one is done.
  }
}

/** What a new manifest follows. */
interface Before extends Pick<TreeManifestHead, 'sequence' | 'previous'> {
  /** Class `integrity`; the new one follows what is pinned then. */
  readonly problem?: ReturnType<typeof judgeManifest>
  /** Another one than the pinned one, as far as it is right. */
  readonly manifest?: TreeManifest
}

async function lookBefore(
  context: RunContext,
  pin: ManifestPin | undefined,
  found: RemoteNode | undefined,
  foundKey: PushManifestOptions['foundKey'],
  signal: AbortSignal,
): Promise<Before> {
  const known =
    pin === undefined
      ? { sequence: 0, previous: [] }
      : { sequence: pin.sequence, previous: [pin.sha256, ...pin.previous] }
  if (found === undefined) return pin === undefined ? known : { ...known, problem: droppedManifest() }
  if (found.id === pin?.node) {
    const key = (await foundKey?.catch(() => undefined)) ?? (await getFileKey(context.api, found.id, signal))
    if (sealOf(key) === pin.seal) return known
  }
  if (context.keyring.isWriteOnly) {
    warn(context, 'There is a manifest that this machine has not made, and cannot read; it is replaced')
    return known
  }
  try {
    const there = await readTreeManifest(context, found, signal)
    const problem = pin && judgeManifest(pin, there)
    if (problem !== undefined) return { ...known, problem }
    const { manifest, sha256 } = there
    const { sequence, previous, host, startedAt } = manifest
    if (pin === undefined || isTooLongAgo(pin, manifest))
      warn(context, `A manifest that this machine did not know is replaced: ${host}, ${startedAt}`)
    return { sequence, previous: [sha256, ...previous], manifest }
  } catch (thrown) {
    const problem = toSyncError(thrown)
    if (problem.class !== 'integrity') throw thrown
    return { ...known, problem }
  }
}

/** Takes over what a manifest knows of contents and this machine has forgotten. */
function learn(state: SyncState, { entries }: TreeManifest): void {
  for (const entry of entries) {
    if (entry.kind !== 'file' || entry.seal === undefined) continue
    const key = keyOf(entry.path.split('/'))
    const record = state.current().get(key)
    if (record?.kind !== 'file' || record.remote.id !== entry.node || record.seal !== undefined) continue
    const { seal, sha256 } = entry
    const known = sha256 === undefined ? {} : { sha256: Buffer.from(sha256, 'hex').toString('base64') }
    state.put(key, { ...record, seal, ...known })
  }
}

interface Linked {
  readonly path: string
  readonly target: string
}

/** The links whose directories are on the server. */
function readLinks(
  context: RunContext,
  root: string,
  links: readonly (readonly string[])[],
  records: ReadonlyMap<string, SyncRecord>,
): Linked[] {
  const found: Linked[] = []
  for (const path of links) {
    const key = keyOf(path)
    // What was a file before is still one there.
    if (records.has(key) || (path.length > 1 && records.get(parentKey(key))?.kind !== 'directory')) continue
    let bytes: Buffer
    try {
      bytes = readlinkSync(join(root, ...path), { encoding: 'buffer' })
    } catch {
      continue // gone, or no link any more
    }
    const target = bytes.toString('utf8')
    if (Buffer.from(target, 'utf8').equals(bytes)) found.push({ path: showPath(path), target })
    else warn(context, `The target of the link ${showPath(path)} is not UTF-8; the link is left out`)
  }
  return found
}

const HASH_LENGTH = 64 * 1024

/** Of all that makes another manifest, but cheaper: changes of a file show in its record, also that of its mode. */
function digestOf(root: string, records: ReadonlyMap<string, SyncRecord>, links: readonly Linked[]): string {
  const hash = createHash('sha256')
  let text = ''
  const add = (line: string) => {
    text += line
    if (text.length < HASH_LENGTH) return
    hash.update(text)
    text = ''
  }
  for (const { kind, path, local, remote } of records.values()) {
    const state = kind === 'file' ? local.ctimeMs : look(join(root, path))?.mode
    add(`${path}\0${remote.id}\0${state}\n`)
  }
  for (const { path, target } of links) add(`${path}\0\0${target}\n`)
  return hash.update(text).digest('base64')
}

function look(path: string): BigIntStats | undefined {
  try {
    return lstatSync(path, { bigint: true, throwIfNoEntry: false })
  } catch {
    return undefined
  }
}

const PERMISSIONS = 0o7777n

const onDisk = ({ mode, mtimeNs }: BigIntStats) => ({ mode: Number(mode & PERMISSIONS), mtimeNs: String(mtimeNs) })

function* describe(
  root: string,
  records: ReadonlyMap<string, SyncRecord>,
  links: readonly Linked[],
): Generator<TreeEntry> {
  for (const { kind, path, local, remote, seal, sha256 } of records.values()) {
    const now = look(join(root, path))
    if (kind === 'directory') {
      yield { kind, path, ...(now?.isDirectory() ? onDisk(now) : {}), node: remote.id }
      continue
    }
    yield {
      kind,
      path,
      ...(now?.isFile() && isStill(local, now) ? onDisk(now) : {}),
      size: remote.size,
      node: remote.id,
      ...(seal === undefined ? {} : { seal }),
      ...(sha256 === undefined ? {} : { sha256: Buffer.from(sha256, 'base64').toString('hex') }),
      ...(local.size === GROWING.size ? { isInconsistent: true } : {}),
    }
  }
  for (const link of links) {
    const now = look(join(root, link.path))
    yield { kind: 'symlink', ...link, ...(now?.isSymbolicLink() ? onDisk(now) : {}) }
  }
}

/** True for the state that was pushed. Milliseconds with a fraction are finer than a microsecond. */
const isStill = (local: SyncRecord['local'], { size, ino, mtimeNs }: BigIntStats): boolean =>
  Number(size) === local.size && Number(ino) === local.ino && Math.abs(Number(mtimeNs) / 1e6 - local.mtimeMs) < 0.001
