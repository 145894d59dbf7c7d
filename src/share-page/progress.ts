/**
 * A progress: bar, numbers, and how long it takes still.
 * @module
 */
import { type Announcer, el } from './dom.ts'
import type { Event } from './messages.ts'
import { durationText, sizeText } from './words.ts'

const WAITING = {
  offline: 'You are offline. It goes on by itself when the connection is back.',
  server: 'The server does not answer at the moment. Trying again…',
} as const

export interface Progress {
  readonly element: HTMLElement
  onEvent(event: Event): void
}

/**
 * @param label - What progresses, for screen readers.
 * @param before - Bytes of what was done before, of `all`.
 */
export function createProgress(label: string, announcer: Announcer, work: { before: number; all?: number }): Progress {
  const bar = el('progress', { 'aria-label': label, max: '1' })
  const numbers = el('p', { class: 'numbers' }, 'Starting…')
  const waiting = el('p', { class: 'waiting', hidden: true })
  const startedAt = performance.now()
  let first: number | undefined
  const advance = (bytes: number, total: number): void => {
    first ??= bytes
    bar.value = total === 0 ? 1 : bytes / total
    const seconds = (performance.now() - startedAt) / 1000
    const speed = (bytes - first) / Math.max(seconds, 0.1)
    const left = speed > 0 && seconds > 2 ? `, ${durationText((total - bytes) / speed)} left` : ''
    numbers.textContent = `${sizeText(bytes)} of ${sizeText(total)}${bytes < total ? left : ''}`
    announcer.sayNowAndThen(`${Math.floor((100 * bytes) / Math.max(total, 1))} percent`)
  }
  return {
    element: el('div', { class: 'progress' }, bar, numbers, waiting),
    onEvent(event) {
      if (event.type === 'progress') return advance(work.before + event.bytes, work.all ?? event.total)
      waiting.hidden = event.why === undefined
      if (event.why === undefined) return
      waiting.textContent = WAITING[event.why]
      announcer.say(WAITING[event.why])
    },
  }
}
