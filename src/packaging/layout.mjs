/** Where everything is in an installation: below /usr from the Debian package, below one directory from the archive. @module */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'

const text = (path, content, mode) => ({ path, data: Buffer.from(content), ...(mode === undefined ? {} : { mode }) })
const packed = (path, content) => ({ path: `${path}.gz`, data: gzipSync(content, { level: 9 }) })

/** Starts the program of a place that is known. */
const fixedLauncher = (lib, script) => `#!/bin/sh
exec ${lib}/runtime/node ${lib}/app/bin/${script} "$@"
`

/** Starts the program that is beside it, wherever that is, also through links. */
const movableLauncher = (lib, script) => `#!/bin/sh
self=$0
while [ -L "$self" ]; do
  link=$(readlink "$self")
  case $link in
    /*) self=$link ;;
    *) self=\${self%/*}/$link ;;
  esac
done
case $self in
  */*) ;;
  *) self=./$self ;;
esac
lib=\${self%/*}/${lib}
exec "$lib/runtime/node" "$lib/app/bin/${script}" "$@"
`

/**
 * @typedef {object} Contents
 * @property {Buffer} runtime
 * @property {Map<string, Buffer>} app
 * @property {string} copyright
 * @property {string} spdx
 * @property {string} changelog
 * @property {Map<string, Buffer>} manuals - By path: `man1/sealsync.1`.
 * @property {Record<'bash' | 'zsh' | 'fish', string>} completions
 */

/** What both kinds of installation share. */
function shared({ runtime, app, copyright, spdx, changelog, manuals, completions }) {
  const doc = 'share/doc/sealsync'
  return [
    { path: 'lib/sealsync/runtime/node', data: runtime, mode: 0o755 },
    ...[...app].map(([path, data]) => ({ path: `lib/sealsync/app/${path}`, data })),
    text(`${doc}/copyright`, copyright),
    text(`${doc}/sealsync.spdx.json`, spdx),
    packed(`${doc}/changelog`, changelog),
    ...[...manuals].map(([name, data]) => packed(`share/man/${name}`, data)),
    text('share/bash-completion/completions/sealsync', completions.bash),
    text('share/zsh/vendor-completions/_sealsync', completions.zsh),
    text('share/fish/vendor_completions.d/sealsync.fish', completions.fish),
  ]
}

const unitFiles = (directory, path) =>
  readdirSync(directory).map((name) => text(`${path}/${name}`, readFileSync(join(directory, name))))

/**
 * Files of the archive, which may be unpacked anywhere.
 *
 * @param {Contents} contents
 * @param {string} units - Directory of the systemd units.
 */
export const archiveLayout = (contents, units) => [
  ...shared(contents),
  text('bin/sealsync', movableLauncher('../lib/sealsync', 'main.js'), 0o755),
  text('lib/sealsync/bin/sync', movableLauncher('..', 'sync.js'), 0o755),
  ...unitFiles(units, 'share/sealsync/systemd'),
]

/**
 * Files of the Debian package. Nothing is where coreutils has its `sync`.
 *
 * @param {Contents} contents
 * @param {string} units
 * @param {string} accounts - File for systemd-sysusers.
 */
export const debianLayout = (contents, units, accounts) =>
  [
    ...shared(contents),
    text('bin/sealsync', fixedLauncher('/usr/lib/sealsync', 'main.js'), 0o755),
    text('lib/sealsync/bin/sync', fixedLauncher('/usr/lib/sealsync', 'sync.js'), 0o755),
    ...unitFiles(units, 'lib/systemd/system'),
    text('lib/sysusers.d/sealsync.conf', readFileSync(accounts)),
  ].map((entry) => ({ ...entry, path: `usr/${entry.path}` }))
