/** What goes along with a package: whose work is in it (copyright, SPDX), and what it is (Debian’s control file). @module */
import { createHash } from 'node:crypto'

const RULE = `\n${'-'.repeat(80)}\n\n`

/**
 * The file that Debian calls copyright: license texts of everything inside.
 *
 * @param {string} license - Text of our own.
 * @param {readonly import('./program.mjs').Part[]} parts
 * @returns {string}
 */
export function copyrightText(license, parts) {
  const head = [
    'sealsync is under the Apache License, version 2.0; its text follows, and then those of all that is in this package besides:',
    ...parts.map(({ name, version, license }) => `${name} ${version} (${license})`),
    'Unofficial; not affiliated with DRACOON GmbH.',
  ]
  const texts = parts.map(({ name, version, license, text }) => `${name} ${version} (${license})\n\n${text.trim()}\n`)
  return [`${head.join('\n')}\n`, `${license.trim()}\n`, ...texts].join(RULE)
}

const idOf = (name, version) => `SPDXRef-${`${name}-${version}`.replace(/[^A-Za-z0-9.-]+/g, '-').replace(/^-/, '')}`
const hexOf = (integrity) => Buffer.from(integrity.replace(/^sha512-/, ''), 'base64').toString('hex')

/**
 * Bill of materials, SPDX 2.3 as JSON.
 *
 * @param {{ name: string, version: string, license: string }} own - From package.json.
 * @param {readonly import('./program.mjs').Part[]} parts
 * @param {number} epoch - When it was made, in seconds since 1970.
 * @returns {string}
 */
export function spdxText({ name, version, license }, parts, epoch) {
  const root = idOf(name, version)
  const packages = parts.map((part) => ({
    name: part.name,
    SPDXID: idOf(part.name, part.version),
    versionInfo: part.version,
    supplier: 'NOASSERTION',
    downloadLocation: `https://registry.npmjs.org/${part.name}/-/${part.name.replace(/^.*\//, '')}-${part.version}.tgz`,
    filesAnalyzed: false,
    checksums: [{ algorithm: 'SHA512', checksumValue: hexOf(part.integrity) }],
    licenseConcluded: 'NOASSERTION',
    licenseDeclared: part.license,
    copyrightText: 'NOASSERTION',
    externalRefs: [
      {
        referenceCategory: 'PACKAGE-MANAGER',
        referenceType: 'purl',
        referenceLocator: `pkg:npm/${part.name.replace('@', '%40')}@${part.version}`,
      },
    ],
  }))
  const digest = createHash('sha256').update(JSON.stringify(packages)).digest('hex')
  const document = {
    spdxVersion: 'SPDX-2.3',
    dataLicense: 'CC0-1.0',
    SPDXID: 'SPDXRef-DOCUMENT',
    name: `${name}-${version}`,
    // Unique by what is described; nothing has to be there.
    documentNamespace: `https://sealsync.invalid/spdx/${name}-${version}-${digest}`,
    creationInfo: {
      created: new Date(epoch * 1_000).toISOString().replace('.000Z', 'Z'),
      creators: [`Tool: ${name}-package-${version}`],
    },
    packages: [
      {
        name,
        SPDXID: root,
        versionInfo: version,
        supplier: 'NOASSERTION',
        downloadLocation: 'NOASSERTION',
        filesAnalyzed: false,
        licenseConcluded: license,
        licenseDeclared: license,
        copyrightText: 'NOASSERTION',
        primaryPackagePurpose: 'APPLICATION',
      },
      ...packages,
    ],
    relationships: [
      { spdxElementId: 'SPDXRef-DOCUMENT', relationshipType: 'DESCRIBES', relatedSpdxElement: root },
      ...packages.map(({ SPDXID }) => ({
        spdxElementId: root,
        relationshipType: 'CONTAINS',
        relatedSpdxElement: SPDXID,
      })),
    ],
  }
  return `${JSON.stringify(document, null, 1)}\n`
}

/**
 * @param {{ name: string, version: string }} own
 * @param {number} bytes - Of all files when they are installed.
 * @returns {string} Debian's `control`.
 */
export const controlText = ({ name, version }, bytes) => `Package: ${name}
Version: ${version}
Architecture: amd64
Maintainer: sealsync authors <authors@sealsync.invalid>
Installed-Size: ${Math.ceil(bytes / 1024)}
Depends: libc6 (>= 2.34), libgcc-s1 (>= 4.2), libstdc++6 (>= 11)
Suggests: gnome-keyring, man-db
Section: net
Priority: optional
Description: end-to-end encrypted file sync for DRACOON-compatible servers
 Transfers, synchronizes and backs up files with DRACOON-compatible servers.
 Files are encrypted on this machine; the server sees neither passwords nor
 keys nor content. A compatible server of its own is in it, too.
 .
 The command is sealsync; "sealsync setup" makes it available as sync as well.
 Unofficial; not affiliated with DRACOON GmbH.
`
