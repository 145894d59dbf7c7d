/**
 * The little DER that key containers need (X.690): definite lengths in their shortest form, low tag numbers, bounded depth.
 * What the objects mean is decided in private-key.ts and public-key.ts.
 * @module
 */
import { concat } from './bytes.ts'

export const Tag = {
  Integer: 0x02,
  BitString: 0x03,
  OctetString: 0x04,
  Null: 0x05,
  Oid: 0x06,
  Sequence: 0x30,
} as const

export interface DerNode {
  readonly tag: number
  /** Content octets, a view into the input. */
  readonly content: Uint8Array
  /** Present exactly for constructed encodings. */
  readonly children?: readonly DerNode[]
}

const MAX_DEPTH = 16

/** Thrown for anything that is not DER; callers turn it into their own typed error. */
export class DerError extends Error {
  override readonly name = 'DerError'
}

function readNode(bytes: Uint8Array, start: number, end: number, depth: number): { node: DerNode; next: number } {
  if (depth > MAX_DEPTH) throw new DerError('nested too deeply')
  if (end - start < 2) throw new DerError('truncated')
  const tag = bytes[start]!
  if ((tag & 0x1f) === 0x1f) throw new DerError('long tag numbers are not used here')
  let at = start + 1
  let length = bytes[at++]!
  if (length >= 0x80) {
    const count = length & 0x7f
    if (count === 0 || count > 3 || end - at < count) throw new DerError('bad length')
    length = 0
    for (let i = 0; i < count; i++) length = length * 256 + bytes[at++]!
    if (length < 0x80 || length < 256 ** (count - 1)) throw new DerError('length is not in its shortest form')
  }
  if (length > end - at) throw new DerError('length runs past the end')
  const content = bytes.subarray(at, at + length)
  const next = at + length
  if ((tag & 0x20) === 0) return { node: { tag, content }, next }
  const children: DerNode[] = []
  while (at < next) {
    const child = readNode(bytes, at, next, depth + 1)
    children.push(child.node)
    at = child.next
  }
  return { node: { tag, content, children }, next }
}

/** Reads exactly one object that fills the input. */
export function readDer(bytes: Uint8Array): DerNode {
  const { node, next } = readNode(bytes, 0, bytes.length, 0)
  if (next !== bytes.length) throw new DerError('bytes after the end')
  return node
}

/** The children of a SEQUENCE, between `min` and `max` of them. */
export function sequence(node: DerNode | undefined, min: number, max = min): readonly DerNode[] {
  if (node?.tag !== Tag.Sequence || node.children === undefined) throw new DerError('expected a SEQUENCE')
  if (node.children.length < min || node.children.length > max) throw new DerError('wrong number of elements')
  return node.children
}

/** The content of a primitive object of this tag. */
export function content(node: DerNode | undefined, tag: number): Uint8Array {
  if (node?.tag !== tag) throw new DerError('unexpected type')
  return node.content
}

/** A non-negative INTEGER that fits a safe number, in its shortest form. */
export function smallInteger(node: DerNode | undefined): number {
  const bytes = content(node, Tag.Integer)
  if (bytes.length === 0 || bytes.length > 6 || bytes[0]! >= 0x80) throw new DerError('bad INTEGER')
  if (bytes.length > 1 && bytes[0] === 0 && bytes[1]! < 0x80) throw new DerError('INTEGER is not in its shortest form')
  return bytes.reduce((value, byte) => value * 256 + byte, 0)
}

/** Dotted form of an OBJECT IDENTIFIER. */
export function oid(node: DerNode | undefined): string {
  const bytes = content(node, Tag.Oid)
  if (bytes.length === 0 || bytes.at(-1)! >= 0x80) throw new DerError('bad OBJECT IDENTIFIER')
  const arcs: number[] = []
  let value = 0
  for (const [i, byte] of bytes.entries()) {
    const first = i === 0 || bytes[i - 1]! < 0x80
    if (first && byte === 0x80) throw new DerError('OBJECT IDENTIFIER is not in its shortest form')
    value = value * 128 + (byte & 0x7f)
    if (value > 0xffff_ffff) throw new DerError('bad OBJECT IDENTIFIER')
    if (byte < 0x80) {
      arcs.push(value)
      value = 0
    }
  }
  const first = arcs.shift()!
  const top = Math.min(2, Math.floor(first / 40))
  return [top, first - top * 40, ...arcs].join('.')
}

/** One object: tag, shortest length, content. */
export function der(tag: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const length = parts.reduce((sum, part) => sum + part.length, 0)
  const head =
    length < 0x80
      ? [tag, length]
      : length < 0x100
        ? [tag, 0x81, length]
        : length < 0x1_0000
          ? [tag, 0x82, length >> 8, length & 0xff]
          : [tag, 0x83, length >> 16, (length >> 8) & 0xff, length & 0xff]
  // One copy only: parts may be secret, and their owner can wipe just what it knows of.
  return concat(Uint8Array.from(head), ...parts)
}

const ZERO = Uint8Array.of(0)

/** INTEGER from unsigned big-endian bytes of any length. */
export function derInteger(unsigned: Uint8Array): Uint8Array {
  let start = 0
  while (start < unsigned.length - 1 && unsigned[start] === 0) start++
  const digits = unsigned.subarray(start)
  return digits.length === 0 || digits[0]! >= 0x80 ? der(Tag.Integer, ZERO, digits) : der(Tag.Integer, digits)
}

/** OBJECT IDENTIFIER from its dotted form. */
export function derOid(dotted: string): Uint8Array {
  const [first, second, ...rest] = dotted.split('.').map(Number)
  const out: number[] = []
  for (const arc of [first! * 40 + second!, ...rest]) {
    const digits = [arc & 0x7f]
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128)) digits.unshift((left & 0x7f) | 0x80)
    out.push(...digits)
  }
  return der(Tag.Oid, Uint8Array.from(out))
}
