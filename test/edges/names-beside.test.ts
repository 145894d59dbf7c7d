/** What is kept beside something else gets a name that a disk can hold, also where there is no room for more letters. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { freeName } from '../../src/sync/conflicts.ts'
import { createWorld } from '../support/cli.ts'

test('names of every length stay within what a disk holds', () => {
  for (const letter of ['a', 'ü', '漢', '😀']) {
    for (const extension of ['', '.txt', `.${letter.repeat(20)}`, `.${'x'.repeat(200)}`]) {
      const room = 255 - Buffer.byteLength(extension)
      const name = letter.repeat(Math.floor(room / Buffer.byteLength(letter))) + extension
      const first = freeName(name, () => true)
      const second = freeName(name, (candidate) => candidate !== first)
      for (const free of [first, second]) expect([name, Buffer.byteLength(free) <= 255]).toEqual([name, true])
      expect([first === second, first === name, /\p{Surrogate}/u.test(first)]).toEqual([false, false, false])
      if (extension.length < 100) expect(first.endsWith(` (1)${extension}`)).toBe(true)
    }
  }
})

test.skipIf(process.platform === 'win32')('a download beside a file with the longest name', async () => {
  const world = await createWorld()
  try {
    const [source, target] = [world.path('source'), world.path('target')]
    const name = `${'漢'.repeat(83)}.txt`
    for (const directory of [source, target]) mkdirSync(directory)
    writeFileSync(join(source, name), 'there')
    writeFileSync(join(target, name), 'here')
    const client = await world.client()
    expect(await client.upload([source], '/room', { contents: true })).toMatchObject({ failed: [], transferred: 1 })
    const { failed } = await client.download(['/room'], target, { contents: true, onConflict: 'rename' })
    expect(failed).toEqual([])
    const contents = readdirSync(target).map((one) => readFileSync(join(target, one), 'utf8'))
    expect(contents.sort()).toEqual(['here', 'there'])
  } finally {
    await world.close()
  }
})
