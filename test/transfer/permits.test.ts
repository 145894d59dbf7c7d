import { expect, test } from 'vitest'
import { createPermits } from '../../src/transfer/permits.ts'

const never = new AbortController().signal

test('no more than there are, in the order of asking, and none past those who wait', async () => {
  const permits = createPermits(2)
  const got: string[] = []
  expect([permits.takeFree(), permits.takeFree(), permits.takeFree()]).toEqual([true, true, false])
  const first = permits.take(never).then(() => got.push('first'))
  const second = permits.take(never).then(() => got.push('second'))
  permits.give()
  expect(permits.takeFree()).toBe(false)
  await first
  expect(got).toEqual(['first'])
  permits.give()
  await second
  permits.give()
  expect([permits.takeFree(), permits.takeFree()]).toEqual([true, false])
})

test('who gives up waiting takes none', async () => {
  const permits = createPermits(1)
  await permits.take(never)
  const stop = new AbortController()
  const waiting = permits.take(stop.signal)
  stop.abort(new Error('enough'))
  await expect(waiting).rejects.toThrow('enough')
  await expect(permits.take(stop.signal)).rejects.toThrow('enough')
  permits.give()
  expect(permits.takeFree()).toBe(true)
})
