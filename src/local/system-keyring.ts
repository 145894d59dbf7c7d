/**
 * The operating system's keyring as a small store of texts: Keychain, Credential Manager, or the Secret Service.
 * @module
 */
import { loadNative } from './native.ts'

export interface SystemKeyring {
  get(account: string): Promise<string | undefined>
  set(account: string, text: string): Promise<void>
  /** No error when there is nothing. */
  remove(account: string): Promise<void>
  /** Under which names something is kept, sorted. */
  accounts(): Promise<string[]>
}

const SERVICE = 'sealsync'
// On Linux the package would otherwise use the kernel's keyring, which forgets everything at the next boot.
const ENTRY_OPTIONS = { linux: { store: 'secret-service' } } as const
const PROBE_MS = 5_000

/**
 * Opens the keyring.
 *
 * @param options.probe - Write, read back and remove something first.
 * @returns `undefined` when there is none, or when the probe fails.
 */
export async function openSystemKeyring(options: { probe: boolean }): Promise<SystemKeyring | undefined> {
  // Without a session bus there is no secret service, and asking for one can take seconds.
  if (process.platform === 'linux' && !process.env.DBUS_SESSION_BUS_ADDRESS) return undefined
  try {
    const { AsyncEntry, findCredentialsAsync } = (await loadNative(
      '@napi-rs/keyring',
    )) as typeof import('@napi-rs/keyring')
    const entry = (account: string) => new AsyncEntry(SERVICE, account, ENTRY_OPTIONS)
    if (options.probe) {
      const probe = entry(`probe ${globalThis.crypto.randomUUID()}`)
      const signal = AbortSignal.timeout(PROBE_MS)
      await probe.setPassword('probe', signal)
      const works = (await probe.getPassword(signal)) === 'probe'
      await probe.deletePassword(signal)
      if (!works) return undefined
    }
    return {
      get: async (account) => (await entry(account).getPassword()) ?? undefined,
      set: (account, text) => entry(account).setPassword(text),
      async remove(account) {
        await entry(account).deletePassword()
      },
      accounts: async () => (await findCredentialsAsync(SERVICE)).map(({ account }) => account).sort(),
    }
  } catch {
    return undefined
  }
}
