/**
 * A thief has everything of a host that can only write: its directory, its login, the environment and the memory of a later run, and all that
 * the login gets from the server. Nothing that was stored before that run opens. What is uploaded at that moment does: its key is in memory,
 * which also shows that the search finds keys.
 */
import { spawnSync } from 'node:child_process'
import { createPrivateKey, randomBytes } from 'node:crypto'
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { generateKeyPair, parseFileKey, UserKeyPair } from '../../crypto/index.ts'
import type { Client } from '../../src/client.ts'
import { createWorld, giveKeyPair, listFiles, makeTree, runCli, snapshot, type World } from '../support/cli.ts'

const SOURCE = fileURLToPath(new URL('../support/thief.c', import.meta.url))
const tools = mkdtempSync(join(tmpdir(), 'sealsync-thief-'))
const PROGRAM = join(tools, 'thief')
const lacking =
  process.platform !== 'linux'
    ? ' (needs Linux)'
    : spawnSync('cc', ['-O2', '-o', PROGRAM, SOURCE]).status === 0
      ? ''
      : ' (needs a C compiler)'

let world: World
let keeper: Client
let pair: UserKeyPair
beforeAll(async () => {
  world = await createWorld({ users: ['anna', 'web1'] })
  const anna = await world.client('anna')
  keeper = await world.openClient({ directory: world.path('keeper') }, 'web1')
  pair = await giveKeyPair(keeper, await generateKeyPair('RSA-4096'))
  await anna.rooms.changeMembers('/room', { add: [{ kind: 'user', name: 'web1', role: 'append' }] })
})
afterAll(async () => {
  await keeper.close()
  await world.close()
  rmSync(tools, { recursive: true, force: true })
})

/** What a process can write to of its memory, as a debugger sees it. */
function dumpMemory(pid: number, into: string): number {
  const memory = openSync(`/proc/${pid}/mem`, 'r')
  const out = openSync(into, 'w')
  let bytes = 0
  try {
    const piece = Buffer.alloc(1024 * 1024)
    for (const line of readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n')) {
      const [, from, to, access] = /^([0-9a-f]+)-([0-9a-f]+) (\S+)/.exec(line) ?? []
      if (access === undefined || !access.startsWith('rw')) continue
      for (let at = Number.parseInt(from!, 16); at < Number.parseInt(to!, 16); at += piece.length) {
        try {
          const length = readSync(memory, piece, 0, Math.min(piece.length, Number.parseInt(to!, 16) - at), at)
          bytes += writeSync(out, piece, 0, length)
        } catch {
          // Nothing is there, or nobody may read it.
        }
      }
    }
  } finally {
    closeSync(memory)
    closeSync(out)
  }
  return bytes
}

interface Stored {
  readonly id: number
  readonly name: string
  readonly path: string
  readonly content: Buffer
  readonly wrapped: ReturnType<typeof parseFileKey>
}

/** All that the login of the host gets from the server, by plain HTTP. */
async function fetchAll(home: string): Promise<{ readonly files: Stored[]; readonly other: string }> {
  const grant = listFiles(home).find((name) => /grant-[0-9a-f]+\.json$/.test(name))!
  const { accessToken } = JSON.parse(readFileSync(join(home, grant), 'utf8'))
  const headers = { Authorization: `Bearer ${accessToken}` }
  let other = ''
  const ask = async (path: string, method = 'GET') => {
    const text = await (await fetch(`${world.server.url}/api/v4${path}`, { method, headers })).text()
    other += text
    return JSON.parse(text)
  }
  await ask('/user/account/keypairs')
  await ask('/nodes/missingFileKeys')
  const files: Stored[] = []
  const visit = async (parent: number, above: string) => {
    const { items } = await ask(`/nodes?parent_id=${parent}&limit=500`)
    for (const { id, type, name } of items) {
      const path = `${above}/${name}`
      if (type !== 'file') await visit(id, path)
      else {
        const wrapped = parseFileKey(await ask(`/nodes/files/${id}/user_file_key`))
        const { downloadUrl } = await ask(`/nodes/files/${id}/downloads`, 'POST')
        const content = Buffer.from(await (await fetch(downloadUrl)).arrayBuffer())
        files.push({ id, name, path, content, wrapped })
      }
    }
  }
  await visit(0, '')
  return { files, other }
}

/** Bytes in the forms in which programs keep them. */
const formsOf = (secret: Uint8Array): Buffer[] => {
  const bytes = Buffer.from(secret)
  const base64 = bytes.toString('base64').replace(/=+$/, '')
  return [
    bytes,
    Buffer.from(bytes).reverse(),
    Buffer.from(base64.slice(0, -1)),
    Buffer.from(bytes.toString('hex')),
    Buffer.from(bytes.toString('hex').toUpperCase()),
    Buffer.from(base64.slice(0, -1), 'utf16le'),
  ]
}

test.skipIf(lacking)(
  `a thief with all of a host opens nothing that was stored before${lacking}`,
  async () => {
    const home = world.path('host')
    mkdirSync(home, { mode: 0o700 })
    const host = async (args: string[], during?: (child: { readonly pid?: number | undefined }) => Promise<void>) => {
      const result = await runCli(home, args, {
        fresh: true,
        ...(during === undefined ? {} : { during: during as never }),
      })
      expect([args[0], result.code, result.stderr]).toEqual([args[0], 0, expect.anything()])
    }
    const password = ['--password-file', world.path('password-web1')]
    await host(['login', world.server.url, '--user', 'web1', ...password, '--write-only'])
    for (const client of [keeper, await world.client('anna')]) {
      const keyFile = await client.keys.exportPublic()
      const { userName, fingerprint } = await client.keys.readPublic(keyFile)
      writeFileSync(world.path(`${userName}.key`), keyFile)
      await host(['keys', 'pin-public', world.path(`${userName}.key`), '--fingerprint', fingerprint])
    }

    // The thief has guessed how each file begins.
    const source = world.path('source')
    const canary = (name: string) => Buffer.from(`CANARY of ${name.padEnd(8)} ${randomBytes(24).toString('hex')}`)
    const old = { gone: canary('gone'), changed: canary('changed'), kept: canary('kept') }
    const large = Buffer.concat([canary('large'), randomBytes(9_000_000)])
    makeTree(source, { ...old, large })
    makeTree(home, { 'backups/web1.toml': `target = "/room/web1"\nsources = [${JSON.stringify(source)}]\n` })
    chmodSync(join(home, 'backups/web1.toml'), 0o600)
    await host(['backup', 'run', 'web1'])

    rmSync(join(source, 'gone'))
    const now = canary('changed')
    writeFileSync(join(source, 'changed'), now)
    const loot = world.path('loot')
    mkdirSync(loot)
    const memory = join(loot, 'memory')
    let dumped = 0
    // The second thing that this run stores is its manifest: it stands still when that begins.
    world.server.faults.add({ on: { method: 'POST', path: '/nodes/files/uploads$' }, after: 1, do: { hold: true } })
    await host(['backup', 'run', 'web1'], async ({ pid }) => {
      await world.server.faults.until(1)
      dumped = dumpMemory(pid!, memory)
      writeFileSync(join(loot, 'environment'), readFileSync(`/proc/${pid}/environ`))
      for (const name of listFiles(home)) {
        const copy = join(loot, name.replaceAll('/', '_'))
        writeFileSync(copy, readFileSync(join(home, name)))
      }
      world.server.faults.release()
    })
    expect(dumped).toBeGreaterThan(10_000_000)
    const { files, other } = await fetchAll(home)
    writeFileSync(join(loot, 'answers'), other)
    const spoils = listFiles(loot).map((name) => join(loot, name))

    // Of the files of the first run, and of its manifest, a gzip file.
    const top = files.find(({ path }) => path.includes('/added/'))!.path.split('/added/')[0]!
    const runs = [...new Set(files.flatMap(({ path }) => /\/runs\/(.*)\.json\.gz$/.exec(path)?.[1] ?? []))].sort()
    expect(runs).toHaveLength(2)
    const isOld = ({ path }: Stored) =>
      path.startsWith(`${top}/added/${runs[0]}/`) || path === `${top}/runs/${runs[0]}.json.gz`
    const before = files.filter(isOld)
    expect(before.map(({ name }) => name).sort()).toEqual([`${runs[0]}.json.gz`, 'changed', 'gone', 'kept', 'large'])

    const known = ({ name, path }: Stored) => {
      if (name.endsWith('.gz')) return Buffer.from('1f8b0800000000000003', 'hex')
      const contents: Record<string, Buffer> = { ...old, large }
      return (path.includes(runs[1]!) ? now : contents[name]!).subarray(0, 16)
    }
    const tasks = files
      .map((file) => {
        const begins = known(file)
        const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')
        return `${file.id} ${hex(file.wrapped.iv)} ${hex(file.content.subarray(0, begins.length))} ${hex(begins)}\n`
      })
      .join('')
    // Keys that programs hold are at addresses that are multiples of eight; the full set tries all.
    const stride = process.env.SEALSYNC_FULL ? '1' : '8'
    const { stdout, status } = spawnSync(PROGRAM, [stride, ...spoils], { input: tasks, encoding: 'utf8' })
    expect(status).toBe(0)
    const opened = new Set([...stdout.matchAll(/^(\d+) [0-9a-f]{64} /gm)].map(([, id]) => Number(id)))
    const tried = Number(/^tried (\d+)$/m.exec(stdout)?.[1])
    if (process.env.SEALSYNC_FULL)
      console.log(`${tried} keys tried on ${files.length} files, ${dumped} bytes of memory`)
    expect(tried).toBeGreaterThan(10_000)
    expect(before.filter(({ id }) => opened.has(id)).map(({ path }) => path)).toEqual([])
    // What this run had just sent: its key was still at hand for members.
    const fresh = files.find(({ path }) => path.includes(`/added/${runs[1]}/`))!
    expect(opened).toContain(fresh.id)

    // The same by who knows what to look for: file keys, the numbers of the private key, and what is not on the host any more.
    const jwk = createPrivateKey({
      key: Buffer.from(UserKeyPair.privateKeyOf(pair)),
      format: 'der',
      type: 'pkcs8',
    }).export({
      format: 'jwk',
    })
    const secrets: [string, Uint8Array][] = [
      ...(['d', 'p', 'q', 'dp', 'dq', 'qi'] as const).map((name): [string, Uint8Array] => {
        return [`private key: ${name}`, Buffer.from(jwk[name]!, 'base64url').subarray(8, 40)]
      }),
      ['content that is gone', old.gone.subarray(20)],
      ['content that has changed', old.changed.subarray(20)],
      ['large content', large.subarray(1_000_000, 1_000_032)],
    ]
    for (const { path, wrapped } of before) {
      const fileKey = await keeper.keyring.unwrap(wrapped)
      secrets.push([`key of ${path}`, Uint8Array.from(fileKey.key)])
    }
    const found: string[] = []
    for (const spoil of spoils) {
      const all = readFileSync(spoil)
      for (const [what, secret] of secrets)
        if (formsOf(secret).some((form) => all.includes(form))) found.push(`${what} in ${spoil}`)
    }
    expect(found).toEqual([])
    // The search would have found it.
    const { key } = await keeper.keyring.unwrap(fresh.wrapped)
    expect(readFileSync(memory).includes(Buffer.from(key))).toBe(true)

    // And whoever has the private key restores all of it.
    const back = world.path('back')
    expect((await keeper.backups.restore({ name: 'web1', target: '/room/web1' }, back)).failed).toEqual([])
    expect(snapshot(join(back, source))).toEqual(snapshot(source))
    expect(existsSync(join(home, 'file-keys'))).toBe(false)
  },
  240_000,
)
