/** What was thrown somewhere, as an error of ours: a disk that fails is no defect of this program, wherever it fails. */

import { once } from 'node:events'
import { lstatSync, readFileSync, readSync } from 'node:fs'
import { connect } from 'node:net'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { exitCodeOf } from '../src/cli/exit-codes.ts'
import { toSyncError } from '../src/errors.ts'
import { errorTable, readCodes } from './support/error-codes.mjs'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

function thrownBy(work: () => unknown): unknown {
  try {
    work()
  } catch (error) {
    return error
  }
  throw new Error('nothing was thrown')
}

test('calls to the file system are of class local_io', () => {
  const missing = toSyncError(thrownBy(() => lstatSync('/missing')))
  expect(missing).toMatchObject({ class: 'local_io', code: 'LOCAL_ENOENT', message: 'Cannot lstat /missing (ENOENT)' })
  expect(toSyncError(thrownBy(() => readFileSync('/')))).toMatchObject({ code: 'LOCAL_EISDIR' })
  expect(toSyncError(thrownBy(() => readSync(1_000_000, Buffer.alloc(1))))).toMatchObject({ class: 'internal' })
  const full = Object.assign(new Error('write'), { code: 'Unknown system error -122', errno: -122, syscall: 'write' })
  expect(toSyncError(full)).toMatchObject({
    class: 'local_io',
    code: process.platform === 'linux' ? 'LOCAL_EDQUOT' : 'LOCAL_E122',
  })
})

test('sockets and our own mistakes are not', async () => {
  const socket = connect({ host: '127.0.0.1', port: 1 })
  const [error] = await once(socket, 'connect').then(
    () => [undefined],
    (reason) => [reason],
  )
  expect(toSyncError(error).class).toBe('internal')
  expect(toSyncError(Object.assign(new Error('read'), { code: 'ECONNRESET', syscall: 'read' })).class).toBe('internal')
  expect(toSyncError(new TypeError('x is not a function')).class).toBe('internal')
})

test('every listed code is raised somewhere, with a class and a meaning', () => {
  for (const [code, { classes, texts, files }] of readCodes(ROOT)) {
    expect([classes.size > 0, texts.length > 0, files.size > 0], code).toEqual([true, true, true])
  }
})

test('docs/error-codes.md is what the sources say; else: npm run docs:error-codes', () => {
  const table = errorTable(ROOT, exitCodeOf)
  expect(readFileSync(new URL('../docs/error-codes.md', import.meta.url), 'utf8')).toBe(table)
  expect(table.split('\n').length).toBeGreaterThan(250)
})
