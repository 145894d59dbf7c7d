/** Opening a login page in the system's browser. @module */
import { spawn } from 'node:child_process'
import { childEnvironment } from './child-environment.ts'

/**
 * Starts the browser with the address as one argument, without a shell.
 *
 * @returns false when no browser could be started.
 */
export function openBrowser(url: string): Promise<boolean> {
  const custom = process.env.SEALSYNC_BROWSER
  const [program, args] = custom
    ? [custom, [url]]
    : process.platform === 'darwin'
      ? ['open', [url]]
      : process.platform === 'win32'
        ? ['rundll32', ['url.dll,FileProtocolHandler', url]]
        : ['xdg-open', [url]]
  return new Promise((resolve) => {
    const child = spawn(program, args, { stdio: 'ignore', detached: true, env: childEnvironment() })
    // A browser that stays in the foreground has started by now. The timer keeps us alive: nothing else may.
    const timer = setTimeout(() => resolve(true), 2_000)
    const end = (opened: boolean) => {
      clearTimeout(timer)
      resolve(opened)
    }
    child.once('error', () => end(false))
    child.once('exit', (code) => end(code === 0))
    child.unref()
  })
}
