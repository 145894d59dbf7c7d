/** Content on standard output. @module */
import type { RemoteContent } from '../client/index.ts'
import { localError, systemCode } from '../errors.ts'

/** @returns false when nobody reads any more. */
const print = (bytes: Uint8Array) =>
  new Promise<boolean>((resolve, reject) => {
    process.stdout.write(bytes, (error) => {
      if (!error) resolve(true)
      else if (systemCode(error) === 'EPIPE') resolve(false)
      else reject(localError(error, 'write the content'))
    })
  })

/** @returns bytes that were printed; `undefined` when nobody reads any more. */
export async function printAll(content: RemoteContent): Promise<number | undefined> {
  for await (const chunk of content) if (!(await print(chunk))) return undefined
  return content.size
}
