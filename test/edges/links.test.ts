/** Links and file requests of servers that lie, and of people who guess: nothing wrong is believed, kept or given away. */
import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { type LinkOptions, openDownloadLink, openRequestLink, parseLink, type Share } from '../../src/client/index.ts'
import { type Client, createClient } from '../../src/client.ts'
import { passwordAuthorizer } from '../../src/session/authorizers/password.ts'
import { accountPassword, createWorld, KEY_PASSWORD, makeRoom, user1, type World } from '../support/cli.ts'
import { type Asked, type Json, type Liar, startLiar } from '../support/liar.ts'
import { errorOf, httpServer } from '../support/servers.ts'

const MiB = 1024 * 1024
const PASSWORD = 'Kegel-92-Tulpe-Brot'
const password = async () => PASSWORD
const content = randomBytes(300_000)

let world: World
let client: Client
let liar: Liar
let encrypted: Share
let plain: Share
let request: string

beforeAll(async () => {
  world = await createWorld()
  client = await world.openClient({ directory: world.path('client'), trustNewMembers: true, confirm: async () => true })
  await makeRoom(client, 'plain', false)
  await client.put('/room/file', content)
  await client.put('/plain/file', content)
  await client.mkdir('/room/inbox')
  const made = [
    ...(await client.shares.create('/room/file', { password })),
    ...(await client.shares.create('/plain/file', { password })),
  ]
  ;[encrypted, plain] = made as [Share, Share]
  request = (await client.requests.create('/room/inbox')).link
  liar = await startLiar(world.server.url)
  mkdirSync(world.path('out'))
})
afterAll(async () => {
  await liar.close()
  await client.close()
  await world.close()
})
afterEach(() => {
  liar.honest()
  world.server.faults.clear()
  // Whatever a test was about.
  expect(readdirSync(world.path('out'))).toEqual([])
})

/** The link at the server that lies. */
const lying = (link: string) => `${liar.origin}${new URL(link).pathname}`

async function codeOf(link: string, target = 'out', how: LinkOptions = { password }): Promise<string> {
  await using opened = await openDownloadLink(lying(link), how)
  const error = await errorOf(opened.download(world.path(target)))
  expect(error.message).not.toContain(parseLink(link).accessKey)
  return `${error.class} ${error.code}`
}

const isInfo = ({ method, url }: Asked) => method === 'GET' && /\/public\/shares\/downloads\/[^/]+$/.test(url)
const isContent = ({ method, url }: Asked) => method === 'GET' && /\/public\/shares\/downloads\/[^/]+\/[^/]+$/.test(url)
const lieOf = (change: (info: Json) => void) =>
  liar.lie((asked, answer) => {
    if (isInfo(asked)) change(answer)
    return answer
  })

describe('something to fetch', () => {
  test('the password of an encrypted file never leaves, whatever the server asks for', async () => {
    lieOf((info) => {
      info.isProtected = true
    })
    await using opened = await openDownloadLink(lying(encrypted.link), { password })
    await (await opened.get()).close()
    const sent = liar.asked.map(({ url, body }) => `${url} ${body}`).join('\n')
    for (const form of [PASSWORD, encodeURIComponent(PASSWORD), Buffer.from(PASSWORD).toString('base64')]) {
      expect(sent).not.toContain(form)
    }
    // One that says it is not encrypted would get it: refused where that was said, and told before it is asked for.
    liar.honest()
    lieOf((info) => Object.assign(info, { isEncrypted: false, isProtected: true }))
    await using other = await openDownloadLink(lying(encrypted.link), { password })
    expect((await errorOf(other.get({ requireEncryption: true }))).code).toBe('NOT_ENCRYPTED')
    expect(liar.asked.filter(({ method }) => method === 'POST')).toEqual([])
    const uses: boolean[] = []
    await using told = await openDownloadLink(lying(encrypted.link), {
      password: async ({ isSent }) => {
        uses.push(isSent)
        throw new Error('not that one')
      },
    })
    await errorOf(told.get())
    expect(uses).toEqual([true])
  })

  test('a wrong password and a changed container are one answer; a plain one is not asked for twice', async () => {
    const wrong = { password: async () => 'Kegel-92-Tulpe-Brod' }
    expect(await codeOf(encrypted.link, 'out', wrong)).toBe('key SHARE_PASSWORD_WRONG')
    lieOf((info) => {
      const { privateKey } = info.privateKeyContainer
      const at = privateKey.length - 80
      const other = privateKey[at] === 'A' ? 'B' : 'A'
      info.privateKeyContainer.privateKey = `${privateKey.slice(0, at)}${other}${privateKey.slice(at + 1)}`
    })
    expect(await codeOf(encrypted.link)).toBe('key SHARE_PASSWORD_WRONG')
    liar.honest()
    expect(await codeOf(plain.link, 'out', wrong)).toBe('key SHARE_PASSWORD_WRONG')
    expect(liar.asked.filter(({ method }) => method === 'POST')).toHaveLength(1)
    liar.answer(({ method }) =>
      method === 'POST' ? { status: 403, json: { code: 403, message: 'Forbidden', errorCode: -51000 } } : undefined,
    )
    expect(await codeOf(plain.link)).toBe('rate_limit SHARE_LOCKED')
  })

  test('ended, used up, without a key: each is said as what it is', async () => {
    const answer = (errorCode: number, status: number) =>
      liar.answer((asked) => (isInfo(asked) ? { status, json: { code: status, message: 'x', errorCode } } : undefined))
    answer(-50000, 404)
    expect(await codeOf(encrypted.link)).toBe('not_found SHARE_GONE')
    liar.honest()
    lieOf((info) => {
      info.limitReached = true
    })
    expect(await codeOf(encrypted.link)).toBe('limit SHARE_USED_UP')
    for (const field of ['fileKey', 'privateKeyContainer']) {
      lieOf((info) => delete info[field])
      expect(await codeOf(encrypted.link), field).toBe('server SHARE_EMPTY')
    }
  })

  test('changed content and keys, fewer and more bytes than announced: nothing is kept', async () => {
    const tag = (info: Json) => Buffer.from(info.fileKey.tag, 'base64')
    const cases: readonly [string, (info: Json) => void, string][] = [
      [
        'tag',
        (info) => Object.assign(info.fileKey, { tag: tag(info).fill(7).toString('base64') }),
        'integrity CONTENT_TAMPERED',
      ],
      [
        'key',
        (info) => Object.assign(info.fileKey, { key: randomBytes(512).toString('base64') }),
        'integrity KEY_UNWRAP_FAILED',
      ],
      ['short key', (info) => Object.assign(info.fileKey, { key: 'AAAA' }), 'integrity FILE_KEY_INVALID'],
      ['version', (info) => Object.assign(info.fileKey, { version: 'B' }), 'key KEY_VERSION_UNKNOWN'],
      // The server has nothing at the place where it is asked for the rest.
      ['longer', (info) => Object.assign(info, { size: info.size + 1 }), 'server STORAGE_REFUSED'],
      ['shorter', (info) => Object.assign(info, { size: info.size - 1 }), 'integrity CONTENT_LENGTH_WRONG'],
      ['negative', (info) => Object.assign(info, { size: -1 }), 'server ANSWER_INVALID'],
      ['inexact', (info) => Object.assign(info, { size: 2 ** 60 }), 'server ANSWER_INVALID'],
      ['huge', (info) => Object.assign(info, { size: 2 ** 40 }), 'limit FILE_TOO_LARGE'],
    ]
    // One for all but the last: unlocking takes a while.
    await using opened = await openDownloadLink(lying(encrypted.link), { password })
    for (const [what, change, code] of cases) {
      lieOf(change)
      const error = await errorOf(opened.download(world.path('out')))
      expect(`${error.class} ${error.code}`, what).toBe(code)
    }
    lieOf((info) => Object.assign(info.privateKeyContainer, { privateKey: 'x' }))
    expect(await codeOf(encrypted.link)).toBe('key KEY_CONTAINER_INVALID')
    liar.honest()
    liar.answer((asked) => (isContent(asked) ? { status: 200, body: randomBytes(content.length) } : undefined))
    expect(await codeOf(encrypted.link)).toBe('integrity CONTENT_TAMPERED')
    lieOf((info) => Object.assign(info, { mediaType: 'application/zip', size: -5 }))
    expect(await codeOf(plain.link)).toBe('server ANSWER_INVALID')
  })

  test('names that lead elsewhere are not followed', async () => {
    for (const name of ['../out', '..', '.', '', 'a/b', '/etc/passwd', '.sealsync-bin', 'a\0b', 'n'.repeat(300)]) {
      lieOf((info) => {
        info.fileName = name
      })
      expect(await codeOf(encrypted.link), JSON.stringify(name)).toBe('usage NAME_UNSAFE')
    }
    expect(existsSync(world.path('b'))).toBe(false)
  })

  test('a link that was ended in the middle brings nothing', async () => {
    const large = randomBytes(9 * MiB)
    await client.put('/plain/large', large)
    const [share] = await client.shares.create('/plain/large')
    const hit = world.server.faults.until(world.server.faults.hits.length + 1)
    world.server.faults.add({
      on: { method: 'GET', path: '/shares/downloads/[^/]+/' },
      after: 1,
      times: 99,
      do: { hold: true },
    })
    await using opened = await openDownloadLink(share!.link)
    const ended = errorOf(opened.download(world.path('out')))
    await hit
    await client.shares.revoke(share!.link)
    world.server.faults.clear()
    expect((await ended).code).toBe('SHARE_GONE')
  })

  test('a server that redirects its calls elsewhere is not followed', async () => {
    const elsewhere = await httpServer((_request, response) => response.writeHead(200).end('{}'))
    const front = await httpServer((_request, response) =>
      response.writeHead(302, { location: `${elsewhere.origin}/api/v4/public/shares/downloads/x` }).end(),
    )
    await using opened = await openDownloadLink(`${front.origin}/public/download-shares/KEY`, { password })
    expect((await errorOf(opened.info())).code).toBe('REDIRECT')
    await using sending = await openRequestLink(`${front.origin}/public/upload-shares/KEY`, { password })
    expect((await errorOf(sending.info())).code).toBe('REDIRECT')
    expect(elsewhere.seen).toEqual([])
  })

  test.each([
    'http://files.example.org/public/download-shares/KEY',
    'https://files.example.org/public/download-shares/',
    'https://files.example.org/public/download-shares/a/b',
    'https://files.example.org/public/download-shares/..%2f..',
    'https://anna:pw@files.example.org/public/download-shares/KEY',
    'https://files.example.org/public/download-shares/KEY?x=1',
    'https://files.example.org/public/upload-shares/KEY',
    'ftp://files.example.org/public/download-shares/KEY',
    'KEY',
  ])('%s is no link to fetch', async (link) => {
    expect((await errorOf(openDownloadLink(link))).class).toBe('usage')
  })
})

describe('a file request', () => {
  const file = () => world.path('file.txt')
  beforeAll(() => writeFileSync(file(), 'something'))
  const list = (change: (answer: Json) => void) =>
    liar.lie(({ method, url }, answer) => {
      if (method === 'GET' && /\/public\/shares\/uploads\/[^/]+$/.test(url)) change(answer)
      return answer
    })
  async function refusal(
    how: Parameters<Awaited<ReturnType<typeof openRequestLink>>['send']>[1] = {},
  ): Promise<string> {
    await using link = await openRequestLink(lying(request))
    const error = await errorOf(link.send([file()], how))
    expect(liar.asked.every(({ method }) => method === 'GET')).toBe(true)
    return `${error.class} ${error.code}`
  }

  test('a list of recipients that is empty, too long, doubled or no keys: nothing is sent', async () => {
    list((answer) => {
      answer.userUserPublicKeyList.items = []
    })
    expect(await refusal()).toBe('key NO_RECIPIENTS')
    list((answer) => delete answer.userUserPublicKeyList)
    expect(await refusal()).toBe('key NO_RECIPIENTS')
    list((answer) => {
      const [one] = answer.userUserPublicKeyList.items
      answer.userUserPublicKeyList.items = Array.from({ length: 10_001 }, (_, id) => ({ ...one, id }))
    })
    expect(await refusal()).toBe('server ANSWER_INVALID')
    const other = JSON.parse(JSON.stringify((await client.keyring.containers())[0]!.publicKeyContainer))
    list((answer) => {
      answer.userUserPublicKeyList.items.push({ id: 99, publicKeyContainer: { ...other, publicKey: 'no key' } })
    })
    expect(await refusal()).toBe('key KEY_CONTAINER_INVALID')
    // The same key twice is one recipient.
    list((answer) => answer.userUserPublicKeyList.items.push(answer.userUserPublicKeyList.items[0]))
    await using link = await openRequestLink(lying(request))
    expect((await link.info()).recipients).toHaveLength(1)
  })

  test('one that says it is not encrypted gets nothing that somebody has not agreed to', async () => {
    list((answer) => Object.assign(answer, { isEncrypted: false }))
    expect(await refusal({ requireEncryption: true })).toBe('safety NOT_ENCRYPTED')
    expect(await refusal({ allowPlain: false })).toBe('safety NOT_ENCRYPTED')
    const asked: string[] = []
    const confirm = async (question: string) => {
      asked.push(question)
      return false
    }
    expect(await refusal({ confirm })).toBe('safety NOT_ENCRYPTED')
    expect(asked).toHaveLength(1)
  })

  test('what does not fit is said before anything is sent', async () => {
    list((answer) => Object.assign(answer, { remainingSlots: 0 }))
    expect(await refusal()).toBe('limit REQUEST_FULL')
    list((answer) => Object.assign(answer, { remainingSize: 3 }))
    expect(await refusal()).toBe('quota QUOTA')
    list((answer) => Object.assign(answer, { remainingSize: -3 }))
    expect(await refusal()).toBe('server ANSWER_INVALID')
  })

  test('members who came meanwhile get the key, too: it is wrapped again', async () => {
    let lies = 1
    list((answer) => {
      // The first list names somebody who is none any more.
      if (lies-- > 0) answer.userUserPublicKeyList.items.push({ ...answer.userUserPublicKeyList.items[0], id: 4711 })
    })
    await using link = await openRequestLink(lying(request))
    const sent = await link.send([file()])
    expect([sent.receipts.length, sent.recipients.length, sent.stoppedBy]).toEqual([1, 1, undefined])
  })
})

test('a link gets no key of a new version if the server shows another key for it than it was made with', async () => {
  const deceived = createClient(liar.origin, {
    authorizer: (origin) =>
      passwordAuthorizer(origin, { userName: user1, password: async () => accountPassword(user1) }),
    keyPassword: async () => KEY_PASSWORD,
    trustNewMembers: true,
  })
  try {
    await deceived.session.login()
    const [share] = await deceived.shares.create('/room/file', { password })
    const mine = (await client.keyring.containers())[0]!.publicKeyContainer
    liar.lie(({ url }, answer) => {
      if (/missingFileKeys.*user_id=/.test(url)) for (const user of answer.users) user.publicKeyContainer = mine
      return answer
    })
    const { refused } = await deceived.put('/room/file', content, { keepShareLinks: true })
    // The other link of that file was made elsewhere.
    expect(refused.map(({ error }) => `${error.class} ${error.code}`).sort()).toEqual([
      'changed SHARE_KEY_NEW',
      'integrity SHARE_KEY_CHANGED',
    ])
    const completed = liar.asked.filter(({ body }) => body.includes('keepShareLinks'))
    expect(completed.map(({ body }) => body.includes('userFileKeyList'))).toEqual([false])
    await using opened = await openDownloadLink(share!.link, { password })
    expect((await errorOf(opened.get())).code).toBe('SHARE_EMPTY')
  } finally {
    await deceived.close()
  }
})
