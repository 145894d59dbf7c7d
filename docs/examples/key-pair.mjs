/** Makes the account’s key pair: `SERVER=… USER=… PASSWORD_FILE=… KEY_PASSWORD_FILE=… node key-pair.mjs`. */
import { readFile } from 'node:fs/promises'
import { createClient, passwordAuthorizer } from 'sealsync'
import { need } from './ways.mjs'

const textOf = (name) => async () => (await readFile(need(name), 'utf8')).trim()
const client = createClient(need('SERVER'), {
  authorizer: (origin) => passwordAuthorizer(origin, { userName: need('USER'), password: textOf('PASSWORD_FILE') }),
  keyPassword: textOf('KEY_PASSWORD_FILE'),
})
await client.session.login()
try {
  await client.keys.create()
  console.log('made a key pair; keep its password: nobody can reset it')
} catch (error) {
  if (error.code !== 'KEY_PAIR_EXISTS') throw error
  console.log('there is a key pair already')
}
await client.session.logout()
await client.close()
