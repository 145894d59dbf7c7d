/** Shells whose command lines are completed. @module */

export const SHELLS = Object.freeze(['bash', 'zsh', 'fish'] as const)
export type Shell = (typeof SHELLS)[number]
