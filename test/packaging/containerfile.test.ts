/**
 * The image of the server: its file follows rules, and its steps run here in a directory, since a container engine is not everywhere. What
 * makes accounts of the system is only looked at.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, lstatSync, mkdirSync, readFileSync, readlinkSync, symlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { freshDirectory } from '../support/files.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const read = (path: string) => readFileSync(join(ROOT, path), 'utf8')

interface Step {
  readonly name: string
  readonly text: string
}

/** Instructions, by stage. */
function stagesOf(file: string): Step[][] {
  const lines = file.replace(/\\\n\s*/g, '').split('\n')
  const steps = lines.flatMap((line) => {
    const [, name, text] = /^([A-Z]+) (.+)$/.exec(line) ?? []
    return name === undefined ? [] : [{ name, text: text! }]
  })
  const stages: Step[][] = []
  for (const step of steps) {
    if (step.name === 'FROM') stages.push([])
    stages.at(-1)!.push(step)
  }
  return stages
}

/** What is wrong with a file. */
function problemsOf(file: string): string[] {
  const runtime = JSON.parse(read('src/packaging/runtime.json'))
  const stages = stagesOf(file)
  const all = stages.flat()
  const last = stages.at(-1)!
  const indexOf = (name: string) => last.findLastIndex((step) => step.name === name)
  const texts = (name: string) => all.filter((step) => step.name === name).map(({ text }) => text)
  const problems: [boolean, string][] = [
    [stages.length < 2, 'what builds goes along'],
    [texts('FROM').some((text) => !text.includes(`/node:${runtime.version}-`)), 'another Node than in the packages'],
    [texts('FROM').some((text) => !/^[\w.-]+\.\w+\//.test(text)), 'a registry that is left to the machine'],
    [texts('ADD').length > 0, 'ADD unpacks and fetches'],
    [texts('COPY').some((text) => /(?:^|\s)\.\/?\s/.test(text)), 'copies whatever is in the checkout'],
    [
      texts('RUN').some((text) => /npm (?:ci|i|install|prune)\b/.test(text) && !text.includes('--ignore-scripts')),
      'runs scripts of packages',
    ],
    [texts('RUN').some((text) => /npm (?:i|install)\b/.test(text)), 'installs what the lock file does not say'],
    [texts('RUN').some((text) => /curl|wget|sudo|chmod 777/.test(text)), 'fetches or allows too much'],
    [[...texts('ENV'), ...texts('ARG')].some((text) => /password|secret|token/i.test(text)), 'a secret in the image'],
    [!/^[1-9]\d*:[1-9]\d*$/.test(last[indexOf('USER')]?.text ?? ''), 'runs as root, or as a name'],
    [indexOf('USER') < indexOf('COPY') || indexOf('USER') < indexOf('RUN'), 'what is copied is the user’s to change'],
    [
      ['VOLUME', 'HEALTHCHECK', 'EXPOSE', 'STOPSIGNAL'].some((name) => indexOf(name) === -1),
      'lacks what an operator needs',
    ],
    [
      ['ENTRYPOINT', 'CMD', 'VOLUME'].some((name) => !last[indexOf(name)]?.text.startsWith('[')),
      'goes through a shell',
    ],
    [/^[a-z]+ /m.test(file), 'instructions in small letters'],
  ]
  return problems.flatMap(([isWrong, what]) => (isWrong ? [what] : []))
}

test('the Containerfile follows the rules, and each rule finds what it is for', () => {
  const file = read('src/packaging/Containerfile')
  expect(problemsOf(file)).toEqual([])
  for (const [from, to] of [
    [/node:[\d.]+/, 'node:24'],
    ['docker.io/library/', ''],
    ['COPY src ./src', 'COPY . .'],
    ['npm ci --ignore-scripts', 'npm ci'],
    ['npm run build', 'npm install x --ignore-scripts'],
    ['USER 10001:10001', 'USER 0:0'],
    ['USER 10001:10001\n', ''],
    ['USER 10001:10001', 'USER 10001:10001\nCOPY crypto /x'],
    [/HEALTHCHECK.*\n/, ''],
    ['ENTRYPOINT ["sealsync", "serve", "--data", "/data"]', 'ENTRYPOINT sealsync serve'],
    ['ENV SEALSYNC_HOME', 'ENV SEALSYNC_PASSWORD'],
    ['COPY LICENSE', 'ADD LICENSE'],
  ] as const) {
    expect(problemsOf(file.replace(from, to)), String(to)).not.toEqual([])
  }
})

const full = process.env.SEALSYNC_FULL !== undefined

test.runIf(process.platform !== 'win32')(
  'its steps make a server that answers, and that the health check knows',
  async () => {
    const base = await freshDirectory()
    const [build, image] = stagesOf(read('src/packaging/Containerfile'))
    const inside = (root: string, path: string) => join(base, root, path)
    /** Copies as COPY does: a directory's content, a file into a directory. */
    const copy = (from: string, to: string) => {
      const target = to.endsWith('/') ? join(to, from.split('/').at(-1)!) : to
      mkdirSync(dirname(target), { recursive: true })
      // The packages of this checkout, where they are not fetched.
      if (lstatSync(from).isSymbolicLink()) symlinkSync(readlinkSync(from), target)
      else cpSync(from, target, { recursive: true })
    }
    let workdir = '/'
    const run = (command: string) => {
      if (!full && /^npm (?:ci|prune)\b/.test(command)) {
        if (command.startsWith('npm ci'))
          symlinkSync(join(ROOT, 'node_modules'), join(inside('build', workdir), 'node_modules'))
        return
      }
      const { status, stdout, stderr } = spawnSync('sh', ['-c', command], {
        cwd: inside('build', workdir),
        encoding: 'utf8',
      })
      expect(status, `${command}\n${stdout}${stderr}`).toBe(0)
    }
    for (const { name, text } of build!) {
      if (name === 'WORKDIR') {
        workdir = text
        mkdirSync(inside('build', workdir), { recursive: true })
      }
      if (name === 'RUN') run(text)
      if (name !== 'COPY') continue
      const [to, ...from] = text.split(' ').reverse()
      for (const one of from) copy(join(ROOT, one), inside('build', `${workdir}/${to}`))
    }
    for (const { name, text } of image!) {
      if (name !== 'COPY') continue
      const [, source, from, to] = /^(--from=build )?(\S+) (\S+)$/.exec(text)!
      copy(source === undefined ? join(ROOT, from!) : inside('build', from!), inside('image', to!))
    }

    const textOf = (name: string) => image!.find((step) => step.name === name)!.text.replace(/^[^[]*/, '')
    /** A command of the image, with its places here. */
    const command = (text: string): string[] =>
      (JSON.parse(text) as string[]).map((word) => {
        if (word === 'sealsync') return inside('image', '/opt/sealsync/dist/bin/main.js')
        return word.startsWith('/') ? inside('image', word) : word
      })
    expect(JSON.parse(textOf('CMD'))).toEqual(['--port', '8080'])
    const env = { PATH: process.env.PATH ?? '', SEALSYNC_HOME: inside('image', '/data/.sealsync') }
    const entry = [...command(textOf('ENTRYPOINT')), '--port', '0', '--json', '-q']
    const server = spawn(process.execPath, entry, { env, stdio: ['ignore', 'pipe', 'inherit'] })
    const closed = once(server, 'close')
    onTestFinished(async () => {
      server.kill('SIGKILL')
      await closed
    })
    const [line] = (await once(server.stdout.setEncoding('utf8'), 'data')) as [string]
    const check = command(textOf('HEALTHCHECK'))
    expect(check[0]).toBe('node')
    const health = () =>
      spawnSync(process.execPath, check.slice(1), { env: { ...env, SEALSYNC_HEALTH_URL: JSON.parse(line).url } }).status
    expect(health()).toBe(0)
    server.kill('SIGTERM')
    expect((await closed)[0]).toBe(0)
    expect(health()).toBe(1)
  },
)
