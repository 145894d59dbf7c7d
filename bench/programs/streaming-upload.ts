/**
 * Reads, encrypts and sends a file in one request, each piece given up as soon as it is on the wire: nothing is kept for a
 * second try. Not a way to upload; it shows what keeping parts, and all else around the bytes, costs. `streaming-upload FILE URL`
 * @module
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { request } from 'node:http'
import { createFileEncryptor } from '../../crypto/index.ts'

const [file = '', url = ''] = process.argv.slice(2)
const PIECE = 256 * 1024
const RING = 4

const fd = openSync(file, 'r')
const { size } = fstatSync(fd)
const encryptor = createFileEncryptor({ checkOutput: true })
const plain = Buffer.allocUnsafeSlow(PIECE)
const free = Array.from({ length: RING }, () => Buffer.allocUnsafeSlow(PIECE))
const upload = request(url, { method: 'PUT', headers: { 'content-length': size } })
const answered = new Promise<number>((resolve, reject) => {
  upload.once('error', reject)
  upload.once('response', (response) => response.resume().once('end', () => resolve(response.statusCode ?? 0)))
})

let at = 0
function fill(): void {
  for (let slab = free.pop(); slab !== undefined && at < size; slab = free.pop()) {
    const used = slab
    const read = readSync(fd, plain, 0, Math.min(PIECE, size - at), at)
    encryptor.updateInto(plain.subarray(0, read), used, 0)
    at += read
    upload.write(used.subarray(0, read), () => {
      free.push(used)
      fill()
    })
  }
  if (at === size && !upload.writableEnded) upload.end()
}
fill()
const status = await answered
closeSync(fd)
encryptor.final()
if (status !== 200) throw new Error(`the server answered ${status}`)
