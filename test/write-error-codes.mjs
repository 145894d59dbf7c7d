/** `npm run docs:error-codes`: writes docs/error-codes.md anew from the sources. @module */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { build, ROOT } from './bootstrap.mjs'
import { errorTable } from './support/error-codes.mjs'

build()
const { exitCodeOf } = await import('../dist/src/cli/exit-codes.js')
writeFileSync(join(ROOT, 'docs/error-codes.md'), errorTable(ROOT, exitCodeOf))
