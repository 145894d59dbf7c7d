import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { MAIN } from './support/cli.ts'
import { freePort } from './support/ports.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const readme = readFileSync(join(ROOT, 'README.md'), 'utf8')
const blocks = (language: string) =>
  [...readme.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\`$`, 'gm'))].map((match) => match[1]!)

async function run(program: string, args: string[], cwd: string, env: NodeJS.ProcessEnv = process.env) {
  const child = spawn(program, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      output += chunk
    })
  }
  const [code] = await once(child, 'close')
  return { code, output }
}

test('the README runs from top to bottom', async () => {
  const base = mkdtempSync(join(tmpdir(), 'sealsync-readme-'))
  try {
    const bin = join(base, 'bin')
    const work = join(base, 'work')
    mkdirSync(bin)
    mkdirSync(work)
    writeFileSync(join(bin, 'sync'), `#!/bin/sh\nexec "${process.execPath}" "${MAIN}" "$@"\n`)
    chmodSync(join(bin, 'sync'), 0o755)
    const script = blocks('sh')
      .join('\n')
      .replaceAll('8080', String(await freePort()))
    expect(script).toContain('sync download')
    const env = { ...process.env, PATH: `${bin}:${process.env.PATH}` }
    // Where a command fails the server must not live on: nobody would end it, and its output would be waited for.
    const guarded = `trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n${script}`
    const { code, output } = await run('bash', ['-euc', guarded], work, env)
    expect(code, output).toBe(0)
    expect(output).toContain('seal')
    expect(readFileSync(join(work, 'restored/photos/seal.txt'), 'utf8')).toBe('seal\n')
  } finally {
    rmSync(base, { recursive: true, force: true })
  }
})

test('the code in the README compiles against the package', async () => {
  // Inside the project, so that its own name resolves.
  const base = mkdtempSync(join(ROOT, 'node_modules', '.readme-'))
  try {
    const snippets = blocks('ts')
    expect(snippets.length).toBe(8)
    snippets.forEach((text, index) => {
      writeFileSync(join(base, `snippet${index}.ts`), `${text}\nexport {}\n`)
    })
    writeFileSync(
      join(base, 'tsconfig.json'),
      JSON.stringify({
        compilerOptions: {
          target: 'es2023',
          module: 'nodenext',
          strict: true,
          noEmit: true,
          skipLibCheck: true,
          types: ['node'],
          typeRoots: ['../@types'],
          paths: {
            sealsync: ['../../dist/src/index.d.ts'],
            'sealsync/crypto': ['../../dist/crypto/index.d.ts'],
            'sealsync/session': ['../../dist/src/session/index.d.ts'],
            'sealsync/server': ['../../dist/src/server/index.d.ts'],
          },
        },
        include: ['*.ts'],
      }),
    )
    const { code, output } = await run(
      process.execPath,
      [join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', base],
      base,
    )
    expect(output).toBe('')
    expect(code).toBe(0)
  } finally {
    rmSync(base, { recursive: true, force: true })
  }
})

test('the package offers its entry points by their names', async () => {
  const { code, output } = await run(
    process.execPath,
    [
      '--input-type=module',
      '-e',
      "const a = await import('sealsync'); const b = await import('sealsync/crypto'); console.log(typeof a.createClient, typeof b.unlockKeyPair)",
    ],
    ROOT,
  )
  expect(output.trim()).toBe('function function')
  expect(code).toBe(0)
})

test('a variable that a line of a crontab sets for one command is not needed by the next', () => {
  const lines = readme.match(/^\d+ \d+ \* \* .*$/gm) ?? []
  expect(lines.length).toBeGreaterThanOrEqual(3)
  for (const line of lines) expect(line).not.toMatch(/[A-Z_]+=\S+ .*(?:&&|;|\|)/)
})
