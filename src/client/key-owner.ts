/** Owners of keys as people read them. @module */

/** Who somebody is, as the server says. */
export interface KeyOwner {
  readonly userId: number
  readonly name?: string | undefined
  /** Belongs to no member, and opens every file of a room. */
  readonly isRescueKey?: boolean | undefined
}

/**
 * How an owner is called in messages: name and id.
 *
 * @param show - Makes the name, which is what the server says, fit to be shown. Default: letters that could hide become `?`.
 */
export const ownerText = ({ userId, name, isRescueKey }: KeyOwner, show: (name: string) => string = shown): string =>
  `${isRescueKey === true ? 'rescue key' : name === undefined ? 'user' : show(name)} (id:${userId})`

const shown = (name: string) => name.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, '?').slice(0, 80)
