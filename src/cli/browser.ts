/** Opening a login page in the system's browser. @module */
import { spawn } from 'node:child_process'

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
    const child = spawn(program, args, { stdio: 'ignore', detached: true })
    child.once('error', () => resolve(false))
    child.once('exit', (code) => resolve(code === 0))
    // A browser that stays in the foreground has started by now.
    setTimeout(() => resolve(true), 2_000).unref()
    child.unref()
  })
}
