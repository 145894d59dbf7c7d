/** The table of error codes in docs/error-codes.md, made from the sources: each code, its classes, exit codes, meaning and places. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

const TEXT = String.raw`(?:'((?:[^'\\]|\\.)*)'|\x60((?:[^\x60\\]|\\.)*)\x60)`
const CODE = "'([A-Z][A-Z0-9_]+)'"

/** How codes are written down: with a class beside them, or in the call of a function that knows its class. */
const WITH_CLASS = [
  new RegExp(String.raw`SyncError\(\s*'(\w+)',\s*${CODE},\s*(?:${TEXT})?`, 'g'),
  new RegExp(String.raw`kind: '(\w+)',\s*code: ${CODE},\s*text: ${TEXT}`, 'g'),
  new RegExp(String.raw`\[\s*'([a-z_]+)',\s*${CODE},\s*${TEXT}`, 'g'),
]
const HELPER = /(?:const|function) (\w+) ?(?:= )?\(code: SyncErrorCode[\s\S]{0,160}?new SyncError\('(\w+)'/g

/** What the texts above do not tell: codes whose message, or class, is made elsewhere. */
const OTHERS = new Map([
  ['ANSWER_UNEXPECTED', ['server', 'The answer of the service is not what it has to be']],
  ['BAD_CLIENT', ['usage', 'An OAuth client cannot be made like that']],
  ['CA_FILE', ['usage', 'Cannot read the file of --ca-file']],
  ['CLIENT_ID_MISSING', ['usage', '--client-secret-file, --client-key-file and --client-auth need --client-id']],
  ['CONTENT_LENGTH_WRONG', ['integrity', 'More or fewer bytes came than the file has']],
  ['CONTENT_MISSING', ['safety', 'The content of a server’s data directory is not there']],
  ['CONTENT_OLDER', ['safety', 'The content of a server’s data directory is older than its records']],
  ['HUMAN_VERIFICATION', ['auth', 'The server wants a sign that a person logs in']],
  ['LISTEN_FAILED', ['usage', 'Cannot listen for the answer of the browser']],
  ['LIST_CUT', ['server', 'The server’s list ended before its end']],
  ['LOGIN_OPTIONS', ['usage', 'Several things are wrong with the options of a login']],
  ['MEMBER_KEY_CHANGED', ['integrity', 'The server shows another key for a member than was trusted']],
  ['MEMBER_NEW', ['changed', 'A member’s key was never seen before, and gets nothing until it is trusted']],
  ['PORT_TAKEN', ['usage', 'Another program listens on the port of the redirect URI']],
  ['PROXY_AUTH', ['network', 'The proxy wants a login, or refuses it']],
  ['PUBLIC_KEY_INVALID', ['key', 'A public key is none, or is not of its version']],
  [
    'RESCUE_KEY_NEW',
    ['integrity', 'A rescue key would open all files, and gets nothing until its fingerprint was compared'],
  ],
  ['ROOM_UNMANAGED', ['safety', 'Nobody would manage a room any more']],
  ['RUN_FROM_FUTURE', ['safety', 'Runs of the backup are later than the clock of this machine']],
  ['RUN_MISSING', ['not_found', 'There is no such run of the backup']],
  ['RUN_NOT_RECORDED', ['local_io', 'What is done cannot be written down, so it could not go on; a warning']],
  ['S3_OPTIONS', ['usage', 'The options for the object store do not fit']],
  ['SCOPE_NARROWED', ['auth', 'A warning: the server granted less scope than was asked for']],
  ['SECRET_FILE_UNREADABLE', ['usage', 'The file with a secret cannot be read']],
  ['SET_OTHER_KIND', ['safety', 'A backup set was begun by a machine that can read it, or by one that can only write']],
  ['SIGHUP', ['cancelled', 'Stopped since the terminal is gone']],
  ['SIGTERM', ['cancelled', 'Stopped by SIGTERM']],
  ['STORE_OLDER', ['safety', 'The records of a server’s data directory are older than its content']],
])

function sourcesBelow(root, directory) {
  return readdirSync(join(root, directory), { withFileTypes: true })
    .flatMap((entry) => {
      const path = `${directory}/${entry.name}`
      return entry.isDirectory() ? sourcesBelow(root, path) : entry.name.endsWith('.ts') ? [path] : []
    })
    .sort()
}

const clean = (text) =>
  text
    .replace(/\$\{(?:[^{}]|\{[^{}]*\})*\}/g, '…')
    .replace(/\\(.)/g, '$1')
    .replaceAll('|', '\\|')
    .trim()

/** The codes of the closed list. */
export function listedCodes(root) {
  const list = readFileSync(join(root, 'crypto/error-codes.ts'), 'utf8')
  return [...list.matchAll(/^ {2}\| '([A-Z0-9_]+)'$/gm)].map((match) => match[1]).sort()
}

/** What the sources say of each code: `{ classes, texts, files }`. */
export function readCodes(root) {
  const files = [...sourcesBelow(root, 'crypto'), ...sourcesBelow(root, 'src')]
  const texts = new Map(files.map((file) => [file, readFileSync(join(root, file), 'utf8')]))
  const found = new Map(listedCodes(root).map((code) => [code, { classes: new Set(), texts: [], files: new Set() }]))
  const note = (code, kind, text, file) => {
    const entry = found.get(code)
    if (entry === undefined) throw new Error(`${code} in ${file} is not in the list`)
    if (kind !== undefined) entry.classes.add(kind)
    if (text !== undefined) entry.texts.push(clean(text))
    entry.files.add(file)
  }
  const helpers = new Map([
    ['report', 'usage'],
    ['return ', 'usage'],
  ])
  for (const text of texts.values()) for (const [, name, kind] of text.matchAll(HELPER)) helpers.set(name, kind)
  for (const [file, text] of texts) {
    if (file === 'crypto/error-codes.ts') continue
    for (const pattern of WITH_CLASS) {
      for (const [, kind, code, one, other] of text.matchAll(pattern)) note(code, kind, one ?? other, file)
    }
    for (const [name, kind] of helpers) {
      const isLocal = text.includes(name)
      const call = new RegExp(String.raw`\b${name}[([]\s*${CODE},\s*(?:${TEXT})?`, 'g')
      // A name such as `stop` or `integrity` is another function elsewhere, but with the same class.
      if (isLocal) {
        for (const [, code, one, other] of text.matchAll(call)) {
          if (found.has(code)) note(code, kind, one ?? other, file)
        }
      }
    }
    for (const [, code, one] of text.matchAll(/code: '([A-Z_]+)',\s*what: '([^']*)'/g)) note(code, 'tls', one, file)
    for (const [, code, one, other] of text.matchAll(
      new RegExp(String.raw`code: ${CODE},\s*message:\s*${TEXT}`, 'g'),
    )) {
      if (found.has(code) && file.startsWith('src/cli/')) note(code, 'usage', one ?? other, file)
    }
    for (const [, code] of text.matchAll(/'([A-Z][A-Z0-9_]+)'/g)) {
      if (found.has(code) && found.get(code).files.size === 0) note(code, undefined, undefined, file)
    }
  }
  for (const [code, [kind, text]] of OTHERS) {
    const entry = found.get(code)
    if (entry === undefined || entry.texts.length > 0) throw new Error(`${code}: the sources say it themselves`)
    entry.classes.add(kind)
    entry.texts.push(text)
  }
  return found
}

/** @param exitCodeOf - Of the command line. */
export function errorTable(root, exitCodeOf) {
  const rows = [...readCodes(root)].map(([code, { classes, texts, files }]) => {
    const kinds = [...classes].sort()
    const exits = [...new Set(kinds.map((kind) => exitCodeOf({ class: kind, code })))].sort((a, b) => a - b)
    // Folders, since a file that is moved changes nothing for a reader.
    const folders = new Set([...files].map((file) => file.split('/').slice(0, -1).slice(0, 2).join('/')))
    const places = [...folders].sort().map((folder) => `\`${folder}\``)
    return `| \`${code}\` | ${kinds.join(', ')} | ${exits.join(', ')} | ${texts[0] ?? ''} | ${places.join(', ')} |`
  })
  return `# Error codes

Written by \`npm run docs:error-codes\` from the sources. A \`SyncError\` has a \`class\`, which says what can be done about it, and
a \`code\`, which names its cause and stays. The type \`SyncErrorCode\` lists all of them. The exit code is that of a command that
ends with such an error; what single files fail with is in its summary, and makes it end with 3, unless it is worse.

| code | class | exit code | what has happened, for example | raised in |
| --- | --- | --- | --- | --- |
| \`LOCAL_E…\` | local_io | 10 | A call to the file system failed; the rest of the code is the system’s: \`LOCAL_ENOSPC\` | \`src\` |
${rows.join('\n')}
`
}
