/**
 * Program of the thread that decrypts and writes; decryption-thread.ts says what it is asked for.
 * @module
 */
import { parentPort } from 'node:worker_threads'
import { FileKey } from '../../crypto/file-key.ts'
import { release } from '../../crypto/primitives/node.ts'
import type { Answer, Order } from './decryption-thread.ts'
import { openPlaintextFile, type PlaintextFile } from './plaintext-file.ts'
import { failureOf } from './thread.ts'

const files = new Map<number, { readonly file: PlaintextFile; readonly fileKey: FileKey | undefined }>()

function opened(id: number): PlaintextFile {
  const entry = files.get(id)
  if (entry === undefined) throw new Error(`file ${id} is not open`)
  return entry.file
}

function forget(id: number): void {
  files.get(id)?.fileKey?.wipe()
  files.delete(id)
}

function carryOut(order: Order): Answer {
  switch (order.do) {
    case 'open': {
      const { id, fd, shown, secrets, isHashed } = order
      const fileKey = secrets && new FileKey(secrets.key, secrets.iv, secrets.tag)
      files.set(id, { file: openPlaintextFile(fd, shown, fileKey, isHashed), fileKey })
      return {}
    }
    case 'replay':
      opened(order.id).replay(order.bytes)
      return {}
    case 'write':
      opened(order.id).write(order.chunks)
      // They were given to us whole. Left to the garbage collector they are many megabytes before it looks.
      for (const chunk of order.chunks) release(chunk)
      return {}
    case 'end':
      return { sha256: opened(order.id).end() }
    case 'forget':
      forget(order.id)
      return {}
  }
}

parentPort!.on('message', (order: Order) => {
  let answer: Answer
  try {
    answer = carryOut(order)
  } catch (thrown) {
    answer = failureOf(thrown)
  }
  parentPort!.postMessage(answer)
})
