/**
 * The delay proxy as a process: `delay-proxy PORT` in front of a loopback server. Prints its own port, then answers each line of
 * its standard input, a link as JSON or `{}` for the one before, with what was counted since the last answer. Ends with its input.
 * @module
 */
import { createInterface } from 'node:readline'
import { type Link, startDelayProxy } from '../server/delay-proxy.ts'

let link: Link = { oneWayMs: 0, bytesPerSecond: 0, windowBytes: 2 ** 20 }
const proxy = await startDelayProxy(Number(process.argv[2]), link)
process.stdout.write(`${proxy.port}\n`)
createInterface({ input: process.stdin })
  .on('line', (line) => {
    link = { ...link, ...JSON.parse(line) }
    proxy.setLink(link)
    process.stdout.write(`${JSON.stringify(proxy.takeCounts())}\n`)
  })
  .on('close', () => process.exit(0))
