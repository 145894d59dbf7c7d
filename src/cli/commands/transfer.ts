/** upload and download: files and directories, a content that is in no file, or by a link. @module */
import { isLink } from '../../client/index.ts'
import type { Context } from '../context.ts'
import { downloadPiped, uploadPiped } from './pipes.ts'
import { runOf, runOne } from './sync.ts'

export async function upload(context: Context, paths: readonly string[]): Promise<number> {
  if (context.options.toRequest !== undefined) return (await import('./links.ts')).send(context, paths)
  const isPiped = context.options.fromCommand !== undefined || paths.slice(0, -1).includes('-')
  return isPiped ? uploadPiped(context, paths) : (await runOne(context, runOf(context, 'upload', paths))).exitCode
}

export async function download(context: Context, paths: readonly string[]): Promise<number> {
  if (isLink(paths[0]!)) return (await import('./links.ts')).download(context, paths)
  const isPiped = paths.length > 1 && paths.at(-1) === '-'
  return isPiped ? downloadPiped(context, paths) : (await runOne(context, runOf(context, 'download', paths))).exitCode
}
