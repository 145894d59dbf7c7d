/**
 * Starting on an object store: what is wrong is said at once and without secrets, directories from before stay readable, and
 * content that has to pass through the server passes through whole or not at all.
 * @module
 */
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmod, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { startServer } from '../../src/server/index.ts'
import { MAIN, runCli } from '../support/cli.ts'
import { type S3Server, startS3Server } from '../support/s3-server.ts'
import {
  ask,
  blobsIn,
  download,
  enter,
  freshDir,
  makeRoom,
  openUpload,
  partUrl,
  settled,
  signUp,
  startWorld,
  uploadClassic,
  uploadDirect,
  type World,
} from './support.ts'

async function startStore(): Promise<S3Server> {
  const store = await startS3Server()
  onTestFinished(() => store.stop())
  return store
}

test.each([
  ['a bucket that is not there', { bucket: 'other-bucket' }, 'usage', 'S3_BUCKET_MISSING'],
  ['a wrong secret', { secretAccessKey: 'canary-of-a-secret' }, 'usage', 'S3_REFUSED'],
  ['another region', { region: 'xx' }, 'usage', 'S3_REFUSED'],
  ['a port where nobody listens', { endpoint: 'http://127.0.0.1:9' }, 'network', 'S3_UNREACHABLE'],
])('%s', async (_what, more, kind, code) => {
  const store = await startStore()
  const dataDir = await freshDir()
  const start = (options: object) => startServer({ data: dataDir, s3: { ...store.options, ...options } })
  const error = await start(more).then(
    () => undefined,
    (reason: unknown) => reason as Error,
  )
  expect(error).toMatchObject({ class: kind, code })
  expect(`${error} ${error?.cause} ${JSON.stringify(error)}`).not.toMatch(/canary|X-Amz|Signature=/)
  // Nothing is in the way of the next start.
  await (await start({})).close()
})

test('content from before stays readable and deletable; without the store the server says what is missing', async () => {
  const store = await startStore()
  const first = await startWorld({ storage: 's3' })
  const ann = await signUp(first, 'ann')
  const room = await makeRoom(ann, 'R')
  const bytes = randomBytes(50_000)
  const { json: old } = await uploadClassic(ann, room, 'old', bytes)
  const { json: tiny } = await uploadClassic(ann, room, 'tiny', Buffer.from('tiny'))
  await first.server.close()

  const second = await startWorld({ data: first.dir, s3: store.options })
  const again = await enter(second, ann.id, 'ann')
  expect((await download(again, old.id)).body.equals(bytes)).toBe(true)
  expect((await download(again, tiny.id, { range: 'bytes=1-2' })).body.toString()).toBe('in')
  const { uploadId } = await uploadDirect(again, room, 'new', [Buffer.from('new')])
  const { node } = await settled(again, uploadId)
  await again.call('DELETE', `/v4/nodes/${old.id}`)
  await again.call('DELETE', `/v4/nodes/${room}/deleted_nodes`)
  await expect.poll(() => blobsIn(first.dir)).toEqual([])
  expect(store.objects.size).toBe(1)
  await second.server.close()

  await expect(startServer({ data: first.dir })).rejects.toMatchObject({ class: 'usage', code: 'S3_NEEDED' })
  const third = await startWorld({ data: first.dir, s3: store.options })
  const later = await enter(third, ann.id, 'ann')
  expect((await download(later, node.id)).body.toString()).toBe('new')
  await later.call('DELETE', `/v4/nodes/${room}`)
  await expect.poll(() => store.objects.size).toBe(0)
  await third.server.close()
  // Nothing is there any more, so nothing is missing.
  await (await startServer({ data: first.dir })).close()
})

test('through the server: a store that fails is a 5xx, one that cuts is a cut, never other bytes', async () => {
  const store = await startStore()
  const world = await startWorld({ s3: store.options })
  const ann = await signUp(world, 'ann')
  const bytes = randomBytes(300_000)
  const { uploadId } = await uploadDirect(ann, await makeRoom(ann, 'R'), 'f', [bytes])
  const { node } = await settled(ann, uploadId)
  const { token, downloadUrl } = (await ann.call('POST', `/v4/nodes/files/${node.id}/downloads`)).json
  const get = () => ask(`${world.api}/v4/downloads/${token}`)
  store.fail('GetObject', { status: 503, code: 'SlowDown' }, 2)
  expect((await get()).body.equals(bytes)).toBe(true)
  store.fail('GetObject', { status: 403, code: 'AccessDenied' })
  expect((await get()).json).toMatchObject({ code: 502, errorCode: -90027 })
  store.fail('GetObject', { garbage: 'another length' })
  expect((await get()).json).toMatchObject({ code: 502, errorCode: -90027 })
  store.fail('GetObject', { cutAfterBytes: 100_000 })
  await expect(get()).rejects.toThrow()
  const key = [...store.objects.keys()][0] ?? ''
  const kept = store.objects.get(key) ?? Buffer.alloc(0)
  store.objects.delete(key)
  expect((await get()).json).toMatchObject({ code: 410, errorCode: -40751 })
  expect((await ask(downloadUrl)).status).toBe(404)
  store.objects.set(key, kept)
  expect((await get()).body.equals(bytes)).toBe(true)
  // The older way, with a login.
  expect((await ask(`${world.api}/v4/nodes/files/${node.id}/downloads`, { token: ann.token })).body.equals(bytes)).toBe(
    true,
  )
})

/** The command as an operator runs it; resolves with its URL, or its exit. */
async function serve(args: readonly string[], env: Record<string, string> = {}) {
  const child = spawn(process.execPath, [MAIN, 'serve', '--json', ...args], {
    env: { PATH: process.env.PATH ?? '', SEALSYNC_HOME: await freshDir(), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => {
    said += chunk.toString()
  })
  const first = new Promise<string>((resolve) => {
    child.stdout.once('data', (chunk: Buffer) => resolve(chunk.toString()))
    child.once('close', () => resolve('{}'))
  })
  const line = JSON.parse((await first).split('\n')[0] ?? '{}') as { url?: string; code?: string; exitCode?: number }
  return { child, ...line, said: () => said }
}

test('sync serve: keys from files or the environment, killed in the middle of an upload, nothing left after the next start', async () => {
  const store = await startStore()
  const { endpoint, bucket, region, accessKeyId, secretAccessKey } = store.options
  const dir = await freshDir()
  const [data, access, secret] = ['data', 'access', 'secret'].map((name) => join(dir, name)) as [string, string, string]
  await writeFile(access, `${accessKeyId}\n`, { mode: 0o600 })
  await writeFile(secret, `${secretAccessKey}\n`, { mode: 0o600 })
  const where = ['--data', data, '--storage', 's3', '--s3-endpoint', endpoint, '--s3-bucket', bucket]
  const files = ['--s3-access-key-file', access, '--s3-secret-key-file', secret]
  const running = await serve([...where, '--s3-region', region, '--s3-path-style', ...files])
  expect(running.url, running.said()).toMatch(/^http:/)
  const world = { dir: data, api: `${running.url}/api`, server: { url: running.url } } as World
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  const { uploadId } = await uploadDirect(ann, room, 'kept', [Buffer.from('kept')])
  await settled(ann, uploadId)
  const open = await openUpload(ann, room, 'open', { directS3Upload: true })
  const body = randomBytes(1000)
  await ask(await partUrl(ann, open.uploadId, 1, body.length), { method: 'PUT', body })
  expect([store.uploads.size, store.objects.size]).toEqual([1, 1])
  const killed = once(running.child, 'exit')
  running.child.kill('SIGKILL')
  await killed

  const env = { SEALSYNC_S3_ACCESS_KEY: accessKeyId, SEALSYNC_S3_SECRET_KEY: secretAccessKey }
  const next = await serve([...where, '--s3-region', region], env)
  expect(next.url, next.said()).toMatch(/^http:/)
  expect([store.uploads.size, store.objects.size]).toEqual([0, 1])
  const later = await enter({ ...world, server: { url: next.url } } as World, ann.id, 'ann')
  expect(later.token).toBeTruthy()
  const stopped = once(next.child, 'close')
  next.child.kill('SIGTERM')
  expect((await stopped)[0]).toBe(0)
  expect(next.said() + running.said()).not.toContain(secretAccessKey)
})

test('sync serve: what goes together, and secret files that others can read', async () => {
  const dir = await freshDir()
  const secret = join(dir, 'secret')
  await writeFile(secret, 'canary-of-a-secret\n')
  await chmod(secret, 0o644)
  const s3 = ['serve', '--json', '--data', dir, '--storage', 's3']
  const endpoint = ['--s3-endpoint', 'http://127.0.0.1:9']
  for (const [args, code] of [
    [['serve', '--json', '--data', dir, ...endpoint, '--s3-bucket', 'some-bucket'], 'OPTION_MISSING'],
    [[...s3, ...endpoint], 'OPTION_MISSING'],
    [[...s3, '--s3-path-style'], 'OPTION_MISSING'],
    [[...s3, ...endpoint, '--s3-bucket', 'some-bucket'], 'OPTION_MISSING'],
    [[...s3, ...endpoint, '--s3-bucket', 'some-bucket', '--s3-access-key-file', secret], 'SECRET_FILE_OPEN'],
  ] as const) {
    const run = await runCli(dir, args)
    expect([run.code, run.json.at(-1)?.code], args.join(' ')).toEqual([2, code])
    expect(run.stdout + run.stderr).not.toContain('canary')
  }
  const env = { SEALSYNC_S3_ACCESS_KEY: 'a', SEALSYNC_S3_SECRET_KEY: 'canary-of-a-secret' }
  const run = await runCli(dir, [...s3, ...endpoint, '--s3-bucket', 'some-bucket', '-v'], { env })
  expect([run.code, run.json.at(-1)?.code]).toEqual([5, 'S3_UNREACHABLE'])
  expect(run.stdout + run.stderr).not.toContain('canary')
})
