/**
 * Archives with nothing in them but what they are given: no users, no clock, no order of a disk. So two builds of one commit are
 * the same bytes, on any machine that has Node.
 * @module
 */

/**
 * @typedef {object} Entry - One file, link or directory of an archive.
 * @property {string} path - Relative, with slashes; directories end with one.
 * @property {number} [mode] - Default 0755 for directories, 0644 for files.
 * @property {Uint8Array} [data] - Of a file.
 * @property {string} [link] - What a symbolic link points at.
 */

const BLOCK = 512
const MAX_NAME = 100
const MAX_PREFIX = 155

/** A name as the format holds it: at most 100 bytes, with at most 155 before them, divided at a slash. */
function splitName(path) {
  if (Buffer.byteLength(path) <= MAX_NAME) return ['', path]
  for (let at = path.indexOf('/'); at !== -1; at = path.indexOf('/', at + 1)) {
    const [prefix, name] = [path.slice(0, at), path.slice(at + 1)]
    if (name !== '' && Buffer.byteLength(name) <= MAX_NAME && Buffer.byteLength(prefix) <= MAX_PREFIX)
      return [prefix, name]
  }
  throw new Error(`the name is too long for an archive: ${path}`)
}

function header({ path, mode, data, link }, mtime) {
  const block = Buffer.alloc(BLOCK)
  const [prefix, name] = splitName(path)
  const isDirectory = path.endsWith('/')
  const text = (at, value) => block.write(value, at, 'utf8')
  const octal = (at, length, value) => text(at, value.toString(8).padStart(length - 1, '0'))
  if (link !== undefined && Buffer.byteLength(link) > MAX_NAME) throw new Error(`the link is too long: ${link}`)
  text(0, name)
  octal(100, 8, mode ?? (isDirectory ? 0o755 : link === undefined ? 0o644 : 0o777))
  octal(108, 8, 0)
  octal(116, 8, 0)
  octal(124, 12, data?.length ?? 0)
  octal(136, 12, mtime)
  text(148, '        ')
  text(156, isDirectory ? '5' : link === undefined ? '0' : '2')
  text(157, link ?? '')
  text(257, 'ustar\u000000')
  text(265, 'root')
  text(297, 'root')
  octal(329, 8, 0)
  octal(337, 8, 0)
  text(345, prefix)
  const sum = block.reduce((total, byte) => total + byte, 0)
  text(148, `${sum.toString(8).padStart(6, '0')}\u0000 `)
  return block
}

/** All directories that files are in, as entries of their own. */
function withDirectories(entries) {
  const found = new Map(entries.map((entry) => [entry.path, entry]))
  for (const { path } of entries) {
    for (let at = path.indexOf('/'); at !== -1 && at < path.length - 1; at = path.indexOf('/', at + 1)) {
      const directory = path.slice(0, at + 1)
      if (directory !== './' && !found.has(directory)) found.set(directory, { path: directory })
    }
  }
  return [...found.values()].sort((a, b) => (a.path < b.path ? -1 : 1))
}

/**
 * A POSIX ustar archive; everything belongs to root.
 *
 * @param {readonly Entry[]} entries - In any order; directories are added.
 * @param {number} mtime - Of all entries, in seconds since 1970.
 * @returns {Buffer}
 */
export function writeTar(entries, mtime) {
  const blocks = withDirectories(entries).flatMap((entry) => {
    const { data = Buffer.alloc(0) } = entry
    return [header(entry, mtime), data, Buffer.alloc((BLOCK - (data.length % BLOCK)) % BLOCK)]
  })
  return Buffer.concat([...blocks, Buffer.alloc(2 * BLOCK)])
}

/**
 * Reads the regular files of a tar archive as npm makes them.
 *
 * @param {Buffer} tar
 * @param {(path: string) => boolean} wanted
 * @returns {Map<string, { mode: number, data: Buffer }>} by path, without the first directory.
 */
export function readTar(tar, wanted) {
  const found = new Map()
  const text = (at, length) => tar.toString('utf8', at, at + length).split('\0', 1)[0]
  for (let at = 0; at + BLOCK <= tar.length && tar[at] !== 0; ) {
    const size = Number.parseInt(text(at + 124, 12), 8)
    const prefix = text(at + 345, MAX_PREFIX)
    const name = `${prefix === '' ? '' : `${prefix}/`}${text(at, MAX_NAME)}`.replace(/^[^/]*\//, '')
    const isFile = tar[at + 156] === 0x30 || tar[at + 156] === 0
    if (isFile && wanted(name)) {
      const data = tar.subarray(at + BLOCK, at + BLOCK + size)
      if (data.length !== size) throw new Error(`the archive ends inside ${name}`)
      found.set(name, { mode: Number.parseInt(text(at + 100, 8), 8), data })
    }
    at += BLOCK + Math.ceil(size / BLOCK) * BLOCK
  }
  return found
}

/**
 * An `ar` archive, which is what a Debian package is.
 *
 * @param {readonly (readonly [name: string, data: Uint8Array])[]} members - Names of at most 15 letters.
 * @param {number} mtime - In seconds since 1970.
 * @returns {Buffer}
 */
export function writeAr(members, mtime) {
  const parts = members.flatMap(([name, data]) => {
    const fields = [
      name.padEnd(16),
      String(mtime).padEnd(12),
      '0'.padEnd(6),
      '0'.padEnd(6),
      '100644'.padEnd(8),
      String(data.length).padEnd(10),
    ]
    return [Buffer.from(`${fields.join('')}\`\n`, 'latin1'), data, Buffer.from(data.length % 2 === 0 ? '' : '\n')]
  })
  return Buffer.concat([Buffer.from('!<arch>\n'), ...parts])
}
