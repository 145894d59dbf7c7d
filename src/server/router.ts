/**
 * Finds the handler for a method and path. Patterns are literal segments and `:name` placeholders; literals win. Knows
 * nothing of HTTP beyond that.
 * @module
 */

export interface Match<H> {
  handler: H
  /** As it was added: `/v4/nodes/:id`. */
  pattern: string
  params: Readonly<Record<string, string>>
}

interface TrieNode<H> {
  literals: Map<string, TrieNode<H>>
  placeholder: TrieNode<H> | undefined
  handlers: Map<string, { handler: H; pattern: string; names: readonly string[] }>
}

const emptyNode = <H>(): TrieNode<H> => ({ literals: new Map(), placeholder: undefined, handlers: new Map() })

export class Router<H> {
  readonly #root: TrieNode<H> = emptyNode()

  add(method: string, pattern: string, handler: H): void {
    const names: string[] = []
    let node = this.#root
    for (const segment of pattern.split('/').slice(1)) {
      let next: TrieNode<H> | undefined
      if (segment.startsWith(':')) {
        names.push(segment.slice(1))
        node.placeholder ??= emptyNode()
        next = node.placeholder
      } else {
        next = node.literals.get(segment) ?? emptyNode()
        node.literals.set(segment, next)
      }
      node = next
    }
    node.handlers.set(method, { handler, pattern, names })
  }

  /** The handler, 'method' when the path exists under another method only, or undefined. */
  find(method: string, path: string): Match<H> | 'method' | undefined {
    const segments = path.split('/').slice(1)
    const found = this.#walk(this.#root, segments, 0, [])
    if (found === undefined) return undefined
    const entry = found.node.handlers.get(method) ?? (method === 'HEAD' ? found.node.handlers.get('GET') : undefined)
    if (entry === undefined) return 'method'
    const params: Record<string, string> = Object.create(null) as Record<string, string>
    entry.names.forEach((name, index) => {
      params[name] = found.values[index] ?? ''
    })
    return { handler: entry.handler, pattern: entry.pattern, params }
  }

  #walk(
    node: TrieNode<H>,
    segments: readonly string[],
    at: number,
    values: readonly string[],
  ): { node: TrieNode<H>; values: readonly string[] } | undefined {
    const segment = segments[at]
    if (segment === undefined) return node.handlers.size > 0 ? { node, values } : undefined
    const literal = node.literals.get(segment)
    const found = literal === undefined ? undefined : this.#walk(literal, segments, at + 1, values)
    if (found !== undefined) return found
    if (node.placeholder === undefined || segment === '') return undefined
    return this.#walk(node.placeholder, segments, at + 1, [...values, segment])
  }
}
