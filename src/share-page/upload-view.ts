/**
 * The page of a file request: choosing files, sending them, and the receipt.
 * @module
 */
import { button, el, ICONS, icon, show } from './dom.ts'
import type { Stage } from './download-view.ts'
import { asFailure } from './failure.ts'
import { createProgress } from './progress.ts'
import type { Receipt, Unfinished, UploadInfo } from './upload.ts'
import { dateText, filesText, fingerprintText, shown, shownLines, sizeText, wordsFor } from './words.ts'

/** More rows would only make the page slow; the others are counted. */
const MOST_ROWS = 200

/** The same file again, as far as a page can tell. */
const keyOf = ({ name, size, lastModified }: File): string => `${size} ${lastModified} ${name}`

interface Chosen {
  readonly file: File
  receipt?: Receipt
  problem?: string
}

function limits({ remainingSlots, remainingSize, expireAt }: UploadInfo): string[] {
  const until = dateText(expireAt)
  return [
    ...(remainingSlots === undefined ? [] : [`${filesText(remainingSlots)} at most`]),
    ...(remainingSize === undefined ? [] : [`${sizeText(remainingSize)} at most`]),
    ...(until === undefined ? [] : [`until ${until}`]),
  ]
}

function head(info: UploadInfo): Node[] {
  const { name, creatorName, notes, isEncrypted, fingerprints } = info
  const bounds = limits(info)
  return [
    el(
      'div',
      { class: 'heading' },
      icon(ICONS.inbox),
      el('h1', {}, name === '' ? 'Send files' : `Send files: ${shown(name)}`),
    ),
    el(
      'div',
      { class: 'facts' },
      creatorName === '' ? undefined : el('p', {}, `Asked for by ${shown(creatorName)}`),
      notes === '' ? undefined : el('blockquote', {}, shownLines(notes)),
      bounds.length === 0 ? undefined : el('p', {}, bounds.join(' · ')),
      el(
        'p',
        { class: isEncrypted ? 'seal' : 'seal open' },
        icon(isEncrypted ? ICONS.lock : ICONS.open),
        isEncrypted
          ? `End-to-end encrypted in this browser, for ${fingerprints.length === 1 ? 'one key' : `${fingerprints.length} keys`} of the room.`
          : 'Not end-to-end encrypted: the server can read what you send.',
      ),
      isEncrypted ? keys(fingerprints) : undefined,
    ),
  ]
}

function keys(fingerprints: readonly string[]): HTMLElement {
  const some = fingerprints.slice(0, MOST_ROWS)
  return el(
    'details',
    {},
    el('summary', {}, 'Who can open it'),
    el(
      'p',
      { class: 'hint' },
      'The server names these keys. To be sure, compare them with what the recipients see (sealsync keys list).',
    ),
    el('ul', { class: 'keys' }, ...some.map((one) => el('li', {}, el('code', {}, fingerprintText(one))))),
  )
}

/** Files of a drop; folders are none. */
function droppedFiles({ items, files }: DataTransfer): { files: File[]; hasFolders: boolean } {
  const folders = new Set<File>()
  for (const item of items) {
    const file = item.getAsFile()
    if (file !== null && item.webkitGetAsEntry?.()?.isDirectory) folders.add(file)
  }
  const isFolder = (file: File): boolean => [...folders].some((one) => one.name === file.name && one.size === file.size)
  return { files: [...files].filter((file) => !isFolder(file)), hasFolders: folders.size > 0 }
}

export async function showUpload(stage: Stage, info: UploadInfo): Promise<void> {
  document.title = `Send files · sealsync`
  const unfinished = await stage.worker.call('unfinished', [])
  new UploadView(stage, info, unfinished).show()
}

class UploadView {
  readonly #stage: Stage
  readonly #info: UploadInfo
  #unfinished: readonly Unfinished[]
  #chosen: Chosen[] = []
  readonly #list = el('ul', { class: 'files' })
  readonly #sum = el('p', { class: 'problem', role: 'alert', hidden: true })
  readonly #send = button('Send', () => void this.#sendAll(), { class: 'primary', disabled: true })

  constructor(stage: Stage, info: UploadInfo, unfinished: readonly Unfinished[]) {
    this.#stage = stage
    this.#info = info
    this.#unfinished = unfinished
  }

  show(): void {
    const { uploaded } = this.#info
    show(
      this.#stage.main,
      ...head(this.#info),
      this.#unfinishedNote(),
      this.#dropZone(),
      this.#list,
      this.#sum,
      this.#send,
      uploaded.length === 0
        ? undefined
        : el(
            'details',
            {},
            el('summary', {}, `Already here: ${filesText(uploaded.length)}`),
            el('ul', {}, ...uploaded.map(({ name, size }) => el('li', {}, `${shown(name)}, ${sizeText(size)}`))),
          ),
    )
    this.#draw()
  }

  #unfinishedNote(): HTMLElement | undefined {
    if (this.#unfinished.length === 0) return undefined
    const items = this.#unfinished.map((one) => {
      const item = el('li', {}, `${shown(one.name)}, ${sizeText(one.size)}: ${sizeText(one.sent)} are there. `)
      const forget = async (): Promise<void> => {
        await this.#stage.worker.call('forget', [one.id])
        this.#unfinished = this.#unfinished.filter(({ id }) => id !== one.id)
        item.remove()
      }
      item.append(button('Forget', () => void forget(), { class: 'quiet' }))
      return item
    })
    return el(
      'section',
      { class: 'note', 'aria-label': 'Interrupted uploads' },
      el('p', {}, 'These were interrupted. Choose the same file again, and it goes on where it was:'),
      el('ul', {}, ...items),
    )
  }

  #dropZone(): HTMLElement {
    const input = el('input', { id: 'files', type: 'file', multiple: true })
    const zone = el(
      'label',
      { class: 'drop', for: 'files' },
      el('strong', {}, 'Choose files'),
      el('span', {}, ' or drop them here'),
      input,
    )
    input.addEventListener('change', () => {
      this.#add([...(input.files ?? [])])
      input.value = ''
    })
    const over = (isOver: boolean) => (event: DragEvent) => {
      event.preventDefault()
      zone.classList.toggle('over', isOver)
    }
    zone.addEventListener('dragover', over(true))
    zone.addEventListener('dragleave', over(false))
    zone.addEventListener('drop', (event) => {
      over(false)(event)
      if (event.dataTransfer === null) return
      const { files, hasFolders } = droppedFiles(event.dataTransfer)
      this.#add(files)
      if (hasFolders) this.#complain('Folders cannot be sent: choose the files in them, or pack them.')
    })
    return zone
  }

  #add(files: readonly File[]): void {
    const known = new Set(this.#chosen.map(({ file }) => keyOf(file)))
    for (const file of files) {
      if (known.has(keyOf(file))) continue
      known.add(keyOf(file))
      this.#chosen.push({ file })
    }
    this.#draw()
    this.#stage.announcer.say(`${filesText(this.#chosen.length)} chosen`)
  }

  #complain(text: string): void {
    this.#sum.hidden = text === ''
    this.#sum.textContent = text
  }

  /** What the request takes, looked at before anything is sent. */
  #excess(): string {
    const { remainingSlots = Number.POSITIVE_INFINITY, remainingSize = Number.POSITIVE_INFINITY } = this.#info
    const waiting = this.#waiting()
    const bytes = waiting.reduce((sum, { file }) => sum + file.size, 0)
    if (waiting.length > remainingSlots) return `The request takes ${filesText(remainingSlots)} more; leave some out.`
    if (bytes > remainingSize) return `The request takes ${sizeText(remainingSize)} more; these are ${sizeText(bytes)}.`
    return ''
  }

  #waiting(): Chosen[] {
    return this.#chosen.filter(({ receipt }) => receipt === undefined)
  }

  #draw(): void {
    const rows = this.#chosen.slice(0, MOST_ROWS).map((one) => {
      const remove = button(
        'Remove',
        () => {
          this.#chosen = this.#chosen.filter((other) => other !== one)
          this.#draw()
        },
        { class: 'quiet', 'aria-label': `Remove ${shown(one.file.name)}` },
      )
      return el(
        'li',
        {},
        el('span', { class: 'name' }, shown(one.file.name)),
        el('span', { class: 'size' }, sizeText(one.file.size)),
        remove,
        one.problem === undefined ? undefined : el('span', { class: 'problem' }, one.problem),
      )
    })
    const rest = this.#chosen.length - rows.length
    this.#list.replaceChildren(...rows, ...(rest > 0 ? [el('li', {}, `and ${filesText(rest)} more`)] : []))
    const excess = this.#excess()
    this.#complain(excess)
    const waiting = this.#waiting()
    this.#send.disabled = waiting.length === 0 || excess !== ''
    const bytes = sizeText(waiting.reduce((sum, { file }) => sum + file.size, 0))
    this.#send.textContent = waiting.length === 0 ? 'Send' : `Send ${filesText(waiting.length)} (${bytes})`
  }

  async #sendAll(): Promise<void> {
    const { main, worker, announcer, setBusy } = this.#stage
    const waiting = this.#waiting()
    const all = waiting.reduce((sum, { file }) => sum + file.size, 0)
    const control = new AbortController()
    setBusy(true)
    let before = 0
    const place = el('div')
    show(
      main,
      el('div', { class: 'heading' }, icon(ICONS.inbox), el('h1', {}, `Sending ${filesText(waiting.length)}`)),
      place,
      el(
        'p',
        { class: 'hint' },
        'If it is interrupted, open this link again and choose the same file: it goes on where it was.',
      ),
      button('Cancel', () => control.abort()),
    )
    for (const [index, one] of waiting.entries()) {
      const progress = createProgress(`Sending of ${shown(one.file.name)}`, announcer, { before, all })
      const count = waiting.length === 1 ? '' : `${index + 1} of ${waiting.length}: `
      place.replaceChildren(el('p', { class: 'name' }, `${count}${shown(one.file.name)}`), progress.element)
      delete one.problem
      try {
        one.receipt = await worker.call('send', [one.file], { signal: control.signal, onEvent: progress.onEvent })
      } catch (error) {
        const { code } = asFailure(error)
        one.problem = `${wordsFor(code).title}. ${wordsFor(code).text}`
        // For the others there is no more hope than for this one.
        if (['CANCELLED', 'FULL', 'GONE', 'LOCKED', 'PASSWORD_WRONG', 'QUOTA', 'UNREACHABLE'].includes(code)) break
      }
      before += one.file.size
    }
    setBusy(false)
    this.#showResult()
  }

  #showResult(): void {
    const { main, announcer } = this.#stage
    const receipts = this.#chosen.flatMap(({ receipt }) => receipt ?? [])
    const left = this.#waiting()
    const title = left.length === 0 ? `${filesText(receipts.length)} sent` : `${filesText(left.length)} not sent`
    const failures = left
      .slice(0, MOST_ROWS)
      .map(({ file, problem = 'Not begun.' }) =>
        el('li', {}, el('span', { class: 'name' }, shown(file.name)), el('span', { class: 'problem' }, problem)),
      )
    show(
      main,
      el(
        'div',
        { class: left.length === 0 ? 'heading' : 'heading bad' },
        icon(left.length === 0 ? ICONS.done : ICONS.warning),
        el('h1', {}, title),
      ),
      left.length === 0 ? undefined : el('ul', { class: 'files' }, ...failures),
      receipts.length === 0 ? undefined : receiptList(receipts, announcer),
      el(
        'div',
        { class: 'actions' },
        left.length === 0 ? undefined : button('Try again', () => void this.#sendAll(), { class: 'primary' }),
        button('Send more files', () => location.reload()),
      ),
    )
    announcer.say(title)
  }
}

function receiptText(receipts: readonly Receipt[]): string {
  const lines = receipts.map(
    ({ name, size, sha256, isEncrypted, at }) =>
      `${sha256}  ${shown(name)}\n    ${size} bytes, ${isEncrypted ? 'end-to-end encrypted' : 'not encrypted'}, ${new Date(at).toISOString()}\n`,
  )
  return `Sent to ${location.origin}${location.pathname}\n\n${lines.join('')}`
}

/** What the sender keeps: the SHA-256 of each file as it was before it was encrypted. */
function receiptList(receipts: readonly Receipt[], announcer: { say(text: string): void }): HTMLElement {
  const text = receiptText(receipts)
  const copy = async (): Promise<void> => {
    await navigator.clipboard.writeText(text)
    announcer.say('The receipt is copied.')
    copyButton.textContent = 'Copied'
  }
  const copyButton = button('Copy receipt', () => void copy().catch(() => {}))
  const save = (): void => {
    const address = URL.createObjectURL(new Blob([text], { type: 'text/plain' }))
    el('a', { href: address, download: 'receipt.txt' }).click()
    setTimeout(() => URL.revokeObjectURL(address), 60_000)
  }
  const rows = receipts
    .slice(0, MOST_ROWS)
    .map(({ name, size, sha256 }) =>
      el(
        'li',
        {},
        el('span', { class: 'name' }, shown(name)),
        el('span', { class: 'size' }, sizeText(size)),
        el('code', { class: 'hash', 'aria-label': `SHA-256 of ${shown(name)}` }, sha256),
      ),
    )
  return el(
    'section',
    { 'aria-label': 'Receipt' },
    el('p', {}, 'Your receipt: the SHA-256 of each file. The recipient can compare it with what has arrived.'),
    el('ul', { class: 'files' }, ...rows),
    el('div', { class: 'actions' }, copyButton, button('Save receipt', save)),
  )
}
