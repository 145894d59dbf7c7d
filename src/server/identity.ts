/**
 * Which store this is, and which state of it is the newest: an identity and a generation in the metadata, and a mark with
 * both wherever content is kept. Metadata that is lost, foreign or older than the content must not decide what of the
 * content is alive, so a server does not start on it. What a place is comes from blob-files.ts and s3/objects.ts.
 * @module
 */
import { randomBytes } from 'node:crypto'
import { ADOPT, type Mark, type Place, refuse } from './mark.ts'
import type { Store } from './store.ts'

/** Identity, generation and newest version of a store, as they are on the disk. A new store gets its identity here. */
export async function identityOf(store: Store): Promise<Mark> {
  return store.write((tx) => {
    const known = store.meta.get('store')
    const id = typeof known === 'string' ? known : randomBytes(16).toString('hex')
    if (known === undefined) tx.put(store.meta, 'store', id)
    return { store: id, generation: numberIn(store, 'generation'), version: store.version() }
  })
}

const numberIn = (store: Store, key: string): number => {
  const value = store.meta.get(key)
  return typeof value === 'number' ? value : 0
}

/**
 * Compares a place with the metadata.
 *
 * @param usesPlace - Whether the metadata refers to content there.
 * @throws {SyncError} class `safety`: `STORE_FOREIGN`, `STORE_OLDER`, `CONTENT_OLDER`, `CONTENT_MISSING`.
 */
export async function checkPlace(store: Store, place: Place, usesPlace: () => boolean): Promise<void> {
  const mark = await place.readMark()
  const id = store.meta.get('store')
  if (mark === undefined) {
    if (usesPlace()) {
      const message = `${place.name} is not what the metadata refers to: it has no mark of this store`
      throw refuse('CONTENT_MISSING', message, `Mount or name the right one. ${ADOPT}`)
    }
    if ((await place.hasContent()) === true) {
      throw refuse(
        'STORE_FOREIGN',
        `${place.name} holds content that this store does not know`,
        `Take another. ${ADOPT}`,
      )
    }
    return
  }
  if (mark.store !== id) {
    throw refuse('STORE_FOREIGN', `${place.name} belongs to another store`, `Name the one that belongs to it. ${ADOPT}`)
  }
  if (mark.generation > numberIn(store, 'generation') || mark.version > store.version()) {
    const message = `The metadata is older than the content in ${place.name}`
    throw refuse('STORE_OLDER', message, `Put the newest db directory back. ${ADOPT}`)
  }
  if (mark.generation < numberIn(store, place.key)) {
    const message = `The content in ${place.name} is older than the metadata`
    throw refuse('CONTENT_OLDER', message, `Put the newest content back. ${ADOPT}`)
  }
}

/** Leaves the mark of the present state in each place. */
export async function markPlaces(store: Store, places: readonly Place[]): Promise<void> {
  const mark = await identityOf(store)
  for (const place of places) await place.writeMark(mark)
}

/**
 * Begins a new generation: every state of the metadata from before now counts as older than the content.
 *
 * @param atLeast - For adopting: generation that a foreign mark has.
 */
export async function beginGeneration(store: Store, places: readonly Place[], atLeast = 0): Promise<number> {
  const { generation: last } = await identityOf(store)
  const generation = Math.max(last, atLeast) + 1
  await store.write((tx) => tx.put(store.meta, 'generation', generation))
  await markPlaces(store, places)
  // Only now: a crash in between must not make the content look old.
  await store.write((tx) => {
    for (const place of places) tx.put(store.meta, place.key, generation)
  })
  return generation
}
