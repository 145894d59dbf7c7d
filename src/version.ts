/** The program's version, from the package that this file was built into. @module */
import { readFileSync } from 'node:fs'

function read(): string {
  // Built files lie two levels below the package (dist/src), sources one.
  for (const up of ['../../package.json', '../package.json']) {
    try {
      const found: unknown = JSON.parse(readFileSync(new URL(up, import.meta.url), 'utf8'))
      if (
        typeof found === 'object' &&
        found !== null &&
        'name' in found &&
        found.name === 'sealsync' &&
        'version' in found
      ) {
        return String(found.version)
      }
    } catch {
      // Look further.
    }
  }
  return '0.0.0'
}

export const VERSION = read()
