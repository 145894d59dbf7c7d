/** File content on its way down. @module */

import { parseForeignUrl } from '../http/addresses.ts'
import type { HttpResponse } from '../http/types.ts'
import { type Api, callFor, expectSuccess } from './api.ts'
import { parseDownload } from './wire.ts'

/** A URL for the content of a file, good for a while and for many ranges. */
export const createDownload = async (api: Api, fileId: number, signal?: AbortSignal): Promise<string> =>
  (
    await callFor(
      api,
      { method: 'POST', path: `/v4/nodes/files/${fileId}/downloads`, signal, repeatable: true },
      parseDownload,
    )
  ).downloadUrl

/**
 * Starts reading content.
 *
 * @param range - First byte wanted, and the one behind the last; `size` is that of the whole content, which is asked for as such.
 * @returns the response with its `stream`; the status is 200 or 206, the caller checks which.
 */
export async function openDownload(
  api: Api,
  url: string,
  { start, end, size }: { start: number; end: number; size: number },
  signal?: AbortSignal,
): Promise<HttpResponse> {
  const response = await api.sendPlain({
    method: 'GET',
    url: parseForeignUrl(url, api.origin).href,
    stream: true,
    label: 'file content',
    headers: end - start === size ? {} : { range: `bytes=${start}-${end === size ? '' : end - 1}` },
    ...(signal === undefined ? {} : { signal }),
  })
  return expectSuccess(response, 'GET file content')
}
