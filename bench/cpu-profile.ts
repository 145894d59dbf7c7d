/** Sums up what `node --cpu-prof` wrote: where a thread spent its time, by function and by kind. @module */

interface ProfileNode {
  readonly id: number
  readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number }
}

export interface CpuProfile {
  readonly nodes: readonly ProfileNode[]
  readonly samples: readonly number[]
  /** Microseconds before each sample. */
  readonly timeDeltas: readonly number[]
}

export interface SelfTime {
  readonly name: string
  readonly ms: number
  /** Of the time that was not idle. */
  readonly share: number
}

export interface Summary {
  readonly totalMs: number
  readonly idleMs: number
  readonly functions: readonly SelfTime[]
  readonly places: readonly SelfTime[]
}

const IDLE = '(idle)'

/** The end of a path is what tells files apart; inside the program it is shown from dist/ on. */
const fileOf = (url: string) =>
  /\/dist\/(.+)$/.exec(url)?.[1] ?? /\/node_modules\/(.+)$/.exec(url)?.[1] ?? url.replace(/^file:\/\//, '')

const nameOf = ({ functionName, url, lineNumber }: ProfileNode['callFrame']) => {
  const name = functionName === '' ? '(anonymous)' : functionName
  return url === '' ? name : `${name} ${fileOf(url)}:${lineNumber + 1}`
}

/** A package, a directory of ours, a part of node, or what the engine does by itself. */
function placeOf({ functionName, url }: ProfileNode['callFrame']): string {
  if (url === '') return functionName.startsWith('(') ? functionName : 'native code'
  if (url.startsWith('node:')) return url.split('/').slice(0, 2).join('/')
  const file = fileOf(url)
  if (url.includes('/node_modules/'))
    return file
      .split('/')
      .slice(0, file.startsWith('@') ? 2 : 1)
      .join('/')
  return url.includes('/dist/') ? file.split('/').slice(0, -1).join('/') : 'elsewhere'
}

/** Self time by function and by place, longest first. */
export function summarize({ nodes, samples, timeDeltas }: CpuProfile): Summary {
  const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]))
  const byFunction = new Map<string, number>()
  const byPlace = new Map<string, number>()
  let [total, idle] = [0, 0]
  samples.forEach((id, index) => {
    const frame = frames.get(id)
    // The time after a sample is spent in it; the last one has none.
    const spent = Math.max(0, timeDeltas[index + 1] ?? 0) / 1000
    if (frame === undefined) return
    total += spent
    if (frame.functionName === IDLE) {
      idle += spent
      return
    }
    for (const [sums, key] of [
      [byFunction, nameOf(frame)],
      [byPlace, placeOf(frame)],
    ] as const) {
      sums.set(key, (sums.get(key) ?? 0) + spent)
    }
  })
  const busy = total - idle || 1
  const sorted = (sums: ReadonlyMap<string, number>) =>
    [...sums].map(([name, ms]) => ({ name, ms, share: ms / busy })).sort((a, b) => b.ms - a.ms)
  return { totalMs: total, idleMs: idle, functions: sorted(byFunction), places: sorted(byPlace) }
}

/** As lines of text. */
export function showSummary({ totalMs, idleMs, functions, places }: Summary, most = 15): string[] {
  const line = ({ name, ms, share }: SelfTime) =>
    `  ${(share * 100).toFixed(1).padStart(5)} %  ${ms.toFixed(0).padStart(6)} ms  ${name}`
  return [
    `${totalMs.toFixed(0)} ms, of which idle ${idleMs.toFixed(0)} ms; shares are of the rest`,
    ' by place:',
    ...places.slice(0, most).map(line),
    ' by function:',
    ...functions.slice(0, most).map(line),
  ]
}
