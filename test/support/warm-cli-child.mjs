/**
 * A process that runs one command of the command line after another, each as it comes by message: { args, env, plan } with the lines of a
 * plan for shim.c (or none), and answers with { code, stdout, stderr }; without a command it only answers. What nobody catches is the
 * last answer. See warm-cli.ts.
 */
import { closeSync, openSync } from 'node:fs'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
import { setFlagsFromString } from 'node:v8'

/** The entry of the command line: CommonJS as it is installed, an ES module as it is compiled. */
const main = process.argv[2]
const require = createRequire(import.meta.url)
let count = 0

/** Evaluates it once more; what it imports stays. */
async function evaluate() {
  if (!main.includes('/dist/bin/')) return import(`${pathToFileURL(main).href}?${++count}`)
  delete require.cache[require.resolve(main)]
  return require(main)
}

setFlagsFromString('--liftoff-only')
process.setMaxListeners(0)

const said = { stdout: '', stderr: '' }
/** Before each command, because each puts itself in between. */
function listen() {
  for (const name of ['stdout', 'stderr']) {
    said[name] = ''
    process[name].removeAllListeners('error')
    process[name].write = (chunk, ...more) => {
      said[name] += typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString()
      const done = more.at(-1)
      if (typeof done === 'function') process.nextTick(done)
      return true
    }
  }
}

/** Without lines nothing is numbered any more; without a shim there is no such file. */
function tellShim(lines = '') {
  try {
    closeSync(openSync(`/dev/null/shim${lines}`))
  } catch {}
}

// Nobody is there to be answered.
process.on('disconnect', () => process.exit())

process.on('uncaughtException', (error) => {
  tellShim()
  process.send({ ...said, code: 1, stderr: `${said.stderr}UnhandledPromise or exception: ${error?.stack}` }, () =>
    process.kill(process.pid, 'SIGKILL'),
  )
})

process.on('message', async ({ args, env, plan }) => {
  if (args === undefined) return process.send({ code: 0, stdout: '', stderr: '' })
  listen()
  for (const name of Object.keys(process.env)) delete process.env[name]
  Object.assign(process.env, env)
  if (plan !== undefined) tellShim(plan)
  process.argv.splice(1, process.argv.length, 'sync', ...args)
  await (await evaluate()).done
  const code = process.exitCode
  process.exitCode = undefined
  tellShim()
  process.send({ ...said, code })
})
