/**
 * The end of a stream, however it comes: read to its end, failed, or left, be it before the first chunk. A generator that was never
 * begun does not run its `finally`.
 * @module
 */

/** The same chunks; `onEnd` is called once, when nothing more comes. */
export function withEnd(stream: AsyncIterable<Uint8Array>, onEnd: () => void): AsyncIterable<Uint8Array> {
  let isOver = false
  const end = () => {
    if (isOver) return
    isOver = true
    onEnd()
  }
  return {
    [Symbol.asyncIterator]() {
      const source = stream[Symbol.asyncIterator]()
      return {
        async next() {
          try {
            const result = await source.next()
            if (result.done === true) end()
            return result
          } catch (error) {
            end()
            throw error
          }
        },
        async return() {
          try {
            await source.return?.()
          } finally {
            end()
          }
          return { done: true, value: undefined }
        },
      }
    },
  }
}
