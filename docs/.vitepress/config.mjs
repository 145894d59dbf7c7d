/** The site of the documentation; build.mjs puts its pages together. Nothing in it comes from another server. */
import { defineConfig } from 'vitepress'

const pages = (...items) => items.map(([text, link]) => ({ text, link }))

export default defineConfig({
  title: 'sealsync',
  description: 'End-to-end encrypted file transfer with DRACOON-compatible servers',
  lang: 'en',
  srcDir: process.env.SEALSYNC_SITE_PAGES,
  outDir: process.env.SEALSYNC_SITE,
  cacheDir: process.env.SEALSYNC_SITE_CACHE,
  // Opened from a disk or from below any path.
  base: process.env.SEALSYNC_SITE_BASE ?? '/',
  cleanUrls: false,
  lastUpdated: false,
  ignoreDeadLinks: false,
  metaChunk: true,
  head: [
    [
      'link',
      {
        rel: 'icon',
        href: `data:image/svg+xml,${encodeURIComponent('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="7" fill="#3451b2"/><path d="M4.5 8.5l2.5 2.5 4.5-5.5" stroke="#fff" stroke-width="2" fill="none"/></svg>')}`,
      },
    ],
  ],
  markdown: { languageAlias: { cron: 'sh' } },
  vite: { logLevel: 'warn', build: { chunkSizeWarningLimit: 2000 } },
  themeConfig: {
    search: {
      provider: 'local',
      options: {
        miniSearch: {
          // An error code, a variable or an option is found as a whole, too.
          options: {
            tokenize: (text) => [
              ...text.split(/[\n\r\p{Z}\p{P}]+/u),
              ...(text.match(/--[a-z][a-z-]+|[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+/g) ?? []),
            ],
          },
          searchOptions: {
            boostDocument: (id) => (id.includes('/reference/') ? 0.2 : id.includes('/troubleshooting') ? 3 : 1),
          },
        },
      },
    },
    outline: [2, 3],
    nav: pages(['First steps', '/first-steps'], ['Commands', '/options'], ['Library', '/library']),
    sidebar: [
      {
        text: 'Begin',
        items: pages(
          ['Overview', '/'],
          ['Install', '/install'],
          ['First steps', '/first-steps'],
          ['Logging in', '/login'],
        ),
      },
      {
        text: 'Use',
        items: pages(
          ['Upload and download', '/upload-download'],
          ['Files at the server', '/on-the-server'],
          ['Keep in sync', '/keep-in-sync'],
          ['Backups', '/backups'],
          ['Keys and sharing', '/keys-and-sharing'],
          ['Links and file requests', '/links'],
          ['Automation', '/automation'],
          ['Settings and connections', '/settings'],
        ),
      },
      {
        text: 'Library and server',
        items: pages(
          ['The library', '/library'],
          ['Reference', '/reference/'],
          ['Coming from another client', '/session/coming-from'],
          ['Examples', '/examples/'],
          ['The server', '/server'],
          ['Its API', '/server-api'],
        ),
      },
      {
        text: 'Look up',
        items: pages(
          ['Troubleshooting', '/troubleshooting'],
          ['Commands and options', '/options'],
          ['Error codes', '/error-codes'],
          ['Comparison', '/comparison'],
          ['Benchmarks', '/benchmarks'],
        ),
      },
      {
        text: 'Trust',
        items: pages(
          ['Security', '/security'],
          ['Reports and proofs', '/security-policy'],
          ['Architecture', '/architecture'],
          ['Changes', '/changelog'],
        ),
      },
    ],
    footer: { message: 'Unofficial; not affiliated with DRACOON GmbH.', copyright: 'Apache-2.0' },
  },
})
