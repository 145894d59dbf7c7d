/**
 * Making elements. Foreign texts become text nodes and nothing else; there is no way here to give HTML.
 * @module
 */

type Child = Node | string | undefined

type Attributes = Readonly<Record<string, string | boolean | undefined>>

/**
 * An element.
 *
 * @param attributes - `false` and `undefined` leave one out.
 * @param children - Texts become text nodes.
 */
export function el<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Attributes = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(name, value === true ? '' : value)
  }
  element.append(...children.filter((child) => child !== undefined))
  return element
}

export function button(text: string, onClick: () => void, attributes: Attributes = {}): HTMLButtonElement {
  const element = el('button', { type: 'button', ...attributes }, text)
  element.addEventListener('click', onClick)
  return element
}

const SVG = 'http://www.w3.org/2000/svg'

/** A drawing of one line, 24 by 24; for the eye only. */
export function icon(path: string): SVGSVGElement {
  const svg = document.createElementNS(SVG, 'svg')
  for (const [name, value] of Object.entries({ viewBox: '0 0 24 24', 'aria-hidden': 'true', class: 'icon' })) {
    svg.setAttribute(name, value)
  }
  const line = document.createElementNS(SVG, 'path')
  line.setAttribute('d', path)
  svg.append(line)
  return svg
}

export const ICONS = {
  file: 'M7 3h7l5 5v13H7zM14 3v5h5',
  inbox: 'M4 13l3-9h10l3 9v7H4zM4 13h5l1 3h4l1-3h5',
  lock: 'M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3',
  open: 'M6 11h12v9H6zM8.5 11V7.5a3.5 3.5 0 0 1 6.8-1.2',
  done: 'M5 12.5l4.5 4.5L19 7.5',
  warning: 'M12 4l9 16H3zM12 10v4.5M12 17.2v.3',
} as const

/** Where the views go; the focus goes along, so that a screen reader reads what is new. */
export function show(main: HTMLElement, ...content: readonly Child[]): void {
  main.replaceChildren(...content.filter((child) => child !== undefined))
  const heading = main.querySelector('h1')
  heading?.setAttribute('tabindex', '-1')
  heading?.focus({ preventScroll: true })
}

/** Texts that are read out when they change, at most every few seconds: a progress of every moment would drown all else. */
export class Announcer {
  readonly #region: HTMLElement
  #last = Number.NEGATIVE_INFINITY

  constructor(region: HTMLElement) {
    this.#region = region
  }

  say(text: string): void {
    this.#last = performance.now()
    this.#region.textContent = text
  }

  sayNowAndThen(text: string): void {
    if (performance.now() - this.#last > 10_000) this.say(text)
  }
}
