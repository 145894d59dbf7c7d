/**
 * Accepts users who wait to be let into rooms because they are in a group: `node pending-assignments.mjs [GROUP_ID]`, of one group or
 * of all. Whoever is let in can read the room, so all are named first.
 */
import { openSession } from './ways.mjs'

const group = process.argv[2] === undefined ? undefined : Number(process.argv[2])
const session = await openSession()
const { items } = await session.get('/api/v4/nodes/rooms/pending', { query: { offset: 0, limit: 500 } })
const wanted = items.filter(({ groupId }) => group === undefined || groupId === group)
for (const { userInfo, groupInfo, roomName } of wanted) {
  console.log(`${userInfo.userName} by group ${groupInfo.name} into ${roomName}`)
}
if (wanted.length > 0) {
  const decided = wanted.map(({ userId, groupId, roomId }) => ({ userId, groupId, roomId, state: 'ACCEPTED' }))
  await session.put('/api/v4/nodes/rooms/pending', { json: { items: decided } })
}
console.log(`accepted ${wanted.length}`)
await session.close()
