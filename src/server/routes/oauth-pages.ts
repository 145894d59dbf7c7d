/**
 * The few HTML pages of the login: form, error, and the code to copy. No scripts, nothing loaded from elsewhere, every
 * foreign text escaped.
 * @module
 */

export interface PageReply {
  status: number
  headers: Record<string, string>
  body: string
}

const STYLE =
  'body{font:16px/1.5 system-ui,sans-serif;max-width:24rem;margin:15vh auto;padding:0 1rem}' +
  'input,button{font:inherit;box-sizing:border-box;width:100%;padding:.5rem;margin:.25rem 0 1rem}' +
  'code{display:block;padding:.75rem;background:#eee;color:#000;word-break:break-all}.error{color:#b00020}'

export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`)
}

export function page(status: number, title: string, content: string): PageReply {
  return {
    status,
    headers: {
      'Content-Type': 'text/html; charset=utf-8',
      // No form-action: some browsers apply it to the redirect after the login as well and would block it.
      'Content-Security-Policy':
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
      'X-Frame-Options': 'DENY',
      'Referrer-Policy': 'no-referrer',
      'Cache-Control': 'no-store',
    },
    body:
      `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">` +
      `<title>${escapeHtml(title)}</title><style>${STYLE}</style></head><body><main><h1>${escapeHtml(title)}</h1>` +
      `${content}</main></body></html>`,
  }
}

/** The login form. `carried` are the parameters of the authorize request, sent back with the form. */
export function loginPage(
  carried: readonly (readonly [string, string])[],
  clientId: string,
  problem?: { message: string; status: number },
): PageReply {
  const hidden = carried
    .map(([name, value]) => `<input type="hidden" name="${escapeHtml(name)}" value="${escapeHtml(value)}">`)
    .join('')
  const message = problem === undefined ? '' : `<p class="error" role="alert">${escapeHtml(problem.message)}</p>`
  return page(
    problem?.status ?? 200,
    'Log in',
    `${message}<p>${escapeHtml(clientId)} asks for access to your rooms.</p>` +
      `<form method="post" action="/oauth/authorize">${hidden}` +
      '<label>User name<input name="username" autocomplete="username" required autofocus></label>' +
      '<label>Password<input name="password" type="password" autocomplete="current-password" required></label>' +
      '<label>One-time code, if you use them<input name="otp" inputmode="numeric" autocomplete="one-time-code"></label>' +
      '<button type="submit">Log in</button></form>',
  )
}

/** Shows a code to copy into a program that could not be called back. */
export function callbackPage(code: string | null, error: string | null): PageReply {
  if (code === null)
    return page(error === null ? 400 : 200, 'Login failed', `<p>${escapeHtml(error ?? 'No code was given.')}</p>`)
  return page(
    200,
    'Logged in',
    `<p>Copy this code into the program that asked for it:</p><code>${escapeHtml(code)}</code>`,
  )
}

export function errorPage(message: string): PageReply {
  return page(400, 'Login is not possible', `<p>${escapeHtml(message)}</p>`)
}
