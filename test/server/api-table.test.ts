/** Each operation of the description of the API has a row in docs/server-api.md, and a route. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { createRouter } from '../../src/server/routes/index.ts'
import { ROOT } from '../support/pages.ts'

/** The operations of openapi.json. */
const OPERATIONS = `
GET /v4/user/ping
POST /v4/user/logout
GET /v4/user/account
PUT /v4/user/account
GET /v4/user/account/customer
PUT /v4/user/account/customer
GET /v4/user/account/keypair
POST /v4/user/account/keypair
DELETE /v4/user/account/keypair
GET /v4/user/account/keypairs
POST /v4/user/account/keypairs
GET /v4/user/account/avatar
POST /v4/user/account/avatar
DELETE /v4/user/account/avatar
GET /v4/user/profileAttributes
PUT /v4/user/profileAttributes
POST /v4/user/profileAttributes
DELETE /v4/user/profileAttributes/{key}
GET /v4/user/subscriptions/nodes
PUT /v4/user/subscriptions/nodes
POST /v4/user/subscriptions/nodes/{node_id}
DELETE /v4/user/subscriptions/nodes/{node_id}
GET /v4/config/info/defaults
GET /v4/config/info/general
GET /v4/config/info/infrastructure
GET /v4/config/info/s3_tags
GET /v4/config/info/policies/passwords
GET /v4/config/info/policies/algorithms
GET /v4/public/software/version
GET /v4/public/system/info
GET /v4/public/system/info/auth/ad
GET /v4/public/system/info/auth/openid
GET /v4/public/time
GET /v4/public/shares/downloads/{access_key}
POST /v4/public/shares/downloads/{access_key}
GET /v4/public/shares/downloads/{access_key}/{token}
HEAD /v4/public/shares/downloads/{access_key}/{token}
GET /v4/public/shares/uploads/{access_key}
POST /v4/public/shares/uploads/{access_key}
GET /v4/public/shares/uploads/{access_key}/{upload_id}
PUT /v4/public/shares/uploads/{access_key}/{upload_id}
POST /v4/public/shares/uploads/{access_key}/{upload_id}
DELETE /v4/public/shares/uploads/{access_key}/{upload_id}
PUT /v4/public/shares/uploads/{access_key}/{upload_id}/s3
POST /v4/public/shares/uploads/{access_key}/{upload_id}/s3_urls
POST /v4/auth/login
GET /v4/auth/ping
GET /v4/nodes
DELETE /v4/nodes
GET /v4/nodes/search
GET /v4/nodes/{node_id}
DELETE /v4/nodes/{node_id}
POST /v4/nodes/{node_id}/move_to
POST /v4/nodes/{node_id}/copy_to
GET /v4/nodes/{node_id}/parents
POST /v4/nodes/{node_id}/favorite
DELETE /v4/nodes/{node_id}/favorite
GET /v4/nodes/{node_id}/comments
POST /v4/nodes/{node_id}/comments
PUT /v4/nodes/comments/{comment_id}
DELETE /v4/nodes/comments/{comment_id}
GET /v4/nodes/missingFileKeys
GET /v4/nodes/{node_id}/deleted_nodes
DELETE /v4/nodes/{node_id}/deleted_nodes
GET /v4/nodes/{node_id}/deleted_nodes/versions
DELETE /v4/nodes/deleted_nodes
GET /v4/nodes/deleted_nodes/{deleted_node_id}
POST /v4/nodes/deleted_nodes/actions/restore
POST /v4/nodes/folders
PUT /v4/nodes/folders/{folder_id}
PUT /v4/nodes/files
PUT /v4/nodes/files/{file_id}
GET /v4/nodes/files/{file_id}/downloads
POST /v4/nodes/files/{file_id}/downloads
HEAD /v4/nodes/files/{file_id}/downloads
GET /v4/nodes/files/{file_id}/user_file_key
GET /v4/nodes/files/{file_id}/data_space_file_key
GET /v4/nodes/files/{file_id}/data_room_file_key
POST /v4/nodes/files/keys
POST /v4/nodes/files/uploads
GET /v4/nodes/files/uploads/{upload_id}
PUT /v4/nodes/files/uploads/{upload_id}
POST /v4/nodes/files/uploads/{upload_id}
DELETE /v4/nodes/files/uploads/{upload_id}
POST /v4/nodes/files/uploads/{upload_id}/s3_urls
PUT /v4/nodes/files/uploads/{upload_id}/s3
POST /v4/nodes/rooms
PUT /v4/nodes/rooms/{room_id}
PUT /v4/nodes/rooms/{room_id}/config
PUT /v4/nodes/rooms/{room_id}/encrypt
GET /v4/nodes/rooms/{room_id}/users
PUT /v4/nodes/rooms/{room_id}/users
DELETE /v4/nodes/rooms/{room_id}/users
GET /v4/nodes/rooms/{room_id}/groups
PUT /v4/nodes/rooms/{room_id}/groups
DELETE /v4/nodes/rooms/{room_id}/groups
GET /v4/nodes/rooms/{room_id}/keypair
POST /v4/nodes/rooms/{room_id}/keypair
DELETE /v4/nodes/rooms/{room_id}/keypair
GET /v4/nodes/rooms/{room_id}/keypairs
POST /v4/nodes/rooms/{room_id}/keypairs
GET /v4/nodes/rooms/{room_id}/webhooks
PUT /v4/nodes/rooms/{room_id}/webhooks
GET /v4/nodes/rooms/{room_id}/events
PUT /v4/uploads/{token}
POST /v4/uploads/{token}
DELETE /v4/uploads/{token}
GET /v4/downloads/{token}
HEAD /v4/downloads/{token}
GET /v4/settings/keypair
POST /v4/settings/keypair
DELETE /v4/settings/keypair
GET /v4/settings/keypairs
POST /v4/settings/keypairs
GET /v4/settings/webhooks
POST /v4/settings/webhooks
GET /v4/eventlog/events
GET /v4/eventlog/operations
GET /v4/shares/downloads
PUT /v4/shares/downloads
POST /v4/shares/downloads
DELETE /v4/shares/downloads
GET /v4/shares/downloads/{share_id}
PUT /v4/shares/downloads/{share_id}
DELETE /v4/shares/downloads/{share_id}
GET /v4/shares/uploads
PUT /v4/shares/uploads
POST /v4/shares/uploads
DELETE /v4/shares/uploads
GET /v4/shares/uploads/{share_id}
PUT /v4/shares/uploads/{share_id}
DELETE /v4/shares/uploads/{share_id}
POST /v4/shares/downloads/{share_id}/email
POST /v4/shares/uploads/{share_id}/email
`
  .trim()
  .split('\n')

interface Row {
  readonly operation: string
  readonly state: string
  readonly note: string
}

const rows: Row[] = readFileSync(join(ROOT, 'docs/server-api.md'), 'utf8')
  .split('\n')
  .flatMap((line) => {
    const match = /^\| `([A-Z]+ \/[^`]+)` \| ([^|]*) \|(.*)\|$/.exec(line)
    return match === null ? [] : [{ operation: match[1]!, state: match[2]!.trim(), note: match[3]!.trim() }]
  })

test('every operation has one row, in the order of the description, and what is not whole says why', () => {
  expect(OPERATIONS).toHaveLength(134)
  expect(rows.slice(0, OPERATIONS.length).map(({ operation }) => operation)).toEqual(OPERATIONS)
  expect(new Set(rows.map(({ operation }) => operation)).size).toBe(rows.length)
  for (const { operation, state, note } of rows) {
    expect(['whole', 'partly', 'none'], operation).toContain(state)
    if (state !== 'whole') expect(note, operation).not.toBe('')
  }
})

test('every row has a route: nothing that the description knows is unknown', () => {
  const router = createRouter()
  const unknown = rows.filter(({ operation }) => {
    const [method = '', path = ''] = operation.split(' ')
    const found = router.find(method, `/api${path.replaceAll(/\{[^}]+\}/g, '7')}`)
    return found === undefined || found === 'method'
  })
  expect(unknown.map(({ operation }) => operation)).toEqual([])
})
