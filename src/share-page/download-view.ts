/**
 * The page of a download share.
 * @module
 */

import { type Announcer, button, el, ICONS, icon, show } from './dom.ts'
import type { DownloadInfo } from './download.ts'
import { passwordForm } from './password-form.ts'
import type { PlaceKind } from './places.ts'
import { createProgress } from './progress.ts'
import { dateText, savedName, shown, shownLines, sizeText } from './words.ts'
import type { WorkerLink } from './worker-link.ts'

type Choose = (options: { suggestedName: string; id: string }) => Promise<FileSystemFileHandle>
const chooseFile = (globalThis as { showSaveFilePicker?: Choose }).showSaveFilePicker

export interface Stage {
  readonly main: HTMLElement
  readonly worker: WorkerLink
  readonly announcer: Announcer
  /** Shows what went wrong, and offers to do something again. */
  fail(error: unknown, again: () => void): void
  /** Asks before the page is left, while something is under way. */
  setBusy(isBusy: boolean): void
}

function facts({ size, isArchive, creatorName, expireAt, notes, isEncrypted, hasLimit }: DownloadInfo): HTMLElement {
  const until = dateText(expireAt)
  return el(
    'div',
    { class: 'facts' },
    el(
      'p',
      {},
      isArchive ? `ZIP archive of ${sizeText(size)}` : sizeText(size),
      creatorName === '' ? '' : ` · from ${shown(creatorName)}`,
      until === undefined ? '' : ` · until ${until}`,
    ),
    notes === '' ? undefined : el('blockquote', {}, shownLines(notes)),
    hasLimit ? el('p', { class: 'hint' }, 'This link can be used a limited number of times.') : undefined,
    el(
      'p',
      { class: isEncrypted ? 'seal' : 'seal open' },
      icon(isEncrypted ? ICONS.lock : ICONS.open),
      isEncrypted
        ? 'End-to-end encrypted. It is decrypted in this browser; the server cannot read it.'
        : 'Not end-to-end encrypted: the server can read this file.',
    ),
  )
}

const heading = (info: DownloadInfo, icons: string = ICONS.file): HTMLElement =>
  el('div', { class: 'heading' }, icon(icons), el('h1', {}, shown(info.fileName)))

export async function showDownload(stage: Stage, info: DownloadInfo): Promise<void> {
  document.title = `${shown(info.fileName)} · sealsync`
  if (info.isEncrypted) return showLocked(stage, info)
  return showPlain(stage, info)
}

/** Not encrypted: the browser downloads it by itself. */
function showPlain(stage: Stage, info: DownloadInfo): void {
  const { main, worker, announcer, fail } = stage
  const start = async (password?: string): Promise<void> => {
    const address = await worker.call('plainAddress', password === undefined ? [] : [password])
    const link = el('a', { href: address, download: savedName(info.fileName), rel: 'noreferrer' })
    document.body.append(link)
    link.click()
    link.remove()
    announcer.say('The download has begun.')
    show(
      main,
      heading(info, ICONS.done),
      el('p', {}, 'The download has begun. Your browser shows how far it is, and whether it has worked.'),
    )
  }
  const again = (): void => showPlain(stage, info)
  const action = info.isProtected
    ? passwordForm(
        {
          label: 'Password of this share',
          hint: 'The server checks this password: it is sent to it.',
          submit: 'Download',
          busy: 'Asking…',
        },
        announcer,
        start,
        (error) => fail(error, again),
      )
    : button('Download', () => void start().catch((error) => fail(error, again)), { class: 'primary' })
  show(main, heading(info), facts(info), action)
}

async function showLocked(stage: Stage, info: DownloadInfo): Promise<void> {
  const { main, worker, announcer, fail } = stage
  const place = await worker.call('choosePlace', [info.size, chooseFile !== undefined])
  const again = (): void => void showLocked(stage, info).catch((error) => fail(error, again))
  const form = passwordForm(
    {
      label: 'Password of this share',
      hint: 'It stays in this browser. You should have got it another way than the link.',
      submit: place === 'chosen' ? 'Unlock' : 'Unlock and download',
      busy: 'Unlocking…',
    },
    announcer,
    async (password) => {
      await worker.call('unlock', [password])
      if (place === 'chosen') showUnlocked(stage, info)
      else void run(stage, info, place)
    },
    (error) => fail(error, again),
  )
  show(
    main,
    heading(info),
    facts(info),
    place === 'none' ? tooLarge() : form,
    place === 'memory' ? inMemory() : undefined,
  )
}

const tooLarge = (): HTMLElement =>
  el(
    'p',
    { class: 'problem', role: 'alert' },
    icon(ICONS.warning),
    'This browser has no place for a file of this size. Free some space, leave a private window, or use the command line: sealsync download LINK.',
  )

const inMemory = (): HTMLElement =>
  el(
    'p',
    { class: 'hint' },
    'This browser holds the whole file in memory until it is checked: up to 512 MiB are possible.',
  )

/** Where the private file system has no room for it, the file is written to its place at once, under another name until it is checked. */
function showUnlocked(stage: Stage, info: DownloadInfo): void {
  const start = async (): Promise<void> => {
    let chosen: FileSystemFileHandle
    try {
      chosen = await chooseFile!.call(globalThis, { suggestedName: savedName(info.fileName), id: 'sealsync' })
    } catch {
      return // nothing was chosen
    }
    await run(stage, info, 'chosen', chosen)
  }
  show(
    stage.main,
    heading(info, ICONS.open),
    el(
      'p',
      {},
      'Unlocked. Choose where to save it: the file is there when all of it has been checked, and not before.',
    ),
    button('Choose where to save…', () => void start(), { class: 'primary' }),
  )
}

async function run(stage: Stage, info: DownloadInfo, place: PlaceKind, chosen?: FileSystemFileHandle): Promise<void> {
  const { main, worker, announcer, fail, setBusy } = stage
  const control = new AbortController()
  const progress = createProgress(`Download of ${shown(info.fileName)}`, announcer, { before: 0 })
  show(
    main,
    heading(info),
    progress.element,
    el('p', { class: 'hint' }, 'It is saved when all of it is here and has been checked.'),
    button('Cancel', () => control.abort()),
  )
  setBusy(true)
  try {
    const options = { signal: control.signal, onEvent: progress.onEvent }
    const content = await worker.call('fetch', chosen === undefined ? [place] : [place, chosen], options)
    showDone(stage, info, content)
  } catch (error) {
    fail(error, () => void run(stage, info, place, chosen))
  } finally {
    setBusy(false)
  }
}

/** Longer than this a browser is not still copying the file when the page is left. */
const copyingMs = (size: number): number => 10_000 + size / 20_000

/** Checked: gives it out. */
function showDone(stage: Stage, info: DownloadInfo, content: Blob | undefined): void {
  const { main, worker, announcer } = stage
  const words = el('p', {}, 'Checked: it is exactly what was shared.')
  if (content === undefined) {
    show(main, heading(info, ICONS.done), words, el('p', {}, 'It is in the file that you have chosen.'))
    announcer.say('Saved and checked.')
    return
  }
  const address = URL.createObjectURL(content)
  let savedAt = 0
  const save = (): void => {
    savedAt = performance.now()
    const link = el('a', { href: address, download: savedName(info.fileName) })
    document.body.append(link)
    link.click()
    link.remove()
  }
  const remove = (): void => {
    URL.revokeObjectURL(address)
    void worker.call('discard', [])
  }
  const actions = el('div', { class: 'actions' })
  const removed = el(
    'p',
    { class: 'hint' },
    'Until you leave this page, the browser keeps a copy, so that it can be saved again.',
  )
  actions.append(
    button('Save again', save),
    button('Remove the copy', () => {
      remove()
      actions.remove()
      removed.textContent = 'The browser’s copy is removed. Your saved file stays.'
      announcer.say(removed.textContent)
    }),
  )
  addEventListener('pagehide', () => {
    // What is still being copied is removed at the next visit.
    if (performance.now() - savedAt > copyingMs(info.size)) remove()
  })
  show(
    main,
    heading(info, ICONS.done),
    words,
    el('p', {}, 'Your browser has put it where your downloads are.'),
    removed,
    actions,
  )
  announcer.say('Checked and saved.')
  save()
}
