/**
 * Program of the thread that reads and encrypts; encryption-thread.ts says what it is asked for.
 * @module
 */
import { createHash, type Hash } from 'node:crypto'
import { MessageChannel, parentPort } from 'node:worker_threads'
import { type ResumableEncryptor, takeOverEncryptor } from '../../crypto/resumable.ts'
import { SyncError } from '../errors.ts'
import { readAt } from '../local/stable-read.ts'
import type { Answer, Order } from './encryption-thread.ts'
import { failureOf } from './thread.ts'

interface OpenFile {
  readonly fd: number
  readonly shown: string
  readonly stop: Int32Array
  readonly encryptor: ResumableEncryptor
  /** Of the plaintext, where it was asked for. */
  readonly hash: Hash | undefined
}

const READ_BYTES = 256 * 1024
/** Plaintext, on its way from the disk to the cipher. */
const buffer = Buffer.allocUnsafeSlow(READ_BYTES)
const files = new Map<number, OpenFile>()

function makePart({ number, file, offset, target }: Extract<Order, { do: 'part' }>): Answer {
  const { fd, shown, stop, encryptor, hash } = openFile(file)
  // The cipher has one order; another one would be another content under the same key.
  if (encryptor.bytes !== offset) throw new Error(`part ${number} is not the next one`)
  for (let at = 0; at < target.length; ) {
    if (Atomics.load(stop, 0) !== 0) throw new SyncError('cancelled', 'CANCELLED', 'The operation was cancelled')
    const piece = buffer.subarray(0, Math.min(READ_BYTES, target.length - at))
    readAt(fd, piece, offset + at, shown)
    hash?.update(piece)
    encryptor.updateInto(piece, target, at)
    encryptor.absorb(target.subarray(at, at + piece.length))
    at += piece.length
  }
  return { digest: encryptor.digest(number) }
}

function openFile(file: number): OpenFile {
  const opened = files.get(file)
  if (opened === undefined) throw new Error(`file ${file} is not open`)
  return opened
}

function carryOut(order: Order): Answer {
  switch (order.do) {
    case 'open':
      files.set(order.file, {
        ...order,
        encryptor: takeOverEncryptor(order.secrets, { checkOutput: order.checkOutput }),
        hash: order.isHashed ? createHash('sha256') : undefined,
      })
      return {}
    case 'part':
      return makePart(order)
    case 'confirm':
      openFile(order.file).encryptor.confirm(order.number, order.target)
      return {}
    case 'end': {
      const { encryptor, hash } = openFile(order.file)
      const fileKey = encryptor.final()
      files.delete(order.file)
      const { key, iv, tag } = fileKey
      const answer = {
        fileKey: { key: new Uint8Array(key), iv: new Uint8Array(iv), tag: new Uint8Array(tag) },
        sha256: hash?.digest('base64'),
      }
      fileKey.wipe()
      return answer
    }
    case 'abandon':
      files.get(order.file)?.encryptor.abandon()
      files.delete(order.file)
      return {}
  }
}

function onOrder(order: Order): void {
  let answer: Answer
  try {
    answer = carryOut(order)
  } catch (thrown) {
    answer = failureOf(thrown)
  }
  const { fileKey } = answer
  parentPort!.postMessage(answer, fileKey === undefined ? [] : [fileKey.key.buffer])
}

// The cipher cannot give memory back before a channel of its own has closed (crypto/primitives/node.ts), which takes some turns
// of the event loop; orders that follow each other closely would keep it from turning. So none is carried out before a channel
// that was closed later has, and the turn is over.
let early: Order[] | undefined = []
parentPort!.on('message', (order: Order) => void (early === undefined ? onOrder(order) : early.push(order)))
const turns = new MessageChannel()
turns.port1.once('close', () =>
  setImmediate(() => {
    for (const order of early!) onOrder(order)
    early = undefined
  }),
)
turns.port2.close()
