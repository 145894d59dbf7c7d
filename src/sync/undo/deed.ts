/** What both sides need to take something back. @module */
import { SyncError } from '../../errors.ts'
import type { Deed } from '../state.ts'

export type DeedOf<Kind extends Deed['do']> = Extract<Deed, { readonly do: Kind }>

export const changed = (what: string): SyncError =>
  new SyncError('changed', 'CHANGED_SINCE', `${what}, so it was left alone`, {
    hint: 'Look at it and decide yourself.',
  })
