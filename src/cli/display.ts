/** Foreign text on its way to a terminal: nothing in it may move the cursor, hide, or reverse what is shown. @module */

// C0, DEL, C1, soft hyphen, zero-width, line and paragraph separators, bidi controls, BOM, tags.
const UNSAFE =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]|\p{Surrogate}/gu

/** Shows unsafe characters as `\u{..}` and cuts to `width` characters. */
export function display(text: string, width = 500): string {
  const safe = text.replace(UNSAFE, (char) => `\\u{${char.codePointAt(0)!.toString(16)}}`)
  const chars = Array.from(safe)
  return chars.length <= width ? safe : `${chars.slice(0, width - 1).join('')}…`
}

/** JSON on one line, with what `display` would not show as `\uXXXX`: it may be read on a terminal, too. */
export const jsonLine = (object: object): string =>
  JSON.stringify(object).replace(UNSAFE, (char) =>
    Array.from({ length: char.length }, (_, at) => `\\u${char.charCodeAt(at).toString(16).padStart(4, '0')}`).join(''),
  )

/** What a `Date` can hold. */
const MOST_MS = 8.64e15

/** A time as ISO 8601; the nearest that can be said for one that is too far away. Milliseconds since the epoch. */
export const isoTime = (ms: number): string => new Date(Math.min(Math.max(ms, -MOST_MS), MOST_MS)).toISOString()

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB']

/** Bytes in decimal units: `1.5 MB`. */
export function showBytes(bytes: number): string {
  let value = bytes
  let unit = 0
  while (value >= 999.95 && unit < UNITS.length - 1) {
    value /= 1000
    unit++
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${UNITS[unit]}`
}

/** `1 file`, `2 files`. */
export const plural = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? '' : 's'}`
