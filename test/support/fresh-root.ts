/** A root directory with nothing in it but a shell and the C library, which a Debian package is installed into: no Node, no npm, no coreutils. */
import { type ChildProcessByStdio, spawn, spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Readable } from 'node:stream'

const isRoot = process.getuid?.() === 0

/** Programs of administrators are there, too. */
const PATH = '/usr/sbin:/usr/bin:/sbin:/bin'

const works = (program: string, args: readonly string[]) => spawnSync(program, args, { env: { PATH } }).status === 0

/** As root, or as good as that, with mounts of its own, which end with it. */
const ALONE = ['--mount', ...(isRoot ? [] : ['--map-root-user'])]

/** Gives the other root what every system has, and goes there. */
const ENTER =
  'mount --rbind /proc "$1/proc" && mount --rbind /dev "$1/dev" && root=$1 && shift && exec chroot "$root" "$@"'

/** Why it cannot be made here; `undefined` where it can. */
export function noFreshRoot(): string | undefined {
  if (process.platform !== 'linux' || process.arch !== 'x64') return 'Linux on x64'
  for (const program of ['dpkg', 'ldd', 'chroot', 'mount']) if (!works(program, ['--version'])) return program
  return works('unshare', [...ALONE, 'mount', '--bind', '/proc', '/proc']) ? undefined : 'namespaces for mounts'
}

export interface FreshRoot {
  readonly path: string
  install(deb: string): void
  remove(name: string): void
  /** Runs a program inside. */
  run(
    command: readonly string[],
    env?: Record<string, string>,
  ): { readonly code: number | null; readonly stdout: string; readonly stderr: string }
  /** Starts one that goes on. */
  start(command: readonly string[], env?: Record<string, string>): ChildProcessByStdio<null, Readable, Readable>
}

/** Libraries that programs are linked with, and the linker itself. */
function librariesOf(programs: readonly string[]): string[] {
  const { stdout } = spawnSync('ldd', [...programs], { encoding: 'utf8' })
  return [...new Set([...stdout.matchAll(/(?:=> )?(\/\S+) \(0x/g)].map(([, path]) => path!))]
}

/**
 * @param path - An empty directory.
 * @param needs - Programs and libraries that are going to run there: what they are linked with is what Debian's dependencies say.
 */
export function makeFreshRoot(path: string, needs: readonly string[]): FreshRoot {
  for (const name of [
    'usr/bin',
    'tmp',
    'root',
    'etc',
    'dev',
    'proc',
    'var/lib/dpkg/info',
    'var/lib/dpkg/updates',
    'usr/lib64',
    'usr/lib',
  ]) {
    mkdirSync(join(path, name), { recursive: true })
  }
  for (const name of ['bin', 'lib', 'lib64']) symlinkSync(`usr/${name}`, join(path, name))
  writeFileSync(join(path, 'var/lib/dpkg/status'), '')
  writeFileSync(join(path, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n')
  for (const library of librariesOf(['/bin/sh', ...needs])) {
    mkdirSync(dirname(join(path, library)), { recursive: true })
    copyFileSync(library, join(path, library))
  }
  copyFileSync('/bin/sh', join(path, 'usr/bin/sh'))
  const call = (command: readonly string[], env: Record<string, string>) => {
    const { status, stdout, stderr } = spawnSync('unshare', [...ALONE, ...command], { encoding: 'utf8', env })
    return { code: status, stdout, stderr }
  }
  const dpkg = (...args: string[]) => {
    const forced = ['not-root', 'depends', 'script-chrootless'].map((what) => `--force-${what}`)
    const { code, stdout, stderr } = call(['dpkg', `--root=${path}`, ...forced, ...args], { PATH, LC_ALL: 'C' })
    if (code !== 0) throw new Error(`dpkg ${args.join(' ')}: ${stdout}${stderr}`)
  }
  const inside = (command: readonly string[]) => ['sh', '-c', ENTER, 'sh', path, ...command]
  const environment = (env: Record<string, string>) => ({ PATH, HOME: '/root', ...env })
  return {
    path,
    install: (deb) => dpkg('--install', deb),
    remove: (name) => dpkg('--remove', name),
    run: (command, env = {}) => call(inside(command), environment(env)),
    start: (command, env = {}) =>
      spawn('unshare', [...ALONE, ...inside(command)], { env: environment(env), stdio: ['ignore', 'pipe', 'pipe'] }),
  }
}

/** What the package manager of that root knows. */
export const installedFiles = ({ path }: FreshRoot, name: string): string[] =>
  readFileSync(join(path, `var/lib/dpkg/info/${name}.list`), 'utf8')
    .trim()
    .split('\n')
