/** `npm run docs:options`: writes docs/options.md anew from the tables of the program. @module */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { build, ROOT } from './bootstrap.mjs'

build()
const { optionTables } = await import('../dist/src/cli/option-tables.js')
writeFileSync(join(ROOT, 'docs/options.md'), optionTables())
