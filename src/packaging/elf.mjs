/**
 * Takes out of an ELF program or library what only debuggers read: everything behind its last loaded byte. That is a seventh of
 * Node. No `strip` is needed for it, which not every machine that builds packages has.
 * @module
 */

const SECTION_FIELDS = { offset: 40, entrySize: 58, count: 60, names: 62 }

/**
 * @param {Buffer} file - 64 bits, little-endian.
 * @returns {Buffer} without the table of sections and without those that are never loaded. What the dynamic linker needs it finds by
 * the program headers.
 */
export function stripElf(file) {
  if (file.toString('latin1', 0, 4) !== '\u007fELF' || file[4] !== 2 || file[5] !== 1) {
    throw new Error('not an ELF file of 64 bits')
  }
  const [start, size, count] = [Number(file.readBigUInt64LE(32)), file.readUInt16LE(54), file.readUInt16LE(56)]
  let end = start + size * count
  for (let i = 0; i < count; i++) {
    const at = start + size * i
    const last = Number(file.readBigUInt64LE(at + 8)) + Number(file.readBigUInt64LE(at + 32))
    end = Math.max(end, last)
  }
  if (end > file.length) throw new Error('the ELF file is cut off')
  const stripped = Buffer.from(file.subarray(0, end))
  stripped.writeBigUInt64LE(0n, SECTION_FIELDS.offset)
  for (const at of [SECTION_FIELDS.entrySize, SECTION_FIELDS.count, SECTION_FIELDS.names]) stripped.writeUInt16LE(0, at)
  return stripped
}
