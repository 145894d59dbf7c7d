/** The two programs called `sync`: calls that mean the system's reach it, however ours was installed, and ours never says that it did. */
import { chmodSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { MAIN, runProgram } from '../support/cli.ts'
import { freshDirectory } from '../support/files.ts'

const isPosix = process.platform !== 'win32'

/** A directory of programs: ours as npm links it, or somebody's that says what it got. */
async function directories() {
  const base = await freshDirectory()
  const directory = (name: string) => {
    mkdirSync(join(base, name), { recursive: true })
    return join(base, name)
  }
  return {
    base,
    ours(name: string): string {
      symlinkSync(MAIN, join(directory(name), 'sync'))
      return join(base, name)
    },
    theirs(name: string, script = 'echo "theirs: $*"'): string {
      const path = join(directory(name), 'sync')
      writeFileSync(path, `#!/bin/sh\n${script}\n`)
      chmodSync(path, 0o755)
      return join(base, name)
    },
  }
}

const call = (bin: string, args: readonly string[], ...path: string[]) =>
  runProgram(process.execPath, [join(bin, 'sync'), ...args], { PATH: [bin, ...path].join(':') })

test.runIf(isPosix)('what only the other one takes is handed over, and nothing else', async () => {
  const { ours, theirs } = await directories()
  const [bin, usr] = [ours('bin'), theirs('usr')]
  const handed = [
    [],
    ['-d'],
    ['-f', '.'],
    ['-df', '.'],
    ['--data', 'x'],
    ['--file', 'x'],
    ['--', 'x'],
    ['/mnt'],
    ['./x'],
  ]
  for (const args of handed) {
    expect(await call(bin, args, usr), args.join(' ')).toMatchObject({ code: 0, stdout: `theirs: ${args.join(' ')}\n` })
  }
  for (const args of [['--version'], ['--help'], ['ls', '--help'], ['nonsense'], ['--json']]) {
    expect((await call(bin, args, usr)).stdout, args.join(' ')).not.toContain('theirs')
  }
})

test.runIf(isPosix)('its exit code is passed on, and a signal that ended it', async () => {
  const { ours, theirs } = await directories()
  const bin = ours('bin')
  expect(await call(bin, [], theirs('fails', 'exit 7'))).toMatchObject({ code: 7 })
  expect(await call(bin, [], theirs('dies', 'kill -9 $$'))).toMatchObject({ code: 137 })
})

test.runIf(isPosix)('other copies of ours are passed over, and scripts that start them', async () => {
  const { ours, theirs, base } = await directories()
  const [bin, copy, usr] = [ours('bin'), ours('copy'), theirs('usr')]
  const script = theirs('script', `exec node /usr/lib/sealsync/app/bin/sync.js "$@"`)
  // This one cannot be told from somebody's own program, and leads back.
  const loop = theirs('loop', `exec "${process.execPath}" "${join(bin, 'sync')}" "$@"`)
  expect(await call(bin, ['-d'], copy, script, loop, usr)).toMatchObject({ code: 0, stdout: 'theirs: -d\n' })
  const broken = join(base, 'broken')
  mkdirSync(broken)
  symlinkSync(join(base, 'nowhere'), join(broken, 'sync'))
  expect(await call(bin, [], broken, join(base, 'missing'), usr)).toMatchObject({ code: 0, stdout: 'theirs: \n' })
})

const hasSystemSync = existsSync('/usr/bin/sync') && readFileSync('/usr/bin/sync').subarray(1, 4).toString() === 'ELF'

test.runIf(isPosix && hasSystemSync)(
  'where PATH does not lead to it, it is looked for in the usual places',
  async () => {
    const { ours } = await directories()
    const bin = ours('bin')
    expect(await call(bin, ['/nothing/is/here'])).toMatchObject({ code: 1, stderr: expect.stringContaining('sync: ') })
  },
)
