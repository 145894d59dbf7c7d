/**
 * `npm run docs`: makes the site of the documentation in dist/site, with what it needs installed first in docs/.vitepress/node_modules (nobody
 * else has to carry a site generator and a second TypeScript). Pages are docs/, the pages at the top of the project, and a reference
 * of the library from its docstrings. A link that leads nowhere ends it.
 * @module
 */
import { createHash } from 'node:crypto'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, posix } from 'node:path'
import { fileURLToPath } from 'node:url'
import { install as installProject, ROOT, run } from '../../test/bootstrap.mjs'

const HERE = fileURLToPath(new URL('.', import.meta.url))
const DOCS = join(HERE, '..')
const PAGES = join(ROOT, 'dist/site-pages')
const SITE = join(ROOT, 'dist/site')

/** Pages from elsewhere, by the names that they get. */
const FROM_ELSEWHERE = {
  'SECURITY.md': 'security-policy.md',
  'ARCHITECTURE.md': 'architecture.md',
  'CHANGELOG.md': 'changelog.md',
  'bench/README.md': 'benchmarks.md',
  'docs/examples/README.md': 'examples/index.md',
}

function install() {
  const lock = createHash('sha256')
    .update(readFileSync(join(HERE, 'package-lock.json')))
    .digest('hex')
  const stamp = join(HERE, 'node_modules/.installed-lock')
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === lock) return
  process.stdout.write('Installing what makes the site…\n')
  // Without their scripts, which would download programs.
  run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], { cwd: HERE })
  writeFileSync(stamp, lock)
}

/** What the site calls a page of the project; `undefined` for what is no page. */
const placeOf = (path) => FROM_ELSEWHERE[path] ?? /^docs\/(?!\.)(.*\.md)$/.exec(path)?.[1]

/** Writes a page with its links as they are in the site. */
function writePage(source, place, text) {
  const relink = (href) => {
    if (/^(?:[a-z]+:|#)/.test(href)) return href
    const [path, anchor] = href.split('#')
    const file = posix.join(posix.dirname(source), path)
    const hash = anchor === undefined ? '' : `#${anchor}`
    const to = placeOf(file) ?? (file.endsWith('.mjs') ? placeOfExample(file) : undefined)
    if (to !== undefined) return `/${to}${hash}`
    if (!existsSync(join(ROOT, file))) return href
    // No page: goes along as it is.
    const copy = join(PAGES, 'public/files', file)
    mkdirSync(dirname(copy), { recursive: true })
    cpSync(join(ROOT, file), copy, { recursive: true })
    return `/files/${file}`
  }
  const out = join(PAGES, place)
  mkdirSync(dirname(out), { recursive: true })
  writeFileSync(
    out,
    text.replaceAll(/(?<=\]\()[^)\s]+(?=\))/g, (href) => relink(href)),
  )
}

const placeOfExample = (path) => /^docs\/(examples\/[\w-]+)\.mjs$/.exec(path)?.[1]?.concat('.md')

function writePages() {
  const own = readdirSync(DOCS, { recursive: true, encoding: 'utf8' }).map((name) => posix.join('docs', name))
  for (const path of [...Object.keys(FROM_ELSEWHERE), ...own]) {
    const [place, example] = [placeOf(path), placeOfExample(path)]
    if (place !== undefined) {
      // There are two pages about it.
      const text = readFileSync(join(ROOT, path), 'utf8').replace(
        /^# Security\n/,
        place === 'security.md' ? '$&' : '# Security: reports and proofs\n',
      )
      writePage(path, place, text)
    }
    if (example === undefined) continue
    const text = readFileSync(join(ROOT, path), 'utf8')
    writePage(path, example, `# ${posix.basename(path)}\n\n\`\`\`js\n${text}\`\`\`\n`)
  }
}

// Types of packages are in the reference.
installProject()
install()
rmSync(PAGES, { recursive: true, force: true })
rmSync(SITE, { recursive: true, force: true })
writePages()
const bin = (name) => join(HERE, 'node_modules', name)
run(process.execPath, [
  bin('typedoc/bin/typedoc'),
  '--options',
  join(HERE, 'typedoc.json'),
  '--out',
  join(PAGES, 'reference'),
])
run(process.execPath, [bin('vitepress/bin/vitepress.js'), 'build', DOCS], {
  env: {
    ...process.env,
    SEALSYNC_SITE_PAGES: PAGES,
    SEALSYNC_SITE: SITE,
    SEALSYNC_SITE_CACHE: join(HERE, 'node_modules/.cache'),
  },
})
process.stdout.write(`The site is in ${SITE}\n`)
