/**
 * Pages of the server itself: what it is, the first account, and whether it is alive. Static but for a form; no scripts, nothing loaded
 * from elsewhere.
 * @module
 */
import { SyncError } from '../../../crypto/errors.ts'
import { isSetupCode, makeFirstUser } from '../admin/setup.ts'
import { hashNewPassword } from '../admin/users.ts'
import type { Call, Reply, RouteTable } from '../call.ts'
import { escapeHtml, page } from './oauth-pages.ts'

function home({ baseUrl }: Call): Reply {
  return page(
    200,
    'A room store of sealsync',
    '<p>Files of encrypted rooms are encrypted before they come here, and opened only by those who hold their keys. ' +
      'This server has none.</p>' +
      '<p>There is nothing to see in a browser. Log in with the program, or any client for DRACOON:</p>' +
      `<code>sync login ${escapeHtml(baseUrl)}</code>`,
  )
}

const setupForm = (code: string, problem?: { message: string; status: number }): Reply =>
  page(
    problem?.status ?? 200,
    'The first account',
    (problem === undefined ? '' : `<p class="error" role="alert">${escapeHtml(problem.message)}</p>`) +
      '<p>It will be an administrator’s.</p>' +
      `<form method="post" action="/setup"><input type="hidden" name="code" value="${escapeHtml(code)}">` +
      '<label>User name<input name="username" autocomplete="username" required autofocus></label>' +
      '<label>Password<input name="password" type="password" autocomplete="new-password" required></label>' +
      '<label>Password again<input name="again" type="password" autocomplete="new-password" required></label>' +
      '<button type="submit">Make the account</button></form>',
  )

const linkIsOver = (): Reply =>
  page(
    404,
    'This link is not good any more',
    '<p>It is good once, for a day, and as long as nobody has an account. A new start of the server makes a new one; ' +
      'or make accounts at the server:</p><code>sync serve user add NAME --data DIR --admin</code>',
  )

function showSetup({ app, query }: Call): Reply {
  const code = query.get('code') ?? ''
  return isSetupCode(app.store, code, app.now()) ? setupForm(code) : linkIsOver()
}

async function setUp(call: Call): Promise<Reply> {
  const { app, address, baseUrl } = call
  const form = await call.form()
  const [code = '', name = '', password = '', again = ''] = ['code', 'username', 'password', 'again'].map(
    (field) => form.get(field) ?? '',
  )
  // Before the work of hashing a password.
  if (!isSetupCode(app.store, code, app.now())) return linkIsOver()
  if (password !== again) return setupForm(code, { message: 'The two passwords differ.', status: 400 })
  try {
    await makeFirstUser(
      app.store,
      code,
      { name, password: await hashNewPassword(password) },
      { now: app.now(), address },
    )
  } catch (error) {
    if (!(error instanceof SyncError)) throw error
    if (error.code === 'ADMIN_REFUSED') return linkIsOver()
    return setupForm(code, { message: `${error.message}. ${error.hint ?? ''}`, status: 400 })
  }
  return page(
    201,
    'The account is made',
    `<p>Log in with the program:</p><code>sync login ${escapeHtml(baseUrl)} --user ${escapeHtml(name)}</code>` +
      '<p>Then make a key pair, under a password of its own that nobody can reset:</p><code>sync keys create</code>',
  )
}

const plain = (status: number, body: string): Reply => ({
  status,
  headers: { 'Content-Type': 'text/plain; charset=utf-8', 'Cache-Control': 'no-store' },
  body: `${body}\n`,
})

/** Ready: it is not about to stop, and its metadata can be read. */
function ready({ app }: Call): Reply {
  const why = app.unready()
  if (why !== undefined) return plain(503, why)
  app.store.version()
  return plain(200, 'ready')
}

export const pageRoutes: RouteTable = {
  'GET /': home,
  'GET /setup': showSetup,
  'POST /setup': setUp,
  'GET /healthz': () => plain(200, 'ok'),
  'GET /readyz': ready,
}
