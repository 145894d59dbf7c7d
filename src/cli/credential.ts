/** Secrets that systemd hands to a service: files in $CREDENTIALS_DIRECTORY, which only that service can read (systemd.exec(5)). @module */
import { constants } from 'node:fs'
import { lstat, open } from 'node:fs/promises'
import { isAbsolute, join } from 'node:path'
import { localError, SyncError } from '../errors.ts'

const MAX_BYTES = 64 * 1024

const missing = (why: string, cause?: unknown) =>
  new SyncError('usage', 'CREDENTIAL_MISSING', `The credential is not there: ${why}`, {
    hint: 'In the unit of the service: LoadCredentialEncrypted=NAME:FILE, made with systemd-creds encrypt',
    cause,
  })

const unsafe = (path: string) =>
  new SyncError('usage', 'SECRET_FILE_OPEN', `Other users can change or read the credential ${path}`, {
    hint: 'systemd makes these for one service alone; who has made this one?',
  })

const isOurs = (uid: number) => uid === 0 || uid === process.getuid?.()

/**
 * Reads a credential; one line end behind it is cut off. systemd may show the right of the one user who may read it as that of a
 * group (an access control list), so reading by a group is no fault here.
 *
 * @throws {SyncError} `OPTION_INVALID` for no name; `CREDENTIAL_MISSING`; `SECRET_FILE_OPEN` when somebody else could have put it there.
 */
export async function readCredential(name: string, directory = process.env.CREDENTIALS_DIRECTORY): Promise<Uint8Array> {
  if (!/^[\w.@:+-]{1,255}$/.test(name) || /^\.+$/.test(name)) {
    throw new SyncError('usage', 'OPTION_INVALID', '--key-password-credential takes the name of a credential')
  }
  if (directory === undefined || !isAbsolute(directory)) {
    throw missing('systemd has started this without any')
  }
  const path = join(directory, name)
  try {
    const folder = await lstat(directory)
    if (!folder.isDirectory() || !isOurs(folder.uid) || (folder.mode & 0o022) !== 0) throw unsafe(directory)
    const handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW)
    try {
      const info = await handle.stat()
      if (!info.isFile() || !isOurs(info.uid) || (info.mode & 0o027) !== 0) throw unsafe(path)
      if (info.size > MAX_BYTES) throw new SyncError('usage', 'SECRET_TOO_LONG', `The credential ${name} is too long`)
      const bytes = await handle.readFile()
      let end = bytes.length
      if (bytes[end - 1] === 0x0a) end -= bytes[end - 2] === 0x0d ? 2 : 1
      return bytes.subarray(0, end)
    } finally {
      await handle.close()
    }
  } catch (error) {
    const wrapped = localError(error, `read the credential ${name}`)
    if (wrapped instanceof SyncError && wrapped.class === 'local_io') throw missing(wrapped.message, error)
    throw wrapped
  }
}
