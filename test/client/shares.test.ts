/** Links to give files away and to have files sent: made, used without an account, kept with new versions, ended. */
import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openDownloadLink, openRequestLink, parseLink, requestMailText, shareMailText } from '../../src/client/index.ts'
import type { Client } from '../../src/client.ts'
import { createWorld, makeRoom, type World } from '../support/cli.ts'
import { errorOf } from '../support/servers.ts'

const MiB = 1024 * 1024
const digest = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')
const PASSWORD = 'Tulpe-92-Kegel-Brot'
const password = async () => PASSWORD
const codeOf = async (work: Promise<unknown>) => (await errorOf(work)).code

describe.each(['s3', 'classic'] as const)('links over %s', (storage) => {
  let world: World
  let client: Client
  const small = randomBytes(100_000)
  const large = randomBytes(9 * MiB + 77)
  beforeAll(async () => {
    world = await createWorld({ storage })
    client = await world.openClient({
      directory: world.path('client'),
      trustNewMembers: true,
      confirm: async () => true,
    })
    await makeRoom(client, 'plain', false)
    for (const room of ['room', 'plain']) {
      await client.put(`/${room}/small.bin`, small)
      await client.put(`/${room}/large.bin`, large)
      await client.mkdir(`/${room}/inbox`)
    }
    mkdirSync(world.path('out'))
  })
  afterAll(async () => {
    await client.close()
    await world.close()
  })

  test('an encrypted file is opened by the password of its link, and by nothing else', async () => {
    const made = await client.shares.create(['/room/small.bin', '/room/large.bin'], { password, maxDownloads: 3 })
    expect(
      made.map(({ path, isEncrypted, isProtected, maxDownloads }) => [path, isEncrypted, isProtected, maxDownloads]),
    ).toEqual([
      ['/room/small.bin', true, true, 3],
      ['/room/large.bin', true, true, 3],
    ])
    for (const [at, content] of [small, large].entries()) {
      const { link } = made[at]!
      await using opened = await openDownloadLink(link, { password })
      expect(await opened.info()).toMatchObject({
        size: content.length,
        isEncrypted: true,
        isProtected: true,
        isArchive: false,
      })
      const { path, bytes, isSkipped } = await opened.download(world.path('out'))
      expect([bytes, isSkipped]).toEqual([content.length, false])
      expect(digest(readFileSync(path))).toBe(digest(content))
      expect(digest(await (await opened.get()).bytes())).toBe(digest(content))
      // What is there already is found out by its tag.
      expect((await opened.download(world.path('out'))).isSkipped).toBe(true)
      await using wrong = await openDownloadLink(link, { password: async () => 'Tulpe-92-Kegel-Brod' })
      const error = await errorOf(wrong.download(world.path('out', 'wrong')))
      expect([error.class, error.code]).toEqual(['key', 'SHARE_PASSWORD_WRONG'])
      await using none = await openDownloadLink(link)
      expect(await codeOf(none.get())).toBe('SHARE_PASSWORD_NEEDED')
    }
    expect(readdirSync(world.path('out')).sort()).toEqual(['large.bin', 'small.bin'])
    // A wrong password asks for nothing that would count.
    expect((await client.shares.get(made[0]!.link)).downloads).toBe(2)
    await client.shares.revoke(made.map(({ id }) => String(id)))
    await using gone = await openDownloadLink(made[0]!.link, { password })
    expect(await codeOf(gone.info())).toBe('SHARE_GONE')
  })

  test('plain files have links with and without a password, folders come as an archive', async () => {
    const [open] = await client.shares.create('/plain/small.bin')
    const [locked] = await client.shares.create('/plain/large.bin', { password, name: 'Large one' })
    const [folder] = await client.shares.create('/plain/inbox')
    await client.put('/plain/inbox/a.txt', Buffer.from('a'))
    await using first = await openDownloadLink(open!.link)
    expect(digest(await (await first.get()).bytes())).toBe(digest(small))
    await using second = await openDownloadLink(locked!.link, { password })
    const { path } = await second.download(world.path('out', 'locked.bin'))
    expect(digest(readFileSync(path))).toBe(digest(large))
    await using wrong = await openDownloadLink(locked!.link, { password: async () => 'no' })
    const refused = await errorOf(wrong.get())
    expect([refused.class, refused.code]).toEqual(['key', 'SHARE_PASSWORD_WRONG'])
    expect(refused.message).not.toContain(parseLink(locked!.link).accessKey)
    await using third = await openDownloadLink(folder!.link)
    const archive = await third.download(`${world.path('out')}/`)
    expect(archive.path).toBe(world.path('out', 'inbox.zip'))
    expect(readFileSync(archive.path).subarray(0, 2).toString()).toBe('PK')
    expect(await codeOf(third.download(`${world.path('out')}/`))).toBe('EXISTS')
    expect((await third.download(`${world.path('out')}/`, { onConflict: 'rename' })).path).toBe(
      world.path('out', 'inbox (1).zip'),
    )
    const error = await errorOf(third.get({ requireEncryption: true }))
    expect([error.class, error.code]).toEqual(['safety', 'NOT_ENCRYPTED'])
    const changed = await client.shares.update(locked!.link, {
      password: null,
      expiresAt: Date.now() + 1e9,
      maxDownloads: 7,
    })
    expect([changed.isProtected, changed.maxDownloads, changed.expiresAt !== undefined]).toEqual([false, 7, true])
    expect(
      (await client.shares.update(String(locked!.id), { maxDownloads: null, expiresAt: null })).maxDownloads,
    ).toBeUndefined()
    const listed: string[] = []
    for await (const { path } of client.shares.list()) listed.push(path!)
    expect(listed.sort()).toEqual(['/plain/inbox', '/plain/large.bin', '/plain/small.bin'])
    expect(shareMailText(changed)).toContain(changed.link)
    await client.remove('/plain/inbox/a.txt')
  })

  test('what cannot be shared is said before anything is made', async () => {
    expect(await codeOf(client.shares.create('/room/inbox', { password }))).toBe('SHARE_FOLDER_ENCRYPTED')
    expect(await codeOf(client.shares.create('/room/small.bin'))).toBe('SHARE_PASSWORD_NEEDED')
    expect(await codeOf(client.shares.create('/room/none', { password }))).toBe('REMOTE_MISSING')
    expect(await codeOf(client.shares.create('/plain/small.bin', { password: async () => 'a<b>c&d' }))).toBe(
      'PASSWORD_REFUSED',
    )
    expect(await codeOf(client.shares.create('/plain/small.bin', { requireEncryption: true }))).toBe('NOT_ENCRYPTED')
    expect(await codeOf(client.shares.get('4711'))).toBe('SHARE_MISSING')
    expect(
      (await client.shares.create('/room', { password, each: true, dryRun: true })).map(({ path }) => path).sort(),
    ).toEqual(['/room/large.bin', '/room/small.bin'])
    for await (const share of client.shares.list('/room/small.bin')) expect.fail(`a link was made: ${share.id}`)
  })

  test('files come by a request, encrypted for its members, with receipts; the same call sends nothing twice', async () => {
    const request = await client.requests.create('/room/inbox', { maxFiles: 5, password, name: 'Inbox' })
    expect([request.isEncrypted, request.isProtected, request.maxFiles]).toEqual([true, true, 5])
    const files = ['one.txt', 'empty', 'big.bin'].map((name) => world.path(name))
    const contents = [Buffer.from('one'), Buffer.alloc(0), large]
    for (const [at, file] of files.entries()) writeFileSync(file, contents[at]!)
    await using none = await openRequestLink(request.link)
    expect(await none.info()).toMatchObject({ isProtected: true, recipients: [] })
    expect(await codeOf(none.send(files))).toBe('SHARE_PASSWORD_NEEDED')
    await using link = await openRequestLink(request.link, { password, directory: world.path('guest') })
    const [{ fingerprint } = { fingerprint: '' }] = (await client.keys.status()).keyPairs
    expect(await link.info()).toMatchObject({ isEncrypted: true, remainingFiles: 5, recipients: [{ fingerprint }] })
    expect(await codeOf(link.send([world.path('out')]))).toBe('NOT_A_FILE')
    const sent = await link.send(files, { partSize: 5 * MiB })
    expect(sent.failed).toEqual([])
    expect(sent.receipts.map(({ path, bytes, sha256 }) => [path, bytes, sha256])).toEqual(
      files.map((path, at) => [path, contents[at]!.length, digest(contents[at]!)]),
    )
    for (const [at, name] of ['one.txt', 'empty', 'big.bin'].entries()) {
      expect(digest(await (await client.get(`/room/inbox/${name}`)).bytes())).toBe(digest(contents[at]!))
    }
    const details = await client.requests.get(request.link)
    expect([details.files, details.uploads]).toEqual([3, 3])
    expect(details.received.map(({ name, size }) => [name, size]).sort()).toEqual([
      ['big.bin', large.length],
      ['empty', 0],
      ['one.txt', 3],
    ])
    // All had arrived, so this is another sending; two fit.
    expect(await codeOf(link.send(files))).toBe('REQUEST_FULL')
    expect((await link.send(files.slice(0, 1))).receipts).toHaveLength(1)
    expect(readdirSync(world.path('guest', 'requests'))).toEqual([])
    expect(requestMailText(details)).toContain(request.link)
    expect((await client.requests.update(request.link, { maxFiles: null, password: null })).isProtected).toBe(false)
    await client.requests.revoke('/room/inbox')
    await using ended = await openRequestLink(request.link, { password })
    expect(await codeOf(ended.info())).toBe('SHARE_GONE')
  })

  test('a link stays with a new version where that is wanted, and ends where not', async () => {
    const [share] = await client.shares.create('/room/small.bin', { password })
    // One for all: unlocking takes a while.
    await using opened = await openDownloadLink(share!.link, { password })
    const now = async () => digest(await (await opened.get()).bytes())
    const second = randomBytes(50_000)
    writeFileSync(world.path('small.bin'), second)
    const summary = await client.upload([world.path('small.bin')], '/room', { keepShareLinks: true })
    expect([summary.transferred, summary.pending]).toEqual([1, undefined])
    expect(await now()).toBe(digest(second))
    const third = randomBytes(60_000)
    expect((await client.put('/room/small.bin', third, { keepShareLinks: true })).refused).toEqual([])
    expect(await now()).toBe(digest(third))
    // Restoring and moving give it the key afterwards.
    const versions: number[] = []
    for await (const { id } of client.versions.list('/room/small.bin')) versions.push(id)
    await client.versions.restore('/room/small.bin', versions[0]!, { keepShareLinks: true })
    expect(await now()).toBe(digest(second))
    await client.put('/room/other.bin', large)
    const { refused } = await client.moveAll(['/room/other.bin'], '/room/small.bin', {
      onConflict: 'overwrite',
      keepShareLinks: true,
    })
    expect(refused).toEqual([])
    expect(await now()).toBe(digest(large))
    // One that was made elsewhere gets no key until its password has proven it.
    await using elsewhere = await world.openClient({ directory: world.path('elsewhere') })
    const stored = await elsewhere.put('/room/small.bin', second, { keepShareLinks: true })
    expect(stored.refused.map(({ error }) => [error.class, error.code])).toEqual([['changed', 'SHARE_KEY_NEW']])
    expect(await codeOf(now())).toBe('SHARE_EMPTY')
    await client.put('/room/small.bin', third, { keepShareLinks: true })
    expect(await codeOf(elsewhere.shares.trust(share!.link, async () => 'no'))).toBe('SHARE_PASSWORD_WRONG')
    await elsewhere.shares.trust(share!.link, password)
    await elsewhere.put('/room/small.bin', second, { keepShareLinks: true })
    expect(await now()).toBe(digest(second))
    await client.put('/room/small.bin', small)
    expect(await codeOf(now())).toBe('SHARE_GONE')
  })
})
