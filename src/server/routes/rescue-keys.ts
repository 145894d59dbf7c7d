/**
 * Rescue keys: key pairs of rooms and of the system, for which file keys are wrapped beside those of the members. Whoever knows
 * the password of one opens it at a client; here they are as opaque as key pairs of users.
 * @module
 */
import { type Access, MANAGE, READ } from '../access.ts'
import { type Call, noContent, ok, type Reply, type RouteTable } from '../call.ts'
import { ApiError, badRequest, fileNotFound, forbidden, nodeNotFound } from '../errors.ts'
import { dropKeyPair, giveKeyPair, keyPairsOf, RESCUE_BASE, rescueHoldersOf, SYSTEM_RESCUE } from '../holders.ts'
import { FILE, KEY_VERSIONS, type KeyPairRecord, type KeyVersion, type NodeRecord, ROOM } from '../records.ts'
import type { Change } from '../tree.ts'
import { asFields, field, keyVersionOf, parseKeyPair, parsePrivateKey } from '../validate.ts'
import { keyPairView, preferredKeyPair } from '../view.ts'

const noRoomKey = (): ApiError => new ApiError(404, -40007, 'Room has no rescue key')
const noSystemKey = (): ApiError => new ApiError(404, -70020, 'There is no rescue key of the system')

function versionOf(query: URLSearchParams): KeyVersion | undefined {
  const text = query.get('version')
  if (text === null || text === '') return undefined
  const version = KEY_VERSIONS.find((known) => known === text)
  if (version === undefined) throw badRequest(-70022, 'Unknown key pair version')
  return version
}

/** The room in the path, if it is encrypted. */
function encryptedRoom(call: Call, access: Access, bits: number): NodeRecord {
  const room = access.node(call.id())
  if (room.type !== ROOM) throw nodeNotFound()
  access.require(room, bits)
  if (!room.encrypted) throw badRequest(-40001, 'Room is not encrypted')
  return room
}

/** Whose key pairs a request is about. */
interface Place {
  holder: number
  notFound(): ApiError
}
type FindPlace = (call: Call, access: Access, aim: 'read' | 'change') => Place

const roomPlace: FindPlace = (call, access, aim) => {
  const room = encryptedRoom(call, access, aim === 'read' ? READ : MANAGE)
  if (aim === 'read') {
    const holder = rescueHoldersOf(call.app.store, room.id).find((id) => id !== SYSTEM_RESCUE)
    return { holder: holder ?? RESCUE_BASE + room.id, notFound: noRoomKey }
  }
  if (room.parentId !== 0) throw forbidden('Only rooms at the top have rescue keys of their own')
  return { holder: RESCUE_BASE + room.id, notFound: noRoomKey }
}

const systemPlace: FindPlace = (call, _access, aim) => {
  if (aim === 'change' && call.user.isAdmin !== true) throw forbidden()
  if (preferredKeyPair(call.app.store, call.user.id) === undefined) {
    throw new ApiError(403, -70020, 'User does not have a keypair')
  }
  return { holder: SYSTEM_RESCUE, notFound: noSystemKey }
}

function pairsAt(call: Call, find: FindPlace): KeyPairRecord[] {
  const { holder, notFound } = find(call, call.access, 'read')
  const pairs = keyPairsOf(call.app.store, holder)
  if (pairs.length === 0) throw notFound()
  return pairs
}

const getOne =
  (find: FindPlace) =>
  (call: Call): Reply => {
    const { notFound } = find(call, call.access, 'read')
    const version = versionOf(call.query)
    const pair = pairsAt(call, find).find((one) => version === undefined || one.version === version)
    if (pair === undefined) throw notFound()
    return ok(keyPairView(pair))
  }

const getAll =
  (find: FindPlace) =>
  (call: Call): Reply =>
    ok(pairsAt(call, find).map(keyPairView))

/** A new pair; one beside an older one may bring the private key of that under a new password. */
const add =
  (find: FindPlace) =>
  async (call: Call): Promise<Reply> => {
    void call.user
    const body = await call.json()
    const pair = parseKeyPair(body)
    const previousField = field(body, 'previousPrivateKey')
    const previous = previousField === undefined ? undefined : parsePrivateKey(asFields(previousField))
    await call.change((change, access) => {
      const { holder } = find(call, access, 'change')
      giveKeyPair(change, holder, pair)
      if (previous !== undefined) relock(change, holder, pair.version, previous)
    })
    return noContent()
  }

function relock(
  { store, tx }: Change,
  holder: number,
  fresh: KeyVersion,
  { version, pem }: { version: KeyVersion; pem: string },
): void {
  const old = store.keyPairs.get([holder, version])
  if (old === undefined || version === fresh) throw badRequest(-70023, 'No such previous key pair')
  tx.put(store.keyPairs, [holder, version], { ...old, privateKey: pem })
}

/** Takes a pair away: the one named, or the less preferred. Files whose keys were wrapped for it stay. */
const remove =
  (find: FindPlace) =>
  async (call: Call): Promise<Reply> => {
    const version = versionOf(call.query)
    await call.change((change, access) => {
      const { holder, notFound } = find(call, access, 'change')
      const pairs = keyPairsOf(change.store, holder)
      const pair = version === undefined ? pairs.at(-1) : pairs.find((one) => one.version === version)
      if (pair === undefined) throw notFound()
      dropKeyPair(change, holder, pair.version)
    })
    return noContent()
  }

/** The key of a file as it is wrapped for a rescue key. */
const fileKeyFor =
  (isSystem: boolean) =>
  (call: Call): Reply => {
    const { store } = call.app
    const file = call.access.node(call.id('id', fileNotFound), fileNotFound)
    if (file.type !== FILE) throw fileNotFound()
    call.access.require(file, READ)
    if (!file.encrypted) throw badRequest(-40001, 'Room is not encrypted')
    const wanted = call.query.get('version')
    const versions = wanted === null || wanted === '' ? KEY_VERSIONS : [keyVersionOf(wanted)]
    const holder = rescueHoldersOf(store, file.roomId).find((id) => (id === SYSTEM_RESCUE) === isSystem)
    for (const version of versions) {
      const fileKey = holder === undefined ? undefined : store.fileKeys.get([file.id, holder, version])
      if (fileKey !== undefined) return ok(fileKey)
    }
    throw new ApiError(404, -40761, 'File key not found')
  }

const routesOf = (path: string, find: FindPlace): RouteTable => ({
  [`GET ${path}/keypair`]: getOne(find),
  [`POST ${path}/keypair`]: add(find),
  [`DELETE ${path}/keypair`]: remove(find),
  [`GET ${path}/keypairs`]: getAll(find),
  [`POST ${path}/keypairs`]: add(find),
})

export const rescueKeyRoutes: RouteTable = {
  ...routesOf('/v4/nodes/rooms/:id', roomPlace),
  ...routesOf('/v4/settings', systemPlace),
  'GET /v4/nodes/files/:id/data_room_file_key': fileKeyFor(false),
  'GET /v4/nodes/files/:id/data_space_file_key': fileKeyFor(true),
}
