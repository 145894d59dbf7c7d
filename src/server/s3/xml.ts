/**
 * A reader for the XML that object stores answer with: elements and text, nothing else. Declarations of types or entities,
 * comments and CDATA are refused, so nothing in an answer can name a file, a URL or more text than was sent.
 * @module
 */

export interface XmlElement {
  readonly name: string
  /** Own text, without that of the children. */
  readonly text: string
  readonly children: readonly XmlElement[]
}

const MAX_DEPTH = 8
const MAX_ELEMENTS = 50_000
const ENTITIES: Readonly<Record<string, string>> = Object.freeze({ amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" })

const TOKEN =
  /<(\/?)([A-Za-z_][\w.-]*)((?:\s+[\w:.-]+\s*=\s*(?:"[^"<]*"|'[^'<]*'))*)\s*(\/?)>|<\?xml(?:\s[^<>]*)?\?>|([^<]+)/y

interface Open {
  name: string
  text: string
  children: XmlElement[]
}

function decode(text: string): string {
  return text.replace(/&([^;&]*);?/g, (whole, name: string) => {
    const code = /^#(?:(\d{1,7})|x([0-9a-fA-F]{1,6}))$/.exec(name)
    const point = code === null ? undefined : Number.parseInt(code[1] ?? code[2] ?? '', code[1] === undefined ? 16 : 10)
    const isValid = whole.endsWith(';') && (point === undefined ? Object.hasOwn(ENTITIES, name) : point <= 0x10ffff)
    if (!isValid) throw new SyntaxError('Unknown entity in XML')
    return point === undefined ? (ENTITIES[name] ?? '') : String.fromCodePoint(point)
  })
}

/**
 * Reads a document.
 *
 * @returns the root element. Attributes are checked for their form and dropped.
 * @throws {SyntaxError} for anything malformed, deeper than 8 levels, or of more than 50,000 elements.
 */
export function parseXml(source: string): XmlElement {
  const document: Open = { name: '', text: '', children: [] }
  const stack: Open[] = [document]
  let elements = 0
  TOKEN.lastIndex = 0
  const text = source.trim()
  while (TOKEN.lastIndex < text.length) {
    const isFirst = TOKEN.lastIndex === 0
    const token = TOKEN.exec(text)
    const top = stack.at(-1)
    if (token === null || top === undefined) throw new SyntaxError('Malformed XML')
    const [whole, slash, name, , empty, characters] = token
    if (characters !== undefined) {
      if (top === document && characters.trim() !== '') throw new SyntaxError('Text outside the XML root')
      top.text += decode(characters)
    } else if (name === undefined) {
      if (!isFirst) throw new SyntaxError(`Misplaced ${whole.slice(0, 5)}`)
    } else if (slash === '/') {
      if (top.name !== name || top === document) throw new SyntaxError('XML elements do not nest')
      stack.pop()
    } else {
      if (++elements > MAX_ELEMENTS || stack.length > MAX_DEPTH) throw new SyntaxError('XML is too large')
      const element: Open = { name, text: '', children: [] }
      top.children.push(element)
      if (empty !== '/') stack.push(element)
    }
  }
  const [root, ...more] = document.children
  if (root === undefined || more.length > 0 || stack.length > 1) throw new SyntaxError('XML has no single root')
  return root
}

/** Text of the first child of that name. */
export const childText = (element: XmlElement, name: string): string | undefined =>
  element.children.find((child) => child.name === name)?.text.trim()

/** All children of that name. */
export const childrenNamed = (element: XmlElement, name: string): XmlElement[] =>
  element.children.filter((child) => child.name === name)

/** Text made safe for an element. */
export const escapeXml = (text: string): string =>
  text.replace(/[&<>"]/g, (char) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[char] ?? '&quot;')
