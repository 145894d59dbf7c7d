/** Permissions and times of files, as they are brought back from a manifest. @module */

/** Seconds since the epoch. The system cuts what it gets to microseconds, so half of one keeps it from losing another. */
export const secondsOf = (mtimeNs: string): number => Number(BigInt(mtimeNs) / 1000n) / 1e6 + 5e-7

/** Permission bits that a file may get: never setuid, setgid or sticky. */
export const FILE_MODE = 0o777
