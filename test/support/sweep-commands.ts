/**
 * The commands that sweeps go through (sweep.ts). A new command is covered by one more entry in `COMMANDS`: what it needs beforehand, its
 * arguments, and how to see that it is done. Each attempt has a home directory, local directories and a remote folder of its own, so
 * attempts know nothing of each other.
 * @module
 */
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { deleteNode, listChildren } from '../../src/api/nodes.ts'
import { addUser } from '../../src/server/index.ts'
import { ensureFolder, requireRemote } from '../../src/sync/remote-path.ts'
import { accountPassword, type CliResult, giveKeyPair, makeRoom, makeTree, snapshot, user1 } from './cli.ts'
import type { Bench, Command } from './sweep.ts'

const unlocked = (bench: Bench) => ['--key-password-file', bench.world.keyPasswordFile]

function same(what: string, found: unknown, wanted: unknown): void {
  const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)]
  if (a !== b) throw new Error(`${what}: ${a}, not ${b}`)
}

/** Files below a directory, without what we keep there. */
function filesOf(root: string): Record<string, string> {
  return Object.fromEntries(Object.entries(snapshot(root)).filter(([path]) => !path.startsWith('.sealsync-')))
}

/** Files below a remote folder, by content. */
async function remoteFiles(bench: Bench, remote: string): Promise<Record<string, string>> {
  const copy = bench.world.path(`copy-${bench.next()}`)
  const client = await bench.world.client()
  const { failed } = await client.download([remote], copy, { contents: true })
  if (failed.length > 0) throw new Error(`${remote} cannot be read: ${failed[0]!.error.message}`)
  const found = filesOf(copy)
  rmSync(copy, { recursive: true, force: true })
  return found
}

async function store(bench: Bench, files: Record<string, string | Uint8Array>, remote: string): Promise<string> {
  const tree = bench.world.path(`stored-${bench.next()}`)
  makeTree(tree, files)
  const { failed } = await (await bench.world.client()).upload([tree], remote, { contents: true })
  if (failed.length > 0) throw new Error(failed[0]!.error.message)
  return tree
}

async function removeRemote(bench: Bench, path: string): Promise<void> {
  const { api } = await bench.world.client()
  await deleteNode(api, (await requireRemote(api, path)).node.id)
}

/** A command that is part of the preparation. */
async function ready(bench: Bench, home: string, args: readonly string[]): Promise<CliResult> {
  const run = await bench.run(home, args, { SEALSYNC_KEY_PASSWORD_FILE: bench.world.keyPasswordFile })
  if (run.code !== 0) throw new Error(`${args.join(' ')}: exit ${run.code} ${run.stderr}`)
  return run
}

const FILES = { a: 'one', b: 'two', 'sub/c': 'three', 'sub/deep/d': 'four' }
const MEGABYTES = Buffer.alloc(9 * 1024 * 1024, 'large\n')

/** A directory that was pulled, and a remote folder in which since then one file was replaced, renamed, removed, added. */
async function changedThere(bench: Bench): Promise<{ home: string; local: string; remote: string; wanted: object }> {
  const [n, home] = [bench.next(), bench.newHome()]
  const [local, remote] = [bench.world.path(`pulled-${n}`), `/room/pulled-${n}`]
  const source = await store(bench, FILES, remote)
  await ready(bench, home, ['pull', remote, local])
  const pusher = bench.newHome()
  await ready(bench, pusher, ['push', source, remote])
  writeFileSync(join(source, 'a'), 'replaced')
  rmSync(join(source, 'b'))
  renameSync(join(source, 'sub/c'), join(source, 'sub/e'))
  writeFileSync(join(source, 'new'), 'new')
  await ready(bench, pusher, ['push', source, remote, '--delete'])
  return { home, local, remote, wanted: filesOf(source) }
}

async function changedHere(bench: Bench): Promise<{ home: string; local: string; remote: string; wanted: object }> {
  const [n, home] = [bench.next(), bench.newHome()]
  const [local, remote] = [bench.world.path(`pushed-${n}`), `/room/pushed-${n}`]
  makeTree(local, FILES)
  await ready(bench, home, ['push', local, remote])
  writeFileSync(join(local, 'a'), 'replaced')
  rmSync(join(local, 'b'))
  renameSync(join(local, 'sub/c'), join(local, 'sub/e'))
  writeFileSync(join(local, 'new'), 'new')
  return { home, local, remote, wanted: filesOf(local) }
}

/** Somebody with a key pair, logged in at a home of their own. */
async function newcomer(bench: Bench): Promise<{ user: string; home: string }> {
  const { world } = bench
  const n = bench.next()
  const [user, home, file] = [`newcomer-${n}`, world.path(`home-of-${n}`), world.path(`password-of-${n}`)]
  await addUser(world.path('server'), { name: user, password: accountPassword(user) })
  writeFileSync(file, accountPassword(user), { mode: 0o600 })
  mkdirSync(home, { mode: 0o700 })
  await ready(bench, home, ['login', world.server.url, '--user', user, '--password-file', file])
  await giveKeyPair(await world.client(user))
  return { user, home }
}

function upload(name: string, files: Record<string, string | Uint8Array>): Command {
  return {
    name,
    alike: true,
    async start(bench) {
      const [n, home] = [bench.next(), bench.newHome()]
      const [local, remote] = [bench.world.path(`up-${n}`), `/room/up-${n}`]
      makeTree(local, files)
      const { api } = await bench.world.client()
      await ensureFolder(api, (await requireRemote(api, '/room')).node.id, `up-${n}`, neverAborted)
      const check = async () => same('there', await remoteFiles(bench, remote), filesOf(local))
      return { args: ['upload', local, remote, '--contents', ...unlocked(bench)], home, roots: [local], check }
    },
  }
}

function download(name: string, files: Record<string, string | Uint8Array>): Command {
  return {
    name,
    alike: true,
    async start(bench) {
      const [n, home] = [bench.next(), bench.newHome()]
      const [local, remote] = [bench.world.path(`down-${n}`), `/room/down-${n}`]
      const source = await store(bench, files, remote)
      mkdirSync(local)
      const check = () => same('here', filesOf(local), filesOf(source))
      return { args: ['download', remote, local, '--contents', ...unlocked(bench)], home, roots: [local], check }
    },
  }
}

/** A backup set with a source of its own. */
async function backupSet(bench: Bench): Promise<{ home: string; name: string; source: string; target: string }> {
  const [n, home] = [bench.next(), bench.newHome()]
  const [name, source] = [`set${n}`, bench.world.path(`source-${n}`)]
  const target = `/room/backups/${name}`
  makeTree(source, FILES)
  mkdirSync(join(home, 'backups'), { recursive: true, mode: 0o700 })
  writeFileSync(
    join(home, 'backups', `${name}.toml`),
    `target = "${target}"\nsources = ["${source}"]\n[keep]\nlast = 1\n`,
    {
      mode: 0o600,
    },
  )
  return { home, name, source, target }
}

const neverAborted = new AbortController().signal

/** Undoes the last run of a pair. */
async function undoOf(bench: Bench, home: string, local: string, remote: string): Promise<string[]> {
  const runs = await bench.run(home, ['runs', local, remote, '--json'])
  return ['undo', String(runs.json[0]!.id)]
}

async function remoteNames(bench: Bench, path: string): Promise<string[]> {
  const { api } = await bench.world.client()
  const names: string[] = []
  for await (const node of listChildren(api, (await requireRemote(api, path)).node.id)) names.push(node.name)
  return names.sort()
}

/** An empty home directory, and how to log in there. */
function loggedOut({ world, next }: Bench, name = user1): { home: string; args: string[] } {
  const home = world.path(`fresh-home-${next()}`)
  mkdirSync(home, { mode: 0o700 })
  return { home, args: ['login', world.server.url, '--user', name, '--password-file', world.path(`password-${name}`)] }
}

export const COMMANDS = {
  upload: upload('upload', FILES),
  uploadLarge: upload('upload of a large file', { large: MEGABYTES, small: 'small' }),
  download: download('download', FILES),
  downloadLarge: download('download of a large file', { large: MEGABYTES, small: 'small' }),
  firstPush: {
    name: 'first push',
    alike: true,
    async start(bench) {
      const [n, home] = [bench.next(), bench.newHome()]
      const [local, remote] = [bench.world.path(`push-${n}`), `/room/push-${n}`]
      makeTree(local, FILES)
      const check = async () => same('there', await remoteFiles(bench, remote), filesOf(local))
      return { args: ['push', local, remote, ...unlocked(bench)], home, roots: [local], check }
    },
  },
  push: {
    name: 'push of changes',
    kills: [2, 2],
    async start(bench) {
      const { home, local, remote, wanted } = await changedHere(bench)
      const check = async () => same('there', await remoteFiles(bench, remote), wanted)
      return { args: ['push', local, remote, '--delete', ...unlocked(bench)], home, roots: [local], check }
    },
  },
  firstPull: {
    name: 'first pull',
    alike: true,
    async start(bench) {
      const [n, home] = [bench.next(), bench.newHome()]
      const [local, remote] = [bench.world.path(`pull-${n}`), `/room/pull-${n}`]
      const source = await store(bench, FILES, remote)
      const check = () => same('here', filesOf(local), filesOf(source))
      return { args: ['pull', remote, local, ...unlocked(bench)], home, roots: [local], check }
    },
  },
  pull: {
    name: 'pull of changes',
    kills: [5, 1],
    async start(bench) {
      const { home, local, remote, wanted } = await changedThere(bench)
      const check = () => same('here', filesOf(local), wanted)
      return { args: ['pull', remote, local, '--delete', ...unlocked(bench)], home, roots: [local], check }
    },
  },
  both: {
    name: 'both, with a conflict',
    kills: [4, 1],
    done: 12,
    again: [0, 12],
    async start(bench) {
      const { home, local, remote } = await changedThere(bench)
      await ready(bench, home, ['both', local, remote, '--delete'])
      writeFileSync(join(local, 'mine'), 'mine')
      writeFileSync(join(local, 'a'), 'changed here')
      await store(bench, { theirs: 'theirs' }, remote)
      await removeRemote(bench, `${remote}/a`)
      await store(bench, { a: 'changed there' }, remote)
      const check = async () => {
        const here = filesOf(local)
        same('there', await remoteFiles(bench, remote), here)
        const copies = Object.keys(here).filter((name) => /^a.+/.test(name))
        if (copies.length !== 1) throw new Error(`not one copy of a: ${Object.keys(here)}`)
        same('both contents', [here.a, here[copies[0]!]].sort(), ['changed here', 'changed there'])
        same('the others', [here.mine, here.theirs], ['mine', 'theirs'])
      }
      return { args: ['both', local, remote, ...unlocked(bench)], home, roots: [local], check }
    },
  },
  undoPull: {
    name: 'undo of a pull',
    kills: [3, 0],
    async start(bench) {
      const { home, local, remote } = await changedThere(bench)
      const before = filesOf(local)
      await ready(bench, home, ['pull', remote, local, '--delete'])
      const check = () => same('here', filesOf(local), before)
      return { args: await undoOf(bench, home, local, remote), home, roots: [local], check }
    },
  },
  undoPush: {
    name: 'undo of a push',
    kills: [1, 2],
    async start(bench) {
      const { home, local, remote } = await changedHere(bench)
      const before = await remoteFiles(bench, remote)
      await ready(bench, home, ['push', local, remote, '--delete'])
      const check = async () => same('there', await remoteFiles(bench, remote), before)
      return { args: await undoOf(bench, home, local, remote), home, roots: [local], check }
    },
  },
  undoBoth: {
    name: 'undo of both',
    async start(bench) {
      const { home, local, remote } = await changedThere(bench)
      await ready(bench, home, ['both', local, remote])
      writeFileSync(join(local, 'a'), 'changed here')
      writeFileSync(join(local, 'mine'), 'mine')
      await store(bench, { theirs: 'theirs' }, remote)
      await removeRemote(bench, `${remote}/sub/deep/d`)
      // What people did stays, on the side where they did it.
      const [here, there] = [filesOf(local), await remoteFiles(bench, remote)]
      await ready(bench, home, ['both', local, remote, '--delete'])
      const check = async () => {
        same('here', filesOf(local), here)
        same('there', await remoteFiles(bench, remote), there)
      }
      return { args: await undoOf(bench, home, local, remote), home, roots: [local], check }
    },
  },
  apply: {
    name: 'apply of a plan',
    again: [0, 9, 12],
    async start(bench) {
      const { home, local, remote, wanted } = await changedThere(bench)
      const plan = bench.world.path(`plan-${bench.next()}`)
      await ready(bench, home, ['plan', 'pull', remote, local, '--delete', '-o', plan])
      const check = () => same('here', filesOf(local), wanted)
      const againArgs = ['pull', remote, local, '--delete', ...unlocked(bench)]
      return { args: ['apply', plan, ...unlocked(bench)], againArgs, home, roots: [local], check }
    },
  },
  backupRun: {
    name: 'backup run',
    async start(bench) {
      const { home, name, source, target } = await backupSet(bench)
      await ready(bench, home, ['backup', 'run', name])
      writeFileSync(join(source, 'a'), 'replaced')
      rmSync(join(source, 'b'))
      const check = async () =>
        same('current state', await remoteFiles(bench, `${target}/files${source}`), filesOf(source))
      return { args: ['backup', 'run', name, ...unlocked(bench)], home, roots: [source], check }
    },
  },
  restore: {
    name: 'backup restore',
    alike: true,
    async start(bench) {
      const { home, name, source } = await backupSet(bench)
      await ready(bench, home, ['backup', 'run', name])
      const target = bench.world.path(`restored-${bench.next()}`)
      const check = () => same('restored', filesOf(join(target, source)), filesOf(source))
      return { args: ['backup', 'restore', name, target, ...unlocked(bench)], home, roots: [target], check }
    },
  },
  prune: {
    name: 'backup prune',
    async start(bench) {
      const { home, name, source, target } = await backupSet(bench)
      await ready(bench, home, ['backup', 'run', name])
      writeFileSync(join(source, 'a'), 'replaced')
      await ready(bench, home, ['backup', 'run', name])
      const check = async () => {
        const runs = await remoteNames(bench, `${target}/runs`)
        if (runs.length !== 1) throw new Error(`${runs.length} runs are left`)
      }
      return { args: ['backup', 'prune', name, ...unlocked(bench)], home, check }
    },
  },
  drill: {
    name: 'drill',
    alike: true,
    async start(bench) {
      const { home, name } = await backupSet(bench)
      await ready(bench, home, ['backup', 'run', name])
      const check = () => {
        const reports = readdirSync(join(home, 'drills'))
        if (reports.length === 0) throw new Error('no report')
        for (const report of reports) JSON.parse(readFileSync(join(home, 'drills', report), 'utf8'))
      }
      return { args: ['drill', name, ...unlocked(bench)], home, check }
    },
  },
  verify: {
    name: 'verify',
    alike: true,
    async start(bench) {
      const [n, home] = [bench.next(), bench.newHome()]
      await store(bench, FILES, `/room/verify-${n}`)
      return { args: ['verify', `/room/verify-${n}`, ...unlocked(bench)], home, check: () => {} }
    },
  },
  mkdir: {
    name: 'mkdir',
    kills: [0, 1],
    async start(bench) {
      const [n, home] = [bench.next(), bench.newHome()]
      const check = async () => same('there', await remoteNames(bench, `/room/made-${n}`), ['sub'])
      return { args: ['mkdir', '-p', `/room/made-${n}/sub`], home, check }
    },
  },
  rm: {
    name: 'rm',
    kills: [0, 1],
    again: [0, 2],
    async start(bench) {
      const [n, home] = [bench.next(), bench.newHome()]
      await store(bench, { a: 'a', b: 'b' }, `/room/rm-${n}`)
      const check = async () => same('there', await remoteNames(bench, `/room/rm-${n}`), ['b'])
      return { args: ['rm', `/room/rm-${n}/a`], home, check }
    },
  },
  roomCreate: {
    name: 'room create',
    again: [0, 12],
    kills: [0, 2],
    async start(bench) {
      const [name, home] = [`made-room-${bench.next()}`, bench.newHome()]
      const check = async () => {
        const { api } = await bench.world.client()
        same('encrypted', (await requireRemote(api, `/${name}`)).node.isEncrypted, true)
      }
      return { args: ['room', 'create', `/${name}`], home, check }
    },
  },
  roomMembers: {
    name: 'room members --add',
    async start(bench) {
      const [name, home] = [`members-${bench.next()}`, bench.newHome()]
      await makeRoom(await bench.world.client(), name)
      const check = async () => {
        const { json } = await bench.run(home, ['room', 'members', `/${name}`, '--json'])
        same('members', json.map((member) => member.user ?? member.name).sort(), [user1, 'bob'])
      }
      return { args: ['room', 'members', `/${name}`, '--add', 'bob', '--role', 'read'], home, check }
    },
  },
  passwd: {
    name: 'keys passwd',
    // Where all was done but the end of it, the old password is wrong.
    again: [0, 13],
    kills: [0, 1],
    async start(bench) {
      const { user, home } = await newcomer(bench)
      const next = bench.world.path(`next-${user}`)
      writeFileSync(next, 'a new password by chance', { mode: 0o600 })
      const args = ['keys', 'passwd', ...unlocked(bench), '--new-key-password-file', next]
      const check = async () => {
        const client = await bench.world.client(user)
        await client.keys.tryPassword('a new password by chance')
      }
      return { args, home, check }
    },
  },
  replace: {
    name: 'keys replace',
    // Long; in short sweeps test/client/key-replacement.test.ts has each request that changes something.
    kills: [0, 0],
    // What is complete and forgotten is begun once more.
    again: [0, 13],
    async start(bench) {
      const { user, home } = await newcomer(bench)
      const client = await bench.world.client(user)
      await makeRoom(client, user)
      await client.put(`/${user}/file`, Buffer.from('content'))
      const next = bench.world.path(`next-${user}`)
      writeFileSync(next, 'a new password by chance', { mode: 0o600 })
      const args = ['keys', 'replace', '--yes', ...unlocked(bench), '--new-key-password-file', next]
      const check = async () => {
        const later = await bench.world.openClient({ keyPassword: async () => 'a new password by chance' }, user)
        const { bytes } = await later.get(`/${user}/file`)
        same('content', Buffer.from(await bytes()).toString(), 'content')
        same('key pairs', (await later.keys.status()).keyPairs.length, 1)
        await later.close()
      }
      return { args, home, check }
    },
  },
  login: {
    name: 'login',
    async start(bench) {
      const { home, args } = loggedOut(bench)
      const check = async () => same('whoami', (await bench.run(home, ['whoami'])).code, 0)
      return { args, home, check }
    },
  },
  logout: {
    name: 'logout',
    again: [0, 2, 4],
    async start(bench) {
      const { home, args } = loggedOut(bench)
      await ready(bench, home, args)
      const check = async () => {
        const who = await bench.run(home, ['whoami'])
        if (who.code === 0) throw new Error('still logged in')
      }
      return { args: ['logout'], home, check }
    },
  },
  renew: {
    name: 'session renew',
    // Where tokens rotate, a death between the answer and the disk costs the login.
    again: [0, 4],
    async start(bench) {
      const { home, args } = loggedOut(bench)
      await ready(bench, home, args)
      return { args: ['session', 'renew'], home, check: () => {} }
    },
  },
  exportSession: {
    name: 'session export',
    again: [0, 2, 4],
    async start(bench) {
      const { home, args } = loggedOut(bench)
      await ready(bench, home, args)
      const exports = bench.world.path(`exports-${bench.next()}`)
      mkdirSync(exports)
      const check = () => same('exported', Object.keys(filesOf(exports)), ['session'])
      return { args: ['session', 'export', join(exports, 'session')], home, roots: [exports], check }
    },
  },
  importSession: {
    name: 'session import',
    again: [0, 2],
    async start(bench) {
      const { home, args } = loggedOut(bench)
      await ready(bench, home, args)
      const file = bench.world.path(`exported-${bench.next()}`)
      await ready(bench, home, ['session', 'export', file])
      const check = async () => same('whoami', (await bench.run(home, ['whoami'])).code, 0)
      return { args: ['session', 'import', file], home, check }
    },
  },
  profileRename: {
    name: 'profile rename',
    again: [0, 2],
    async start(bench) {
      const home = bench.newHome()
      const check = async () => {
        same('whoami', (await bench.run(home, ['whoami', '--profile', 'other'])).code, 0)
        same(
          'profiles',
          (await bench.run(home, ['profile', 'list', '--json'])).json.map(({ name }) => name),
          ['other'],
        )
      }
      return { args: ['profile', 'rename', 'default', 'other'], home, check }
    },
  },
  profileRemove: {
    name: 'profile remove',
    again: [0, 2],
    async start(bench) {
      const home = bench.newHome()
      const check = async () => same('profiles', (await bench.run(home, ['profile', 'list', '--json'])).json, [])
      return { args: ['profile', 'remove', 'default'], home, check }
    },
  },
  keysCreate: {
    name: 'keys create',
    again: [0, 12],
    async start(bench) {
      const name = `user${bench.next()}`
      const { world } = bench
      await addUser(world.path('server'), { name, password: accountPassword(name) })
      writeFileSync(world.path(`password-${name}`), `${accountPassword(name)}\n`, { mode: 0o600 })
      const { home, args } = loggedOut(bench, name)
      await ready(bench, home, args)
      const check = async () => {
        const status = await bench.run(home, ['keys', 'status', '--json'])
        same('keys status', status.code, 0)
      }
      return { args: ['keys', 'create', ...unlocked(bench)], home, check }
    },
  },
  trust: {
    name: 'keys trust',
    async start(bench) {
      const home = bench.newHome()
      await shareWithBob(bench)
      const check = async () => {
        const list = await bench.run(home, ['keys', 'list', '--json'])
        same('bob', list.json.find(({ user }) => user === 'bob')?.state, 'trusted')
      }
      return { args: ['keys', 'trust', 'bob'], home, check }
    },
  },
  distribute: {
    name: 'keys distribute',
    async start(bench) {
      const [name, home] = [`keys-${bench.next()}`, bench.newHome()]
      await shareWithBob(bench)
      await makeRoom(await bench.world.client(), name)
      await store(bench, { a: 'a', b: 'b' }, `/${name}`)
      await ready(bench, home, ['room', 'members', `/${name}`, '--add', 'bob', '--role', 'read'])
      await ready(bench, home, ['keys', 'trust', 'bob'])
      const check = async () => {
        const client = await bench.world.client('bob')
        const copy = bench.world.path(`copy-${bench.next()}`)
        const { failed } = await client.download([`/${name}`], copy, { contents: true })
        same('of bob', [failed.length, filesOf(copy)], [0, { a: 'a', b: 'b' }])
      }
      return { args: ['keys', 'distribute', '--room', `/${name}`, ...unlocked(bench)], home, check }
    },
  },
  forget: {
    name: 'keys forget',
    async start(bench) {
      const home = bench.newHome()
      await shareWithBob(bench)
      await ready(bench, home, ['keys', 'trust', 'bob'])
      return { args: ['keys', 'forget', 'bob'], home, check: () => {} }
    },
  },
  acceptRules: {
    name: 'rules accept',
    async start(bench) {
      const [n, home] = [bench.next(), bench.newHome()]
      const [local, remote] = [bench.world.path(`rules-${n}`), `/room/rules-${n}`]
      await store(bench, { '.syncignore': '*.tmp\n', a: 'a' }, remote)
      await bench.run(home, ['pull', remote, local, ...unlocked(bench)])
      const check = async () => same('held', (await bench.run(home, ['rules', 'list', local])).code, 0)
      return { args: ['rules', 'accept', local], home, roots: [local], check }
    },
  },
} satisfies Record<string, Command>

const shared = new WeakMap<Bench, Promise<void>>()

/** A room with a second member who has a key pair. */
function shareWithBob(bench: Bench): Promise<void> {
  let sharing = shared.get(bench)
  sharing ??= (async () => {
    const { world } = bench
    await giveKeyPair(await world.client('bob'))
    await makeRoom(await world.client(), 'shared')
    await ready(bench, world.home, ['room', 'members', '/shared', '--add', 'bob', '--role', 'read'])
  })()
  shared.set(bench, sharing)
  return sharing
}
