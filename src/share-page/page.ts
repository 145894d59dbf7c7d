/**
 * The page behind a link: finds out what the link is, and shows it. What happens then is in download-view.ts and upload-view.ts.
 * @module
 */
import { readConfig, readLink } from './config.ts'
import { Announcer, button, el, ICONS, icon, show } from './dom.ts'
import { type Stage, showDownload } from './download-view.ts'
import { asFailure, Failure } from './failure.ts'
import { passwordForm } from './password-form.ts'
import { showUpload } from './upload-view.ts'
import { wordsFor } from './words.ts'
import { WorkerLink } from './worker-link.ts'

const main = document.querySelector('main')!
const announcer = new Announcer(document.querySelector('#announcer')!)

const warn = (event: BeforeUnloadEvent): void => event.preventDefault()

const stage: Omit<Stage, 'worker'> = {
  main,
  announcer,
  fail(error, again) {
    const failure = asFailure(error)
    const { title, text, canRetry = false } = wordsFor(failure.code)
    const isOurs = failure.code === 'BUG' || failure.code === 'SETUP'
    show(
      main,
      el('div', { class: 'heading bad' }, icon(ICONS.warning), el('h1', {}, title)),
      el('p', {}, text),
      isOurs ? el('p', { class: 'hint' }, failure.message) : undefined,
      canRetry ? button('Try again', again, { class: 'primary' }) : undefined,
    )
    announcer.say(`${title}. ${text}`)
  },
  setBusy(isBusy) {
    if (isBusy) addEventListener('beforeunload', warn)
    else removeEventListener('beforeunload', warn)
  },
}

/** What this page needs, and browsers have for pages that came safely. */
function checkBrowser(): void {
  if (!globalThis.isSecureContext) throw new Failure('SETUP', 'The page has to be opened with https://.')
  const isModern = 'locks' in navigator && crypto.subtle !== undefined && 'storage' in navigator
  if (!isModern) throw new Failure('SETUP', 'This browser is too old: take a newer one.')
}

async function configuration() {
  let json: unknown
  try {
    const response = await fetch(new URL('config.json', import.meta.url), {
      credentials: 'omit',
      redirect: 'error',
      cache: 'no-store',
    })
    json = response.status === 404 ? {} : await response.json()
  } catch (cause) {
    throw new Failure('SETUP', 'config.json cannot be read.', { cause })
  }
  return readConfig(json, location.origin)
}

async function begin(): Promise<void> {
  const again = (): void => void begin()
  try {
    checkBrowser()
    const link = readLink(location)
    if (link === undefined) throw new Failure('GONE', 'The address is no link')
    const config = await configuration()
    const worker = new WorkerLink()
    await worker.call('open', [config, link])
    await describe({ ...stage, worker })
  } catch (error) {
    stage.fail(error, again)
  }
}

async function describe(full: Stage): Promise<void> {
  const { worker, fail } = full
  const again = (): void => void describe(full)
  try {
    const info = await worker.call('describe', [])
    if (info.kind === 'download') return await showDownload(full, info)
    if (!info.needsPassword) return await showUpload(full, info)
    show(
      main,
      el('div', { class: 'heading' }, icon(ICONS.inbox), el('h1', {}, 'This file request has a password')),
      passwordForm(
        {
          label: 'Password of this request',
          hint: 'The server checks this password: it is sent to it. Files are encrypted without it.',
          submit: 'Go on',
          busy: 'Asking…',
        },
        announcer,
        async (password) => {
          const more = await worker.call('describe', [password])
          if (more.kind === 'upload') await showUpload(full, more)
        },
        (error) => fail(error, again),
      ),
    )
  } catch (error) {
    fail(error, again)
  }
}

// Another link in the same window.
addEventListener('hashchange', () => location.reload())
void begin()
