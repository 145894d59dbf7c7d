/**
 * What the API has and this server does not do: the answers by which the API says "none", so that clients that ask go on. No mail is
 * sent from here, nothing calls other servers, nothing looks for viruses, and there are no guests.
 * @module
 */
import { type Call, noContent, ok, type Reply, type RouteTable } from '../call.ts'
import { ApiError, badRequest, forbidden } from '../errors.ts'
import { ROOM } from '../records.ts'
import { field, idList, optionalArray, optionalBoolean, optionalInteger, pageOf, pageReply } from '../validate.ts'
import { dateView } from '../view.ts'
import { administratorOf } from './roles.ts'
import { managedRoom } from './rooms.ts'

const emptyPage = (call: Call): Reply => ok(pageReply([], pageOf(call.query)))

/** A list that is empty for everybody with a login. */
function emptyList(call: Call): Reply {
  void call.user
  return emptyPage(call)
}

const cannotSubscribe = (): ApiError => badRequest(-80061, 'Cannot subscribe node')

async function subscribeMany(call: Call): Promise<Reply> {
  void call.user
  const body = await call.json()
  const ids = idList(body, 'objectIds')
  for (const id of ids) call.access.node(id)
  if (optionalBoolean(body, 'isSubscribed') !== false) throw cannotSubscribe()
  return noContent()
}

function roomPolicies(call: Call): Reply {
  managedRoom(call, call.access)
  return ok({ defaultExpirationPeriod: 0, virusProtectionEnabled: false })
}

/** Takes what is in force anyway. */
async function setRoomPolicies(call: Call): Promise<Reply> {
  managedRoom(call, call.access)
  const body = await call.json()
  const isNone =
    (optionalInteger(body, 'defaultExpirationPeriod') ?? 0) === 0 &&
    optionalBoolean(body, 'virusProtectionEnabled') !== true
  if (!isNone) throw forbidden('This server has no such policies')
  return noContent()
}

async function roomWebhooks(call: Call): Promise<Reply> {
  managedRoom(call, call.access)
  const items = optionalArray(await call.json(), 'items')
  if (items === undefined) throw badRequest(-80000, 'items is mandatory')
  if (items.length > 0) throw new ApiError(404, undefined, 'Webhook not found')
  return emptyPage(call)
}

/** Encryption is always on; a rescue key of the system has a route of its own. */
async function switchEncryptionOn(call: Call): Promise<Reply> {
  administratorOf(call)
  const body = await call.json()
  if (optionalBoolean(body, 'enableCustomerEncryption') !== true || field(body, 'dataSpaceRescueKey') !== undefined) {
    throw badRequest(undefined, 'Encryption is on already; a rescue key goes to settings/keypair')
  }
  return noContent()
}

export const noneRoutes: RouteTable = {
  'GET /v4/auth/ping': ({ app }) => ({
    status: 200,
    headers: { 'Content-Type': 'text/plain' },
    body: `OK ${dateView(app.now())}`,
  }),
  // The old way to log in, which knows no second factor.
  'POST /v4/auth/login': () => {
    throw badRequest(-10100, 'Invalid authentication method: log in with OAuth')
  },
  'PUT /v4/user/account/customer': switchEncryptionOn,
  'GET /v4/user/subscriptions/nodes': emptyList,
  'PUT /v4/user/subscriptions/nodes': subscribeMany,
  'POST /v4/user/subscriptions/nodes/:id': (call) => {
    call.node()
    throw cannotSubscribe()
  },
  'DELETE /v4/user/subscriptions/nodes/:id': (call) => {
    call.node()
    return noContent()
  },
  'GET /v4/config/info/product_packages': (call) => {
    void call.user
    return ok({ packages: [] })
  },
  'GET /v4/config/info/product_packages/current': (call) => {
    void call.user
    return ok({ packages: [] })
  },
  'GET /v4/nodes/rooms/:id/policies': roomPolicies,
  'PUT /v4/nodes/rooms/:id/policies': setRoomPolicies,
  'PUT /v4/nodes/rooms/:id/guest_users': (call) => {
    managedRoom(call, call.access)
    throw forbidden('This server has no guests')
  },
  'GET /v4/nodes/rooms/:id/webhooks': (call) => {
    const room = call.node()
    if (room.type !== ROOM) throw new ApiError(404, -41000, 'Node not found')
    return emptyPage(call)
  },
  'PUT /v4/nodes/rooms/:id/webhooks': roomWebhooks,
  'GET /v4/settings/webhooks': (call) => {
    administratorOf(call)
    return emptyPage(call)
  },
  'POST /v4/settings/webhooks': (call) => {
    administratorOf(call)
    throw new ApiError(403, -91001, 'Exceeds number of allowed webhooks')
  },
}
