/**
 * Makes a room of their own for each user: `node personal-rooms.mjs PARENT_ID`. Users come page by page, and only they administrate
 * their room. One that is there already is left alone.
 */
import { openSession } from './ways.mjs'

const parentId = Number(process.argv[2])
if (!Number.isSafeInteger(parentId)) throw new Error('Say the id of the room that the rooms go into.')
const session = await openSession()
const LIMIT = 100
for (let offset = 0; ; offset += LIMIT) {
  const page = await session.get('/api/v4/users', { query: { offset, limit: LIMIT } })
  for (const { id, userName } of page.items) {
    try {
      const json = { name: userName, parentId, adminIds: [id], inheritPermissions: false, quota: 0 }
      const room = await session.post('/api/v4/nodes/rooms', { json })
      console.log(`made room ${room.id} for ${userName}`)
    } catch (error) {
      if (error.code !== 'CONFLICT') throw error
      console.log(`${userName} has a room`)
    }
  }
  // An empty page ends it whatever the total says.
  if (page.items.length === 0 || offset + LIMIT >= page.range.total) break
}
await session.close()
