/**
 * The discarding server as a process: `discard-server [s3|classic] [CERT KEY]`. Prints its address, ends with its standard
 * input. Both sides of every comparison talk to it, so that its own cost is the same for both.
 * @module
 */
import { readFileSync } from 'node:fs'
import { pattern } from '../server/content.ts'
import { listen } from '../server/http.ts'
import { createRooms } from '../server/room.ts'

const [storage = 's3', cert, key] = process.argv.slice(2)
const tls = cert === undefined || key === undefined ? undefined : { cert: readFileSync(cert), key: readFileSync(key) }
const scheme = tls === undefined ? 'http' : 'https'
const rooms = createRooms({ storage: storage === 'classic' ? 'classic' : 's3', scheme })
const server = await listen(rooms, pattern, tls)
process.stdout.write(`${scheme}://127.0.0.1:${server.port}\n`)
process.stdin.resume().on('end', () => process.exit(0))
