/**
 * How many parts of a file are on their way at once: few at first, one more as long as that makes it faster. A network whose
 * bandwidth-delay product one connection fills gains nothing by more; another one does, as far as memory goes.
 * @module
 */
import type { Clock } from '../environment.ts'
import type { SlabPool, Window } from './flow.ts'

export interface PartWindow extends Window {
  readonly sending: () => number
  /** Says that a part has arrived. */
  acknowledged(bytes: number): void
}

/** While two leave, and one more waits for its answer, the line is never idle. */
const AT_FIRST = 2
const LEAST = 3
/** Slabs that are not for parts of one file that are in flight: its next part, and what other files make. */
const SPARE = 3
/** What one more has to bring to be kept. */
const GAIN = 1.1
/** Measurements after one that brought nothing, until it is tried again. */
const PAUSE = 8

/** Parts of one file in flight: as many as there is memory for, less what others need. */
export const partsInFlight = ({ count }: SlabPool): number => Math.max(LEAST, count - SPARE)

/** @param most - Parts in flight, those that have left and wait for their answer among them. */
export function createPartWindow(most: number, clock: Clock): PartWindow {
  let sending = Math.min(AT_FIRST, most)
  let since = clock.monotonic()
  let [bytes, parts] = [0, 0]
  /** Bytes per millisecond before there was one more; absent: nothing is being tried. */
  let before: number | undefined
  let pause = 0

  function judge(rate: number): void {
    if (before !== undefined && rate < before * GAIN) {
      sending--
      before = undefined
      pause = PAUSE
      return
    }
    before = undefined
    if (pause-- > 0 || sending >= most) return
    before = rate
    sending++
  }

  return {
    most,
    sending: () => sending,
    acknowledged(length) {
      bytes += length
      // Each that is sending has had two turns by then.
      if (++parts < 2 * sending) return
      const now = clock.monotonic()
      const rate = bytes / Math.max(1, now - since)
      ;[since, bytes, parts] = [now, 0, 0]
      judge(rate)
    },
  }
}
