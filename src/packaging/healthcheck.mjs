/**
 * Asks the server in the same container whether it answers: exit code 0 or 1. SEALSYNC_HEALTH_URL where it does not listen on port 8080
 * without TLS. The certificate is not looked at, because nothing is told and nothing believed.
 * @module
 */
import { request as plain } from 'node:http'
import { request as tls } from 'node:https'

const PATH = '/readyz'
const LIMIT_MS = 4_000

const url = new URL(PATH, process.env.SEALSYNC_HEALTH_URL || 'http://127.0.0.1:8080')
const send = url.protocol === 'https:' ? tls : plain
const options = { rejectUnauthorized: false, timeout: LIMIT_MS, agent: false }
const request = send(url, options, (response) => process.exit(response.statusCode === 200 ? 0 : 1))
request.on('timeout', () => process.exit(1))
request.on('error', () => process.exit(1))
request.end()
