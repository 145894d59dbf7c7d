/** Packages with native parts, which are optional: loaded on demand, and never part of a bundle. @module */

/**
 * Loads a package from where it is installed. The name is not written into the import, so that a bundler does not follow it.
 *
 * @throws what the import throws when it is not there, or not for this machine.
 */
export const loadNative = (name: string): Promise<unknown> => import(/* @vite-ignore */ name)
