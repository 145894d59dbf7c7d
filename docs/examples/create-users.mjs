/**
 * Creates the users of a list: `node create-users.mjs users.json`, where each entry is `{ "userName", "firstName", "lastName",
 * "email" }`. Whoever is there already is left alone. The server mails them how to set a password.
 */
import { readFile } from 'node:fs/promises'
import { openSession } from './ways.mjs'

const users = JSON.parse(await readFile(process.argv[2] ?? 'users.json', 'utf8'))
const session = await openSession()
for (const { userName, firstName, lastName, email } of users) {
  const authData = { method: 'basic', mustChangePassword: true }
  try {
    await session.post('/api/v4/users', {
      json: { userName, firstName, lastName, email, authData, notifyUser: true },
    })
    console.log(`created ${userName}`)
  } catch (error) {
    if (error.code !== 'CONFLICT') {
      console.error(`${userName}: ${error.message}`, error.serverMessage ?? '', error.fieldErrors)
      process.exitCode = 1
    } else console.log(`${userName} is there`)
  }
}
await session.close()
